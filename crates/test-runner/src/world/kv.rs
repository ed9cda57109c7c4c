//! `kv::*` in memory, with the rules of the real one.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use picloud_shared::{
    Clock,
    data::{
        MAX_PAGE, MAX_RESULT, check_collection, check_key, check_keys, check_range, expiry,
        kv_conflict, not_an_integer, too_much, value_text,
    },
    sdk::{KvEntry, KvListOptions, KvService, KvSetOptions, SdkCallCx, SdkResult, Versioned},
};
use serde_json::{Value, json};

use super::{Cause, Data, Part, World};

pub(super) struct Entry {
    value: Value,
    version: i64,
    expires_at: Option<DateTime<Utc>>,
}

impl Entry {
    fn is_there(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }
}

impl KvService for Part {
    fn get(&self, cx: &SdkCallCx, collection: &str, key: &str) -> SdkResult<Option<Versioned>> {
        check_collection(cx, collection)?;
        check_key(key)?;
        let world = self.world()?;
        let data = world.data.lock();
        let found = data.kv.get(&(collection.to_owned(), key.to_owned()));
        let found = found.filter(|entry| entry.is_there(world.clock.now()));
        Ok(found.map(|entry| Versioned {
            value: entry.value.clone(),
            version: entry.version,
        }))
    }

    fn get_many(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        keys: &[String],
    ) -> SdkResult<BTreeMap<String, Value>> {
        check_collection(cx, collection)?;
        check_keys(keys)?;
        let world = self.world()?;
        let (data, now) = (world.data.lock(), world.clock.now());
        let there = |key: &String| {
            let found = data.kv.get(&(collection.to_owned(), key.clone()));
            let found = found.filter(|entry| entry.is_there(now))?;
            Some((key.clone(), found.value.clone()))
        };
        let found: BTreeMap<String, Value> = keys.iter().filter_map(there).collect();
        fits(found.values())?;
        Ok(found)
    }

    fn set(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        key: &str,
        value: &Value,
        options: &KvSetOptions,
    ) -> SdkResult<i64> {
        check_collection(cx, collection)?;
        check_key(key)?;
        value_text(value)?;
        let world = self.world()?;
        let now = world.clock.now();
        let expires_at = expiry(options.ttl_ms, now)?;
        let mut data = world.data.lock();
        let before = previous(&data, collection, key, now);
        let version = before.as_ref().map_or(0, |(_, version)| *version);
        let holds = options.if_version.is_none_or(|wanted| wanted == version);
        if !holds {
            return Err(kv_conflict(options.if_version));
        }
        let entry = Entry {
            value: value.clone(),
            version: version + 1,
            expires_at,
        };
        data.kv
            .insert((collection.to_owned(), key.to_owned()), entry);
        let before = before.map(|(value, _)| value);
        world.kv_event(&mut data, cx, collection, key, Some(value), before.as_ref());
        Ok(version + 1)
    }

    fn delete(&self, cx: &SdkCallCx, collection: &str, key: &str) -> SdkResult<bool> {
        check_collection(cx, collection)?;
        check_key(key)?;
        let world = self.world()?;
        let mut data = world.data.lock();
        let before = previous(&data, collection, key, world.clock.now());
        data.kv.remove(&(collection.to_owned(), key.to_owned()));
        let Some((before, _)) = before else {
            return Ok(false);
        };
        world.kv_event(&mut data, cx, collection, key, None, Some(&before));
        Ok(true)
    }

    fn incr(&self, cx: &SdkCallCx, collection: &str, key: &str, by: i64) -> SdkResult<i64> {
        check_collection(cx, collection)?;
        check_key(key)?;
        let world = self.world()?;
        let now = world.clock.now();
        let mut data = world.data.lock();
        let at = (collection.to_owned(), key.to_owned());
        let before = previous(&data, collection, key, now);
        let (number, version) = match &before {
            None => (0, 0),
            Some((value, version)) => (value.as_i64().ok_or_else(not_an_integer)?, *version),
        };
        let sum = number.checked_add(by).ok_or_else(not_an_integer)?;
        let kept = data.kv.get(&at).filter(|entry| entry.is_there(now));
        let entry = Entry {
            value: sum.into(),
            version: version + 1,
            expires_at: kept.and_then(|entry| entry.expires_at),
        };
        data.kv.insert(at, entry);
        let before = before.map(|(value, _)| value);
        let sum_value = sum.into();
        world.kv_event(
            &mut data,
            cx,
            collection,
            key,
            Some(&sum_value),
            before.as_ref(),
        );
        Ok(sum)
    }

    fn list(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        options: &KvListOptions,
    ) -> SdkResult<Vec<KvEntry>> {
        check_collection(cx, collection)?;
        check_range(options)?;
        let world = self.world()?;
        let (data, now) = (world.data.lock(), world.clock.now());
        let prefix = options.prefix.as_deref().unwrap_or_default();
        let limit = options.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let from = (collection.to_owned(), prefix.to_owned());
        let entries = data
            .kv
            .range(from..)
            .take_while(|((of, key), _)| of == collection && key.starts_with(prefix))
            .filter(|((_, key), entry)| {
                let after = options.after.as_ref().is_none_or(|after| key > after);
                after && entry.is_there(now)
            });
        let entries = entries.map(|((_, key), entry)| KvEntry {
            key: key.clone(),
            value: entry.value.clone(),
            version: entry.version,
        });
        let found: Vec<KvEntry> = entries.take(limit as usize).collect();
        fits(found.iter().map(|entry| &entry.value))?;
        Ok(found)
    }
}

/// Whether values are small enough for one call.
fn fits<'v>(values: impl Iterator<Item = &'v Value>) -> SdkResult<()> {
    let size: usize = values.map(|value| value.to_string().len()).sum();
    if size > MAX_RESULT {
        return Err(too_much("values"));
    }
    Ok(())
}

fn previous(data: &Data, collection: &str, key: &str, now: DateTime<Utc>) -> Option<(Value, i64)> {
    let found = data.kv.get(&(collection.to_owned(), key.to_owned()))?;
    found
        .is_there(now)
        .then(|| (found.value.clone(), found.version))
}

impl World {
    fn kv_event(
        &self,
        data: &mut Data,
        cx: &SdkCallCx,
        collection: &str,
        key: &str,
        value: Option<&Value>,
        previous: Option<&Value>,
    ) {
        let op = if value.is_some() { "set" } else { "delete" };
        let detail = json!({
            "collection": collection, "key": key, "op": op, "value": value, "previous": previous,
        });
        self.emit(data, &Cause::of(cx), "kv", &detail, |kind| {
            kind.is_about_kv(collection, op)
        });
    }
}
