//! `pad`, `dedup`

use rhai::{Array, Dynamic, FnPtr, Module, NativeCallContext};

use super::{Native, add, equal};
use crate::limits;

pub(super) fn register(module: &mut Module) {
    add(module, &["pad"], false, pad);
    add(
        module,
        &["dedup"],
        false,
        |context: NativeCallContext<'_>, array: &mut Array| {
            dedup(array, |one, other| {
                equal::equal(&context, &mut one.clone(), &mut other.clone())
            })
        },
    );
    add(
        module,
        &["dedup"],
        false,
        |context: NativeCallContext<'_>, array: &mut Array, same: FnPtr| {
            dedup(array, |one, other| {
                let same = same.call_raw(&context, None, [one.clone(), other.clone()])?;
                Ok(same.as_bool().unwrap_or(false))
            })
        },
    );
}

fn pad(array: &mut Array, length: i64, item: Dynamic) -> Native<()> {
    let more = usize::try_from(length)
        .unwrap_or(0)
        .saturating_sub(array.len());
    limits::room(more.saturating_mul(size_of::<Dynamic>()))?;
    array.reserve(more);
    for _ in 0..more {
        // A copy of a large item takes as much again.
        limits::pause()?;
        array.push(item.clone());
    }
    Ok(())
}

fn dedup(
    array: &mut Array,
    mut same: impl FnMut(&Dynamic, &Dynamic) -> Native<bool>,
) -> Native<()> {
    let mut kept: Array = Array::new();
    for item in array.iter() {
        limits::pause()?;
        match kept.last() {
            Some(last) if same(last, item)? => {}
            _ => kept.push(item.clone()),
        }
    }
    *array = kept;
    Ok(())
}
