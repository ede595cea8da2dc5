DROP TRIGGER IF EXISTS users_access ON users;

DROP FUNCTION IF EXISTS notify_user_access();

DROP TABLE IF EXISTS sessions;

DROP FUNCTION IF EXISTS notify_session_access();
