//! `docs::*` on PostgreSQL.

use std::sync::Arc;

use picloud_shared::{
    Clock,
    sdk::{DocsService, Document, FindOptions, SdkCallCx, SdkError, SdkErrorCode, SdkResult},
};
use picloud_store::{
    Store,
    docs::{Collection, Comparison, DocFilter, DocPage, DocRow, DocTest, Found},
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{events, kv::check_collection, waiting::wait};

/// Bytes of a document as JSON.
const MAX_DOCUMENT: usize = 1 << 20;
/// Documents of one call, and where it doesn't say.
const MAX_LIMIT: u32 = 1_000;
const DEFAULT_LIMIT: u32 = 100;
/// How deep a filter may be nested, and how many tests it may have.
const MAX_DEPTH: usize = 8;
const MAX_TESTS: usize = 100;

/// Documents of apps.
pub struct DocsServiceImpl {
    store: Store,
    clock: Arc<dyn Clock>,
}

impl DocsServiceImpl {
    /// On this store.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }
}

impl DocsService for DocsServiceImpl {
    fn create(&self, cx: &SdkCallCx, collection: &str, body: &Value) -> SdkResult<String> {
        let at = at(cx, collection)?;
        let body = own_fields(body)?;
        let event = events::of_docs(cx, self.clock.as_ref(), collection, "create");
        let id = self.clock.new_id();
        let now = self.clock.now();
        let create = self.store.docs_create(at, id, &body, now, event.as_ref());
        wait(cx.deadline, create)?;
        Ok(id.to_string())
    }

    fn get(&self, cx: &SdkCallCx, collection: &str, id: &str) -> SdkResult<Option<Document>> {
        let at = at(cx, collection)?;
        // What is no id is nobody's.
        let Ok(id) = id.parse() else { return Ok(None) };
        let row = wait(cx.deadline, self.store.docs_get(at, id))?;
        Ok(row.map(document))
    }

    fn update(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        id: &str,
        body: &Value,
        if_version: Option<i64>,
    ) -> SdkResult<i64> {
        let body = own_fields(body)?;
        self.change(cx, collection, id, if_version, move |_| body)
    }

    fn patch(&self, cx: &SdkCallCx, collection: &str, id: &str, merge: &Value) -> SdkResult<i64> {
        let merge = own_fields(merge)?;
        self.change(cx, collection, id, None, move |mut body| {
            merge_patch(&mut body, &merge);
            body
        })
    }

    fn delete(&self, cx: &SdkCallCx, collection: &str, id: &str) -> SdkResult<bool> {
        let at = at(cx, collection)?;
        let Ok(id) = id.parse() else {
            return Ok(false);
        };
        let event = events::of_docs(cx, self.clock.as_ref(), collection, "delete");
        wait(cx.deadline, self.store.docs_delete(at, id, event.as_ref()))
    }

    fn find(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        filter: &Value,
        options: &FindOptions,
    ) -> SdkResult<Vec<Document>> {
        let at = at(cx, collection)?;
        let filter = compile(filter)?;
        let sort = match options.sort.as_deref() {
            None => None,
            Some(text) => {
                let name = text.strip_prefix('-').unwrap_or(text);
                Some((path(name)?, text.starts_with('-')))
            }
        };
        let after = options.after.as_deref().map(str::parse).transpose();
        let page = DocPage {
            sort,
            after: after.map_err(|_| invalid("after must be a document's id"))?,
            limit: options.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT).into(),
        };
        match wait(cx.deadline, self.store.docs_find(at, &filter, &page))? {
            Found::Documents(rows) => Ok(rows.into_iter().map(document).collect()),
            Found::TooLarge => Err(SdkError::new(
                SdkErrorCode::TooLarge,
                "the documents have more than 16 MiB; ask for fewer with `limit`",
            )),
            Found::NoSuchCursor => Err(SdkError::new(
                SdkErrorCode::NotFound,
                "the document to come after is gone",
            )),
        }
    }

    fn count(&self, cx: &SdkCallCx, collection: &str, filter: &Value) -> SdkResult<i64> {
        let at = at(cx, collection)?;
        let filter = compile(filter)?;
        wait(cx.deadline, self.store.docs_count(at, &filter))
    }
}

impl DocsServiceImpl {
    fn change(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        id: &str,
        if_version: Option<i64>,
        change: impl FnOnce(Value) -> Value + Send,
    ) -> SdkResult<i64> {
        let at = at(cx, collection)?;
        let missing = || {
            SdkError::new(
                SdkErrorCode::NotFound,
                format!("there is no document `{}`", id.escape_debug()),
            )
        };
        let parsed: Uuid = id.parse().map_err(|_| missing())?;
        let event = events::of_docs(cx, self.clock.as_ref(), collection, "update");
        let now = self.clock.now();
        let update = self
            .store
            .docs_update(at, parsed, change, if_version, now, event.as_ref());
        if let Some(version) = wait(cx.deadline, update)? {
            return Ok(version);
        }
        let there = wait(cx.deadline, self.store.docs_get(at, parsed))?;
        match (there, if_version) {
            (Some(_), Some(version)) => Err(SdkError::new(
                SdkErrorCode::Conflict,
                format!("the document is not at version {version}"),
            )),
            _ => Err(missing()),
        }
    }
}

fn at<'a>(cx: &SdkCallCx, collection: &'a str) -> SdkResult<Collection<'a>> {
    check_collection(cx, collection)?;
    Ok(Collection {
        app: cx.app_id(),
        name: collection,
    })
}

