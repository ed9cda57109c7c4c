//! Watches for live configuration that differs from what git declares, whoever changed it and
//! however, and undoes it where the source heals itself.
//!
//! Changes are told by notification. A change that leaves no trace (triggers switched off in a
//! session) is found by a look every few seconds: one round trip that reads nothing but the
//! database's clock of transactions, and stops there while nobody wrote anything.

mod backoff;
mod board;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use picloud_gitops_core::{
    SourceSettings,
    drift::{self, Pair},
};
use picloud_shared::{
    AppId, AppName, Clock, EventSink, LiveState, SourceId,
    drift::{DesiredApp, DriftItem},
    plan::LiveVersion,
};
use picloud_store::{
    Store, StoreError,
    audit::AuditEntry,
    drift::{Look, Marks},
};
use serde_json::json;
use tokio::sync::Mutex;

use self::{backoff::Backoff, board::Board};
use crate::{previews::Previews, reconcile::Sides};

/// How often it is looked, told or not: what leaves no trace is seen within 5 seconds.
const SWEEP: Duration = Duration::from_secs(3);
/// A burst of changes is looked at once.
const SETTLE: Duration = Duration::from_millis(100);
/// The longest wait for a database that is away.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Apps that healing may remove by itself, in percent of the source's; a person decides on more.
const MAX_REMOVED: usize = 30;

/// Where each app stands.
pub struct DriftWatch {
    store: Store,
    clock: Arc<dyn Clock>,
    previews: Arc<Previews>,
    seen: Mutex<Seen>,
    board: RwLock<Board>,
}

/// What the last look saw.
#[derive(Default)]
struct Seen {
    instant: Option<String>,
    version: LiveVersion,
    marks: Marks,
    live: LiveState,
    desired: BTreeMap<SourceId, BTreeMap<AppName, DesiredApp>>,
    /// Of sources that were applied.
    settings: BTreeMap<SourceId, SourceSettings>,
}

/// An app that was asked for.
#[derive(Debug, Clone)]
pub struct AppDrift {
    /// The name that git has for it.
    pub name: AppName,
    /// Whose it is.
    pub source: SourceId,
    /// What differs; empty: nothing does.
    pub items: Vec<DriftItem>,
}

