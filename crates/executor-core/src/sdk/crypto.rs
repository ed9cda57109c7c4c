//! `crypto::*`

use hmac::{Hmac, KeyInit, Mac};
use rhai::{Blob, Dynamic, ImmutableString, Module};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Native, encoding, function, invalid, with_bytes};

/// Bytes of one `random`.
const MAX_RANDOM: i64 = 65_536;

functions! {
    "crypto" :: "sha256" [1], ["sha256(data: Dynamic) -> String"], "SHA-256 of text or a blob, in hexadecimal.";
    "crypto" :: "hmac_sha256" [2], ["hmac_sha256(key: Dynamic, message: Dynamic) -> String"], "HMAC-SHA-256 (RFC 2104), in hexadecimal.";
    "crypto" :: "verify_hmac" [3], ["verify_hmac(key: Dynamic, message: Dynamic, hex: String) -> bool"], "Whether that is the message's HMAC-SHA-256; takes the same time wherever it differs.";
    "crypto" :: "random" [1], ["random(n: int) -> Blob"], "Random bytes from the system, at most 65,536.";
}

pub(super) fn module() -> Module {
    let mut module = Module::new();
    function(&mut module, "sha256", |data: Dynamic| {
        with_bytes("the data", &data, |bytes| {
            ImmutableString::from(encoding::to_hex(&Sha256::digest(bytes)))
        })
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

fn hmac(key: &Dynamic, message: &Dynamic) -> Native<Vec<u8>> {
    let mac = with_bytes("the key", key, Hmac::<Sha256>::new_from_slice)?;
    let mut mac = mac.map_err(|error| invalid(error.to_string()))?;
    with_bytes("the message", message, |message| mac.update(message))?;
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
