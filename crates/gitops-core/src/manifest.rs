//! `app.yaml` and `picloud.yaml`, read into what they declare.

mod settings;
mod triggers;

use std::collections::{BTreeMap, BTreeSet};

use picloud_shared::{
    AppName, LimitsPatch,
    app::{CheckSpec, Cors, RateLimit, RouteAuth, RouteMode, SignatureScheme},
    route_pattern::RoutePattern,
};

use crate::{
    decode::{Report, did_you_mean},
    yaml::{self, Key, Node, Place, Yaml},
};

#[cfg(test)]
pub(crate) use settings::SYNC_KEYS;
pub(crate) use settings::settings;
pub use settings::{Notification, PreviewOptions, SourceSettings, Window};
#[cfg(test)]
pub(crate) use triggers::{KINDS as TRIGGER_KINDS, trigger_keys};
pub(crate) use triggers::{TriggerManifest, trigger};

/// Bytes of a manifest.
pub(crate) const MAX_MANIFEST: u64 = 1 << 20;
pub(crate) const APP_KEYS: [&str; 12] = [
    "name",
    "description",
    "domains",
    "env",
    "secrets",
    "permissions",
    "limits",
    "static",
    "routes",
    "triggers",
    "checks",
    "depends_on",
];
pub(crate) const ROUTE_KEYS: [&str; 8] = [
    "path",
    "methods",
    "script",
    "mode",
    "auth",
    "cors",
    "rate_limit",
    "limits",
];
pub(crate) const LIMIT_KEYS: [&str; 6] = [
    "timeout",
    "memory",
    "operations",
    "concurrency",
    "request_body",
    "response_body",
];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const MAX_ROUTES: usize = 1_000;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// What an `app.yaml` declares, before its files are looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct AppManifest {
    pub(crate) name: Option<Placed<AppName>>,
    pub(crate) description: Option<String>,
    pub(crate) domains: BTreeMap<String, Place>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) http_allow: Option<Vec<String>>,
    pub(crate) limits: LimitsPatch,
    pub(crate) static_dir: Option<Placed<String>>,
    pub(crate) routes: Vec<RouteManifest>,
    pub(crate) secrets: Vec<(String, Placed<String>)>,
    pub(crate) triggers: Vec<TriggerManifest>,
    pub(crate) checks: Vec<CheckSpec>,
    pub(crate) depends_on: Vec<Placed<AppName>>,
}

/// One entry of `routes`.
#[derive(Debug, Clone)]
pub(crate) struct RouteManifest {
    pub(crate) place: Place,
    pub(crate) pattern: RoutePattern,
    pub(crate) methods: BTreeSet<String>,
    pub(crate) script: Placed<String>,
    pub(crate) mode: RouteMode,
    pub(crate) auth: RouteAuth,
    pub(crate) cors: Option<Cors>,
    pub(crate) rate_limit: Option<RateLimit>,
    /// Where `auth` names a secret.
    pub(crate) secret_place: Option<Place>,
    pub(crate) limits: LimitsPatch,
}

/// The name that an `app.yaml` declares, whatever else is wrong with it.
pub fn app_name(text: &str) -> Option<String> {
    let name = app(text, &mut Report::new("app.yaml", text)).name?;
    Some(name.value.to_string())
}

/// Where a check of an `app.yaml` names what it requests: line, column and length, all from 1.
pub fn check_place(text: &str, position: usize) -> Option<(u32, u32, u32)> {
    let root = yaml::parse(text).ok()??;
    let find = |node: &Node, key: &str| match &node.value {
        Yaml::Map(entries) => {
            let mut entries = entries.iter();
            let found = entries.find(|(known, _)| known.name == key);
            found.map(|(_, node)| node.clone())
        }
        _ => None,
    };
    let checks = find(&root, "checks")?;
    let Yaml::List(items) = &checks.value else {
        return None;
    };
    let check = items.get(position)?;
    let place = find(check, "path").map_or(check.place, |path| path.place);
    Some((place.line, place.column, place.length))
}

