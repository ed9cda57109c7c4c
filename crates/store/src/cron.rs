//! Cron triggers: when each fires next, and firing what is due.

use chrono::{DateTime, Utc};
use picloud_shared::{AppId, RunRecord, TriggerId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Store, StoreError, outbox::counts, runs};

/// Key of the lock under which one scheduler at a time fires.
const LOCK: i64 = 7_091_996;

/// A cron trigger, as the scheduler needs it.
#[derive(Debug, Clone)]
pub struct CronTrigger {
    /// Its id.
    pub id: TriggerId,
    /// Whose.
    pub app: AppId,
    /// The app's name.
    pub app_name: String,
    /// Its name.
    pub name: String,
    /// The handler.
    pub script: String,
    /// Whether it fires.
    pub enabled: bool,
    /// When it fires.
    pub schedule: String,
    /// In which zone.
    pub timezone: String,
    /// `skip`, `allow` or `queue`.
    pub overlap: String,
    /// `latest` or `none`.
    pub catch_up: String,
    /// Counts the first.
    pub attempts: i32,
    /// Before the second attempt.
    pub backoff_ms: i64,
    /// The longest wait.
    pub max_backoff_ms: i64,
    /// Runs at the same time.
    pub max_concurrency: Option<i32>,
    /// When it fires next; `None`: not known yet.
    pub next_fire_at: Option<DateTime<Utc>>,
    /// The commit that is live of the app.
    pub commit: String,
    /// Whether an event of it waits or runs.
    pub busy: bool,
}

/// What becomes of a due trigger.
#[derive(Debug, Clone)]
pub struct Firing {
    /// The trigger.
    pub trigger: CronTrigger,
    /// The event's id and `ctx.event.cron`; `None`: it doesn't fire.
    pub event: Option<(Uuid, Value)>,
    /// When it fires next.
    pub next: Option<DateTime<Utc>>,
    /// The last time that was dealt with.
    pub scheduled_at: Option<DateTime<Utc>>,
    /// The record of a firing that was passed over.
    pub skipped: Option<RunRecord>,
}

