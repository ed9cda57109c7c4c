//! `http::*`

use bytes::Bytes;
use picloud_shared::sdk::{HttpAnswer, HttpCall};
use rhai::{Blob, Dynamic, ImmutableString, Map, Module};

use super::{MAX_TEXT, Native, absent, ask, duration, function, invalid, text, unknown};
use crate::json;

/// Bytes of an answer's body, unless the call says otherwise.
const DEFAULT_BODY: u64 = 5 << 20;
/// Bytes of an answer's body that a call may ask for.
const MAX_BODY: i64 = 16 << 20;
/// Redirects that are followed, unless the call says otherwise.
const DEFAULT_REDIRECTS: u32 = 5;
const MAX_REDIRECTS: i64 = 20;
const OPTIONS: &str = "headers, query, timeout, max_body, follow_redirects";

functions! {
    "http" :: "get" [1, 2], ["get(url: String) -> Map", "get(url: String, options: Map) -> Map"], "Sends GET; gives `#{status, headers, body, body_raw}`. Options: headers, query, timeout (`5s`), max_body (bytes), follow_redirects (a number, or `false`).";
    "http" :: "head" [1, 2], ["head(url: String) -> Map", "head(url: String, options: Map) -> Map"], "Sends HEAD.";
    "http" :: "delete" [1, 2], ["delete(url: String) -> Map", "delete(url: String, options: Map) -> Map"], "Sends DELETE.";
    "http" :: "post" [2, 3], ["post(url: String, body: Dynamic) -> Map", "post(url: String, body: Dynamic, options: Map) -> Map"], "Sends POST: a map or an array as JSON, text as text, a blob as bytes, `()` as no body.";
    "http" :: "put" [2, 3], ["put(url: String, body: Dynamic) -> Map", "put(url: String, body: Dynamic, options: Map) -> Map"], "Sends PUT, with a body as `post`.";
    "http" :: "patch" [2, 3], ["patch(url: String, body: Dynamic) -> Map", "patch(url: String, body: Dynamic, options: Map) -> Map"], "Sends PATCH, with a body as `post`.";
    "http" :: "request" [4], ["request(method: String, url: String, body: Dynamic, options: Map) -> Map"], "Sends any method.";
}

type Text = ImmutableString;

pub(crate) fn module() -> Module {
    let mut module = Module::new();
    for (name, method) in [("get", "GET"), ("head", "HEAD"), ("delete", "DELETE")] {
        function(&mut module, name, move |url: Text| {
            send(method, &url, &Dynamic::UNIT, &Map::new())
        });
        function(&mut module, name, move |url: Text, options: Map| {
            send(method, &url, &Dynamic::UNIT, &options)
        });
    }
    for (name, method) in [("post", "POST"), ("put", "PUT"), ("patch", "PATCH")] {
        function(&mut module, name, move |url: Text, body: Dynamic| {
            send(method, &url, &body, &Map::new())
        });
        function(
            &mut module,
            name,
            move |url: Text, body: Dynamic, options: Map| send(method, &url, &body, &options),
        );
    }
    function(
        &mut module,
        "request",
        |method: Text, url: Text, body: Dynamic, options: Map| {
            send(&method.to_ascii_uppercase(), &url, &body, &options)
        },
    );
    module
}

fn send(method: &str, url: &str, body: &Dynamic, options: &Map) -> Native<Map> {
    let mut call = HttpCall {
        method: method.to_owned(),
        url: url.to_owned(),
        query: Vec::new(),
        headers: Vec::new(),
        body: content(body)?,
        timeout_ms: None,
        max_body: DEFAULT_BODY,
        follow_redirects: DEFAULT_REDIRECTS,
    };
    for (name, option) in options {
        match name.as_str() {
            "headers" => call.headers = pairs("headers", option)?,
            "query" => call.query = pairs("query", option)?,
            "timeout" => call.timeout_ms = Some(duration("timeout", option)?),
            "max_body" => {
                let size = option
                    .as_int()
                    .ok()
                    .filter(|size| (0..=MAX_BODY).contains(size));
                let size = size.and_then(|size| u64::try_from(size).ok());
                call.max_body = size.ok_or_else(|| {
                    invalid(format!("max_body must be from 0 to {MAX_BODY} bytes"))
                })?;
            }
            "follow_redirects" => call.follow_redirects = redirects(option)?,
            other => return Err(unknown("http", other, OPTIONS)),
        }
    }
    ask(
        |services, cx| {
            let http = services.http.as_ref().ok_or_else(|| absent("http"))?;
            // The connection may hold its body for longer than the run waits.
            let body = call.body.as_ref();
            let body = body.map(|(bytes, kind)| (Bytes::copy_from_slice(bytes), *kind));
            http.request(
                cx,
                HttpCall {
                    body,
                    ..call.clone()
                },
            )
        },
        shown,
    )
}

