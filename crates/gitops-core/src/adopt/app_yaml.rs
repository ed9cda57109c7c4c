//! The manifest that declares what is live, as close as possible to the one that is there.

use std::collections::{BTreeMap, BTreeSet};

use picloud_shared::{
    AppSpec, LimitsPatch, ScriptPath,
    app::{RouteSpec, TriggerSpec},
};

use super::written::{self, Values, mapping};
use crate::{
    SourceSettings,
    decode::Report,
    manifest::{self, AppManifest, RouteManifest, TriggerManifest},
    yaml::{self, Node, Yaml},
    yaml_edit::{Change, edit},
    yaml_write::{self, Plain},
};

/// How close the new text stays to the old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    /// Only what differs is written anew.
    Values,
    /// Sections in which something differs are written anew.
    Sections,
    /// All is written anew.
    Whole,
}

/// From the closest on.
pub(super) const PRECISIONS: [Precision; 3] =
    [Precision::Values, Precision::Sections, Precision::Whole];

/// The text with what is live; `None`: it can't be done with this precision.
pub(super) fn rewrite(
    text: Option<&str>,
    live: &AppSpec,
    settings: &SourceSettings,
    precision: Precision,
) -> Option<String> {
    if precision == Precision::Whole {
        return Some(whole(text, live, settings));
    }
    let text = text?;
    let root = yaml::parse(text).ok()??;
    let mut report = Report::new("app.yaml", text);
    let manifest = manifest::app(text, &mut report);
    if report
        .found
        .iter()
        .any(picloud_shared::Diagnostic::is_error)
    {
        return None;
    }
    let before = Before {
        root: &root,
        manifest: &manifest,
    };
    let mut changes = before.changes(live, settings)?;
    if precision == Precision::Sections {
        let all = sections(live, settings);
        for (key, change) in changes
            .iter_mut()
            .filter(|(_, change)| !change.is_nothing())
        {
            let value = all.iter().find(|(known, _)| known == key);
            *change = value
                .and_then(|(_, value)| value.clone())
                .map_or(Change::Remove, Change::Set);
        }
    }
    edit(text, &root, &Change::Entries(changes)).ok()
}

/// The manifest that has nothing to go by, but for what isn't part of what is live.
fn whole(text: Option<&str>, live: &AppSpec, settings: &SourceSettings) -> String {
    let mut sections = sections(live, settings);
    if let Some(text) = text {
        let needed = manifest::app(text, &mut Report::new("app.yaml", text)).depends_on;
        let needed: Vec<Plain> = needed
            .iter()
            .map(|app| Plain::text(app.value.as_str()))
            .collect();
        sections.push((
            "depends_on",
            (!needed.is_empty()).then_some(Plain::List(needed)),
        ));
    }
    let entries: Vec<String> = sections
        .into_iter()
        .filter_map(|(key, value)| Some(yaml_write::entry(key, &value?, 0)))
        .collect();
    format!("{}\n", entries.join("\n"))
}

fn own_limits(live: &AppSpec, settings: &SourceSettings) -> LimitsPatch {
    let default = &settings.default_limits;
    let live = &live.limits;
    let other = |own: Option<u64>, default: Option<u64>| own.filter(|_| own != default);
    LimitsPatch {
        timeout_ms: other(live.timeout_ms, default.timeout_ms),
        memory: other(live.memory, default.memory),
        operations: other(live.operations, default.operations),
        concurrency: live
            .concurrency
            .filter(|_| live.concurrency != default.concurrency),
        request_body: other(live.request_body, default.request_body),
        response_body: other(live.response_body, default.response_body),
    }
}

