//! Wiring: all rooms in one process.

mod control;
mod node;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use picloud_executor_core::InProcessExecutor;
use picloud_executor_process::{ProcessExecutor, ProcessOptions};
use picloud_manager_core::{
    Deployer, Finished, Sources, git::LocalPath, keys, signals, work_tree::WorkTree,
};
use picloud_orchestrator_core::{DevNotes, Ingress, Recorder, SnapshotHolder};
use picloud_services::SecretKeys;
use picloud_shared::{
    Clock, Executor, KeyId, NodeId, Scope, SourceId, plan::LiveVersion, sdk::Services,
};
use picloud_store::{
    SourceKind, SourceRecord, Store, StoreOptions, keys::NewKey, nodes::NodeRecord,
};
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
    task::JoinHandle,
};

use crate::{
    cli::ExecutorMode,
    client::{RUNNING_FILE, RunningServer},
    config::ServerConfig,
    data_dir::{DataDir, write_private},
    heartbeat,
};
use node::{Ends, Node};

/// Stack of each thread that may run a script: address space, of which only what a deeply nested
/// value touches becomes memory.
pub const STACK: usize = picloud_executor_core::STACK;
/// Runs at the same time over all apps.
const MAX_RUNS: u32 = 256;
/// Processes that run scripts at the same time.
const MAX_PROCESSES: usize = 64;
/// Connections to the database.
const CONNECTIONS: u32 = 16;
/// How long the data of pruned apps is kept.
const PRUNED_DAYS: i64 = 30;
/// How many days runs are counted by the minute; by the hour from then on.
const MINUTES_KEPT: i64 = 3;

/// How a process speaks to the database.
pub fn store_options(max_connections: u32) -> StoreOptions {
    StoreOptions {
        max_connections,
        acquire_timeout: Duration::from_secs(3),
    }
}

/// A server that runs.
pub struct Server {
    /// Where it answers.
    pub url: String,
    /// What it deploys from.
    pub sources: Arc<Sources>,
    /// The source that the command line named.
    pub named: Option<Arc<Deployer>>,
    /// Runs that did not end well, as they come.
    pub recorder: Arc<Recorder>,
    /// What is served.
    pub holder: Arc<SnapshotHolder>,
    node: NodeId,
    stop: watch::Sender<bool>,
    running: Vec<JoinHandle<()>>,
    /// Writes the records of runs, until those that were open when the server stopped have ended.
    recording: Option<(watch::Sender<bool>, JoinHandle<()>)>,
    following: Vec<JoinHandle<()>>,
    store: Store,
    running_file: PathBuf,
}

