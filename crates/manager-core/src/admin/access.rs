//! Who asks, and whether they may: a handler names what it does in its type, and gets no caller
//! who may not.

use std::{collections::HashMap, marker::PhantomData, sync::Arc};

use axum::{
    extract::{FromRequestParts, RawPathParams, State},
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
};
use chrono::{DateTime, Utc};
use picloud_shared::{AppName, Capability, KeyGrant, Peer, Scope};
use picloud_store::keys::KeyRecord;

use super::{
    AdminState,
    answer::{Answer, Problem},
    session,
};
use crate::keys;

/// What a handler does.
pub(super) trait Needs: Send + Sync + 'static {
    const CAPABILITY: Capability;
    /// Whether the key of one app may ask; it then sees and touches that app alone.
    const OF_ONE_APP: bool = true;
    /// Whether the body is JSON, where there is one.
    const JSON: bool = true;
}

macro_rules! needs {
    ($($name:ident $one:literal),*) => {
        $(
            pub(super) struct $name;
            impl Needs for $name {
                const CAPABILITY: Capability = Capability::$name;
                const OF_ONE_APP: bool = $one;
            }
        )*
    };
}

needs!(AppView true, SourceView true, SourceSync false, SourceManage false, DeploymentView true, RunView true, KeyManage true, TriggerManage true, TriggerFire true, DeadLetterView true, DeadLetterManage true, RunReplay true, AppInvoke true, DriftView true, DriftHeal true, AuditView false, StatsView true, EventsView true, InstanceView true);

pub(super) struct PeopleManage;

impl Needs for PeopleManage {
    const CAPABILITY: Capability = Capability::KeyManage;
    // People are of the instance.
    const OF_ONE_APP: bool = false;
}

pub(super) struct PlanCreate;

impl Needs for PlanCreate {
    const CAPABILITY: Capability = Capability::PlanCreate;
    // A tar, most often.
    const JSON: bool = false;
}

/// What is needed to call a handler, as its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing.
    Anyone,
    /// A key, whatever its scopes.
    AnyKey,
    /// A key with this scope.
    Scope {
        scope: Scope,
        /// Whether the key of one app may ask.
        of_one_app: bool,
    },
}

/// A handler whose arguments say who may call it: [`State`], then [`Authorized`], [`Caller`] or
/// [`Anyone`]. What has none of them is no handler of the admin API, and doesn't compile as one.
pub(super) trait Guarded {
    const ACCESS: Access;
}

/// An argument that says who may call.
pub(super) trait Guard {
    const ACCESS: Access;
}

impl<N: Needs> Guard for Authorized<N> {
    const ACCESS: Access = Access::Scope {
        scope: N::CAPABILITY.scope(),
        of_one_app: N::OF_ONE_APP,
    };
}

impl Guard for Caller {
    const ACCESS: Access = Access::AnyKey;
}

impl Guard for Anyone {
    const ACCESS: Access = Access::Anyone;
}

macro_rules! guarded {
    ($($argument:ident)*) => {
        impl<M, G: Guard, $($argument),*> Guarded for (M, State<AdminState>, G, $($argument,)*) {
            const ACCESS: Access = G::ACCESS;
        }
    };
}

guarded!();
guarded!(A);
guarded!(A B);
guarded!(A B C);
guarded!(A B C D);
guarded!(A B C D E);

/// Anybody: for what needs no key.
pub(super) struct Anyone {
    /// Where they are.
    pub(super) peer: Option<Peer>,
}

impl FromRequestParts<AdminState> for Anyone {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AdminState) -> Result<Self, Problem> {
        refuse_foreign_origin(parts)?;
        refuse_strange_text(parts)?;
        Ok(Self {
            peer: parts.extensions.get().copied(),
        })
    }
}

/// Somebody whose key is valid, or anybody else: for what may be asked before one signs in.
pub(super) struct MaybeCaller(pub(super) Option<Caller>);

impl Guard for MaybeCaller {
    const ACCESS: Access = Access::Anyone;
}

