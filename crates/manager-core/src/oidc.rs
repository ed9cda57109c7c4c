//! Sign-in by an identity provider (OpenID Connect Core 1.0), with PKCE (RFC 7636), state and
//! nonce; and what a claim makes of a person here.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use openidconnect::{
    AuthenticationFlow, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl, Nonce, OAuth2TokenResponse,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope as OidcScope, TokenResponse,
    UserInfoClaims,
    core::{CoreClient, CoreGenderClaim, CoreProviderMetadata, CoreResponseType},
};
use picloud_shared::Scope;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

/// How long one request to the provider may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long what the provider says of itself is believed.
const FRESH: Duration = Duration::from_mins(5);
/// Bytes of an answer.
const MAX_ANSWER: usize = 1 << 20;

/// What a person is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OidcRole {
    /// Sees apps and their runs.
    Viewer,
    /// Also deploys, fires, replays and changes triggers.
    Operator,
    /// Everything.
    Admin,
}

impl OidcRole {
    /// All, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }

    /// What it lets somebody do.
    pub fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Viewer => &[Scope::AppRead, Scope::RunRead],
            Self::Operator => &[
                Scope::AppRead,
                Scope::AppInvoke,
                Scope::TriggerWrite,
                Scope::SyncWrite,
                Scope::RunRead,
            ],
            Self::Admin => &[Scope::InstanceAdmin],
        }
    }
}

/// How the provider is reached, and what its claims mean here.
#[derive(Clone)]
pub struct OidcSettings {
    /// `https://accounts.example.com`; below it stands `.well-known/openid-configuration`.
    pub issuer: String,
    /// As the provider knows this server.
    pub client_id: String,
    /// Absent: a public client, which PKCE alone protects.
    pub client_secret: Option<String>,
    /// What people know the provider by.
    pub name: String,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim that says what somebody is; `a.b` reaches into a claim.
    pub claim: String,
    /// The claim's values that make somebody this; `*` is any.
    pub roles: BTreeMap<OidcRole, Vec<String>>,
    /// How long a session lasts.
    pub session: Duration,
}

impl std::fmt::Debug for OidcSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OidcSettings")
            .field("issuer", &self.issuer)
            .field("client_id", &self.client_id)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

impl OidcSettings {
    /// The highest role that somebody with these claims has.
    fn role(&self, claims: &Map<String, Value>) -> Option<OidcRole> {
        let held = values(claims, &self.claim);
        let has = |role: &OidcRole| {
            let wanted = self.roles.get(role).map(Vec::as_slice).unwrap_or_default();
            wanted
                .iter()
                .any(|value| value == "*" || held.iter().any(|held| held == value))
        };
        OidcRole::ALL.into_iter().rev().find(has)
    }
}

/// The words of a claim: a text, or a list of them; a name with dots reaches into a claim where
/// none is called so.
fn values(claims: &Map<String, Value>, name: &str) -> Vec<String> {
    let found = claims.get(name).or_else(|| {
        let mut parts = name.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    });
    match found {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => items
            .iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect(),
        Some(Value::Bool(held)) => vec![held.to_string()],
        _ => Vec::new(),
    }
}

/// Why somebody could not be signed in.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The provider can't be reached, or isn't one.
    #[error("the identity provider cannot be used: {0}")]
    Provider(String),
    /// What it answered does not hold.
    #[error("the identity provider's answer does not hold: {0}")]
    Answer(String),
    /// Who they are is known, and that they have no role here.
    #[error("{subject} has no role here")]
    NoRole {
        /// By which the provider knows them.
        subject: String,
    },
}

/// Somebody, as the provider tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// By which the provider knows them, for good.
    pub subject: String,
    /// For people.
    pub name: String,
    /// Where it is told.
    pub email: Option<String>,
    /// What they are here.
    pub role: OidcRole,
}

/// Where to send a browser, and what to keep until it is back.
pub struct Outset {
    /// The provider's page.
    pub url: String,
    /// Comes back in the address.
    pub state: String,
    /// Comes back in the ID token.
    pub nonce: String,
    /// Proves that who began it ends it.
    pub verifier: String,
}

