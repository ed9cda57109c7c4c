//! From a commit to what is live: a visible list of steps, each with its time.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use picloud_gitops_core::{
    LoadCache, LoadOptions, Loaded, ReadError, TreeReader, check_desired, load, plan,
};
use picloud_shared::{
    BlobId, Clock, CommitId, DeploymentId, Diagnostic, Plan, SourceId, SourceName,
    deployment::{Deployment, DeploymentStatus, StepTiming},
    plan::{LiveApp, LiveState, LiveVersion},
    script::ScriptChecker,
};
use picloud_store::{Applied, Apply, ApplyError, Blob, SourceRecord, Store, StoreError};
use tokio::sync::{Mutex, broadcast, watch};

use crate::{
    git::{Commit, GitError, GitRepository, LocalPath},
    watch::RefWatch,
};

/// How often a plan is made again because somebody else applied in between.
const MAX_REPLANS: u32 = 8;
/// How long a node may take to serve what was applied, before the deployment is told without it.
const PUBLISH_TIME: Duration = Duration::from_secs(5);
/// The largest static file, as validated.
const MAX_STATIC: u64 = 25 << 20;
/// The largest script, as validated.
const MAX_SCRIPT: u64 = 256 << 10;

/// Why a commit could not be deployed. The type says what becomes of it.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A person must act: the repository can't be used as it is.
    #[error(transparent)]
    Stalled(#[from] GitError),
    /// It is tried again by itself: the database is away.
    #[error("waiting for the database: {0}")]
    Waiting(StoreError),
    /// Neither: to be looked into.
    #[error("{0}")]
    Unexpected(String),
}

impl From<StoreError> for DeployError {
    fn from(error: StoreError) -> Self {
        if error.is_unavailable() {
            Self::Waiting(error)
        } else {
            Self::Unexpected(error.to_string())
        }
    }
}

impl From<ReadError> for DeployError {
    fn from(error: ReadError) -> Self {
        Self::Unexpected(error.to_string())
    }
}

/// A deployment that ended.
#[derive(Debug, Clone)]
pub struct Finished(pub Arc<Deployment>);

/// What a deployer needs.
pub struct DeployerOptions {
    /// Where live is.
    pub store: Store,
    /// For ids and times.
    pub clock: Arc<dyn Clock>,
    /// Compiles scripts.
    pub checker: Arc<dyn ScriptChecker>,
    /// What a node of this process serves.
    pub served: watch::Receiver<Option<LiveVersion>>,
}

/// Deploys the commits of one local source.
pub struct Deployer {
    options: DeployerOptions,
    source: SourceRecord,
    path: LocalPath,
    cache: Arc<parking_lot::Mutex<LoadCache>>,
    /// What the last apply left behind; good for as long as the live version is the same.
    live: Mutex<Option<LiveState>>,
    finished: broadcast::Sender<Finished>,
}

impl Deployer {
    /// A deployer for a source whose repository was found.
    pub fn new(options: DeployerOptions, source: SourceRecord, path: LocalPath) -> Arc<Self> {
        Arc::new(Self {
            options,
            source,
            path,
            cache: Arc::default(),
            live: Mutex::new(None),
            finished: broadcast::channel(64).0,
        })
    }

    /// The source's name.
    pub fn source_name(&self) -> &SourceName {
        &self.source.name
    }

    /// Tells of each deployment that ends.
    pub fn subscribe(&self) -> broadcast::Receiver<Finished> {
        self.finished.subscribe()
    }

    /// Deploys whatever becomes the branch's head, for ever: the newest commit, not each.
    pub async fn run(self: Arc<Self>) {
        let watch = RefWatch::new(&self.path);
        let mut backoff = Duration::from_millis(100);
        let mut told = String::new();
        loop {
            match self.sync().await {
                Ok(_) => {
                    backoff = Duration::from_millis(100);
                    told.clear();
                    watch.changed().await;
                }
                Err(error) => {
                    if told != error.to_string() {
                        told = error.to_string();
                        tracing::error!(source = %self.source.name, error = told, "a commit could not be deployed; trying again");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(backoff) => {}
                        () = watch.changed() => {}
                    }
                    backoff = (backoff * 2).min(Duration::from_secs(10));
                }
            }
        }
    }

