//! Answers: lists, and problems (RFC 9457) with stable codes.

use std::time::Duration;

use axum::{
    Json,
    extract::{FromRequestParts, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use picloud_shared::Diagnostic;
use picloud_store::{Page, StoreError, page::PageQuery};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AdminState, access::Caller, triggers};

/// Why a request isn't answered as asked.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    /// The part of the request that is wrong, where one is.
    field: Option<&'static str>,
    errors: Vec<Value>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// What handlers give.
pub(super) type Answer<T = Json<Value>> = Result<T, Problem>;

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            field: None,
            errors: Vec::new(),
            header: None,
        }
    }

    /// Names the field or parameter that is wrong, so that a form can show it there.
    pub(crate) fn at(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "a valid key is needed: `Authorization: Bearer pic_…`",
        )
    }

    /// Whether it is for want of a good key alone.
    pub(super) fn is_unauthorized(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    pub(crate) fn forbidden(scope: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            format!("the key lacks the scope {scope} for this"),
        )
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("there is no such {what}"),
        )
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    /// Findings of a body that is read as a manifest is, each with the key that it is about.
    pub(crate) fn findings(findings: &[Diagnostic], body: &Value) -> Self {
        let words: Vec<String> = findings
            .iter()
            .map(|finding| match &finding.hint {
                Some(hint) => format!("{} ({hint})", finding.message),
                None => finding.message.clone(),
            })
            .collect();
        let mut problem = Self::invalid(words.join("; "));
        let show = |finding: &Diagnostic| {
            json!({
                "field": missing(finding).or_else(|| field_at(body, finding.column)),
                "code": finding.code,
                "message": finding.message,
                "hint": finding.hint,
            })
        };
        problem.errors = findings.iter().map(show).collect();
        problem
    }

    pub(crate) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }

    pub(crate) fn rate_limited(detail: &str, wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
        let wait = HeaderValue::from(seconds_of(seconds));
        problem.header = Some(Box::new((header::RETRY_AFTER, wait)));
        problem
    }

    /// A method that the path does not take; those that it takes.
    pub(crate) fn wrong_method(allowed: &'static str) -> Self {
        let mut problem = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "the endpoint does not take this method",
        );
        if !allowed.is_empty() {
            let allowed = HeaderValue::from_static(allowed);
            problem.header = Some(Box::new((header::ALLOW, allowed)));
        }
        problem
    }

    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong; the server's log says what",
        )
    }
}

/// The key that a finding misses: it stands nowhere.
fn missing(finding: &Diagnostic) -> Option<String> {
    let (_, rest) = finding.message.split_once(" lacks `")?;
    rest.strip_suffix('`').map(str::to_owned)
}

/// The key of an object that stands at a column of its text, which is one line.
fn field_at(body: &Value, column: u32) -> Option<String> {
    let mut end = 1;
    for (key, value) in body.as_object()? {
        let text = format!("{}:{value},", Value::from(key.as_str()));
        end += text.chars().count();
        if column as usize <= end {
            return Some(key.clone());
        }
    }
    None
}

