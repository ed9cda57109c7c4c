//! Between the engine's values and JSON: integers exact, and nothing that JSON can't hold.

use std::{cell::Cell, fmt};

use rhai::{Array, Blob, Dynamic, Identifier, Map};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

use crate::limits;

/// Levels of nesting of what goes in or out.
pub(crate) const MAX_DEPTH: usize = 128;

/// Why a value is no JSON. A sentence part.
pub(crate) type NotJson = String;

/// Writes a value as JSON text, straight into the buffer.
pub(crate) fn write(value: &Dynamic, out: &mut Vec<u8>, max: usize) -> Result<(), NotJson> {
    write_at(value, out, max, 0)
}

fn write_at(value: &Dynamic, out: &mut Vec<u8>, max: usize, depth: usize) -> Result<(), NotJson> {
    if depth > MAX_DEPTH {
        return Err(TOO_DEEP.to_owned());
    }
    go_on()?;
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
        limits::weigh(text.len());
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

/// The message of a value that is nested too deeply.
pub(crate) const TOO_DEEP: &str = "it is nested more than 128 levels deep";

/// A large value takes long: the run may have to end in the middle of it.
fn go_on() -> Result<(), NotJson> {
    limits::pause().map_err(|_| "the run was stopped".to_owned())
}

fn serialise<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), NotJson> {
    serde_json::to_writer(out, value).map_err(|error| error.to_string())
}

/// A value as JSON.
pub(crate) fn to_json(value: &Dynamic) -> Result<Value, NotJson> {
    to_json_at(value, 0)
}

fn to_json_at(value: &Dynamic, depth: usize) -> Result<Value, NotJson> {
    if depth > MAX_DEPTH {
        return Err(TOO_DEEP.to_owned());
    }
    go_on()?;
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
        limits::weigh(text.len());
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
        limits::room(blob.len().saturating_mul(size_of::<Value>()))
            .map_err(|_| "the run was stopped".to_owned())?;
        Ok(blob.iter().copied().collect())
    } else {
        Err(format!(
            "JSON cannot hold a value of type {}",
            value.type_name()
        ))
    }
}

/// JSON that was kept as a value. What a script wrote as a large float may come back without a
/// fraction: whole numbers beyond 64 bits are floats.
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

/// Reads JSON text straight into a value. A whole number beyond 64 bits is an error: as a float it
/// would be another number.
pub(crate) fn parse(text: &[u8]) -> Result<Dynamic, NotJson> {
    limits::weigh(text.len());
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let saw_large = Cell::new(false);
    let value = Build(&saw_large)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| error.to_string())?;
    if saw_large.get() && has_large_integer(text) {
        return Err(BEYOND.to_owned());
    }
    Ok(value)
}

/// The message of a whole number that the engine can't hold.
const BEYOND: &str = "a whole number is beyond 64 bits";
/// 2⁶³: the first float that no integer of the engine equals.
const FIRST_BEYOND: f64 = 9_223_372_036_854_775_808.0;

/// Whether valid JSON text has a number without fraction or exponent that 64 bits can't hold. The
/// parser gives those beyond its own integers as floats, like those that were written as such.
fn has_large_integer(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'"' => {
                while let Some((&byte, after)) = rest.split_first() {
                    rest = if byte == b'\\' {
                        after.get(1..).unwrap_or_default()
                    } else {
                        after
                    };
                    if byte == b'"' {
                        break;
                    }
                }
            }
            b'-' | b'0'..=b'9' => {
                let part =
                    |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let (number, after) = rest.split_at(rest.iter().take_while(part).count());
                rest = after;
                let whole = number.iter().all(u8::is_ascii_digit);
                let all = std::iter::once(first).chain(number.iter().copied());
                let all: String = all.map(char::from).collect();
                if whole && all.parse::<i64>().is_err() {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// Makes the values; takes note of a float that may have been written as an integer.
#[derive(Clone, Copy)]
struct Build<'a>(&'a Cell<bool>);

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Dynamic;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Dynamic, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Dynamic;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Dynamic, E> {
        Ok(Dynamic::UNIT)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Dynamic, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Dynamic, E> {
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Dynamic, E> {
        i64::try_from(number)
            .map(Into::into)
            .map_err(|_| E::custom(BEYOND))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Dynamic, E> {
        if number.abs() >= FIRST_BEYOND {
            self.0.set(true);
        }
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Dynamic, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Dynamic, A::Error> {
        let mut array = Array::new();
        while let Some(item) = items.next_element_seed(self)? {
            go_on().map_err(A::Error::custom)?;
            array.push(item);
        }
        Ok(Dynamic::from_array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Dynamic, A::Error> {
        let mut map = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            go_on().map_err(A::Error::custom)?;
            map.insert(Identifier::from(name), fields.next_value_seed(self)?);
        }
        Ok(Dynamic::from_map(map))
    }
}
