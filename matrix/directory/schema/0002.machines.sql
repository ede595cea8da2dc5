-- depends: 0001.users
-- Which machine a user has, and in which state. The key is the user: nobody has two.

CREATE TABLE IF NOT EXISTS machines (
    user_id          uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    provider         text NOT NULL,
    app              text,
    machine_id       text,
    volume_id        text,
    region           text,
    address          text,
    boot_id          text,
    image            text,
    state            text NOT NULL DEFAULT 'provisioning'
                     CONSTRAINT machines_state_known CHECK (state IN (
                         'provisioning', 'starting', 'running', 'draining', 'suspending',
                         'suspended', 'stopped', 'failed', 'lost', 'destroying', 'destroyed'
                     )),
    state_reason     text,
    generation       bigint NOT NULL DEFAULT 1,
    last_active_at   timestamptz,
    last_wake_at     timestamptz,
    wake_cause       text,
    suspend_cause    text,
    lease_owner      text,
    lease_expires_at timestamptz,
    provision_step   text,
    secret_epoch     integer NOT NULL DEFAULT 1
                     CONSTRAINT machines_secret_epoch_positive CHECK (secret_epoch > 0),
    created_at       timestamptz NOT NULL DEFAULT now()
);

-- The idle pass asks for running machines, longest unused first.
CREATE INDEX IF NOT EXISTS machines_by_state ON machines (state, last_active_at);
