-- depends: 0004.notify
-- Who is signed in, which sign-ins count no more, and how routers hear of either and of blocked
-- users: NOTIFY access, 'session <session id>' or 'user <user id> <state>'; and, by the statement
-- that revokes all of a user's, 'sessions <user id> <cause>'.

-- Tokens are seen before their user is admitted, and a session may be revoked of which nothing
-- is known: so no reference to users.
CREATE TABLE IF NOT EXISTS sessions (
    session_id    uuid PRIMARY KEY,
    user_id       uuid,
    seen_at       timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    revoked_at    timestamptz,
    revoke_cause  text,
    revoked_until timestamptz,
    CONSTRAINT sessions_revoked_whole CHECK (
        (revoked_at IS NULL) = (revoke_cause IS NULL)
        AND (revoked_at IS NULL) = (revoked_until IS NULL)
    )
);

-- A user's sessions, those first whose tokens live longest.
CREATE INDEX IF NOT EXISTS sessions_by_user ON sessions (user_id, expires_at DESC);

-- All that are revoked, which is what each router asks for at its start; few of all.
CREATE INDEX IF NOT EXISTS sessions_revoked ON sessions (revoked_until)
    WHERE revoked_at IS NOT NULL;

-- What can be forgotten.
CREATE INDEX IF NOT EXISTS sessions_unrevoked ON sessions (expires_at) WHERE revoked_at IS NULL;

CREATE OR REPLACE FUNCTION notify_session_access() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.revoked_at IS NOT NULL THEN
        RETURN NULL;
    END IF;
    PERFORM pg_notify('access', 'session ' || NEW.session_id);
    RETURN NULL;
END;
$$;

CREATE OR REPLACE TRIGGER sessions_access AFTER INSERT OR UPDATE ON sessions
    FOR EACH ROW WHEN (NEW.revoked_at IS NOT NULL) EXECUTE FUNCTION notify_session_access();

CREATE OR REPLACE FUNCTION notify_user_access() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('access', 'user ' || NEW.id || ' ' || NEW.state);
    RETURN NULL;
END;
$$;

CREATE OR REPLACE TRIGGER users_access AFTER UPDATE ON users
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION notify_user_access();
