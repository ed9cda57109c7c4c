//! Names and ids of apps, one from the other.

use picloud_shared::{AppId, AppName};

use crate::{Store, StoreError};

impl Store {
    /// The name of an app, live or pruned.
    pub async fn app_name(&self, id: AppId) -> Result<Option<AppName>, StoreError> {
        let name = sqlx::query_scalar!("SELECT name FROM apps WHERE id = $1", id.0)
            .fetch_optional(self.pool())
            .await?;
        let name = name.as_deref().map(str::parse).transpose();
        name.map_err(|_| StoreError::Corrupt("apps.name".to_owned()))
    }

    /// The id of an app, live or pruned.
    pub async fn app_id(&self, name: &AppName) -> Result<Option<AppId>, StoreError> {
        let id = sqlx::query_scalar!("SELECT id FROM apps WHERE name = $1", name.as_str())
            .fetch_optional(self.pool())
            .await?;
        Ok(id.map(Into::into))
    }
}