/// Reads an `app.yaml`.
pub(crate) fn app(text: &str, report: &mut Report<'_>) -> AppManifest {
    let mut app = AppManifest::default();
    let Some(root) = document(text, report, "app.yaml") else {
        app.name = guessed_name(text);
        report.app = app.name.as_ref().map(|name| name.value.clone());
        for finding in &mut report.found {
            finding.app.clone_from(&report.app);
        }
        return app;
    };
    let entries = report.map(&root, "app.yaml", &APP_KEYS);
    // The name first: what is found after it is told with it.
    if let Some((_, node)) = entries.iter().find(|(key, _)| key.name == "name") {
        app.name = name(node, report);
        report.app = app.name.as_ref().map(|name| name.value.clone());
    } else if matches!(root.value, Yaml::Map(_)) {
        let hint = Some("add `name: …`, a DNS label that no other app has".to_owned());
        report.error("E0104", Place::START, "app.yaml lacks `name`", hint);
    }
    for (key, node) in entries {
        match key.name.as_str() {
            "description" => app.description = report.text(node, "description").map(str::to_owned),
            "domains" => app.domains = domains(node, report),
            "env" => app.env = env(node, report),
            "permissions" => app.http_allow = permissions(node, report),
            "limits" => app.limits = limits(node, report),
            "static" => {
                let dir = report.text(node, "static").map(str::to_owned);
                app.static_dir = dir.map(|value| Placed {
                    value,
                    place: node.place,
                });
            }
            "routes" => app.routes = routes(node, report),
            "secrets" => app.secrets = triggers::secrets(node, report),
            "triggers" => app.triggers = triggers::triggers(node, report),
            "checks" => app.checks = triggers::checks(node, report),
            "depends_on" => app.depends_on = dependencies(node, report),
            _ => {}
        }
    }
    app
}

/// The name that a manifest most likely has which is no YAML: the app is known by it, and stays as
/// it is, wherever its folder is now.
fn guessed_name(text: &str) -> Option<Placed<AppName>> {
    let lines = text.lines().zip(1_u32..);
    let mut named =
        lines.filter_map(|(line, number)| Some((line, line.strip_prefix("name:")?, number)));
    let (line, rest, number) = named.next()?;
    let word = rest.split(" #").next().unwrap_or_default().trim();
    let place = Place {
        line: number,
        column: u32::try_from(line.find(word)? + 1).ok()?,
        length: u32::try_from(word.chars().count().max(1)).ok()?,
    };
    let value = word.trim_matches(['"', '\'']).parse().ok()?;
    Some(Placed { value, place })
}

fn document(text: &str, report: &mut Report<'_>, what: &str) -> Option<Node> {
    let mut problems = Vec::new();
    let parsed = yaml::parse_on(text, &mut problems);
    for problem in problems {
        let hint = problem.hint.map(str::to_owned);
        report.error(problem.code, problem.place, problem.message, hint);
    }
    match parsed {
        Ok(Some(root)) if !matches!(root.value, Yaml::Null) => Some(root),
        Ok(_) => {
            if what == "app.yaml" {
                report.error(
                    "E0104",
                    Place::START,
                    "app.yaml is empty",
                    Some("add `name: …`".to_owned()),
                );
            }
            None
        }
        Err(error) => {
            let line = text.lines().nth(error.place.line as usize - 1);
            // The most common slip: a parameter of a path inside of `{…}`.
            let braces = line.is_some_and(|line| {
                line.split_once("path:").is_some_and(|(_, rest)| {
                    rest.trim_start().starts_with('/') && rest.contains('{')
                })
            });
            let at = line.and_then(|line| line.chars().nth(error.place.column as usize - 1));
            let hint = match at {
                _ if braces => Some("put a path with parameters in quotes: path: '/entries/{id}'"),
                Some('*') if error.code == "E0101" => {
                    Some("`*` begins an alias: put the value in quotes, like \"*/5 * * * *\"")
                }
                Some('@' | '`' | '%') => Some("put the value in quotes, like \"@daily\""),
                Some('\t') => Some("indent with spaces"),
                _ => error.hint,
            };
            report.error(
                error.code,
                error.place,
                error.message,
                hint.map(str::to_owned),
            );
            None
        }
    }
}

fn dependencies(node: &Node, report: &mut Report<'_>) -> Vec<Placed<AppName>> {
    let mut found: Vec<Placed<AppName>> = Vec::new();
    for item in report.list(node, "depends_on") {
        let Some(app) = name(item, report) else {
            continue;
        };
        if found.iter().any(|known| known.value == app.value) {
            let message = format!("the app `{}` stands twice", app.value);
            report.error("E0105", app.place, message, None);
        } else {
            found.push(app);
        }
    }
    found
}

