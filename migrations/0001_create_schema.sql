-- The whole schema. Live configuration is relational, so that a change by hand is visible column
-- by column; content is addressed by git blob id, so that what did not change is not written again.

CREATE TABLE live_state (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    generation bigint NOT NULL DEFAULT 0,
    edits      bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE live_state IS 'generation: deployments applied; edits: changes to live configuration by anything else';
INSERT INTO live_state DEFAULT VALUES;

CREATE TABLE sources (
    id             uuid PRIMARY KEY,
    name           text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    kind           text NOT NULL CHECK (kind IN ('local', 'hosted', 'remote')),
    url            text NOT NULL,
    branch         text,
    path           text NOT NULL DEFAULT '',
    interval_ms    bigint CHECK (interval_ms >= 1000),
    webhook_secret bytea,
    forge          jsonb,
    live_commit    text,
    suspended      boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL
);

CREATE TABLE deployments (
    id                uuid PRIMARY KEY,
    source_id         uuid NOT NULL REFERENCES sources ON DELETE CASCADE,
    commit            text NOT NULL,
    previous_commit   text,
    author            text NOT NULL,
    message           text NOT NULL,
    status            text NOT NULL CHECK (status IN ('applying', 'synced', 'partial', 'failed', 'held', 'waiting', 'reverted')),
    changes           json NOT NULL DEFAULT '[]',
    errors            json NOT NULL DEFAULT '[]',
    steps             json NOT NULL DEFAULT '[]',
    history_rewritten boolean NOT NULL DEFAULT false,
    generation        bigint,
    started_at        timestamptz NOT NULL,
    duration_ms       double precision
);
CREATE INDEX deployments_by_source ON deployments (source_id, id DESC);

CREATE TABLE apps (
    id            uuid PRIMARY KEY,
    source_id     uuid NOT NULL REFERENCES sources,
    name          text NOT NULL CONSTRAINT apps_name_key UNIQUE CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    dir           text NOT NULL,
    description   text,
    static_dir    text,
    http_allow    text[],
    timeout_ms    bigint CHECK (timeout_ms > 0),
    memory        bigint CHECK (memory > 0),
    operations    bigint CHECK (operations > 0),
    concurrency   integer CHECK (concurrency > 0),
    request_body  bigint CHECK (request_body >= 0),
    response_body bigint CHECK (response_body >= 0),
    pinned_commit text,
    touched       bigint NOT NULL,
    created_at    timestamptz NOT NULL,
    pruned_at     timestamptz
);
COMMENT ON COLUMN apps.touched IS 'live_state.generation + edits when the app last changed';
COMMENT ON COLUMN apps.pinned_commit IS 'where the app stays while newer commits of it are invalid';
CREATE INDEX apps_by_source ON apps (source_id);
CREATE INDEX apps_by_touched ON apps (touched);

CREATE TABLE app_domains (
    app_id uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    domain text NOT NULL,
    PRIMARY KEY (app_id, domain)
);
CREATE INDEX app_domains_by_domain ON app_domains (domain);

CREATE TABLE app_env (
    app_id uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    name   text NOT NULL,
    value  text NOT NULL,
    PRIMARY KEY (app_id, name)
);

CREATE TABLE app_secrets (
    app_id     uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    name       text NOT NULL,
    ciphertext text NOT NULL,
    PRIMARY KEY (app_id, name)
);
COMMENT ON COLUMN app_secrets.ciphertext IS 'age, armored; never the value';

CREATE TABLE script_blobs (
    blob_id text PRIMARY KEY,
    content text NOT NULL
);

CREATE TABLE app_scripts (
    app_id  uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    path    text NOT NULL,
    kind    text NOT NULL CHECK (kind IN ('handler', 'module')),
    blob_id text NOT NULL REFERENCES script_blobs,
    PRIMARY KEY (app_id, path)
);
CREATE INDEX app_scripts_by_blob ON app_scripts (blob_id);

CREATE TABLE static_blobs (
    blob_id text PRIMARY KEY,
    content bytea NOT NULL
);

CREATE TABLE app_static_files (
    app_id  uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    path    text NOT NULL,
    blob_id text NOT NULL REFERENCES static_blobs,
    size    bigint NOT NULL,
    PRIMARY KEY (app_id, path)
);
CREATE INDEX app_static_files_by_blob ON app_static_files (blob_id);

CREATE TABLE routes (
    app_id        uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    path          text NOT NULL,
    methods       text[] NOT NULL CHECK (cardinality(methods) > 0),
    script        text NOT NULL,
    mode          text NOT NULL CHECK (mode IN ('sync', 'async')),
    auth          jsonb NOT NULL,
    cors          jsonb,
    rate_limit    jsonb,
    limits        jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (app_id, path, methods)
);

CREATE TABLE triggers (
    id              uuid PRIMARY KEY,
    app_id          uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    name            text NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('cron', 'kv', 'docs', 'dead_letter')),
    script          text NOT NULL,
    enabled         boolean NOT NULL,
    attempts        integer NOT NULL CHECK (attempts >= 1),
    backoff_ms      bigint NOT NULL CHECK (backoff_ms >= 0),
    max_backoff_ms  bigint NOT NULL CHECK (max_backoff_ms >= 0),
    max_concurrency integer CHECK (max_concurrency > 0),
    limits          jsonb NOT NULL DEFAULT '{}',
    UNIQUE (app_id, name),
    UNIQUE (id, kind)
);

