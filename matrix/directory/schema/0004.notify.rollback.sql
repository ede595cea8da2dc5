DROP TRIGGER IF EXISTS users_notify ON users;

DROP TRIGGER IF EXISTS machines_notify ON machines;

DROP FUNCTION IF EXISTS notify_user();

DROP FUNCTION IF EXISTS notify_machine();
