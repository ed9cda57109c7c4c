//! What a deployer knows of the database: good for as long as the live version is the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use picloud_gitops_core::{Loaded, drift};
use picloud_shared::{
    AppId, AppName, Plan, SourceId,
    deployment::Deployment,
    drift::DesiredApp,
    plan::{AppAction, LiveApp, LiveState},
};
use picloud_store::{Applied, Declared, DesiredChange, Store, StoreError};

/// Live, and what the last applied commit of the source declares.
pub(super) struct Known {
    source: SourceId,
    pub(super) live: LiveState,
    pub(super) desired: BTreeMap<AppName, DesiredApp>,
}

/// What is known, from memory where nobody changed it.
pub(super) async fn current<'k>(
    store: &Store,
    source: SourceId,
    known: &'k mut Option<Known>,
) -> Result<&'k Known, StoreError> {
    let mut version = store.live_version().await?;
    if let Some(fresh) = known.take_if(|known| known.live.version == version) {
        return Ok(known.insert(fresh));
    }
    loop {
        let live = store.load_live_checked().await?;
        let desired = store.desired_apps(source).await?;
        version = store.live_version().await?;
        if live.version != version {
            // Somebody applied between the two.
            continue;
        }
        let mut fresh = Known {
            source,
            live,
            desired,
        };
        drift::restore_identity(source, &fresh.desired, &mut fresh.live);
        return Ok(known.insert(fresh));
    }
}

impl Known {
    /// The ids of a plan's apps, as far as they have one.
    pub(super) fn ids(&self, plan: &Plan) -> BTreeMap<AppName, AppId> {
        let id = |name: &AppName| {
            let live = self.live.apps.get(name).map(|app| app.id);
            live.or_else(|| self.desired.get(name).map(|app| app.id))
        };
        plan.apps
            .keys()
            .filter_map(|name| Some((name.clone(), id(name)?)))
            .collect()
    }

    /// How a commit changes what is desired.
    pub(super) fn change(&self, loaded: &Loaded, plan: &Plan) -> DesiredChange {
        let refused: BTreeSet<&AppName> = plan
            .errors
            .iter()
            .filter_map(|finding| finding.app.as_ref())
            .collect();
        let own = |name: &AppName| {
            let app = self.live.apps.get(name);
            app.is_none_or(|app| app.source == self.source)
        };
        let put = loaded.desired.apps.iter().filter(|(name, spec)| {
            own(name)
                && !refused.contains(name)
                && self
                    .desired
                    .get(*name)
                    .is_none_or(|known| !Arc::ptr_eq(&known.spec, spec) && known.spec != **spec)
        });
        let removed = self.desired.keys().filter(|name| {
            let gone = match plan.apps.get(*name) {
                Some(app) => app.action == AppAction::Remove,
                // Not live either: only one that is declared, but invalid, is waited for.
                None => {
                    !self.live.apps.contains_key(*name)
                        && !loaded
                            .desired
                            .invalid
                            .iter()
                            .any(|app| app.name.as_ref() == Some(*name))
                }
            };
            gone && !loaded.desired.apps.contains_key(*name)
        });
        DesiredChange {
            put: put
                .map(|(_, spec)| Declared {
                    spec: Arc::clone(spec),
                    pinned_commit: None,
                })
                .collect(),
            removed: removed.cloned().collect(),
        }
    }

    /// What is known after a plan was carried out, without asking the database for all of it.
    pub(super) fn after(
        mut self,
        plan: &Plan,
        desired: &DesiredChange,
        applied: &Applied,
        deployment: &Deployment,
    ) -> Option<Self> {
        if !self.live.edited.is_empty() {
            // Contents were put right; which apps that concerns is asked for anew.
            return None;
        }
        self.live.version = applied.version;
        for name in &plan.kept {
            if let Some(app) = self.live.apps.get_mut(name)
                && app.pinned_commit.is_none()
            {
                app.pinned_commit.clone_from(&deployment.previous_commit);
            }
        }
        for name in &plan.released {
            if let Some(app) = self.live.apps.get_mut(name) {
                app.pinned_commit = None;
            }
        }
        for (name, change) in &plan.apps {
            match (&change.desired, applied.ids.get(name)) {
                (Some(spec), Some(id)) => {
                    let app = LiveApp {
                        id: *id,
                        source: self.source,
                        pinned_commit: None,
                        spec: Arc::clone(spec),
                        damaged: Vec::new(),
                    };
                    self.live.apps.insert(name.clone(), app);
                }
                _ => {
                    self.live.apps.remove(name);
                }
            }
        }
        for name in &desired.removed {
            self.desired.remove(name);
        }
        for declared in &desired.put {
            let name = &declared.spec.name;
            let app = DesiredApp {
                id: self.live.apps.get(name).map(|app| app.id)?,
                pinned_commit: declared.pinned_commit.clone(),
                spec: Arc::clone(&declared.spec),
            };
            self.desired.insert(name.clone(), app);
        }
        for name in plan.kept.iter().chain(&plan.released) {
            if let (Some(app), Some(live)) = (self.desired.get_mut(name), self.live.apps.get(name))
            {
                app.pinned_commit.clone_from(&live.pinned_commit);
            }
        }
        Some(self)
    }
}
