-- depends: 0007.sign-ins
-- What the routers' common housekeeping shares: what was found at the provider that belongs to
-- nobody, whose turn a duty is, and how often all of them together may ask for something.

CREATE TABLE IF NOT EXISTS strays (
    id         text PRIMARY KEY,
    kind       text NOT NULL CONSTRAINT strays_kind_known CHECK (kind IN ('machine', 'volume')),
    provider   text NOT NULL,
    app        text NOT NULL,
    name       text NOT NULL,
    region     text NOT NULL,
    user_id    uuid,
    reason     text NOT NULL,
    ours       boolean NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_seen  timestamptz NOT NULL DEFAULT now()
);

-- What is done by one router at a time, and not again before it is due.
CREATE TABLE IF NOT EXISTS duties (
    name             text PRIMARY KEY,
    lease_owner      text,
    lease_expires_at timestamptz,
    done_at          timestamptz
);

-- When the next of its kind may be asked for: at an even pace, all routers taken together.
CREATE TABLE IF NOT EXISTS paces (
    name    text PRIMARY KEY,
    next_at timestamptz NOT NULL
);