impl DriftWatch {
    /// A watch that has seen nothing.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        previews: Arc<Previews>,
        events: Arc<dyn EventSink>,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            previews,
            seen: Mutex::default(),
            board: RwLock::new(Board::new(events)),
        })
    }

    /// Whether the app of this id was seen to drift.
    pub fn is_drifted(&self, app: AppId) -> bool {
        self.board.read().is_drifted(app)
    }

    /// Looks now, and tells of all apps that drift, by name.
    pub async fn all(&self) -> Result<Vec<AppDrift>, StoreError> {
        let mut seen = self.seen.lock().await;
        self.look(&mut seen).await?;
        Ok(self.board.read().all())
    }

    /// Looks now, and tells of the app of that name (git's or the live one) or id.
    pub async fn app(&self, asked: &str) -> Result<Option<AppDrift>, StoreError> {
        self.find(asked, |source, name, pair| AppDrift {
            items: pair.items(source, &name),
            source,
            name,
        })
        .await
    }

    /// As [`DriftWatch::app`], with both sides.
    pub(crate) async fn sides(&self, asked: &str) -> Result<Option<(AppDrift, Sides)>, StoreError> {
        self.find(asked, |source, name, pair| {
            let drift = AppDrift {
                items: pair.items(source, &name),
                source,
                name: name.clone(),
            };
            let sides = Sides {
                name,
                desired: pair.desired.map(|app| Arc::clone(&app.spec)),
                live: pair.live.cloned(),
            };
            (drift, sides)
        })
        .await
    }

    async fn find<T>(
        &self,
        asked: &str,
        show: impl FnOnce(SourceId, AppName, &Pair<'_>) -> T,
    ) -> Result<Option<T>, StoreError> {
        let mut seen = self.seen.lock().await;
        self.look(&mut seen).await?;
        for source in seen.settings.keys() {
            let desired = seen.desired_of(*source);
            for (name, pair) in drift::pairs(*source, desired, &seen.live) {
                let live = pair.live.map(|app| (app.id, &app.spec.name));
                let id = live.map(|(id, _)| id).or(pair.desired.map(|app| app.id));
                let named = name.as_str() == asked
                    || live.is_some_and(|(_, name)| name.as_str() == asked)
                    || id.is_some_and(|id| id.to_string() == asked);
                if named {
                    return Ok(Some(show(*source, name, &pair)));
                }
            }
        }
        Ok(None)
    }

    /// Watches for ever. Without the database there is nothing to be seen.
    pub async fn run(self: Arc<Self>) {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.listen(&mut pause).await {
                Ok(never) => match never {},
                Err(error) if error.is_unavailable() => {
                    tracing::debug!(%error, "the database is away; drift is looked for when it is back");
                }
                Err(error) => tracing::error!(%error, "drift cannot be looked for; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_BACKOFF);
        }
    }

    async fn listen(&self, pause: &mut Duration) -> Result<std::convert::Infallible, StoreError> {
        let mut told = self.store.listen().await?;
        let mut backoff = Backoff::default();
        loop {
            {
                let mut seen = self.seen.lock().await;
                self.look(&mut seen).await?;
            }
            *pause = Duration::from_millis(100);
            self.heal_due(&mut backoff).await;
            let sweep = backoff.next(self.clock.now()).unwrap_or(SWEEP).min(SWEEP);
            // An elapsed sweep is a reason to look like any other.
            if let Ok(told) = tokio::time::timeout(sweep, told.next()).await {
                told?;
                tokio::time::sleep(SETTLE).await;
            }
        }
    }

    /// Brings what is seen up to date. Costs one round trip where nobody wrote anything.
    async fn look(&self, seen: &mut Seen) -> Result<(), StoreError> {
        let instant = self.store.instant().await?;
        if seen.instant.as_ref() == Some(&instant) {
            return Ok(());
        }
        let look = self.store.look(&seen.marks).await?;
        let missed = seen.missed(&look);
        let changed = seen.take(look);
        for (source, names) in changed {
            let Some(settings) = seen.settings.get(&source) else {
                self.board.write().forget(source);
                continue;
            };
            let desired = seen.desired_of(source);
            let pairs = drift::pairs(source, desired, &seen.live);
            let mut board = self.board.write();
            for name in names {
                let pair = pairs.get(&name);
                let id = pair.and_then(|pair| pair.live.map(|app| app.id));
                let items = pair.map_or_else(Vec::new, |pair| pair.items(source, &name));
                board.put(
                    source,
                    &name,
                    id,
                    &items,
                    settings.self_heal,
                    self.clock.now(),
                );
            }
        }
        seen.instant = Some(instant);
        if let Some(apps) = missed {
            tracing::warn!(
                apps = apps.len(),
                "the live configuration was changed without a trace; telling the nodes"
            );
            self.store.note_edits(&apps).await?;
        }
        Ok(())
    }

    /// Heals what drifts in sources that heal themselves, each app no sooner than it may be again.
    async fn heal_due(&self, backoff: &mut Backoff) {
        let now = self.clock.now();
        let wanted = self.board.read().to_heal();
        backoff.keep(&wanted, now);
        for (source, apps) in wanted {
            let due: BTreeSet<AppName> = apps
                .into_iter()
                .filter(|app| backoff.is_due(app, now))
                .collect();
            if due.is_empty() {
                continue;
            }
            let deployer = match self.previews.deployer(source).await {
                Ok(Some(deployer)) => deployer,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%error, "drift cannot be healed; trying again");
                    continue;
                }
            };
            for app in &due {
                backoff.tried(app, now);
            }
            if self.removes_too_much(source, &due).await {
                tracing::error!(source = %deployer.source().name, "drift is not healed by itself: it would remove too many apps; `picloud heal` does it");
                continue;
            }
            match deployer.heal_by_itself(&due).await {
                Ok(Some(deployment)) => {
                    let entry = AuditEntry {
                        id: self.clock.new_id(),
                        at: self.clock.now(),
                        key: None,
                        actor: "self_heal".to_owned(),
                        action: "source.heal".to_owned(),
                        target: deployment.source.to_string(),
                        app: None,
                        detail: json!({ "deployment": deployment.id, "apps": due }),
                    };
                    if let Err(error) = self.store.append_audit(&entry).await {
                        tracing::error!(%error, "a healing could not be written to the audit log");
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(source = %deployer.source().name, %error, "drift could not be healed; trying again");
                }
            }
        }
    }

    async fn removes_too_much(&self, source: SourceId, due: &BTreeSet<AppName>) -> bool {
        let seen = self.seen.lock().await;
        let desired = seen.desired_of(source);
        let removed = due.iter().filter(|app| !desired.contains_key(*app)).count();
        let all = seen
            .live
            .apps
            .values()
            .filter(|app| app.source == source)
            .count();
        removed > 1 && removed * 100 > all * MAX_REMOVED
    }
}

