//! Documents of apps. Filters are compiled to SQL whose text is ours alone: every name and value of
//! a script is a parameter.

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
pub use picloud_shared::doc_filter::{Comparison, DocFilter, DocTest};
use picloud_shared::{AppId, data::MAX_RESULT};
use serde_json::Value;
use sqlx::{PgConnection, Postgres, QueryBuilder, Row, types::Json};
use uuid::Uuid;

use crate::{Store, StoreError, outbox::DataEvent};

/// A document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocRow {
    /// UUIDv7.
    pub id: Uuid,
    /// 1 for the first write, then one more with each.
    pub version: i64,
    /// An object.
    pub body: Value,
}

/// A collection of an app.
#[derive(Debug, Clone, Copy)]
pub struct Collection<'a> {
    /// Whose.
    pub app: AppId,
    /// Which.
    pub name: &'a str,
}

/// Which documents, and in which order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DocPage {
    /// The path of the field to sort by, and whether in descending order; else by age.
    pub sort: Option<(Vec<String>, bool)>,
    /// Those after this one.
    pub after: Option<Uuid>,
    /// At most so many.
    pub limit: i64,
}

/// What [`Store::docs_find`] gives.
#[derive(Debug)]
pub enum Found {
    /// The documents.
    Documents(Vec<DocRow>),
    /// They have more bytes than one call may give.
    TooLarge,
    /// There is no document to come after.
    NoSuchCursor,
}

impl Store {
    /// Keeps a new document.
    pub async fn docs_create(
        &self,
        at: Collection<'_>,
        id: Uuid,
        body: &Value,
        now: DateTime<Utc>,
        event: Option<&DataEvent>,
    ) -> Result<(), StoreError> {
        let Some(event) = event else {
            let mut connection = self.pool().acquire().await?;
            return insert(&mut connection, at, id, body, now).await;
        };
        let mut transaction = self.pool().begin().await?;
        insert(&mut transaction, at, id, body, now).await?;
        let detail = detail(at.name, id, "create", Some(body), None);
        event
            .emit(&mut transaction, at.app, "docs", at.name, "create", &detail)
            .await?;
        transaction.commit().await?;
        self.outbox_written();
        Ok(())
    }

    /// The document of that id.
    pub async fn docs_get(
        &self,
        at: Collection<'_>,
        id: Uuid,
    ) -> Result<Option<DocRow>, StoreError> {
        let row = sqlx::query_as!(
            DocRow,
            r#"SELECT id, version, body AS "body: Value" FROM docs
               WHERE app_id = $1 AND collection = $2 AND id = $3"#,
            at.app.0,
            at.name,
            id,
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row)
    }