    /// Deploys the head, unless it is live or was refused already. Gives the deployment, if one
    /// was made.
    pub async fn sync(&self) -> Result<Option<Arc<Deployment>>, DeployError> {
        // One at a time; the one that waited finds the newest head, and most often nothing to do.
        let mut live = self.live.lock().await;
        let began = Instant::now();
        let (path, branch) = (self.path.clone(), self.source.branch.clone());
        let opened = blocking(move || {
            let repository = GitRepository::open(&path)?;
            let head = repository.head(branch.as_deref())?;
            Ok::<_, GitError>((repository, head))
        });
        let (repository, head) = opened.await??;
        let Some(head) = head else { return Ok(None) };
        let last = self
            .options
            .store
            .last_deployment(&self.source.name)
            .await?;
        let settled = last
            .as_ref()
            .is_some_and(|last| last.commit == head && last.status != DeploymentStatus::Applying);
        if settled {
            return Ok(None);
        }
        let previous = self
            .options
            .store
            .source(&self.source.name)
            .await?
            .and_then(|source| source.live_commit);
        let repository = Arc::new(repository);
        let mut work = Work::begin(self, &head, previous, began, &repository).await?;
        let loaded = work.read(self, &repository).await?;
        let deployment = work
            .reconcile(self, &repository, &loaded, &mut live)
            .await?;
        let deployment = Arc::new(deployment);
        tracing::info!(
            source = %deployment.source,
            commit = %deployment.commit,
            status = deployment.status.as_str(),
            changes = deployment.changes.len(),
            errors = deployment.errors.len(),
            ms = deployment.duration_ms,
            "deployed"
        );
        // Nobody listening is no loss: the deployment is recorded.
        let _ = self.finished.send(Finished(Arc::clone(&deployment)));
        Ok(Some(deployment))
    }

    /// What the source's head declares against what is live, without applying it.
    pub async fn plan_tree<R: TreeReader + Send + 'static>(
        &self,
        reader: R,
        root: BlobId,
        prefix: String,
    ) -> Result<(Plan, Loaded), DeployError> {
        let checker = Arc::clone(&self.options.checker);
        let loaded = blocking(move || {
            let options = LoadOptions {
                path: &prefix,
                checker: checker.as_ref(),
            };
            load(&reader, &root, &options, &mut LoadCache::default())
        });
        let loaded = loaded.await??;
        let live = self.options.store.load_live().await?;
        Ok((
            plan(
                self.source.id,
                &loaded.desired,
                &live,
                loaded.settings.prune,
            ),
            loaded,
        ))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DeployError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DeployError::Unexpected(error.to_string()))
}

/// One deployment under way.
struct Work {
    commit: Commit,
    deployment: Deployment,
    began: Instant,
    step: Instant,
}

impl Work {
    async fn begin(
        deployer: &Deployer,
        head: &CommitId,
        previous: Option<CommitId>,
        began: Instant,
        repository: &Arc<GitRepository>,
    ) -> Result<Self, DeployError> {
        let (git, id, before) = (Arc::clone(repository), head.clone(), previous.clone());
        let read = blocking(move || {
            let commit = git.commit(&id)?;
            let rewritten = match &before {
                Some(before) => !git.is_ancestor(before, &id)?,
                None => false,
            };
            Ok::<_, GitError>((commit, rewritten))
        });
        let (commit, history_rewritten) = read.await??;
        let clock = &deployer.options.clock;
        let deployment = Deployment {
            id: DeploymentId(clock.new_id()),
            source: deployer.source.name.clone(),
            commit: head.clone(),
            previous_commit: previous,
            author: commit.author.clone(),
            message: commit.message.clone(),
            status: DeploymentStatus::Applying,
            changes: Vec::new(),
            errors: Vec::new(),
            history_rewritten,
            generation: None,
            started_at: clock.now(),
            duration_ms: None,
            steps: Vec::new(),
        };
        let mut work = Self {
            commit,
            deployment,
            began,
            step: began,
        };
        work.done("resolve");
        Ok(work)
    }

