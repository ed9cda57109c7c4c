//! Which apps drift, and who is told when that changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use picloud_shared::{
    AppId, AppName, EventSink, LiveEvent, SourceId, drift::DriftItem, live_event::DriftEvent,
};

use super::AppDrift;

/// The apps that drift.
pub(super) struct Board {
    events: Arc<dyn EventSink>,
    drifted: BTreeMap<(SourceId, AppName), Entry>,
}

struct Entry {
    id: Option<AppId>,
    items: Vec<DriftItem>,
    self_heal: bool,
}

impl Board {
    pub(super) fn new(events: Arc<dyn EventSink>) -> Self {
        Self {
            events,
            drifted: BTreeMap::new(),
        }
    }

    pub(super) fn is_drifted(&self, app: AppId) -> bool {
        self.drifted.values().any(|entry| entry.id == Some(app))
    }

    pub(super) fn all(&self) -> Vec<AppDrift> {
        let mut all: Vec<AppDrift> = self
            .drifted
            .iter()
            .map(|((source, name), entry)| AppDrift {
                name: name.clone(),
                source: *source,
                items: entry.items.clone(),
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Writes where an app stands, and tells of it where that is another place than before.
    pub(super) fn put(
        &mut self,
        source: SourceId,
        name: &AppName,
        id: Option<AppId>,
        items: &[DriftItem],
        self_heal: bool,
        at: DateTime<Utc>,
    ) {
        let key = (source, name.clone());
        let count = items.len();
        let before = if items.is_empty() {
            self.drifted.remove(&key).map(|entry| entry.items)
        } else {
            let entry = Entry {
                id,
                items: items.to_vec(),
                self_heal,
            };
            self.drifted.insert(key, entry).map(|entry| entry.items)
        };
        if before.unwrap_or_default() != items {
            self.events.publish(LiveEvent::Drift(DriftEvent {
                app: name.clone(),
                drifted: count > 0,
                items: count,
                at,
            }));
        }
    }

    /// Forgets a source that is gone.
    pub(super) fn forget(&mut self, source: SourceId) {
        self.drifted.retain(|(of, _), _| *of != source);
    }

    /// The apps that are to be healed by themselves.
    pub(super) fn to_heal(&self) -> BTreeMap<SourceId, BTreeSet<AppName>> {
        let mut wanted: BTreeMap<SourceId, BTreeSet<AppName>> = BTreeMap::new();
        for ((source, name), _) in self.drifted.iter().filter(|(_, entry)| entry.self_heal) {
            wanted.entry(*source).or_default().insert(name.clone());
        }
        wanted
    }
}