CREATE TABLE cron_trigger_details (
    trigger_id        uuid PRIMARY KEY,
    app_id            uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    kind              text NOT NULL DEFAULT 'cron' CHECK (kind = 'cron'),
    schedule          text NOT NULL,
    timezone          text NOT NULL,
    overlap           text NOT NULL CHECK (overlap IN ('skip', 'allow', 'queue')),
    catch_up          text NOT NULL CHECK (catch_up IN ('latest', 'none')),
    next_fire_at      timestamptz,
    last_scheduled_at timestamptz,
    FOREIGN KEY (trigger_id, kind) REFERENCES triggers (id, kind) ON DELETE CASCADE
);
CREATE INDEX cron_trigger_details_due ON cron_trigger_details (next_fire_at) WHERE next_fire_at IS NOT NULL;

CREATE TABLE kv_trigger_details (
    trigger_id uuid PRIMARY KEY,
    app_id     uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    kind       text NOT NULL DEFAULT 'kv' CHECK (kind = 'kv'),
    collection text NOT NULL,
    events     text[] NOT NULL CHECK (events <@ ARRAY['set', 'delete']),
    FOREIGN KEY (trigger_id, kind) REFERENCES triggers (id, kind) ON DELETE CASCADE
);
CREATE INDEX kv_trigger_details_by_app ON kv_trigger_details (app_id);

CREATE TABLE docs_trigger_details (
    trigger_id uuid PRIMARY KEY,
    app_id     uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    kind       text NOT NULL DEFAULT 'docs' CHECK (kind = 'docs'),
    collection text NOT NULL,
    events     text[] NOT NULL CHECK (events <@ ARRAY['create', 'update', 'delete']),
    FOREIGN KEY (trigger_id, kind) REFERENCES triggers (id, kind) ON DELETE CASCADE
);
CREATE INDEX docs_trigger_details_by_app ON docs_trigger_details (app_id);

CREATE TABLE dead_letter_trigger_details (
    trigger_id  uuid PRIMARY KEY,
    app_id      uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    kind        text NOT NULL DEFAULT 'dead_letter' CHECK (kind = 'dead_letter'),
    source_kind text,
    FOREIGN KEY (trigger_id, kind) REFERENCES triggers (id, kind) ON DELETE CASCADE
);

CREATE TABLE app_checks (
    app_id    uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    position  integer NOT NULL,
    path      text NOT NULL,
    status    integer NOT NULL,
    within_ms bigint NOT NULL,
    PRIMARY KEY (app_id, position)
);

-- Data of apps. Kept when an app is pruned.

