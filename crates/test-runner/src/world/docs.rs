//! `docs::*` in memory: filters and order as PostgreSQL's `jsonb` has them.

use std::cmp::Ordering;

use picloud_shared::{
    Clock,
    data::{MAX_PAGE, MAX_RESULT, check_collection, holds_nul, merge_patch, own_fields, too_much},
    doc_filter::{Comparison, DocFilter, DocTest, field_path},
    sdk::{DocsService, Document, FindOptions, SdkCallCx, SdkError, SdkErrorCode, SdkResult},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Cause, Data, Part, World, invalid};

pub(super) struct Stored {
    version: i64,
    body: Value,
}

impl DocsService for Part {
    fn create(&self, cx: &SdkCallCx, collection: &str, body: &Value) -> SdkResult<String> {
        check_collection(cx, collection)?;
        let body = kept(own_fields(body)?)?;
        let world = self.world()?;
        let id = world.clock.new_id();
        let mut data = world.data.lock();
        let event = Event {
            collection,
            id,
            op: "create",
        };
        world.docs_event(&mut data, cx, &event, Some(&body), None);
        data.docs
            .insert((collection.to_owned(), id), Stored { version: 1, body });
        Ok(id.to_string())
    }

    fn get(&self, cx: &SdkCallCx, collection: &str, id: &str) -> SdkResult<Option<Document>> {
        check_collection(cx, collection)?;
        let Ok(id) = id.parse() else { return Ok(None) };
        let world = self.world()?;
        let data = world.data.lock();
        let found = data.docs.get(&(collection.to_owned(), id));
        Ok(found.map(|stored| document(id, stored)))
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
        self.change(cx, collection, id, if_version, |_| body)
    }

    fn patch(&self, cx: &SdkCallCx, collection: &str, id: &str, merge: &Value) -> SdkResult<i64> {
        let merge = own_fields(merge)?;
        self.change(cx, collection, id, None, |mut body| {
            merge_patch(&mut body, &merge);
            body
        })
    }

    fn delete(&self, cx: &SdkCallCx, collection: &str, id: &str) -> SdkResult<bool> {
        check_collection(cx, collection)?;
        let Ok(id) = id.parse() else {
            return Ok(false);
        };
        let world = self.world()?;
        let mut data = world.data.lock();
        let Some(before) = data.docs.remove(&(collection.to_owned(), id)) else {
            return Ok(false);
        };
        let event = Event {
            collection,
            id,
            op: "delete",
        };
        world.docs_event(&mut data, cx, &event, None, Some(&before.body));
        Ok(true)
    }

    fn find(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        filter: &Value,
        options: &FindOptions,
    ) -> SdkResult<Vec<Document>> {
        check_collection(cx, collection)?;
        let filter = DocFilter::parse(filter)?;
        let sort = match options.sort.as_deref() {
            None => None,
            Some(text) => {
                let name = text.strip_prefix('-').unwrap_or(text);
                Some((field_path(name)?, text.starts_with('-')))
            }
        };
        let after: Option<Uuid> = options
            .after
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|_| invalid("after must be a document's id"))?;
        let limit = options.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE) as usize;
        let world = self.world()?;
        let data = world.data.lock();
        let order = |a: (Uuid, &Stored), b: (Uuid, &Stored)| {
            let Some((path, descending)) = &sort else {
                return a.0.cmp(&b.0);
            };
            let key = |(id, stored)| at_path(id, stored, path).unwrap_or(Value::Null);
            let order = compare(&key(a), &key(b)).then(a.0.cmp(&b.0));
            if *descending { order.reverse() } else { order }
        };
        let mut found: Vec<(Uuid, &Stored)> = of_collection(&data, collection)
            .filter(|(id, stored)| matches(*id, stored, &filter))
            .collect();
        found.sort_by(|a, b| order(*a, *b));
        if let Some(after) = after {
            let cursor = data.docs.get(&(collection.to_owned(), after));
            match cursor {
                Some(cursor) => found.retain(|at| order(*at, (after, cursor)).is_gt()),
                // By age alone the id says enough.
                None if sort.is_none() => found.retain(|(id, _)| *id > after),
                None => {
                    return Err(SdkError::new(
                        SdkErrorCode::NotFound,
                        "the document to come after is gone",
                    ));
                }
            }
        }
        let (mut documents, mut size) = (Vec::new(), 0);
        for (id, stored) in found.into_iter().take(limit) {
            size += stored.body.to_string().len();
            if size > MAX_RESULT {
                return Err(too_much("documents"));
            }
            documents.push(document(id, stored));
        }
        Ok(documents)
    }

    fn count(&self, cx: &SdkCallCx, collection: &str, filter: &Value) -> SdkResult<i64> {
        check_collection(cx, collection)?;
        let filter = DocFilter::parse(filter)?;
        let world = self.world()?;
        let data = world.data.lock();
        let found = of_collection(&data, collection)
            .filter(|(id, stored)| matches(*id, stored, &filter))
            .count();
        Ok(i64::try_from(found).unwrap_or(i64::MAX))
    }
}

