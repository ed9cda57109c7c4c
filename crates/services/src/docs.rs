//! `docs::*` on PostgreSQL.

use std::sync::Arc;

use picloud_shared::{
    Clock,
    data::{MAX_PAGE, check_collection, merge_patch, own_fields, too_much},
    doc_filter::{DocFilter, field_path},
    sdk::{DocsService, Document, FindOptions, SdkCallCx, SdkError, SdkErrorCode, SdkResult},
};
use picloud_store::{
    Store,
    docs::{Collection, DocPage, DocRow, Found},
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{events, waiting::wait};

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
        let event = events::of_docs(cx, &self.clock, collection, "create");
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
        self.change(cx, collection, id, if_version, move |_| Ok(body))
    }

    fn patch(&self, cx: &SdkCallCx, collection: &str, id: &str, merge: &Value) -> SdkResult<i64> {
        let merge = own_fields(merge)?;
        self.change(cx, collection, id, None, move |mut body| {
            merge_patch(&mut body, &merge);
            // Small changes add up, too.
            own_fields(&body)
        })
    }

    fn delete(&self, cx: &SdkCallCx, collection: &str, id: &str) -> SdkResult<bool> {
        let at = at(cx, collection)?;
        let Ok(id) = id.parse() else {
            return Ok(false);
        };
        let event = events::of_docs(cx, &self.clock, collection, "delete");
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
        let filter = DocFilter::parse(filter)?;
        let sort = match options.sort.as_deref() {
            None => None,
            Some(text) => {
                let name = text.strip_prefix('-').unwrap_or(text);
                Some((field_path(name)?, text.starts_with('-')))
            }
        };
        let after = options.after.as_deref().map(str::parse).transpose();
        let page = DocPage {
            sort,
            after: after.map_err(|_| invalid("after must be a document's id"))?,
            limit: options.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE).into(),
        };
        match wait(cx.deadline, self.store.docs_find(at, &filter, &page))? {
            Found::Documents(rows) => Ok(rows.into_iter().map(document).collect()),
            Found::TooLarge => Err(too_much("documents")),
            Found::NoSuchCursor => Err(SdkError::new(
                SdkErrorCode::NotFound,
                "the document to come after is gone",
            )),
        }
    }

    fn count(&self, cx: &SdkCallCx, collection: &str, filter: &Value) -> SdkResult<i64> {
        let at = at(cx, collection)?;
        let filter = DocFilter::parse(filter)?;
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
        change: impl FnOnce(Value) -> SdkResult<Value> + Send,
    ) -> SdkResult<i64> {
        let at = at(cx, collection)?;
        let missing = || {
            SdkError::new(
                SdkErrorCode::NotFound,
                format!("there is no document `{}`", id.escape_debug()),
            )
        };
        let parsed: Uuid = id.parse().map_err(|_| missing())?;
        let event = events::of_docs(cx, &self.clock, collection, "update");
        let now = self.clock.now();
        let update = self
            .store
            .docs_update(at, parsed, change, if_version, now, event.as_ref());
        if let Some(version) = wait(cx.deadline, update)?? {
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

fn invalid(message: impl Into<String>) -> SdkError {
    SdkError::new(SdkErrorCode::Invalid, message)
}
