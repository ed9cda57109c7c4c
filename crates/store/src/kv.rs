//! Key-value entries of apps. At most one statement a call, and one for many where many ask at once; an expired entry counts as absent everywhere,
//! whether or not it has been removed yet.

use chrono::{DateTime, Utc};
use futures_util::{Stream, TryStreamExt};
use picloud_shared::{AppId, data::MAX_RESULT};
use serde_json::Value;

use crate::{
    Store, StoreError,
    kv_together::{self as together, Read},
    outbox::DataEvent,
};

/// An entry's value as JSON text, and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvRow {
    /// The key.
    pub key: String,
    /// JSON text.
    pub value: String,
    /// 1 for the first write, then one more with each.
    pub version: i64,
}

/// Where an entry is.
#[derive(Debug, Clone, Copy)]
pub struct KvAddress<'a> {
    /// Whose.
    pub app: AppId,
    /// Which collection.
    pub collection: &'a str,
    /// Which key.
    pub key: &'a str,
}

/// A part of a collection, in byte order of the keys.
#[derive(Debug, Clone, Copy)]
pub struct KvRange<'a> {
    /// Whose.
    pub app: AppId,
    /// Which collection.
    pub collection: &'a str,
    /// Keys from this one on.
    pub from: &'a str,
    /// Keys after this one.
    pub after: Option<&'a str>,
    /// Keys before this one.
    pub before: Option<&'a str>,
    /// At most so many.
    pub limit: i64,
}

impl Store {
    /// The entry, unless it is absent or expired.
    pub async fn kv_get(
        &self,
        at: KvAddress<'_>,
        now: DateTime<Utc>,
    ) -> Result<Option<KvRow>, StoreError> {
        let call = Read::new(at, now);
        self.kv_reads.ask(self.pool(), at.app, call).await
    }

    /// Those of the keys that are there; `None` where they are too large for one call.
    pub async fn kv_get_many(
        &self,
        app: AppId,
        collection: &str,
        keys: &[String],
        now: DateTime<Utc>,
    ) -> Result<Option<Vec<KvRow>>, StoreError> {
        let rows = sqlx::query_as!(
            KvRow,
            r#"SELECT key, value::text AS "value!", version FROM kv
               WHERE app_id = $1 AND collection = $2 AND key = ANY($3)
                 AND (expires_at IS NULL OR expires_at > $4)"#,
            app.0,
            collection,
            keys,
            now,
        )
        .fetch(self.pool());
        bounded(rows).await
    }

    /// Entries of a range, in byte order of their keys; `None` where they are too large for one
    /// call.
    pub async fn kv_list(
        &self,
        range: KvRange<'_>,
        now: DateTime<Utc>,
    ) -> Result<Option<Vec<KvRow>>, StoreError> {
        let rows = sqlx::query_as!(
            KvRow,
            r#"SELECT key, value::text AS "value!", version FROM kv
               WHERE app_id = $1 AND collection = $2 AND key >= $3
                 AND ($4::text IS NULL OR key > $4) AND ($5::text IS NULL OR key < $5)
                 AND (expires_at IS NULL OR expires_at > $7)
               ORDER BY key LIMIT $6"#,
            range.app.0,
            range.collection,
            range.from,
            range.after,
            range.before,
            range.limit,
            now,
        )
        .fetch(self.pool());
        bounded(rows).await
    }

    /// Writes an entry whatever was there; gives its new version.
    pub async fn kv_set(
        &self,
        at: KvAddress<'_>,
        value: &str,
        expires_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
        event: Option<&DataEvent>,
    ) -> Result<i64, StoreError> {
        let Some(event) = event else {
            let call = together::Write::new(at, value, expires_at, now);
            return self.kv_writes.ask(self.pool(), at.app, call).await;
        };
        let mut write = Write::begin(self, at, now).await?;
        let version = set(&mut *write.transaction, at, value, expires_at, now).await?;
        write.end(at, event, "set").await?;
        self.outbox_written();
        Ok(version)
    }

    /// Writes an entry only where there is none; gives its version, or `None` where there is one.
    pub async fn kv_create(
        &self,
        at: KvAddress<'_>,
        value: &str,
        expires_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
        event: Option<&DataEvent>,
    ) -> Result<Option<i64>, StoreError> {
        let Some(event) = event else {
            return create(self.pool(), at, value, expires_at, now).await;
        };
        let mut write = Write::begin(self, at, now).await?;
        let version = create(&mut *write.transaction, at, value, expires_at, now).await?;
        if version.is_some() {
            write.end(at, event, "set").await?;
            self.outbox_written();
        }
        Ok(version)
    }