fn name(node: &Node, report: &mut Report<'_>) -> Option<Placed<AppName>> {
    let text = report.text(node, "name")?;
    match text.parse() {
        Ok(value) => Some(Placed {
            value,
            place: node.place,
        }),
        Err(error) => {
            report.error(
                "E0201",
                node.place,
                format!("an app's name {error}; this is `{text}`"),
                Some(label_like(text)),
            );
            None
        }
    }
}

/// A DNS label that is like a text.
fn label_like(text: &str) -> String {
    let mut label = String::new();
    for c in text.chars() {
        match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => label.push(c),
            _ if label.ends_with('-') => {}
            _ => label.push('-'),
        }
    }
    label.truncate(63);
    let label = label.trim_matches('-');
    if label.is_empty() {
        "write a name like `my-app`".to_owned()
    } else {
        format!("did you mean `{label}`?")
    }
}

fn domains(node: &Node, report: &mut Report<'_>) -> BTreeMap<String, Place> {
    let mut domains = BTreeMap::new();
    for item in report.list(node, "domains") {
        let Some(text) = report.text(item, "a domain") else {
            continue;
        };
        let Some(host) = host(text) else {
            let hint =
                Some("write the host name alone: no scheme, port, path or wildcard".to_owned());
            report.error(
                "E0108",
                item.place,
                format!("`{text}` is no host name"),
                hint,
            );
            continue;
        };
        if domains.insert(host, item.place).is_some() {
            report.error(
                "E0105",
                item.place,
                format!("the domain `{text}` stands twice"),
                None,
            );
        }
    }
    domains
}

/// A host name in lower case, without a dot at its end; one beyond ASCII in its `xn--` form, as
/// clients send it (UTS 46).
pub(crate) fn host(text: &str) -> Option<String> {
    let named = if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        match url::Host::parse(text).ok()? {
            url::Host::Domain(name) => name,
            _ => return None,
        }
    };
    let host = named.strip_suffix('.').unwrap_or(&named).to_owned();
    // RFC 1123 has no `_`; hosts that are reached have it all the same.
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(allowed)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    (host.len() <= 253 && host.split('.').all(label)).then_some(host)
}

fn env(node: &Node, report: &mut Report<'_>) -> Vec<(String, String)> {
    let Yaml::Map(entries) = &node.value else {
        report.wrong_type(node, "env", "a mapping of names to text");
        return Vec::new();
    };
    let mut env = Vec::new();
    for (key, node) in entries {
        variable_name(key, report);
        if let Some(text) = report.text(node, &format!("env.{}", key.name)) {
            if text.contains('\0') {
                report.error(
                    "E0108",
                    node.place,
                    "the value holds the character U+0000",
                    None,
                );
            }
            env.push((key.name.clone(), text.to_owned()));
        }
    }
    env
}

fn variable_name(key: &Key, report: &mut Report<'_>) {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let good = !key.name.is_empty()
        && key.name.chars().all(word)
        && !key.name.starts_with(|c: char| c.is_ascii_digit());
    if !good {
        let hint = Some("a name has letters, digits and `_`, and begins with no digit".to_owned());
        let message = format!("`{}` is no name of a variable", key.name);
        report.error("E0108", key.place, message, hint);
    }
}

fn text_at(node: &Node, what: &str, report: &mut Report<'_>) -> Option<Placed<String>> {
    let text = report.text(node, what).map(str::to_owned);
    text.map(|value| Placed {
        value,
        place: node.place,
    })
}

fn permissions(node: &Node, report: &mut Report<'_>) -> Option<Vec<String>> {
    let mut allow = None;
    let named = |name: &'static str| move |(key, _): &&(Key, Node)| key.name == name;
    for (_, node) in report
        .map(node, "permissions", &["http"])
        .iter()
        .filter(named("http"))
    {
        let entries = report.map(node, "permissions.http", &["allow"]);
        for (_, node) in entries.iter().filter(named("allow")) {
            let mut hosts = Vec::new();
            for item in report.list(node, "permissions.http.allow") {
                let Some(text) = report.text(item, "a host pattern") else {
                    continue;
                };
                match host(text.strip_prefix("*.").unwrap_or(text)) {
                    Some(host) if text.starts_with("*.") => hosts.push(format!("*.{host}")),
                    Some(host) => hosts.push(host),
                    None => {
                        let hint = Some(
                            "write a host like `api.example.com` or `*.example.com`".to_owned(),
                        );
                        report.error(
                            "E0108",
                            item.place,
                            format!("`{text}` is no host pattern"),
                            hint,
                        );
                    }
                }
            }
            hosts.sort();
            hosts.dedup();
            allow = Some(hosts);
        }
    }
    allow
}

