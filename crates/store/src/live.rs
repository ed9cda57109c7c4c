//! The live configuration, whole.

use std::sync::Arc;

use picloud_shared::plan::{LiveApp, LiveState, LiveVersion};
use sqlx::PgConnection;

use crate::{Store, StoreError, live_rows};

/// The live version, as the transaction sees it.
pub(crate) async fn version(connection: &mut PgConnection) -> Result<LiveVersion, StoreError> {
    let row = sqlx::query_as!(LiveVersionRow, "SELECT generation, edits FROM live_state")
        .fetch_one(connection)
        .await?;
    Ok(row.into())
}

/// The live version, held until the transaction ends.
pub(crate) async fn lock_version(connection: &mut PgConnection) -> Result<LiveVersion, StoreError> {
    let row = sqlx::query_as!(
        LiveVersionRow,
        "SELECT generation, edits FROM live_state FOR UPDATE"
    )
    .fetch_one(connection)
    .await?;
    Ok(row.into())
}

struct LiveVersionRow {
    generation: i64,
    edits: i64,
}

impl From<LiveVersionRow> for LiveVersion {
    fn from(row: LiveVersionRow) -> Self {
        Self {
            generation: row.generation,
            edits: row.edits,
        }
    }
}

impl Store {
    /// What a plan that is made now would name as its parent.
    pub async fn live_version(&self) -> Result<LiveVersion, StoreError> {
        let mut connection = self.pool().acquire().await?;
        version(&mut connection).await
    }

    /// Everything that is live, as of one instant.
    pub async fn load_live(&self) -> Result<LiveState, StoreError> {
        let mut transaction = self.pool().begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut *transaction)
            .await?;
        let version = version(&mut transaction).await?;
        let loaded = live_rows::load(&mut transaction, None).await?;
        transaction.commit().await?;
        let mut state = LiveState {
            version,
            ..LiveState::default()
        };
        for app in loaded.into_values() {
            let pinned = app.row.pinned_commit.as_deref().map(str::parse).transpose();
            let live = LiveApp {
                id: app.row.id.into(),
                source: app.row.source_id.into(),
                pinned_commit: pinned
                    .map_err(|_| StoreError::Corrupt("apps.pinned_commit".to_owned()))?,
                spec: Arc::new(app.spec),
            };
            state.apps.insert(live.spec.name.clone(), live);
        }
        Ok(state)
    }
}