type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// What the library doesn't know by name.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Others(Map<String, Value>);

impl openidconnect::AdditionalClaims for Others {}

/// An identity provider.
pub struct Oidc {
    /// How it is reached.
    pub settings: OidcSettings,
    http: reqwest::Client,
    known: Mutex<Option<(Instant, CoreProviderMetadata)>>,
}

impl Oidc {
    /// Nothing is asked of the provider yet.
    pub fn new(settings: OidcSettings) -> Result<Self, reqwest::Error> {
        // Fails only when a provider is there already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            // A redirect could lead a code or a token to somebody else.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("picloud/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            settings,
            http,
            known: Mutex::default(),
        })
    }

    async fn metadata(&self, anew: bool) -> Result<CoreProviderMetadata, OidcError> {
        let mut known = self.known.lock().await;
        let fresh = known
            .as_ref()
            .filter(|(at, _)| !anew && at.elapsed() < FRESH);
        if let Some((_, metadata)) = fresh {
            return Ok(metadata.clone());
        }
        let provider = |error: String| OidcError::Provider(error);
        let issuer = IssuerUrl::new(self.settings.issuer.clone())
            .map_err(|error| provider(error.to_string()))?;
        let send = |request| send(self.http.clone(), request);
        let found = CoreProviderMetadata::discover_async(issuer, &send)
            .await
            .map_err(|error| provider(chain(&error)))?;
        *known = Some((Instant::now(), found.clone()));
        Ok(found)
    }

    async fn client(&self, redirect: &str, anew: bool) -> Result<Client, OidcError> {
        let metadata = self.metadata(anew).await?;
        let redirect = RedirectUrl::new(redirect.to_owned())
            .map_err(|error| OidcError::Provider(error.to_string()))?;
        let client = CoreClient::from_provider_metadata(
            metadata,
            ClientId::new(self.settings.client_id.clone()),
            self.settings.client_secret.clone().map(ClientSecret::new),
        );
        Ok(client.set_redirect_uri(redirect))
    }

    /// The way to the provider.
    pub async fn begin(&self, redirect: &str) -> Result<Outset, OidcError> {
        let client = self.client(redirect, false).await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut request = client
            .authorize_url(
                AuthenticationFlow::<CoreResponseType>::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .set_pkce_challenge(challenge);
        for scope in &self.settings.scopes {
            request = request.add_scope(OidcScope::new(scope.clone()));
        }
        let (url, state, nonce) = request.url();
        Ok(Outset {
            url: url.to_string(),
            state: state.secret().clone(),
            nonce: nonce.secret().clone(),
            verifier: verifier.secret().clone(),
        })
    }

    /// Who came back from it, by the code that they brought.
    pub async fn finish(
        &self,
        redirect: &str,
        code: String,
        nonce: String,
        verifier: String,
    ) -> Result<Person, OidcError> {
        // Keys may have been changed since: those that are known are not enough.
        let client = self.client(redirect, true).await?;
        let answer = |error: String| OidcError::Answer(error);
        let send = |request| send(self.http.clone(), request);
        let tokens = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| OidcError::Provider(error.to_string()))?
            .set_pkce_verifier(PkceCodeVerifier::new(verifier))
            .request_async(&send)
            .await
            .map_err(|error| answer(chain(&error)))?;
        let token = tokens
            .id_token()
            .ok_or_else(|| answer("it has no ID token".to_owned()))?;
        let claims = token
            .claims(&client.id_token_verifier(), &Nonce::new(nonce))
            .map_err(|error| answer(chain(&error)))?;
        let subject = claims.subject().clone();
        // The library verified the text; its claims are read whole, those that it doesn't know too.
        let mut all = payload(&token.to_string()).ok_or_else(|| answer("no claims".to_owned()))?;
        let asked = client.user_info(tokens.access_token().clone(), Some(subject.clone()));
        if let Ok(asked) = asked {
            let told: UserInfoClaims<Others, CoreGenderClaim> = asked
                .request_async(&send)
                .await
                .map_err(|error| answer(chain(&error)))?;
            let told = serde_json::to_value(&told).unwrap_or_default();
            for (name, value) in told.as_object().into_iter().flatten() {
                if !value.is_null() {
                    all.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        let subject = subject.to_string();
        let Some(role) = self.settings.role(&all) else {
            return Err(OidcError::NoRole { subject });
        };
        let text = |name: &str| {
            let value = all.get(name).and_then(Value::as_str);
            value.map(printable).filter(|text| !text.is_empty())
        };
        let email = text("email");
        let name = text("name")
            .or_else(|| text("preferred_username"))
            .or_else(|| email.clone());
        Ok(Person {
            name: name.unwrap_or_else(|| printable(&subject)),
            email,
            role,
            subject,
        })
    }
}

/// The claims of a token whose signature was verified.
fn payload(token: &str) -> Option<Map<String, Value>> {
    let part = token.split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// What is shown to people: on one line, and not without end.
fn printable(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control()).take(100);
    plain.collect::<String>().trim().to_owned()
}

/// An error with what is behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = next.source();
    }
    words
}

