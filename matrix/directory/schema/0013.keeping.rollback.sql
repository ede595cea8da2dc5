DROP TRIGGER IF EXISTS users_upkeep ON users;

DROP FUNCTION IF EXISTS note_deletion();

DROP TRIGGER IF EXISTS machines_upkeep ON machines;

DROP FUNCTION IF EXISTS begin_upkeep();

DROP TABLE IF EXISTS upkeep;
