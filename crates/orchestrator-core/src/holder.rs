//! The snapshot that is served: swapped whole, held by each request for as long as it lasts.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use picloud_shared::{
    AppId, AppName, AppSnapshot, CommitId, Limits, SourceId, plan::LiveVersion,
    snapshot::SourceSnapshot,
};
use picloud_store::SnapshotDelta;
use tokio::sync::watch;

use crate::{
    disk,
    routes::RouteTable,
    stats::{AppStats, Stats},
};

/// What is served at one generation.
pub struct Served {
    /// Which live version this is; `None`: nothing was ever deployed.
    pub version: Option<LiveVersion>,
    pub(crate) apps: HashMap<AppName, Arc<ServedApp>>,
    pub(crate) domains: HashMap<String, Arc<ServedApp>>,
    ids: HashMap<AppId, AppName>,
    /// When it began to be served.
    pub(crate) since: Instant,
}

impl Default for Served {
    fn default() -> Self {
        Self {
            version: None,
            apps: HashMap::new(),
            domains: HashMap::new(),
            ids: HashMap::new(),
            since: Instant::now(),
        }
    }
}

/// One app, with all that a request needs looked up.
pub(crate) struct ServedApp {
    pub(crate) snapshot: Arc<AppSnapshot>,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) limits: Limits,
    pub(crate) commit: CommitId,
    pub(crate) commit_header: HeaderValue,
    pub(crate) stats: Arc<AppStats>,
}

impl Served {
    /// How many apps are served.
    pub fn app_count(&self) -> usize {
        self.apps.len()
    }

    pub(crate) fn by_id(&self, id: AppId) -> Option<&Arc<ServedApp>> {
        self.apps.get(self.ids.get(&id)?)
    }

    pub(crate) fn apps(&self) -> impl Iterator<Item = &Arc<ServedApp>> {
        self.apps.values()
    }

    /// Whether an app owns this host name.
    pub fn owns_domain(&self, host: &str) -> bool {
        self.domains.contains_key(host)
    }

    /// Whether there is an app of this name.
    pub fn serves(&self, app: &str) -> bool {
        self.apps.contains_key(app)
    }

    /// The snapshots of all apps.
    pub fn snapshots(&self) -> impl Iterator<Item = &Arc<AppSnapshot>> {
        self.apps.values().map(|app| &app.snapshot)
    }
}

/// Holds what is served.
pub struct SnapshotHolder {
    served: ArcSwap<Served>,
    pub(crate) stats: Stats,
    disk: Option<disk::Disk>,
    version: watch::Sender<Option<LiveVersion>>,
}

impl SnapshotHolder {
    /// A holder that serves what was kept below `dir`, if anything was.
    pub fn open(dir: Option<PathBuf>) -> Self {
        let disk = dir.map(disk::Disk::new);
        let holder = Self {
            served: ArcSwap::default(),
            stats: Stats::default(),
            disk,
            version: watch::Sender::new(None),
        };
        if let Some(kept) = holder.disk.as_ref().and_then(disk::Disk::load) {
            holder.swap(
                kept.version,
                kept.apps.into_iter().map(Arc::new),
                &kept.sources,
            );
        }
        holder
    }

    /// What is served now.
    pub fn served(&self) -> Arc<Served> {
        self.served.load_full()
    }

    pub(crate) fn guard(&self) -> arc_swap::Guard<Arc<Served>> {
        self.served.load()
    }

    /// Tells which version is served, and each that comes after.
    pub fn watch(&self) -> watch::Receiver<Option<LiveVersion>> {
        self.version.subscribe()
    }

    /// Serves what changed, and keeps it on disk. Gives the apps that are new.
    pub fn update(&self, delta: SnapshotDelta) -> Vec<Arc<AppSnapshot>> {
        let before = self.served();
        let changed: HashMap<AppName, Arc<AppSnapshot>> = delta
            .changed
            .into_iter()
            .map(|app| (app.spec.name.clone(), Arc::new(app)))
            .collect();
        let apps: Vec<Arc<AppSnapshot>> = delta
            .live
            .iter()
            .filter_map(|name| {
                let new = changed.get(name);
                new.or_else(|| before.apps.get(name).map(|app| &app.snapshot))
                    .map(Arc::clone)
            })
            .collect();
        self.swap(delta.version, apps.iter().map(Arc::clone), &delta.sources);
        if let Some(disk) = &self.disk
            && let Err(error) = disk.store(delta.version, &apps, &delta.sources)
        {
            tracing::warn!(%error, "the snapshot could not be kept on disk; a start without the database would serve an older one");
        }
        changed.into_values().collect()
    }

    fn swap(
        &self,
        version: LiveVersion,
        apps: impl Iterator<Item = Arc<AppSnapshot>>,
        sources: &BTreeMap<SourceId, SourceSnapshot>,
    ) {
        let before = self.served();
        let mut served = Served {
            version: Some(version),
            ..Served::default()
        };
        for snapshot in apps {
            let commit = snapshot.pinned_commit.clone().or_else(|| {
                sources
                    .get(&snapshot.source)
                    .map(|source| source.commit.clone())
            });
            let Some(commit) = commit else { continue };
            let name = snapshot.spec.name.clone();
            let same = before
                .apps
                .get(&name)
                .filter(|app| Arc::ptr_eq(&app.snapshot, &snapshot));
            let app = match same {
                Some(app) if app.commit == commit => Arc::clone(app),
                same => Arc::new(ServedApp {
                    routes: same.map_or_else(
                        || Arc::new(RouteTable::new(&snapshot)),
                        |app| Arc::clone(&app.routes),
                    ),
                    limits: snapshot.spec.effective_limits(),
                    commit_header: HeaderValue::from_str(commit.as_str())
                        .unwrap_or(HeaderValue::from_static("")),
                    commit,
                    stats: self.stats.of(snapshot.id, &name),
                    snapshot,
                }),
            };
            for domain in &app.snapshot.spec.domains {
                served.domains.insert(domain.clone(), Arc::clone(&app));
            }
            served.ids.insert(app.snapshot.id, name.clone());
            served.apps.insert(name, app);
        }
        self.served.store(Arc::new(served));
        self.version.send_replace(Some(version));
    }
}
