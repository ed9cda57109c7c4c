//! Work that is handed over. A row is written in the transaction of its cause, leased by a node,
//! and ends together with the record of its run.

use chrono::{DateTime, TimeDelta, Utc};
use picloud_shared::{
    AppId, EventId, NodeId, RunId, RunRecord, TriggerId,
    event::{Link, MAX_CHAIN},
};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{Store, StoreError, listen::OUTBOX, runs};

/// How long a lease lasts without a heartbeat.
pub const LEASE: TimeDelta = TimeDelta::seconds(20);
/// Triggers that one write sets off.
const MAX_FAN_OUT: usize = 64;

/// A write that may set triggers off, and on whose account.
#[derive(Debug, Clone)]
pub struct DataEvent {
    /// The run that writes.
    pub cause: RunId,
    /// The runs that led to it, itself included.
    pub chain: Vec<Link>,
    /// Ids for the events, made beforehand.
    pub ids: Vec<Uuid>,
    /// When.
    pub now: DateTime<Utc>,
}

impl DataEvent {
    /// For how many events ids are made.
    pub const IDS: usize = MAX_FAN_OUT;

    /// Writes an event for each trigger of the app that is about this.
    pub(crate) async fn emit(
        &self,
        connection: &mut PgConnection,
        app: AppId,
        kind: &str,
        collection: &str,
        op: &str,
        detail: &Value,
    ) -> Result<(), StoreError> {
        let too_deep = self.chain.len() >= MAX_CHAIN;
        let found = sqlx::query!(
            r#"SELECT t.id, t.name, t.script, t.attempts, t.backoff_ms, t.max_backoff_ms, t.max_concurrency
               FROM triggers t JOIN (
                 SELECT trigger_id, collection, events, NULL AS source_kind, 'kv' AS kind FROM kv_trigger_details WHERE app_id = $1
                 UNION ALL
                 SELECT trigger_id, collection, events, NULL, 'docs' FROM docs_trigger_details WHERE app_id = $1
                 UNION ALL
                 SELECT trigger_id, coalesce(source_kind, '*'), NULL, source_kind, 'dead_letter' FROM dead_letter_trigger_details WHERE app_id = $1
               ) d ON d.trigger_id = t.id
               WHERE t.app_id = $1 AND t.enabled AND d.kind = $2
                 AND (d.collection = $3 OR (right(d.collection, 1) = '*' AND starts_with($3, left(d.collection, -1))))
                 AND (d.events IS NULL OR $4 = ANY(d.events))
               ORDER BY t.name LIMIT 64"#,
            app.0,
            kind,
            collection,
            op,
        )
        .fetch_all(&mut *connection)
        .await?;
        for (row, id) in found.iter().zip(&self.ids) {
            let event = NewEvent {
                id: (*id).into(),
                app,
                kind,
                trigger: Some((row.id.into(), &row.name)),
                script: &row.script,
                payload: detail,
                dedup_key: None,
                cause: Some(self.cause),
                chain: &self.chain,
                attempts: row.attempts,
                backoff_ms: row.backoff_ms,
                max_backoff_ms: row.max_backoff_ms,
                max_concurrency: row.max_concurrency,
                due_at: self.now,
                now: self.now,
            };
            if too_deep {
                event.bury(connection).await?;
            } else {
                event.insert(connection).await?;
            }
        }
        Ok(())
    }
}

/// An event to be written.
#[derive(Debug, Clone)]
pub struct NewEvent<'a> {
    /// Its id.
    pub id: EventId,
    /// Whose.
    pub app: AppId,
    /// `ctx.event.kind`
    pub kind: &'a str,
    /// The trigger behind it.
    pub trigger: Option<(TriggerId, &'a str)>,
    /// The handler.
    pub script: &'a str,
    /// The kind's own fields.
    pub payload: &'a Value,
    /// One waiting event a key.
    pub dedup_key: Option<&'a str>,
    /// The run that caused it.
    pub cause: Option<RunId>,
    /// The runs that led to it.
    pub chain: &'a [Link],
    /// Counts the first.
    pub attempts: i32,
    /// Before the second attempt.
    pub backoff_ms: i64,
    /// The longest wait.
    pub max_backoff_ms: i64,
    /// Runs at the same time.
    pub max_concurrency: Option<i32>,
    /// When it may run.
    pub due_at: DateTime<Utc>,
    /// When it is written.
    pub now: DateTime<Utc>,
}