impl Store {
    /// Decides on all triggers that are due, new, or switched off, and carries it out in one
    /// transaction: `decide` is given each, and says what becomes of it. Gives when the next one
    /// is due.
    pub async fn fire_cron(
        &self,
        now: DateTime<Utc>,
        decide: impl Fn(CronTrigger) -> Firing + Send,
    ) -> Result<(usize, Option<DateTime<Utc>>), StoreError> {
        let mut transaction = self.pool().begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(LOCK)
            .execute(&mut *transaction)
            .await?;
        let rows = sqlx::query!(
            r#"SELECT t.id, t.app_id, a.name AS app_name, t.name, t.script, t.enabled, t.attempts, t.backoff_ms,
                 t.max_backoff_ms, t.max_concurrency, c.schedule, c.timezone, c.overlap, c.catch_up, c.next_fire_at,
                 coalesce(a.pinned_commit, s.live_commit, '') AS "commit!",
                 EXISTS (SELECT FROM outbox o WHERE o.trigger_id = t.id) AS "busy!"
               FROM cron_trigger_details c JOIN triggers t ON t.id = c.trigger_id
               JOIN apps a ON a.id = t.app_id LEFT JOIN sources s ON s.id = a.source_id
               WHERE a.pruned_at IS NULL
                 AND (t.enabled AND (c.next_fire_at IS NULL OR c.next_fire_at <= $1)
                      OR NOT t.enabled AND c.next_fire_at IS NOT NULL)
               ORDER BY c.next_fire_at LIMIT 10000 FOR UPDATE OF c"#,
            now,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let firings: Vec<Firing> = rows
            .into_iter()
            .map(|row| {
                decide(CronTrigger {
                    id: row.id.into(),
                    app: row.app_id.into(),
                    app_name: row.app_name,
                    name: row.name,
                    script: row.script,
                    enabled: row.enabled,
                    schedule: row.schedule,
                    timezone: row.timezone,
                    overlap: row.overlap,
                    catch_up: row.catch_up,
                    attempts: row.attempts,
                    backoff_ms: row.backoff_ms,
                    max_backoff_ms: row.max_backoff_ms,
                    max_concurrency: row.max_concurrency,
                    next_fire_at: row.next_fire_at,
                    commit: row.commit,
                    busy: row.busy,
                })
            })
            .collect();
        let events: Value = firings
            .iter()
            .filter_map(|firing| event(firing, now))
            .collect();
        let fired = events.as_array().map_or(0, Vec::len);
        if fired > 0 {
            sqlx::query!(
                "INSERT INTO outbox (id, app_id, source_kind, trigger_id, trigger, script, payload, attempts, backoff_ms,
                     max_backoff_ms, max_concurrency, ordered, held, due_at, created_at)
                 SELECT id, app_id, 'cron', trigger_id, trigger, script, payload, attempts, backoff_ms, max_backoff_ms,
                     max_concurrency, ordered, ordered OR max_concurrency IS NOT NULL, due_at, due_at
                 FROM jsonb_to_recordset($1) AS new (id uuid, app_id uuid, trigger_id uuid, trigger text, script text,
                     payload json, attempts integer, backoff_ms bigint, max_backoff_ms bigint, max_concurrency integer,
                     ordered boolean, due_at timestamptz)",
                events,
            )
            .execute(&mut *transaction)
            .await?;
        }
        let times: Value = firings
            .iter()
            .map(|firing| {
                json!({ "id": firing.trigger.id, "next": firing.next, "scheduled": firing.scheduled_at })
            })
            .collect();
        sqlx::query!(
            "UPDATE cron_trigger_details c SET next_fire_at = new.next,
                 last_scheduled_at = coalesce(new.scheduled, c.last_scheduled_at)
             FROM jsonb_to_recordset($1) AS new (id uuid, next timestamptz, scheduled timestamptz)
             WHERE c.trigger_id = new.id",
            times,
        )
        .execute(&mut *transaction)
        .await?;
        let skipped: Vec<&RunRecord> = firings
            .iter()
            .filter_map(|firing| firing.skipped.as_ref())
            .collect();
        if !skipped.is_empty() {
            runs::insert(&mut transaction, &skipped).await?;
            runs::add_counts(&mut transaction, &counts(&skipped)).await?;
        }
        let next = sqlx::query_scalar!(
            "SELECT min(c.next_fire_at) FROM cron_trigger_details c JOIN triggers t ON t.id = c.trigger_id
             JOIN apps a ON a.id = t.app_id WHERE t.enabled AND a.pruned_at IS NULL"
        )
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        if fired > 0 {
            self.outbox_written();
        }
        Ok((fired, next))
    }

    /// When each of an app's cron triggers fires next.
    pub async fn next_fires(&self, app: AppId) -> Result<Vec<NextFire>, StoreError> {
        self.next_fires_of(&[app]).await
    }

    /// When each cron trigger of these apps fires next.
    pub async fn next_fires_of(&self, apps: &[AppId]) -> Result<Vec<NextFire>, StoreError> {
        let apps: Vec<Uuid> = apps.iter().map(|app| app.0).collect();
        let rows = sqlx::query!(
            r#"SELECT t.app_id, t.name, t.id, c.next_fire_at AS "at?" FROM triggers t
               LEFT JOIN cron_trigger_details c ON c.trigger_id = t.id
               WHERE t.app_id = ANY ($1) ORDER BY t.app_id, t.name"#,
            &apps,
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| NextFire {
                app: row.app_id.into(),
                name: row.name,
                id: row.id.into(),
                at: row.at,
            })
            .collect())
    }
}

/// A trigger, and when it fires next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextFire {
    /// Whose.
    pub app: AppId,
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: TriggerId,
    /// When it fires next, where it fires by the clock.
    pub at: Option<DateTime<Utc>>,
}

fn event(firing: &Firing, now: DateTime<Utc>) -> Option<Value> {
    let trigger = &firing.trigger;
    let (id, payload) = firing.event.as_ref()?;
    Some(json!({
        "id": id, "app_id": trigger.app, "trigger_id": trigger.id, "trigger": trigger.name,
        "script": trigger.script, "payload": payload, "attempts": trigger.attempts,
        "backoff_ms": trigger.backoff_ms, "max_backoff_ms": trigger.max_backoff_ms,
        "max_concurrency": trigger.max_concurrency, "ordered": trigger.overlap == "queue", "due_at": now,
    }))
}
