//! A remote's address, taken apart: what git may be told on its command line, and what proves us.

use base64::{Engine, engine::general_purpose::STANDARD};
use picloud_store::Forge;
use url::Url;

/// An address without credentials, and the header that carries them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// As git is told it.
    pub(super) url: String,
    /// The origin that the header is sent to, and the header. Other users of the machine see
    /// command lines, but not the environment, where this goes.
    pub(super) header: Option<(String, String)>,
    /// What must not be seen in what git says.
    secrets: Vec<String>,
}

impl Address {
    /// Takes an address apart. A forge's token proves us to the forge's own host, where the
    /// address has no credentials.
    pub(super) fn new(address: &str, forge: Option<&Forge>) -> Self {
        let plain = Self {
            url: address.to_owned(),
            header: None,
            secrets: Vec::new(),
        };
        let parsed = Url::parse(address).ok();
        let Some(mut url) = parsed.filter(|url| matches!(url.scheme(), "http" | "https")) else {
            return plain;
        };
        let decoded = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8_lossy()
                .into_owned()
        };
        let own = (!url.username().is_empty() || url.password().is_some()).then(|| {
            let password = url.password().unwrap_or_default();
            (decoded(url.username()), decoded(password))
        });
        let of_forge = || {
            let forge = forge.filter(|forge| is_of(forge, &url))?;
            let token = forge.token.as_ref()?.0.to_string();
            Some(login(&forge.kind, token))
        };
        let Some((user, password)) = own.or_else(of_forge) else {
            return plain;
        };
        let mut secrets = vec![password.clone(), url.password().unwrap_or("").to_owned()];
        // A token may stand in the user's place.
        if password.is_empty() {
            secrets.extend([user.clone(), url.username().to_owned()]);
        }
        secrets.retain(|secret| !secret.is_empty());
        // These fail for addresses without a host alone, of which http has none.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let origin = url.origin().ascii_serialization();
        let proof = STANDARD.encode(format!("{user}:{password}"));
        secrets.push(proof.clone());
        Self {
            url: url.into(),
            header: Some((origin, format!("Authorization: Basic {proof}"))),
            secrets,
        }
    }

    /// Takes out of a text what nobody may see.
    pub(super) fn hide(&self, text: &str) -> String {
        let hidden = |text: String, secret: &String| text.replace(secret, "…");
        self.secrets.iter().fold(text.to_owned(), hidden)
    }
}

/// The user name that goes with a forge's token.
fn login(kind: &str, token: String) -> (String, String) {
    let user = match kind {
        "github" => "x-access-token",
        "gitlab" => "oauth2",
        "bitbucket" => "x-token-auth",
        // Gitea and Forgejo take any.
        _ => "picloud",
    };
    match token.split_once(':') {
        Some((user, password)) if kind == "bitbucket" => (user.to_owned(), password.to_owned()),
        _ => (user.to_owned(), token),
    }
}

/// Whether an address is on the forge's own host.
fn is_of(forge: &Forge, url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    let Some(api) = forge.api_url.as_deref() else {
        let public = match forge.kind.as_str() {
            "github" => "github.com",
            "gitlab" => "gitlab.com",
            "bitbucket" => "bitbucket.org",
            // There is no public one: the API is looked for where the repository is.
            _ => host,
        };
        return url.scheme() == "https" && host == public;
    };
    let api = Url::parse(api).ok();
    api.is_some_and(|api| {
        let of_api = api.host_str().unwrap_or_default();
        let same = of_api == host || of_api.strip_prefix("api.") == Some(host);
        // Never in clear to where the API is reached encrypted.
        same && (url.scheme() == "https" || api.scheme() == "http")
    })
}

#[cfg(test)]
mod tests {
    use picloud_shared::sdk::SecretValue;

    use super::*;

    fn forge(kind: &str, api_url: Option<&str>) -> Forge {
        Forge {
            kind: kind.to_owned(),
            api_url: api_url.map(str::to_owned),
            token: Some(SecretValue("tok".into())),
        }
    }

    fn header(user: &str, password: &str) -> String {
        let proof = STANDARD.encode(format!("{user}:{password}"));
        format!("Authorization: Basic {proof}")
    }

    #[test]
    fn credentials_leave_the_address_and_are_hidden() {
        let address = Address::new("https://u:p%40ss@git.example.com/a.git", None);
        assert_eq!(address.url, "https://git.example.com/a.git");
        let expected = ("https://git.example.com".to_owned(), header("u", "p@ss"));
        assert_eq!(address.header, Some(expected));
        let told = address.hide("fatal: p@ss p%40ss at https://u:p%40ss@x");
        assert!(!told.contains("ss"), "{told}");
        for plain in [
            "git@x.org:a/b",
            "/srv/a",
            "file:///srv/a",
            "ssh://u@x/a",
            "https://x.org/a",
        ] {
            let address = Address::new(plain, None);
            assert_eq!((address.url.as_str(), address.header), (plain, None));
        }
        let token = Address::new("https://ghp_abc@github.com/o/r", None);
        assert_eq!(token.hide("ghp_abc"), "…");
    }

    #[test]
    fn a_forge_s_token_goes_to_the_forge_alone() {
        let sent = |url: &str, forge: &Forge| Address::new(url, Some(forge)).header.map(|of| of.1);
        let github = forge("github", None);
        let proof = Some(header("x-access-token", "tok"));
        assert_eq!(sent("https://github.com/o/r", &github), proof);
        for other in [
            "http://github.com/o/r",
            "https://evil.com/o/r",
            "ssh://github.com/o/r",
        ] {
            assert_eq!(sent(other, &github), None, "{other}");
        }
        let enterprise = forge("github", Some("https://git.corp/api/v3"));
        assert_eq!(sent("https://git.corp/o/r", &enterprise), proof);
        assert_eq!(sent("http://git.corp/o/r", &enterprise), None);
        let own = Address::new("https://u:p@github.com/o/r", Some(&github));
        assert_eq!(own.header.map(|of| of.1), Some(header("u", "p")));
        let gitlab = forge("gitlab", Some("http://127.0.0.1:1/api/v4"));
        assert_eq!(
            sent("http://127.0.0.1:2/o/r", &gitlab),
            Some(header("oauth2", "tok"))
        );
    }
}
