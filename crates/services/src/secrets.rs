//! Secrets: sealed with age to the server's key in git and in the database, open in memory alone.

use std::{collections::HashMap, io::Read, io::Write, sync::Arc};

use age::{
    Decryptor, Encryptor, Identity,
    armor::{ArmoredReader, ArmoredWriter, Format},
    secrecy::ExposeSecret,
    x25519,
};
use parking_lot::RwLock;
use picloud_shared::{
    script::{SecretChecker, Vault},
    sdk::{SdkCallCx, SdkError, SdkErrorCode, SdkResult, SecretValue, SecretsService},
};
use zeroize::Zeroizing;

/// Bytes of a secret's value.
const MAX_VALUE: u64 = 64 << 10;
/// Opened secrets that are kept.
const MAX_OPEN: usize = 10_000;

/// Why a secret can't be sealed or opened. Never says what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SealError(pub String);

/// The keys that open secrets; the first is the one that new secrets are sealed to.
#[derive(Clone)]
pub struct SecretKeys(Vec<x25519::Identity>);

impl SecretKeys {
    /// Reads identities, one a line, as `picloud secrets keygen` writes them.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let lines = text.lines().map(str::trim);
        let keys = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                line.parse::<x25519::Identity>()
                    .map_err(|error| SealError(format!("this is no age identity: {error}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(SealError("there is no age identity".to_owned()));
        }
        Ok(Self(keys))
    }

    /// Makes a new identity; gives the text that [`Self::parse`] reads.
    pub fn generate() -> String {
        let key = x25519::Identity::generate();
        let public = key.to_public();
        format!(
            "# recipient: {public}\n{}\n",
            key.to_string().expose_secret()
        )
    }

    /// What new secrets are sealed to: `age1…`.
    pub fn recipient(&self) -> String {
        self.0
            .first()
            .map(|key| key.to_public().to_string())
            .unwrap_or_default()
    }

    /// Opens an armored ciphertext.
    pub fn open(&self, armored: &str) -> Result<SecretValue, SealError> {
        let failed = |error: &dyn std::fmt::Display| SealError(error.to_string());
        let reader = ArmoredReader::new(armored.trim().as_bytes());
        let decryptor = Decryptor::new(reader).map_err(|error| failed(&error))?;
        let keys = self.0.iter().map(|key| key as &dyn Identity);
        let opened = decryptor.decrypt(keys).map_err(|error| failed(&error))?;
        // As large as it can get: a text that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(armored.len()));
        opened
            .take(MAX_VALUE + 1)
            .read_to_string(&mut text)
            .map_err(|_| SealError("the value is damaged, or not UTF-8".to_owned()))?;
        if text.len() as u64 > MAX_VALUE {
            return Err(SealError(format!(
                "the value has more than {MAX_VALUE} bytes"
            )));
        }
        Ok(SecretValue(std::mem::take(&mut *text).into()))
    }
}

/// Seals a value to a recipient, armored.
pub fn seal(recipient: &str, value: &str) -> Result<String, SealError> {
    let failed = |error: &dyn std::fmt::Display| SealError(error.to_string());
    let recipient: x25519::Recipient = recipient
        .trim()
        .parse()
        .map_err(|error: &str| SealError(format!("this is no age recipient: {error}")))?;
    if value.len() as u64 > MAX_VALUE {
        return Err(SealError(format!("a secret has at most {MAX_VALUE} bytes")));
    }
    let encryptor = Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
        .map_err(|error| failed(&error))?;
    let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)
        .map_err(|error| failed(&error))?;
    let mut writer = encryptor
        .wrap_output(armor)
        .map_err(|error| failed(&error))?;
    writer
        .write_all(value.as_bytes())
        .map_err(|error| failed(&error))?;
    let bytes = writer
        .finish()
        .and_then(ArmoredWriter::finish)
        .map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|error| failed(&error))
}

/// Opens the secrets of apps as they are asked for.
pub struct SecretsServiceImpl {
    keys: SecretKeys,
    /// By ciphertext.
    open: RwLock<HashMap<String, SecretValue>>,
}

impl SecretsServiceImpl {
    /// With these keys.
    pub fn new(keys: SecretKeys) -> Self {
        Self {
            keys,
            open: RwLock::default(),
        }
    }

    fn value(&self, sealed: &str) -> Result<SecretValue, SealError> {
        if let Some(value) = self.open.read().get(sealed) {
            return Ok(value.clone());
        }
        let value = self.keys.open(sealed)?;
        let mut open = self.open.write();
        if open.len() >= MAX_OPEN {
            open.clear();
        }
        open.insert(sealed.to_owned(), value.clone());
        Ok(value)
    }

    /// The value of an app's secret, for the platform's own use: to verify signatures.
    pub fn of(&self, app: &picloud_shared::AppSpec, name: &str) -> Option<SecretValue> {
        let sealed = app.secrets.get(name)?;
        self.value(sealed)
            .inspect_err(|error| {
                tracing::error!(app = %app.name, secret = name, %error, "a secret cannot be opened");
            })
            .ok()
    }
}

impl SecretsService for SecretsServiceImpl {
    fn get(&self, cx: &SdkCallCx, name: &str) -> SdkResult<SecretValue> {
        if !cx.app.spec.secrets.contains_key(name) {
            return Err(SdkError::new(
                SdkErrorCode::NotFound,
                format!("app.yaml declares no secret `{}`", name.escape_debug()),
            ));
        }
        self.of(&cx.app.spec, name).ok_or_else(|| {
            SdkError::new(
                SdkErrorCode::Unavailable,
                "the secret cannot be opened with this server's key",
            )
        })
    }
}

impl SecretChecker for SecretKeys {
    fn check(&self, sealed: &str) -> Result<(), String> {
        self.open(sealed)
            .map(|_| ())
            .map_err(|SealError(reason)| reason)
    }
}

impl Vault for SecretKeys {
    fn seal(&self, clear: &str) -> Result<String, String> {
        seal(&self.recipient(), clear).map_err(|SealError(reason)| reason)
    }

    fn open(&self, sealed: &str) -> Result<SecretValue, String> {
        Self::open(self, sealed).map_err(|SealError(reason)| reason)
    }

    fn is_current(&self, sealed: &str) -> bool {
        let first = self.0.first().cloned().into_iter().collect();
        Self::open(&Self(first), sealed).is_ok()
    }
}

/// The bundle's part.
pub type SharedSecrets = Arc<SecretsServiceImpl>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_with_the_key_and_with_no_other() {
        let keys = SecretKeys::parse(&SecretKeys::generate()).expect("a key");
        let sealed = seal(&keys.recipient(), "hunter2").expect("sealed");
        assert!(sealed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"));
        assert!(!sealed.contains("hunter2"));
        assert_eq!(keys.open(&sealed).expect("opened").0.as_ref(), "hunter2");
        let other = SecretKeys::parse(&SecretKeys::generate()).expect("a key");
        assert!(other.open(&sealed).is_err());
        // A rotated key: the new one first, the old one still opens.
        let both = SecretKeys(vec![other.0[0].clone(), keys.0[0].clone()]);
        assert_eq!(both.open(&sealed).expect("opened").0.as_ref(), "hunter2");
        assert_eq!(both.recipient(), other.recipient());
        assert!(keys.open("rubbish").is_err() && keys.open("").is_err());
        assert!(SecretKeys::parse("# nothing\n").is_err());
    }
}
