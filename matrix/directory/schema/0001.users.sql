-- Who may come in. A deleted user keeps the row, so that a late token meets 410, not a new machine.

CREATE TABLE IF NOT EXISTS users (
    id             uuid PRIMARY KEY,
    email          text NOT NULL DEFAULT '',
    state          text NOT NULL DEFAULT 'active'
                   CONSTRAINT users_state_known CHECK (state IN ('active', 'blocked', 'deleted')),
    idle_timeout_s double precision
                   CONSTRAINT users_idle_timeout_positive CHECK (idle_timeout_s > 0),
    created_at     timestamptz NOT NULL DEFAULT now()
);

-- Operators look users up by address or by the part before its @, whatever the case.
CREATE INDEX IF NOT EXISTS users_by_name ON users (split_part(lower(email), '@', 1));
