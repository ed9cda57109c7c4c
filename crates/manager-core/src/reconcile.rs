//! From a commit to what is live: a visible list of steps, each with its time.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use picloud_gitops_core::{
    LoadCache, LoadOptions, Loaded, ReadError, Review, TreeReader, check_desired, load, plan,
    review::{Texts, wanted_texts},
};
use picloud_shared::{
    BlobId, Clock, CommitId, DeploymentId, Diagnostic, EventSink, LiveEvent, Plan, SourceId,
    deployment::{Deployment, DeploymentStatus, StepTiming},
    plan::{AppAction, LiveApp, LiveState, LiveVersion},
    script::{ScriptChecker, SecretChecker},
};
use picloud_store::{Applied, Apply, ApplyError, Blob, SourceRecord, Store, StoreError};
use tokio::sync::{Mutex, Notify, broadcast, watch};

use crate::{
    git::{Commit, GitError, GitRepository},
    origin::Origin,
    watch::Pause,
};

/// How often a plan is made again because somebody else applied in between.
const MAX_REPLANS: u32 = 8;
/// How long a node may take to serve what was applied, before the deployment is told without it.
const PUBLISH_TIME: Duration = Duration::from_secs(5);
/// How long a plan waits for a deployment that is under way.
const PLAN_PATIENCE: Duration = Duration::from_secs(1);
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
    /// The repository doesn't have it.
    #[error("the repository has no commit `{0}`")]
    NoSuchCommit(String),
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
#[derive(Clone)]
pub struct DeployerOptions {
    /// Where live is.
    pub store: Store,
    /// For ids and times.
    pub clock: Arc<dyn Clock>,
    /// Compiles scripts.
    pub checker: Arc<dyn ScriptChecker>,
    /// Opens secrets.
    pub secrets: Option<Arc<dyn SecretChecker>>,
    /// What a node of this process serves.
    pub served: watch::Receiver<Option<LiveVersion>>,
    /// Is told of each deployment that ends.
    pub finished: broadcast::Sender<Finished>,
    /// Is told of them, too, for whoever watches from outside.
    pub events: Arc<dyn EventSink>,
}

/// Deploys the commits of one source.
pub struct Deployer {
    options: DeployerOptions,
    source: SourceRecord,
    origin: Origin,
    cache: Arc<parking_lot::Mutex<LoadCache>>,
    /// What the last apply left behind; good for as long as the live version is the same.
    live: Mutex<Option<LiveState>>,
    /// Somebody asked for a look at the head.
    kick: Notify,
    /// Why nothing is deployed now.
    trouble: parking_lot::Mutex<Option<String>>,
    /// A look at the head that somebody waits for and that has not begun.
    queued: parking_lot::Mutex<Option<watch::Receiver<Option<Looked>>>>,
}

/// What came of a look at the head, for all who wait for it.
type Looked = Result<Option<Arc<Deployment>>, Arc<DeployError>>;

/// What is to be deployed.
struct Target {
    commit: CommitId,
    /// The branch's head, which is dealt with by this.
    head: CommitId,
    /// Whether a person asked for just this commit.
    chosen: bool,
}

impl Deployer {
    /// A deployer of what comes from an origin.
    pub fn new(options: DeployerOptions, source: SourceRecord, origin: Origin) -> Arc<Self> {
        Arc::new(Self {
            options,
            source,
            origin,
            cache: Arc::default(),
            live: Mutex::new(None),
            kick: Notify::new(),
            trouble: parking_lot::Mutex::default(),
            queued: parking_lot::Mutex::default(),
        })
    }

    /// The source, as it was when the deployer was made.
    pub fn source(&self) -> &SourceRecord {
        &self.source
    }

    /// Where its commits come from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Why nothing is deployed now, if so.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// Asks for a look at the head, without waiting for it.
    pub fn kick(&self) {
        self.kick.notify_one();
    }

