//! Notifications on their way: written when something happened, gone when they are delivered or
//! given up.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use picloud_shared::{AppId, AppName, Clock, EventId, SourceId, SourceName};
use serde_json::{Value, json};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{Store, StoreError, listen::NOTIFICATIONS};

/// Dead letters of a trigger are counted for so long from the first.
const WINDOW: TimeDelta = TimeDelta::hours(1);

/// A notification to be delivered.
#[derive(Debug, Clone)]
pub struct DueNotification {
    /// Its id: the same on every attempt.
    pub id: Uuid,
    /// Whose.
    pub source: String,
    /// `failed`, `synced`, `drifted`, `healed`, `failing`.
    pub event: String,
    /// Where to, sealed or plain.
    pub url: String,
    /// `json`, `slack`, `discord`.
    pub format: String,
    /// What happened.
    pub payload: Value,
    /// From 1.
    pub attempt: i32,
}

/// What somebody may want to be told, to be written with what it is about.
#[derive(Clone)]
pub struct Announcement<'a> {
    /// Whom the source wants to be told from now on; `None`: as before.
    pub wanted: Option<Value>,
    /// The event's name, and what is told; `None`: nobody is told of this.
    pub told: Option<(&'static str, Value)>,
    /// For ids and times.
    pub clock: &'a dyn Clock,
}

impl Announcement<'_> {
    /// Writes a notification for each entry of the source that is about this.
    pub(crate) async fn write(
        &self,
        connection: &mut PgConnection,
        source: SourceId,
    ) -> Result<(), StoreError> {
        if let Some(wanted) = &self.wanted {
            sqlx::query!(
                "UPDATE sources SET notifications = $2 WHERE id = $1 AND notifications <> $2",
                source.0,
                wanted,
            )
            .execute(&mut *connection)
            .await?;
        }
        let Some((event, payload)) = &self.told else {
            return Ok(());
        };
        let to = sqlx::query_as!(
            Receiver,
            r#"SELECT w ->> 'url' AS "url!", w ->> 'format' AS "format!"
               FROM sources s, jsonb_array_elements(s.notifications) w WHERE s.id = $1 AND w -> 'on' ? $2"#,
            source.0,
            event,
        )
        .fetch_all(&mut *connection)
        .await?;
        insert(connection, source, event, payload, &to, self.clock).await
    }
}

/// Who is told.
struct Receiver {
    url: String,
    format: String,
}

