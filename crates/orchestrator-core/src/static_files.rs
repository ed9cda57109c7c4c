//! Files of apps, served as they are: contents are addressed by blob id, which is also their
//! `ETag`, and kept on disk once they were asked for, so that they need no database. Text is
//! compressed as the client takes it, once a content; files that lie compressed beside a file
//! (`app.js.br`, `app.js.gz`) are sent in its place.

mod coding;

use std::{collections::HashMap, path::PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use picloud_shared::{AppSpec, BlobId, app::StaticFile};
use picloud_store::{Store, StoreError};

use crate::problem::{Whole, problem};
use coding::Coding;

/// Bytes of contents that are kept in memory.
const MEMORY: usize = 32 << 20;
/// Bytes of a file that is kept in memory, or compressed.
const SMALL: u64 = 1 << 20;

/// Serves static files.
pub(crate) struct StaticFiles {
    store: Store,
    dir: PathBuf,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    contents: HashMap<(BlobId, Coding), Bytes>,
    bytes: usize,
}

impl StaticFiles {
    pub(crate) fn new(store: Store, dir: PathBuf) -> Self {
        Self {
            store,
            dir,
            memory: Mutex::default(),
        }
    }

    /// Answers a request for a file of an app.
    pub(crate) async fn answer(
        &self,
        spec: &AppSpec,
        method: &Method,
        uri: &Uri,
        path: &str,
        headers: &HeaderMap,
    ) -> Response<Whole> {
        let not_found = || {
            problem(
                StatusCode::NOT_FOUND,
                "not_found",
                "the app has no route and no file for this path",
            )
        };
        let Ok(decoded) = percent_decode_str(path.trim_start_matches('/')).decode_utf8() else {
            return not_found();
        };
        let index = if decoded.is_empty() || decoded.ends_with('/') {
            format!("{decoded}index.html")
        } else {
            decoded.to_string()
        };
        let Some(file) = spec.static_files.get(&index) else {
            let folder = spec
                .static_files
                .contains_key(&format!("{decoded}/index.html"));
            return if folder { to_folder(uri) } else { not_found() };
        };
        // `/apps/NAME` without its slash: relative links of the page would lead astray.
        if decoded.is_empty() && !uri.path().ends_with('/') {
            return to_folder(uri);
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = if *method == Method::OPTIONS {
                let mut response = Response::new(Whole::default());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            } else {
                problem(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method_not_allowed",
                    "a file can only be read",
                )
            };
            response.headers_mut().insert(
                header::ALLOW,
                HeaderValue::from_static("GET, HEAD, OPTIONS"),
            );
            return response;
        }
        // Ranges are for GET alone (RFC 9110, section 14.2).
        let ranged = *method == Method::GET;
        match self.file(spec, file, &index, headers, ranged).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(%error, file = index, "a static file could not be read");
                problem(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "unavailable",
                    "the file cannot be read at the moment",
                )
            }
        }
    }

    async fn file(
        &self,
        spec: &AppSpec,
        file: &StaticFile,
        name: &str,
        headers: &HeaderMap,
        ranged: bool,
    ) -> Result<Response<Whole>, StoreError> {
        let kind = mime(name);
        let compressible = file.size <= SMALL && file.size > 256 && is_text(&kind);
        let ready = |coding: Coding| {
            spec.static_files
                .get(&format!("{name}.{}", coding.ending()?))
        };
        let offered = Coding::COMPRESSED
            .into_iter()
            .filter(|coding| compressible || ready(*coding).is_some());
        let varies = offered.clone().next().is_some();
        let coding = if ranged && headers.contains_key(header::RANGE) {
            Coding::Identity
        } else {
            coding::choose(headers, offered)
        };
        let etag = format!("\"{}{}\"", file.blob, coding.suffix());
        let mut response = Response::new(Whole::default());
        let out = response.headers_mut();
        insert(out, header::ETAG, &etag);
        out.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=0, must-revalidate"),
        );
        if varies {
            out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        if matches(headers.get(header::IF_NONE_MATCH), &etag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        insert(out, header::CONTENT_TYPE, &kind);
        out.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let content = match ready(coding) {
            Some(ready) => self.content(ready, Coding::Identity).await?,
            None => self.content(file, coding).await?,
        };
        if let Some(name) = coding.name() {
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        let fresh = headers
            .get(header::IF_RANGE)
            .is_none_or(|value| value.as_bytes() == etag.as_bytes());
        let range = headers
            .get(header::RANGE)
            .filter(|_| fresh && ranged)
            .and_then(|value| value.to_str().ok());
        match range.and_then(|range| parse_range(range, content.len())) {
            None => *response.body_mut() = Whole::new(content),
            Some(Some((from, to))) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let told = format!("bytes {from}-{}/{}", to - 1, content.len());
                insert(response.headers_mut(), header::CONTENT_RANGE, &told);
                *response.body_mut() = Whole::new(content.slice(from..to));
            }
            Some(None) => {
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                insert(
                    response.headers_mut(),
                    header::CONTENT_RANGE,
                    &format!("bytes */{}", content.len()),
                );
            }
        }
        Ok(response)
    }

    async fn content(&self, file: &StaticFile, coding: Coding) -> Result<Bytes, StoreError> {
        let key = (file.blob.clone(), coding);
        if let Some(content) = self.memory.lock().contents.get(&key) {
            return Ok(content.clone());
        }
        let mut content = self.raw(file).await?;
        if coding != Coding::Identity {
            let plain = content.clone();
            let packed = tokio::task::spawn_blocking(move || coding.compress(&plain)).await;
            let failed = |error: &dyn std::fmt::Display| StoreError::Corrupt(error.to_string());
            content = packed
                .map_err(|error| failed(&error))?
                .map_err(|error| failed(&error))?;
        }
        if content.len() as u64 <= SMALL {
            let mut memory = self.memory.lock();
            if memory.bytes + content.len() > MEMORY {
                *memory = Memory::default();
            }
            memory.bytes += content.len();
            memory.contents.insert(key, content.clone());
        }
        Ok(content)
    }

    /// From the disk, or else from the database and onto the disk.
    async fn raw(&self, file: &StaticFile) -> Result<Bytes, StoreError> {
        let path = self.dir.join(file.blob.as_str());
        if let Ok(content) = tokio::fs::read(&path).await
            && content.len() as u64 == file.size
        {
            return Ok(content.into());
        }
        let content = self.store.static_blob(&file.blob).await?;
        let content = content
            .ok_or_else(|| StoreError::Corrupt(format!("static_blobs lacks {}", file.blob)))?;
        if let Err(error) = self.keep(&path, &content).await {
            tracing::warn!(%error, path = %path.display(), "a static file could not be kept on disk");
        }
        Ok(content)
    }

    async fn keep(&self, path: &std::path::Path, content: &Bytes) -> std::io::Result<()> {
        tokio::fs::create_dir_all(&self.dir).await?;
        let temporary = path.with_extension(format!("{:x}", std::process::id()));
        tokio::fs::write(&temporary, content).await?;
        tokio::fs::rename(&temporary, path).await
    }
}