/// What goes wrong with a request.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("{0}")]
    Form(#[from] http::Error),
    #[error("the answer is larger than {MAX_ANSWER} bytes")]
    TooLarge,
}

async fn send(http: reqwest::Client, request: HttpRequest) -> Result<HttpResponse, SendError> {
    let mut answer = http.execute(request.try_into()?).await?;
    let mut made = http::Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        made = made.header(name, value);
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(SendError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(made.body(body)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(claim: &str, roles: &[(OidcRole, &str)]) -> OidcSettings {
        let mut map: BTreeMap<OidcRole, Vec<String>> = BTreeMap::new();
        for (role, value) in roles {
            map.entry(*role).or_default().push((*value).to_owned());
        }
        OidcSettings {
            issuer: "https://id.example.com".to_owned(),
            client_id: "picloud".to_owned(),
            client_secret: None,
            name: "Example".to_owned(),
            scopes: Vec::new(),
            claim: claim.to_owned(),
            roles: map,
            session: Duration::from_hours(12),
        }
    }

    #[test]
    fn claims_make_roles_and_the_highest_counts() {
        use OidcRole::{Admin, Operator, Viewer};
        let roles = [(Viewer, "staff"), (Operator, "ops"), (Admin, "root")];
        for (claim, claims, expected) in [
            ("groups", json!({ "groups": ["staff"] }), Some(Viewer)),
            (
                "groups",
                json!({ "groups": ["staff", "root", "ops"] }),
                Some(Admin),
            ),
            ("groups", json!({ "groups": "ops" }), Some(Operator)),
            (
                "groups",
                json!({ "groups": ["roots", "Staff", 1, null] }),
                None,
            ),
            ("groups", json!({ "roles": ["root"] }), None),
            ("groups", json!({ "groups": { "root": true } }), None),
            (
                "realm_access.roles",
                json!({ "realm_access": { "roles": ["ops"] } }),
                Some(Operator),
            ),
            (
                "https://x.example/roles",
                json!({ "https://x.example/roles": ["ops"] }),
                Some(Operator),
            ),
        ] {
            let claims = claims.as_object().expect("an object").clone();
            let found = settings(claim, &roles).role(&claims);
            assert_eq!(found, expected, "{claim}: {claims:?}");
        }
        let anyone = settings("groups", &[(Viewer, "*"), (Admin, "root")]);
        assert_eq!(anyone.role(&Map::new()), Some(Viewer));
        assert_eq!(settings("groups", &[]).role(&Map::new()), None);
    }

    #[test]
    fn settings_do_not_show_their_secret() {
        let mut settings = settings("groups", &[]);
        settings.client_secret = Some("hush".to_owned());
        assert!(!format!("{settings:?}").contains("hush"));
    }
}
