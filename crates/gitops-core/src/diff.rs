//! Two states of an app, compared field by field: the one differ behind plans and drift.

use std::collections::{BTreeMap, BTreeSet};

use picloud_shared::{
    AppName, AppSpec,
    app::to_value,
    plan::{Change, ChangeKind, FieldChange, ItemKind, LiveApp},
};
use serde_json::{Value, json};

/// An app taken apart: things by kind and name, each with its fields.
pub(crate) type Items = BTreeMap<(ItemKind, String), BTreeMap<String, Value>>;

/// What changes from `old` to `new`; an absent side has nothing. Never a change without a field.
pub fn changes(old: Option<&AppSpec>, new: Option<&AppSpec>) -> Vec<Change> {
    let Some(name) = new.or(old).map(|spec| spec.name.clone()) else {
        return Vec::new();
    };
    let before = old.map(items).unwrap_or_default();
    let after = new.map(items).unwrap_or_default();
    compare(&name, &before, &after)
}

/// As [`changes`], from what PostgreSQL holds: also its rows that can't be read.
pub fn changes_of_live(live: Option<&LiveApp>, new: Option<&AppSpec>) -> Vec<Change> {
    let Some(name) = new
        .or(live.map(|app| app.spec.as_ref()))
        .map(|spec| spec.name.clone())
    else {
        return Vec::new();
    };
    let before = live.map(|app| live_items(app, &name)).unwrap_or_default();
    let after = new.map(items).unwrap_or_default();
    compare(&name, &before, &after)
}

/// A live app taken apart, filed under the name that it should have.
pub(crate) fn live_items(app: &LiveApp, name: &AppName) -> Items {
    let mut found = items(&app.spec);
    if app.spec.name != *name
        && let Some(fields) = found.remove(&(ItemKind::App, app.spec.name.to_string()))
    {
        found.insert((ItemKind::App, name.to_string()), fields);
    }
    for row in &app.damaged {
        let mut fields = BTreeMap::new();
        flatten("", row.fields.clone(), &mut fields);
        found.insert((row.kind, row.name.clone()), fields);
    }
    found
}

pub(crate) fn compare(name: &AppName, before: &Items, after: &Items) -> Vec<Change> {
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let mut changes = Vec::new();
    for key in keys {
        let (old, new) = (before.get(key), after.get(key));
        let change = match (old, new) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            _ => ChangeKind::Changed,
        };
        let fields = fields(old, new);
        if !fields.is_empty() {
            changes.push(Change {
                app: name.clone(),
                kind: key.0,
                name: key.1.clone(),
                change,
                fields,
            });
        }
    }
    changes
}

fn fields(
    old: Option<&BTreeMap<String, Value>>,
    new: Option<&BTreeMap<String, Value>>,
) -> Vec<FieldChange> {
    let get = |side: Option<&BTreeMap<String, Value>>, path: &str| {
        side.and_then(|fields| fields.get(path))
            .cloned()
            .unwrap_or(Value::Null)
    };
    let paths: BTreeSet<&String> = old
        .into_iter()
        .chain(new)
        .flat_map(BTreeMap::keys)
        .collect();
    paths
        .into_iter()
        .map(|path| FieldChange {
            path: path.clone(),
            old: get(old, path),
            new: get(new, path),
        })
        .filter(|field| field.old != field.new)
        .collect()
}

/// An app taken apart into things with fields. Every field of `AppSpec` is in here.
pub(crate) fn items(spec: &AppSpec) -> Items {
    let mut items = Items::new();
    let mut put = |kind, name: &str, value: Value| {
        let mut fields = BTreeMap::new();
        flatten("", value, &mut fields);
        items.insert((kind, name.to_owned()), fields);
    };
    put(
        ItemKind::App,
        spec.name.as_str(),
        json!({"name": spec.name, "dir": spec.dir, "description": spec.description}),
    );
    for domain in &spec.domains {
        put(ItemKind::Domain, domain, json!({"domain": domain}));
    }
    for (name, value) in &spec.env {
        put(ItemKind::Env, name, json!({"value": value}));
    }
    for (name, sealed) in &spec.secrets {
        put(ItemKind::Secret, name, json!({"digest": digest(sealed)}));
    }
    if let Some(allow) = &spec.http_allow {
        put(ItemKind::Permission, "http", json!({"allow": allow}));
    }
    if let Value::Object(limits) = to_value(&spec.limits) {
        for (name, value) in limits {
            put(ItemKind::Limit, &name, json!({"value": value}));
        }
    }
    if let Some(dir) = &spec.static_dir {
        put(ItemKind::Static, dir, json!({"dir": dir}));
    }
    for (path, file) in &spec.static_files {
        let name = format!("{}/{path}", spec.static_dir.as_deref().unwrap_or_default());
        put(ItemKind::Static, &name, to_value(file));
    }
    for (path, script) in &spec.scripts {
        put(ItemKind::Script, path.as_str(), to_value(script));
    }
    for route in &spec.routes {
        put(ItemKind::Route, &route.label(), to_value(route));
    }
    for (name, trigger) in &spec.triggers {
        let mut value = to_value(trigger);
        // The kind's own fields stand beside the others, as in app.yaml.
        if let Some(Value::Object(kind)) = value.get_mut("kind").map(Value::take) {
            for (key, field) in kind {
                value[key] = field;
            }
        }
        put(ItemKind::Trigger, name.as_str(), value);
    }
    for (position, check) in spec.checks.iter().enumerate() {
        put(
            ItemKind::Check,
            &format!("{} {}", position + 1, check.path),
            to_value(check),
        );
    }
    items
}

/// Nested objects become dotted paths; what is null isn't there.
fn flatten(prefix: &str, value: Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if prefix.is_empty() {
                    name
                } else {
                    format!("{prefix}.{name}")
                };
                flatten(&path, value, into);
            }
        }
        other => {
            into.insert(prefix.to_owned(), other);
        }
    }
}

/// Tells two ciphertexts apart without showing either (FNV-1a, 64 bits; no secret depends on it).
fn digest(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("sealed:{hash:016x}")
}
