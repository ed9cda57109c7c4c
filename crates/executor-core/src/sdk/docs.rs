//! `docs::*`

use picloud_shared::sdk::{DocsService, Document, FindOptions, SdkCallCx, SdkResult};
use rhai::{Array, Dynamic, ImmutableString, Map, Module};
use serde_json::Value;

use super::{Native, absent, ask, function, invalid, limit, text, unknown, version};
use crate::json;

functions! {
    "docs" :: "create" [2], ["create(collection: String, document: Map) -> String"], "Keeps a document and gives its id.";
    "docs" :: "get" [2], ["get(collection: String, id: String) -> Dynamic"], "The document with `id` and `version` beside its own fields; `()` where there is none.";
    "docs" :: "update" [3, 4], ["update(collection: String, id: String, document: Map) -> int", "update(collection: String, id: String, document: Map, options: Map) -> int"], "Replaces a document and gives its new version. Options: if_version.";
    "docs" :: "patch" [3], ["patch(collection: String, id: String, merge: Map) -> int"], "Merges into a document (RFC 7396) and gives its new version.";
    "docs" :: "delete" [2], ["delete(collection: String, id: String) -> bool"], "Removes a document; whether it was there.";
    "docs" :: "find" [2, 3], ["find(collection: String, filter: Map) -> Array", "find(collection: String, filter: Map, options: Map) -> Array"], "Documents that match, oldest first. Options: sort (`age` or `-age`), limit (1000, which is the most), after (the last document's id).";
    "docs" :: "count" [2], ["count(collection: String, filter: Map) -> int"], "How many documents match.";
}

type Text = ImmutableString;

pub(super) fn module() -> Module {
    let mut module = Module::new();
    function(&mut module, "create", |c: Text, document: Map| {
        let document = to_json(document)?;
        with(
            |docs, cx| docs.create(cx, &c, &document),
            |id| ImmutableString::from(id.as_str()),
        )
    });
    function(&mut module, "get", |c: Text, id: Text| {
        with(
            |docs, cx| docs.get(cx, &c, &id),
            |found| found.as_ref().map_or(Dynamic::UNIT, shown),
        )
    });
    function(&mut module, "update", |c: Text, id: Text, document: Map| {
        update(&c, &id, document, &Map::new())
    });
    function(
        &mut module,
        "update",
        |c: Text, id: Text, document: Map, options: Map| update(&c, &id, document, &options),
    );
    function(&mut module, "patch", |c: Text, id: Text, merge: Map| {
        let merge = to_json(merge)?;
        with(
            |docs, cx| docs.patch(cx, &c, &id, &merge),
            |version| *version,
        )
    });
    function(&mut module, "delete", |c: Text, id: Text| {
        with(|docs, cx| docs.delete(cx, &c, &id), |was_there| *was_there)
    });
    function(&mut module, "find", |c: Text, filter: Map| {
        find(&c, filter, &Map::new())
    });
    function(&mut module, "find", |c: Text, filter: Map, options: Map| {
        find(&c, filter, &options)
    });
    function(&mut module, "count", |c: Text, filter: Map| {
        let filter = to_json(filter)?;
        with(|docs, cx| docs.count(cx, &c, &filter), |count| *count)
    });
    module
}

fn with<T, R>(
    call: impl FnOnce(&dyn DocsService, &SdkCallCx) -> SdkResult<T>,
    take: impl FnOnce(&T) -> R,
) -> Native<R> {
    ask(
        |services, cx| {
            let docs = services.docs.as_ref().ok_or_else(|| absent("docs"))?;
            call(docs.as_ref(), cx)
        },
        take,
    )
}

fn to_json(map: Map) -> Native<Value> {
    json::to_json(&map.into()).map_err(|reason| invalid(format!("this is no JSON: {reason}")))
}

fn shown(document: &Document) -> Dynamic {
    let mut map = Map::new();
    for (name, value) in &document.body {
        map.insert(name.as_str().into(), json::from_json(value));
    }
    map.insert("id".into(), document.id.as_str().into());
    map.insert("version".into(), document.version.into());
    map.into()
}

fn update(collection: &str, id: &str, document: Map, options: &Map) -> Native<i64> {
    let mut if_version = None;
    for (name, option) in options {
        match name.as_str() {
            "if_version" => if_version = Some(version(option)?),
            other => return Err(unknown("docs::update", other, "if_version")),
        }
    }
    let document = to_json(document)?;
    with(
        |docs, cx| docs.update(cx, collection, id, &document, if_version),
        |version| *version,
    )
}

fn find(collection: &str, filter: Map, options: &Map) -> Native<Array> {
    let mut parsed = FindOptions::default();
    for (name, option) in options {
        match name.as_str() {
            "sort" => parsed.sort = Some(text("sort", option)?),
            // The first page has no document to come after.
            "after" if option.is_unit() => {}
            "after" => parsed.after = Some(text("after", option)?),
            "limit" => parsed.limit = Some(limit(option)?),
            other => return Err(unknown("docs::find", other, "sort, limit, after")),
        }
    }
    let filter = to_json(filter)?;
    with(
        |docs, cx| docs.find(cx, collection, &filter, &parsed),
        |found| found.iter().map(shown).collect(),
    )
}