fn limits(node: &Node, report: &mut Report<'_>) -> LimitsPatch {
    let mut patch = LimitsPatch::default();
    for (key, node) in report.map(node, "limits", &LIMIT_KEYS) {
        match key.name.as_str() {
            "timeout" => patch.timeout_ms = report.duration(node, "timeout", 1, 900_000),
            "memory" => patch.memory = report.size(node, "memory", 1 << 20, 4 << 30),
            "operations" => {
                patch.operations = report.number(node, "operations", 1, 1_000_000_000_000);
            }
            "concurrency" => {
                let number = report.number(node, "concurrency", 1, 10_000);
                patch.concurrency = number.and_then(|number| u32::try_from(number).ok());
            }
            "request_body" => patch.request_body = report.size(node, "request_body", 0, 1 << 30),
            "response_body" => patch.response_body = report.size(node, "response_body", 0, 1 << 30),
            _ => {}
        }
    }
    patch
}

fn routes(node: &Node, report: &mut Report<'_>) -> Vec<RouteManifest> {
    let items = report.list(node, "routes");
    if items.len() > MAX_ROUTES {
        report.error(
            "E0208",
            node.place,
            format!("an app has at most {MAX_ROUTES} routes"),
            None,
        );
        return Vec::new();
    }
    items
        .iter()
        .filter_map(|item| route(item, report))
        .collect()
}

fn route(node: &Node, report: &mut Report<'_>) -> Option<RouteManifest> {
    let before = report.found.len();
    let entries = report.map(node, "a route", &ROUTE_KEYS);
    let (mut pattern, mut script) = (None, None);
    let mut methods = BTreeSet::from(["GET".to_owned()]);
    let (mut cors, mut limits_patch) = (None, LimitsPatch::default());
    let (mut mode, mut auth, mut rate_limit) = (RouteMode::Sync, RouteAuth::None, None);
    let mut secret_place = None;
    for (key, node) in entries {
        match key.name.as_str() {
            "path" => pattern = path(node, report),
            "script" => {
                let text = report.text(node, "script").map(str::to_owned);
                script = text.map(|value| Placed {
                    value,
                    place: node.place,
                });
            }
            "methods" => methods = method_list(node, report),
            "mode" => match report.text(node, "mode") {
                Some("sync") | None => {}
                Some("async") => mode = RouteMode::Async,
                Some(word) => wrong_word(report, node, "mode", word, &["sync", "async"]),
            },
            "auth" => (auth, secret_place) = read_auth(node, report),
            "cors" => cors = read_cors(node, report),
            "rate_limit" => rate_limit = read_rate_limit(node, report),
            "limits" => limits_patch = limits(node, report),
            _ => {}
        }
    }
    for (name, there) in [("path", pattern.is_some()), ("script", script.is_some())] {
        let written = entries.iter().any(|(key, _)| key.name == name);
        if !there && !written && matches!(node.value, Yaml::Map(_)) {
            report.error(
                "E0104",
                node.place,
                format!("the route lacks `{name}`"),
                None,
            );
        }
    }
    let (Some(pattern), Some(script)) = (pattern, script) else {
        debug_assert!(
            report.found.len() > before,
            "a route that is left out has a finding"
        );
        return None;
    };
    Some(RouteManifest {
        place: node.place,
        pattern,
        methods,
        script,
        mode,
        auth,
        cors,
        rate_limit,
        secret_place,
        limits: limits_patch,
    })
}

