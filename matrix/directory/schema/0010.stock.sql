-- depends: 0007.sign-ins
-- Where a machine is, when it could not stay where it was; and machines that wait for a user.

-- A machine that was moved is another one: the former one is kept until the new one answers.
ALTER TABLE machines ADD COLUMN IF NOT EXISTS size text;
ALTER TABLE machines ADD COLUMN IF NOT EXISTS former_machine_id text;
ALTER TABLE machines ADD COLUMN IF NOT EXISTS former_volume_id text;
ALTER TABLE machines ADD COLUMN IF NOT EXISTS on_trial boolean NOT NULL DEFAULT false;
ALTER TABLE machines ADD COLUMN IF NOT EXISTS stranded_at timestamptz;

-- As many rows as there are to be machines, numbered from 1: whoever fills the stock, there are
-- never more. What is not ready is being made, or taken away, by whoever has the lease.
CREATE TABLE IF NOT EXISTS stock (
    provider         text NOT NULL,
    number           integer NOT NULL CHECK (number > 0),
    slot             uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    generation       bigint NOT NULL DEFAULT 1,
    made_of          text NOT NULL,
    ready            boolean NOT NULL DEFAULT false,
    app              text,
    machine_id       text,
    volume_id        text,
    region           text,
    image            text,
    size             text,
    provision_step   text,
    lease_owner      text,
    lease_expires_at timestamptz,
    made_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, number)
);
