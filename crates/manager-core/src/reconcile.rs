//! From a commit to what is live: a visible list of steps, each with its time.

mod adopt;
mod checks;
mod contents;
mod heal;
mod known;
mod work;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use picloud_gitops_core::{
    LoadCache, LoadOptions, Loaded, ReadError, Review, SourceSettings, TreeReader, load, plan,
    review::{Texts, wanted_texts},
};
use picloud_shared::{
    AppSnapshot, BlobId, Clock, CommitId, EventSink, LiveEvent, Plan, SourceName,
    deployment::{Deployment, DeploymentStatus},
    plan::LiveVersion,
    script::{ScriptChecker, SecretChecker},
    snapshot::ScriptSource,
};
use picloud_store::{SourceRecord, Store, StoreError};
use tokio::sync::{Mutex, Notify, broadcast, watch};

pub(crate) use adopt::{AdoptError, Adopted, OnBranch, Sides};
use checks::Begun;
pub use checks::Probe;
use contents::MAX_SCRIPT;
use known::Known;
pub(crate) use work::UNREVIEWED;
use work::Work;

use crate::{
    git::{GitError, GitRepository, LocalPath},
    notifications::announcement,
    origin::Origin,
    signatures::{self, SignatureError, Signers},
    watch::Pause,
};

/// How often a plan is made again because somebody else applied in between.
const MAX_REPLANS: u32 = 8;
/// How long a node may take to serve what was applied, before the deployment is told without it.
const PUBLISH_TIME: Duration = Duration::from_secs(5);
/// How long a plan waits for a deployment that is under way.
const PLAN_PATIENCE: Duration = Duration::from_secs(1);

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
    /// Requests the checks of apps; `None`: this process can't, and none are.
    pub probe: Option<Arc<dyn Probe>>,
    /// Whose signatures count, by source.
    pub signers: Arc<BTreeMap<SourceName, Signers>>,
    /// Is told of each look at a repository: its other references may have changed.
    pub looked: Arc<Notify>,
}

