//! Who may do what: one table from capability to scope.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AppId, KeyId},
    names::AppName,
};

/// What a key may be given. The list is closed: the contract names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// See apps, deployments, drift.
    #[serde(rename = "app:read")]
    AppRead,
    /// Call endpoints with `auth: key`, invoke scripts.
    #[serde(rename = "app:invoke")]
    AppInvoke,
    /// Change scripts; what scripts may do on the network.
    #[serde(rename = "script:write")]
    ScriptWrite,
    /// Create, change, delete and fire triggers.
    #[serde(rename = "trigger:write")]
    TriggerWrite,
    /// Change secrets.
    #[serde(rename = "secret:write")]
    SecretWrite,
    /// Push, sync, suspend, roll back, approve, heal.
    #[serde(rename = "sync:write")]
    SyncWrite,
    /// See runs, logs, dead letters, statistics.
    #[serde(rename = "run:read")]
    RunRead,
    /// Create and revoke keys.
    #[serde(rename = "key:write")]
    KeyWrite,
    /// Everything.
    #[serde(rename = "instance:admin")]
    InstanceAdmin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::AppRead,
        Self::AppInvoke,
        Self::ScriptWrite,
        Self::TriggerWrite,
        Self::SecretWrite,
        Self::SyncWrite,
        Self::RunRead,
        Self::KeyWrite,
        Self::InstanceAdmin,
    ];

    /// The word that stands in the API and in PostgreSQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AppRead => "app:read",
            Self::AppInvoke => "app:invoke",
            Self::ScriptWrite => "script:write",
            Self::TriggerWrite => "trigger:write",
            Self::SecretWrite => "secret:write",
            Self::SyncWrite => "sync:write",
            Self::RunRead => "run:read",
            Self::KeyWrite => "key:write",
            Self::InstanceAdmin => "instance:admin",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }
}

/// What an operation does. Each maps onto one scope; handlers and services name a capability,
/// never a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Capability {
    AppView,
    AppInvoke,
    /// A script's outgoing request, on behalf of a key.
    AppHttpRequest,
    /// A script's kv and docs, on behalf of a key.
    AppDataAccess,
    /// A script's secrets, on behalf of a key.
    AppSecretRead,
    DeploymentView,
    SourceView,
    SourceManage,
    SourceSync,
    PlanCreate,
    DriftView,
    DriftHeal,
    TriggerManage,
    TriggerFire,
    RunView,
    RunReplay,
    DeadLetterView,
    DeadLetterManage,
    StatsView,
    EventsView,
    KeyManage,
    AuditView,
    InstanceView,
}

impl Capability {
    /// The one table.
    pub const fn scope(self) -> Scope {
        match self {
            Self::AppView
            | Self::DeploymentView
            | Self::SourceView
            | Self::PlanCreate
            | Self::DriftView
            | Self::EventsView
            | Self::InstanceView => Scope::AppRead,
            // Who may call a script may let it use its own data; reaching other hosts is more.
            Self::AppInvoke | Self::AppDataAccess | Self::AppSecretRead => Scope::AppInvoke,
            Self::AppHttpRequest => Scope::ScriptWrite,
            Self::SourceSync | Self::DriftHeal => Scope::SyncWrite,
            Self::TriggerManage | Self::TriggerFire => Scope::TriggerWrite,
            Self::RunView | Self::DeadLetterView | Self::StatsView => Scope::RunRead,
            Self::RunReplay | Self::DeadLetterManage => Scope::AppInvoke,
            Self::KeyManage => Scope::KeyWrite,
            Self::SourceManage | Self::AuditView => Scope::InstanceAdmin,
        }
    }
}

/// What a key may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyGrant {
    /// The key.
    pub id: KeyId,
    /// Its name, for people and the audit log.
    pub name: String,
    /// What it was given.
    pub scopes: Vec<Scope>,
    /// The only app that it may touch; `None`: all.
    pub app: Option<(AppId, AppName)>,
}

impl KeyGrant {
    /// Whether the key may do this, to this app (`None`: to the whole instance).
    pub fn allows(&self, capability: Capability, app: Option<&AppName>) -> bool {
        let scope = capability.scope();
        let in_scope = self
            .scopes
            .iter()
            .any(|held| *held == scope || *held == Scope::InstanceAdmin);
        let in_reach = match (&self.app, app) {
            (None, _) => true,
            (Some((_, own)), Some(asked)) => own == asked,
            (Some(_), None) => false,
        };
        in_scope && in_reach
    }
}

/// On whose behalf a run acts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Principal {
    /// An anonymous request or an event: the run acts for its app.
    #[default]
    App,
    /// A key: the run may do what the key may.
    Key(std::sync::Arc<KeyGrant>),
}