    /// Replaces a document, or merges into it, if it is at that version. Gives its new version;
    /// `None` where there is none, or it is at another; what `change` refuses is left as it was.
    pub async fn docs_update<E: Send>(
        &self,
        at: Collection<'_>,
        id: Uuid,
        change: impl FnOnce(Value) -> Result<Value, E> + Send,
        if_version: Option<i64>,
        now: DateTime<Utc>,
        event: Option<&DataEvent>,
    ) -> Result<Result<Option<i64>, E>, StoreError> {
        let mut transaction = self.pool().begin().await?;
        let before = sqlx::query_as!(
            DocRow,
            r#"SELECT id, version, body AS "body: Value" FROM docs
               WHERE app_id = $1 AND collection = $2 AND id = $3 FOR UPDATE"#,
            at.app.0,
            at.name,
            id,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let wanted = |row: &DocRow| if_version.is_none_or(|version| version == row.version);
        let Some(before) = before.filter(wanted) else {
            return Ok(Ok(None));
        };
        let body = match change(before.body.clone()) {
            Ok(body) => body,
            Err(refused) => return Ok(Err(refused)),
        };
        let version = before.version + 1;
        sqlx::query!(
            "UPDATE docs SET body = $4, version = $5, updated_at = $6
             WHERE app_id = $1 AND collection = $2 AND id = $3",
            at.app.0,
            at.name,
            id,
            body,
            version,
            now,
        )
        .execute(&mut *transaction)
        .await?;
        if let Some(event) = event {
            let detail = detail(at.name, id, "update", Some(&body), Some(&before.body));
            event
                .emit(&mut transaction, at.app, "docs", at.name, "update", &detail)
                .await?;
        }
        transaction.commit().await?;
        if event.is_some() {
            self.outbox_written();
        }
        Ok(Ok(Some(version)))
    }

    /// Removes a document; whether it was there.
    pub async fn docs_delete(
        &self,
        at: Collection<'_>,
        id: Uuid,
        event: Option<&DataEvent>,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool().begin().await?;
        let before = sqlx::query_scalar!(
            r#"DELETE FROM docs WHERE app_id = $1 AND collection = $2 AND id = $3
               RETURNING body AS "body: Value""#,
            at.app.0,
            at.name,
            id,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(before) = before else {
            return Ok(false);
        };
        if let Some(event) = event {
            let detail = detail(at.name, id, "delete", None, Some(&before));
            event
                .emit(&mut transaction, at.app, "docs", at.name, "delete", &detail)
                .await?;
        }
        transaction.commit().await?;
        if event.is_some() {
            self.outbox_written();
        }
        Ok(true)
    }

    /// Documents that match.
    pub async fn docs_find(
        &self,
        at: Collection<'_>,
        filter: &DocFilter,
        page: &DocPage,
    ) -> Result<Found, StoreError> {
        let mut connection = self.pool().acquire().await?;
        let mut query = QueryBuilder::<Postgres>::new("SELECT id, version, body FROM docs");
        select(&mut query, at, filter);
        if let Some(after) = page.after
            && !after_cursor(&mut connection, &mut query, at, page, after).await?
        {
            return Ok(Found::NoSuchCursor);
        }
        query.push(" ORDER BY ");
        if let Some((path, descending)) = &page.sort {
            query.push("coalesce(");
            field(&mut query, path);
            query.push(", 'null')");
            query.push(if *descending {
                " DESC, id DESC"
            } else {
                ", id"
            });
        } else {
            query.push("id");
        }
        query.push(" LIMIT ").push_bind(page.limit);
        let built = query.build();
        let mut rows = built.fetch(&mut *connection);
        let (mut found, mut size) = (Vec::new(), 0);
        while let Some(row) = rows.try_next().await? {
            size += row.try_get_raw(2)?.as_bytes().map_or(0, <[u8]>::len);
            if size > MAX_RESULT {
                return Ok(Found::TooLarge);
            }
            found.push(DocRow {
                id: row.try_get(0)?,
                version: row.try_get(1)?,
                body: row.try_get(2)?,
            });
        }
        Ok(Found::Documents(found))
    }

    /// How many documents match.
    pub async fn docs_count(
        &self,
        at: Collection<'_>,
        filter: &DocFilter,
    ) -> Result<i64, StoreError> {
        let mut query = QueryBuilder::<Postgres>::new("SELECT count(*) FROM docs");
        select(&mut query, at, filter);
        Ok(query.build_query_scalar().fetch_one(self.pool()).await?)
    }
}

async fn insert(
    connection: &mut PgConnection,
    at: Collection<'_>,
    id: Uuid,
    body: &Value,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO docs (app_id, collection, id, body, version, created_at, updated_at)
         VALUES ($1, $2, $3, $4, 1, $5, $5)",
        at.app.0,
        at.name,
        id,
        body,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// `ctx.event.docs`
fn detail(
    collection: &str,
    id: Uuid,
    op: &str,
    document: Option<&Value>,
    previous: Option<&Value>,
) -> Value {
    serde_json::json!({ "collection": collection, "id": id, "op": op, "document": document, "previous": previous })
}

fn select(query: &mut QueryBuilder<Postgres>, at: Collection<'_>, filter: &DocFilter) {
    query.push(" WHERE app_id = ").push_bind(at.app.0);
    query
        .push(" AND collection = ")
        .push_bind(at.name.to_owned());
    query.push(" AND ");
    condition(query, filter);
}

async fn after_cursor(
    connection: &mut PgConnection,
    query: &mut QueryBuilder<Postgres>,
    at: Collection<'_>,
    page: &DocPage,
    after: Uuid,
) -> Result<bool, StoreError> {
    let Some((path, descending)) = &page.sort else {
        query.push(" AND id > ").push_bind(after);
        return Ok(true);
    };
    let mut cursor = QueryBuilder::<Postgres>::new("SELECT coalesce(");
    field(&mut cursor, path);
    cursor
        .push(", 'null') FROM docs WHERE app_id = ")
        .push_bind(at.app.0);
    cursor
        .push(" AND collection = ")
        .push_bind(at.name.to_owned());
    cursor.push(" AND id = ").push_bind(after);
    let key: Option<Value> = cursor
        .build_query_scalar()
        .fetch_optional(connection)
        .await?;
    let Some(key) = key else { return Ok(false) };
    query.push(" AND (coalesce(");
    field(query, path);
    query.push(", 'null'), id) ");
    query.push(if *descending { "<" } else { ">" });
    query.push(" (").push_bind(Json(key));
    query.push(", ").push_bind(after);
    query.push(")");
    Ok(true)
}

fn field(query: &mut QueryBuilder<Postgres>, path: &[String]) {
    match path {
        [name] if name == "id" => query.push("to_jsonb(id)"),
        [name] if name == "version" => query.push("to_jsonb(version)"),
        path => {
            query.push("(body #> ").push_bind(path.to_vec());
            query.push(")")
        }
    };
}

fn condition(query: &mut QueryBuilder<Postgres>, filter: &DocFilter) {
    let (parts, between, empty) = match filter {
        DocFilter::Field(path, test) => return compare(query, path, test),
        DocFilter::All(parts) => (parts, " AND ", "true"),
        DocFilter::Any(parts) => (parts, " OR ", "false"),
    };
    query.push("(");
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            query.push(between);
        }
        condition(query, part);
    }
    if parts.is_empty() {
        query.push(empty);
    }
    query.push(")");
}

fn compare(query: &mut QueryBuilder<Postgres>, path: &[String], test: &DocTest) {
    match test {
        DocTest::Is(Value::Null) => {
            query.push("coalesce(");
            field(query, path);
            query.push(", 'null') = 'null'::jsonb");
        }
        DocTest::Is(value) => {
            let own = matches!(path, [name] if name == "id" || name == "version");
            let index = |name: &String| name.parse::<u32>().is_ok();
            if !own && !value.is_array() && !value.is_object() && !path.iter().any(index) {
                // Asked so, the index on the whole document answers.
                let whole = path.iter().rev().fold(
                    value.clone(),
                    |inner, name| serde_json::json!({ name.as_str(): inner }),
                );
                query.push("body @> ").push_bind(Json(whole));
            } else {
                field(query, path);
                query.push(" = ").push_bind(Json(value.clone()));
            }
        }
        DocTest::IsNot(Value::Null) => {
            query.push("coalesce(");
            field(query, path);
            query.push(", 'null') <> 'null'::jsonb");
        }
        DocTest::IsNot(value) => {
            field(query, path);
            query
                .push(" IS DISTINCT FROM ")
                .push_bind(Json(value.clone()));
        }
        DocTest::Compare(how, value) => {
            query.push("(jsonb_typeof(");
            field(query, path);
            query
                .push(") = jsonb_typeof(")
                .push_bind(Json(value.clone()));
            query.push(") AND ");
            field(query, path);
            query.push(match how {
                Comparison::Greater => " > ",
                Comparison::GreaterOrEqual => " >= ",
                Comparison::Less => " < ",
                Comparison::LessOrEqual => " <= ",
            });
            query.push_bind(Json(value.clone()));
            query.push(")");
        }
        DocTest::In(values) => {
            query.push("coalesce(");
            field(query, path);
            query.push(", 'null') = ANY(");
            query.push_bind(values.iter().cloned().map(Json).collect::<Vec<_>>());
            query.push(")");
        }
        DocTest::Exists(there) => {
            field(query, path);
            query.push(if *there { " IS NOT NULL" } else { " IS NULL" });
        }
    }
}
