DROP TRIGGER users_notify ON users;

DROP TRIGGER machines_notify ON machines;

DROP FUNCTION notify_user();

DROP FUNCTION notify_machine();