fn read_auth(node: &Node, report: &mut Report<'_>) -> (RouteAuth, Option<Place>) {
    const WORDS: [&str; 3] = ["none", "key", "{signature: {scheme, secret}}"];
    const SCHEMES: [(&str, SignatureScheme); 4] = [
        ("github", SignatureScheme::Github),
        ("stripe", SignatureScheme::Stripe),
        ("slack", SignatureScheme::Slack),
        ("hmac-sha256", SignatureScheme::HmacSha256),
    ];
    let nobody = (RouteAuth::None, None);
    match &node.value {
        Yaml::Text(word) if word == "none" => return nobody,
        Yaml::Text(word) if word == "key" => return (RouteAuth::Key, None),
        Yaml::Text(word) => {
            wrong_word(report, node, "auth", word, &WORDS);
            return nobody;
        }
        Yaml::Map(_) => {}
        _ => {
            report.wrong_type(node, "auth", "`none`, `key` or a mapping with `signature`");
            return nobody;
        }
    }
    let (mut scheme, mut secret) = (None, None);
    let mut written = false;
    for (key, node) in report.map(node, "auth", &["signature"]) {
        if key.name != "signature" {
            continue;
        }
        written = true;
        for (key, node) in report.map(node, "auth.signature", &["scheme", "secret"]) {
            let Some(text) = report.text(node, &key.name) else {
                continue;
            };
            if key.name == "scheme" {
                scheme = SCHEMES
                    .iter()
                    .find(|(word, _)| *word == text)
                    .map(|(_, scheme)| *scheme);
                if scheme.is_none() {
                    wrong_word(report, node, "scheme", text, &SCHEMES.map(|(word, _)| word));
                    return nobody;
                }
            } else if key.name == "secret" {
                secret = Some((text.to_owned(), node.place));
            }
        }
    }
    match (scheme, secret) {
        (Some(scheme), Some((secret, place))) => {
            (RouteAuth::Signature { scheme, secret }, Some(place))
        }
        (scheme, _) => {
            let lacks = match (written, scheme) {
                (false, _) => "signature",
                (true, None) => "scheme",
                (true, Some(_)) => "secret",
            };
            report.error("E0104", node.place, format!("auth lacks `{lacks}`"), None);
            nobody
        }
    }
}

fn read_rate_limit(node: &Node, report: &mut Report<'_>) -> Option<RateLimit> {
    let text = report.text(node, "rate_limit")?;
    let parts = text.split_once('/').and_then(|(requests, window)| {
        let window = window.trim();
        let window_ms = match window {
            "s" | "m" | "h" | "d" => picloud_shared::duration::milliseconds(&format!("1{window}"))?,
            window => picloud_shared::duration::milliseconds(window)?,
        };
        Some((requests.trim().parse::<u32>().ok()?, window_ms))
    });
    match parts {
        Some((requests, window_ms))
            if requests >= 1 && (1_000..=86_400_000).contains(&window_ms) =>
        {
            Some(RateLimit {
                requests,
                window_ms,
            })
        }
        _ => {
            let hint = Some("write requests and a window from 1s to 24h: `100/1m`".to_owned());
            let message = format!("`{text}` is no rate limit");
            report.error("E0108", node.place, message, hint);
            None
        }
    }
}

fn path(node: &Node, report: &mut Report<'_>) -> Option<RoutePattern> {
    let text = report.text(node, "path")?;
    match RoutePattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let hint = Some("examples: `/entries`, `/entries/{id}`, `/files/{*rest}`".to_owned());
            report.error(
                "E0301",
                node.place,
                format!("`{text}` is no path of a route: {error}"),
                hint,
            );
            None
        }
    }
}

fn method_list(node: &Node, report: &mut Report<'_>) -> BTreeSet<String> {
    let mut methods = BTreeSet::new();
    let items = report.list(node, "methods");
    for item in items {
        let Some(text) = report.text(item, "a method") else {
            continue;
        };
        if !METHODS.contains(&text) {
            wrong_word(report, item, "a method", text, &METHODS);
        } else if !methods.insert(text.to_owned()) {
            report.error(
                "E0105",
                item.place,
                format!("the method `{text}` stands twice"),
                None,
            );
        }
    }
    if items.is_empty() && matches!(node.value, Yaml::List(_)) {
        report.error(
            "E0108",
            node.place,
            "methods is empty",
            Some("leave it out for GET alone".to_owned()),
        );
    }
    methods
}

