//! `kv::*`: collections of an app in PostgreSQL. Each call is one round trip.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use picloud_shared::{
    Clock,
    data::{
        MAX_PAGE, check_collection, check_key, check_keys, check_range, expiry, kv_conflict,
        too_much, value_text,
    },
    sdk::{
        KvEntry, KvListOptions, KvService, KvSetOptions, SdkCallCx, SdkError, SdkErrorCode,
        SdkResult, Versioned,
    },
};
use picloud_store::{
    Store, StoreError,
    kv::{KvAddress, KvRange, KvRow},
};
use serde_json::Value;

use crate::{events, waiting::wait};

/// `kv::*` on the store.
pub struct KvServiceImpl {
    store: Store,
    clock: Arc<dyn Clock>,
}

impl KvServiceImpl {
    /// On this store, with this clock for times to live.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }
}

impl KvService for KvServiceImpl {
    fn get(&self, cx: &SdkCallCx, collection: &str, key: &str) -> SdkResult<Option<Versioned>> {
        let at = address(cx, collection, key)?;
        let row = wait(cx.deadline, self.store.kv_get(at, self.clock.now()))?;
        row.as_ref().map(versioned).transpose()
    }

    fn get_many(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        keys: &[String],
    ) -> SdkResult<BTreeMap<String, Value>> {
        check_collection(cx, collection)?;
        check_keys(keys)?;
        let rows = wait(
            cx.deadline,
            self.store
                .kv_get_many(cx.app_id(), collection, keys, self.clock.now()),
        )?;
        let rows = rows.ok_or_else(|| too_much("values"))?;
        rows.into_iter()
            .map(|row| Ok((row.key.clone(), versioned(&row)?.value)))
            .collect()
    }

    fn set(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        key: &str,
        value: &Value,
        options: &KvSetOptions,
    ) -> SdkResult<i64> {
        let at = address(cx, collection, key)?;
        let text = value_text(value)?;
        let now = self.clock.now();
        let expires = expiry(options.ttl_ms, now)?;
        let event = events::of_kv(cx, &self.clock, collection, "set");
        let written = match options.if_version {
            None => Some(wait(
                cx.deadline,
                self.store.kv_set(at, &text, expires, now, event.as_ref()),
            )?),
            Some(0) => wait(
                cx.deadline,
                self.store
                    .kv_create(at, &text, expires, now, event.as_ref()),
            )?,
            Some(version) => wait(
                cx.deadline,
                self.store
                    .kv_replace(at, &text, version, expires, now, event.as_ref()),
            )?,
        };
        written.ok_or_else(|| kv_conflict(options.if_version))
    }

    fn delete(&self, cx: &SdkCallCx, collection: &str, key: &str) -> SdkResult<bool> {
        let at = address(cx, collection, key)?;
        let event = events::of_kv(cx, &self.clock, collection, "delete");
        wait(
            cx.deadline,
            self.store.kv_delete(at, self.clock.now(), event.as_ref()),
        )
    }

    fn incr(&self, cx: &SdkCallCx, collection: &str, key: &str, by: i64) -> SdkResult<i64> {
        let at = address(cx, collection, key)?;
        let event = events::of_kv(cx, &self.clock, collection, "set");
        wait(
            cx.deadline,
            self.store.kv_incr(at, by, self.clock.now(), event.as_ref()),
        )
    }

    fn list(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        options: &KvListOptions,
    ) -> SdkResult<Vec<KvEntry>> {
        check_collection(cx, collection)?;
        let prefix = options.prefix.as_deref().unwrap_or_default();
        check_range(options)?;
        let before = end_of_prefix(prefix);
        let range = KvRange {
            app: cx.app_id(),
            collection,
            from: prefix,
            after: options.after.as_deref(),
            before: before.as_deref(),
            limit: i64::from(options.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE)),
        };
        let rows = wait(cx.deadline, self.store.kv_list(range, self.clock.now()))?;
        let rows = rows.ok_or_else(|| too_much("values"))?;
        rows.into_iter()
            .map(|row| {
                let key = row.key.clone();
                let Versioned { value, version } = versioned(&row)?;
                Ok(KvEntry {
                    key,
                    value,
                    version,
                })
            })
            .collect()
    }
}

/// Removes expired entries, a thousand a statement; gives the time at which the next one expires.
pub async fn sweep_expired(
    store: &Store,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    const BATCH: i64 = 1000;
    loop {
        let (removed, next) = store.kv_sweep(now, BATCH).await?;
        if removed < BATCH.unsigned_abs() {
            return Ok(next);
        }
    }
}

fn address<'a>(cx: &SdkCallCx, collection: &'a str, key: &'a str) -> SdkResult<KvAddress<'a>> {
    check_collection(cx, collection)?;
    check_key(key)?;
    Ok(KvAddress {
        app: cx.app_id(),
        collection,
        key,
    })
}

fn versioned(row: &KvRow) -> SdkResult<Versioned> {
    let value = serde_json::from_str(&row.value).map_err(|error| {
        tracing::error!(key = row.key, error = %error, "a kv value is not JSON that can be read");
        SdkError::new(SdkErrorCode::Failed, "the stored value cannot be read")
    })?;
    Ok(Versioned {
        value,
        version: row.version,
    })
}

/// The first text after all texts that begin with `prefix`, in byte order; `None`: there is none.
fn end_of_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_text_begins() {
        let cases = [
            ("", None),
            ("a", Some("b")),
            ("az", Some("a{")),
            ("a\u{d7ff}", Some("a\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
        ];
        for (prefix, expected) in cases {
            assert_eq!(end_of_prefix(prefix).as_deref(), expected, "{prefix:?}");
        }
    }
}