    /// Deploys whatever becomes the branch's head, for ever: the newest commit, not each.
    pub async fn run(self: Arc<Self>) {
        let mut backoff = Duration::from_millis(100);
        let mut watch = None;
        loop {
            // Before the look: what changes from here on is seen.
            let watching = match &mut watch {
                Some(watching) if !Origin::is_stale(watching) => watching,
                outdated => outdated.insert(self.origin.watch()),
            };
            match self.sync().await {
                Ok(_) if Origin::is_stale(watching) => {}
                Ok(_) => {
                    backoff = Duration::from_millis(100);
                    tokio::select! {
                        () = watching.changed() => {}
                        () = self.kick.notified() => {}
                    }
                }
                Err(_) => {
                    let pause = Pause::with_jitter(backoff);
                    tokio::select! {
                        () = pause.over() => {}
                        () = watching.changed() => {}
                        () = self.kick.notified() => {}
                    }
                    backoff = (backoff * 2).min(self.origin.longest_backoff());
                }
            }
        }
    }

    /// Deploys the head, unless it was dealt with already. Gives the deployment, if one was made.
    pub async fn sync(&self) -> Result<Option<Arc<Deployment>>, DeployError> {
        // One at a time; the one that waited finds the newest head, and most often nothing to do.
        let mut live = self.live.lock().await;
        self.sync_locked(&mut live).await
    }

    async fn sync_locked(
        &self,
        live: &mut Option<LiveState>,
    ) -> Result<Option<Arc<Deployment>>, DeployError> {
        let done = self.sync_head(live).await;
        let trouble = done.as_ref().err().map(ToString::to_string);
        let before = std::mem::replace(&mut *self.trouble.lock(), trouble.clone());
        if let Some(error) = trouble.filter(|error| before.as_ref() != Some(error)) {
            tracing::error!(source = %self.source.name, error, "a commit could not be deployed; trying again");
        }
        done
    }

    /// As [`Deployer::sync`], but whoever asks before a look begins shares it: however many ask at
    /// once, the repository is fetched twice at the most. Goes on where nobody waits any more.
    pub async fn sync_shared(self: &Arc<Self>) -> Looked {
        let mut looked = self.queue_look();
        let ended = looked.wait_for(Option::is_some).await;
        let gone = || {
            Err(Arc::new(DeployError::Unexpected(
                "the look ended early".into(),
            )))
        };
        ended.map_or_else(|_| gone(), |done| done.clone().unwrap_or_else(gone))
    }

    fn queue_look(self: &Arc<Self>) -> watch::Receiver<Option<Looked>> {
        let mut queued = self.queued.lock();
        if let Some(waiting) = &*queued {
            return waiting.clone();
        }
        let (tell, told) = watch::channel(None);
        *queued = Some(told.clone());
        let deployer = Arc::clone(self);
        tokio::spawn(async move {
            let mut live = deployer.live.lock().await;
            // From here on a commit that comes may be missed: who asks now asks for another look.
            *deployer.queued.lock() = None;
            let done = deployer.sync_locked(&mut live).await;
            tell.send_replace(Some(done.map_err(Arc::new)));
        });
        told
    }

    /// Whether this reference is what is deployed.
    pub fn deploys(&self, reference: &str) -> bool {
        match (
            self.origin.branch(&self.source),
            reference.strip_prefix("refs/heads/"),
        ) {
            (Some(deployed), Some(branch)) => deployed == branch,
            // What is checked out: only a look tells which that is.
            (None, branch) => branch.is_some(),
            (Some(_), None) => false,
        }
    }

    async fn sync_head(
        &self,
        live: &mut Option<LiveState>,
    ) -> Result<Option<Arc<Deployment>>, DeployError> {
        let began = Instant::now();
        let Some(source) = self.options.store.source(&self.source.name).await? else {
            return Ok(None);
        };
        if source.suspended {
            return Ok(None);
        }
        let (repository, head) = self.head().await?;
        if head.is_none()
            && let Origin::Remote(..) = self.origin
        {
            let branch = self.origin.branch(&self.source).unwrap_or("main");
            let told = format!("the remote has no branch `{branch}`");
            return Err(DeployError::Stalled(GitError::Remote(told)));
        }
        let Some(head) = head.filter(|head| source.settled_head.as_ref() != Some(head)) else {
            return Ok(None);
        };
        let target = Target {
            commit: head.clone(),
            head,
            chosen: false,
        };
        self.deploy(&source, target, began, &repository, live)
            .await
            .map(Some)
    }