impl Seen {
    fn desired_of(&self, source: SourceId) -> &BTreeMap<AppName, DesiredApp> {
        static NONE: BTreeMap<AppName, DesiredApp> = BTreeMap::new();
        self.desired.get(&source).unwrap_or(&NONE)
    }

    /// The apps that changed although nobody was told of it; `None`: there is nothing to be told.
    fn missed(&self, look: &Look) -> Option<Vec<AppId>> {
        self.instant.as_ref()?;
        let before = self.version.generation + self.version.edits;
        let untold: Vec<AppId> = look
            .live
            .iter()
            .filter(|(app, touched)| {
                let known = self.live.apps.values().find(|known| known.id == app.id);
                *touched <= before && known != Some(app)
            })
            .map(|(app, _)| app.id)
            .collect();
        let vanished = !look.gone.is_empty() && look.version == self.version;
        (vanished || !untold.is_empty()).then_some(untold)
    }

    /// Takes in what changed; gives the apps that are concerned, by source.
    fn take(&mut self, look: Look) -> BTreeMap<SourceId, BTreeSet<AppName>> {
        let mut changed: BTreeMap<SourceId, BTreeSet<AppName>> = BTreeMap::new();
        let mut ids: BTreeSet<AppId> = look.gone.iter().copied().collect();
        ids.extend(look.live.iter().map(|(app, _)| app.id));
        self.live.apps.retain(|name, app| {
            let stays = !ids.contains(&app.id);
            if !stays {
                changed.entry(app.source).or_default().insert(name.clone());
            }
            stays
        });
        for (app, _) in look.live {
            let name = app.spec.name.clone();
            changed.entry(app.source).or_default().insert(name.clone());
            self.live.apps.insert(name, app);
        }
        for (source, name, app) in look.desired {
            changed.entry(source).or_default().insert(name.clone());
            let desired = self.desired.entry(source).or_default();
            match app {
                Some(app) => desired.insert(name, app),
                None => desired.remove(&name),
            };
        }
        for (source, settings) in look.settings {
            // All of it: whether it heals itself may be another answer now.
            let names = self.desired_of(source).keys().cloned();
            changed.entry(source).or_default().extend(names);
            match settings {
                Some(settings) => {
                    let settings = serde_json::from_value(settings).unwrap_or_else(|error| {
                        tracing::warn!(%error, "the settings of a source cannot be read; the defaults hold");
                        SourceSettings::default()
                    });
                    self.settings.insert(source, settings);
                }
                None => {
                    self.settings.remove(&source);
                }
            }
        }
        // An app that has another name or source now is the app of this id for git.
        for (source, desired) in &self.desired {
            for (name, _) in desired.iter().filter(|(_, app)| ids.contains(&app.id)) {
                changed.entry(*source).or_default().insert(name.clone());
            }
        }
        self.version = look.version;
        self.live.version = look.version;
        self.marks = look.marks;
        changed
    }
}
