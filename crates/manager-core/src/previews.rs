//! Previews: each branch and pull request but the deployed one as apps of its own.
//!
//! A preview is a source that is made and removed here; whatever else happens to its apps is what
//! happens to any source's. It follows the references of a repository that somebody else brings up
//! to date.

mod origin;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use picloud_gitops_core::{PreviewOptions, preview};
use picloud_shared::{
    AppName, Clock, CommitId, SourceId, SourceName,
    deployment::{Deployment, DeploymentStatus},
};
use picloud_store::{
    SourceRecord, Store,
    previews::{PreviewRecord, PreviewSettings},
    pulls::PullRecord,
};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::{
    git::{GitError, GitRepository},
    origin::Origin,
    reconcile::{DeployError, Deployer},
    sources::Sources,
};

pub(crate) use origin::PreviewOrigin;

/// It is looked at this often in any case.
const SWEEP: Duration = Duration::from_hours(1);
/// A burst of changes is looked at once.
const SETTLE: Duration = Duration::from_millis(20);
/// Before a look that failed is tried again.
const BACKOFF: Duration = Duration::from_secs(5);
/// Previews of one source; branches beyond them have none.
const MAX: usize = 200;

/// The previews of all sources.
pub struct Previews {
    store: Store,
    clock: Arc<dyn Clock>,
    sources: Arc<Sources>,
    wake: Notify,
    running: Mutex<HashMap<SourceId, Running>>,
    /// One look at a time.
    looking: tokio::sync::Mutex<()>,
}

/// Of a preview: its source's deployer, and its own.
type Running = (Arc<Deployer>, Arc<Deployer>);

/// What is to be seen of one reference.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shown {
    /// There are no previews of this.
    None,
    /// A fork's, which waits for a person.
    Waiting {
        /// As in `picloud previews approve`.
        slug: String,
    },
    /// Its apps, as they are.
    Apps {
        /// What became of the commit.
        deployment: Option<Arc<Deployment>>,
        /// Those that are live.
        apps: Vec<AppName>,
    },
}

/// A reference that is to have a preview.
struct Wanted {
    head: CommitId,
    /// When its head was committed.
    committed_at: DateTime<Utc>,
}

/// What a repository says.
#[derive(Default)]
struct References {
    /// What is to have a preview.
    wanted: BTreeMap<String, Wanted>,
    /// What stays as it is, because its commits aren't here.
    kept: BTreeSet<String>,
}

