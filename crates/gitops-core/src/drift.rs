//! Where live differs from what the last applied commit declares, and the plan that undoes it.

use std::collections::{BTreeMap, BTreeSet};

use picloud_shared::{
    AppName, Plan, SourceId,
    drift::{DamagedItem, DesiredApp, DriftField, DriftItem},
    plan::{AppAction, AppPlan, Change, ChangeKind, FieldChange, ItemKind, LiveApp, LiveState},
};
use serde_json::{Value, json};

use crate::diff::{self, Items};

/// An app on both sides, as far as it is there.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// What git declares.
    pub desired: Option<&'a DesiredApp>,
    /// What is live.
    pub live: Option<&'a LiveApp>,
}

/// The apps of a source by the name that git has for each, or that live has where git has none.
/// An app whose name or source was changed by hand is found by its id.
pub fn pairs<'a>(
    source: SourceId,
    desired: &'a BTreeMap<AppName, DesiredApp>,
    live: &'a LiveState,
) -> BTreeMap<AppName, Pair<'a>> {
    let mut pairs = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for (name, app) in desired {
        let same = live
            .apps
            .get(name)
            .filter(|live| live.source == source || live.id == app.id);
        let found = same.or_else(|| live.apps.values().find(|live| live.id == app.id));
        taken.extend(found.map(|live| live.id));
        let pair = Pair {
            desired: Some(app),
            live: found,
        };
        pairs.insert(name.clone(), pair);
    }
    let unknown = live
        .apps
        .iter()
        .filter(|(_, app)| app.source == source && !taken.contains(&app.id));
    for (name, app) in unknown {
        let pair = Pair {
            desired: None,
            live: Some(app),
        };
        pairs.entry(name.clone()).or_insert(pair);
    }
    pairs
}

impl Pair<'_> {
    /// What differs, from what is desired to what is live.
    fn changes(&self, source: SourceId, name: &AppName) -> Vec<Change> {
        let mut before = self
            .desired
            .map(|app| diff::items(&app.spec))
            .unwrap_or_default();
        let mut after = self
            .live
            .map(|app| diff::live_items(app, name))
            .unwrap_or_default();
        let put = |items: &mut Items, field: &str, value: Value| {
            if let Some(fields) = items.get_mut(&(ItemKind::App, name.to_string())) {
                fields.insert(field.to_owned(), value);
            }
        };
        if let (Some(desired), Some(live)) = (self.desired, self.live) {
            if let Some(commit) = &desired.pinned_commit {
                put(&mut before, "pinned_commit", json!(commit));
            }
            if let Some(commit) = &live.pinned_commit {
                put(&mut after, "pinned_commit", json!(commit));
            }
            if live.source != source {
                put(&mut before, "source", json!(source));
                put(&mut after, "source", json!(live.source));
            }
        }
        diff::compare(name, &before, &after)
    }

    /// What differs, as the API shows it. Empty: nothing does.
    pub fn items(&self, source: SourceId, name: &AppName) -> Vec<DriftItem> {
        let mut items: Vec<DriftItem> = Vec::new();
        let mut of_app: Vec<DriftField> = Vec::new();
        for change in same_routes(self.changes(source, name)) {
            let fields = change.fields.into_iter().map(|field| DriftField {
                path: field.path,
                desired: field.old,
                live: field.new,
            });
            if change.kind == ItemKind::Check {
                // Checks are the app's own, by their place in its list.
                of_app.extend(fields.map(|field| DriftField {
                    path: format!("checks.{}.{}", change.name, field.path),
                    ..field
                }));
                continue;
            }
            items.push(DriftItem {
                kind: change.kind,
                name: change.name,
                change: change.change,
                fields: fields.collect(),
            });
        }
        if !of_app.is_empty() {
            match items.iter_mut().find(|item| item.kind == ItemKind::App) {
                Some(item) => item.fields.append(&mut of_app),
                None => items.insert(
                    0,
                    DriftItem {
                        kind: ItemKind::App,
                        name: name.to_string(),
                        change: ChangeKind::Changed,
                        fields: of_app,
                    },
                ),
            }
        }
        items
    }
}

