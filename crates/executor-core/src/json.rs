//! Between the engine's values and JSON: integers exact, and nothing that JSON can't hold.

use rhai::{Array, Blob, Dynamic, Map};
use serde_json::{Number, Value};

/// Levels of nesting of what goes in or out.
const MAX_DEPTH: usize = 128;

/// Why a value is no JSON. A sentence part.
pub(crate) type NotJson = String;

/// Writes a value as JSON text, straight into the buffer.
pub(crate) fn write(value: &Dynamic, out: &mut Vec<u8>, max: usize) -> Result<(), NotJson> {
    write_at(value, out, max, 0)
}

fn write_at(value: &Dynamic, out: &mut Vec<u8>, max: usize, depth: usize) -> Result<(), NotJson> {
    if depth > MAX_DEPTH {
        return Err(format!("it is nested more than {MAX_DEPTH} levels deep"));
    }
    if out.len() > max {
        return Err(TOO_LARGE.to_owned());
    }
    if value.is_unit() {
        out.extend_from_slice(b"null");
    } else if let Ok(flag) = value.as_bool() {
        out.extend_from_slice(if flag { b"true" } else { b"false" });
    } else if let Ok(number) = value.as_int() {
        serialise(&number, out)?;
    } else if let Ok(number) = value.as_float() {
        if !number.is_finite() {
            return Err(format!("JSON has no number {number}"));
        }
        serialise(&number, out)?;
    } else if let Some(text) = value.read_lock::<rhai::ImmutableString>() {
        serialise(text.as_str(), out)?;
    } else if let Ok(c) = value.as_char() {
        serialise(&c, out)?;
    } else if let Some(map) = value.read_lock::<Map>() {
        out.push(b'{');
        for (index, (key, value)) in map.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            serialise(key.as_str(), out)?;
            out.push(b':');
            write_at(value, out, max, depth + 1)?;
        }
        out.push(b'}');
    } else if let Some(array) = value.read_lock::<Array>() {
        out.push(b'[');
        for (index, value) in array.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_at(value, out, max, depth + 1)?;
        }
        out.push(b']');
    } else if let Some(blob) = value.read_lock::<Blob>() {
        serialise(&blob.as_slice(), out)?;
    } else {
        return Err(format!(
            "JSON cannot hold a value of type {}",
            value.type_name()
        ));
    }
    Ok(())
}

/// The message of a value that grew beyond what was allowed.
pub(crate) const TOO_LARGE: &str = "it is larger than allowed";

fn serialise<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), NotJson> {
    serde_json::to_writer(out, value).map_err(|error| error.to_string())
}

/// A value as JSON.
pub(crate) fn to_json(value: &Dynamic) -> Result<Value, NotJson> {
    to_json_at(value, 0)
}

fn to_json_at(value: &Dynamic, depth: usize) -> Result<Value, NotJson> {
    if depth > MAX_DEPTH {
        return Err(format!("it is nested more than {MAX_DEPTH} levels deep"));
    }
    if value.is_unit() {
        Ok(Value::Null)
    } else if let Ok(flag) = value.as_bool() {
        Ok(flag.into())
    } else if let Ok(number) = value.as_int() {
        Ok(number.into())
    } else if let Ok(number) = value.as_float() {
        let number =
            Number::from_f64(number).ok_or_else(|| format!("JSON has no number {number}"))?;
        Ok(number.into())
    } else if let Some(text) = value.read_lock::<rhai::ImmutableString>() {
        Ok(text.as_str().into())
    } else if let Ok(c) = value.as_char() {
        Ok(c.to_string().into())
    } else if let Some(map) = value.read_lock::<Map>() {
        map.iter()
            .map(|(key, value)| Ok((key.to_string(), to_json_at(value, depth + 1)?)))
            .collect::<Result<serde_json::Map<_, _>, NotJson>>()
            .map(Value::Object)
    } else if let Some(array) = value.read_lock::<Array>() {
        array
            .iter()
            .map(|value| to_json_at(value, depth + 1))
            .collect::<Result<Vec<_>, NotJson>>()
            .map(Value::Array)
    } else if let Some(blob) = value.read_lock::<Blob>() {
        Ok(blob.iter().copied().collect())
    } else {
        Err(format!(
            "JSON cannot hold a value of type {}",
            value.type_name()
        ))
    }
}

/// JSON as a value. Whole numbers beyond 64 bits, which the engine can't hold, become floats.
pub(crate) fn from_json(value: &Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => Dynamic::UNIT,
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => Dynamic::from_array(items.iter().map(from_json).collect()),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| (key.as_str().into(), from_json(value)));
            Dynamic::from_map(fields.collect())
        }
    }
}
