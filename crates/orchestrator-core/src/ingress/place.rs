//! What a request is for, by its path and host. The platform's own paths win on every host, so
//! that no app can stand in front of them.

use std::sync::Arc;

use http::{HeaderMap, Uri, header};

use crate::holder::{Served, ServedApp};

/// What a request is for.
pub(super) enum Place {
    /// An app, whose paths begin at this offset of the request's.
    App(Arc<ServedApp>, usize),
    /// An app that isn't there.
    NoApp,
    /// `/` on the base domain.
    Home,
    Health,
    Ready,
    Metrics,
    /// The admin API and its like.
    Platform,
    Nothing,
}

/// Paths below which the platform answers, whatever the host.
const PLATFORM: [&str; 7] = [
    "/api/v1/admin",
    "/api/v1/hooks",
    "/api/v1/caddy",
    "/api/v1/openapi.json",
    "/api/v1/docs",
    "/dashboard",
    "/git",
];

pub(super) fn find(
    uri: &Uri,
    headers: &HeaderMap,
    served: &Served,
    base: &str,
    dot_base: &str,
) -> Place {
    let path = uri.path();
    if let Some(rest) = path.strip_prefix("/apps/") {
        let name = rest.split('/').next().unwrap_or_default();
        return match served.apps.get(name) {
            Some(app) => Place::App(Arc::clone(app), "/apps/".len() + name.len()),
            None => Place::NoApp,
        };
    }
    match path {
        "/healthz" => return Place::Health,
        "/readyz" => return Place::Ready,
        "/metrics" => return Place::Metrics,
        _ => {}
    }
    if PLATFORM.iter().any(|prefix| below(path, prefix)) {
        return Place::Platform;
    }
    let Some(host) = host(uri, headers) else {
        return Place::Nothing;
    };
    if host == base {
        return if path == "/" {
            Place::Home
        } else {
            Place::Nothing
        };
    }
    if let Some(app) = served.domains.get(&host) {
        return Place::App(Arc::clone(app), 0);
    }
    match host.strip_suffix(dot_base) {
        Some(name) => served
            .apps
            .get(name)
            .map_or(Place::NoApp, |app| Place::App(Arc::clone(app), 0)),
        None if path == "/" => Place::Home,
        None => Place::Nothing,
    }
}

fn below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The host that was asked for, in lower case, without port and trailing dot.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let host = if let Some(host) = uri.host() {
        host
    } else {
        let value = headers.get(header::HOST)?.to_str().ok()?;
        match value.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => value,
        }
    };
    Some(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase())
}

/// `.` and `..` parts, also percent-encoded: clients resolve them, whoever sends them means harm.
pub(super) fn has_dot_segments(path: &str) -> bool {
    path.split('/').any(|part| {
        let plain = part.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    })
}