    /// Writes an entry only where it has this version; gives the new one, or `None` where it hasn't.
    pub async fn kv_replace(
        &self,
        at: KvAddress<'_>,
        value: &str,
        version: i64,
        expires_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
        event: Option<&DataEvent>,
    ) -> Result<Option<i64>, StoreError> {
        let Some(event) = event else {
            return replace(self.pool(), at, value, version, expires_at, now).await;
        };
        let mut write = Write::begin(self, at, now).await?;
        let written = replace(&mut *write.transaction, at, value, version, expires_at, now).await?;
        if written.is_some() {
            write.end(at, event, "set").await?;
            self.outbox_written();
        }
        Ok(written)
    }

    /// Removes an entry; whether it was there.
    pub async fn kv_delete(
        &self,
        at: KvAddress<'_>,
        now: DateTime<Utc>,
        event: Option<&DataEvent>,
    ) -> Result<bool, StoreError> {
        let Some(event) = event else {
            return delete(self.pool(), at, now).await;
        };
        let mut write = Write::begin(self, at, now).await?;
        let was_there = delete(&mut *write.transaction, at, now).await?;
        if was_there {
            write.end(at, event, "delete").await?;
            self.outbox_written();
        }
        Ok(was_there)
    }

    /// Adds to an integer, absent being 0; gives the sum. A value that is no integer, or a sum
    /// that is none, is an error of PostgreSQL's class 22 and leaves the entry as it was.
    pub async fn kv_incr(
        &self,
        at: KvAddress<'_>,
        by: i64,
        now: DateTime<Utc>,
        event: Option<&DataEvent>,
    ) -> Result<i64, StoreError> {
        let Some(event) = event else {
            return incr(self.pool(), at, by, now).await;
        };
        let mut write = Write::begin(self, at, now).await?;
        let sum = incr(&mut *write.transaction, at, by, now).await?;
        write.end(at, event, "set").await?;
        self.outbox_written();
        Ok(sum)
    }

    /// Removes at most `limit` expired entries; how many were removed, and when the next one of
    /// those that remain expires.
    pub async fn kv_sweep(
        &self,
        now: DateTime<Utc>,
        limit: i64,
    ) -> Result<(u64, Option<DateTime<Utc>>), StoreError> {
        let removed = sqlx::query!(
            "DELETE FROM kv WHERE ctid IN (
               SELECT ctid FROM kv WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
            now,
            limit,
        )
        .execute(self.pool())
        .await?
        .rows_affected();
        let next =
            sqlx::query_scalar!("SELECT min(expires_at) FROM kv WHERE expires_at IS NOT NULL")
                .fetch_one(self.pool())
                .await?;
        Ok((removed, next))
    }
}

/// All rows as they come; `None`, and no more of them, where they have too many bytes together.
async fn bounded(
    mut rows: impl Stream<Item = Result<KvRow, sqlx::Error>> + Unpin,
) -> Result<Option<Vec<KvRow>>, StoreError> {
    let (mut found, mut size) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        size += row.value.len();
        if size > MAX_RESULT {
            return Ok(None);
        }
        found.push(row);
    }
    Ok(Some(found))
}

/// A write that sets triggers off, in one transaction with their events.
struct Write {
    transaction: sqlx::Transaction<'static, sqlx::Postgres>,
    previous: Option<Value>,
}

