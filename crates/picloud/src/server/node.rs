//! What the parts of a node share.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use picloud_executor_core::RhaiChecker;
use picloud_manager_core::{DeployerOptions, EventHub, Former, Notifier, Probe, events::Told};
use picloud_orchestrator_core::{
    DevNotes, Dispatcher, Ingress, IngressOptions, LogTap, Pending, Recorder, RecorderOptions,
    SecretsOf, SnapshotHolder, Tapped,
};
use picloud_services::{AddressGuard, HttpOutcomes, SecretKeys, SecretsServiceImpl};
use picloud_shared::{
    AppSpec, Clock, EventSink, Executor, Redactor, SystemClock, executor::FormerApps,
};
use picloud_store::Store;
use tokio::sync::{broadcast, mpsc, watch};

use super::{CONNECTIONS, LateRouter, MAX_RUNS, Server, executor, secret_keys, store_options};
use crate::{config::ServerConfig, data_dir::DataDir, probe::LoopbackProbe};

/// What the parts of a node share.
pub(super) struct Node {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) started_at: DateTime<Utc>,
    pub(super) store: Store,
    pub(super) events: Arc<EventHub>,
    pub(super) holder: Arc<SnapshotHolder>,
    pub(super) keys: SecretKeys,
    secrets: Arc<SecretsServiceImpl>,
    outgoing: Arc<HttpOutcomes>,
    pub(super) executor: Arc<dyn Executor>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) notifier: Arc<Notifier>,
    pub(super) stopped: watch::Receiver<bool>,
}

/// What is on its way from a node's parts.
pub(super) struct Ends {
    /// Events, to other processes.
    pub(super) outward: mpsc::Receiver<Told>,
    /// Records and counts of runs, to the database.
    pub(super) pending: Pending,
    /// Lines of running runs, to who listens.
    pub(super) logs: (Arc<LogTap>, Tapped),
}

impl Node {
    /// All of it, asking nothing of the database yet; what is on its way from it, and what stops
    /// it.
    pub(super) fn new(
        config: &ServerConfig,
        data: &DataDir,
        database_url: &str,
    ) -> Result<(Self, Ends, watch::Sender<bool>)> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (events, outward) = EventHub::new(Arc::clone(&clock));
        let keys = secret_keys(config, data)?;
        let store = Store::connect_lazy(database_url, store_options(CONNECTIONS))
            .context("DATABASE_URL")?
            .sealed_by(Arc::new(keys.clone()));
        let secrets = Arc::new(SecretsServiceImpl::new(keys.clone()));
        let guard = AddressGuard {
            allow_private: config.http_allow_private,
        };
        if guard.allow_private {
            tracing::warn!("PICLOUD_HTTP_ALLOW_PRIVATE is set: scripts reach private addresses");
        }
        let (mut services, outgoing) =
            picloud_services::services(&store, &clock, &secrets, guard, env!("CARGO_PKG_VERSION"));
        let (recorder, pending) = Recorder::new(
            RecorderOptions {
                successes_a_second: config.record_rate,
                ..RecorderOptions::default()
            },
            Arc::clone(&clock),
            Arc::clone(&events) as Arc<dyn EventSink>,
            secrets_of(&secrets),
        );
        let (tap, tapped) = LogTap::new(&recorder);
        services.live_logs = Some(Arc::clone(&tap) as _);
        let (stop, stopped) = watch::channel(false);
        let node = Self {
            started_at: clock.now(),
            holder: Arc::new(SnapshotHolder::open(Some(data.path().join("snapshot")))),
            executor: executor(config, services, &clock)?,
            notifier: Notifier::new(store.clone(), Arc::clone(&clock)),
            clock,
            store,
            events,
            keys,
            secrets,
            outgoing,
            recorder,
            stopped,
        };
        let ends = Ends {
            outward,
            pending,
            logs: (tap, tapped),
        };
        Ok((node, ends, stop))
    }

    /// What takes an app's secrets out of texts.
    pub(super) fn secrets_of(&self) -> SecretsOf {
        secrets_of(&self.secrets)
    }

    /// The same for what is shown of events, by the app's declaration.
    pub(super) fn secrets_in(&self) -> Arc<dyn Fn(&AppSpec) -> Redactor + Send + Sync> {
        let secrets = Arc::clone(&self.secrets);
        Arc::new(move |app| all_secrets(&secrets, app).for_strangers())
    }

    /// The front.
    pub(super) fn ingress(
        &self,
        config: &ServerConfig,
        data: &DataDir,
        late: &Arc<LateRouter>,
        dev: Option<Arc<DevNotes>>,
    ) -> Arc<Ingress> {
        Ingress::new(IngressOptions {
            base_domain: config.base_domain.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            holder: Arc::clone(&self.holder),
            executor: Arc::clone(&self.executor),
            recorder: Arc::clone(&self.recorder),
            store: self.store.clone(),
            static_dir: data.path().join("static"),
            platform: late.router(),
            clock: Arc::clone(&self.clock),
            max_runs: MAX_RUNS,
            outgoing: {
                let outgoing = Arc::clone(&self.outgoing);
                Arc::new(move || outgoing.all())
            },
            serves_apps: config.roles.orchestrator,
            dev,
            secrets: {
                let secrets = Arc::clone(&self.secrets);
                Arc::new(move |spec, name| secrets.of(spec, name))
            },
        })
    }

    /// What deploys.
    pub(super) fn deployer_options(
        &self,
        config: &ServerConfig,
        address: SocketAddr,
    ) -> Result<DeployerOptions> {
        let probe: Option<Arc<dyn Probe>> = if config.roles.orchestrator {
            Some(Arc::new(LoopbackProbe::new(address)?))
        } else {
            None
        };
        Ok(DeployerOptions {
            store: self.store.clone(),
            clock: Arc::clone(&self.clock),
            checker: Arc::new(RhaiChecker::new()),
            secrets: Some(Arc::new(self.keys.clone())),
            served: self.holder.watch(),
            finished: broadcast::channel(256).0,
            events: Arc::clone(&self.events) as Arc<dyn EventSink>,
            probe,
            signers: Arc::new(config.signers.clone()),
            looked: Arc::default(),
        })
    }

    /// What runs events.
    pub(super) fn dispatcher(&self, config: &ServerConfig, server: &Server) -> Arc<Dispatcher> {
        let former = || Arc::new(Former(Arc::clone(&server.sources))) as Arc<dyn FormerApps>;
        Arc::new(Dispatcher {
            store: self.store.clone(),
            holder: Arc::clone(&self.holder),
            executor: Arc::clone(&self.executor),
            recorder: Arc::clone(&self.recorder),
            former: config.roles.manager.then(former),
            clock: Arc::clone(&self.clock),
            node: server.node,
        })
    }
}

fn secrets_of(secrets: &Arc<SecretsServiceImpl>) -> SecretsOf {
    let secrets = Arc::clone(secrets);
    Arc::new(move |app| all_secrets(&secrets, &app.spec))
}

fn all_secrets(secrets: &SecretsServiceImpl, app: &AppSpec) -> Redactor {
    let mut redactor = Redactor::default();
    for name in app.secrets.keys() {
        // One that cannot be opened is no script's either, and was logged.
        if let Some(value) = secrets.of(app, name) {
            redactor.learn(&value);
        }
    }
    redactor
}
