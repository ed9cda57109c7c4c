//! `crypto::*`

use hmac::{Hmac, KeyInit, Mac};
use rhai::{Blob, Dynamic, ImmutableString, Module};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Native, encoding, function, invalid, with_bytes};
use crate::limits;

/// Bytes of one `random`.
const MAX_RANDOM: i64 = 65_536;
/// Bytes that are hashed in no time by the slowest of machines.
const PART: usize = 4 << 10;
/// Bytes of a block of SHA-256; a longer key stands for its hash (RFC 2104, section 2).
const BLOCK: usize = 64;

functions! {
    "crypto" :: "sha256" [1], ["sha256(data: Dynamic) -> String"], "SHA-256 of text or a blob, in hexadecimal.";
    "crypto" :: "hmac_sha256" [2], ["hmac_sha256(key: Dynamic, message: Dynamic) -> String"], "HMAC-SHA-256 (RFC 2104), in hexadecimal.";
    "crypto" :: "verify_hmac" [3], ["verify_hmac(key: Dynamic, message: Dynamic, hex: String) -> bool"], "Whether that is the message's HMAC-SHA-256; takes the same time wherever it differs.";
    "crypto" :: "random" [1], ["random(n: int) -> Blob"], "Random bytes from the system, at most 65,536.";
}

pub(super) fn module() -> Module {
    let mut module = Module::new();
    function(&mut module, "sha256", |data: Dynamic| {
        let mut digest = Sha256::new();
        in_parts("the data", &data, |part| digest.update(part))?;
        Ok(ImmutableString::from(encoding::to_hex(&digest.finalize())))
    });
    function(
        &mut module,
        "hmac_sha256",
        |key: Dynamic, message: Dynamic| {
            let code = hmac(&key, &message)?;
            Ok(ImmutableString::from(encoding::to_hex(&code)))
        },
    );
    function(
        &mut module,
        "verify_hmac",
        |key: Dynamic, message: Dynamic, hex: ImmutableString| {
            let code = hmac(&key, &message)?;
            // What is no hexadecimal is nobody's code; its length is no secret.
            let given = encoding::from_hex(&hex).unwrap_or_default();
            Ok(bool::from(code.ct_eq(given.as_slice())))
        },
    );
    function(&mut module, "random", random);
    module
}

/// Bytes of text or of a blob, so many at a time that the run can be stopped between them.
fn in_parts(name: &str, value: &Dynamic, mut take: impl FnMut(&[u8])) -> Native<()> {
    with_bytes(name, value, |bytes| {
        bytes.chunks(PART).try_for_each(|part| {
            take(part);
            limits::pause()
        })
    })?
}

fn hmac(key: &Dynamic, message: &Dynamic) -> Native<Vec<u8>> {
    let mut short = Vec::new();
    let mut hashed = Sha256::new();
    in_parts("the key", key, |part| {
        if short.len() <= BLOCK {
            short.extend_from_slice(part);
        }
        hashed.update(part);
    })?;
    let mac = if short.len() > BLOCK {
        Hmac::<Sha256>::new_from_slice(&hashed.finalize())
    } else {
        Hmac::<Sha256>::new_from_slice(&short)
    };
    let mut mac = mac.map_err(|error| invalid(error.to_string()))?;
    in_parts("the message", message, |part| mac.update(part))?;
    Ok(mac.finalize().into_bytes().to_vec())
}

fn random(size: i64) -> Native<Blob> {
    let size = usize::try_from(size)
        .ok()
        .filter(|_| size <= MAX_RANDOM)
        .ok_or_else(|| invalid(format!("random gives from 0 to {MAX_RANDOM} bytes")))?;
    let mut bytes = vec![0; size];
    getrandom::fill(&mut bytes).map_err(|error| invalid(error.to_string()))?;
    Ok(bytes)
}
