//! `kv::*`: collections of an app in PostgreSQL. Each call is one round trip.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use picloud_shared::{
    Capability, Clock, Principal,
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

/// Bytes of a value's JSON text.
const MAX_VALUE: usize = 1 << 20;
/// Bytes of a collection's name.
const MAX_COLLECTION: usize = 255;
/// Bytes of a key; an index entry of PostgreSQL holds 2,704.
const MAX_KEY: usize = 1024;
/// Entries of a listing where no limit is given.
const DEFAULT_LIST: u32 = 100;
/// Entries of a listing, and keys of `get_many`, at the most.
const MAX_LIST: u32 = 1000;

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

    fn expiry(options: &KvSetOptions, now: DateTime<Utc>) -> SdkResult<Option<DateTime<Utc>>> {
        let Some(ttl) = options.ttl_ms else {
            return Ok(None);
        };
        let at = i64::try_from(ttl)
            .ok()
            .and_then(TimeDelta::try_milliseconds);
        let at = at
            .filter(|ttl| !ttl.is_zero())
            .and_then(|ttl| now.checked_add_signed(ttl));
        at.map(Some)
            .ok_or_else(|| invalid("ttl must be at least 1ms, and end within the calendar"))
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
        if keys.len() > MAX_LIST as usize {
            return Err(SdkError::new(
                SdkErrorCode::TooLarge,
                format!("at most {MAX_LIST} keys a call"),
            ));
        }
        keys.iter().try_for_each(|key| check_key(key))?;
        let rows = wait(
            cx.deadline,
            self.store
                .kv_get_many(cx.app_id(), collection, keys, self.clock.now()),
        )?;
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
        let text = json_text(value)?;
        let now = self.clock.now();
        let expires = Self::expiry(options, now)?;
        let event = events::of_kv(cx, self.clock.as_ref(), collection, "set");
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
        written.ok_or_else(|| conflict(options.if_version))
    }

    fn delete(&self, cx: &SdkCallCx, collection: &str, key: &str) -> SdkResult<bool> {
        let at = address(cx, collection, key)?;
        let event = events::of_kv(cx, self.clock.as_ref(), collection, "delete");
        wait(
            cx.deadline,
            self.store.kv_delete(at, self.clock.now(), event.as_ref()),
        )
    }

    fn incr(&self, cx: &SdkCallCx, collection: &str, key: &str, by: i64) -> SdkResult<i64> {
        let at = address(cx, collection, key)?;
        let event = events::of_kv(cx, self.clock.as_ref(), collection, "set");
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
        if prefix.contains('\0')
            || options
                .after
                .as_deref()
                .is_some_and(|after| after.contains('\0'))
        {
            return Err(invalid("a key must not hold the character U+0000"));
        }
        let before = end_of_prefix(prefix);
        let range = KvRange {
            app: cx.app_id(),
            collection,
            from: prefix,
            after: options.after.as_deref(),
            before: before.as_deref(),
            limit: i64::from(options.limit.unwrap_or(DEFAULT_LIST).min(MAX_LIST)),
        };
        let rows = wait(cx.deadline, self.store.kv_list(range, self.clock.now()))?;
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

/// The collection's name, and whether the run may touch data at all.
pub(crate) fn check_collection(cx: &SdkCallCx, collection: &str) -> SdkResult<()> {
    if let Principal::Key(grant) = &cx.principal
        && !grant.allows(Capability::AppDataAccess, Some(&cx.app.spec.name))
    {
        let scope = Capability::AppDataAccess.scope().as_str();
        return Err(SdkError::new(
            SdkErrorCode::Forbidden,
            format!("the caller's key lacks {scope}"),
        ));
    }
    check_text("a collection's name", collection, MAX_COLLECTION)
}

fn check_key(key: &str) -> SdkResult<()> {
    check_text("a key", key, MAX_KEY)
}

fn check_text(what: &str, text: &str, max: usize) -> SdkResult<()> {
    if text.is_empty() || text.len() > max {
        return Err(invalid(format!(
            "{what} must have 1 to {max} bytes; it has {}",
            text.len()
        )));
    }
    if text.contains('\0') {
        return Err(invalid(format!(
            "{what} must not hold the character U+0000"
        )));
    }
    Ok(())
}

fn json_text(value: &Value) -> SdkResult<String> {
    let text = value.to_string();
    if text.len() > MAX_VALUE {
        let message = format!(
            "a value may have {MAX_VALUE} bytes as JSON; this one has {}",
            text.len()
        );
        return Err(SdkError::new(SdkErrorCode::TooLarge, message));
    }
    Ok(text)
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

fn invalid(message: impl Into<String>) -> SdkError {
    SdkError::new(SdkErrorCode::Invalid, message)
}

fn conflict(expected: Option<i64>) -> SdkError {
    let message = match expected {
        Some(0) => "the key exists already".to_owned(),
        Some(version) => format!("the key is not at version {version}"),
        None => "the write met another".to_owned(),
    };
    SdkError::new(SdkErrorCode::Conflict, message)
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
