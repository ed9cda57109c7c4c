//! What PostgreSQL holds sealed to the server's key: whoever reads a backup or a row of it has no
//! token of a forge, and can't sign a webhook.

use std::{collections::HashMap, fmt, sync::Arc};

use parking_lot::Mutex;
use picloud_shared::{script::Vault, sdk::SecretValue};
use serde_json::Value;

use crate::{Store, StoreError};

/// What sealed text begins with (the age format, section "ASCII armor").
const ARMOR: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
/// Opened texts that are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// Seals and opens; without a vault, as it comes.
#[derive(Clone, Default)]
pub(crate) struct Sealing {
    vault: Option<Arc<dyn Vault>>,
    /// Opening takes a fraction of a millisecond, and sources are read at every turn.
    opened: Arc<Mutex<HashMap<String, SecretValue>>>,
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is opened is nobody's to read.
        f.debug_struct("Sealing").finish_non_exhaustive()
    }
}

impl Sealing {
    pub(crate) fn with(vault: Arc<dyn Vault>) -> Self {
        Self {
            vault: Some(vault),
            opened: Arc::default(),
        }
    }

    pub(crate) fn seal(&self, secret: &SecretValue) -> Result<String, StoreError> {
        match &self.vault {
            Some(vault) => vault.seal(&secret.0).map_err(StoreError::Corrupt),
            None => Ok(secret.0.to_string()),
        }
    }

    pub(crate) fn open(&self, kept: &str) -> Result<SecretValue, StoreError> {
        if !kept.starts_with(ARMOR) {
            return Ok(SecretValue(kept.into()));
        }
        if let Some(known) = self.opened.lock().get(kept) {
            return Ok(known.clone());
        }
        let corrupt =
            |why: &str| StoreError::Corrupt(format!("a sealed secret of a source: {why}"));
        let vault = self
            .vault
            .as_ref()
            .ok_or_else(|| corrupt("this process has no key"))?;
        let secret = vault.open(kept).map_err(|why| corrupt(&why))?;
        let mut opened = self.opened.lock();
        if opened.len() >= MAX_REMEMBERED {
            opened.clear();
        }
        opened.insert(kept.to_owned(), secret.clone());
        Ok(secret)
    }

    /// What is to be written in the place of this; `None`: it is sealed to the current key.
    fn anew(&self, kept: &str) -> Result<Option<String>, StoreError> {
        match &self.vault {
            Some(vault) if !kept.starts_with(ARMOR) || !vault.is_current(kept) => {
                self.seal(&self.open(kept)?).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn bytes_anew(&self, kept: Option<&[u8]>) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(kept) = kept else { return Ok(None) };
        let text = std::str::from_utf8(kept)
            .map_err(|_| StoreError::Corrupt("sources.webhook_secret".to_owned()))?;
        Ok(self.anew(text)?.map(String::into_bytes))
    }
}

impl Store {
    /// As this store, with what it keeps of its own sealed by a vault.
    #[must_use]
    pub fn sealed_by(mut self, vault: Arc<dyn Vault>) -> Self {
        self.sealing = Sealing::with(vault);
        self
    }

    /// Seals what is kept in clear, or sealed to a former key; gives of how many sources.
    pub async fn seal_sources(&self) -> Result<usize, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id, webhook_secret, previous_webhook_secret, forge AS "forge: Value" FROM sources"#
        )
        .fetch_all(self.pool())
        .await?;
        let mut sealed = 0;
        for row in rows {
            let secret = self.sealing.bytes_anew(row.webhook_secret.as_deref())?;
            let previous = self
                .sealing
                .bytes_anew(row.previous_webhook_secret.as_deref())?;
            let token = match row.forge.as_ref().and_then(|forge| forge["token"].as_str()) {
                Some(token) => self.sealing.anew(token)?,
                None => None,
            };
            if secret.is_none() && previous.is_none() && token.is_none() {
                continue;
            }
            sealed += 1;
            sqlx::query!(
                "UPDATE sources SET webhook_secret = coalesce($2, webhook_secret),
                     previous_webhook_secret = coalesce($3, previous_webhook_secret),
                     forge = CASE WHEN $4::text IS NULL THEN forge ELSE jsonb_set(forge, '{token}', to_jsonb($4)) END
                 WHERE id = $1 AND webhook_secret IS NOT DISTINCT FROM $5 AND forge IS NOT DISTINCT FROM $6",
                row.id,
                secret,
                previous,
                token,
                row.webhook_secret,
                row.forge,
            )
            .execute(self.pool())
            .await?;
        }
        Ok(sealed)
    }
}
