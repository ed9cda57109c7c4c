//! Keeps the values of secrets out of whatever is shown: logs, history, errors.

use std::borrow::Cow;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::sdk::SecretValue;

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Characters of a form below which it would stand in ordinary text, too.
const MIN_FORM: usize = 6;
/// The same for secrets that a run was not given.
const MIN_STRANGE: usize = 4;
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The secrets that a run got to know.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Redactor {
    /// Longest first, so that a part of a form isn't taken out of the whole.
    forms: Vec<Zeroizing<String>>,
}

/// As a form sends it (WHATWG URL, section 5.2).
fn form_urlencoded(value: &str) -> String {
    utf8_percent_encode(value, UNRESERVED)
        .to_string()
        .replace("%20", "+")
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} forms)", self.forms.len())
    }
}

impl Redactor {
    /// Takes note of a value, and of the forms that it takes in transport.
    pub fn learn(&mut self, secret: &SecretValue) {
        let value = secret.0.as_ref();
        if value.is_empty() || self.forms.iter().any(|form| form.as_str() == value) {
            return;
        }
        let mut forms = vec![
            value.to_owned(),
            utf8_percent_encode(value, UNRESERVED).to_string(),
            value.bytes().map(|byte| format!("{byte:02x}")).collect(),
            value.bytes().map(|byte| format!("{byte:02X}")).collect(),
            // Inside of a text that shows a value, and of JSON.
            value.escape_debug().to_string(),
            Value::from(value).to_string().trim_matches('"').to_owned(),
            form_urlencoded(value),
        ];
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            // Inside of a longer text (`user:secret`) it begins at any of three places of a group.
            for (before, cut) in [(0, 0), (1, 2), (2, 3)] {
                let mut bytes = vec![0; before];
                bytes.extend_from_slice(value.as_bytes());
                let whole = bytes.len() % 3 == 0;
                let text = engine.encode(&bytes);
                let end = text.len() - usize::from(!whole);
                if cut < end {
                    forms.push(text[cut..end].to_owned());
                }
            }
        }
        let mut own = forms.into_iter().map(Zeroizing::new);
        self.forms.extend(own.next());
        self.forms.extend(own.filter(|form| form.len() >= MIN_FORM));
        self.forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        self.forms.dedup();
    }

    /// The same for what was never near the secrets, by all that is known: without those so short
    /// that they stand in ordinary text, too.
    #[must_use]
    pub fn for_strangers(mut self) -> Self {
        self.forms.retain(|form| form.len() >= MIN_STRANGE);
        self
    }

    /// Whether it knows no secret.
    pub fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// The text without any of the secrets.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut out = Cow::Borrowed(text);
        for form in &self.forms {
            if out.contains(form.as_str()) {
                out = Cow::Owned(out.replace(form.as_str(), REDACTED));
            }
        }
        out
    }

    /// Takes the secrets out of a text.
    pub fn replace(&self, text: &mut String) {
        if let Cow::Owned(clean) = self.text(text) {
            *text = clean;
        }
    }

    /// The value with none of the secrets in any text or key of it.
    pub fn json(&self, value: &mut Value) {
        if self.is_empty() {
            return;
        }
        match value {
            Value::String(text) => self.replace(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::Object(fields) => {
                let old = std::mem::take(fields);
                for (name, mut value) in old {
                    self.json(&mut value);
                    fields.insert(self.text(&name).into_owned(), value);
                }
            }
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => {
                let text = number.to_string();
                if self.text(&text) != text {
                    *value = REDACTED.into();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_a_secret_is_left() {
        let secret = "s3cr3t/with+odd \"chars\" \\ and\nlines";
        let mut redactor = Redactor::default();
        redactor.learn(&SecretValue(secret.into()));
        let forms = [
            secret.to_owned(),
            utf8_percent_encode(secret, UNRESERVED).to_string(),
            STANDARD_NO_PAD.encode(secret),
            STANDARD_NO_PAD.encode(format!("user:{secret}")),
            STANDARD_NO_PAD.encode(format!("me:{secret}!")),
            URL_SAFE_NO_PAD.encode(format!("x{secret}yz")),
            format!("{:?}", [secret]),
            serde_json::json!({ "a": secret }).to_string(),
        ];
        for form in forms {
            let shown = redactor.text(&form).into_owned();
            assert!(shown.contains(REDACTED), "{form} became {shown}");
        }
        let mut value = serde_json::json!({ "a": [secret], "n": 1 });
        redactor.json(&mut value);
        assert_eq!(value, serde_json::json!({ "a": [REDACTED], "n": 1 }));
    }
}
