//! What apps need of one another: an app is no newer than what it depends on.

use std::collections::{BTreeMap, BTreeSet};

use picloud_shared::{AppName, Diagnostic, Severity, plan::InvalidApp};

use super::{Loaded, LoadedApp, join};
use crate::{decode::did_you_mean, yaml::Place};

/// One entry of `depends_on`.
#[derive(Debug, Clone)]
pub(super) struct Dependency {
    pub(super) name: AppName,
    pub(super) place: Place,
    /// The line it stands in.
    pub(super) line: Option<String>,
}

/// Finds dependencies that are not there or lead back, and holds back the apps whose dependencies
/// are not valid.
pub(super) fn settle(apps: &BTreeMap<&AppName, &LoadedApp>, loaded: &mut Loaded) {
    let wanted: BTreeMap<&AppName, &LoadedApp> = apps
        .iter()
        .filter(|(_, app)| !app.depends_on.is_empty())
        .map(|(name, app)| (*name, *app))
        .collect();
    if wanted.is_empty() {
        return;
    }
    for (name, app) in &wanted {
        for dependency in &app.depends_on {
            if !apps.contains_key(&dependency.name) {
                let names = apps.keys().map(|name| name.as_str());
                let hint = did_you_mean(dependency.name.as_str(), names)
                    .or_else(|| Some("name an app of the same source".to_owned()));
                let message = format!("the source has no app `{}`", dependency.name);
                refuse(loaded, app, dependency, "E0212", message, hint);
            } else if let Some(way) = way_back(&wanted, &dependency.name, name) {
                let hint = Some("leave one of these dependencies out".to_owned());
                let message = format!("the app depends on itself: {name} → {}", way.join(" → "));
                refuse(loaded, app, dependency, "E0213", message, hint);
            }
        }
    }
    // What is held back holds back others.
    loop {
        let blocked = wanted.iter().find_map(|(name, app)| {
            let missing =
                |dependency: &&Dependency| !loaded.desired.apps.contains_key(&dependency.name);
            loaded.desired.apps.contains_key(*name).then_some(())?;
            Some((*app, app.depends_on.iter().find(missing)?))
        });
        let Some((app, dependency)) = blocked else {
            break;
        };
        let message = format!("the app waits for `{}`, which has errors", dependency.name);
        let hint = Some("it stays as it is until that is valid again".to_owned());
        refuse(loaded, app, dependency, "E0214", message, hint);
    }
    for (name, app) in wanted {
        if loaded.desired.apps.contains_key(name) {
            let names = app
                .depends_on
                .iter()
                .map(|dependency| dependency.name.clone());
            loaded.depends_on.insert(name.clone(), names.collect());
        }
    }
}

/// The way from one app to another along dependencies, without its beginning.
fn way_back(
    apps: &BTreeMap<&AppName, &LoadedApp>,
    from: &AppName,
    to: &AppName,
) -> Option<Vec<String>> {
    let mut came: BTreeMap<&AppName, Option<&AppName>> = BTreeMap::new();
    let (start, _) = apps.get_key_value(from)?;
    came.insert(*start, None);
    let mut waiting = vec![*start];
    while let Some(at) = waiting.pop() {
        if at == to {
            let mut way = vec![at.to_string()];
            let mut step = at;
            while let Some(Some(before)) = came.get(step) {
                way.insert(0, before.to_string());
                step = before;
            }
            return Some(way);
        }
        for dependency in apps.get(at).into_iter().flat_map(|app| &app.depends_on) {
            if let Some((next, _)) = apps.get_key_value(&dependency.name)
                && !came.contains_key(*next)
            {
                came.insert(*next, Some(at));
                waiting.push(*next);
            }
        }
    }
    None
}

fn refuse(
    loaded: &mut Loaded,
    app: &LoadedApp,
    dependency: &Dependency,
    code: &str,
    message: String,
    hint: Option<String>,
) {
    let name = app.name.as_ref().map(|(name, _)| name.clone());
    loaded.diagnostics.push(Diagnostic {
        path: join(&app.dir, "app.yaml"),
        line: dependency.place.line,
        column: dependency.place.column,
        length: dependency.place.length,
        severity: Severity::Error,
        code: code.to_owned(),
        message,
        hint,
        excerpt: dependency.line.clone(),
        app: name.clone(),
    });
    if let Some(name) = name
        && loaded.desired.apps.remove(&name).is_some()
    {
        loaded.desired.invalid.push(InvalidApp {
            dir: app.dir.clone(),
            name: Some(name),
        });
    }
}

/// The apps that go with others: those that depend on them, and so on.
pub fn dependents<'a>(
    depends_on: &'a BTreeMap<AppName, BTreeSet<AppName>>,
    of: &BTreeSet<AppName>,
) -> BTreeMap<&'a AppName, &'a AppName> {
    let mut found: BTreeMap<&AppName, &AppName> = BTreeMap::new();
    loop {
        let next = depends_on.iter().find_map(|(name, dependencies)| {
            let gone = |app: &&AppName| of.contains(*app) || found.contains_key(*app);
            let new = !of.contains(name) && !found.contains_key(name);
            Some((name, dependencies.iter().find(gone)?)).filter(|_| new)
        });
        match next {
            Some((name, because)) => found.insert(name, because),
            None => return found,
        };
    }
}
