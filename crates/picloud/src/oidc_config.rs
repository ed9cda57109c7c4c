//! The identity provider's settings, of flags, variables and the file together.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use picloud_manager_core::oidc::{OidcRole, OidcSettings};
use serde::Deserialize;

use crate::cli::OidcArgs;

const DEFAULT_CLAIM: &str = "groups";
const DEFAULT_SESSION: &str = "12h";

/// The same settings in a file: the table `[oidc]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OidcFile {
    issuer: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    name: Option<String>,
    scopes: Option<Vec<String>>,
    claim: Option<String>,
    session: Option<String>,
    #[serde(default)]
    roles: BTreeMap<OidcRole, Vec<String>>,
}

/// What was given together; `None` where no provider is named.
pub(crate) fn resolve(
    args: &OidcArgs,
    file: OidcFile,
    problems: &mut Vec<anyhow::Error>,
) -> Option<OidcSettings> {
    let given = |text: &Option<String>, file: Option<String>| {
        let text = text.clone().or(file);
        text.filter(|text| !text.is_empty())
    };
    let issuer = given(&args.oidc_issuer, file.issuer);
    let client_id = given(&args.oidc_client_id, file.client_id);
    let Some(issuer) = issuer else {
        if client_id.is_some() {
            problems.push(anyhow!(
                "--oidc-client-id: needs --oidc-issuer, the provider's address"
            ));
        }
        return None;
    };
    let name = match check_issuer(&issuer) {
        Ok(host) => host,
        Err(error) => {
            problems.push(error);
            return None;
        }
    };
    let Some(client_id) = client_id else {
        problems.push(anyhow!(
            "--oidc-issuer: needs --oidc-client-id, as the provider knows this server"
        ));
        return None;
    };
    let roles = match &args.oidc_role {
        Some(pairs) => parse_roles(pairs, problems),
        None => file.roles,
    };
    if roles.values().all(Vec::is_empty) && problems.is_empty() {
        problems.push(anyhow!(
            "--oidc-role: nobody could sign in; say who may, as in --oidc-role admin=picloud-admins"
        ));
    }
    let session = given(&args.oidc_session, file.session);
    let session = session.as_deref().unwrap_or(DEFAULT_SESSION);
    let session = parse_session(session).map_err(|error| problems.push(error));
    Some(OidcSettings {
        issuer,
        client_id,
        client_secret: given(&args.oidc_client_secret, file.client_secret),
        name: given(&args.oidc_name, file.name).unwrap_or(name),
        scopes: args
            .oidc_scopes
            .clone()
            .or(file.scopes)
            .unwrap_or_else(|| vec!["profile".to_owned(), "email".to_owned()]),
        claim: given(&args.oidc_claim, file.claim).unwrap_or_else(|| DEFAULT_CLAIM.to_owned()),
        roles,
        session: session.ok()?,
    })
}

/// The host of an issuer that may be asked: tokens are not sent in the clear, but on this machine.
fn check_issuer(issuer: &str) -> Result<String> {
    let url: url::Url = issuer
        .parse()
        .map_err(|error| anyhow!("--oidc-issuer: {issuer:?} is no address: {error}"))?;
    let host = url.host_str().unwrap_or_default();
    let near = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    match url.scheme() {
        "https" => Ok(host.to_owned()),
        "http" if near => Ok(host.to_owned()),
        _ => Err(anyhow!("--oidc-issuer: expected https://…, got {issuer:?}")),
    }
}

fn parse_roles(
    pairs: &[String],
    problems: &mut Vec<anyhow::Error>,
) -> BTreeMap<OidcRole, Vec<String>> {
    let mut roles: BTreeMap<OidcRole, Vec<String>> = BTreeMap::new();
    for pair in pairs.iter().filter(|pair| !pair.is_empty()) {
        let parsed = pair
            .split_once('=')
            .and_then(|(role, value)| Some((OidcRole::parse(role.trim())?, value.trim())))
            .filter(|(_, value)| !value.is_empty());
        match parsed {
            Some((role, value)) => roles.entry(role).or_default().push(value.to_owned()),
            None => problems.push(anyhow!(
                "--oidc-role: expected viewer=VALUE, operator=VALUE or admin=VALUE; got {pair:?}"
            )),
        }
    }
    roles
}

fn parse_session(text: &str) -> Result<std::time::Duration> {
    picloud_shared::duration::milliseconds(text)
        .map(std::time::Duration::from_millis)
        .filter(|time| (60..=30 * 86_400).contains(&time.as_secs()))
        .ok_or_else(|| {
            anyhow!("--oidc-session: expected a time from 1m to 30d, like 12h; got {text:?}")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(args: &OidcArgs, file: &str) -> Result<OidcSettings, String> {
        let file: OidcFile = toml::from_str(file).expect("TOML");
        let mut problems = Vec::new();
        let settings = resolve(args, file, &mut problems);
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        match settings.filter(|_| words.is_empty()) {
            Some(settings) => Ok(settings),
            None => Err(words.join("; ")),
        }
    }

    #[test]
    fn flags_win_over_the_file_and_mistakes_are_named() {
        let file = "issuer = 'https://id.example.com'\nclient_id = 'a'\nroles.viewer = ['*']\n";
        let args = OidcArgs {
            oidc_client_id: Some("b".to_owned()),
            oidc_role: Some(vec!["admin=root".to_owned(), "admin=ops".to_owned()]),
            ..OidcArgs::default()
        };
        let settings = resolved(&args, file).expect("good");
        assert_eq!(
            (settings.client_id.as_str(), settings.name.as_str()),
            ("b", "id.example.com")
        );
        let roles: BTreeMap<_, _> =
            [(OidcRole::Admin, vec!["root".to_owned(), "ops".to_owned()])].into();
        assert_eq!(settings.roles, roles);
        assert_eq!(
            resolved(&OidcArgs::default(), "")
                .map_err(|words| words.is_empty())
                .err(),
            Some(true)
        );
        for (file, part) in [
            ("issuer = 'https://id.example.com'", "--oidc-client-id"),
            ("client_id = 'a'", "--oidc-issuer"),
            (
                "issuer = 'http://id.example.com'\nclient_id = 'a'",
                "https://",
            ),
            (
                "issuer = 'https://id.example.com'\nclient_id = 'a'",
                "--oidc-role",
            ),
            (
                "issuer = 'https://id.example.com'\nclient_id = 'a'\nroles.viewer = ['*']\nsession = '1s'",
                "--oidc-session",
            ),
        ] {
            let words = resolved(&OidcArgs::default(), file).expect_err(file);
            assert!(words.contains(part), "{part} in {words}");
        }
    }
}
