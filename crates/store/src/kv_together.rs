//! Reads and writes of key-value entries that are asked together: a row of arrays each.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use picloud_shared::AppId;
use sqlx::PgPool;

use crate::{
    StoreError,
    gather::Gathered,
    kv::{KvAddress, KvRow},
};

/// A read of one entry.
#[derive(Debug)]
pub(crate) struct Read {
    collection: String,
    key: String,
    now: DateTime<Utc>,
}

impl Read {
    pub(crate) fn new(at: KvAddress<'_>, now: DateTime<Utc>) -> Self {
        Self {
            collection: at.collection.to_owned(),
            key: at.key.to_owned(),
            now,
        }
    }
}

impl Gathered for Read {
    type Answer = Option<KvRow>;

    fn fits(&self, _: &[Self]) -> bool {
        true
    }

    async fn ask(
        pool: &PgPool,
        app: AppId,
        calls: &[Self],
    ) -> Result<Vec<Option<KvRow>>, StoreError> {
        if let [call] = calls {
            return Ok(vec![call.alone(pool, app).await?]);
        }
        let collections: Vec<&str> = calls.iter().map(|call| call.collection.as_str()).collect();
        let keys: Vec<&str> = calls.iter().map(|call| call.key.as_str()).collect();
        let times: Vec<DateTime<Utc>> = calls.iter().map(|call| call.now).collect();
        // By LATERAL and LIMIT each entry is looked up in the index, whatever the planner thinks of
        // the table's size.
        let rows = sqlx::query!(
            r#"SELECT asked.place AS "place!", entry.value AS "value!", entry.version AS "version!"
               FROM unnest($2::text[], $3::text[], $4::timestamptz[])
                      WITH ORDINALITY AS asked (collection, key, now, place)
               CROSS JOIN LATERAL (
                 SELECT value::text, version FROM kv
                 WHERE app_id = $1 AND kv.collection = asked.collection AND kv.key = asked.key
                   AND (expires_at IS NULL OR expires_at > asked.now)
                 LIMIT 1) AS entry"#,
            app.0,
            &collections as &[&str],
            &keys as &[&str],
            &times,
        )
        .fetch_all(pool)
        .await?;
        let mut answers: Vec<Option<KvRow>> = calls.iter().map(|_| None).collect();
        for row in rows {
            let place = usize::try_from(row.place - 1).unwrap_or(usize::MAX);
            if let (Some(answer), Some(call)) = (answers.get_mut(place), calls.get(place)) {
                *answer = Some(KvRow {
                    key: call.key.clone(),
                    value: row.value,
                    version: row.version,
                });
            }
        }
        Ok(answers)
    }
}

impl Read {
    async fn alone(&self, pool: &PgPool, app: AppId) -> Result<Option<KvRow>, StoreError> {
        let row = sqlx::query_as!(
            KvRow,
            r#"SELECT key, value::text AS "value!", version FROM kv
               WHERE app_id = $1 AND collection = $2 AND key = $3
                 AND (expires_at IS NULL OR expires_at > $4)"#,
            app.0,
            self.collection,
            self.key,
            self.now,
        )
        .fetch_optional(pool)
        .await?;
        Ok(row)
    }
}

/// A write of one entry, whatever was there, that no trigger is about.
#[derive(Debug)]
pub(crate) struct Write {
    collection: String,
    key: String,
    value: String,
    expires_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
}

impl Write {
    pub(crate) fn new(
        at: KvAddress<'_>,
        value: &str,
        expires_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            collection: at.collection.to_owned(),
            key: at.key.to_owned(),
            value: value.to_owned(),
            expires_at,
            now,
        }
    }

    fn place(&self) -> (&str, &str) {
        (&self.collection, &self.key)
    }
}

impl Gathered for Write {
    type Answer = i64;

    /// A statement can write an entry once.
    fn fits(&self, others: &[Self]) -> bool {
        others.iter().all(|other| other.place() != self.place())
    }

    async fn ask(pool: &PgPool, app: AppId, calls: &[Self]) -> Result<Vec<i64>, StoreError> {
        if let [call] = calls {
            let at = KvAddress {
                app,
                collection: &call.collection,
                key: &call.key,
            };
            let version = crate::kv::set(pool, at, &call.value, call.expires_at, call.now).await?;
            return Ok(vec![version]);
        }
        // Entries are locked in one order, so that no two statements wait for each other.
        let mut ordered: Vec<&Self> = calls.iter().collect();
        ordered.sort_unstable_by_key(|call| call.place());
        let collections: Vec<&str> = ordered.iter().map(|call| &*call.collection).collect();
        let keys: Vec<&str> = ordered.iter().map(|call| &*call.key).collect();
        let values: Vec<&str> = ordered.iter().map(|call| &*call.value).collect();
        let expiries: Vec<Option<DateTime<Utc>>> =
            ordered.iter().map(|call| call.expires_at).collect();
        let times: Vec<DateTime<Utc>> = ordered.iter().map(|call| call.now).collect();
        let rows = sqlx::query!(
            r#"INSERT INTO kv (app_id, collection, key, value, version, expires_at)
               SELECT $1, collection, key, value::json, 1, expires_at
               FROM unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[])
                      AS asked (collection, key, value, expires_at)
               ON CONFLICT (app_id, collection, key) DO UPDATE
                 SET value = EXCLUDED.value, expires_at = EXCLUDED.expires_at,
                     version = CASE WHEN kv.expires_at <= $6 THEN 1 ELSE kv.version + 1 END
               RETURNING collection, key, version"#,
            app.0,
            &collections as &[&str],
            &keys as &[&str],
            &values as &[&str],
            &expiries as &[Option<DateTime<Utc>>],
            // The clock goes on while calls gather, by less than it is read to.
            times.into_iter().max(),
        )
        .fetch_all(pool)
        .await?;
        let versions: HashMap<(&str, &str), i64> = rows
            .iter()
            .map(|row| ((row.collection.as_str(), row.key.as_str()), row.version))
            .collect();
        calls
            .iter()
            .map(|call| versions.get(&call.place()).copied())
            .collect::<Option<_>>()
            .ok_or_else(|| StoreError::Corrupt("a written entry was not given back".to_owned()))
    }
}
