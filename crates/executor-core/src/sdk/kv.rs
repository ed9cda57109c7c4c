//! `kv::*`

use picloud_shared::sdk::{KvListOptions, KvSetOptions};
use rhai::{Array, Dynamic, ImmutableString, Map, Module};

use super::{Function, Native, ask, duration, function, invalid, limit, text, unknown, version};
use crate::json;

macro_rules! function {
    ($name:literal, $arguments:expr, $signatures:expr, $about:literal) => {
        Function {
            module: "kv",
            name: $name,
            arguments: $arguments,
            signatures: $signatures,
            about: $about,
        }
    };
}

pub(super) const FUNCTIONS: &[Function] = &[
    function!(
        "get",
        &[2],
        &["get(collection: String, key: String) -> Dynamic"],
        "The value of a key; `()` where it is absent."
    ),
    function!(
        "set",
        &[3, 4],
        &[
            "set(collection: String, key: String, value: Dynamic) -> int",
            "set(collection: String, key: String, value: Dynamic, options: Map) -> int"
        ],
        "Writes a value and gives its new version. Options: ttl (\"1h\"), if_version (0: it must not exist)."
    ),
    function!(
        "delete",
        &[2],
        &["delete(collection: String, key: String) -> bool"],
        "Removes a key; whether it was there."
    ),
    function!(
        "incr",
        &[2, 3],
        &[
            "incr(collection: String, key: String) -> int",
            "incr(collection: String, key: String, by: int) -> int"
        ],
        "Adds to a number (absent is 0) and gives the sum."
    ),
    function!(
        "list",
        &[1, 2],
        &[
            "list(collection: String) -> Array",
            "list(collection: String, options: Map) -> Array"
        ],
        "Entries `#{key, value, version}` in key order. Options: prefix, after (a key), limit (1000, which is the most)."
    ),
    function!(
        "get_many",
        &[2],
        &["get_many(collection: String, keys: Array) -> Map"],
        "The values of those keys that are there."
    ),
    function!(
        "get_with_version",
        &[2],
        &["get_with_version(collection: String, key: String) -> Dynamic"],
        "`#{value, version}`; `()` where it is absent."
    ),
];

type Text = ImmutableString;

pub(super) fn module() -> Module {
    let mut module = Module::new();
    function(&mut module, "get", |c: Text, k: Text| get(&c, &k));
    function(&mut module, "set", |c: Text, k: Text, value: Dynamic| {
        set(&c, &k, &value, &Map::new())
    });
    function(
        &mut module,
        "set",
        |c: Text, k: Text, value: Dynamic, options: Map| set(&c, &k, &value, &options),
    );
    function(&mut module, "delete", |c: Text, k: Text| delete(&c, &k));
    function(&mut module, "incr", |c: Text, k: Text| incr(&c, &k, 1));
    function(&mut module, "incr", |c: Text, k: Text, by: i64| {
        incr(&c, &k, by)
    });
    function(&mut module, "list", |c: Text| list(&c, &Map::new()));
    function(&mut module, "list", |c: Text, options: Map| {
        list(&c, &options)
    });
    function(&mut module, "get_many", |c: Text, keys: Array| {
        get_many(&c, &keys)
    });
    function(&mut module, "get_with_version", |c: Text, k: Text| {
        get_with_version(&c, &k)
    });
    module
}

fn get(collection: &str, key: &str) -> Native<Dynamic> {
    ask(
        |services, cx| services.kv.get(cx, collection, key),
        |found| {
            let found = found.as_ref();
            found.map_or(Dynamic::UNIT, |found| json::from_json(&found.value))
        },
    )
}

fn get_with_version(collection: &str, key: &str) -> Native<Dynamic> {
    ask(
        |services, cx| services.kv.get(cx, collection, key),
        |found| {
            let Some(found) = found else {
                return Dynamic::UNIT;
            };
            let mut map = Map::new();
            map.insert("value".into(), json::from_json(&found.value));
            map.insert("version".into(), found.version.into());
            map.into()
        },
    )
}

fn get_many(collection: &str, keys: &Array) -> Native<Map> {
    let keys = keys
        .iter()
        .map(|key| text("a key", key))
        .collect::<Native<Vec<_>>>()?;
    ask(
        |services, cx| services.kv.get_many(cx, collection, &keys),
        |found| {
            let found = found.iter();
            found
                .map(|(key, value)| (key.as_str().into(), json::from_json(value)))
                .collect()
        },
    )
}

fn set(collection: &str, key: &str, value: &Dynamic, options: &Map) -> Native<i64> {
    let mut parsed = KvSetOptions::default();
    for (name, option) in options {
        match name.as_str() {
            "ttl" => parsed.ttl_ms = Some(duration("ttl", option)?),
            "if_version" => parsed.if_version = Some(version(option)?),
            other => return Err(unknown("kv::set", other, "ttl, if_version")),
        }
    }
    let value = json::to_json(value)
        .map_err(|reason| invalid(format!("the value cannot be kept: {reason}")))?;
    ask(
        |services, cx| services.kv.set(cx, collection, key, &value, &parsed),
        |version| *version,
    )
}

fn delete(collection: &str, key: &str) -> Native<bool> {
    ask(
        |services, cx| services.kv.delete(cx, collection, key),
        |was_there| *was_there,
    )
}

fn incr(collection: &str, key: &str, by: i64) -> Native<i64> {
    ask(
        |services, cx| services.kv.incr(cx, collection, key, by),
        |sum| *sum,
    )
}

fn list(collection: &str, options: &Map) -> Native<Array> {
    let mut parsed = KvListOptions::default();
    for (name, option) in options {
        match name.as_str() {
            "prefix" => parsed.prefix = Some(text("prefix", option)?),
            // The first page has no key to come after.
            "after" if option.is_unit() => {}
            "after" => parsed.after = Some(text("after", option)?),
            "limit" => parsed.limit = Some(limit(option)?),
            other => return Err(unknown("kv::list", other, "prefix, after, limit")),
        }
    }
    ask(
        |services, cx| services.kv.list(cx, collection, &parsed),
        |entries| {
            let entries = entries.iter().map(|entry| {
                let mut map = Map::new();
                map.insert("key".into(), entry.key.as_str().into());
                map.insert("value".into(), json::from_json(&entry.value));
                map.insert("version".into(), entry.version.into());
                map.into()
            });
            entries.collect()
        },
    )
}