impl Previews {
    /// None is made before [`Previews::run`], or before somebody asks.
    pub fn new(store: Store, clock: Arc<dyn Clock>, sources: Arc<Sources>) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            sources,
            wake: Notify::new(),
            running: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        })
    }

    /// Makes and removes previews as references come and go, for ever.
    pub async fn run(self: Arc<Self>) {
        let looked = self.sources.looked();
        loop {
            let pause = match self.look(None).await {
                Ok(Some(next)) => (next - self.clock.now())
                    .to_std()
                    .unwrap_or(SETTLE)
                    .min(SWEEP),
                Ok(None) => SWEEP,
                Err(error) => {
                    tracing::warn!(%error, "previews cannot be brought up to date; trying again");
                    BACKOFF
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause.max(SETTLE)) => {}
                () = self.wake.notified() => {}
                () = looked.notified() => {}
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// Asks for a look, without waiting for it.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Whether a source has previews at all.
    pub(crate) async fn are_on(&self, source: SourceId) -> Result<bool, DeployError> {
        let all = self.store.preview_settings().await?;
        let own = all.iter().find(|settings| settings.source == source);
        Ok(own.is_some_and(|own| options(own).enabled))
    }

    /// Brings a source's previews up to date, and shows that of a branch.
    pub(crate) async fn of_branch(
        &self,
        source: SourceId,
        branch: &str,
    ) -> Result<Shown, DeployError> {
        if !self.are_on(source).await? {
            return Ok(Shown::None);
        }
        self.look(Some(source)).await?;
        self.show(source, &format!("refs/heads/{branch}")).await
    }

    /// Brings a source's previews up to date, and shows that of a pull request: of its branch,
    /// where that is a branch of the source's own repository.
    pub(crate) async fn of_pull(
        &self,
        deployer: &Deployer,
        pull: &PullRecord,
    ) -> Result<Shown, DeployError> {
        let source = deployer.source().id;
        if !self.are_on(source).await? {
            return Ok(Shown::None);
        }
        let reference = format!("refs/pull/{}", pull.number);
        if is_waiting(pull) {
            let slug = preview::slug(&reference);
            return Ok(Shown::Waiting { slug });
        }
        if pull.fork.is_none() {
            deployer.origin().refresh().await?;
        }
        self.look(Some(source)).await?;
        match self.show(source, &reference).await? {
            Shown::None => {
                let branch = format!("refs/heads/{}", pull.head_branch);
                self.show(source, &branch).await
            }
            shown => Ok(shown),
        }
    }

    async fn show(&self, source: SourceId, reference: &str) -> Result<Shown, DeployError> {
        let all = self.store.previews().await?;
        let found = all.into_iter().find(|preview| {
            preview.parent == source && preview.reference == reference && !preview.expired
        });
        let Some(found) = found else {
            return Ok(Shown::None);
        };
        let live = self.store.load_live().await?;
        let apps = live
            .apps
            .iter()
            .filter(|(_, app)| app.source == found.source);
        Ok(Shown::Apps {
            apps: apps.map(|(name, _)| name.clone()).collect(),
            deployment: self.store.last_deployment(&found.name).await?.map(Arc::new),
        })
    }

    /// Brings previews up to date; gives when the next one is too old.
    async fn look(&self, only: Option<SourceId>) -> Result<Option<DateTime<Utc>>, DeployError> {
        let _one = self.looking.lock().await;
        let settings = self.store.preview_settings().await?;
        let is_on = |settings: &PreviewSettings| options(settings).enabled;
        let all = self.store.previews().await?;
        if all.is_empty() && !settings.iter().any(|one| is_on(one) || one.since.is_some()) {
            return Ok(None);
        }
        let mut next: Option<DateTime<Utc>> = None;
        for one in settings
            .iter()
            .filter(|one| only.is_none_or(|only| one.source == only))
        {
            let own = all.iter().filter(|preview| preview.parent == one.source);
            // What is wrong with one source doesn't keep the others.
            match self.look_at(one, own.cloned().collect()).await {
                Ok(at) => next = next.into_iter().chain(at).min(),
                Err(error) => {
                    tracing::warn!(source = %one.source, %error, "its previews are not up to date; trying again");
                    let again = self.clock.now() + BACKOFF;
                    next = Some(next.map_or(again, |next| next.min(again)));
                }
            }
        }
        Ok(next)
    }

    async fn look_at(
        &self,
        settings: &PreviewSettings,
        existing: Vec<PreviewRecord>,
    ) -> Result<Option<DateTime<Utc>>, DeployError> {
        let options = options(settings);
        let deployers = self.sources.all();
        let deployer = deployers
            .iter()
            .find(|deployer| deployer.source().id == settings.source);
        let Some(deployer) = deployer.filter(|_| !settings.suspended) else {
            return Ok(None);
        };
        let now = self.clock.now();
        let wanted = if options.enabled {
            self.wanted(deployer).await?
        } else {
            Some(References::default())
        };
        // A repository that isn't there (yet) says nothing of its branches.
        let Some(References { wanted, kept }) = wanted else {
            return Ok(None);
        };
        let is_first = options.enabled && settings.since.is_none();
        if is_first || (!options.enabled && settings.since.is_some()) {
            let since = options.enabled.then_some(now);
            self.store
                .set_previews_since(settings.source, since)
                .await?;
        }
        let ttl = TimeDelta::milliseconds(i64::try_from(options.ttl_ms).unwrap_or(i64::MAX));
        let mut next: Option<DateTime<Utc>> = None;
        let mut known = BTreeMap::new();
        for preview in existing {
            if wanted.contains_key(&preview.reference) {
                known.insert(preview.reference.clone(), preview);
            } else if !kept.contains(&preview.reference) {
                self.remove(&preview).await?;
            }
        }
        for (reference, wanted) in wanted {
            let preview = match known.remove(&reference) {
                Some(preview) if preview.head == wanted.head => preview,
                Some(mut preview) => {
                    (preview.head, preview.head_at, preview.expired) = (wanted.head, now, false);
                    self.store.set_preview_head(&preview).await?;
                    preview
                }
                None => {
                    // Branches that were there before are as old as their commits.
                    let head_at = if is_first {
                        wanted.committed_at.min(now)
                    } else {
                        now
                    };
                    self.add(deployer, &reference, wanted.head, head_at).await?
                }
            };
            let end = preview
                .head_at
                .checked_add_signed(ttl)
                .unwrap_or(DateTime::<Utc>::MAX_UTC);
            if end <= now {
                if !preview.expired {
                    self.running.lock().remove(&preview.source);
                    self.store.clear_preview(preview.source, false).await?;
                    tracing::info!(source = %preview.parent_name, reference, "a preview is too old, and gone");
                }
                continue;
            }
            next = Some(next.map_or(end, |next| next.min(end)));
            self.deploy(deployer, &preview, options.triggers).await?;
        }
        Ok(next)
    }

    /// The references that are to have a preview: branches but the deployed one, and pull
    /// requests that come from elsewhere, once a person lets them.
    async fn wanted(&self, deployer: &Arc<Deployer>) -> Result<Option<References>, DeployError> {
        if !deployer.origin().has_history() {
            return Ok(Some(References::default()));
        }
        let pulls = self.store.open_pulls(deployer.source().id).await?;
        let deployed = deployer
            .origin()
            .branch(deployer.source())
            .map(str::to_owned);
        let path = deployer.origin().at_rest()?;
        let read = tokio::task::spawn_blocking(move || {
            let repository = GitRepository::open(&path)?;
            let checked_out = match deployed {
                Some(deployed) => Some(deployed),
                None => repository.checked_out()?,
            };
            if repository.head(checked_out.as_deref())?.is_none() {
                return Ok(None);
            }
            let References {
                mut wanted,
                mut kept,
            } = References::default();
            for (branch, head, committed_at) in repository.branches()? {
                if checked_out.as_ref() != Some(&branch) {
                    let wants = Wanted { head, committed_at };
                    wanted.insert(format!("refs/heads/{branch}"), wants);
                }
            }
            for pull in pulls.iter().filter(|pull| !is_waiting(pull)) {
                let branch = format!("refs/heads/{}", pull.head_branch);
                if pull.fork.is_none() && wanted.contains_key(&branch) {
                    continue;
                }
                let reference = format!("refs/pull/{}", pull.number);
                if let Some(head) = repository.resolve(&pull.head)? {
                    let committed_at = repository.committed_at(&head)?;
                    wanted.insert(reference, Wanted { head, committed_at });
                } else {
                    // What isn't here (any more) comes with the next event.
                    kept.insert(reference);
                }
            }
            Ok::<_, GitError>(Some(References { wanted, kept }))
        });
        let read = read
            .await
            .map_err(|error| DeployError::Unexpected(error.to_string()))??;
        let Some(References { mut wanted, kept }) = read else {
            return Ok(None);
        };
        if wanted.len() > MAX {
            let mut newest: Vec<_> = wanted
                .iter()
                .map(|(name, of)| (of.committed_at, name.clone()))
                .collect();
            newest.sort_unstable();
            for (_, name) in newest.into_iter().rev().skip(MAX) {
                wanted.remove(&name);
            }
        }
        Ok(Some(References { wanted, kept }))
    }

    async fn add(
        &self,
        deployer: &Deployer,
        reference: &str,
        head: CommitId,
        head_at: DateTime<Utc>,
    ) -> Result<PreviewRecord, DeployError> {
        let parent = deployer.source();
        let source = SourceRecord {
            id: SourceId(self.clock.new_id()),
            name: own_name(parent.id, reference)?,
            branch: None,
            interval: None,
            webhook_secret: None,
            forge: None,
            live_commit: None,
            settled_head: None,
            approved_commit: None,
            suspended: false,
            created_at: self.clock.now(),
            ..parent.clone()
        };
        let preview = PreviewRecord {
            source: source.id,
            name: source.name.clone(),
            parent: parent.id,
            parent_name: parent.name.clone(),
            reference: reference.to_owned(),
            slug: preview::slug(reference),
            head,
            head_at,
            expired: false,
            live_commit: None,
        };
        self.store.add_preview(&source, &preview).await?;
        Ok(preview)
    }

    async fn remove(&self, preview: &PreviewRecord) -> Result<(), DeployError> {
        self.running.lock().remove(&preview.source);
        self.store.clear_preview(preview.source, true).await?;
        tracing::info!(source = %preview.parent_name, reference = preview.reference, "a preview is gone");
        Ok(())
    }

    /// Deploys a preview's head, unless it was dealt with.
    async fn deploy(
        &self,
        parent: &Arc<Deployer>,
        preview: &PreviewRecord,
        triggers: bool,
    ) -> Result<(), DeployError> {
        let Some(record) = self.store.source(&preview.name).await? else {
            return Ok(());
        };
        if record.settled_head.as_ref() == Some(&preview.head) {
            return Ok(());
        }
        let own = self.own(parent, preview, record, triggers);
        own.sync().await.map(drop)
    }

    /// The deployer of a preview, which follows its head.
    fn own(
        &self,
        parent: &Arc<Deployer>,
        preview: &PreviewRecord,
        record: SourceRecord,
        triggers: bool,
    ) -> Arc<Deployer> {
        let mut running = self.running.lock();
        let known = running.get(&preview.source).filter(|(of, own)| {
            let same = matches!(own.origin(), Origin::Preview(origin) if origin.has_triggers() == triggers);
            Arc::ptr_eq(of, parent) && same
        });
        let own = if let Some((_, own)) = known {
            Arc::clone(own)
        } else {
            let origin = PreviewOrigin::new(parent, preview, triggers);
            let options = self.sources.options();
            let own = Deployer::new(options, record, Origin::Preview(Arc::new(origin)));
            let pair = (Arc::clone(parent), Arc::clone(&own));
            running.insert(preview.source, pair);
            own
        };
        if let Origin::Preview(origin) = own.origin() {
            origin.follow(preview.head.clone());
        }
        own
    }

    /// The deployer of a source, also where that is a preview; `None`: this process has none.
    pub(crate) async fn deployer(
        &self,
        source: SourceId,
    ) -> Result<Option<Arc<Deployer>>, picloud_store::StoreError> {
        if let Some(deployer) = self.sources.by_id(source) {
            return Ok(Some(deployer));
        }
        let known = self
            .running
            .lock()
            .get(&source)
            .map(|(_, own)| Arc::clone(own));
        if known.is_some() {
            return Ok(known);
        }
        // One that was dealt with before this process began.
        let all = self.store.previews().await?;
        let Some(preview) = all.into_iter().find(|preview| preview.source == source) else {
            return Ok(None);
        };
        let Some(parent) = self.sources.by_id(preview.parent) else {
            return Ok(None);
        };
        let Some(record) = self.store.source(&preview.name).await? else {
            return Ok(None);
        };
        let settings = self.store.source_settings(preview.parent).await?;
        let triggers = settings.is_some_and(|settings| settings["previews"]["triggers"] == true);
        Ok(Some(self.own(&parent, &preview, record, triggers)))
    }
}

/// Whether a fork's head has no preview because nobody let it.
pub(crate) fn is_waiting(pull: &PullRecord) -> bool {
    pull.fork.is_some() && pull.approved_head.as_ref() != Some(&pull.head)
}

fn options(settings: &PreviewSettings) -> PreviewOptions {
    let found = settings.settings.clone();
    found
        .and_then(|found| serde_json::from_value(found).ok())
        .unwrap_or_default()
}

/// The name of the source that a preview is: the same for the same reference, and of no use to
/// anybody who doesn't look for it.
fn own_name(parent: SourceId, reference: &str) -> Result<SourceName, DeployError> {
    let digest = Sha256::digest(format!("{parent} {reference}"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("preview-{}", &hex[..24]);
    name.parse()
        .map_err(|_| DeployError::Unexpected(format!("{name} is no name of a source")))
}

impl Shown {
    /// For the pusher: lines.
    pub(crate) fn lines(&self, base_url: &str) -> String {
        match self {
            Self::None | Self::Waiting { .. } => String::new(),
            Self::Apps { deployment, apps } => {
                let mut out = String::new();
                match deployment.as_deref() {
                    Some(deployment) if is_live(deployment) => {
                        let took = deployment
                            .duration_ms
                            .map_or_else(String::new, |ms| format!(" in {ms:.0} ms"));
                        let words = if deployment.status == DeploymentStatus::Synced {
                            ("success", "is live")
                        } else {
                            ("warning", "is live in part")
                        };
                        out.push_str(&format!(
                            "{}: a preview of {} {}{took}\n",
                            words.0, deployment.commit, words.1
                        ));
                    }
                    Some(deployment) => out.push_str(&format!(
                        "warning: the preview of {} is {}\n",
                        deployment.commit,
                        deployment.status.as_str()
                    )),
                    None => {}
                }
                for app in apps {
                    out.push_str(&format!("  {base_url}/apps/{app}/\n"));
                }
                out
            }
        }
    }

    /// For the reviewer: Markdown.
    pub(crate) fn markdown(&self, source: &SourceName, base_url: Option<&str>) -> String {
        match self {
            Self::None => String::new(),
            Self::Waiting { slug } => format!(
                "\nA preview of this fork waits for an approval: `picloud previews approve {source} {slug}`\n"
            ),
            Self::Apps { apps, .. } if apps.is_empty() => {
                "\nThere is no preview: nothing of this is live.\n".to_owned()
            }
            Self::Apps { apps, .. } => {
                let base = base_url.unwrap_or_default();
                let list = apps
                    .iter()
                    .map(|app| format!("- [{app}]({base}/apps/{app}/)\n"));
                format!("\n#### Preview\n\n{}", list.collect::<String>())
            }
        }
    }
}

fn is_live(deployment: &Deployment) -> bool {
    matches!(
        deployment.status,
        DeploymentStatus::Synced | DeploymentStatus::Partial
    )
}
