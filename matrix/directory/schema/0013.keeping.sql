-- depends: 0007.sign-ins
-- What is done with a user's snapshots by the box itself: thinning out, checking, trying, and
-- deleting them after the user was deleted. A row is made with the user's machine. It does not
-- refer to users, for it must outlive a row that an operator removes there: as long as it is
-- here, what is left in the store is known.

CREATE TABLE IF NOT EXISTS upkeep (
    user_id          uuid PRIMARY KEY,
    thin_at          timestamptz NOT NULL DEFAULT now(),
    scrub_at         timestamptz NOT NULL DEFAULT now() + random() * interval '7 days',
    erase_at         timestamptz,
    thinned_at       timestamptz,
    scrubbed_at      timestamptz,
    drilled_at       timestamptz,
    drill_seconds    double precision,
    drill_bytes      bigint,
    mark             text,
    trouble          text,
    trouble_of       text,
    failures         integer NOT NULL DEFAULT 0,
    deleted_at       timestamptz,
    erasing_at       timestamptz,
    erased_at        timestamptz,
    wanted           text,
    wanted_at        timestamptz,
    lease_owner      text,
    lease_expires_at timestamptz,
    CONSTRAINT upkeep_lease_whole CHECK ((lease_owner IS NULL) = (lease_expires_at IS NULL))
);

CREATE INDEX IF NOT EXISTS upkeep_thin ON upkeep (thin_at) WHERE deleted_at IS NULL;
CREATE INDEX IF NOT EXISTS upkeep_scrub ON upkeep (scrub_at) WHERE deleted_at IS NULL;
CREATE INDEX IF NOT EXISTS upkeep_drill ON upkeep (drilled_at) WHERE thinned_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS upkeep_erase ON upkeep (deleted_at)
    WHERE deleted_at IS NOT NULL AND erased_at IS NULL;

CREATE OR REPLACE FUNCTION begin_upkeep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO upkeep (user_id) VALUES (NEW.user_id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END;
$$;

CREATE OR REPLACE TRIGGER machines_upkeep AFTER INSERT ON machines
    FOR EACH ROW EXECUTE FUNCTION begin_upkeep();

-- The row is locked before it is judged: whoever erases, and whoever lets in again, wait for each
-- other, and the second sees what the first did.
CREATE OR REPLACE FUNCTION note_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz;
BEGIN
    IF NEW.state = 'deleted' THEN
        INSERT INTO upkeep (user_id, deleted_at) VALUES (NEW.id, now())
        ON CONFLICT (user_id) DO UPDATE SET deleted_at = excluded.deleted_at;
    ELSE
        UPDATE upkeep SET deleted_at = NULL WHERE user_id = NEW.id RETURNING erasing_at INTO began;
        IF began IS NOT NULL THEN
            RAISE EXCEPTION 'the data of user % are being erased since %', NEW.id, began
                USING ERRCODE = 'restrict_violation';
        END IF;
    END IF;
    RETURN NULL;
END;
$$;

CREATE OR REPLACE TRIGGER users_upkeep AFTER UPDATE ON users
    FOR EACH ROW WHEN ((OLD.state = 'deleted') <> (NEW.state = 'deleted'))
    EXECUTE FUNCTION note_deletion();

INSERT INTO upkeep (user_id) SELECT user_id FROM machines ON CONFLICT DO NOTHING;
INSERT INTO upkeep (user_id, deleted_at) SELECT id, now() FROM users WHERE state = 'deleted'
    ON CONFLICT (user_id) DO UPDATE SET deleted_at = excluded.deleted_at;
