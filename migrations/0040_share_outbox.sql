-- Leasing that is fair between apps, counts over all nodes, and stays quick with millions waiting.
--
-- An event is held (its trigger has no room for it, or is switched off), ready, or leased. Only
-- ready events are looked through when a node asks for work, app by app; held ones are looked at
-- trigger by trigger. So neither a trigger's nor an app's backlog is in anybody else's way.

ALTER TABLE outbox
    ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN ordered boolean NOT NULL DEFAULT false,
    ADD COLUMN held boolean NOT NULL DEFAULT false,
    ADD COLUMN key_id uuid REFERENCES api_keys ON DELETE SET NULL,
    ADD COLUMN commit text;
COMMENT ON COLUMN outbox.ordered IS 'overlap: queue: one at a time and in the order of seq, its retries included';
COMMENT ON COLUMN outbox.held IS 'waits for room in its trigger, or for the trigger to be switched on';
COMMENT ON COLUMN outbox.trigger_id IS 'no reference: a trigger that goes must not wait for its backlog; its events become dead letters';
COMMENT ON COLUMN outbox.commit IS 'runs on this commit, not on the one that is live: a replay';
COMMENT ON COLUMN outbox.key_id IS 'runs on behalf of this key: a replay';
ALTER TABLE outbox DROP CONSTRAINT outbox_trigger_id_fkey;

ALTER TABLE dead_letters ADD COLUMN cause uuid;
COMMENT ON COLUMN dead_letters.cause IS 'the run that caused the event';

UPDATE outbox o SET ordered = true FROM cron_trigger_details c WHERE c.trigger_id = o.trigger_id AND c.overlap = 'queue';
UPDATE outbox SET held = true WHERE trigger_id IS NOT NULL AND max_concurrency IS NOT NULL AND lease_until IS NULL;
UPDATE outbox SET dedup_key = NULL WHERE lease_until IS NOT NULL;
ALTER TABLE outbox ADD CONSTRAINT outbox_held_is_of_trigger CHECK (NOT held OR trigger_id IS NOT NULL AND lease_until IS NULL);

DROP INDEX outbox_due;
DROP INDEX outbox_leased;
DROP INDEX outbox_waiting_key;
CREATE INDEX outbox_ready ON outbox (app_id, due_at, seq) WHERE lease_until IS NULL AND NOT held;
CREATE INDEX outbox_held ON outbox (trigger_id, due_at, seq) WHERE held;
CREATE INDEX outbox_due ON outbox (due_at) WHERE lease_until IS NULL;
CREATE INDEX outbox_leased ON outbox (lease_until) WHERE lease_until IS NOT NULL;
-- A leased event has no key any more: one with the same key may wait beside it.
CREATE UNIQUE INDEX outbox_waiting_key ON outbox (app_id, script, dedup_key) WHERE dedup_key IS NOT NULL;

-- Leases at most `_most` events to `_node`: from each app in turn, each app's oldest first, never
-- more of an app than its concurrency lets run over all nodes. A node that ends an app's events
-- quickly (`_quick`) may have more of them waiting at hand, as long as it runs no more at a time
-- than `app_room`. `_own` are the events that the node still runs: their leases may have run out
-- while the database was away, and are the node's all the same. `_closed` are apps that the node
-- has no room for, or doesn't know yet.
CREATE FUNCTION lease_events(_node uuid, _most integer, _at timestamptz, _lease interval, _own uuid[], _closed uuid[],
                             _quick uuid[], _ahead integer)
RETURNS TABLE (id uuid, app_id uuid, source_kind text, trigger_id uuid, trigger text, script text, payload json,
               cause uuid, chain json, attempt integer, attempts integer, backoff_ms bigint, max_backoff_ms bigint,
               errors json, due_at timestamptz, fence bigint, key_id uuid, commit text, trigger_gone boolean,
               app_room integer)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    started timestamptz := clock_timestamp();
    picked uuid[];
    parked bigint;
