DROP TABLE IF EXISTS snapshot_times;

DROP TABLE IF EXISTS snapshots;