/// All keys of a manifest.
fn sections(live: &AppSpec, settings: &SourceSettings) -> Values {
    let texts = |map: &BTreeMap<String, String>| {
        let entries: Vec<(String, Plain)> = map
            .iter()
            .map(|(key, value)| (key.clone(), Plain::text(value)))
            .collect();
        (!entries.is_empty()).then_some(Plain::Map(entries))
    };
    let list = |items: Vec<Plain>| (!items.is_empty()).then_some(Plain::List(items));
    vec![
        ("name", Some(Plain::text(live.name.as_str()))),
        ("description", live.description.as_ref().map(Plain::text)),
        (
            "domains",
            list(live.domains.iter().map(Plain::text).collect()),
        ),
        ("env", texts(&live.env)),
        ("secrets", texts(&live.secrets)),
        (
            "permissions",
            live.http_allow.as_ref().and_then(|hosts| {
                let http = mapping(vec![("allow", Some(Plain::texts(hosts)))]);
                mapping(vec![("http", http)])
            }),
        ),
        (
            "limits",
            mapping(written::limits(&own_limits(live, settings))),
        ),
        ("static", live.static_dir.as_ref().map(Plain::text)),
        (
            "routes",
            list(
                live.routes
                    .iter()
                    .filter_map(|route| mapping(written::route(route)))
                    .collect(),
            ),
        ),
        (
            "triggers",
            list(
                live.triggers
                    .iter()
                    .filter_map(|(name, trigger)| mapping(written::trigger(name, trigger)))
                    .collect(),
            ),
        ),
        (
            "checks",
            list(
                live.checks
                    .iter()
                    .filter_map(|check| mapping(written::check(check)))
                    .collect(),
            ),
        ),
    ]
}

/// The manifest that is there.
struct Before<'a> {
    root: &'a Node,
    manifest: &'a AppManifest,
}