impl FromRequestParts<AdminState> for MaybeCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Problem> {
        match Caller::from_request_parts(parts, state).await {
            Ok(caller) => Ok(Self(Some(caller))),
            Err(problem) if problem.is_unauthorized() => Ok(Self(None)),
            Err(problem) => Err(problem),
        }
    }
}

/// Somebody whose key is valid.
pub(super) struct Caller {
    pub(super) record: KeyRecord,
    /// Of who came with the session's cookie.
    pub(super) session: Option<OpenSession>,
}

/// A session that a request came with.
#[derive(Debug, Clone)]
pub(super) struct OpenSession {
    /// By which it is found.
    pub(super) hash: [u8; 32],
    /// What a write must bring.
    pub(super) csrf: String,
    /// When it ends by itself.
    pub(super) expires_at: DateTime<Utc>,
}

impl Caller {
    /// When what the caller came with ends by itself.
    pub(super) fn ends_at(&self) -> Option<DateTime<Utc>> {
        let session = self.session.as_ref().map(|session| session.expires_at);
        match (self.record.expires_at, session) {
            (Some(key), Some(session)) => Some(key.min(session)),
            (key, session) => key.or(session),
        }
    }
}

impl FromRequestParts<AdminState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Problem> {
        let caller = match parts.headers.get(header::AUTHORIZATION) {
            Some(value) => Self::by_key(value.to_str().ok(), state).await?,
            None => Self::by_session(parts, state).await?,
        };
        refuse_strange_text(parts)?;
        Ok(caller)
    }
}

impl Caller {
    async fn by_key(value: Option<&str>, state: &AdminState) -> Answer<Self> {
        let (scheme, key) = value
            .and_then(|value| value.split_once(' '))
            .ok_or_else(Problem::unauthorized)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Problem::unauthorized());
        }
        let record = state
            .store
            .use_key(&keys::hash(key.trim()), state.clock.now())
            .await?;
        let record = record.ok_or_else(Problem::unauthorized)?;
        Ok(Self {
            record,
            session: None,
        })
    }

    async fn by_session(parts: &Parts, state: &AdminState) -> Answer<Self> {
        let token = session::token(&parts.headers).ok_or_else(Problem::unauthorized)?;
        let hash = keys::hash(&token);
        let found = state.store.use_session(&hash, state.clock.now()).await?;
        let found = found.ok_or_else(Problem::unauthorized)?;
        let csrf = session::csrf(&token);
        if is_write(&parts.method) {
            // A browser sends the cookie by itself; only our own page knows the token.
            if !has_own_origin(&parts.headers) {
                let detail = "a write by session must come from the server's own origin";
                return Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "foreign_origin",
                    detail,
                ));
            }
            let given = parts.headers.get("x-csrf-token");
            if !given.is_some_and(|given| session::same(given.as_bytes(), csrf.as_bytes())) {
                let detail =
                    "a write by session needs the header X-CSRF-Token, from /session or /me";
                return Err(Problem::new(StatusCode::FORBIDDEN, "csrf", detail));
            }
        }
        Ok(Self {
            record: found.key,
            session: Some(OpenSession {
                hash,
                csrf,
                expires_at: found.expires_at,
            }),
        })
    }
}

fn is_write(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a browser says that the request comes from a page of this server.
fn has_own_origin(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let Some((_, origin)) = text(header::ORIGIN).and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    let own = text(header::HOST).is_some_and(|host| host.eq_ignore_ascii_case(origin));
    let site = headers.get("sec-fetch-site");
    own && site.is_none_or(|site| site.as_bytes() == b"same-origin")
}

/// A page of elsewhere must not log a browser in.
fn refuse_foreign_origin(parts: &Parts) -> Answer<()> {
    let named = parts.headers.contains_key(header::ORIGIN);
    if is_write(&parts.method) && named && !has_own_origin(&parts.headers) {
        let detail = "the request comes from a page of another origin";
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            detail,
        ));
    }
    Ok(())
}

