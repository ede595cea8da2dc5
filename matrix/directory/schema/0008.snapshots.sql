-- depends: 0007.sign-ins
-- Which snapshots of users' data there are, which are being taken, and when the next are due.

CREATE TABLE IF NOT EXISTS snapshots (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id          uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    restic_id        text,
    cause            text NOT NULL,
    status           text NOT NULL DEFAULT 'started'
                     CONSTRAINT snapshots_status_known
                     CHECK (status IN ('started', 'done', 'failed')),
    reason           text,
    partial          boolean NOT NULL DEFAULT false,
    started_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at      timestamptz,
    bytes_added      bigint,
    bytes_total      bigint,
    verified_at      timestamptz,
    lease_owner      text,
    lease_expires_at timestamptz,
    CONSTRAINT snapshots_done_named CHECK ((status = 'done') <= (restic_id IS NOT NULL)),
    CONSTRAINT snapshots_started_leased CHECK ((status = 'started') = (lease_owner IS NOT NULL)),
    CONSTRAINT snapshots_lease_whole CHECK ((lease_owner IS NULL) = (lease_expires_at IS NULL)),
    CONSTRAINT snapshots_finished CHECK ((status = 'started') = (finished_at IS NULL))
);

-- The newest first, one user at a time.
CREATE INDEX IF NOT EXISTS snapshots_by_user ON snapshots (user_id, started_at DESC, id DESC);

-- One machine takes one at a time, whichever routers ask for it; found by their leases too.
CREATE UNIQUE INDEX IF NOT EXISTS snapshots_under_way ON snapshots (user_id)
    WHERE status = 'started';
CREATE INDEX IF NOT EXISTS snapshots_leases ON snapshots (lease_expires_at)
    WHERE status = 'started';

-- When the next one of a user is due, NULL while nothing can have changed since the last; and
-- when the newest good one was taken.
CREATE TABLE IF NOT EXISTS snapshot_times (
    user_id  uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    due_at   timestamptz,
    good_at  timestamptz,
    failures integer NOT NULL DEFAULT 0
             CONSTRAINT snapshot_times_failures_counted CHECK (failures >= 0)
);

-- Operators ask for those in trouble first, then for those whose newest is oldest.
CREATE INDEX IF NOT EXISTS snapshot_times_by_trouble
    ON snapshot_times (failures DESC, good_at NULLS FIRST, user_id);