impl Before<'_> {
    fn section(&self, key: &str) -> Option<&Node> {
        find(self.root, key)
    }

    fn items(&self, key: &str) -> &[Node] {
        match self.section(key).map(|node| &node.value) {
            Some(Yaml::List(items)) => items,
            _ => &[],
        }
    }

    /// What changes, by key; `None`: the manifest isn't written as it is read.
    fn changes(
        &self,
        live: &AppSpec,
        settings: &SourceSettings,
    ) -> Option<Vec<(&'static str, Change)>> {
        let old = self.manifest;
        let name = old.name.as_ref().is_none_or(|name| name.value != live.name);
        let folder = old
            .static_dir
            .as_ref()
            .map(|dir| dir.value.trim_end_matches('/').trim_start_matches("./"));
        let set = |differs: bool, value: Option<Plain>| match value {
            _ if !differs => Change::Keep,
            Some(value) => Change::Set(value),
            None => Change::Remove,
        };
        let env: BTreeMap<String, &String> = old
            .env
            .iter()
            .map(|(key, value)| (key.clone(), value))
            .collect();
        let secrets = old
            .secrets
            .iter()
            .map(|(key, value)| (key.clone(), &value.value))
            .collect();
        Some(vec![
            ("name", set(name, Some(Plain::text(live.name.as_str())))),
            (
                "description",
                set(
                    old.description != live.description,
                    live.description.as_ref().map(Plain::text),
                ),
            ),
            ("domains", self.domains(live)),
            ("env", named(&env, &live.env)),
            ("secrets", named(&secrets, &live.secrets)),
            ("permissions", self.permissions(live)),
            (
                "limits",
                limits(&old.limits, &own_limits_beside(&old.limits, live, settings)),
            ),
            (
                "static",
                set(
                    folder != live.static_dir.as_deref(),
                    live.static_dir.as_ref().map(Plain::text),
                ),
            ),
            ("routes", self.routes(live)?),
            ("triggers", self.triggers(live)?),
            ("checks", self.checks(live)?),
        ])
    }

    fn domains(&self, live: &AppSpec) -> Change {
        if self.manifest.domains.keys().eq(&live.domains) {
            return Change::Keep;
        }
        texts(self.items("domains"), &live.domains, manifest::host)
    }

    fn permissions(&self, live: &AppSpec) -> Change {
        let Some(hosts) = &live.http_allow else {
            return if self.manifest.http_allow.is_some() {
                Change::Remove
            } else {
                Change::Keep
            };
        };
        if self.manifest.http_allow.as_ref() == Some(hosts) {
            return Change::Keep;
        }
        let allow = self
            .section("permissions")
            .and_then(|node| find(node, "http"))
            .and_then(|node| find(node, "allow"));
        let items = match allow.map(|node| &node.value) {
            Some(Yaml::List(items)) => items.as_slice(),
            _ => &[],
        };
        let wanted: BTreeSet<String> = hosts.iter().cloned().collect();
        let allow = if items.is_empty() || wanted.is_empty() {
            Change::Set(Plain::texts(hosts))
        } else {
            texts(items, &wanted, |text| match text.strip_prefix("*.") {
                Some(host) => Some(format!("*.{}", manifest::host(host)?)),
                None => manifest::host(text),
            })
        };
        Change::Entries(vec![("http", Change::Entries(vec![("allow", allow)]))])
    }

    fn routes(&self, live: &AppSpec) -> Option<Change> {
        let (items, old) = (self.items("routes"), &self.manifest.routes);
        if items.len() != old.len() {
            return None;
        }
        let mut left: Vec<&RouteSpec> = live.routes.iter().collect();
        // First those that are the same by path and methods, then by path alone.
        let mut pairs: Vec<Option<&RouteSpec>> = vec![None; old.len()];
        for strict in [true, false] {
            for (pair, route) in pairs.iter_mut().zip(old).filter(|(pair, _)| pair.is_none()) {
                let same = |live: &&RouteSpec| {
                    live.path == route.pattern.to_string()
                        && (!strict || live.methods == route.methods)
                };
                *pair = left.iter().position(same).map(|at| left.remove(at));
            }
        }
        let changes = pairs
            .into_iter()
            .zip(old)
            .map(|(pair, route)| pair.map_or(Change::Remove, |live| route_change(route, live)));
        let more = left
            .into_iter()
            .filter_map(|route| mapping(written::route(route)));
        Some(Change::Items(changes.collect(), more.collect()))
    }

    fn triggers(&self, live: &AppSpec) -> Option<Change> {
        let (items, old) = (self.items("triggers"), &self.manifest.triggers);
        if items.len() != old.len() {
            return None;
        }
        let changes = items.iter().zip(old).map(|(item, trigger)| {
            let name = &trigger.name.value;
            let live = live.triggers.get(name);
            live.map_or(Change::Remove, |live| trigger_change(item, trigger, live))
        });
        let is_new = |name: &_| !old.iter().any(|trigger| trigger.name.value == *name);
        let more = live.triggers.iter().filter(|(name, _)| is_new(*name));
        let more = more.filter_map(|(name, trigger)| mapping(written::trigger(name, trigger)));
        Some(Change::Items(changes.collect(), more.collect()))
    }

    fn checks(&self, live: &AppSpec) -> Option<Change> {
        let (items, old) = (self.items("checks"), &self.manifest.checks);
        if items.len() != old.len() {
            return None;
        }
        let changes = old
            .iter()
            .enumerate()
            .map(|(at, check)| match live.checks.get(at) {
                Some(live) => values(written::check(check), written::check(live)),
                None => Change::Remove,
            });
        let more = live.checks.iter().skip(old.len());
        let more = more.filter_map(|check| mapping(written::check(check)));
        Some(Change::Items(changes.collect(), more.collect()))
    }
}

fn find<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    match &node.value {
        Yaml::Map(entries) => entries
            .iter()
            .find(|(known, _)| known.name == key)
            .map(|(_, node)| node),
        _ => None,
    }
}

/// A list of texts that is a set: each item is known by what it means.
fn texts(
    items: &[Node],
    wanted: &BTreeSet<String>,
    meaning: impl Fn(&str) -> Option<String>,
) -> Change {
    let mut left = wanted.clone();
    let changes = items.iter().map(|item| {
        let text = match &item.value {
            Yaml::Text(text) => meaning(text),
            _ => None,
        };
        if text.is_some_and(|text| left.remove(&text)) {
            Change::Keep
        } else {
            Change::Remove
        }
    });
    let changes = changes.collect();
    Change::Items(changes, left.iter().map(Plain::text).collect())
}

fn named(old: &BTreeMap<String, &String>, live: &BTreeMap<String, String>) -> Change {
    let removed = old.keys().filter(|key| !live.contains_key(*key));
    let removed = removed.map(|key| (key.clone(), Change::Remove));
    let set = live
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(value));
    let set = set.map(|(key, value)| (key.clone(), Change::Set(Plain::text(value))));
    Change::Named(removed.chain(set).collect())
}

