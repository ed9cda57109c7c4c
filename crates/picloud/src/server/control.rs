//! The control plane of a node: sources, hosted repositories, webhooks, drift, and the admin API.

use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use picloud_manager_core::{
    AdminState, DriftWatch, HostingState, oidc::Oidc, previews::Previews, pulls::Pulls, signals,
    webhooks::WebhookState,
};
use picloud_orchestrator_core::Direct;
use picloud_shared::EventSink;
use tokio::sync::watch;

use super::{NamedSource, Server, hook_socket, keep_house, name_source, node::Node};
use crate::{config::ServerConfig, dashboard, data_dir::DataDir, deliver::HttpDelivery};

impl Server {
    /// Starts the control plane; gives what it answers.
    pub(super) async fn control(
        &mut self,
        node: &Node,
        config: &ServerConfig,
        data: &DataDir,
        source: Option<&NamedSource>,
    ) -> Result<Router> {
        let (store, clock, sources) = (
            || node.store.clone(),
            || Arc::clone(&node.clock),
            Arc::clone(&self.sources),
        );
        let sources = || Arc::clone(&sources);
        let events = || Arc::clone(&node.events);
        let (access_changed, access) = watch::channel(0);
        let heard = signals::listen(store(), events(), access_changed);
        self.following.push(tokio::spawn(heard));
        let firing = picloud_manager_core::cron::run(store(), clock());
        self.following.push(tokio::spawn(firing));
        self.following.push(tokio::spawn(keep_house(
            store(),
            clock(),
            config.history_days,
        )));
        let deliver = Arc::new(HttpDelivery::new(node.keys.clone())?);
        let notifier = &node.notifier;
        self.following
            .push(tokio::spawn(Arc::clone(notifier).run(deliver)));
        seal_sources(node).await;
        if let Some(source) = source {
            self.named = Some(name_source(&self.sources, &node.clock, data, source).await?);
        }
        self.sources
            .open()
            .await
            .context("the sources cannot be read")?;
        let previews = Previews::new(store(), clock(), sources());
        let pulls = Pulls::new(store(), clock(), sources(), Arc::clone(&previews));
        let drift = DriftWatch::new(
            store(),
            clock(),
            Arc::clone(&previews),
            Arc::clone(&node.events) as Arc<dyn EventSink>,
        );
        self.following
            .push(tokio::spawn(Arc::clone(&previews).run()));
        self.following.push(tokio::spawn(Arc::clone(&pulls).run()));
        self.following.push(tokio::spawn(Arc::clone(&drift).run()));
        let followed = Arc::clone(notifier).follow_drift(events(), Arc::clone(&drift));
        self.following.push(tokio::spawn(followed));
        let git = self.hosting(node, data, &previews).await?;
        let hooks = picloud_manager_core::webhooks::router(WebhookState::new(
            store(),
            clock(),
            sources(),
            (Arc::clone(&pulls), Arc::clone(&previews)),
            config.webhook_max_body,
        ));
        let admin = picloud_manager_core::router(AdminState {
            store: store(),
            clock: clock(),
            direct: Arc::new(Direct {
                holder: Arc::clone(&node.holder),
                executor: Arc::clone(&node.executor),
                recorder: Arc::clone(&node.recorder),
                clock: clock(),
            }),
            sources: sources(),
            previews,
            pulls,
            drift,
            events: events(),
            served: node.holder.watch(),
            oidc: match &config.oidc {
                Some(settings) => {
                    let oidc = Oidc::new(settings.clone());
                    Some(Arc::new(
                        oidc.context("the identity provider cannot be asked")?,
                    ))
                }
                None => None,
            },
            version: env!("CARGO_PKG_VERSION"),
            recipient: node.keys.recipient(),
            secrets: node.secrets_in(),
            owns_domain: {
                let holder = Arc::clone(&node.holder);
                let below = format!(".{}", config.base_domain);
                Arc::new(move |host| {
                    let served = holder.served();
                    let app = host.strip_suffix(&below);
                    served.owns_domain(host) || app.is_some_and(|app| served.serves(app))
                })
            },
            started_at: node.started_at,
            access,
            stop: node.stopped.clone(),
            kept: Arc::default(),
        });
        Ok(admin.merge(git).merge(hooks).merge(dashboard::router()))
    }

    /// Hosted repositories, and the hooks that git runs in them.
    async fn hosting(
        &self,
        node: &Node,
        data: &DataDir,
        previews: &Arc<Previews>,
    ) -> Result<Router> {
        let hosting = HostingState {
            previews: Arc::clone(previews),
            store: node.store.clone(),
            clock: Arc::clone(&node.clock),
            sources: Arc::clone(&self.sources),
            socket: hook_socket(data),
            hooks: data.path().join("git/hooks"),
        };
        let program = std::env::current_exe().context("cannot find the program itself")?;
        picloud_manager_core::hosting::listen(hosting.clone(), &program)
            .await
            .context("hosted repositories cannot be served")?;
        Ok(picloud_manager_core::hosting::router(hosting))
    }
}

/// Tokens and secrets that another key sealed, or none, are sealed to the current one.
async fn seal_sources(node: &Node) {
    match node.store.seal_sources().await {
        Ok(0) => {}
        Ok(sources) => tracing::info!(
            sources,
            "tokens and secrets of sources are sealed to the current key"
        ),
        Err(error) => tracing::error!(%error, "tokens and secrets of sources cannot be sealed"),
    }
}