/// Puts together what was taken apart by name: a route of the same path, where its methods alone
/// tell it from what it was.
fn same_routes(mut changes: Vec<Change>) -> Vec<Change> {
    let path = |change: &Change| {
        let field = change.fields.iter().find(|field| field.path == "path")?;
        let value = if change.change == ChangeKind::Removed {
            &field.old
        } else {
            &field.new
        };
        value.as_str().map(str::to_owned)
    };
    let of = |changes: &[Change], kind: ChangeKind| {
        let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, change) in changes.iter().enumerate() {
            if change.kind == ItemKind::Route && change.change == kind {
                let path = path(change).unwrap_or_default();
                found.entry(path).or_default().push(index);
            }
        }
        found
    };
    let added = of(&changes, ChangeKind::Added);
    let mut gone = BTreeSet::new();
    for (path, removed) in of(&changes, ChangeKind::Removed) {
        let ([before], Some([after])) = (removed.as_slice(), added.get(&path).map(Vec::as_slice))
        else {
            continue;
        };
        let live: BTreeMap<String, Value> = changes[*after]
            .fields
            .iter()
            .map(|field| (field.path.clone(), field.new.clone()))
            .collect();
        let change = &mut changes[*before];
        change.change = ChangeKind::Changed;
        for field in &mut change.fields {
            field.new = live.get(&field.path).cloned().unwrap_or(Value::Null);
        }
        for (path, new) in live {
            if !change.fields.iter().any(|field| field.path == path) {
                let old = Value::Null;
                change.fields.push(FieldChange { path, old, new });
            }
        }
        change.fields.retain(|field| field.old != field.new);
        change.fields.sort_by(|a, b| a.path.cmp(&b.path));
        gone.insert(*after);
    }
    let mut index = 0;
    changes.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
    changes
}

/// The plan that makes live what git declares, for the apps of `only` or for all of the source.
/// An app that another source has by now is left to it.
pub fn heal(
    source: SourceId,
    desired: &BTreeMap<AppName, DesiredApp>,
    live: &LiveState,
    only: Option<&BTreeSet<AppName>>,
) -> Plan {
    let mut plan = Plan {
        parent: live.version,
        ..Plan::default()
    };
    for (name, pair) in pairs(source, desired, live) {
        let wanted = only.is_none_or(|only| only.contains(&name));
        if !wanted || pair.items(source, &name).is_empty() {
            continue;
        }
        let action = match (pair.desired, pair.live) {
            (Some(_), Some(_)) => AppAction::Update,
            (None, _) => AppAction::Remove,
            (Some(_), None) if live.apps.contains_key(&name) => continue,
            (Some(_), None) => AppAction::Create,
        };
        // A plan tells it from live to desired.
        let mut changes = pair.changes(source, &name);
        for change in &mut changes {
            change.change = match change.change {
                ChangeKind::Added => ChangeKind::Removed,
                ChangeKind::Removed => ChangeKind::Added,
                ChangeKind::Changed => ChangeKind::Changed,
            };
            for field in &mut change.fields {
                std::mem::swap(&mut field.old, &mut field.new);
            }
        }
        let app = AppPlan {
            action,
            desired: pair.desired.map(|app| app.spec.clone()),
            live: pair.live.map(|app| app.spec.clone()),
            changes,
        };
        plan.apps.insert(name, app);
    }
    plan
}

/// Files live apps under the names that git has for them, so that an app whose name or source was
/// changed by hand is planned as the app that it is, with its data.
pub fn restore_identity(
    source: SourceId,
    desired: &BTreeMap<AppName, DesiredApp>,
    live: &mut LiveState,
) {
    for (name, app) in desired {
        if live
            .apps
            .get(name)
            .is_some_and(|live| live.source == source || live.id != app.id)
        {
            continue;
        }
        let strayed = live
            .apps
            .iter()
            .find(|(_, live)| live.id == app.id)
            .map(|(name, _)| name.clone());
        let Some(mut found) = strayed.and_then(|name| live.apps.remove(&name)) else {
            continue;
        };
        let mut fields = json!({
            "name": found.spec.name, "dir": found.spec.dir, "description": found.spec.description,
        });
        if found.source != source {
            fields["source"] = json!(found.source);
        }
        found.damaged.push(DamagedItem {
            kind: ItemKind::App,
            name: name.to_string(),
            fields,
        });
        found.source = source;
        live.apps.insert(name.clone(), found);
    }
}
