//! The rules of `kv` and `docs` that hold wherever the data lies: names, sizes, conflicts, merging.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use crate::{
    access::{Capability, Principal},
    sdk::{EnqueueOptions, KvListOptions, SdkCallCx, SdkError, SdkErrorCode, SdkResult},
};

/// Bytes of a kv value's JSON text.
const MAX_VALUE: usize = 1 << 20;
/// Bytes of a document as JSON.
const MAX_DOCUMENT: usize = 1 << 20;
/// The longest delay of a job.
const MAX_DELAY_MS: u64 = 366 * 24 * 3_600_000;
/// Bytes of a job's payload as JSON.
const MAX_PAYLOAD: usize = 1 << 20;
/// Bytes of a collection's name.
const MAX_COLLECTION: usize = 255;
/// Bytes of a key; an index entry of PostgreSQL holds 2,704.
const MAX_KEY: usize = 1024;
/// Entries or documents of one call, and keys of `get_many`: at the most, and where no limit is
/// given.
pub const MAX_PAGE: u32 = 1000;
/// Bytes of what one call gives.
pub const MAX_RESULT: usize = 16 << 20;

/// The collection's name, and whether the run may touch data at all.
pub fn check_collection(cx: &SdkCallCx, collection: &str) -> SdkResult<()> {
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

/// A key's text.
pub fn check_key(key: &str) -> SdkResult<()> {
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

/// A value's JSON text.
pub fn value_text(value: &Value) -> SdkResult<String> {
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

/// The keys of `get_many`.
pub fn check_keys(keys: &[String]) -> SdkResult<()> {
    if keys.len() > MAX_PAGE as usize {
        return Err(SdkError::new(
            SdkErrorCode::TooLarge,
            format!("at most {MAX_PAGE} keys a call"),
        ));
    }
    keys.iter().try_for_each(|key| check_key(key))
}

/// The bounds of a listing.
pub fn check_range(options: &KvListOptions) -> SdkResult<()> {
    let bounds = [options.prefix.as_deref(), options.after.as_deref()];
    if bounds.into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(invalid("a key must not hold the character U+0000"));
    }
    Ok(())
}

/// When a value with that time to live is gone.
pub fn expiry(ttl_ms: Option<u64>, now: DateTime<Utc>) -> SdkResult<Option<DateTime<Utc>>> {
    let Some(ttl) = ttl_ms else {
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

/// What is said of entries or documents (`what`) that are too large for one call together.
pub fn too_much(what: &str) -> SdkError {
    SdkError::new(
        SdkErrorCode::TooLarge,
        format!("the {what} have more than 16 MiB; ask for fewer at once"),
    )
}

/// A write whose `if_version` doesn't hold.
pub fn kv_conflict(expected: Option<i64>) -> SdkError {
    let message = match expected {
        Some(0) => "the key exists already".to_owned(),
        Some(version) => format!("the key is not at version {version}"),
        None => "the write met another".to_owned(),
    };
    SdkError::new(SdkErrorCode::Conflict, message)
}

/// The fields of a document that are its own: what `get` adds goes when it is written back.
pub fn own_fields(body: &Value) -> SdkResult<Value> {
    let Value::Object(fields) = body else {
        return Err(invalid("a document is a map"));
    };
    let mut fields = fields.clone();
    fields.retain(|name, _| name != "id" && name != "version");
    let body = Value::Object(fields);
    let size = body.to_string().len();
    if size > MAX_DOCUMENT {
        return Err(SdkError::new(
            SdkErrorCode::TooLarge,
            format!("a document may have {MAX_DOCUMENT} bytes as JSON; this has {size}"),
        ));
    }
    Ok(body)
}

/// RFC 7396, section 2.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(fields) = target {
        for (name, value) in patch {
            if value.is_null() {
                fields.remove(name);
            } else {
                merge_patch(fields.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

/// A job of `scripts::enqueue`.
pub fn check_job(payload: &Value, options: &EnqueueOptions) -> SdkResult<()> {
    if options.delay_ms > MAX_DELAY_MS {
        return Err(invalid("delay must be at most 366d"));
    }
    let size = payload.to_string().len();
    if size > MAX_PAYLOAD {
        return Err(SdkError::new(
            SdkErrorCode::TooLarge,
            format!("a payload may have {MAX_PAYLOAD} bytes as JSON; this has {size}"),
        ));
    }
    Ok(())
}

/// What `incr` says of a value that is no integer, or a sum that is none.
pub fn not_an_integer() -> SdkError {
    invalid("the value is not an integer of 64 bits")
}

/// What is said of a text that cannot be kept.
pub fn holds_nul() -> SdkError {
    invalid("text must not hold the character U+0000")
}

fn invalid(message: impl Into<String>) -> SdkError {
    SdkError::new(SdkErrorCode::Invalid, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merging_follows_the_examples_of_rfc_7396() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ];
        for (mut target, patch, expected) in cases {
            let shown = format!("{target} + {patch}");
            merge_patch(&mut target, &patch);
            assert_eq!(target, expected, "{shown}");
        }
    }
}