impl Part {
    fn change(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        id: &str,
        if_version: Option<i64>,
        change: impl FnOnce(Value) -> Value,
    ) -> SdkResult<i64> {
        check_collection(cx, collection)?;
        let missing = || {
            SdkError::new(
                SdkErrorCode::NotFound,
                format!("there is no document `{}`", id.escape_debug()),
            )
        };
        let parsed: Uuid = id.parse().map_err(|_| missing())?;
        let world = self.world()?;
        let mut data = world.data.lock();
        let at = (collection.to_owned(), parsed);
        let before = data.docs.get(&at).ok_or_else(missing)?;
        if let Some(version) = if_version.filter(|version| *version != before.version) {
            return Err(SdkError::new(
                SdkErrorCode::Conflict,
                format!("the document is not at version {version}"),
            ));
        }
        let (version, previous) = (before.version + 1, before.body.clone());
        let body = kept(own_fields(&change(previous.clone()))?)?;
        let event = Event {
            collection,
            id: parsed,
            op: "update",
        };
        world.docs_event(&mut data, cx, &event, Some(&body), Some(&previous));
        data.docs.insert(at, Stored { version, body });
        Ok(version)
    }
}

struct Event<'a> {
    collection: &'a str,
    id: Uuid,
    op: &'a str,
}

impl World {
    fn docs_event(
        &self,
        data: &mut Data,
        cx: &SdkCallCx,
        event: &Event<'_>,
        document: Option<&Value>,
        previous: Option<&Value>,
    ) {
        let Event { collection, id, op } = event;
        let detail = json!({
            "collection": collection, "id": id, "op": op, "document": document, "previous": previous,
        });
        self.emit(data, &Cause::of(cx), "docs", &detail, |kind| {
            kind.is_about_docs(collection, op)
        });
    }
}

/// `jsonb` holds no U+0000.
fn kept(body: Value) -> SdkResult<Value> {
    fn has_nul(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(has_nul),
            Value::Object(fields) => fields
                .iter()
                .any(|(name, value)| name.contains('\0') || has_nul(value)),
            _ => false,
        }
    }
    if has_nul(&body) {
        Err(holds_nul())
    } else {
        Ok(body)
    }
}

fn document(id: Uuid, stored: &Stored) -> Document {
    Document {
        id: id.to_string(),
        version: stored.version,
        body: match &stored.body {
            Value::Object(fields) => fields.clone(),
            _ => Map::new(),
        },
    }
}

fn of_collection<'a>(
    data: &'a Data,
    collection: &'a str,
) -> impl Iterator<Item = (Uuid, &'a Stored)> {
    data.docs
        .range((collection.to_owned(), Uuid::nil())..)
        .take_while(move |((of, _), _)| of == collection)
        .map(|((_, id), stored)| (*id, stored))
}

/// What lies at a path: fields of objects, items of arrays by their number.
fn at_path(id: Uuid, stored: &Stored, path: &[String]) -> Option<Value> {
    match path {
        [name] if name == "id" => return Some(id.to_string().into()),
        [name] if name == "version" => return Some(stored.version.into()),
        _ => {}
    }
    let mut at = &stored.body;
    for part in path {
        at = match at {
            Value::Object(fields) => fields.get(part)?,
            Value::Array(items) => {
                let index: i64 = part.parse().ok()?;
                let length = i64::try_from(items.len()).ok()?;
                let index = if index < 0 { length + index } else { index };
                items.get(usize::try_from(index).ok()?)?
            }
            _ => return None,
        };
    }
    Some(at.clone())
}

fn matches(id: Uuid, stored: &Stored, filter: &DocFilter) -> bool {
    match filter {
        DocFilter::All(parts) => parts.iter().all(|part| matches(id, stored, part)),
        DocFilter::Any(parts) => parts.iter().any(|part| matches(id, stored, part)),
        DocFilter::Field(path, test) => holds(at_path(id, stored, path).as_ref(), test),
    }
}

fn holds(found: Option<&Value>, test: &DocTest) -> bool {
    let value = found.unwrap_or(&Value::Null);
    let is = |wanted: &Value| compare(value, wanted).is_eq();
    match test {
        DocTest::Is(wanted) => is(wanted),
        DocTest::IsNot(wanted) => !is(wanted),
        DocTest::In(wanted) => wanted.iter().any(is),
        DocTest::Exists(there) => found.is_some() == *there,
        DocTest::Compare(how, wanted) => {
            rank(value) == rank(wanted) && {
                let order = compare(value, wanted);
                match how {
                    Comparison::Greater => order.is_gt(),
                    Comparison::GreaterOrEqual => order.is_ge(),
                    Comparison::Less => order.is_lt(),
                    Comparison::LessOrEqual => order.is_le(),
                }
            }
        }
    }
}

/// The order of types, as `jsonb` has it.
fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::String(_) => 1,
        Value::Number(_) => 2,
        Value::Bool(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => numbers(a, b),
        (Value::Array(a), Value::Array(b)) => a.len().cmp(&b.len()).then_with(|| {
            let pairs = a.iter().zip(b).map(|(a, b)| compare(a, b));
            pairs.fold(Ordering::Equal, Ordering::then)
        }),
        (Value::Object(a), Value::Object(b)) => a.len().cmp(&b.len()).then_with(|| {
            let sorted = |fields: &Map<String, Value>| {
                let mut fields: Vec<_> = fields.clone().into_iter().collect();
                // Shorter names come first there.
                fields.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
                fields
            };
            let pairs = sorted(a).into_iter().zip(sorted(b));
            let orders = pairs.map(|(a, b)| a.0.cmp(&b.0).then_with(|| compare(&a.1, &b.1)));
            orders.fold(Ordering::Equal, Ordering::then)
        }),
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn numbers(a: &serde_json::Number, b: &serde_json::Number) -> Ordering {
    if let (Some(a), Some(b)) = (a.as_i128(), b.as_i128()) {
        return a.cmp(&b);
    }
    let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(0.0));
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}