CREATE TABLE kv (
    app_id     uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    collection text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    value      json NOT NULL,
    version    bigint NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (app_id, collection, key)
);
COMMENT ON COLUMN kv.value IS 'json, not jsonb: numbers come back as they were written, and reading needs no conversion';
CREATE INDEX kv_by_expiry ON kv (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE docs (
    app_id     uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    collection text COLLATE "C" NOT NULL,
    id         uuid NOT NULL,
    body       jsonb NOT NULL CHECK (jsonb_typeof(body) = 'object'),
    version    bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (app_id, collection, id)
);
CREATE INDEX docs_by_body ON docs USING gin (body jsonb_path_ops);

-- Work that is handed over: one table for every kind of cause.

CREATE TABLE outbox (
    id          uuid PRIMARY KEY,
    app_id      uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    source_kind text NOT NULL CHECK (source_kind IN ('cron', 'kv', 'docs', 'dead_letter', 'enqueue', 'http')),
    trigger_id  uuid REFERENCES triggers ON DELETE SET NULL,
    script      text NOT NULL,
    payload     json NOT NULL,
    dedup_key   text,
    cause       uuid,
    depth       integer NOT NULL DEFAULT 0,
    attempt     integer NOT NULL DEFAULT 1,
    errors      json NOT NULL DEFAULT '[]',
    due_at      timestamptz NOT NULL,
    created_at  timestamptz NOT NULL,
    lease_until timestamptz,
    lease_node  uuid,
    fence       bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX outbox_due ON outbox (due_at) WHERE lease_until IS NULL;
CREATE INDEX outbox_leased ON outbox (lease_until) WHERE lease_until IS NOT NULL;
CREATE UNIQUE INDEX outbox_waiting_key ON outbox (app_id, script, dedup_key)
    WHERE dedup_key IS NOT NULL AND lease_until IS NULL;

CREATE TABLE dead_letters (
    id          uuid PRIMARY KEY,
    app_id      uuid NOT NULL REFERENCES apps ON DELETE CASCADE,
    source_kind text NOT NULL,
    trigger     text,
    script      text NOT NULL,
    attempts    integer NOT NULL,
    last_error  json,
    errors      json NOT NULL DEFAULT '[]',
    event       json NOT NULL,
    chain       json NOT NULL DEFAULT '[]',
    created_at  timestamptz NOT NULL
);
CREATE INDEX dead_letters_by_app ON dead_letters (app_id, id DESC);

-- History.

CREATE TABLE runs (
    id           uuid NOT NULL,
    app_id       uuid NOT NULL,
    app          text NOT NULL,
    script       text NOT NULL,
    kind         text NOT NULL,
    trigger      text,
    route        text,
    commit       text NOT NULL,
    attempt      integer NOT NULL,
    status       text NOT NULL CHECK (status IN ('ok', 'failed', 'timeout', 'limit', 'crashed', 'skipped', 'rejected')),
    started_at   timestamptz NOT NULL,
    duration_ms  double precision NOT NULL,
    queue_ms     double precision NOT NULL,
    operations   bigint NOT NULL,
    peak_memory  bigint NOT NULL,
    error        json,
    logs         json NOT NULL,
    dropped_logs bigint NOT NULL,
    cause        uuid,
    input        json NOT NULL,
    PRIMARY KEY (id, started_at)
) PARTITION BY RANGE (started_at);
CREATE TABLE runs_default PARTITION OF runs DEFAULT;
CREATE INDEX runs_by_app ON runs (app_id, id DESC);
CREATE INDEX runs_by_status ON runs (status, id DESC) WHERE status <> 'ok';
CREATE INDEX runs_by_trigger ON runs (app_id, trigger, id DESC) WHERE trigger IS NOT NULL;

CREATE TABLE run_counts (
    app_id      uuid NOT NULL,
    minute      timestamptz NOT NULL,
    kind        text NOT NULL,
    status      text NOT NULL,
    count       bigint NOT NULL,
    duration_us bigint NOT NULL,
    histogram   bigint[] NOT NULL,
    PRIMARY KEY (app_id, minute, kind, status)
);
COMMENT ON COLUMN run_counts.histogram IS 'runs by duration: bucket i counts those below 2^i * 16 microseconds';
CREATE INDEX run_counts_by_minute ON run_counts (minute);

-- Access.

CREATE TABLE api_keys (
    id           uuid PRIMARY KEY,
    name         text NOT NULL,
    hash         bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    prefix       text NOT NULL,
    scopes       text[] NOT NULL,
    app_id       uuid REFERENCES apps ON DELETE CASCADE,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    last_used_at timestamptz,
    revoked_at   timestamptz
);
COMMENT ON COLUMN api_keys.hash IS 'SHA-256 of the key, which is random and long';

CREATE TABLE sessions (
    hash       bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    key_id     uuid NOT NULL REFERENCES api_keys ON DELETE CASCADE,
    csrf       bytea NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_by_key ON sessions (key_id);

CREATE TABLE audit_log (
    id      uuid PRIMARY KEY,
    at      timestamptz NOT NULL,
    key_id  uuid,
    actor   text NOT NULL,
    action  text NOT NULL,
    target  text NOT NULL,
    app     text,
    detail  json NOT NULL DEFAULT '{}'
);

CREATE TABLE webhook_deliveries (
    source_id   uuid NOT NULL REFERENCES sources ON DELETE CASCADE,
    delivery    text NOT NULL,
    received_at timestamptz NOT NULL,
    answer      json NOT NULL,
    PRIMARY KEY (source_id, delivery)
);

CREATE TABLE nodes (
    id         uuid PRIMARY KEY,
    roles      text[] NOT NULL,
    version    text NOT NULL,
    generation bigint NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at    timestamptz NOT NULL
);

-- Whoever changes live configuration without being an apply leaves a trace, and wakes the nodes.

CREATE FUNCTION note_edit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    seq bigint;
    old_app uuid;
    new_app uuid;
BEGIN
    IF current_setting('picloud.applying', true) = 'on' THEN
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        old_app := (to_jsonb(OLD) ->> TG_ARGV[0])::uuid;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        new_app := (to_jsonb(NEW) ->> TG_ARGV[0])::uuid;
    END IF;
    UPDATE live_state SET edits = edits + 1 RETURNING generation + edits INTO seq;
    UPDATE apps SET touched = seq WHERE id IN (old_app, new_app);
    PERFORM pg_notify('picloud_edited', '');
    RETURN NULL;
END
$$;

CREATE FUNCTION note_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    seq bigint;
BEGIN
    UPDATE live_state SET edits = edits + 1 RETURNING generation + edits INTO seq;
    UPDATE apps SET touched = seq;
    PERFORM pg_notify('picloud_edited', '');
    RETURN NULL;
END
$$;

CREATE TRIGGER note_edit AFTER INSERT OR DELETE
    OR UPDATE OF source_id, name, dir, description, static_dir, http_allow, timeout_ms, memory, operations,
                 concurrency, request_body, response_body, pinned_commit, pruned_at
    ON apps FOR EACH ROW EXECUTE FUNCTION note_edit('id');
CREATE TRIGGER note_edit AFTER INSERT OR DELETE OR UPDATE OF app_id, schedule, timezone, overlap, catch_up
    ON cron_trigger_details FOR EACH ROW EXECUTE FUNCTION note_edit('app_id');

DO $$
DECLARE
    live text;
BEGIN
    FOREACH live IN ARRAY ARRAY['app_domains', 'app_env', 'app_secrets', 'app_scripts', 'app_static_files', 'routes',
        'triggers', 'kv_trigger_details', 'docs_trigger_details', 'dead_letter_trigger_details', 'app_checks'] LOOP
        EXECUTE format('CREATE TRIGGER note_edit AFTER INSERT OR UPDATE OR DELETE ON %I
                        FOR EACH ROW EXECUTE FUNCTION note_edit(''app_id'')', live);
        EXECUTE format('CREATE TRIGGER note_truncate AFTER TRUNCATE ON %I
                        FOR EACH STATEMENT EXECUTE FUNCTION note_truncate()', live);
    END LOOP;
END
$$;