    fn done(&mut self, step: &str) {
        let ms = self.step.elapsed().as_secs_f64() * 1000.0;
        self.deployment.steps.push(StepTiming {
            step: step.to_owned(),
            ms,
        });
        self.step = Instant::now();
    }

    async fn read(
        &mut self,
        deployer: &Deployer,
        repository: &Arc<GitRepository>,
    ) -> Result<Loaded, DeployError> {
        let (git, cache) = (Arc::clone(repository), Arc::clone(&deployer.cache));
        let (tree, prefix) = (self.commit.tree.clone(), deployer.path.prefix.clone());
        let checker = Arc::clone(&deployer.options.checker);
        let loaded = blocking(move || {
            let options = LoadOptions {
                path: &prefix,
                checker: checker.as_ref(),
            };
            load(git.as_ref(), &tree, &options, &mut cache.lock())
        });
        let loaded = loaded.await??;
        let broken = check_desired(&loaded.desired);
        if !broken.is_empty() {
            return Err(DeployError::Unexpected(format!(
                "the desired state is not sound: {}",
                broken.join("; ")
            )));
        }
        self.done("validate");
        Ok(loaded)
    }

    async fn reconcile(
        mut self,
        deployer: &Deployer,
        repository: &Arc<GitRepository>,
        loaded: &Loaded,
        live: &mut Option<LiveState>,
    ) -> Result<Deployment, DeployError> {
        let store = &deployer.options.store;
        for _ in 0..MAX_REPLANS {
            let current = current_live(store, live).await?;
            let plan = plan(
                deployer.source.id,
                &loaded.desired,
                current,
                loaded.settings.prune,
            );
            self.deployment.changes = plan.changes().cloned().collect();
            self.deployment.errors = loaded
                .diagnostics
                .iter()
                .chain(&plan.errors)
                .cloned()
                .collect();
            self.deployment.status = status(&self.deployment.errors, loaded, &plan);
            self.done("plan");
            if self.deployment.status == DeploymentStatus::Failed {
                return self.refuse(deployer).await;
            }
            let blobs = contents(store, repository, &plan).await?;
            let applied = store
                .apply(Apply {
                    source: deployer.source.id,
                    commit: &self.commit.id,
                    plan: &plan,
                    blobs: &blobs,
                    deployment: &self.deployment,
                    clock: deployer.options.clock.as_ref(),
                })
                .await;
            match applied {
                Ok(applied) => {
                    self.done("apply");
                    let version = applied.version;
                    *live = live.take().map(|live| {
                        after(live, deployer.source.id, &plan, &applied, &self.deployment)
                    });
                    return self.publish(deployer, version).await;
                }
                Err(ApplyError::ParentChanged) => *live = None,
                Err(ApplyError::Store(error)) => return Err(error.into()),
            }
        }
        Err(DeployError::Unexpected(
            "the live state changes faster than a plan can be made".to_owned(),
        ))
    }

    async fn refuse(mut self, deployer: &Deployer) -> Result<Deployment, DeployError> {
        self.deployment.changes.clear();
        self.deployment.duration_ms = Some(self.began.elapsed().as_secs_f64() * 1000.0);
        deployer
            .options
            .store
            .record_deployment(deployer.source.id, &self.deployment)
            .await?;
        Ok(self.deployment)
    }

    async fn publish(
        mut self,
        deployer: &Deployer,
        version: LiveVersion,
    ) -> Result<Deployment, DeployError> {
        self.deployment.generation = Some(version.generation);
        let mut served = deployer.options.served.clone();
        let reached = served.wait_for(|served| served.is_some_and(|served| served >= version));
        if tokio::time::timeout(PUBLISH_TIME, reached).await.is_err() {
            tracing::warn!(
                generation = version.generation,
                "the node does not serve the new generation yet"
            );
        }
        self.done("publish");
        self.deployment.duration_ms = Some(self.began.elapsed().as_secs_f64() * 1000.0);
        deployer
            .options
            .store
            .finish_deployment(&self.deployment)
            .await?;
        Ok(self.deployment)
    }
}

