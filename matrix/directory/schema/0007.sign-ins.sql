-- depends: 0006.tickets
-- Browsers' sign-ins whose tokens the routers keep and refresh in turns. The tokens are sealed
-- with a key that only the browser's cookie has: this table alone lets nobody in.

CREATE TABLE IF NOT EXISTS sign_ins (
    id               uuid PRIMARY KEY,
    session_id       uuid NOT NULL,
    user_id          uuid NOT NULL,
    sealed           bytea NOT NULL,
    generation       bigint NOT NULL,
    made_at          timestamptz NOT NULL DEFAULT now(),
    ends_at          timestamptz NOT NULL,
    lease_owner      text,
    lease_expires_at timestamptz,
    CONSTRAINT sign_ins_lease_whole CHECK ((lease_owner IS NULL) = (lease_expires_at IS NULL))
);

CREATE INDEX IF NOT EXISTS sign_ins_by_session ON sign_ins (session_id);
CREATE INDEX IF NOT EXISTS sign_ins_by_user ON sign_ins (user_id);
CREATE INDEX IF NOT EXISTS sign_ins_ends ON sign_ins (ends_at);

CREATE OR REPLACE FUNCTION forget_sign_ins_of_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM sign_ins WHERE session_id = NEW.session_id;
    RETURN NULL;
END;
$$;

CREATE OR REPLACE TRIGGER sessions_sign_ins AFTER INSERT OR UPDATE OF revoked_at ON sessions
    FOR EACH ROW WHEN (NEW.revoked_at IS NOT NULL) EXECUTE FUNCTION forget_sign_ins_of_session();

CREATE OR REPLACE FUNCTION forget_sign_ins_of_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM sign_ins WHERE user_id = NEW.id;
    RETURN NULL;
END;
$$;

CREATE OR REPLACE TRIGGER users_sign_ins AFTER UPDATE OF state ON users
    FOR EACH ROW WHEN (NEW.state = 'deleted') EXECUTE FUNCTION forget_sign_ins_of_user();
