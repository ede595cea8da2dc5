DROP TRIGGER IF EXISTS users_sign_ins ON users;

DROP FUNCTION IF EXISTS forget_sign_ins_of_user();

DROP TRIGGER IF EXISTS sessions_sign_ins ON sessions;

DROP FUNCTION IF EXISTS forget_sign_ins_of_session();

DROP TABLE IF EXISTS sign_ins;
