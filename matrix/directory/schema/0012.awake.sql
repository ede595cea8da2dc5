-- depends: 0007.sign-ins
-- For how long machines are awake, and what for. The rows of machines tell it, whichever router
-- wrote them and whether or not it lives to see the end: so it is counted here, by a trigger.

-- Those that are awake. Without references to users, as the next: both are written while a user's
-- row, and the machine's with it, is deleted.
CREATE TABLE IF NOT EXISTS awake (
    user_id uuid PRIMARY KEY,
    since   timestamptz NOT NULL,
    cause   text NOT NULL
);

-- What is over, by day (UTC) and by what woke the machine.
CREATE TABLE IF NOT EXISTS awake_days (
    user_id uuid NOT NULL,
    day     date NOT NULL,
    cause   text NOT NULL,
    seconds double precision NOT NULL,
    wakes   bigint NOT NULL,
    PRIMARY KEY (user_id, day, cause)
);

-- The longest of some days, and what is old enough to be forgotten.
CREATE INDEX IF NOT EXISTS awake_days_by_day ON awake_days (day);

-- The whole fleet since ever. In many parts: a crowd that wakes at once must not stand in line for
-- one row, which each holds until its own wake is on the disk.
CREATE TABLE IF NOT EXISTS awake_totals (
    cause   text NOT NULL,
    part    smallint NOT NULL,
    seconds double precision NOT NULL,
    wakes   bigint NOT NULL,
    PRIMARY KEY (cause, part)
);

-- A machine that starts costs as much as one that runs.
CREATE OR REPLACE FUNCTION is_awake(state text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT state IN ('starting', 'running', 'draining', 'suspending')
$$;

CREATE OR REPLACE FUNCTION add_awake(
    whose uuid, why text, begun timestamptz, ended timestamptz, times bigint
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO awake_days AS days (user_id, day, cause, seconds, wakes)
    SELECT whose, midnight::date, why, extract(epoch FROM
        least(ended, (midnight + interval '1 day') AT TIME ZONE 'UTC')
        - greatest(begun, midnight AT TIME ZONE 'UTC')
    ), times
    FROM generate_series(
        date_trunc('day', begun AT TIME ZONE 'UTC'), ended AT TIME ZONE 'UTC', interval '1 day'
    ) AS midnight
    ON CONFLICT (user_id, day, cause) DO UPDATE
    SET seconds = days.seconds + excluded.seconds, wakes = days.wakes + excluded.wakes;

    INSERT INTO awake_totals AS totals (cause, part, seconds, wakes)
    VALUES (why, abs(hashtext(whose::text) % 64), extract(epoch FROM ended - begun), times)
    ON CONFLICT (cause, part) DO UPDATE
    SET seconds = totals.seconds + excluded.seconds, wakes = totals.wakes + excluded.wakes;
$$;

CREATE OR REPLACE FUNCTION count_awake() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ran  boolean := TG_OP <> 'INSERT' AND is_awake(OLD.state);
    runs boolean := TG_OP <> 'DELETE' AND is_awake(NEW.state);
    at   timestamptz := clock_timestamp();
    one  awake%ROWTYPE;
    why  text;
BEGIN
    IF runs AND NOT ran THEN
        -- One that nobody of us started was found to run.
        why := CASE WHEN NEW.state = 'starting' THEN coalesce(NEW.wake_cause, 'unknown')
                    ELSE 'found' END;
        INSERT INTO awake VALUES (NEW.user_id, at, why)
        ON CONFLICT (user_id) DO UPDATE SET since = excluded.since, cause = excluded.cause;
        PERFORM add_awake(NEW.user_id, why, at, at, 1);
    ELSIF ran AND NOT runs THEN
        DELETE FROM awake WHERE user_id = OLD.user_id RETURNING * INTO one;
        IF FOUND THEN
            PERFORM add_awake(one.user_id, one.cause, one.since, greatest(at, one.since), 0);
        END IF;
    END IF;
    RETURN NULL;
END;
$$;

CREATE OR REPLACE TRIGGER machines_awake AFTER INSERT OR DELETE OR UPDATE OF state ON machines
    FOR EACH ROW EXECUTE FUNCTION count_awake();

-- Those that are awake already.
INSERT INTO awake SELECT user_id, coalesce(last_wake_at, now()), coalesce(wake_cause, 'unknown')
FROM machines WHERE is_awake(state) ON CONFLICT DO NOTHING;
