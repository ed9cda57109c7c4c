//! Leases: which node runs which event, and for how long it is believed to be alive.

use chrono::{DateTime, TimeDelta, Utc};
use picloud_shared::{AppId, EventId, KeyId, NodeId, RunId, TriggerId, event::Link};
use serde_json::Value;
use sqlx::{PgConnection, postgres::types::PgInterval};
use uuid::Uuid;

use crate::{Store, StoreError};

/// How long a lease lasts without a heartbeat, by the database's clock.
pub const LEASE: TimeDelta = TimeDelta::seconds(20);

fn lease() -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: LEASE.num_microseconds().unwrap_or(20_000_000),
    }
}

/// What a node asks for.
#[derive(Debug, Clone, Default)]
pub struct LeaseRequest {
    /// At most so many events.
    pub most: i32,
    /// Events that the node runs.
    pub own: Vec<Uuid>,
    /// Apps that the node has no room for, or does not know yet.
    pub closed: Vec<Uuid>,
    /// Apps whose runs are so short that events may wait at hand for one another.
    pub quick: Vec<Uuid>,
    /// For those: so many times what may run at the same time.
    pub ahead: i32,
}

/// The connection by which a node leases. It has one to itself, so that its plans are at hand at
/// each look. It doesn't wait for the disk: a lease that is lost with the database is none, and
/// its event is leased anew.
#[derive(Debug)]
pub struct Leasing {
    connection: PgConnection,
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
    /// On whose behalf it runs; `None`: its app's.
    pub key: Option<KeyId>,
    /// The commit that it runs on; `None`: the one that is live.
    pub commit: Option<String>,
    /// Whether the trigger behind it is no longer there.
    pub trigger_gone: bool,
    /// How many events of its app may run at the same time on the node that leased it.
    pub app_room: u32,
}

/// A lease: its event, and the number that tells it from the event's other leases.
pub type LeaseId = (EventId, i64);

impl LeasedEvent {
    /// By which it was leased.
    pub fn lease(&self) -> LeaseId {
        (self.id, self.fence)
    }
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
    key_id: Option<Uuid>,
    commit: Option<String>,
    trigger_gone: bool,
    app_room: i32,
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
            key: row.key_id.map(Into::into),
            commit: row.commit,
            trigger_gone: row.trigger_gone,
            app_room: row.app_room.unsigned_abs(),
        })
    }
}

impl Store {
    /// Gives back what a node had leased before it ended.
    pub async fn release_leases(&self, node: NodeId) -> Result<u64, StoreError> {
        let released = sqlx::query!(
            "UPDATE outbox SET lease_until = NULL, lease_node = NULL,
                 held = trigger_id IS NOT NULL AND max_concurrency IS NOT NULL AND NOT ordered
             WHERE lease_until IS NOT NULL AND lease_node = $1",
            node.0
        )
        .execute(self.pool())
        .await?;
        Ok(released.rows_affected())
    }

    /// Gives back events that were leased and not begun.
    pub async fn give_back(&self, node: NodeId, events: &[Uuid]) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE outbox SET lease_until = NULL, lease_node = NULL,
                 held = trigger_id IS NOT NULL AND max_concurrency IS NOT NULL AND NOT ordered
             WHERE id = ANY($2) AND lease_node = $1",
            node.0,
            events,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// A connection by which to lease.
    pub async fn leasing(&self) -> Result<Leasing, StoreError> {
        let mut connection = self.pool().acquire().await?.detach();
        sqlx::raw_sql("SET synchronous_commit = off; SET plan_cache_mode = force_generic_plan")
            .execute(&mut connection)
            .await?;
        Ok(Leasing { connection })
    }

    /// Keeps the leases of runs that take long.
    pub async fn extend_leases(&self, node: NodeId, events: &[Uuid]) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE outbox SET lease_until = clock_timestamp() + $3 WHERE id IN
               (SELECT o.id FROM outbox o WHERE o.id = ANY($2) AND o.lease_node = $1 FOR UPDATE SKIP LOCKED)",
            node.0,
            events,
            lease(),
        )
        .execute(self.pool())
        .await?;
        Ok(())
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
}

impl Leasing {
    /// Leases events that are due, from each app in turn, oldest first. What one app or trigger may
    /// run at the same time is counted over all nodes.
    pub async fn lease(
        &mut self,
        node: NodeId,
        request: &LeaseRequest,
        now: DateTime<Utc>,
    ) -> Result<Vec<LeasedEvent>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id AS "id!", app_id AS "app_id!", source_kind AS "source_kind!", trigger_id, trigger,
                 script AS "script!", payload AS "payload!: Value", cause, chain AS "chain!: Value",
                 attempt AS "attempt!", attempts AS "attempts!", backoff_ms AS "backoff_ms!",
                 max_backoff_ms AS "max_backoff_ms!", errors AS "errors!: Value", due_at AS "due_at!",
                 fence AS "fence!", key_id, commit, trigger_gone AS "trigger_gone!", app_room AS "app_room!"
               FROM lease_events($1, $2, $3, $4, $5, $6, $7, $8)"#,
            node.0,
            request.most,
            now,
            lease(),
            &request.own,
            &request.closed,
            &request.quick,
            request.ahead.max(1),
        )
        .fetch_all(&mut self.connection)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// When something is to be looked at that nobody tells of: an event that becomes due, or
    /// another node's lease that runs out. What is due already waits for room, of which whoever
    /// makes it knows.
    pub async fn next_due(
        &mut self,
        node: NodeId,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        let next = sqlx::query_scalar!("SELECT next_outbox_due($1, $2)", node.0, now,)
            .fetch_one(&mut self.connection)
            .await?;
        Ok(next)
    }
}