fn seconds_of(seconds: u128) -> u64 {
    u64::try_from(seconds).unwrap_or(u64::MAX)
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::BadCursor => Self::invalid(error.to_string()),
            // untranslatable_character, character_not_in_repertoire: a NUL inside of a text.
            error if matches!(error.sql_state().as_deref(), Some("22P05" | "22021")) => {
                Self::invalid("text must not hold the character U+0000")
            }
            error if error.is_unavailable() => {
                Self::unavailable("the database is away; try again in a moment")
            }
            error => {
                tracing::error!(%error, "the admin API could not ask the database");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "something went wrong; the server's log says what",
                )
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        if let Some(field) = self.field {
            body["field"] = field.into();
        }
        if !self.errors.is_empty() {
            body["errors"] = self.errors.into();
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(header) = self.header {
            headers.insert(header.0, header.1);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Items of one part of a list, however many are asked for.
const MAX_ITEMS: u32 = 1000;

/// Which part of a list is asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ListQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

impl ListQuery {
    pub(super) fn page(&self) -> Answer<PageQuery> {
        let limit = match self.limit.as_deref() {
            None => 50,
            Some(text) => text
                .parse::<u32>()
                .ok()
                .filter(|limit| *limit > 0)
                .ok_or_else(|| Problem::invalid("limit must be a whole number, at least 1"))?
                .min(MAX_ITEMS),
        };
        Ok(PageQuery {
            limit,
            cursor: self.cursor.clone(),
        })
    }

    /// A part of a list that is in memory, in the order of its keys.
    pub(super) fn slice<T>(
        &self,
        items: impl IntoIterator<Item = (String, T)>,
    ) -> Answer<(Vec<T>, Option<String>)> {
        let query = self.page()?;
        let bad = || Problem::from(StoreError::BadCursor);
        let after = match &query.cursor {
            None => None,
            Some(cursor) => Some(URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad())?),
        };
        let mut rest = items
            .into_iter()
            .filter(|(key, _)| after.as_deref().is_none_or(|after| key.as_bytes() > after));
        let (mut taken, mut last) = (Vec::new(), None);
        for (key, item) in rest.by_ref().take(query.limit as usize) {
            taken.push(item);
            last = Some(key);
        }
        let next = rest.next().and(last);
        Ok((taken, next.map(|key| URL_SAFE_NO_PAD.encode(key))))
    }
}

/// A body, as JSON. What is no JSON is 400, JSON that says something else is 422.
pub(super) fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Answer<T> {
    serde_json::from_slice(body).map_err(|error| {
        // What is no text of an enum is no data error to serde_json, and is JSON all the same.
        let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
        if error.is_data() || is_json() {
            Problem::invalid(format!("the body: {error}"))
        } else {
            let detail = format!("the body is no JSON: {error}");
            Problem::new(StatusCode::BAD_REQUEST, "malformed", detail)
        }
    })
}

/// A time of a query.
pub(super) fn parse_time(name: &str, text: Option<&str>) -> Answer<Option<DateTime<Utc>>> {
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|_| Problem::invalid(format!("{name} must be a time of RFC 3339")))
}

/// A list's answer.
pub(super) fn page<T>(page: &Page<T>, show: impl Fn(&T) -> Value) -> Json<Value> {
    let items: Vec<Value> = page.items.iter().map(show).collect();
    Json(json!({ "items": items, "next_cursor": page.next_cursor }))
}

/// A list that holds nothing.
pub(super) fn none() -> Json<Value> {
    Json(json!({ "items": [], "next_cursor": null }))
}

/// What goes around every answer: its id, and a problem where the framework refused in plain text.
pub(super) async fn dress(id: impl FnOnce() -> String, request: Request, next: Next) -> Response {
    let given = request.headers().get("x-request-id").filter(|value| {
        let bytes = value.as_bytes();
        (1..=128).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    let id = match given {
        Some(given) => given.clone(),
        None => HeaderValue::from_str(&id()).unwrap_or(HeaderValue::from_static("none")),
    };
    let mut response = next.run(request).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        response = as_problem(response).await;
    }
    let headers = response.headers_mut();
    headers.insert("x-request-id", id);
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A refusal of the framework, in the form that all others have.
async fn as_problem(response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let plain = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !plain {
        return response;
    }
    let status = response.status();
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
        status if status.is_client_error() => "bad_request",
        _ => "internal",
    };
    let allow = response.headers().get(header::ALLOW).cloned();
    let words = axum::body::to_bytes(response.into_body(), 4096).await;
    let words = words.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let detail = match words {
        Ok(words) if !words.is_empty() && status.is_client_error() => words,
        _ => status.canonical_reason().unwrap_or("Error").to_owned(),
    };
    let mut problem = Problem::new(status, code, detail);
    problem.header = allow.map(|allow| Box::new((header::ALLOW, allow)));
    problem.into_response()
}

/// Nothing is served here, and nothing more is said.
pub(super) async fn nothing_here() -> Problem {
    Problem::not_found("page or endpoint")
}

/// Below the admin API even that needs a key.
pub(super) async fn nothing_behind(_: State<AdminState>, _: Caller) -> Problem {
    Problem::not_found("endpoint")
}

pub(super) async fn wrong_method(State(state): State<AdminState>, request: Request) -> Problem {
    let (mut parts, _) = request.into_parts();
    if parts.uri.path().starts_with("/api/v1/admin")
        && let Err(refused) = Caller::from_request_parts(&mut parts, &state).await
    {
        return refused;
    }
    Problem::wrong_method(allowed(parts.uri.path()))
}

/// Where one route stands for several addresses, the methods of the one that was meant. For the
/// others the router says which.
fn allowed(path: &str) -> &'static str {
    let mut parts = path.rsplit('/');
    match (parts.next(), parts.next()) {
        (Some(kind), Some("triggers")) if triggers::KINDS.contains(&kind) => "POST",
        (Some(_), Some("triggers")) => "PATCH, DELETE",
        _ => "",
    }
}
