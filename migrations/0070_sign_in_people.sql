-- People who sign in by an identity provider, and programs that a person lets in.

CREATE TABLE people (
    id            uuid PRIMARY KEY,
    issuer        text NOT NULL,
    subject       text NOT NULL,
    name          text NOT NULL,
    email         text,
    role          text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    first_seen_at timestamptz NOT NULL,
    last_seen_at  timestamptz NOT NULL,
    UNIQUE (issuer, subject)
);

ALTER TABLE api_keys
    ADD COLUMN parent_id uuid REFERENCES api_keys ON DELETE CASCADE,
    ADD COLUMN person_id uuid REFERENCES people ON DELETE CASCADE;
CREATE INDEX api_keys_by_parent ON api_keys (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX api_keys_by_person ON api_keys (person_id) WHERE person_id IS NOT NULL;
COMMENT ON COLUMN api_keys.parent_id IS 'the key whose holder let a program in: it ends with that key';
CREATE UNIQUE INDEX api_keys_of_person ON api_keys (person_id) WHERE parent_id IS NULL AND revoked_at IS NULL;
COMMENT ON COLUMN api_keys.person_id IS 'whose it is: without a parent it is what their sessions stand for, and nobody knows it';

ALTER TABLE audit_log
    ADD COLUMN person_id uuid,
    ADD COLUMN subject text;
COMMENT ON COLUMN audit_log.subject IS 'by which the identity provider knows who did it';

CREATE TABLE provider_logins (
    state_hash bytea PRIMARY KEY CHECK (octet_length(state_hash) = 32),
    nonce      text NOT NULL,
    verifier   text NOT NULL,
    next       text NOT NULL,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE provider_logins IS 'people who are at the identity provider';

CREATE TABLE device_logins (
    device_hash    bytea PRIMARY KEY CHECK (octet_length(device_hash) = 32),
    user_code      text NOT NULL UNIQUE,
    name           text NOT NULL,
    address        text,
    wanted         text[] NOT NULL,
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    asked_at       timestamptz,
    decided        boolean,
    scopes         text[],
    app_id         uuid REFERENCES apps ON DELETE CASCADE,
    parent_id      uuid REFERENCES api_keys ON DELETE CASCADE,
    key_expires_at timestamptz
);
COMMENT ON TABLE device_logins IS 'programs that wait until a person lets them in (RFC 8628)';
