"""The SQL statements about sessions and users' states, each one transaction."""

from __future__ import annotations

from psycopg2.sql import SQL

from matrix.directory._rows import SESSION_COLUMNS, USER_COLUMNS
from matrix.directory._statements import names

# The row is locked and read before it is changed: what it was belongs to the event.
SET_USER_STATE = SQL(
    """
    WITH before AS (
        SELECT id, state FROM users WHERE id = %(user_id)s FOR NO KEY UPDATE
    ), changed AS (
        UPDATE users SET state = %(state)s FROM before WHERE users.id = before.id
        RETURNING {}, before.state AS was
    ), noted AS (
        INSERT INTO events (user_id, kind, cause, detail)
        SELECT id, %(kind)s, %(cause)s, jsonb_build_object('was', was)
        FROM changed WHERE was <> state
    )
    SELECT {} FROM changed
    """
).format(names(USER_COLUMNS, "users"), names(USER_COLUMNS))

NOT_ACTIVE = "SELECT id, state FROM users WHERE id = ANY(%s::uuid[]) AND state <> 'active'"

# Rows are locked in one order: two routers that saw the same sessions never wait in a circle.
# What would change nothing writes nothing.
NOTE = """
    INSERT INTO sessions (session_id, user_id, expires_at)
    SELECT session_id, user_id, to_timestamp(expires)
    FROM unnest(%(sessions)s::uuid[], %(users)s::uuid[], %(expires)s::double precision[])
        AS given (session_id, user_id, expires)
    ORDER BY session_id
    ON CONFLICT (session_id) DO UPDATE SET
        user_id = coalesce(sessions.user_id, excluded.user_id),
        expires_at = greatest(sessions.expires_at, excluded.expires_at),
        revoked_until = CASE WHEN sessions.revoked_at IS NOT NULL
            THEN greatest(sessions.revoked_until, excluded.expires_at + %(slack)s) END
    WHERE sessions.expires_at < excluded.expires_at OR sessions.user_id IS NULL
    RETURNING 1
    """

NEWEST = """
    SELECT session_id, extract(epoch FROM expires_at)::double precision
    FROM sessions WHERE session_id = ANY(%s::uuid[]) AND revoked_at IS NULL
    """

OF_USER = SQL(
    "SELECT {} FROM sessions WHERE user_id = %s ORDER BY expires_at DESC, session_id LIMIT %s"
).format(names(SESSION_COLUMNS))

# now() is the transaction's: what has it for its time was revoked here, and not before.
REVOKE = SQL(
    """
    WITH done AS (
        INSERT INTO sessions
            (session_id, user_id, expires_at, revoked_at, revoke_cause, revoked_until)
        VALUES (
            %(session_id)s, %(user_id)s, now() + %(longest)s,
            now(), %(cause)s, now() + %(memory)s
        )
        ON CONFLICT (session_id) DO UPDATE SET
            user_id = coalesce(sessions.user_id, excluded.user_id),
            revoked_at = coalesce(sessions.revoked_at, excluded.revoked_at),
            revoke_cause = coalesce(sessions.revoke_cause, excluded.revoke_cause),
            revoked_until = greatest(
                sessions.revoked_until, sessions.expires_at + %(slack)s, excluded.revoked_until
            )
        RETURNING {}
    ), noted AS (
        INSERT INTO events (user_id, kind, cause, detail)
        SELECT users.id, %(kind)s, %(cause)s, jsonb_build_object('session', session_id)
        FROM done JOIN users ON users.id = done.user_id WHERE revoked_at = now()
    )
    SELECT {} FROM done
    """
).format(names(SESSION_COLUMNS), names(SESSION_COLUMNS))

REVOKE_USER = """
    WITH live AS (
        SELECT session_id FROM sessions
        WHERE user_id = %(user_id)s AND revoked_at IS NULL
        ORDER BY session_id FOR NO KEY UPDATE
    ), done AS (
        UPDATE sessions SET
            revoked_at = now(),
            revoke_cause = %(cause)s,
            revoked_until = greatest(expires_at + %(slack)s, now() + %(memory)s)
        FROM live WHERE sessions.session_id = live.session_id
        RETURNING sessions.session_id
    ), noted AS (
        INSERT INTO events (user_id, kind, cause, detail)
        SELECT id, %(kind)s, %(cause)s,
            jsonb_build_object('sessions', (SELECT count(*) FROM done))
        FROM users WHERE id = %(user_id)s AND EXISTS (SELECT FROM done)
    )
    SELECT session_id FROM done
    UNION ALL SELECT NULL FROM pg_notify('access', 'sessions ' || %(user_id)s || ' ' || %(cause)s)
    ORDER BY session_id
    """
"""The last row is of the telling, and empty."""

REVOKED = """
    SELECT session_id FROM sessions WHERE revoked_at IS NOT NULL AND revoked_until > now()
    """

# A batch at a time, so that none takes long; rows that others hold are left to the next time.
PURGE = """
    WITH over AS (
        SELECT session_id FROM sessions
        WHERE (revoked_at IS NULL AND expires_at <= now() - %(kept)s)
            OR (revoked_at IS NOT NULL AND revoked_until <= now())
        LIMIT %(batch)s FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM sessions USING over WHERE sessions.session_id = over.session_id RETURNING 1
    )
    SELECT count(*) FROM gone
    """