impl NewEvent<'_> {
    /// Writes it; gives the id of the event that waits, which is another one's where the key is
    /// taken.
    pub(crate) async fn insert(
        &self,
        connection: &mut PgConnection,
    ) -> Result<EventId, StoreError> {
        let id = sqlx::query_scalar!(
            "INSERT INTO outbox (id, app_id, source_kind, trigger_id, trigger, script, payload, dedup_key, cause, chain,
                 attempts, backoff_ms, max_backoff_ms, max_concurrency, due_at, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
             ON CONFLICT (app_id, script, dedup_key) WHERE dedup_key IS NOT NULL AND lease_until IS NULL
               DO UPDATE SET payload = EXCLUDED.payload
             RETURNING id",
            self.id.0,
            self.app.0,
            self.kind,
            self.trigger.map(|(id, _)| id.0),
            self.trigger.map(|(_, name)| name),
            self.script,
            Json(self.payload) as _,
            self.dedup_key,
            self.cause.map(|run| run.0),
            Json(self.chain) as _,
            self.attempts,
            self.backoff_ms,
            self.max_backoff_ms,
            self.max_concurrency,
            self.due_at,
            self.now,
        )
        .fetch_one(&mut *connection)
        .await?;
        sqlx::query("SELECT pg_notify($1, '')")
            .bind(OUTBOX)
            .execute(connection)
            .await?;
        Ok(id.into())
    }

    /// Writes it as a dead letter: the chain that led to it is too long.
    async fn bury(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let error = serde_json::json!({
            "kind": "chain",
            "message": format!("the chain of events ends at depth {MAX_CHAIN}"),
        });
        sqlx::query!(
            "INSERT INTO dead_letters (id, app_id, source_kind, trigger, script, attempts, last_error, errors, event,
                 chain, created_at)
             VALUES ($1, $2, $3, $4, $5, 0, $6, json_build_array($6::json), $7, $8, $9)",
            self.id.0,
            self.app.0,
            self.kind,
            self.trigger.map(|(_, name)| name),
            self.script,
            Json(error) as _,
            Json(self.payload) as _,
            Json(self.chain) as _,
            self.now,
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// What makes equal requests one.
#[derive(Debug, Clone, Copy)]
pub struct Idempotency<'a> {
    /// The route's label.
    pub route: &'a str,
    /// What the client calls the request.
    pub key: &'a str,
    /// Of the request itself.
    pub digest: [u8; 32],
}

/// An event that a node has to run.
#[derive(Debug, Clone)]
pub struct LeasedEvent {
    /// Its id.
    pub id: EventId,
    /// Whose.
    pub app: AppId,
    /// `ctx.event.kind`
    pub kind: String,
    /// The trigger behind it, while that is there.
    pub trigger_id: Option<TriggerId>,
    /// Its name.
    pub trigger: Option<String>,
    /// The handler.
    pub script: String,
    /// The kind's own fields.
    pub payload: Value,
    /// The run that caused it.
    pub cause: Option<RunId>,
    /// The runs that led to it.
    pub chain: Vec<Link>,
    /// From 1.
    pub attempt: i32,
    /// How many there may be.
    pub attempts: i32,
    /// Before the second attempt.
    pub backoff_ms: i64,
    /// The longest wait.
    pub max_backoff_ms: i64,
    /// The errors of earlier attempts.
    pub errors: Vec<Value>,
    /// When it was due.
    pub due_at: DateTime<Utc>,
    /// Tells this lease from others.
    pub fence: i64,
}