    /// Makes a former commit's state live. The head stays as it is until a newer one comes, or the
    /// source is resumed.
    pub async fn rollback(&self, revision: &str) -> Result<Arc<Deployment>, DeployError> {
        let mut live = self.live.lock().await;
        let began = Instant::now();
        let source = self.options.store.source(&self.source.name).await?;
        let source = source.ok_or_else(|| DeployError::Unexpected("the source is gone".into()))?;
        let (repository, head) = self.head().await?;
        let (git, wanted) = (Arc::clone(&repository), revision.to_owned());
        let commit = blocking(move || git.resolve(&wanted)).await??;
        let commit = commit.ok_or_else(|| DeployError::NoSuchCommit(revision.to_owned()))?;
        let target = Target {
            head: head.unwrap_or_else(|| commit.clone()),
            commit,
            chosen: true,
        };
        self.deploy(&source, target, began, &repository, &mut live)
            .await
    }

    /// Opens the repository, fetched where it is elsewhere, and reads the branch's head.
    async fn head(&self) -> Result<(Arc<GitRepository>, Option<CommitId>), DeployError> {
        let path = self.origin.refresh().await?;
        let branch = self.origin.branch(&self.source).map(str::to_owned);
        let opened = blocking(move || {
            let repository = GitRepository::open(&path)?;
            let head = repository.head(branch.as_deref())?;
            Ok::<_, GitError>((Arc::new(repository), head))
        });
        Ok(opened.await??)
    }

    async fn deploy(
        &self,
        source: &SourceRecord,
        target: Target,
        began: Instant,
        repository: &Arc<GitRepository>,
        live: &mut Option<LiveState>,
    ) -> Result<Arc<Deployment>, DeployError> {
        let mut work = Work::begin(self, source, target, began, repository).await?;
        let loaded = work.read(self, repository).await?;
        let deployment = work.reconcile(self, repository, &loaded, live).await?;
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
        let event = LiveEvent::Deployment(deployment.as_ref().into());
        self.options.events.publish(event);
        // Nobody listening is no loss: the deployment is recorded.
        let _ = self
            .options
            .finished
            .send(Finished(Arc::clone(&deployment)));
        Ok(deployment)
    }

    /// What a commit that is not deployed (yet) would change. What is known of the source's trees
    /// is used and kept: planning and then deploying a commit reads it once.
    pub(crate) async fn plan_commit(
        &self,
        repository: Arc<GitRepository>,
        tree: BlobId,
        prefix: String,
    ) -> Result<(Plan, Loaded), DeployError> {
        let loaded = self
            .load(repository, tree, prefix, Arc::clone(&self.cache))
            .await?;
        // A deployment that takes its time doesn't keep a plan.
        let held = tokio::time::timeout(PLAN_PATIENCE, self.live.lock()).await;
        let store = &self.options.store;
        let (source, prune) = (self.source.id, loaded.settings.prune);
        let plan = match held {
            Ok(mut live) => {
                let live = current_live(store, &mut live).await?;
                plan(source, &loaded.desired, live, prune)
            }
            Err(_) => plan(source, &loaded.desired, &store.load_live().await?, prune),
        };
        Ok((plan, loaded))
    }

    /// A plan with all that explains it: the texts of scripts are read from the tree, or where it
    /// lacks them, from the database.
    pub async fn review<R: TreeReader + Send + 'static>(
        &self,
        plan: &Plan,
        loaded: &Loaded,
        reader: R,
    ) -> Result<Review, DeployError> {
        let wanted = wanted_texts(plan);
        let read = blocking(move || {
            let mut texts = Texts::new();
            let mut missing = Vec::new();
            for id in wanted {
                match reader.blob(&id, MAX_SCRIPT).map(String::from_utf8) {
                    Ok(Ok(text)) => drop(texts.insert(id, text)),
                    _ => missing.push(id),
                }
            }
            (texts, missing)
        });
        let (mut texts, missing) = read.await?;
        for id in missing {
            if let Some(text) = self.options.store.script_text(&id).await? {
                texts.insert(id, text);
            }
        }
        let now = self.options.clock.now();
        Ok(Review::new(plan, &loaded.diagnostics, &texts, now))
    }

    async fn load<R: TreeReader + Send + 'static>(
        &self,
        reader: R,
        root: BlobId,
        prefix: String,
        cache: Arc<parking_lot::Mutex<LoadCache>>,
    ) -> Result<Loaded, DeployError> {
        let checker = Arc::clone(&self.options.checker);
        let secrets = self.options.secrets.clone();
        let loaded = blocking(move || {
            let options = LoadOptions {
                path: &prefix,
                checker: checker.as_ref(),
                secrets: secrets.as_deref(),
            };
            load(&reader, &root, &options, &mut cache.lock())
        });
        Ok(loaded.await??)
    }

    /// What the source's head declares against what is live, without applying it.
    pub async fn plan_tree<R: TreeReader + Send + 'static>(
        &self,
        reader: R,
        root: BlobId,
        prefix: String,
    ) -> Result<(Plan, Loaded), DeployError> {
        let loaded = self.load(reader, root, prefix, Arc::default()).await?;
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
    target: Target,
    /// Whether a person let this commit go.
    approved: bool,
    deployment: Deployment,
    began: Instant,
    step: Instant,
}

