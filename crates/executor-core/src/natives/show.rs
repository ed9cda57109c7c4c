//! Values as text, as `print` shows them.

use std::fmt::Write;

use picloud_shared::run::RunErrorKind;
use rhai::{Array, Blob, Dynamic, FnPtr, ImmutableString, Map, Module};

use super::{Native, add};
use crate::{
    json::{self, MAX_DEPTH},
    limits, sdk,
};

const NAMES: [&str; 4] = ["to_string", "to_debug", "print", "debug"];

pub(super) fn register(module: &mut Module) {
    add(module, &NAMES, true, |array: &mut Array| {
        text(|out| show_array(array, out, 1))
    });
    add(module, &NAMES, true, |map: &mut Map| {
        text(|out| show_map(map, out, 1))
    });
    add(module, &NAMES, true, |blob: &mut Blob| {
        text(|out| show_blob(blob, out))
    });
    add(module, &NAMES, true, |pointer: &mut FnPtr| {
        ImmutableString::from(format!("Fn({})", pointer.fn_name()))
    });
    add(module, &["to_json"], true, to_json);
}

fn to_json(map: &mut Map) -> Native<String> {
    let mut out = Vec::new();
    let value = Dynamic::from_map(std::mem::take(map));
    let written = json::write(&value, &mut out, usize::MAX);
    // The map is its caller's, and perhaps a constant.
    *map = value.cast::<Map>();
    written.map_err(sdk::invalid)?;
    String::from_utf8(out).map_err(|error| sdk::invalid(error.to_string()))
}

/// A value as text; what is too large or too deep stops the run, and is cut off.
pub(crate) fn show(value: &Dynamic) -> String {
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return text.to_string();
    }
    let mut out = String::new();
    // Where the run is stopped, nobody will see the text.
    let _ = show_at(value, &mut out, 0);
    out
}

/// Nothing is more to be shown.
struct Stopped;

/// Never an error: the engine would show the value its own way, without any bound.
fn text(write: impl FnOnce(&mut String) -> Result<(), Stopped>) -> ImmutableString {
    let mut out = String::new();
    if write(&mut out).is_err() {
        out.clear();
    }
    out.into()
}

fn show_at(value: &Dynamic, out: &mut String, depth: usize) -> Result<(), Stopped> {
    limits::pause().map_err(|_| Stopped)?;
    if depth > MAX_DEPTH {
        drop(limits::stop(RunErrorKind::Depth));
        return Err(Stopped);
    }
    if let Some(array) = value.read_lock::<Array>() {
        show_array(&array, out, depth + 1)
    } else if let Some(map) = value.read_lock::<Map>() {
        show_map(&map, out, depth + 1)
    } else if let Some(blob) = value.read_lock::<Blob>() {
        show_blob(&blob, out)
    } else if let Some(pointer) = value.read_lock::<FnPtr>() {
        out.push_str("Fn(");
        out.push_str(pointer.fn_name());
        out.push(')');
        Ok(())
    } else if let Some(text) = value.read_lock::<ImmutableString>() {
        limits::room(text.len()).map_err(|_| Stopped)?;
        write!(out, "{:?}", text.as_str()).map_err(|_| Stopped)
    } else {
        write!(out, "{:?}", value.flatten_clone()).map_err(|_| Stopped)
    }
}

fn show_array(array: &Array, out: &mut String, depth: usize) -> Result<(), Stopped> {
    out.push('[');
    for (index, value) in array.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        show_at(value, out, depth)?;
    }
    out.push(']');
    Ok(())
}

fn show_map(map: &Map, out: &mut String, depth: usize) -> Result<(), Stopped> {
    out.push_str("#{");
    for (index, (name, value)) in map.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write!(out, "{:?}: ", name.as_str()).map_err(|_| Stopped)?;
        show_at(value, out, depth)?;
    }
    out.push('}');
    Ok(())
}

fn show_blob(blob: &Blob, out: &mut String) -> Result<(), Stopped> {
    limits::room(blob.len().saturating_mul(3)).map_err(|_| Stopped)?;
    // As the engine shows them.
    write!(out, "{:?}", Dynamic::from_blob(blob.clone())).map_err(|_| Stopped)
}