BEGIN
    -- Whoever counts what runs counts alone.
    PERFORM pg_advisory_xact_lock(7091995);
    -- Leases that ran out: their node died. One that ends later than any can is of a clock that
    -- was set back.
    UPDATE outbox SET lease_until = NULL, lease_node = NULL, held = outbox.trigger_id IS NOT NULL AND max_concurrency IS NOT NULL AND NOT ordered
     WHERE lease_until IS NOT NULL AND (lease_until < started OR lease_until > started + 2 * _lease)
       AND NOT (lease_node = _node AND outbox.id = ANY(_own));
    -- Held events whose trigger has room now; those of a trigger that is gone go their way, too.
    WITH RECURSIVE waiting AS (
        (SELECT h.trigger_id AS trigger FROM outbox h WHERE h.held ORDER BY h.trigger_id LIMIT 1)
        UNION ALL
        SELECT (SELECT h.trigger_id FROM outbox h WHERE h.held AND h.trigger_id > w.trigger ORDER BY h.trigger_id LIMIT 1)
          FROM waiting w WHERE w.trigger IS NOT NULL
    ), admitted AS (
        SELECT n.id FROM waiting w
          LEFT JOIN triggers t ON t.id = w.trigger
          LEFT JOIN cron_trigger_details c ON c.trigger_id = t.id
          CROSS JOIN LATERAL (SELECT CASE WHEN c.overlap = 'queue' THEN 1 ELSE coalesce(t.max_concurrency, 1000) END AS most) l
          CROSS JOIN LATERAL (
            SELECT h.id FROM outbox h WHERE h.held AND h.trigger_id = w.trigger AND h.due_at <= _at
             ORDER BY h.due_at, h.seq
             LIMIT CASE WHEN t.id IS NULL THEN 1000 WHEN NOT t.enabled THEN 0 ELSE greatest(0, l.most -
               (SELECT count(*) FROM (SELECT FROM outbox r WHERE r.trigger_id = w.trigger AND NOT r.held LIMIT l.most) run)) END
          ) n
         WHERE w.trigger IS NOT NULL
    )
    UPDATE outbox o SET held = false FROM admitted a WHERE o.id = a.id;
    LOOP
        WITH RECURSIVE apps_waiting AS (
            (SELECT r.app_id AS app FROM outbox r WHERE r.lease_until IS NULL AND NOT r.held ORDER BY r.app_id LIMIT 1)
            UNION ALL
            SELECT (SELECT r.app_id FROM outbox r WHERE r.lease_until IS NULL AND NOT r.held AND r.app_id > w.app ORDER BY r.app_id LIMIT 1)
              FROM apps_waiting w WHERE w.app IS NOT NULL
        ), running AS (
            SELECT l.app_id AS app, count(*) FILTER (WHERE l.lease_node = _node) AS mine,
                   count(*) FILTER (WHERE l.lease_node <> _node) AS others
              FROM outbox l WHERE l.lease_until IS NOT NULL GROUP BY l.app_id
        ), due AS (
            SELECT n.id, n.due_at, n.place FROM apps_waiting w
              JOIN apps a ON a.id = w.app AND a.pruned_at IS NULL AND NOT a.id = ANY(_closed)
              LEFT JOIN running u ON u.app = w.app
              CROSS JOIN LATERAL (
                SELECT k.id, k.due_at, row_number() OVER (ORDER BY k.due_at, k.seq) AS place FROM (
                  SELECT r.id, r.due_at, r.seq FROM outbox r
                   WHERE r.app_id = w.app AND r.lease_until IS NULL AND NOT r.held AND r.due_at <= _at
                   ORDER BY r.due_at, r.seq
                   LIMIT least(_most, greatest(0,
                       greatest(0, coalesce(a.concurrency, 32) - coalesce(u.others, 0))
                       * CASE WHEN a.id = ANY(_quick) THEN _ahead ELSE 1 END - coalesce(u.mine, 0)))
                   FOR UPDATE SKIP LOCKED) k
              ) n
             ORDER BY n.place, n.due_at LIMIT _most
        )
        SELECT array_agg(d.id) INTO picked FROM due d;
        -- Events of a trigger that is switched off wait until it is on again.
        UPDATE outbox o SET held = true FROM triggers t
         WHERE o.trigger_id = t.id AND NOT t.enabled AND NOT o.held AND o.lease_until IS NULL
           AND t.id IN (SELECT p.trigger_id FROM outbox p WHERE p.id = ANY(picked));
        GET DIAGNOSTICS parked = ROW_COUNT;
        EXIT WHEN parked = 0;
    END LOOP;
    RETURN QUERY
    WITH taken AS (
        UPDATE outbox o SET lease_until = clock_timestamp() + _lease, lease_node = _node, fence = o.fence + 1, dedup_key = NULL
         WHERE o.id = ANY(picked)
        RETURNING o.*
    )
    SELECT k.id, k.app_id, k.source_kind, k.trigger_id, k.trigger, k.script, k.payload, k.cause, k.chain, k.attempt,
           k.attempts, k.backoff_ms, k.max_backoff_ms, k.errors, k.due_at, k.fence, k.key_id, k.commit,
           k.trigger_id IS NOT NULL AND NOT EXISTS (SELECT FROM triggers t WHERE t.id = k.trigger_id),
           greatest(1, coalesce(a.concurrency, 32) - (SELECT count(*) FROM outbox l
             WHERE l.lease_until IS NOT NULL AND l.lease_node <> _node AND l.app_id = k.app_id))::integer
      FROM taken k JOIN apps a ON a.id = k.app_id
     ORDER BY k.due_at, k.seq;
END
$$;
