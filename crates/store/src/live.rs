//! The live configuration, whole.

use std::{collections::BTreeSet, sync::Arc};

use picloud_shared::{
    AppName,
    plan::{ItemKind, LiveApp, LiveState, LiveVersion},
};
use serde_json::json;
use sqlx::PgConnection;

use crate::{
    Store, StoreError,
    live_rows::{self, LoadedApp},
};

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

    /// Everything that is live, as of one instant. Contents are taken to be what their ids say.
    pub async fn load_live(&self) -> Result<LiveState, StoreError> {
        self.load_live_state(false).await
    }

    /// The live apps of these names.
    pub async fn load_live_apps(&self, names: &[AppName]) -> Result<Vec<LiveApp>, StoreError> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut connection = self.pool().acquire().await?;
        let ids = sqlx::query_scalar!("SELECT id FROM apps WHERE name = ANY($1)", &names)
            .fetch_all(&mut *connection)
            .await?;
        let loaded = live_rows::load(&mut connection, Some(&ids)).await?;
        Ok(loaded.into_values().map(live_app).collect())
    }

    /// As [`Store::load_live`], with contents looked at: a script that was changed by hand has the
    /// id of what it is now.
    pub async fn load_live_checked(&self) -> Result<LiveState, StoreError> {
        self.load_live_state(true).await
    }

    async fn load_live_state(&self, checked: bool) -> Result<LiveState, StoreError> {
        let mut transaction = self.pool().begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut *transaction)
            .await?;
        let version = version(&mut transaction).await?;
        let mut loaded = live_rows::load(&mut transaction, None).await?;
        let mut edited = BTreeSet::new();
        if checked {
            edited = self.check_contents(&mut transaction, &mut loaded).await?;
        }
        transaction.commit().await?;
        Ok(LiveState {
            version,
            apps: loaded
                .into_values()
                .map(|app| (app.spec.name.clone(), live_app(app)))
                .collect(),
            edited,
        })
    }
}

/// An app with all that belongs to it, in the words of the planner.
pub(crate) fn live_app(mut app: LoadedApp) -> LiveApp {
    let pinned = app.row.pinned_commit.as_deref().map(str::parse);
    if let (Some(Err(_)), Some(text)) = (&pinned, &app.row.pinned_commit) {
        let fields = json!({
            "name": app.spec.name, "dir": app.spec.dir, "description": app.spec.description,
            "pinned_commit": text,
        });
        app.damage(ItemKind::App, app.spec.name.to_string(), fields);
    }
    LiveApp {
        id: app.row.id.into(),
        source: app.row.source_id.into(),
        pinned_commit: pinned.and_then(Result::ok),
        spec: Arc::new(app.spec),
        damaged: app.damaged,
    }
}
