//! The history of deployments.

use chrono::{DateTime, Utc};
use picloud_shared::{
    AppName, CommitId, DeploymentId, Diagnostic, SourceId, SourceName,
    deployment::{Deployment, DeploymentReason, DeploymentStatus},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{Page, Store, StoreError, notifications::Announcement, page::PageQuery};

struct Row {
    id: Uuid,
    source: String,
    commit: String,
    previous_commit: Option<String>,
    author: String,
    message: String,
    reason: String,
    status: String,
    waits_until: Option<DateTime<Utc>>,
    signed_by: Option<String>,
    changes: Value,
    errors: Value,
    apps: Value,
    plan_hash: Option<String>,
    steps: Value,
    history_rewritten: bool,
    generation: Option<i64>,
    started_at: DateTime<Utc>,
    duration_ms: Option<f64>,
}

impl TryFrom<Row> for Deployment {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |what: &str| StoreError::Corrupt(format!("deployments.{what} of {}", row.id));
        let previous = row.previous_commit.as_deref().map(str::parse).transpose();
        Ok(Self {
            id: row.id.into(),
            source: row.source.parse().map_err(|_| corrupt("source"))?,
            commit: row.commit.parse().map_err(|_| corrupt("commit"))?,
            previous_commit: previous.map_err(|_| corrupt("previous_commit"))?,
            status: DeploymentStatus::parse(&row.status).ok_or_else(|| corrupt("status"))?,
            reason: DeploymentReason::parse(&row.reason).ok_or_else(|| corrupt("reason"))?,
            waits_until: row.waits_until,
            signed_by: row.signed_by,
            changes: read(row.changes).map_err(|_| corrupt("changes"))?,
            errors: read(row.errors).map_err(|_| corrupt("errors"))?,
            apps: read(row.apps).map_err(|_| corrupt("apps"))?,
            plan_hash: row.plan_hash,
            steps: read(row.steps).map_err(|_| corrupt("steps"))?,
            author: row.author,
            message: row.message,
            history_rewritten: row.history_rewritten,
            generation: row.generation,
            started_at: row.started_at,
            duration_ms: row.duration_ms,
        })
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}

/// Writes a deployment, or what became of it.
pub(crate) async fn write(
    connection: &mut PgConnection,
    source: SourceId,
    deployment: &Deployment,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO deployments (id, source_id, commit, previous_commit, author, message, status, changes, errors,
             steps, history_rewritten, generation, started_at, duration_ms, reason, waits_until, signed_by,
             apps, plan_hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
         ON CONFLICT (id) DO UPDATE SET status = EXCLUDED.status, changes = EXCLUDED.changes,
             waits_until = EXCLUDED.waits_until, signed_by = EXCLUDED.signed_by,
             apps = EXCLUDED.apps, plan_hash = EXCLUDED.plan_hash, errors = EXCLUDED.errors, steps = EXCLUDED.steps, generation = EXCLUDED.generation,
             duration_ms = EXCLUDED.duration_ms, told = false",
        deployment.id.0,
        source.0,
        deployment.commit.as_str(),
        deployment.previous_commit.as_ref().map(CommitId::as_str),
        deployment.author,
        deployment.message,
        deployment.status.as_str(),
        json(&deployment.changes) as _,
        json(&deployment.errors) as _,
        json(&deployment.steps) as _,
        deployment.history_rewritten,
        deployment.generation,
        deployment.started_at,
        deployment.duration_ms,
        deployment.reason.as_str(),
        deployment.waits_until,
        deployment.signed_by,
        json(&deployment.apps) as _,
        deployment.plan_hash,
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn json<T: Serialize>(value: &T) -> Json<&T> {
    Json(value)
}

impl Store {
    /// Writes a deployment that changed nothing, the head that is dealt with by it, where it is, and
    /// what is told of it.
    pub async fn record_deployment(
        &self,
        source: SourceId,
        deployment: &Deployment,
        head: Option<&CommitId>,
        announcement: &Announcement<'_>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool().begin().await?;
        write(&mut transaction, source, deployment).await?;
        if let Some(head) = head {
            sqlx::query!(
                "UPDATE sources SET settled_head = $2 WHERE id = $1",
                source.0,
                head.as_str(),
            )
            .execute(&mut *transaction)
            .await?;
        }
        announcement.write(&mut transaction, source).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Writes how long a deployment took, once it is served, and what is told of it, once.
    pub async fn finish_deployment(
        &self,
        deployment: &Deployment,
        announcement: Option<&Announcement<'_>>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool().begin().await?;
        let before = sqlx::query!(
            "UPDATE deployments d SET duration_ms = $2, steps = $3, status = $4, apps = $5, told = true
             FROM (SELECT id, told FROM deployments WHERE id = $1 FOR UPDATE) before
             WHERE d.id = before.id RETURNING d.source_id, before.told",
            deployment.id.0,
            deployment.duration_ms,
            json(&deployment.steps) as _,
            deployment.status.as_str(),
            json(&deployment.apps) as _,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if let (Some(before), Some(announcement)) = (before, announcement)
            && !before.told
        {
            let source = before.source_id.into();
            announcement.write(&mut transaction, source).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Deployments that were applied, whose checks are over, and whose end was not told: the process
    /// ended in between.
    pub async fn untold_deployments(
        &self,
        source: SourceId,
    ) -> Result<Vec<Deployment>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT d.id, s.name AS source, d.commit, d.previous_commit, d.author, d.message, d.reason, d.status,
                 d.waits_until, d.signed_by, d.changes AS "changes: Value", d.errors AS "errors: Value",
                 d.apps AS "apps: Value", d.plan_hash, d.steps AS "steps: Value", d.history_rewritten, d.generation,
                 d.started_at, d.duration_ms
               FROM deployments d JOIN sources s ON s.id = d.source_id
               WHERE d.source_id = $1 AND NOT d.told AND d.generation IS NOT NULL AND d.status <> 'applying'
               ORDER BY d.id"#,
            source.0,
        )
        .fetch_all(self.pool())
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// The deployment of that id.
    pub async fn deployment(&self, id: DeploymentId) -> Result<Option<Deployment>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT d.id, s.name AS source, commit, previous_commit, author, message, reason, status,
                 waits_until, signed_by, changes AS "changes: Value", errors AS "errors: Value", apps AS "apps: Value", plan_hash, steps AS "steps: Value",
                 history_rewritten, generation, started_at, duration_ms
               FROM deployments d JOIN sources s ON s.id = d.source_id WHERE d.id = $1"#,
            id.0,
        )
        .fetch_optional(self.pool())
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// Deployments, newest first.
    pub async fn deployments(
        &self,
        source: Option<&SourceName>,
        app: Option<&AppName>,
        query: &PageQuery,
    ) -> Result<Page<Deployment>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT d.id, s.name AS source, commit, previous_commit, author, message, reason, status,
                 waits_until, signed_by, changes AS "changes: Value", errors AS "errors: Value", apps AS "apps: Value", plan_hash, steps AS "steps: Value",
                 history_rewritten, generation, started_at, duration_ms
               FROM deployments d JOIN sources s ON s.id = d.source_id
               WHERE (s.name = $1 OR $1::text IS NULL AND s.preview_of IS NULL) AND ($2::uuid IS NULL OR d.id < $2)
                 AND ($4::text IS NULL
                   OR EXISTS (SELECT 1 FROM json_array_elements(d.changes) c WHERE c ->> 'app' = $4)
                   OR EXISTS (SELECT 1 FROM json_array_elements(d.errors) e WHERE e ->> 'app' = $4))
               ORDER BY d.id DESC LIMIT $3"#,
            source.map(SourceName::as_str),
            query.after()?,
            query.rows(),
            app.map(AppName::as_str),
        )
        .fetch(self.pool());
        let id = |deployment: &Deployment| deployment.id.0;
        query.gather(rows, id).await
    }

    /// As [`Store::deployments`], without changes, errors, apps and steps, which may be large: how many
    /// changes, errors and warnings there are is counted instead.
    pub async fn brief_deployments(
        &self,
        source: Option<&SourceName>,
        app: Option<&AppName>,
        query: &PageQuery,
    ) -> Result<Page<(Deployment, [i64; 3])>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT d.id, s.name AS source, commit, previous_commit, author, message, reason, status,
                 waits_until, signed_by, history_rewritten, generation, started_at, duration_ms,
                 json_array_length(changes)::bigint AS "changes!", json_array_length(errors)::bigint AS "findings!",
                 (SELECT count(*) FROM json_array_elements(d.errors) e WHERE e ->> 'severity' = 'error') AS "errors!"
               FROM deployments d JOIN sources s ON s.id = d.source_id
               WHERE (s.name = $1 OR $1::text IS NULL AND s.preview_of IS NULL) AND ($2::uuid IS NULL OR d.id < $2)
                 AND ($4::text IS NULL
                   OR EXISTS (SELECT 1 FROM json_array_elements(d.changes) c WHERE c ->> 'app' = $4)
                   OR EXISTS (SELECT 1 FROM json_array_elements(d.errors) e WHERE e ->> 'app' = $4))
               ORDER BY d.id DESC LIMIT $3"#,
            source.map(SourceName::as_str),
            query.after()?,
            query.rows(),
            app.map(AppName::as_str),
        )
        .fetch_all(self.pool())
        .await?;
        let none = || Value::Array(Vec::new());
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let counts = [row.changes, row.errors, row.findings - row.errors];
            let row = Row {
                id: row.id,
                source: row.source,
                commit: row.commit,
                previous_commit: row.previous_commit,
                author: row.author,
                message: row.message,
                reason: row.reason,
                status: row.status,
                waits_until: row.waits_until,
                signed_by: row.signed_by,
                changes: none(),
                errors: none(),
                apps: none(),
                plan_hash: None,
                steps: none(),
                history_rewritten: row.history_rewritten,
                generation: row.generation,
                started_at: row.started_at,
                duration_ms: row.duration_ms,
            };
            items.push((Deployment::try_from(row)?, counts));
        }
        Ok(query.page(items, |(deployment, _)| deployment.id.0))
    }

    /// The last deployment of a source, whatever became of it.
    pub async fn last_deployment(
        &self,
        source: &SourceName,
    ) -> Result<Option<Deployment>, StoreError> {
        let query = PageQuery {
            limit: 1,
            cursor: None,
        };
        Ok(self
            .deployments(Some(source), None, &query)
            .await?
            .items
            .pop())
    }

    /// The deployment of this commit that is held, or waits.
    pub async fn pending_deployment(
        &self,
        source: SourceId,
        commit: &CommitId,
    ) -> Result<Option<DeploymentId>, StoreError> {
        let id = sqlx::query_scalar!(
            "SELECT id FROM deployments
             WHERE source_id = $1 AND commit = $2 AND status IN ('held', 'waiting')
             ORDER BY id DESC LIMIT 1",
            source.0,
            commit.as_str(),
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(id.map(Into::into))
    }

    /// Whether this commit of the source was live at some time.
    pub async fn was_applied(
        &self,
        source: SourceId,
        commit: &CommitId,
    ) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM deployments
                 WHERE source_id = $1 AND commit = $2 AND generation IS NOT NULL) AS "found!""#,
            source.0,
            commit.as_str(),
        )
        .fetch_one(self.pool())
        .await?;
        Ok(found)
    }

    /// Deployments whose checks were under way when the process ended, oldest first.
    pub async fn interrupted_deployments(
        &self,
        source: SourceId,
    ) -> Result<Vec<Deployment>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT d.id, s.name AS source, commit, previous_commit, author, message, reason, status,
                 waits_until, signed_by, changes AS "changes: Value", errors AS "errors: Value", apps AS "apps: Value", plan_hash, steps AS "steps: Value",
                 history_rewritten, generation, started_at, duration_ms
               FROM deployments d JOIN sources s ON s.id = d.source_id
               WHERE d.source_id = $1 AND status = 'applying' AND generation IS NOT NULL
               ORDER BY d.id"#,
            source.0
        )
        .fetch_all(self.pool())
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Deployments that a newer commit took the place of while they were held or waited are over.
    pub async fn supersede_deployments(
        &self,
        source: SourceId,
        commit: &CommitId,
        why: &Diagnostic,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE deployments SET status = 'failed', waits_until = NULL,
                 errors = (errors::jsonb || jsonb_build_array($3::jsonb))::json
             WHERE source_id = $1 AND commit <> $2 AND status IN ('held', 'waiting')",
            source.0,
            commit.as_str(),
            json(why) as _,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Whether a plan of this source was reviewed.
    pub async fn is_reviewed(&self, source: SourceId, hash: &str) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM reviewed_plans WHERE source_id = $1 AND hash = $2) AS "found!""#,
            source.0,
            hash,
        )
        .fetch_one(self.pool())
        .await?;
        Ok(found)
    }

    /// Keeps that the plan which a pull request's comment shows was reviewed, and lets a commit of
    /// that plan go that is held. Gives whether there was a plan.
    pub async fn review_pull(
        &self,
        source: SourceId,
        number: i64,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool().begin().await?;
        let hash = sqlx::query_scalar!(
            r#"INSERT INTO reviewed_plans (source_id, hash, reviewed_by, reviewed_at)
               SELECT source_id, plan_hash, 'pull request ' || number, $3
               FROM pull_requests WHERE source_id = $1 AND number = $2 AND plan_hash IS NOT NULL
               ON CONFLICT (source_id, hash) DO UPDATE SET reviewed_at = EXCLUDED.reviewed_at
               RETURNING hash"#,
            source.0,
            number,
            now,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(hash) = &hash {
            sqlx::query!(
                "UPDATE sources SET approved_commit = held.commit, settled_head = NULL
                 FROM (SELECT commit FROM deployments WHERE source_id = $1 AND status = 'held' AND plan_hash = $2
                       ORDER BY id DESC LIMIT 1) AS held
                 WHERE id = $1",
                source.0,
                hash,
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(hash.is_some())
    }
}
