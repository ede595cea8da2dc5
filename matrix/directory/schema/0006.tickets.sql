-- depends: 0005.sessions
-- What stands for a credential for some seconds, once, at any router. Only the digest is kept: who
-- reads this table can open nothing.

CREATE TABLE IF NOT EXISTS tickets (
    digest           bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    user_id          uuid NOT NULL,
    session_id       uuid NOT NULL,
    email            text NOT NULL,
    token_expires_at double precision NOT NULL,
    expires_at       timestamptz NOT NULL
);

-- Those that nobody used.
CREATE INDEX IF NOT EXISTS tickets_by_end ON tickets (expires_at);