/// Deploys the commits of one source.
pub struct Deployer {
    options: DeployerOptions,
    source: SourceRecord,
    origin: Origin,
    cache: Arc<parking_lot::Mutex<LoadCache>>,
    /// What the last apply left behind; good for as long as the live version is the same.
    known: Mutex<Option<Known>>,
    /// Somebody asked for a look at the head.
    kick: Notify,
    /// The head that waits for a window, and until when.
    waiting: parking_lot::Mutex<Option<(CommitId, DateTime<Utc>)>>,
    /// A person chose another commit.
    overtaken: Notify,
    /// Somebody waits for a look at the head.
    asked: Notify,
    /// What is live and could not be tried to its end.
    untried: parking_lot::Mutex<Option<Begun>>,
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
            known: Mutex::new(None),
            kick: Notify::new(),
            waiting: parking_lot::Mutex::default(),
            overtaken: Notify::new(),
            asked: Notify::new(),
            untried: parking_lot::Mutex::default(),
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
        self.asked.notify_waiters();
        self.kick.notify_one();
    }

    /// Deploys whatever becomes the branch's head, for ever: the newest commit, not each.
    pub async fn run(self: Arc<Self>) {
        self.take_up().await;
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
                        () = self.window_opens() => {}
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

    /// Takes up what an ended process left.
    async fn take_up(&self) {
        let store = &self.options.store;
        if let Err(error) = self.tell_untold().await {
            tracing::warn!(source = %self.source.name, %error, "an interrupted deployment is not told of yet");
        }
        if let Ok(Some(settings)) = store.source_settings(self.source.id).await
            && let Ok(settings) = serde_json::from_value::<SourceSettings>(settings)
        {
            self.origin.declare_interval(settings.interval_ms);
        }
        if let Err(error) = self.take_up_checks().await {
            tracing::warn!(source = %self.source.name, %error, "the checks of an interrupted deployment cannot be taken up");
        }
    }

    /// Tells of deployments that were applied when a process ended.
    async fn tell_untold(&self) -> Result<(), StoreError> {
        let store = &self.options.store;
        for deployment in store.untold_deployments(self.source.id).await? {
            let told = announcement(&deployment, None, self.options.clock.as_ref());
            store.finish_deployment(&deployment, Some(&told)).await?;
        }
        Ok(())
    }

    /// Waits until the window opens that the head waits for.
    async fn window_opens(&self) {
        let until = self.waiting.lock().as_ref().map(|(_, until)| *until);
        match until {
            Some(until) => {
                let left = until - self.options.clock.now();
                tokio::time::sleep(left.to_std().unwrap_or_default()).await;
            }
            None => std::future::pending().await,
        }
    }

    /// Whether this head is known to wait still.
    fn is_waiting(&self, head: &CommitId, source: &SourceRecord) -> bool {
        let mut waiting = self.waiting.lock();
        let still = waiting.as_ref().is_some_and(|(commit, until)| {
            commit == head
                && *until > self.options.clock.now()
                && source.approved_commit.as_ref() != Some(head)
        });
        if !still {
            *waiting = None;
        }
        still
    }

    /// Deploys the head, unless it was dealt with already. Gives the deployment, if one was made.
    pub async fn sync(&self) -> Result<Option<Arc<Deployment>>, DeployError> {
        self.asked.notify_waiters();
        // One at a time; the one that waited finds the newest head, and most often nothing to do.
        let mut known = self.known.lock().await;
        self.sync_locked(&mut known).await
    }

    async fn sync_locked(
        &self,
        known: &mut Option<Known>,
    ) -> Result<Option<Arc<Deployment>>, DeployError> {
        let mut done = self.sync_head(known).await;
        // One that a newer head overtook: on to that, which takes its checks along.
        while let Ok(Some(deployment)) = &done
            && deployment.status == DeploymentStatus::Applying
        {
            done = match self.sync_head(known).await {
                Ok(None) => break,
                next => next,
            };
        }
        if let Err(error) = self.settle_untried(known).await {
            done = done.and(Err(error));
        }
        if !matches!(self.origin, Origin::Preview(_)) {
            self.options.looked.notify_one();
        }
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
        self.asked.notify_waiters();
        tokio::spawn(async move {
            let mut known = deployer.known.lock().await;
            // From here on a commit that comes may be missed: who asks now asks for another look.
            *deployer.queued.lock() = None;
            let done = deployer.sync_locked(&mut known).await;
            tell.send_replace(Some(done.map_err(Arc::new)));
        });
        told
    }

    /// Whether this reference is what is deployed.
    pub fn deploys(&self, reference: &str) -> bool {
        if self.origin.branch(&self.source) == Some(reference) {
            return true;
        }
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
        known: &mut Option<Known>,
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
            && let Some(told) = self.origin.lacks_branch(&self.source)
        {
            return Err(DeployError::Stalled(GitError::Remote(told)));
        }
        let Some(head) = head.filter(|head| source.settled_head.as_ref() != Some(head)) else {
            return Ok(None);
        };
        if self.is_waiting(&head, &source) {
            return Ok(None);
        }
        let target = Target {
            commit: head.clone(),
            head,
            chosen: false,
        };
        let done = self
            .deploy(&source, target, began, &repository, known)
            .await?;
        if done.status == DeploymentStatus::Waiting {
            // Where the windows leave no time, they are looked at again each day.
            let tomorrow = self.options.clock.now() + TimeDelta::days(1);
            let until = done.waits_until.unwrap_or(tomorrow);
            *self.waiting.lock() = Some((done.commit.clone(), until));
        }
        Ok(Some(done))
    }

    /// Makes a former commit's state live. The head stays as it is until a newer one comes, or the
    /// source is resumed.
    pub async fn rollback(&self, revision: &str) -> Result<Arc<Deployment>, DeployError> {
        self.overtaken.notify_waiters();
        let mut known = self.known.lock().await;
        let began = Instant::now();
        let source = self.options.store.source(&self.source.name).await?;
        let source = source.ok_or_else(|| DeployError::Unexpected("the source is gone".into()))?;
        // A remote that is away or slow doesn't keep a commit that is here.
        let (mut repository, mut head) = self.open(self.origin.at_rest()?).await?;
        let mut commit = resolve(&repository, revision).await?;
        if commit.is_none() {
            (repository, head) = self.head().await?;
            commit = resolve(&repository, revision).await?;
        }
        let commit = commit.ok_or_else(|| DeployError::NoSuchCommit(revision.to_owned()))?;
        let target = Target {
            head: head.unwrap_or_else(|| commit.clone()),
            commit,
            chosen: true,
        };
        self.deploy(&source, target, began, &repository, &mut known)
            .await
    }

    /// Opens the repository, fetched where it is elsewhere, and reads the branch's head.
    async fn head(&self) -> Result<(Arc<GitRepository>, Option<CommitId>), DeployError> {
        self.open(self.origin.refresh().await?).await
    }

    async fn open(
        &self,
        path: LocalPath,
    ) -> Result<(Arc<GitRepository>, Option<CommitId>), DeployError> {
        let branch = self.origin.branch(&self.source).map(str::to_owned);
        let chosen = match &self.origin {
            Origin::Preview(origin) => Some(origin.head()),
            _ => None,
        };
        let opened = blocking(move || {
            let repository = GitRepository::open(&path)?;
            let head = match chosen {
                Some(chosen) => Some(chosen),
                None => repository.head(branch.as_deref())?,
            };
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
        known: &mut Option<Known>,
    ) -> Result<Arc<Deployment>, DeployError> {
        let mut work = Work::begin(self, source, target, began, repository).await?;
        let loaded = work.read(self, repository).await?;
        if !work.verify(self, repository, &loaded).await? {
            // Whom an unverified commit wants to be told is not asked.
            return Ok(self.tell(work.end_without_apply(self).await?));
        }
        let deployment = work.reconcile(self, repository, &loaded, known).await?;
        Ok(self.tell(deployment))
    }

    /// Verifies a commit's signature where the commit itself, or the one that is live, asks for
    /// it: an unsigned commit can't switch that off. Gives who signed.
    pub(crate) async fn verify(
        &self,
        repository: &Arc<GitRepository>,
        commit: &CommitId,
        settings: &SourceSettings,
    ) -> Result<Result<Option<String>, SignatureError>, DeployError> {
        // A preview runs with what the source has: who may sign for that may sign for this.
        let owner = match &self.origin {
            Origin::Preview(origin) => origin.owner(),
            _ => &self.source,
        };
        let live = self.options.store.source_settings(owner.id).await?;
        let live = live.is_some_and(|live| live["verify_signatures"] == true);
        if !settings.verify_signatures && !live {
            return Ok(Ok(None));
        }
        let signers = self.options.signers.get(&owner.name);
        let signers = signers.cloned().unwrap_or_default();
        let (repository, commit) = (Arc::clone(repository), commit.clone());
        blocking(move || signatures::verify(&repository, &commit, &signers).map(Some)).await
    }

    /// Waits until this process serves a version, within reason.
    async fn served(&self, version: LiveVersion) {
        let mut served = self.options.served.clone();
        let reached = served.wait_for(|served| served.is_some_and(|served| served >= version));
        if tokio::time::timeout(PUBLISH_TIME, reached).await.is_err() {
            tracing::warn!(
                generation = version.generation,
                "the node does not serve the new generation yet"
            );
        }
    }

    /// Tells whoever listens that a deployment ended.
    fn tell(&self, deployment: Deployment) -> Arc<Deployment> {
        let deployment = Arc::new(deployment);
        tracing::info!(
            source = %deployment.source,
            commit = %deployment.commit,
            reason = deployment.reason.as_str(),
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
        deployment
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
        Ok((self.planned(&loaded).await?, loaded))
    }

    /// The plan of a tree, against what is known to be live.
    async fn planned(&self, loaded: &Loaded) -> Result<Plan, DeployError> {
        // A deployment that takes its time doesn't keep a plan.
        let held = tokio::time::timeout(PLAN_PATIENCE, self.known.lock()).await;
        let store = &self.options.store;
        let (source, prune) = (self.source.id, loaded.settings.prune);
        if let Ok(mut known) = held {
            let current = known::current(store, source, &mut known).await?;
            return Ok(plan(source, &loaded.desired, &current.live, prune));
        }
        let live = store.load_live_checked().await?;
        Ok(plan(source, &loaded.desired, &live, prune))
    }

    /// What a revision of the source's repository would change.
    pub async fn review_revision(&self, revision: &str) -> Result<Review, DeployError> {
        let path = self.origin.refresh().await?;
        let wanted = revision.to_owned();
        let found = blocking(move || {
            let repository = GitRepository::open(&path)?;
            let commit = repository.resolve(&wanted)?;
            let commit = commit.map(|id| repository.commit(&id)).transpose()?;
            Ok::<_, GitError>(commit.map(|commit| (Arc::new(repository), commit, path.prefix)))
        });
        let Some((repository, commit, prefix)) = found.await?? else {
            return Err(DeployError::NoSuchCommit(revision.to_owned()));
        };
        let (plan, loaded) = self
            .plan_commit(Arc::clone(&repository), commit.tree, prefix)
            .await?;
        self.review(&plan, &loaded, repository).await
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

    /// An app as a commit of this source has it; `None`: it isn't there, or has errors.
    pub(crate) async fn app_at(
        &self,
        live: &AppSnapshot,
        commit: &CommitId,
    ) -> Result<Option<AppSnapshot>, DeployError> {
        let (repository, _) = self.head().await?;
        let (git, id) = (Arc::clone(&repository), commit.clone());
        let found = blocking(move || git.commit(&id)).await??;
        let prefix = self.origin.prefix().to_owned();
        let loaded = self
            .load(
                Arc::clone(&repository),
                found.tree,
                prefix,
                Arc::clone(&self.cache),
            )
            .await?;
        let Some(spec) = loaded.desired.apps.get(&live.spec.name).map(Arc::clone) else {
            return Ok(None);
        };
        let wanted = Arc::clone(&spec);
        let scripts = blocking(move || {
            let mut scripts = BTreeMap::new();
            for (path, script) in &wanted.scripts {
                let text = String::from_utf8(repository.blob(&script.blob, MAX_SCRIPT)?);
                let text = text.map_err(|_| ReadError::Failed {
                    message: format!("the script {path} is not UTF-8"),
                })?;
                let source = ScriptSource {
                    path: path.clone(),
                    kind: script.kind,
                    blob: script.blob.clone(),
                    text: text.into(),
                };
                scripts.insert(path.clone(), Arc::new(source));
            }
            Ok::<_, ReadError>(scripts)
        });
        Ok(Some(AppSnapshot {
            id: live.id,
            source: live.source,
            generation: live.generation,
            pinned_commit: Some(commit.clone()),
            spec,
            scripts: scripts.await??,
        }))
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
        Ok((self.planned(&loaded).await?, loaded))
    }
}

async fn resolve(
    repository: &Arc<GitRepository>,
    revision: &str,
) -> Result<Option<CommitId>, DeployError> {
    let (git, wanted) = (Arc::clone(repository), revision.to_owned());
    Ok(blocking(move || git.resolve(&wanted)).await??)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DeployError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DeployError::Unexpected(error.to_string()))
}