struct Row {
    id: Uuid,
    app_id: Uuid,
    source_kind: String,
    trigger_id: Option<Uuid>,
    trigger: Option<String>,
    script: String,
    payload: Value,
    cause: Option<Uuid>,
    chain: Value,
    attempt: i32,
    attempts: i32,
    backoff_ms: i64,
    max_backoff_ms: i64,
    errors: Value,
    due_at: DateTime<Utc>,
    fence: i64,
}

impl TryFrom<Row> for LeasedEvent {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |what: &str| StoreError::Corrupt(format!("outbox.{what} of {}", row.id));
        Ok(Self {
            id: row.id.into(),
            app: row.app_id.into(),
            kind: row.source_kind,
            trigger_id: row.trigger_id.map(Into::into),
            trigger: row.trigger,
            script: row.script,
            payload: row.payload,
            cause: row.cause.map(Into::into),
            chain: serde_json::from_value(row.chain).map_err(|_| corrupt("chain"))?,
            attempt: row.attempt,
            attempts: row.attempts,
            backoff_ms: row.backoff_ms,
            max_backoff_ms: row.max_backoff_ms,
            errors: serde_json::from_value(row.errors).map_err(|_| corrupt("errors"))?,
            due_at: row.due_at,
            fence: row.fence,
        })
    }
}

/// What became of an attempt.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The event.
    pub event: LeasedEvent,
    /// The record of its run.
    pub record: RunRecord,
    /// What happens now.
    pub next: Next,
}

/// What happens after an attempt.
#[derive(Debug, Clone)]
pub enum Next {
    /// Nothing: it is done.
    Done,
    /// Another attempt, then.
    Retry(DateTime<Utc>),
    /// It is given up.
    Dead,
}

impl Store {
    /// Writes an event by itself.
    pub async fn enqueue(&self, event: &NewEvent<'_>) -> Result<EventId, StoreError> {
        let mut transaction = self.pool().begin().await?;
        if event.chain.len() >= MAX_CHAIN {
            event.bury(&mut transaction).await?;
            transaction.commit().await?;
            return Ok(event.id);
        }
        let id = event.insert(&mut transaction).await?;
        transaction.commit().await?;
        Ok(id)
    }

    /// Writes the event of a request, once for all equal ones with that key. `None`: the key was
    /// used for another request.
    pub async fn enqueue_request(
        &self,
        event: &NewEvent<'_>,
        once: Option<Idempotency<'_>>,
    ) -> Result<Option<EventId>, StoreError> {
        let mut transaction = self.pool().begin().await?;
        if let Some(once) = once {
            sqlx::query!(
                "DELETE FROM idempotency_keys WHERE app_id = $1 AND route = $2 AND key = $3 AND expires_at <= $4",
                event.app.0,
                once.route,
                once.key,
                event.now,
            )
            .execute(&mut *transaction)
            .await?;
            // The second of two at the same time waits here for the first.
            let taken = sqlx::query!(
                "INSERT INTO idempotency_keys AS old (app_id, route, key, digest, event_id, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (app_id, route, key) DO UPDATE SET key = old.key
                 RETURNING digest, event_id",
                event.app.0,
                once.route,
                once.key,
                once.digest.as_slice(),
                event.id.0,
                event.now + TimeDelta::hours(24),
            )
            .fetch_one(&mut *transaction)
            .await?;
            if taken.event_id != event.id.0 {
                let same = taken.digest == once.digest;
                transaction.commit().await?;
                return Ok(same.then(|| taken.event_id.into()));
            }
        }
        let id = event.insert(&mut transaction).await?;
        transaction.commit().await?;
        Ok(Some(id))
    }

    /// Gives back what a node had leased before it ended.
    pub async fn release_leases(&self, node: NodeId) -> Result<u64, StoreError> {
        let released = sqlx::query!(
            "UPDATE outbox SET lease_until = NULL, lease_node = NULL WHERE lease_node = $1",
            node.0
        )
        .execute(self.pool())
        .await?;
        Ok(released.rows_affected())
    }

