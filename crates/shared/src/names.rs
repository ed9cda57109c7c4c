//! Names that are checked once, when they are made.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a text is not the name that it should be. The message is a full sentence part: "must …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NameError {
    /// What a right name looks like.
    pub reason: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name as shared text, for those who keep it without copying.
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                $check(text).map_err(|reason| NameError { reason })?;
                Ok(Self(Arc::from(text)))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name!(/// An app's name: a DNS label (RFC 1123), unique over all sources.
    AppName, check_dns_label);
name!(/// A source's name: a DNS label, as it stands in URLs.
    SourceName, check_dns_label);
name!(/// A trigger's name, unique in its app.
    TriggerName, check_trigger_name);
name!(/// The full id of a commit: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits.
    CommitId, check_object_id);
name!(/// The full id of a blob or tree: what content is addressed by.
    BlobId, check_object_id);
name!(/// A script's path below its app, as written in `app.yaml`: `scripts/x.rhai`.
    ScriptPath, check_script_path);

impl CommitId {
    /// The first seven digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..7]
    }
}

impl ScriptPath {
    /// The name that `import` uses for a module: `modules/a/b.rhai` is `a/b`. None for a handler.
    pub fn module_name(&self) -> Option<&str> {
        self.0.strip_prefix("modules/")?.strip_suffix(".rhai")
    }
}

fn check_dns_label(text: &str) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let fits = (1..=63).contains(&bytes.len());
    let inner = bytes.iter().all(|b| plain(b) || *b == b'-');
    let ends = bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain);
    if fits && inner && ends {
        Ok(())
    } else {
        Err(
            "must be a DNS label: 1 to 63 lower-case letters, digits and hyphens, no hyphen at either end",
        )
    }
}

fn check_trigger_name(text: &str) -> Result<(), &'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(())
    } else {
        Err("must be 1 to 63 letters, digits, hyphens, underscores and dots")
    }
}

fn check_object_id(text: &str) -> Result<(), &'static str> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if matches!(text.len(), 40 | 64) && text.bytes().all(hex) {
        Ok(())
    } else {
        Err("must be a full object id: 40 or 64 lower-case hexadecimal digits")
    }
}

fn check_script_path(text: &str) -> Result<(), &'static str> {
    let bad_part = |part: &str| part.is_empty() || part == "." || part == "..";
    if text.len() > 255 || text.bytes().any(|b| b.is_ascii_control() || b == b'\\') {
        return Err(
            "must be a path of at most 255 bytes, without control characters or backslashes",
        );
    }
    if !text.ends_with(".rhai") || text.split('/').any(bad_part) {
        return Err("must be a relative path that ends in .rhai, without `.` or `..` parts");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_labels() {
        for good in ["a", "guestbook", "a-b", "0x", &"a".repeat(63)] {
            assert!(good.parse::<AppName>().is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a_b",
            "ä",
            "a b",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<AppName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn object_ids() {
        assert!("a".repeat(40).parse::<CommitId>().is_ok());
        assert!("0".repeat(64).parse::<CommitId>().is_ok());
        for bad in ["", "abc", &"A".repeat(40), &"g".repeat(40), &"a".repeat(41)] {
            assert!(bad.parse::<CommitId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn script_paths() {
        let path: ScriptPath = "modules/a/b.rhai".parse().expect("a good path");
        assert_eq!(path.module_name(), Some("a/b"));
        for bad in [
            "",
            "x",
            "../x.rhai",
            "/x.rhai",
            "a//b.rhai",
            "a/./b.rhai",
            "a\\b.rhai",
            "a\0.rhai",
        ] {
            assert!(bad.parse::<ScriptPath>().is_err(), "{bad:?}");
        }
    }
}