/// PostgreSQL's text cannot hold U+0000, and nothing that exists has it in its name.
fn refuse_strange_text(parts: &Parts) -> Answer<()> {
    if parts.uri.path().contains("%00") {
        return Err(Problem::not_found("page or endpoint"));
    }
    if parts.uri.query().is_some_and(|query| query.contains("%00")) {
        return Err(Problem::invalid("the query holds a NUL character"));
    }
    Ok(())
}

/// A body of another type than is read here. What names none, or what curl names by itself, is
/// read as JSON.
fn refuse_other_types(headers: &HeaderMap) -> Answer<()> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let kind = value.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    let json = kind == "application/json" || kind.ends_with("+json");
    if json || kind == "application/x-www-form-urlencoded" {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "the body must be application/json",
    ))
}

/// Somebody who may do what `N` says, to the app that the path names, if it names one.
pub(super) struct Authorized<N> {
    pub(super) grant: Arc<KeyGrant>,
    /// The app that the path names, by name or id.
    pub(super) app: Option<String>,
    /// When what they came with ends by itself.
    pub(super) ends_at: Option<DateTime<Utc>>,
    /// The session that they came with.
    pub(super) session: Option<[u8; 32]>,
    needs: PhantomData<N>,
}

impl<N> Authorized<N> {
    /// The only app that the caller may see; `None`: all.
    pub(super) fn only(&self) -> Option<&AppName> {
        self.grant.app.as_ref().map(|(_, name)| name)
    }

    /// Whether the caller may see this app.
    pub(super) fn sees(&self, app: &AppName) -> bool {
        self.only().is_none_or(|only| only == app)
    }
}

impl<N: Needs> Authorized<N> {
    /// The app that a list is asked for, by name or id; that of the caller where they have but one.
    /// The outer `None` is an app that isn't known, whose lists are empty.
    pub(super) async fn app_filter(
        &self,
        state: &AdminState,
        asked: Option<&str>,
    ) -> Answer<Option<Option<AppName>>> {
        match (&self.grant.app, asked) {
            (None, None) => Ok(Some(None)),
            (Some((_, own)), None) => Ok(Some(Some(own.clone()))),
            (Some((id, own)), Some(asked)) => {
                if asked == own.as_str() || asked == id.to_string() {
                    Ok(Some(Some(own.clone())))
                } else {
                    Err(Problem::forbidden(N::CAPABILITY.scope().as_str()))
                }
            }
            (None, Some(asked)) => {
                if let Ok(id) = asked.parse() {
                    return Ok(state.store.app_name(id).await?.map(Some));
                }
                let name: Result<AppName, _> = asked.parse();
                let name = name.map_err(|_| Problem::invalid("app must be an app's name or id"))?;
                Ok(Some(Some(name)))
            }
        }
    }
}

impl<N: Needs> FromRequestParts<AdminState> for Authorized<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let params = RawPathParams::from_request_parts(parts, state).await;
        let mut params: HashMap<String, String> = params
            .map(|params| {
                params
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect()
            })
            .unwrap_or_default();
        let ends_at = caller.ends_at();
        let session = caller.session.map(|session| session.hash);
        let grant = Arc::new(caller.record.grant);
        let own = grant.app.as_ref();
        let reached = match (own, params.get("app")) {
            (None, _) => true,
            (Some((id, name)), Some(asked)) => *asked == id.to_string() || asked == name.as_str(),
            (Some(_), None) => N::OF_ONE_APP,
        };
        let in_scope = grant.allows(N::CAPABILITY, own.map(|(_, name)| name));
        if !in_scope || !reached {
            return Err(Problem::forbidden(N::CAPABILITY.scope().as_str()));
        }
        if N::JSON && is_write(&parts.method) {
            refuse_other_types(&parts.headers)?;
        }
        Ok(Self {
            grant,
            app: params.remove("app"),
            ends_at,
            session,
            needs: PhantomData,
        })
    }
}