fn document(row: DocRow) -> Document {
    let body = match row.body {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    Document {
        id: row.id.to_string(),
        version: row.version,
        body,
    }
}

/// The fields of a document that are its own: what `get` adds goes when it is written back.
fn own_fields(body: &Value) -> SdkResult<Value> {
    let Value::Object(fields) = body else {
        return Err(invalid("a document is a map"));
    };
    let mut fields = fields.clone();
    fields.retain(|name, _| name != "id" && name != "version");
    let body = Value::Object(fields);
    let size = body.to_string().len();
    if size > MAX_DOCUMENT {
        return Err(SdkError::new(
            SdkErrorCode::TooLarge,
            format!("a document may have {MAX_DOCUMENT} bytes as JSON; this has {size}"),
        ));
    }
    Ok(body)
}

/// RFC 7396, section 2.
fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(fields) = target {
        for (name, value) in patch {
            if value.is_null() {
                fields.remove(name);
            } else {
                merge_patch(fields.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

/// Takes a filter apart.
fn compile(filter: &Value) -> SdkResult<DocFilter> {
    let mut tests = 0;
    compile_at(filter, 0, &mut tests)
}

fn compile_at(filter: &Value, depth: usize, tests: &mut usize) -> SdkResult<DocFilter> {
    if depth > MAX_DEPTH {
        return Err(invalid(format!(
            "a filter is nested at most {MAX_DEPTH} levels deep"
        )));
    }
    let Value::Object(fields) = filter else {
        return Err(invalid("a filter is a map"));
    };
    let mut parts = Vec::new();
    for (name, wanted) in fields {
        match name.as_str() {
            "$and" | "$or" => {
                let Value::Array(items) = wanted else {
                    return Err(invalid(format!("{name} takes an array of filters")));
                };
                let below = items
                    .iter()
                    .map(|item| compile_at(item, depth + 1, tests))
                    .collect::<SdkResult<Vec<_>>>()?;
                parts.push(if name == "$and" {
                    DocFilter::All(below)
                } else {
                    DocFilter::Any(below)
                });
            }
            operator if operator.starts_with('$') => {
                return Err(invalid(format!(
                    "there is no operator {operator} between fields; there are $and and $or"
                )));
            }
            field => {
                for test in field_tests(field, wanted)? {
                    *tests += 1;
                    if *tests > MAX_TESTS {
                        return Err(invalid(format!("a filter has at most {MAX_TESTS} tests")));
                    }
                    parts.push(DocFilter::Field(path(field)?, test));
                }
            }
        }
    }
    Ok(DocFilter::All(parts))
}

/// What a field must be: a value, or operators.
fn field_tests(field: &str, wanted: &Value) -> SdkResult<Vec<DocTest>> {
    let Value::Object(operators) = wanted else {
        return Ok(vec![DocTest::Is(wanted.clone())]);
    };
    if operators.is_empty() || !operators.keys().any(|name| name.starts_with('$')) {
        return Ok(vec![DocTest::Is(wanted.clone())]);
    }
    let mut tests = Vec::new();
    for (operator, value) in operators {
        let compare = |how| {
            if value.is_number() || value.is_string() || value.is_boolean() {
                Ok(DocTest::Compare(how, value.clone()))
            } else {
                Err(invalid(format!(
                    "{operator} takes a number, text or a boolean"
                )))
            }
        };
        tests.push(match operator.as_str() {
            "$gt" => compare(Comparison::Greater)?,
            "$gte" => compare(Comparison::GreaterOrEqual)?,
            "$lt" => compare(Comparison::Less)?,
            "$lte" => compare(Comparison::LessOrEqual)?,
            "$ne" => DocTest::IsNot(value.clone()),
            "$in" => match value {
                Value::Array(values) if values.len() <= MAX_LIMIT as usize => {
                    DocTest::In(values.clone())
                }
                _ => {
                    return Err(invalid(format!(
                        "$in takes an array of at most {MAX_LIMIT} values"
                    )));
                }
            },
            "$exists" => match value {
                Value::Bool(there) => DocTest::Exists(*there),
                _ => return Err(invalid("$exists takes true or false")),
            },
            other => {
                return Err(invalid(format!(
                    "`{field}` has no operator {other}; there are $gt $gte $lt $lte $ne $in $exists"
                )));
            }
        });
    }
    Ok(tests)
}

/// `a.b` as a path.
fn path(name: &str) -> SdkResult<Vec<String>> {
    let parts: Vec<String> = name.split('.').map(str::to_owned).collect();
    if parts.len() > MAX_DEPTH || parts.iter().any(String::is_empty) || name.contains('\0') {
        return Err(invalid(format!("`{}` is no field", name.escape_debug())));
    }
    Ok(parts)
}

fn invalid(message: impl Into<String>) -> SdkError {
    SdkError::new(SdkErrorCode::Invalid, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merging_follows_the_examples_of_rfc_7396() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ];
        for (mut target, patch, expected) in cases {
            let shown = format!("{target} + {patch}");
            merge_patch(&mut target, &patch);
            assert_eq!(target, expected, "{shown}");
        }
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused_by_name() {
        for bad in [
            json!({"a": {"$near": 1}}),
            json!({"$nor": []}),
            json!({"$or": 1}),
            json!({"a": {"$gt": null}}),
            json!({"a": {"$in": 1}}),
            json!({"": 1}),
            json!({"a..b": 1}),
        ] {
            assert!(compile(&bad).is_err(), "{bad}");
        }
        assert_eq!(compile(&json!({})), Ok(DocFilter::All(Vec::new())));
    }
}