    /// Leases at most `limit` events that are due, oldest first.
    pub async fn lease_events(
        &self,
        node: NodeId,
        limit: i64,
        now: DateTime<Utc>,
    ) -> Result<Vec<LeasedEvent>, StoreError> {
        let mut transaction = self.pool().begin().await?;
        // Leases that ran out: their node died.
        sqlx::query!(
            "UPDATE outbox SET lease_until = NULL, lease_node = NULL WHERE id IN (
               SELECT id FROM outbox WHERE lease_until < $1 FOR UPDATE SKIP LOCKED)",
            now
        )
        .execute(&mut *transaction)
        .await?;
        let limited = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM outbox WHERE max_concurrency IS NOT NULL AND lease_until IS NULL
                 AND due_at <= $1) AS "there!""#,
            now
        )
        .fetch_one(&mut *transaction)
        .await?;
        if limited {
            // Whoever counts what runs of a trigger counts alone.
            sqlx::query("SELECT pg_advisory_xact_lock(7091995)")
                .execute(&mut *transaction)
                .await?;
        }
        let rows = sqlx::query_as!(
            Row,
            r#"WITH due AS (
                 SELECT id FROM outbox
                 WHERE lease_until IS NULL AND due_at <= $1 AND (max_concurrency IS NULL OR id IN (
                   SELECT w.id FROM (
                     SELECT id, trigger_id, max_concurrency,
                       row_number() OVER (PARTITION BY trigger_id ORDER BY due_at, id) AS place
                     FROM outbox WHERE max_concurrency IS NOT NULL AND lease_until IS NULL AND due_at <= $1) w
                   WHERE place + (SELECT count(*) FROM outbox l
                                  WHERE l.trigger_id = w.trigger_id AND l.lease_until IS NOT NULL) <= max_concurrency))
                 ORDER BY due_at, id LIMIT $2 FOR UPDATE SKIP LOCKED)
               UPDATE outbox o SET lease_until = $3, lease_node = $4, fence = fence + 1
               FROM due WHERE o.id = due.id
               RETURNING o.id, app_id, source_kind, trigger_id, trigger, script, payload AS "payload: Value", cause,
                 chain AS "chain: Value", attempt, attempts, backoff_ms, max_backoff_ms,
                 errors AS "errors: Value", due_at, fence"#,
            now,
            limit,
            now + LEASE,
            node.0,
        )
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let mut events = rows
            .into_iter()
            .map(TryInto::try_into)
            .collect::<Result<Vec<LeasedEvent>, _>>()?;
        events.sort_by_key(|event| (event.due_at, event.id.0));
        Ok(events)
    }

    /// Keeps the leases of runs that take long.
    pub async fn extend_leases(
        &self,
        node: NodeId,
        events: &[Uuid],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE outbox SET lease_until = $3 WHERE id = ANY($2) AND lease_node = $1",
            node.0,
            events,
            now + LEASE,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// When the next event is due, or a lease runs out.
    pub async fn next_due(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let next = sqlx::query_scalar!(
            "SELECT least((SELECT min(due_at) FROM outbox WHERE lease_until IS NULL),
                          (SELECT min(lease_until) FROM outbox WHERE lease_until IS NOT NULL))"
        )
        .fetch_one(self.pool())
        .await?;
        Ok(next)
    }

    /// Events that wait, and events that run.
    pub async fn outbox_depth(&self) -> Result<(i64, i64), StoreError> {
        let row = sqlx::query!(
            r#"SELECT count(*) FILTER (WHERE lease_until IS NULL) AS "waiting!",
                 count(*) FILTER (WHERE lease_until IS NOT NULL) AS "running!" FROM outbox"#
        )
        .fetch_one(self.pool())
        .await?;
        Ok((row.waiting, row.running))
    }

    /// Ends attempts together with the records of their runs. A result whose lease was lost
    /// meanwhile is refused: nothing of it is written. Gives the events that were not refused.
    pub async fn finish_events(
        &self,
        finished: &[Finished],
        new_ids: &mut (dyn FnMut() -> Uuid + Send),
        now: DateTime<Utc>,
    ) -> Result<Vec<EventId>, StoreError> {
        let mut transaction = self.pool().begin().await?;
        let ids: Vec<Uuid> = finished.iter().map(|done| done.event.id.0).collect();
        let fences: Vec<i64> = finished.iter().map(|done| done.event.fence).collect();
        let held = sqlx::query_scalar!(
            "SELECT o.id FROM outbox o JOIN unnest($1::uuid[], $2::bigint[]) AS d (id, fence)
               ON o.id = d.id AND o.fence = d.fence FOR UPDATE OF o",
            &ids,
            &fences,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let own: Vec<&Finished> = finished
            .iter()
            .filter(|done| held.contains(&done.event.id.0))
            .collect();
        let ended: Vec<Uuid> = own
            .iter()
            .filter(|done| !matches!(done.next, Next::Retry(_)))
            .map(|done| done.event.id.0)
            .collect();
        sqlx::query!("DELETE FROM outbox WHERE id = ANY($1)", &ended)
            .execute(&mut *transaction)
            .await?;
        for done in &own {
            let error = done.record.error.as_ref().map(|error| {
                let mut value = serde_json::to_value(error).unwrap_or_default();
                value["attempt"] = done.event.attempt.into();
                value["run"] = done.record.id.to_string().into();
                value
            });
            let mut errors = done.event.errors.clone();
            errors.extend(error.clone());
            match &done.next {
                Next::Done => {}
                Next::Retry(at) => {
                    sqlx::query!(
                        "UPDATE outbox SET attempt = attempt + 1, errors = $2, due_at = $3, dedup_key = NULL,
                             lease_until = NULL, lease_node = NULL WHERE id = $1",
                        done.event.id.0,
                        Json(&errors) as _,
                        *at,
                    )
                    .execute(&mut *transaction)
                    .await?;
                }
                Next::Dead => {
                    dead(&mut transaction, done, error, &errors, new_ids, now).await?;
                }
            }
        }
        let records: Vec<&RunRecord> = own.iter().map(|done| &done.record).collect();
        runs::insert(&mut transaction, &records).await?;
        transaction.commit().await?;
        Ok(held.into_iter().map(Into::into).collect())
    }
}

