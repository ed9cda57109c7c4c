//! `sort`, `order` and their kin: stable, and none the worse for a comparison that contradicts
//! itself. What a comparison throws is thrown.

use std::cmp::Ordering;

use picloud_shared::run::RunErrorKind;
use rhai::{
    Array, Dynamic, EvalAltResult, FnPtr, ImmutableString, Module, NativeCallContext, Position,
};

use super::{Native, add};
use crate::limits;

pub(super) fn register(module: &mut Module) {
    add(module, &["sort"], false, |array: &mut Array| {
        sort_plain(array, false)
    });
    add(module, &["sort_desc"], false, |array: &mut Array| {
        sort_plain(array, true)
    });
    add(module, &["order"], true, |array: &mut Array| {
        ordered(array, |array| sort_plain(array, false))
    });
    add(module, &["order_desc"], true, |array: &mut Array| {
        ordered(array, |array| sort_plain(array, true))
    });
    add(
        module,
        &["sort", "sort_by"],
        false,
        |context: NativeCallContext<'_>, array: &mut Array, by: FnPtr| {
            sort_by(&context, array, &by)
        },
    );
    add(
        module,
        &["order", "order_by"],
        true,
        |context: NativeCallContext<'_>, array: &mut Array, by: FnPtr| {
            ordered(array, |array| sort_by(&context, array, &by))
        },
    );
}

fn ordered(array: &Array, sort: impl FnOnce(&mut Array) -> Native<()>) -> Native<Array> {
    let mut array = array.clone();
    sort(&mut array)?;
    Ok(array)
}

fn sort_by(context: &NativeCallContext<'_>, array: &mut Array, by: &FnPtr) -> Native<()> {
    merge_sort(array, |one, other| {
        let given = by.call_raw(context, None, [one.clone(), other.clone()])?;
        match (given.as_int(), given.as_bool()) {
            (Ok(number), _) => Ok(number.cmp(&0)),
            (_, Ok(true)) => Ok(Ordering::Less),
            (_, Ok(false)) => Ok(Ordering::Greater),
            _ => Err(unsortable(
                "a comparison gives a whole number or a boolean".to_owned(),
            )),
        }
    })
}

fn sort_plain(array: &mut Array, descending: bool) -> Native<()> {
    let Some(first) = array.first() else {
        return Ok(());
    };
    let kind = first.type_id();
    if array.iter().any(|value| value.type_id() != kind) {
        return Err(unsortable(
            "elements of different types cannot be sorted".to_owned(),
        ));
    }
    let mut compared = 0_u32;
    merge_sort(array, |one, other| {
        compared = compared.wrapping_add(1);
        if compared.is_multiple_of(1024) {
            limits::pause()?;
        }
        let order = compare(one, other)?;
        Ok(if descending { order.reverse() } else { order })
    })
}

fn compare(one: &Dynamic, other: &Dynamic) -> Native<Ordering> {
    if let (Ok(one), Ok(other)) = (one.as_int(), other.as_int()) {
        return Ok(one.cmp(&other));
    }
    if let (Ok(one), Ok(other)) = (one.as_float(), other.as_float()) {
        return Ok(one.partial_cmp(&other).unwrap_or(Ordering::Equal));
    }
    if let (Some(one), Some(other)) = (
        one.read_lock::<ImmutableString>(),
        other.read_lock::<ImmutableString>(),
    ) {
        return Ok(one.as_str().cmp(other.as_str()));
    }
    if let (Ok(one), Ok(other)) = (one.as_char(), other.as_char()) {
        return Ok(one.cmp(&other));
    }
    if let (Ok(one), Ok(other)) = (one.as_bool(), other.as_bool()) {
        return Ok(one.cmp(&other));
    }
    if one.is_unit() {
        return Ok(Ordering::Equal);
    }
    Err(unsortable(format!(
        "values of type {} cannot be sorted without a comparison",
        one.type_name()
    )))
}

/// Sorts an order of places first: whatever goes wrong, the array is whole.
fn merge_sort(
    array: &mut Array,
    mut compare: impl FnMut(&Dynamic, &Dynamic) -> Native<Ordering>,
) -> Native<()> {
    let length = array.len();
    let too_many = |_| limits::stop(RunErrorKind::Memory);
    let last = u32::try_from(length).map_err(too_many)?;
    limits::room(length.saturating_mul(2 * size_of::<u32>() + size_of::<Dynamic>()))?;
    let mut from: Vec<u32> = (0..last).collect();
    let mut to: Vec<u32> = Vec::with_capacity(length);
    let mut width = 1;
    while width < length {
        to.clear();
        for run in from.chunks(2 * width) {
            let (mut left, mut right) = run.split_at(width.min(run.len()));
            while let ([one, left_rest @ ..], [other, right_rest @ ..]) = (left, right) {
                let order = compare(&array[*one as usize], &array[*other as usize])?;
                if order == Ordering::Greater {
                    to.push(*other);
                    right = right_rest;
                } else {
                    to.push(*one);
                    left = left_rest;
                }
            }
            to.extend_from_slice(left);
            to.extend_from_slice(right);
        }
        std::mem::swap(&mut from, &mut to);
        width *= 2;
    }
    *array = from
        .iter()
        .map(|place| std::mem::take(&mut array[*place as usize]))
        .collect();
    Ok(())
}

fn unsortable(message: String) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorRuntime(message.into(), Position::NONE))
}
