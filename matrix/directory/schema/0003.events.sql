-- depends: 0001.users
-- Why is it awake, who woke it, why did it sleep.

CREATE TABLE IF NOT EXISTS events (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind    text NOT NULL,
    cause   text NOT NULL,
    detail  jsonb NOT NULL DEFAULT '{}'
);

-- Newest first, one user at a time; the id orders events of the same microsecond.
CREATE INDEX IF NOT EXISTS events_by_user ON events (user_id, at DESC, id DESC);