/// Keys whose value is another one.
fn values(old: Values, live: Values) -> Change {
    let removed = old
        .iter()
        .filter(|(key, _)| !live.iter().any(|(known, _)| known == key));
    let mut changes: Vec<(&'static str, Change)> =
        removed.map(|(key, _)| (*key, Change::Remove)).collect();
    for (key, value) in live {
        let before = old
            .iter()
            .find(|(known, _)| *known == key)
            .and_then(|(_, value)| value.as_ref());
        let change = match value {
            value if value.as_ref() == before => Change::Keep,
            Some(value) => Change::Set(value),
            None => Change::Remove,
        };
        changes.push((key, change));
    }
    Change::Entries(changes)
}

fn limits(old: &LimitsPatch, live: &LimitsPatch) -> Change {
    values(written::limits(old), written::limits(live))
}

/// The app's own limits: what the source's defaults say stays unsaid, unless it is said already.
fn own_limits_beside(old: &LimitsPatch, live: &AppSpec, settings: &SourceSettings) -> LimitsPatch {
    let own = own_limits(live, settings);
    let said =
        |own: Option<u64>, old: Option<u64>, live: Option<u64>| own.or(old.filter(|_| old == live));
    let live = &live.limits;
    LimitsPatch {
        timeout_ms: said(own.timeout_ms, old.timeout_ms, live.timeout_ms),
        memory: said(own.memory, old.memory, live.memory),
        operations: said(own.operations, old.operations, live.operations),
        concurrency: own.concurrency.or(old
            .concurrency
            .filter(|_| old.concurrency == live.concurrency)),
        request_body: said(own.request_body, old.request_body, live.request_body),
        response_body: said(own.response_body, old.response_body, live.response_body),
    }
}

/// Puts changes of a section's parts in the place of the change of the whole.
fn refine(changes: &mut Change, key: &str, parts: Change) {
    if let Change::Entries(changes) = changes
        && let Some((_, change)) = changes.iter_mut().find(|(known, _)| *known == key)
        && !change.is_nothing()
    {
        *change = parts;
    }
}

fn route_change(old: &RouteManifest, live: &RouteSpec) -> Change {
    let Ok(script) = old.script.value.parse::<ScriptPath>() else {
        return mapping(written::route(live)).map_or(Change::Remove, Change::Set);
    };
    let before = RouteSpec {
        path: old.pattern.to_string(),
        methods: old.methods.clone(),
        script,
        mode: old.mode,
        auth: old.auth.clone(),
        cors: old.cors.clone(),
        rate_limit: old.rate_limit,
        limits: old.limits.clone(),
    };
    let mut changes = values(written::route(&before), written::route(live));
    refine(&mut changes, "limits", limits(&before.limits, &live.limits));
    changes
}

fn trigger_change(item: &Node, old: &TriggerManifest, live: &TriggerSpec) -> Change {
    let name = &old.name.value;
    let anew = || mapping(written::trigger(name, live)).map_or(Change::Remove, Change::Set);
    let Ok(script) = old.script.value.parse::<ScriptPath>() else {
        return anew();
    };
    let before = TriggerSpec {
        kind: old.kind.clone(),
        script,
        enabled: old.enabled,
        retry: old.retry.clone(),
        max_concurrency: old.max_concurrency,
        limits: old.limits.clone(),
    };
    if before.kind.name() != live.kind.name() {
        return anew();
    }
    let mut changes = values(
        written::trigger(name, &before),
        written::trigger(name, live),
    );
    refine(&mut changes, "limits", limits(&before.limits, &live.limits));
    let retry = values(written::retry(&before.retry), written::retry(&live.retry));
    refine(&mut changes, "retry", retry);
    // A trigger that is switched on again keeps its key, so that the next change is one word.
    let switched = find(item, "enabled").is_some() && live.enabled && !before.enabled;
    if switched {
        refine(&mut changes, "enabled", Change::Set(Plain::word(true)));
    }
    changes
}