fn read_cors(node: &Node, report: &mut Report<'_>) -> Option<Cors> {
    match node.value {
        Yaml::Bool(false) => return None,
        Yaml::Bool(true) => {
            let origins = vec!["*".to_owned()];
            return Some(Cors {
                origins,
                ..Cors::default()
            });
        }
        Yaml::Map(_) => {}
        _ => {
            report.wrong_type(node, "cors", "`true` or a mapping");
            return None;
        }
    }
    let mut cors = Cors::default();
    for (key, node) in report.map(node, "cors", &["origins", "methods", "headers", "max_age"]) {
        match key.name.as_str() {
            "origins" => {
                for item in report.list(node, "origins") {
                    let Some(text) = report.text(item, "an origin") else {
                        continue;
                    };
                    if is_origin(text) {
                        cors.origins.push(text.to_owned());
                    } else {
                        let hint = Some("write `https://example.com` (no path), or `*`".to_owned());
                        report.error("E0108", item.place, format!("`{text}` is no origin"), hint);
                    }
                }
            }
            "methods" => cors.methods = method_list(node, report).into_iter().collect(),
            "headers" => cors.headers = headers(node, report),
            // A number is what stands in the header: seconds.
            "max_age" if matches!(node.value, Yaml::Number(_)) => {
                cors.max_age = report.number(node, "max_age", 0, 86_400);
            }
            "max_age" => {
                cors.max_age = report
                    .duration(node, "max_age", 0, 86_400_000)
                    .map(|ms| ms / 1000);
            }
            _ => {}
        }
    }
    if cors.origins.is_empty() {
        cors.origins.push("*".to_owned());
    }
    Some(cors)
}

fn headers(node: &Node, report: &mut Report<'_>) -> Vec<String> {
    let mut headers = Vec::new();
    for item in report.list(node, "headers") {
        let Some(text) = report.text(item, "a header's name") else {
            continue;
        };
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if text.is_empty() || !text.bytes().all(token) {
            report.error(
                "E0108",
                item.place,
                format!("`{text}` is no header's name"),
                None,
            );
        } else {
            headers.push(text.to_ascii_lowercase());
        }
    }
    headers
}

/// `*`, or scheme, host and perhaps a port (Fetch standard, section 3.2.5).
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text == "*";
    };
    let (name, port) = rest
        .rsplit_once(':')
        .map_or((rest, None), |(name, port)| (name, Some(port)));
    let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok());
    matches!(scheme, "http" | "https") && port_is_good && host(name).as_deref() == Some(name)
}

fn wrong_word(report: &mut Report<'_>, node: &Node, what: &str, word: &str, words: &[&str]) {
    let hint = did_you_mean(word, words.iter().copied())
        .unwrap_or_else(|| format!("one of {}", words.join(", ")));
    report.error(
        "E0108",
        node.place,
        format!("{what} cannot be `{word}`"),
        Some(hint),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> AppManifest {
        let mut report = Report::new("app.yaml", text);
        let manifest = app(text, &mut report);
        assert!(report.found.is_empty(), "{:?}", report.found);
        manifest
    }

    #[test]
    fn hosts_are_written_as_they_stand_in_requests() {
        let manifest = read(
            "name: a\ndomains: [Bücher.Example., ПРИМЕР.example]\npermissions: {http: {allow: \
             [API.example.com., '*.BÜCHER.example', 'a_b.example', 'bücher。example']}}\n",
        );
        let domains: Vec<&str> = manifest.domains.keys().map(String::as_str).collect();
        assert_eq!(domains, ["xn--bcher-kva.example", "xn--e1afmkfd.example"]);
        let expected = [
            "*.xn--bcher-kva.example",
            "a_b.example",
            "api.example.com",
            "xn--bcher-kva.example",
        ];
        assert_eq!(
            manifest.http_allow,
            Some(expected.map(str::to_owned).to_vec())
        );
        for bad in ["", "a..b", "-a.b", "a b", "ü%20.b", "*", "a.*", "http://ü"] {
            assert_eq!(host(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_number_as_max_age_is_seconds() {
        for (written, seconds) in [("600", 600), ("10m", 600), ("0", 0)] {
            let text = format!(
                "name: a\nroutes: [{{path: /, script: scripts/a.rhai, cors: {{max_age: {written}}}}}]\n"
            );
            let cors = read(&text).routes.remove(0).cors;
            assert_eq!(
                cors.and_then(|cors| cors.max_age),
                Some(seconds),
                "{written}"
            );
        }
    }
}