impl Write {
    async fn begin(
        store: &Store,
        at: KvAddress<'_>,
        now: DateTime<Utc>,
    ) -> Result<Self, StoreError> {
        let mut transaction = store.pool().begin().await?;
        let previous = sqlx::query_scalar!(
            r#"SELECT value AS "value: Value" FROM kv
               WHERE app_id = $1 AND collection = $2 AND key = $3
                 AND (expires_at IS NULL OR expires_at > $4) FOR UPDATE"#,
            at.app.0,
            at.collection,
            at.key,
            now,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        Ok(Self {
            transaction,
            previous,
        })
    }

    async fn end(
        mut self,
        at: KvAddress<'_>,
        event: &DataEvent,
        op: &str,
    ) -> Result<(), StoreError> {
        let value = sqlx::query_scalar!(
            r#"SELECT value AS "value: Value" FROM kv
               WHERE app_id = $1 AND collection = $2 AND key = $3"#,
            at.app.0,
            at.collection,
            at.key,
        )
        .fetch_optional(&mut *self.transaction)
        .await?;
        let detail = serde_json::json!({
            "collection": at.collection, "key": at.key, "op": op, "value": value, "previous": self.previous,
        });
        event
            .emit(
                &mut self.transaction,
                at.app,
                "kv",
                at.collection,
                op,
                &detail,
            )
            .await?;
        self.transaction.commit().await?;
        Ok(())
    }
}

/// Writes an entry whatever was there; gives its new version.
pub(crate) async fn set(
    executor: impl sqlx::PgExecutor<'_>,
    at: KvAddress<'_>,
    value: &str,
    expires_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<i64, StoreError> {
    let version = sqlx::query_scalar!(
        "INSERT INTO kv (app_id, collection, key, value, version, expires_at)
         VALUES ($1, $2, $3, $4::text::json, 1, $5)
         ON CONFLICT (app_id, collection, key) DO UPDATE
           SET value = EXCLUDED.value, expires_at = EXCLUDED.expires_at,
               version = CASE WHEN kv.expires_at <= $6 THEN 1 ELSE kv.version + 1 END
         RETURNING version",
        at.app.0,
        at.collection,
        at.key,
        value,
        expires_at,
        now,
    )
    .fetch_one(executor)
    .await?;
    Ok(version)
}

/// Writes an entry only where there is none; gives its version, or `None` where there is one.
async fn create(
    executor: impl sqlx::PgExecutor<'_>,
    at: KvAddress<'_>,
    value: &str,
    expires_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Option<i64>, StoreError> {
    let version = sqlx::query_scalar!(
        "INSERT INTO kv (app_id, collection, key, value, version, expires_at)
         VALUES ($1, $2, $3, $4::text::json, 1, $5)
         ON CONFLICT (app_id, collection, key) DO UPDATE
           SET value = EXCLUDED.value, expires_at = EXCLUDED.expires_at, version = 1
           WHERE kv.expires_at <= $6
         RETURNING version",
        at.app.0,
        at.collection,
        at.key,
        value,
        expires_at,
        now,
    )
    .fetch_optional(executor)
    .await?;
    Ok(version)
}

/// Writes an entry only where it has this version; gives the new one, or `None` where it hasn't.
async fn replace(
    executor: impl sqlx::PgExecutor<'_>,
    at: KvAddress<'_>,
    value: &str,
    version: i64,
    expires_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Option<i64>, StoreError> {
    let version = sqlx::query_scalar!(
        "UPDATE kv SET value = $4::text::json, expires_at = $6, version = version + 1
         WHERE app_id = $1 AND collection = $2 AND key = $3 AND version = $5
           AND (expires_at IS NULL OR expires_at > $7)
         RETURNING version",
        at.app.0,
        at.collection,
        at.key,
        value,
        version,
        expires_at,
        now,
    )
    .fetch_optional(executor)
    .await?;
    Ok(version)
}

/// Removes an entry; whether it was there.
async fn delete(
    executor: impl sqlx::PgExecutor<'_>,
    at: KvAddress<'_>,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let was_there = sqlx::query_scalar!(
        r#"DELETE FROM kv WHERE app_id = $1 AND collection = $2 AND key = $3
           RETURNING (expires_at IS NULL OR expires_at > $4) AS "was_there!""#,
        at.app.0,
        at.collection,
        at.key,
        now,
    )
    .fetch_optional(executor)
    .await?;
    Ok(was_there.unwrap_or(false))
}

/// Adds to an integer, absent being 0; gives the sum. A value that is no integer, or a sum
/// that is none, is an error of PostgreSQL's class 22 and leaves the entry as it was.
async fn incr(
    executor: impl sqlx::PgExecutor<'_>,
    at: KvAddress<'_>,
    by: i64,
    now: DateTime<Utc>,
) -> Result<i64, StoreError> {
    let sum = sqlx::query_scalar!(
        r#"INSERT INTO kv (app_id, collection, key, value, version)
           VALUES ($1, $2, $3, to_json($4::bigint), 1)
           ON CONFLICT (app_id, collection, key) DO UPDATE
             SET value = CASE WHEN kv.expires_at <= $5 THEN EXCLUDED.value
                              ELSE to_json((kv.value::text)::bigint + $4::bigint) END,
                 version = CASE WHEN kv.expires_at <= $5 THEN 1 ELSE kv.version + 1 END,
                 expires_at = CASE WHEN kv.expires_at <= $5 THEN NULL ELSE kv.expires_at END
           RETURNING (value::text)::bigint AS "sum!""#,
        at.app.0,
        at.collection,
        at.key,
        by,
        now,
    )
    .fetch_one(executor)
    .await?;
    Ok(sum)
}