fn redirects(option: &Dynamic) -> Native<u32> {
    match (option.as_bool(), option.as_int()) {
        (Ok(false), _) => Ok(0),
        (Ok(true), _) => Ok(DEFAULT_REDIRECTS),
        (_, Ok(count)) if (0..=MAX_REDIRECTS).contains(&count) => {
            Ok(u32::try_from(count).unwrap_or(0))
        }
        _ => Err(invalid(format!(
            "follow_redirects must be `false` or from 0 to {MAX_REDIRECTS}"
        ))),
    }
}

pub(crate) fn content(body: &Dynamic) -> Native<Option<(Bytes, &'static str)>> {
    if body.is_unit() {
        return Ok(None);
    }
    if let Some(text) = body.read_lock::<ImmutableString>() {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        return Ok(Some((bytes, "text/plain; charset=utf-8")));
    }
    if let Some(blob) = body.read_lock::<Blob>() {
        return Ok(Some((
            Bytes::copy_from_slice(&blob),
            "application/octet-stream",
        )));
    }
    if body.is_map() || body.is_array() {
        let mut out = Vec::new();
        json::write(body, &mut out, MAX_TEXT).map_err(invalid)?;
        return Ok(Some((out.into(), "application/json")));
    }
    Err(invalid(format!(
        "a body is a map, an array, text, a blob or (); this is {}",
        body.type_name()
    )))
}

/// Names and values; an array gives a name several times.
pub(crate) fn pairs(what: &str, option: &Dynamic) -> Native<Vec<(String, String)>> {
    let Some(map) = option.read_lock::<Map>() else {
        return Err(invalid(format!(
            "{what} must be a map; this is {}",
            option.type_name()
        )));
    };
    let mut pairs = Vec::new();
    for (name, value) in map.iter() {
        let values = value
            .read_lock::<rhai::Array>()
            .map_or_else(|| vec![value.clone()], |values| values.clone());
        for value in values {
            let plain = value.is_int() || value.is_float() || value.is_bool();
            let value = if plain {
                value.to_string()
            } else {
                text(&format!("{what}.{name}"), &value)?
            };
            pairs.push((name.to_string(), value));
        }
    }
    Ok(pairs)
}

pub(crate) fn shown(answer: &HttpAnswer) -> Map {
    let mut headers = Map::new();
    let mut kind = String::new();
    for (name, value) in &answer.headers {
        if name == "content-type" {
            kind.clone_from(value);
        }
        match headers.get_mut(name.as_str()) {
            // Fields of one name are one list (RFC 9110, section 5.2).
            Some(before) => {
                let joined = format!("{before}, {value}");
                *before = joined.into();
            }
            None => {
                headers.insert(name.as_str().into(), value.as_str().into());
            }
        }
    }
    let mut map = Map::new();
    map.insert("status".into(), i64::from(answer.status).into());
    map.insert("headers".into(), headers.into());
    map.insert("body".into(), body(&kind, &answer.body));
    map.insert("body_raw".into(), Dynamic::from_blob(answer.body.to_vec()));
    map
}

/// JSON where it says so and is; else text where it is text; else `()`.
pub(crate) fn body(kind: &str, bytes: &[u8]) -> Dynamic {
    let media = kind.split(';').next().unwrap_or_default().trim();
    let media = media.to_ascii_lowercase();
    if (media == "application/json" || media.ends_with("+json"))
        && let Ok(value) = json::parse(bytes)
    {
        return value;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) if media.starts_with("text/") => legacy_text(kind, bytes).into(),
        Err(_) => Dynamic::UNIT,
    }
}

/// Text that is not UTF-8: Latin-1 where it says so, else with a mark for each byte that is none.
fn legacy_text(kind: &str, bytes: &[u8]) -> String {
    let charset = kind.split(';').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let is_it = name.trim().eq_ignore_ascii_case("charset");
        is_it.then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    });
    match charset.as_deref() {
        Some("iso-8859-1" | "latin1" | "us-ascii" | "windows-1252") => {
            bytes.iter().copied().map(char::from).collect()
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}
