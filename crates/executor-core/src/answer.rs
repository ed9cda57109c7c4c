//! From a script's last value to what its caller gets.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use picloud_shared::{
    Reply,
    run::{RunError, RunErrorKind},
};
use rhai::{Array, Blob, Dynamic, ImmutableString, Map};

use crate::json;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// A value as an HTTP answer, of at most `max` bytes.
pub(crate) fn reply(value: &Dynamic, max: u64) -> Result<Reply, Box<RunError>> {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    if let Some(map) = value.read_lock::<Map>()
        && let Some(status) = map.get("status")
        && let Ok(status) = status.as_int()
    {
        return explicit(&map, status, max);
    }
    let (kind, body) = body(value, max)?;
    let status = if kind.is_some() {
        StatusCode::OK
    } else {
        StatusCode::NO_CONTENT
    };
    let mut headers = HeaderMap::with_capacity(4);
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    Ok(Reply {
        status,
        headers,
        body,
    })
}

fn explicit(map: &Map, status: i64, max: usize) -> Result<Reply, Box<RunError>> {
    if let Some(key) = map
        .keys()
        .find(|key| !matches!(key.as_str(), "status" | "headers" | "body"))
    {
        return Err(wrong(format!(
            "an answer with a status takes status, headers and body; it has `{key}`, too"
        )));
    }
    let status = u16::try_from(status)
        .ok()
        .filter(|status| (200..=599).contains(status));
    let status = status
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| wrong("the status of an answer must be from 200 to 599".to_owned()))?;
    // RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5.
    let is_bare = matches!(status.as_u16(), 204 | 205 | 304);
    let (kind, body) = match map.get("body") {
        Some(value) if !is_bare => body(value, max)?,
        _ => (None, Bytes::new()),
    };
    let mut headers = match map.get("headers") {
        Some(value) if !value.is_unit() => header_map(value)?,
        _ => HeaderMap::with_capacity(4),
    };
    if let Some(kind) = kind
        && !headers.contains_key(header::CONTENT_TYPE)
    {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    Ok(Reply {
        status,
        headers,
        body,
    })
}

/// The body of a value, and its type; none of either for `()`.
fn body(value: &Dynamic, max: usize) -> Result<(Option<HeaderValue>, Bytes), Box<RunError>> {
    let (kind, bytes) = if value.is_unit() {
        return Ok((None, Bytes::new()));
    } else if let Some(text) = value.read_lock::<ImmutableString>() {
        (TEXT, Bytes::copy_from_slice(text.as_bytes()))
    } else if let Ok(c) = value.as_char() {
        (TEXT, Bytes::from(c.to_string()))
    } else if let Some(blob) = value.read_lock::<Blob>() {
        (BYTES, Bytes::copy_from_slice(&blob))
    } else {
        let mut out = Vec::with_capacity(128);
        json::write(value, &mut out, max).map_err(|reason| {
            if reason == json::TOO_LARGE {
                return too_large(max);
            }
            if reason == json::TOO_DEEP {
                return error(
                    RunErrorKind::Depth,
                    format!("the answer cannot be sent: {reason}"),
                );
            }
            wrong(format!("the answer cannot be sent: {reason}"))
        })?;
        (JSON, Bytes::from(out))
    };
    if bytes.len() > max {
        return Err(too_large(max));
    }
    Ok((Some(kind), bytes))
}

/// Headers that frame the message are the server's own.
const FRAMING: [&str; 5] = [
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "keep-alive",
];

fn header_map(value: &Dynamic) -> Result<HeaderMap, Box<RunError>> {
    let Some(map) = value.read_lock::<Map>() else {
        return Err(wrong(format!(
            "headers must be a map; this is {}",
            value.type_name()
        )));
    };
    let mut headers = HeaderMap::with_capacity(map.len() + 4);
    for (name, value) in map.iter() {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .ok()
            .filter(|name| !FRAMING.contains(&name.as_str()))
            .ok_or_else(|| {
                wrong(format!(
                    "`{}` is no header that an answer can set",
                    name.escape_debug()
                ))
            })?;
        if let Some(values) = value.read_lock::<Array>() {
            for value in values.iter() {
                headers.append(parsed.clone(), header_value(name, value)?);
            }
        } else {
            headers.append(parsed, header_value(name, value)?);
        }
    }
    Ok(headers)
}

fn header_value(name: &str, value: &Dynamic) -> Result<HeaderValue, Box<RunError>> {
    let text = if let Some(text) = value.read_lock::<ImmutableString>() {
        text.to_string()
    } else if let Ok(number) = value.as_int() {
        number.to_string()
    } else if let Ok(flag) = value.as_bool() {
        flag.to_string()
    } else {
        return Err(wrong(format!(
            "the header `{name}` must be text; this is {}",
            value.type_name()
        )));
    };
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
        wrong(format!(
            "the header `{name}` holds a character that cannot be sent"
        ))
    })
}

fn wrong(message: String) -> Box<RunError> {
    error(RunErrorKind::Answer, message)
}

fn too_large(max: usize) -> Box<RunError> {
    error(
        RunErrorKind::Output,
        format!("the answer is larger than limits.response_body ({max} bytes)"),
    )
}

fn error(kind: RunErrorKind, message: String) -> Box<RunError> {
    Box::new(RunError {
        kind,
        message,
        script: None,
        line: None,
        column: None,
        trace: Vec::new(),
    })
}