impl Work {
    async fn begin(
        deployer: &Deployer,
        source: &SourceRecord,
        target: Target,
        began: Instant,
        repository: &Arc<GitRepository>,
    ) -> Result<Self, DeployError> {
        let previous = source.live_commit.clone();
        let (git, id, before) = (
            Arc::clone(repository),
            target.commit.clone(),
            previous
                .clone()
                .filter(|_| !target.chosen && deployer.origin.has_history()),
        );
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
        let approved = source.approved_commit.as_ref() == Some(&target.commit);
        // What was held or waits is the same deployment when it goes on.
        let earlier = deployer.options.store.last_deployment(&source.name).await?;
        let earlier = earlier.filter(|last| {
            let pending = matches!(
                last.status,
                DeploymentStatus::Held | DeploymentStatus::Waiting
            );
            pending && last.commit == target.commit
        });
        let deployment = Deployment {
            id: earlier.map_or_else(|| DeploymentId(clock.new_id()), |last| last.id),
            source: source.name.clone(),
            commit: target.commit.clone(),
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
            target,
            approved,
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
        let (tree, prefix) = (
            self.commit.tree.clone(),
            deployer.origin.prefix().to_owned(),
        );
        let checker = Arc::clone(&deployer.options.checker);
        let secrets = deployer.options.secrets.clone();
        let loaded = blocking(move || {
            let options = LoadOptions {
                path: &prefix,
                checker: checker.as_ref(),
                secrets: secrets.as_deref(),
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
        deployer
            .origin
            .declare_interval(loaded.settings.interval_ms);
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
                self.deployment.changes.clear();
                return self.end_without_apply(deployer).await;
            }
            if self.removes_too_much(deployer, loaded, current, &plan) {
                self.deployment.status = DeploymentStatus::Held;
                return self.end_without_apply(deployer).await;
            }
            let blobs = contents(store, repository, &plan).await?;
            let applied = store
                .apply(Apply {
                    source: deployer.source.id,
                    commit: &self.commit.id,
                    head: &self.target.head,
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

    /// Whether this commit needs a person's word: it would remove all apps of the source, or more
    /// of them than the limit.
    fn removes_too_much(
        &self,
        deployer: &Deployer,
        loaded: &Loaded,
        live: &LiveState,
        plan: &Plan,
    ) -> bool {
        if self.approved || self.target.chosen || !deployer.origin.has_history() {
            return false;
        }
        let own = live
            .apps
            .values()
            .filter(|app| app.source == deployer.source.id)
            .count();
        let removed = plan
            .apps
            .values()
            .filter(|app| app.action == AppAction::Remove)
            .count();
        removed > 0
            && (removed == own || removed * 100 > own * usize::from(loaded.settings.prune_limit))
    }

    /// Records what was decided; nothing of the commit becomes live.
    async fn end_without_apply(mut self, deployer: &Deployer) -> Result<Deployment, DeployError> {
        self.deployment.duration_ms = Some(self.began.elapsed().as_secs_f64() * 1000.0);
        // Another commit than the head was chosen by a person, who is told.
        let head = (!self.target.chosen).then_some(&self.target.head);
        deployer
            .options
            .store
            .record_deployment(deployer.source.id, &self.deployment, head)
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