/// Writes notifications; managers are told of them with the commit. There are few: a commit that
/// notifies waits for others that do.
async fn insert(
    connection: &mut PgConnection,
    source: SourceId,
    event: &str,
    payload: &Value,
    to: &[Receiver],
    clock: &dyn Clock,
) -> Result<(), StoreError> {
    for one in to {
        sqlx::query!(
            "INSERT INTO notifications (id, source_id, event, url, format, payload, due_at, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
            clock.new_id(),
            source.0,
            event,
            one.url,
            one.format,
            Json(payload) as _,
            clock.now(),
        )
        .execute(&mut *connection)
        .await?;
    }
    if !to.is_empty() {
        sqlx::query("SELECT pg_notify($1, '')")
            .bind(NOTIFICATIONS)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// An event of a trigger that was given up.
pub(crate) struct GivenUp<'a> {
    pub(crate) app: AppId,
    pub(crate) trigger: &'a str,
    pub(crate) script: &'a str,
    pub(crate) letter: EventId,
    pub(crate) error: &'a Value,
}

/// Tells whoever wants to know that a trigger fails: at the dead letter that makes it as many
/// within an hour as they named, and then not before that hour is over.
pub(crate) async fn tell_failing(
    connection: &mut PgConnection,
    given_up: &GivenUp<'_>,
    clock: &dyn Clock,
) -> Result<(), StoreError> {
    let wanted = sqlx::query!(
        r#"SELECT s.id, s.name AS source, a.name AS app, w ->> 'url' AS "url!", w ->> 'format' AS "format!",
             coalesce((w ->> 'threshold')::bigint, 1) AS "threshold!"
           FROM apps a JOIN sources s ON s.id = a.source_id, jsonb_array_elements(s.notifications) w
           WHERE a.id = $1 AND w -> 'on' ? 'failing'"#,
        given_up.app.0,
    )
    .fetch_all(&mut *connection)
    .await?;
    let Some(first) = wanted.first() else {
        return Ok(());
    };
    let now = clock.now();
    let count = sqlx::query_scalar!(
        "INSERT INTO trigger_failures AS old (app_id, trigger, since, count) VALUES ($1, $2, $3, 1)
         ON CONFLICT (app_id, trigger) DO UPDATE SET
             since = CASE WHEN old.since < $4 THEN EXCLUDED.since ELSE old.since END,
             count = CASE WHEN old.since < $4 THEN 1 ELSE old.count + 1 END
         RETURNING count",
        given_up.app.0,
        given_up.trigger,
        now,
        now - WINDOW,
    )
    .fetch_one(&mut *connection)
    .await?;
    let payload = json!({
        "event": "failing", "source": first.source, "app": first.app, "trigger": given_up.trigger,
        "script": given_up.script, "dead_letters": count, "dead_letter": given_up.letter,
        "error": given_up.error["message"], "at": now.to_rfc3339_opts(SecondsFormat::Millis, true),
    });
    let source = first.id.into();
    let reached = wanted.into_iter().filter(|one| one.threshold == count);
    let to: Vec<Receiver> = reached
        .map(|one| Receiver {
            url: one.url,
            format: one.format,
        })
        .collect();
    insert(connection, source, "failing", &payload, &to, clock).await
}

impl Store {
    /// Whose app that is.
    pub async fn source_of_app(&self, app: &AppName) -> Result<Option<SourceName>, StoreError> {
        let name = sqlx::query_scalar!(
            "SELECT s.name FROM sources s JOIN apps a ON a.source_id = s.id WHERE a.name = $1",
            app.as_str(),
        )
        .fetch_optional(self.pool())
        .await?;
        let parsed = name.map(|name| name.parse()).transpose();
        parsed.map_err(|_| StoreError::Corrupt("sources.name".to_owned()))
    }

    /// An app began to drift, or ceased to: whoever wants to know is told, once, whoever sees it.
    pub async fn tell_drift(
        &self,
        source: &SourceName,
        app: &AppName,
        drifted: bool,
        announcement: &Announcement<'_>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool().begin().await?;
        let source = sqlx::query_scalar!("SELECT id FROM sources WHERE name = $1", source.as_str())
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(source) = source else {
            return Ok(());
        };
        let news = if drifted {
            sqlx::query!(
                "INSERT INTO told_drift (source_id, app, at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                source,
                app.as_str(),
                announcement.clock.now(),
            )
            .execute(&mut *transaction)
            .await?
        } else {
            sqlx::query!(
                "DELETE FROM told_drift WHERE source_id = $1 AND app = $2",
                source,
                app.as_str(),
            )
            .execute(&mut *transaction)
            .await?
        };
        if news.rows_affected() > 0 {
            announcement.write(&mut transaction, source.into()).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Apps of which it was told that they drift.
    pub async fn told_drift(&self) -> Result<Vec<(SourceName, AppName)>, StoreError> {
        let rows = sqlx::query!(
            "SELECT s.name, d.app FROM told_drift d JOIN sources s ON s.id = d.source_id ORDER BY s.name, d.app"
        )
        .fetch_all(self.pool())
        .await?;
        let corrupt = || StoreError::Corrupt("told_drift".to_owned());
        rows.into_iter()
            .map(|row| {
                let source = row.name.parse().map_err(|_| corrupt())?;
                Ok((source, row.app.parse().map_err(|_| corrupt())?))
            })
            .collect()
    }

    /// Takes what is due: nobody else takes it before `hold` is over.
    pub async fn take_notifications(
        &self,
        now: DateTime<Utc>,
        hold: TimeDelta,
    ) -> Result<Vec<DueNotification>, StoreError> {
        let rows = sqlx::query_as!(
            DueNotification,
            r#"UPDATE notifications n SET due_at = $2 FROM sources s
               WHERE s.id = n.source_id AND n.id IN (
                 SELECT id FROM notifications WHERE due_at <= $1 ORDER BY due_at LIMIT 20 FOR UPDATE SKIP LOCKED)
               RETURNING n.id, s.name AS source, n.event, n.url, n.format, n.payload AS "payload: Value", n.attempt"#,
            now,
            now + hold,
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows)
    }

    /// A notification is delivered, or given up.
    pub async fn end_notification(&self, id: Uuid) -> Result<(), StoreError> {
        sqlx::query!("DELETE FROM notifications WHERE id = $1", id)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// A notification is to be tried again, then.
    pub async fn retry_notification(
        &self,
        id: Uuid,
        due_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE notifications SET attempt = attempt + 1, due_at = $2 WHERE id = $1",
            id,
            due_at,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// When the next notification is due.
    pub async fn next_notification(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let next = sqlx::query_scalar!("SELECT min(due_at) FROM notifications")
            .fetch_one(self.pool())
            .await?;
        Ok(next)
    }
}
