//! Who asks, and whether they may: a handler names what it does in its type, and gets no caller
//! who may not.

use std::{collections::HashMap, marker::PhantomData, sync::Arc};

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::{header, request::Parts},
};
use picloud_shared::{AppName, Capability, KeyGrant};
use picloud_store::keys::KeyRecord;

use super::{AdminState, answer::Problem};
use crate::keys;

/// What a handler does.
pub(super) trait Needs: Send + Sync {
    const CAPABILITY: Capability;
    /// Whether the list may be asked for by the key of one app, which then sees that app alone.
    const OF_ONE_APP: bool = true;
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

needs!(AppView true, SourceView true, SourceSync false, SourceManage false, DeploymentView true, PlanCreate true, RunView true, KeyManage true, TriggerManage true, TriggerFire true, DeadLetterView true, DeadLetterManage true, RunReplay true, AppInvoke true, DriftView true, DriftHeal true, AuditView false, StatsView true, EventsView true);

/// Somebody whose key is valid.
pub(super) struct Caller(pub(super) KeyRecord);

impl FromRequestParts<AdminState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Problem> {
        let value = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
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
        record.map(Caller).ok_or_else(Problem::unauthorized)
    }
}

/// Somebody who may do what `N` says, to the app that the path names, if it names one.
pub(super) struct Authorized<N> {
    pub(super) grant: Arc<KeyGrant>,
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

impl<N: Needs> FromRequestParts<AdminState> for Authorized<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Problem> {
        let Caller(record) = Caller::from_request_parts(parts, state).await?;
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params: HashMap<String, String> = params
            .map(|params| {
                params
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect()
            })
            .unwrap_or_default();
        let grant = Arc::new(record.grant);
        let refused = || Problem::forbidden(N::CAPABILITY.scope().as_str());
        let own = grant.app.as_ref();
        let reached = match (own, params.get("app")) {
            (None, _) => true,
            (Some((id, name)), Some(asked)) => *asked == id.to_string() || asked == name.as_str(),
            (Some(_), None) => N::OF_ONE_APP,
        };
        let in_scope = grant.allows(N::CAPABILITY, own.map(|(_, name)| name));
        if !in_scope || !reached {
            return Err(refused());
        }
        Ok(Self {
            grant,
            needs: PhantomData,
        })
    }
}