async fn dead(
    connection: &mut PgConnection,
    done: &Finished,
    error: Option<Value>,
    errors: &[Value],
    new_ids: &mut (dyn FnMut() -> Uuid + Send),
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let event = &done.event;
    sqlx::query!(
        "INSERT INTO dead_letters (id, app_id, source_kind, trigger, script, attempts, last_error, errors, event,
             chain, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT (id) DO NOTHING",
        event.id.0,
        event.app.0,
        event.kind,
        event.trigger,
        event.script,
        event.attempt,
        Json(&error) as _,
        Json(errors) as _,
        Json(&event.payload) as _,
        Json(&event.chain) as _,
        now,
    )
    .execute(&mut *connection)
    .await?;
    let mut chain = event.chain.clone();
    chain.push(Link::of(&done.record));
    let data = DataEvent {
        cause: done.record.id,
        chain,
        ids: (0..DataEvent::IDS).map(|_| new_ids()).collect(),
        now,
    };
    let detail = serde_json::json!({
        "id": event.id, "source_kind": event.kind, "trigger": event.trigger, "script": event.script,
        "attempts": event.attempt, "last_error": error, "event": event.payload,
    });
    if data.chain.len() >= MAX_CHAIN {
        return Ok(());
    }
    data.emit(
        connection,
        event.app,
        "dead_letter",
        &event.kind,
        "",
        &detail,
    )
    .await
}