/// Under `picloud dev`: what is wrong with the saved files is told at the endpoints, too.
async fn tell_mistakes(notes: Arc<DevNotes>, mut finished: broadcast::Receiver<Finished>) {
    use broadcast::error::RecvError;
    loop {
        match finished.recv().await {
            Ok(done) => notes.learn(&done.0),
            // The next one says all there is to say.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Counts what becomes of deployments, for the metrics.
async fn count_deployments(ingress: Arc<Ingress>, mut finished: broadcast::Receiver<Finished>) {
    use broadcast::error::RecvError;
    loop {
        match finished.recv().await {
            Ok(done) => ingress.count_deployment(done.0.status),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// What a source is given as on the command line.
#[derive(Debug, Clone)]
pub enum NamedSource {
    /// The commits of a repository on this machine, or of a folder in one.
    Local {
        /// Where it is.
        path: PathBuf,
        /// `None`: the one that is checked out.
        branch: Option<String>,
    },
    /// The files of a folder as they are saved.
    WorkTree(PathBuf),
    /// A repository of ours, to be pushed to.
    Hosted,
}

/// The name of the hosted repository that `up` makes.
const HOSTED_NAME: &str = "default";

impl Server {
    /// Starts everything but the deployments. What was kept on disk is served at once, with or
    /// without the database.
    pub async fn start(
        config: &ServerConfig,
        data: &DataDir,
        database_url: &str,
        listener: std::net::TcpListener,
        source: Option<&NamedSource>,
        token: &str,
    ) -> Result<Self> {
        let (node, ends, stop) = Node::new(config, data, database_url)?;
        // Bound before anything waits: a kept snapshot answers while the database is asked.
        let listener = TcpListener::from_std(listener).context("cannot listen")?;
        let address = listener.local_addr().context("cannot listen")?;
        let late = Arc::new(LateRouter::default());
        let dev = matches!(source, Some(NamedSource::WorkTree(_))).then(Arc::<DevNotes>::default);
        let ingress = node.ingress(config, data, &late, dev.clone());
        let serving =
            picloud_orchestrator_core::serve(listener, Arc::clone(&ingress), node.stopped.clone());
        let mut server = Self {
            url: format!("http://{address}"),
            sources: Sources::new(
                node.deployer_options(config, address)?,
                data.path().to_owned(),
            ),
            named: None,
            recorder: Arc::clone(&node.recorder),
            holder: Arc::clone(&node.holder),
            node: node_id(data, node.clock.as_ref())?,
            stop,
            running: vec![tokio::spawn(serving)],
            recording: None,
            following: Vec::new(),
            store: node.store.clone(),
            running_file: data.path().join(RUNNING_FILE),
        };
        migrate(&node.store).await?;
        insert_owner_key(&node.store, node.clock.as_ref(), token).await?;
        server.follow(&node, config, ends);
        if config.roles.executor {
            let dispatcher = node.dispatcher(config, &server);
            let running = dispatcher.run(node.stopped.clone());
            server.running.push(tokio::spawn(running));
        }
        let router = if config.roles.manager {
            if let Some(notes) = dev {
                let told = tell_mistakes(notes, server.sources.subscribe());
                server.following.push(tokio::spawn(told));
            }
            let counted = count_deployments(ingress, server.sources.subscribe());
            server.following.push(tokio::spawn(counted));
            server.control(&node, config, data, source).await?
        } else {
            axum::Router::new().fallback(no_manager)
        };
        late.set(router);
        Ok(server)
    }

    /// What every node does, whatever its roles.
    fn follow(&mut self, node: &Node, config: &ServerConfig, ends: Ends) {
        let Ends {
            outward,
            pending,
            logs: (tap, tapped),
        } = ends;
        let (store, events) = (|| node.store.clone(), || Arc::clone(&node.events));
        self.following
            .push(tokio::spawn(picloud_orchestrator_core::follow(
                store(),
                Arc::clone(&node.holder),
                Arc::clone(&node.executor),
            )));
        self.following
            .push(tokio::spawn(signals::forward(store(), events(), outward)));
        self.following
            .push(tokio::spawn(tap.run(tapped, node.secrets_of())));
        if config.roles.manager {
            self.following
                .push(tokio::spawn(signals::tell_hearing(store(), events())));
        } else {
            // Whose access it is does not matter here; who listens to what runs log does.
            let (changed, _) = watch::channel(0);
            self.following
                .push(tokio::spawn(signals::listen(store(), events(), changed)));
        }
        self.following.push(tokio::spawn(heartbeat::run(
            store(),
            Arc::clone(&node.clock),
            Arc::clone(&node.holder),
            events(),
            NodeRecord {
                id: self.node,
                roles: config.roles.names(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                generation: 0,
                started_at: node.started_at,
                seen_at: node.started_at,
            },
        )));
        let (done, all_done) = watch::channel(false);
        let recording =
            Arc::clone(&node.recorder).run(pending, store(), Arc::clone(&node.holder), all_done);
        self.recording = Some((done, tokio::spawn(recording)));
    }

    /// What is live in the database.
    pub async fn live_version(&self) -> Result<LiveVersion> {
        Ok(self.store.live_version().await?)
    }

    /// Says on disk how the server is reached.
    pub fn announce(
        &self,
        data: &DataDir,
        ready_file: Option<&Path>,
        admin_token_file: PathBuf,
    ) -> Result<()> {
        let told = RunningServer {
            url: self.url.clone(),
            admin_token_file,
            pid: std::process::id(),
        };
        let text = serde_json::to_vec_pretty(&told).context("cannot write JSON")?;
        write_private(&data.path().join(RUNNING_FILE), &text)?;
        match ready_file {
            Some(path) => write_private(path, &text),
            None => Ok(()),
        }
    }

    /// Stops: no new requests, open ones end, records are written.
    pub async fn stop(self) {
        for task in &self.following {
            task.abort();
        }
        self.stop.send_replace(true);
        for task in self.running {
            report(task.await);
        }
        if let Some((done, recording)) = self.recording {
            done.send_replace(true);
            report(recording.await);
        }
        if let Err(error) = self.store.forget_node(self.node).await {
            tracing::debug!(%error, "the database is not told that this node ends");
        }
        self.store.close().await;
        if let Err(error) = std::fs::remove_file(&self.running_file) {
            tracing::debug!(%error, "server.json could not be removed");
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::warn!(%error, "a part of the server did not end well");
    }
}

/// Processes that wait for the next run of a script.
const SPARE_PROCESSES: usize = 2;

fn executor(
    config: &ServerConfig,
    services: Services,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Executor>> {
    if config.executor != Some(ExecutorMode::Process) {
        return Ok(InProcessExecutor::new(services, Arc::clone(clock)));
    }
    let options = ProcessOptions {
        // What runs now, even where the file was replaced meanwhile.
        program: PathBuf::from("/proc/self/exe"),
        arguments: vec![crate::command::executor_child::WORD.to_owned()],
        most: MAX_PROCESSES,
        at_once: 4 * std::thread::available_parallelism().map_or(2, usize::from),
        spare: SPARE_PROCESSES,
    };
    let executor = ProcessExecutor::new(services, options)
        .context("processes for scripts cannot be started")?;
    Ok(Arc::new(executor))
}

/// The keys that open secrets: those of the file that is named, else those of the data directory,
/// made at the first start.
fn secret_keys(config: &ServerConfig, data: &DataDir) -> Result<SecretKeys> {
    let own = data.path().join("secrets-key");
    let path = match &config.secrets_key_file {
        Some(named) => named,
        None if own.exists() => &own,
        None => {
            write_private(&own, SecretKeys::generate().as_bytes())?;
            &own
        }
    };
    let text = std::fs::read_to_string(path).map(zeroize::Zeroizing::new);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    SecretKeys::parse(&text)
        .with_context(|| format!("{} holds no keys for secrets", path.display()))
}

/// Where hooks reach the server: a socket's path must fit into 107 bytes.
fn hook_socket(data: &DataDir) -> PathBuf {
    let near = data.path().join("hook.sock");
    if near.as_os_str().len() < 100 {
        return near;
    }
    std::env::temp_dir().join(format!("picloud-hook-{}.sock", std::process::id()))
}

/// The node's id: kept, so that what it had leased when it was killed is found again.
fn node_id(data: &DataDir, clock: &dyn Clock) -> Result<NodeId> {
    let path = data.path().join("node-id");
    if let Some(id) = std::fs::read_to_string(&path)
        .ok()
        .and_then(|text| text.trim().parse().ok())
    {
        return Ok(id);
    }
    let id = NodeId(clock.new_id());
    write_private(&path, format!("{id}\n").as_bytes())?;
    Ok(id)
}

/// The platform's paths: there once the database is up to date, 503 until then.
#[derive(Default)]
struct LateRouter(std::sync::OnceLock<axum::Router>);

impl LateRouter {
    fn set(&self, router: axum::Router) {
        // Set once, by the one who made it.
        let _ = self.0.set(router);
    }

    fn router(self: &Arc<Self>) -> axum::Router {
        let late = Arc::clone(self);
        axum::Router::new().fallback(move |request: axum::extract::Request| {
            let late = Arc::clone(&late);
            async move {
                use axum::response::IntoResponse;
                if let Some(router) = late.0.get() {
                    let mut router = router.clone();
                    match tower::Service::call(&mut router, request).await {
                        Ok(response) => response,
                        Err(never) => match never {},
                    }
                } else {
                    let status = axum::http::StatusCode::SERVICE_UNAVAILABLE;
                    let detail = "the server is starting, or waits for its database";
                    picloud_orchestrator_core::problem(status, "unavailable", detail)
                        .into_response()
                }
            }
        })
    }
}

/// What a node of a cluster answers that has no control plane.
async fn no_manager() -> axum::response::Response {
    use axum::response::IntoResponse;
    picloud_orchestrator_core::problem(
        axum::http::StatusCode::SERVICE_UNAVAILABLE,
        "not_served_here",
        "this node has no control plane; ask one with the role `manager`",
    )
    .into_response()
}

/// Waits for a database that is away; a schema that can't be brought up to date is the end.
async fn migrate(store: &Store) -> Result<()> {
    let mut told = false;
    loop {
        match store.migrate().await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_unavailable() => {
                if !told {
                    tracing::warn!(%error, "the database is away; serving what was live, and waiting");
                    told = true;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error).context("the database cannot be used"),
        }
    }
}

async fn insert_owner_key(store: &Store, clock: &dyn Clock, token: &str) -> Result<()> {
    let key = NewKey {
        id: KeyId(clock.new_id()),
        name: "owner",
        hash: keys::hash(token),
        prefix: &keys::prefix(token),
        scopes: &[Scope::InstanceAdmin],
        app: None,
        expires_at: None,
    };
    store
        .insert_key(&key, clock.now())
        .await
        .context("the owner key cannot be kept")
}

async fn name_source(
    sources: &Arc<Sources>,
    clock: &Arc<dyn Clock>,
    data: &DataDir,
    source: &NamedSource,
) -> Result<Arc<Deployer>> {
    let record = |name: &str, kind, url: String, branch: Option<String>, path: String| {
        anyhow::Ok(SourceRecord {
            id: SourceId(clock.new_id()),
            name: name.parse().context("a good name")?,
            kind,
            url,
            branch,
            path,
            interval: None,
            webhook_secret: None,
            forge: None,
            live_commit: None,
            settled_head: None,
            approved_commit: None,
            suspended: false,
            created_at: clock.now(),
        })
    };
    let full = |path: &Path| {
        let full = path.canonicalize();
        full.with_context(|| format!("cannot find {}", path.display()))
    };
    match source {
        NamedSource::Local { path, branch } => {
            let found = LocalPath::find(path)?;
            let url = full(path)?.display().to_string();
            let record = record(
                "local",
                SourceKind::Local,
                url,
                branch.clone(),
                found.prefix,
            )?;
            Ok(sources.put(&record).await?)
        }
        NamedSource::WorkTree(path) => {
            let url = full(path)?.display().to_string();
            let git_dir = data.path().join("dev.git");
            let tree = WorkTree::new(path, git_dir, Arc::clone(clock))?;
            let prefix = tree.prefix().to_owned();
            let record = record("local", SourceKind::Local, url, None, prefix)?;
            Ok(sources.put_work_tree(&record, tree).await?)
        }
        NamedSource::Hosted => {
            let branch = Some("main".to_owned());
            let kind = SourceKind::Hosted;
            let record = record(HOSTED_NAME, kind, String::new(), branch, String::new())?;
            Ok(sources.put(&record).await?)
        }
    }
}

/// Once a day: partitions of the next days, old history dropped. Expired kv entries: when the
/// next one expires.
async fn keep_house(store: Store, clock: Arc<dyn Clock>, history_days: u64) {
    const DAY: Duration = Duration::from_hours(12);
    loop {
        let today = clock.now().date_naive();
        let oldest = today
            .checked_sub_days(chrono::Days::new(history_days))
            .unwrap_or(today);
        if let Err(error) = store.keep_run_partitions(today, oldest).await {
            tracing::warn!(%error, "the partitions of history could not be kept; trying again");
        }
        let long_ago = clock.now() - chrono::TimeDelta::days(PRUNED_DAYS);
        if let Err(error) = store.purge_pruned(long_ago).await {
            tracing::warn!(%error, "the data of apps that are long gone could not be removed; trying again");
        }
        let forgotten = clock.now() - picloud_manager_core::webhooks::REMEMBERED;
        if let Err(error) = store.forget_webhooks(forgotten).await {
            tracing::warn!(%error, "old webhook deliveries could not be forgotten; trying again");
        }
        let days = chrono::TimeDelta::days(MINUTES_KEPT);
        if let Err(error) = store.roll_up_run_counts(clock.now() - days).await {
            tracing::warn!(%error, "counts of runs could not be added up; trying again");
        }
        let next = match picloud_services::sweep_expired(&store, clock.now()).await {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(%error, "expired values could not be removed; trying again");
                None
            }
        };
        let until = next
            .and_then(|at| (at - clock.now()).to_std().ok())
            .unwrap_or(DAY);
        tokio::time::sleep(until.clamp(Duration::from_mins(1), DAY)).await;
    }
}
