-- Leases don't wait for the disk any more: one may be lost with the database, and its event leased
-- anew. So that a result of the lost lease is still refused, the numbers that tell leases apart
-- are times, which don't come again.

CREATE OR REPLACE FUNCTION lease_events(_node uuid, _most integer, _at timestamptz, _lease interval, _own uuid[], _closed uuid[],
                             _quick uuid[], _ahead integer)
RETURNS TABLE (id uuid, app_id uuid, source_kind text, trigger_id uuid, trigger text, script text, payload json,
               cause uuid, chain json, attempt integer, attempts integer, backoff_ms bigint, max_backoff_ms bigint,
               errors json, due_at timestamptz, fence bigint, key_id uuid, commit text, trigger_gone boolean,
               app_room integer)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET max_parallel_workers_per_gather = 0
AS $$
#variable_conflict use_column
DECLARE
    started timestamptz := clock_timestamp();
    picked uuid[];
    switched_off uuid[];
BEGIN
    -- Whoever counts what runs counts alone.
    PERFORM pg_advisory_xact_lock(7091995);
    -- Leases that ran out: their node died. One that ends later than any can is of a clock that
    -- was set back. One whose result is being written is passed over.
    UPDATE outbox SET lease_until = NULL, lease_node = NULL, held = outbox.trigger_id IS NOT NULL AND max_concurrency IS NOT NULL AND NOT ordered
     WHERE outbox.id IN (SELECT x.id FROM outbox x
       WHERE x.lease_until IS NOT NULL AND (x.lease_until < started OR x.lease_until > started + 2 * _lease)
         AND NOT (x.lease_node = _node AND x.id = ANY(_own)) FOR UPDATE SKIP LOCKED);
    -- Held events whose trigger has room now; those of a trigger that is gone go their way, too.
    IF EXISTS (SELECT FROM outbox h WHERE h.held) THEN
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
    END IF;
    LOOP
        WITH RECURSIVE apps_waiting AS (
            (SELECT r.app_id AS app FROM outbox r WHERE r.lease_until IS NULL AND NOT r.held ORDER BY r.app_id LIMIT 1)
            UNION ALL
            SELECT (SELECT r.app_id FROM outbox r WHERE r.lease_until IS NULL AND NOT r.held AND r.app_id > w.app ORDER BY r.app_id LIMIT 1)
              FROM apps_waiting w WHERE w.app IS NOT NULL
        ), running AS MATERIALIZED (
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
        IF picked IS NULL THEN
            RETURN;
        END IF;
        -- Events of a trigger that is switched off wait until it is on again.
        switched_off := ARRAY(SELECT DISTINCT t.id FROM outbox p JOIN triggers t ON t.id = p.trigger_id
                               WHERE p.id = ANY(picked) AND NOT t.enabled);
        EXIT WHEN cardinality(switched_off) = 0;
        UPDATE outbox o SET held = true
         WHERE o.trigger_id = ANY(switched_off) AND NOT o.held AND o.lease_until IS NULL;
    END LOOP;
    RETURN QUERY
    WITH others AS MATERIALIZED (
        SELECT l.app_id AS app, count(*) AS running FROM outbox l
         WHERE l.lease_until IS NOT NULL AND l.lease_node <> _node GROUP BY l.app_id
    ), taken AS (
        UPDATE outbox o SET lease_until = clock_timestamp() + _lease, lease_node = _node, fence = greatest(o.fence + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint), dedup_key = NULL
         WHERE o.id = ANY(picked)
        RETURNING o.*
    )
    SELECT k.id, k.app_id, k.source_kind, k.trigger_id, k.trigger, k.script, k.payload, k.cause, k.chain, k.attempt,
           k.attempts, k.backoff_ms, k.max_backoff_ms, k.errors, k.due_at, k.fence, k.key_id, k.commit,
           k.trigger_id IS NOT NULL AND NOT EXISTS (SELECT FROM triggers t WHERE t.id = k.trigger_id),
           greatest(1, coalesce(a.concurrency, 32) - coalesce(u.running, 0))::integer
      FROM taken k JOIN apps a ON a.id = k.app_id LEFT JOIN others u ON u.app = k.app_id
     ORDER BY k.due_at, k.seq;
END
$$;
