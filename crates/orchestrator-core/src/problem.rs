//! Errors of the platform, as `application/problem+json` (RFC 9457).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};

/// An answer's body that is there whole.
pub(crate) type Whole = Full<Bytes>;

/// An error's answer: a stable `code`, and a sentence for people.
pub fn problem(status: StatusCode, code: &str, detail: &str) -> Response<Whole> {
    with_fields(status, code, detail, &[])
}

/// The same with fields of its own.
pub(crate) fn with_fields(
    status: StatusCode,
    code: &str,
    detail: &str,
    fields: &[(&str, Value)],
) -> Response<Whole> {
    let mut body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    for (name, value) in fields {
        body[*name] = value.clone();
    }
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
