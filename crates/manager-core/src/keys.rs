//! API keys: made of randomness, shown once, kept as a digest.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// A key that was just made.
#[derive(Clone)]
pub struct FreshKey {
    /// `pic_` and 43 characters: 256 bits.
    pub text: String,
}

impl FreshKey {
    /// Makes one from the system's randomness.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self {
            text: format!("pic_{}", URL_SAFE_NO_PAD.encode(bytes)),
        })
    }
}

/// What is kept of a key. It is long and random, so a plain digest is enough; keys are found by
/// it, and so never compared byte by byte.
pub fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// What people know a key by.
pub fn prefix(key: &str) -> String {
    key.chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_have_their_form() {
        let (one, other) = (
            FreshKey::generate().expect("a key"),
            FreshKey::generate().expect("a key"),
        );
        assert_ne!(one.text, other.text);
        assert!(
            one.text.starts_with("pic_") && one.text.len() == 47,
            "{}",
            one.text
        );
        assert_ne!(hash(&one.text), hash(&other.text));
    }
}
