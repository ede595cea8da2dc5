-- depends: 0007.sign-ins
-- What machines say that they are busy with though nobody uses them: they are not put to sleep
-- for want of use until then.

CREATE TABLE IF NOT EXISTS busy (
    user_id  uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    reason   text NOT NULL,
    since    timestamptz NOT NULL DEFAULT now(),
    until    timestamptz NOT NULL
);