fn to_folder(uri: &Uri) -> Response<Whole> {
    // Relative, so that it holds behind any prefix: from `a/b` to `b/`.
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    let query = uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let mut response = Response::new(Whole::default());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    insert(
        response.headers_mut(),
        header::LOCATION,
        &format!("{last}/{query}"),
    );
    response
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn mime(name: &str) -> String {
    let kind = mime_guess::from_path(name).first_or_octet_stream();
    let text = match kind.essence_str() {
        // RFC 9239, section 6.
        "application/javascript" => "text/javascript",
        other => other,
    };
    if text.starts_with("text/") {
        format!("{text}; charset=utf-8")
    } else {
        text.to_owned()
    }
}

fn is_text(kind: &str) -> bool {
    let plain = kind.split(';').next().unwrap_or_default();
    kind.starts_with("text/")
        || plain.ends_with("+xml")
        || plain.ends_with("+json")
        || matches!(
            plain,
            "application/json" | "application/xml" | "application/wasm" | "image/svg+xml"
        )
}

fn matches(header: Option<&HeaderValue>, etag: &str) -> bool {
    let Some(value) = header.and_then(|value| value.to_str().ok()) else {
        return false;
    };
    value
        .split(',')
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
}

/// One range of bytes (RFC 9110, section 14.1.2). `None`: to be ignored; `Some(None)`: none of it
/// is there.
#[expect(
    clippy::option_option,
    reason = "ignored and unsatisfiable are two things"
)]
fn parse_range(text: &str, length: usize) -> Option<Option<(usize, usize)>> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    if from.contains(',') || to.contains(',') {
        return None;
    }
    let (from, to) = (from.trim(), to.trim());
    if from.is_empty() {
        let last = to.parse::<usize>().ok()?.min(length);
        return Some((last > 0).then(|| (length - last, length)));
    }
    let from = from.parse::<usize>().ok()?;
    let to = if to.is_empty() {
        length
    } else {
        to.parse::<usize>().ok()?.saturating_add(1).min(length)
    };
    if from >= length {
        return Some(None);
    }
    (from < to).then_some(Some((from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let cases = [
            ("bytes=0-3", Some(Some((0, 4)))),
            ("bytes=4-", Some(Some((4, 10)))),
            ("bytes=-3", Some(Some((7, 10)))),
            ("bytes=-30", Some(Some((0, 10)))),
            ("bytes=5-99", Some(Some((5, 10)))),
            ("bytes=10-", Some(None)),
            ("bytes=-0", Some(None)),
            ("bytes=3-1", None),
            ("bytes=0-1,3-4", None),
            ("lines=0-1", None),
            ("bytes=x-", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
    }

    #[test]
    fn kinds() {
        assert_eq!(mime("a.html"), "text/html; charset=utf-8");
        assert_eq!(mime("a.json"), "application/json");
        for name in ["a.js", "a.mjs"] {
            assert_eq!(mime(name), "text/javascript; charset=utf-8", "{name}");
        }
        assert_eq!(mime("a.unknown"), "application/octet-stream");
    }
}
