-- depends: 0002.machines
-- Tell every router what changed: NOTIFY machine, '<user id>'.

-- last_active_at is written every few seconds and moves no route: changing it alone is silent.
CREATE OR REPLACE FUNCTION notify_machine() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM pg_notify('machine', OLD.user_id::text);
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        OLD.last_active_at := NEW.last_active_at;
        IF OLD IS NOT DISTINCT FROM NEW THEN
            RETURN NULL;
        END IF;
    END IF;
    PERFORM pg_notify('machine', NEW.user_id::text);
    RETURN NULL;
END;
$$;

CREATE OR REPLACE TRIGGER machines_notify AFTER INSERT OR UPDATE OR DELETE ON machines
    FOR EACH ROW EXECUTE FUNCTION notify_machine();

CREATE OR REPLACE FUNCTION notify_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('machine', NEW.id::text);
    RETURN NULL;
END;
$$;

CREATE OR REPLACE TRIGGER users_notify AFTER UPDATE ON users
    FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state
          OR OLD.idle_timeout_s IS DISTINCT FROM NEW.idle_timeout_s)
    EXECUTE FUNCTION notify_user();