/// The live state, from memory where nobody changed it.
async fn current_live<'l>(
    store: &Store,
    live: &'l mut Option<LiveState>,
) -> Result<&'l LiveState, StoreError> {
    let version = store.live_version().await?;
    if live.as_ref().is_none_or(|live| live.version != version) {
        *live = Some(store.load_live().await?);
    }
    Ok(live.get_or_insert_default())
}

/// The live state after a plan was carried out, without asking the database for all of it.
fn after(
    mut live: LiveState,
    source: SourceId,
    plan: &Plan,
    applied: &Applied,
    deployment: &Deployment,
) -> LiveState {
    live.version = applied.version;
    for name in &plan.kept {
        if let Some(app) = live.apps.get_mut(name)
            && app.pinned_commit.is_none()
        {
            app.pinned_commit.clone_from(&deployment.previous_commit);
        }
    }
    for name in &plan.released {
        if let Some(app) = live.apps.get_mut(name) {
            app.pinned_commit = None;
        }
    }
    for (name, change) in &plan.apps {
        match (&change.desired, applied.ids.get(name)) {
            (Some(spec), Some(id)) => {
                let app = LiveApp {
                    id: *id,
                    source,
                    pinned_commit: None,
                    spec: Arc::clone(spec),
                };
                live.apps.insert(name.clone(), app);
            }
            _ => {
                live.apps.remove(name);
            }
        }
    }
    live
}

fn status(errors: &[Diagnostic], loaded: &Loaded, plan: &Plan) -> DeploymentStatus {
    if !errors.iter().any(Diagnostic::is_error) {
        return DeploymentStatus::Synced;
    }
    // Errors that belong to no app are of the source itself: then nothing of it can be trusted.
    let of_source = loaded.diagnostics.iter().any(|finding| {
        finding.is_error()
            && (finding.path.ends_with("picloud.yaml")
                || finding.code == "E0209"
                    && finding.app.is_none()
                    && loaded.desired.apps.is_empty())
    });
    let foreign = plan.errors.len();
    if of_source || loaded.desired.apps.len() == foreign {
        DeploymentStatus::Failed
    } else {
        DeploymentStatus::Partial
    }
}

/// The contents of a plan's files that the database lacks.
async fn contents(
    store: &Store,
    repository: &Arc<GitRepository>,
    plan: &Plan,
) -> Result<Vec<Blob>, DeployError> {
    let specs = || plan.apps.values().filter_map(|app| app.desired.as_deref());
    let scripts: BTreeSet<BlobId> = specs()
        .flat_map(|spec| spec.scripts.values())
        .map(|script| script.blob.clone())
        .collect();
    let files: BTreeSet<BlobId> = specs()
        .flat_map(|spec| spec.static_files.values())
        .map(|file| file.blob.clone())
        .collect();
    if scripts.is_empty() && files.is_empty() {
        return Ok(Vec::new());
    }
    let (script_ids, file_ids): (Vec<_>, Vec<_>) = (
        scripts.iter().cloned().collect(),
        files.into_iter().collect(),
    );
    let missing: BTreeSet<BlobId> = store
        .missing_blobs(&script_ids, &file_ids)
        .await?
        .into_iter()
        .collect();
    let git = Arc::clone(repository);
    let read = blocking(move || {
        let mut blobs = Vec::with_capacity(missing.len());
        for id in file_ids.iter().filter(|id| missing.contains(*id)) {
            blobs.push(Blob::Static {
                id: id.clone(),
                bytes: Bytes::from(git.blob(id, MAX_STATIC)?),
            });
        }
        for id in scripts.iter().filter(|id| missing.contains(*id)) {
            let text = String::from_utf8(git.blob(id, MAX_SCRIPT)?);
            let text = text.map_err(|_| ReadError::Failed {
                message: format!("the script {id} is not UTF-8"),
            })?;
            blobs.push(Blob::Script {
                id: id.clone(),
                text,
            });
        }
        Ok::<_, ReadError>(blobs)
    });
    Ok(read.await??)
}
