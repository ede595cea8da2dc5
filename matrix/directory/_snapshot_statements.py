"""The SQL statements about snapshots, each one transaction."""

from __future__ import annotations

from psycopg2.sql import SQL

from matrix.directory._rows import SNAPSHOT_COLUMNS
from matrix.directory._statements import names

_SNAPSHOT = names(SNAPSHOT_COLUMNS)

# Rows are locked in one order: two routers that enroll the same users never wait in a circle.
ENROLL = """
    INSERT INTO snapshot_times (user_id, due_at)
    SELECT users.id, now() + make_interval(secs => given.seconds)
    FROM unnest(%s::uuid[], %s::double precision[]) AS given (user_id, seconds)
    JOIN users ON users.id = given.user_id ORDER BY users.id
    ON CONFLICT (user_id) DO UPDATE SET due_at = excluded.due_at
        WHERE snapshot_times.due_at IS NULL
    RETURNING 1
    """

# What another router is claiming is left to it. The unique index has the last word, for what
# was begun without being due.
CLAIM = SQL(
    """
    WITH due AS (
        SELECT user_id FROM snapshot_times AS times
        WHERE user_id = ANY(%(users)s::uuid[]) AND due_at <= now() AND NOT EXISTS (
            SELECT FROM snapshots
            WHERE snapshots.user_id = times.user_id AND status = 'started'
        )
        ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    INSERT INTO snapshots (user_id, cause, lease_owner, lease_expires_at)
    SELECT user_id, %(cause)s, %(owner)s, now() + %(lease)s FROM due
    ON CONFLICT (user_id) WHERE status = 'started' DO NOTHING
    RETURNING {}
    """
).format(_SNAPSHOT)

BEGIN = SQL(
    """
    INSERT INTO snapshots (user_id, cause, lease_owner, lease_expires_at)
    VALUES (%(user_id)s, %(cause)s, %(owner)s, now() + %(lease)s)
    ON CONFLICT (user_id) WHERE status = 'started' DO NOTHING
    RETURNING {}
    """
).format(_SNAPSHOT)

UNDER_WAY = SQL("SELECT {} FROM snapshots WHERE user_id = %s AND status = 'started'").format(
    _SNAPSHOT
)

_OURS = SQL("id = %(id)s AND status = 'started' AND lease_owner = %(owner)s")

PROLONG = SQL(
    "UPDATE snapshots SET lease_expires_at = now() + %(lease)s WHERE {} RETURNING 1"
).format(_OURS)

_ENDED = SQL(
    """
    WITH ended AS ({}), times AS (
        INSERT INTO snapshot_times (user_id, due_at, failures, good_at)
        SELECT user_id, now() + %(due_in)s, {}, {} FROM ended
        ON CONFLICT (user_id) DO UPDATE SET due_at = excluded.due_at,
            good_at = coalesce(excluded.good_at, snapshot_times.good_at),
            failures = CASE excluded.failures WHEN 0 THEN 0 ELSE snapshot_times.failures + 1 END
    )
    SELECT 1 FROM ended
    """
)
_GOOD, _BAD = SQL("0"), SQL("1")
_NOW, _NEVER = SQL("now()"), SQL("NULL::timestamptz")

FINISH = _ENDED.format(
    SQL(
        """
        UPDATE snapshots SET status = 'done', finished_at = clock_timestamp(),
            restic_id = %(restic_id)s, partial = %(partial)s, bytes_added = %(bytes_added)s,
            bytes_total = %(bytes_total)s, lease_owner = NULL, lease_expires_at = NULL
        WHERE {} RETURNING user_id
        """
    ).format(_OURS),
    _GOOD,
    _NOW,
)

DROP = _ENDED.format(
    SQL("DELETE FROM snapshots WHERE {} RETURNING user_id").format(_OURS), _GOOD, _NEVER
)

FAIL = _ENDED.format(
    SQL(
        """
        UPDATE snapshots SET status = 'failed', finished_at = clock_timestamp(),
            reason = %(reason)s, lease_owner = NULL, lease_expires_at = NULL
        WHERE {} RETURNING user_id
        """
    ).format(_OURS),
    _BAD,
    _NEVER,
)

TAKE_OVER = SQL(
    """
    WITH abandoned AS (
        SELECT id AS abandoned_id FROM snapshots
        WHERE status = 'started' AND lease_expires_at <= now()
        ORDER BY lease_expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    UPDATE snapshots SET lease_owner = %(owner)s, lease_expires_at = now() + %(lease)s
    FROM abandoned WHERE id = abandoned_id
    RETURNING {}
    """
).format(_SNAPSHOT)

OF_USER = SQL(
    "SELECT {} FROM snapshots WHERE user_id = %s ORDER BY started_at DESC, id DESC LIMIT %s"
).format(_SNAPSHOT)

NEWEST = SQL(
    """
    SELECT {} FROM snapshots WHERE user_id = %s AND status = 'done'
    ORDER BY started_at DESC, id DESC LIMIT 1
    """
).format(_SNAPSHOT)

STANDINGS = SQL(
    """
    SELECT times.user_id, email, due_at, failures, CASE WHEN failures > 0 THEN (
        SELECT reason FROM snapshots AS failed
        WHERE failed.user_id = times.user_id AND failed.status = 'failed'
        ORDER BY started_at DESC, id DESC LIMIT 1
    ) END, {}
    FROM (
        SELECT * FROM snapshot_times ORDER BY failures DESC, good_at NULLS FIRST, user_id LIMIT %s
    ) AS times JOIN users ON users.id = times.user_id LEFT JOIN LATERAL (
        SELECT * FROM snapshots AS good
        WHERE good.user_id = times.user_id AND good.status = 'done'
        ORDER BY started_at DESC, id DESC LIMIT 1
    ) AS newest ON true
    ORDER BY times.failures DESC, times.good_at NULLS FIRST, times.user_id
    """
).format(names(SNAPSHOT_COLUMNS, "newest"))

FAILING = "SELECT count(*) FROM snapshot_times WHERE failures > 0"

VERIFIED = """
    UPDATE snapshots SET verified_at = now()
    WHERE user_id = %s AND status = 'done' AND restic_id = ANY(%s::text[]) RETURNING 1
    """

KEEP_ONLY = """
    WITH gone AS (
        DELETE FROM snapshots
        WHERE user_id = %s AND status = 'done' AND restic_id <> ALL(%s::text[])
          AND finished_at < now() - interval '1 hour'
        RETURNING 1
    )
    SELECT count(*) FROM gone
    """

PURGE = """
    WITH gone AS (
        DELETE FROM snapshots WHERE status = 'failed' AND finished_at <= now() - %s RETURNING 1
    )
    SELECT count(*) FROM gone
    """
