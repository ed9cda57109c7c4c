//! `blob`, `pad` and `to_array` of blobs.

use rhai::{Array, Blob, Dynamic, Module};

use super::{Native, add};
use crate::limits;

pub(super) fn register(module: &mut Module) {
    add(module, &["blob"], true, |length: i64| blob(length, 0));
    add(module, &["blob"], true, blob);
    add(module, &["pad"], false, pad);
    add(module, &["to_array"], true, to_array);
}

fn blob(length: i64, value: i64) -> Native<Blob> {
    let length = usize::try_from(length).unwrap_or(0);
    limits::room(length)?;
    Ok(vec![low_byte(value); length])
}

fn pad(blob: &mut Blob, length: i64, value: i64) -> Native<()> {
    let length = usize::try_from(length).unwrap_or(0);
    if length > blob.len() {
        limits::room(length - blob.len())?;
        blob.resize(length, low_byte(value));
    }
    Ok(())
}

fn to_array(blob: &mut Blob) -> Native<Array> {
    limits::room(blob.len().saturating_mul(size_of::<Dynamic>()))?;
    Ok(blob.iter().map(|byte| i64::from(*byte).into()).collect())
}

fn low_byte(value: i64) -> u8 {
    value.to_le_bytes()[0]
}
