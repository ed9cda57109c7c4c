//! `==` and `!=` of arrays and maps.

use rhai::{Array, Dynamic, EvalAltResult, ImmutableString, Map, Module, NativeCallContext};

use super::{Native, add};
use crate::{json::MAX_DEPTH, limits};
use picloud_shared::run::RunErrorKind;

pub(super) fn register(module: &mut Module) {
    add(module, &["=="], true, arrays);
    add(
        module,
        &["!="],
        true,
        |context: NativeCallContext<'_>, one: &mut Array, other: Array| {
            arrays(context, one, other).map(|same| !same)
        },
    );
    add(module, &["=="], true, maps);
    add(
        module,
        &["!="],
        true,
        |context: NativeCallContext<'_>, one: &mut Map, other: Map| {
            maps(context, one, other).map(|same| !same)
        },
    );
}

fn arrays(context: NativeCallContext<'_>, one: &mut Array, mut other: Array) -> Native<bool> {
    equal_arrays(&context, one, &mut other, 1)
}

fn maps(context: NativeCallContext<'_>, one: &mut Map, mut other: Map) -> Native<bool> {
    equal_maps(&context, one, &mut other, 1)
}

/// Whether two values are equal as the engine's `==` says.
pub(super) fn equal(
    context: &NativeCallContext<'_>,
    one: &mut Dynamic,
    other: &mut Dynamic,
) -> Native<bool> {
    equal_at(context, one, other, 0)
}

fn equal_at(
    context: &NativeCallContext<'_>,
    one: &mut Dynamic,
    other: &mut Dynamic,
    depth: usize,
) -> Native<bool> {
    limits::pause()?;
    if depth > MAX_DEPTH {
        return Err(limits::stop(RunErrorKind::Depth));
    }
    if let (Ok(one), Ok(other)) = (one.as_int(), other.as_int()) {
        return Ok(one == other);
    }
    if let (Some(one), Some(other)) = (
        one.read_lock::<ImmutableString>(),
        other.read_lock::<ImmutableString>(),
    ) {
        return Ok(*one == *other);
    }
    if one.is_array() && other.is_array() {
        // A shared cell may be both; it is equal to itself.
        let (Some(mut one), Some(mut other)) =
            (one.write_lock::<Array>(), other.write_lock::<Array>())
        else {
            return Ok(true);
        };
        return equal_arrays(context, &mut one, &mut other, depth + 1);
    }
    if one.is_map() && other.is_map() {
        let (Some(mut one), Some(mut other)) = (one.write_lock::<Map>(), other.write_lock::<Map>())
        else {
            return Ok(true);
        };
        return equal_maps(context, &mut one, &mut other, depth + 1);
    }
    let same_type = one.type_id() == other.type_id();
    match context.call_native_fn_raw("==", true, &mut [one, other]) {
        Ok(same) => Ok(same.as_bool().unwrap_or(false)),
        Err(error) if matches!(*error, EvalAltResult::ErrorFunctionNotFound(..)) && !same_type => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn equal_arrays(
    context: &NativeCallContext<'_>,
    one: &mut Array,
    other: &mut Array,
    depth: usize,
) -> Native<bool> {
    if one.len() != other.len() {
        return Ok(false);
    }
    for (one, other) in one.iter_mut().zip(other) {
        if !equal_at(context, one, other, depth)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn equal_maps(
    context: &NativeCallContext<'_>,
    one: &mut Map,
    other: &mut Map,
    depth: usize,
) -> Native<bool> {
    if one.len() != other.len() {
        return Ok(false);
    }
    for (name, one) in one.iter_mut() {
        let Some(other) = other.get_mut(name) else {
            return Ok(false);
        };
        if !equal_at(context, one, other, depth)? {
            return Ok(false);
        }
    }
    Ok(true)
}
