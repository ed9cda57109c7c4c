-- What the dispatcher needs to know of an event without asking for anything else.

ALTER TABLE outbox
    ADD COLUMN trigger text,
    ADD COLUMN chain json NOT NULL DEFAULT '[]',
    ADD COLUMN max_concurrency integer CHECK (max_concurrency > 0),
    ADD COLUMN attempts integer NOT NULL DEFAULT 5 CHECK (attempts >= 1),
    ADD COLUMN backoff_ms bigint NOT NULL DEFAULT 10000,
    ADD COLUMN max_backoff_ms bigint NOT NULL DEFAULT 600000;
ALTER TABLE outbox DROP COLUMN depth;
COMMENT ON COLUMN outbox.chain IS 'the runs that led here, oldest first: its length is the depth';
ALTER TABLE outbox DROP CONSTRAINT outbox_source_kind_check;
ALTER TABLE outbox ADD CONSTRAINT outbox_source_kind_check
    CHECK (source_kind IN ('cron', 'kv', 'docs', 'dead_letter', 'invoke', 'enqueue', 'http'));
CREATE INDEX outbox_by_trigger ON outbox (trigger_id) WHERE trigger_id IS NOT NULL;
CREATE INDEX outbox_by_node ON outbox (lease_node) WHERE lease_node IS NOT NULL;

-- Equal requests with one Idempotency-Key make one run, for a day.
CREATE TABLE idempotency_keys (
    app_id     uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    route      text NOT NULL,
    key        text NOT NULL,
    digest     bytea NOT NULL,
    event_id   uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (app_id, route, key)
);
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);
