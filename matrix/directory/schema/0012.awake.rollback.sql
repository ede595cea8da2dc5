DROP TRIGGER IF EXISTS machines_awake ON machines;

DROP FUNCTION IF EXISTS count_awake();

DROP FUNCTION IF EXISTS add_awake(uuid, text, timestamptz, timestamptz, bigint);

DROP FUNCTION IF EXISTS is_awake(text);

DROP TABLE IF EXISTS awake_totals;

DROP TABLE IF EXISTS awake_days;

DROP TABLE IF EXISTS awake;
