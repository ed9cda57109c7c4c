//! Work that is handed over. A row is written in the transaction of its cause, leased by a node,
//! and ends together with the record of its run.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use picloud_shared::{
    AppId, Clock, EventId, KeyId, RunId, TriggerId, TriggerName,
    app::{Overlap, RetryPolicy, TriggerKind, TriggerSpec},
    event::{Link, MAX_CHAIN},
};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};

mod finish;
mod lease;

pub(crate) use finish::counts;
pub use finish::{Finished, Next};
pub use lease::{LEASE, LeaseId, LeaseRequest, LeasedEvent, Leasing};

use crate::{Store, StoreError};

/// A write that may set triggers off, and on whose account.
#[derive(Clone)]
pub struct DataEvent {
    /// The run that writes.
    pub cause: RunId,
    /// The runs that led to it, itself included.
    pub chain: Vec<Link>,
    /// For the events' ids.
    pub clock: Arc<dyn Clock>,
    /// When.
    pub now: DateTime<Utc>,
}

impl DataEvent {
    /// Writes an event for each trigger of the app that is about this. A trigger of the kind
    /// `dead_letter` that is in the chain already is left out: its own failures don't come back
    /// to it.
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
        let passed: Vec<String> = if kind == "dead_letter" {
            let triggers = self.chain.iter().filter_map(|link| link.trigger.as_ref());
            triggers.map(|name| name.as_str().to_owned()).collect()
        } else {
            Vec::new()
        };
        let found = sqlx::query!(
            r#"SELECT t.id, t.name, t.script, t.attempts, t.backoff_ms, t.max_backoff_ms, t.max_concurrency
               FROM triggers t JOIN (
                 SELECT trigger_id, collection, events, 'kv' AS kind FROM kv_trigger_details WHERE app_id = $1
                 UNION ALL
                 SELECT trigger_id, collection, events, 'docs' FROM docs_trigger_details WHERE app_id = $1
                 UNION ALL
                 SELECT trigger_id, coalesce(source_kind, '*'), NULL, 'dead_letter' FROM dead_letter_trigger_details WHERE app_id = $1
               ) d ON d.trigger_id = t.id
               WHERE t.app_id = $1 AND t.enabled AND d.kind = $2
                 AND (d.collection = $3 OR (right(d.collection, 1) = '*' AND starts_with($3, left(d.collection, -1))))
                 AND (d.events IS NULL OR $4 = ANY(d.events))
                 AND NOT t.name = ANY($5)
               ORDER BY t.name"#,
            app.0,
            kind,
            collection,
            op,
            &passed,
        )
        .fetch_all(&mut *connection)
        .await?;
        for row in &found {
            let event = NewEvent {
                trigger: Some((row.id.into(), &row.name)),
                cause: Some(self.cause),
                chain: &self.chain,
                attempts: row.attempts,
                backoff_ms: row.backoff_ms,
                max_backoff_ms: row.max_backoff_ms,
                max_concurrency: row.max_concurrency,
                ..NewEvent::new(
                    self.clock.new_id().into(),
                    app,
                    kind,
                    &row.script,
                    detail,
                    self.now,
                )
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
    /// Runs of its trigger at the same time.
    pub max_concurrency: Option<i32>,
    /// Whether it waits until all earlier ones of its trigger ended (`overlap: queue`).
    pub ordered: bool,
    /// On whose behalf it runs; `None`: its app's.
    pub key: Option<KeyId>,
    /// The commit that it runs on; `None`: the one that is live then.
    pub commit: Option<&'a str>,
    /// When it may run.
    pub due_at: DateTime<Utc>,
    /// When it is written.
    pub now: DateTime<Utc>,
}

impl<'a> NewEvent<'a> {
    /// An event without a trigger, due now, with the default retry policy.
    pub fn new(
        id: EventId,
        app: AppId,
        kind: &'a str,
        script: &'a str,
        payload: &'a Value,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            id,
            app,
            kind,
            trigger: None,
            script,
            payload,
            dedup_key: None,
            cause: None,
            chain: &[],
            attempts: 1,
            backoff_ms: 0,
            max_backoff_ms: 0,
            max_concurrency: None,
            ordered: false,
            key: None,
            commit: None,
            due_at: now,
            now,
        }
        .with_retry(&RetryPolicy::default())
    }

    /// With this policy.
    #[must_use]
    pub fn with_retry(mut self, retry: &RetryPolicy) -> Self {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.attempts = i32::try_from(retry.attempts).unwrap_or(i32::MAX);
        self.backoff_ms = number(retry.backoff_ms);
        self.max_backoff_ms = number(retry.max_backoff_ms);
        self
    }

    /// As a firing of this trigger: its policy and its limits hold.
    #[must_use]
    pub fn of_trigger(mut self, id: TriggerId, name: &'a str, spec: &TriggerSpec) -> Self {
        self.trigger = Some((id, name));
        self.max_concurrency = spec
            .max_concurrency
            .and_then(|most| i32::try_from(most).ok());
        self.ordered = matches!(
            spec.kind,
            TriggerKind::Cron {
                overlap: Overlap::Queue,
                ..
            }
        );
        self.with_retry(&spec.retry)
    }

    /// Writes it; gives the id of the event that waits, which is another one's where the key is
    /// taken.
    pub(crate) async fn insert(
        &self,
        connection: &mut PgConnection,
    ) -> Result<EventId, StoreError> {
        let held = self.trigger.is_some() && (self.ordered || self.max_concurrency.is_some());
        let id = sqlx::query_scalar!(
            "INSERT INTO outbox (id, app_id, source_kind, trigger_id, trigger, script, payload, dedup_key, cause, chain,
                 attempts, backoff_ms, max_backoff_ms, max_concurrency, ordered, held, key_id, commit, due_at, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
             ON CONFLICT (app_id, script, dedup_key) WHERE dedup_key IS NOT NULL
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
            self.ordered,
            held,
            self.key.map(|key| key.0),
            self.commit,
            self.due_at,
            self.now,
        )
        .fetch_one(connection)
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

impl Store {
    /// Writes an event by itself.
    pub async fn enqueue(&self, event: &NewEvent<'_>) -> Result<EventId, StoreError> {
        // One statement is a transaction, and one round trip.
        let mut connection = self.pool().acquire().await?;
        if event.chain.len() >= MAX_CHAIN {
            event.bury(&mut connection).await?;
            return Ok(event.id);
        }
        let id = event.insert(&mut connection).await?;
        self.outbox_written();
        Ok(id)
    }

    /// Writes an event that shows the trigger of that name, but does not count as its: a replay.
    pub async fn enqueue_named(
        &self,
        event: &NewEvent<'_>,
        trigger: Option<&TriggerName>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool().begin().await?;
        event.insert(&mut transaction).await?;
        sqlx::query!(
            "UPDATE outbox SET trigger = $2 WHERE id = $1",
            event.id.0,
            trigger.map(TriggerName::as_str),
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.outbox_written();
        Ok(())
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
        self.outbox_written();
        Ok(Some(id))
    }
}
