//! `call`: a handler's answer to a request, as a client would get it.

use std::{net::Ipv4Addr, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use picloud_executor_core::{TestAnswer, TestRequest};
use picloud_shared::{
    Clock, Invocation, Limits, Principal, RunId,
    app::{RouteSpec, ScriptKind},
    invocation::{Answer, Cancel, Input, RequestData},
    route_pattern::{RoutePattern, Segment},
    run::RunErrorKind,
    sdk::{HttpAnswer, SdkError, SdkErrorCode, SdkResult},
    snapshot::ScriptSource,
};
use serde_json::json;

use super::{World, invalid};

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl World {
    /// The handler of that path.
    pub(super) fn handler(&self, script: &str) -> SdkResult<Arc<ScriptSource>> {
        let missing = |message: String| SdkError::new(SdkErrorCode::NotFound, message);
        match self.app.scripts.get(script) {
            Some(source) if source.kind == ScriptKind::Handler => Ok(Arc::clone(source)),
            Some(_) => Err(invalid(format!("`{script}` is a module, not a handler"))),
            None => {
                let handlers = self.app.scripts.values();
                let handlers = handlers.filter(|source| source.kind == ScriptKind::Handler);
                let known: Vec<&str> = handlers.map(|source| source.path.as_str()).collect();
                Err(missing(format!(
                    "the app has no script `{script}`; it has {}",
                    known.join(", ")
                )))
            }
        }
    }

    /// Runs a handler for a request.
    pub(super) fn answer(&self, script: &str, request: TestRequest) -> SdkResult<TestAnswer> {
        let source = self.handler(script)?;
        let target = Target::of(&self.app.spec.routes, script, &request)?;
        let limits = self.app.spec.effective_limits();
        let limits = target
            .route
            .map_or_else(|| limits.clone(), |route| limits.with(&route.limits));
        let data = target.data(request)?;
        if data.body.len() as u64 > limits.request_body {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Ok(TestAnswer {
                answer: problem(status, "payload_too_large", "the body is too large", None),
                error: None,
            });
        }
        let outcome = self.execute(self.invocation(source, limits, data))?;
        Ok(match outcome.result {
            Ok(Answer::Http(reply)) => TestAnswer {
                answer: HttpAnswer {
                    status: reply.status.as_u16(),
                    headers: pairs(&reply.headers),
                    body: reply.body,
                },
                error: None,
            },
            Ok(Answer::Json(_)) => TestAnswer {
                answer: failure(RunErrorKind::Answer),
                error: None,
            },
            Err(error) => TestAnswer {
                answer: failure(error.kind),
                error: serde_json::to_value(&error).ok(),
            },
        })
    }

    fn invocation(
        &self,
        script: Arc<ScriptSource>,
        limits: Limits,
        data: RequestData,
    ) -> Invocation {
        Invocation {
            run: RunId(self.clock.new_id()),
            app: Arc::clone(&self.app),
            commit: self.commit.clone(),
            script,
            deadline: Instant::now() + limits.timeout(),
            limits,
            input: Input::Request(Arc::new(data)),
            principal: Principal::App,
            cause: None,
            chain: Vec::new(),
            cancel: Cancel::never(),
        }
    }
}

type Params = Vec<(Arc<str>, String)>;

/// Which route a request is taken to have come by, and with which parameters.
struct Target<'a> {
    route: Option<&'a RouteSpec>,
    method: Method,
    path: String,
    params: Params,
}

impl<'a> Target<'a> {
    fn of(routes: &'a [RouteSpec], script: &str, request: &TestRequest) -> SdkResult<Self> {
        let method = request.method.as_deref();
        let takes = |route: &&RouteSpec| {
            method.is_none_or(|method| {
                route.methods.contains(method) || method == "HEAD" && route.methods.contains("GET")
            })
        };
        let routes = routes
            .iter()
            .filter(|route| route.script.as_str() == script);
        let given: Params = request
            .params
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.clone()))
            .collect();
        let mut best: Option<(&RouteSpec, Params)> = None;
        for route in routes.filter(takes) {
            let matched = match request.path.as_deref() {
                None => Some(Vec::new()),
                Some(path) => matched(&route.path, path.split('?').next().unwrap_or_default()),
            };
            // Fewer parameters are more specific.
            if let Some(params) = matched
                && best
                    .as_ref()
                    .is_none_or(|(_, known)| params.len() < known.len())
            {
                best = Some((route, params));
            }
        }
        let (route, mut params) =
            best.map_or((None, Vec::new()), |(route, params)| (Some(route), params));
        params.retain(|(name, _)| !given.iter().any(|(other, _)| other == name));
        params.extend(given);
        let method = match (method, route) {
            (Some(method), _) => method,
            (None, Some(route)) if !route.methods.contains("GET") => {
                route.methods.first().map_or("GET", String::as_str)
            }
            (None, _) => "GET",
        };
        let path = match (&request.path, route) {
            (Some(path), _) if path.starts_with('/') => path.clone(),
            (Some(path), _) => format!("/{path}"),
            (None, Some(route)) => filled(&route.path, &params),
            (None, None) => "/".to_owned(),
        };
        Ok(Self {
            route,
            method: Method::from_bytes(method.as_bytes())
                .map_err(|_| invalid(format!("`{method}` is no method")))?,
            path,
            params,
        })
    }

    fn data(self, request: TestRequest) -> SdkResult<RequestData> {
        let mut target = self.path;
        for (name, value) in &request.query {
            target.push(if target.contains('?') { '&' } else { '?' });
            let encode = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
            target.push_str(&format!("{}={}", encode(name), encode(value)));
        }
        let uri: Uri = target
            .parse()
            .map_err(|error| invalid(format!("`{target}` is no path: {error}")))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .ok()
                .zip(HeaderValue::from_str(value).ok());
            let (name, value) =
                parsed.ok_or_else(|| invalid(format!("`{name}` is no header: {value:?}")))?;
            headers.append(name, value);
        }
        let (body, kind) = request.body.map_or((Bytes::new(), None), |(bytes, kind)| {
            (bytes, Some(HeaderValue::from_static(kind)))
        });
        if let Some(kind) = kind {
            headers.entry(header::CONTENT_TYPE).or_insert(kind);
            headers.insert(header::CONTENT_LENGTH, body.len().into());
        }
        headers
            .entry(header::HOST)
            .or_insert(HeaderValue::from_static("localhost"));
        let route = self.route.map_or("", |route| route.path.as_str());
        Ok(RequestData {
            method: self.method,
            uri,
            path_offset: 0,
            route: route.into(),
            params: self.params,
            headers,
            body,
            client_ip: Ipv4Addr::LOCALHOST.into(),
        })
    }
}

/// The parameters of a pattern that a path has; `None` where it doesn't match.
fn matched(pattern: &str, path: &str) -> Option<Params> {
    let pattern = RoutePattern::parse(pattern).ok()?;
    let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
    let decode = |part: &str| Some(percent_decode_str(part).decode_utf8().ok()?.into_owned());
    let mut params = Vec::new();
    for segment in pattern.segments() {
        match segment {
            Segment::Literal(text) if decode(parts.next()?)? == *text => {}
            Segment::Literal(_) => return None,
            Segment::Parameter(name) => {
                let value = decode(parts.next()?).filter(|value| !value.is_empty())?;
                params.push((name.as_str().into(), value));
            }
            Segment::Wildcard(name) => {
                let rest: Vec<&str> = parts.by_ref().collect();
                let value = decode(&rest.join("/")).filter(|value| !value.is_empty())?;
                params.push((name.as_str().into(), value));
            }
        }
    }
    parts.next().is_none().then_some(params)
}

/// A pattern with its parameters filled in.
fn filled(pattern: &str, params: &[(Arc<str>, String)]) -> String {
    let mut path = String::new();
    for part in pattern.split('/').skip(1) {
        path.push('/');
        let name = part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'));
        let value = name.and_then(|name| {
            let bare = name.trim_start_matches('*');
            let (_, value) = params.iter().find(|(known, _)| **known == *bare)?;
            Some((value, name.starts_with('*')))
        });
        match value {
            Some((value, true)) => {
                let parts = value.split('/');
                let parts = parts.map(|part| utf8_percent_encode(part, SEGMENT).to_string());
                path.push_str(&parts.collect::<Vec<_>>().join("/"));
            }
            Some((value, false)) => {
                path.push_str(&utf8_percent_encode(value, SEGMENT).to_string());
            }
            None => path.push_str(&utf8_percent_encode(part, SEGMENT).to_string()),
        }
    }
    path
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect()
}

/// What a client is told of a run that did not end well.
fn failure(kind: RunErrorKind) -> HttpAnswer {
    let server = StatusCode::INTERNAL_SERVER_ERROR;
    match kind {
        RunErrorKind::Timeout => problem(
            StatusCode::GATEWAY_TIMEOUT,
            "timeout",
            "the script took too long",
            Some("timeout"),
        ),
        RunErrorKind::Memory
        | RunErrorKind::Operations
        | RunErrorKind::Depth
        | RunErrorKind::Output => {
            let limit = kind.as_str();
            let detail = format!("the script exceeded its limit on {limit}");
            problem(server, "script_limit", &detail, Some(limit))
        }
        RunErrorKind::Unavailable => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "something that the script needs is away",
            None,
        ),
        _ => problem(server, "script_error", "the script failed", None),
    }
}

/// RFC 9457.
fn problem(status: StatusCode, code: &str, detail: &str, limit: Option<&str>) -> HttpAnswer {
    let mut body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    if let Some(limit) = limit {
        body["limit"] = limit.into();
    }
    HttpAnswer {
        status: status.as_u16(),
        headers: vec![(
            "content-type".to_owned(),
            "application/problem+json".to_owned(),
        )],
        body: body.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_gives_the_parameters_that_its_pattern_was_filled_with() {
        let named = |name: &str, value: &str| (Arc::from(name), value.to_owned());
        for (pattern, path, params) in [
            ("/", "/", vec![]),
            ("/a/{id}", "/a/x%20y", vec![named("id", "x y")]),
            ("/f/{*rest}", "/f/a/b%2Fc", vec![named("rest", "a/b/c")]),
        ] {
            assert_eq!(matched(pattern, path), Some(params.clone()), "{path}");
            let again = matched(pattern, &filled(pattern, &params));
            assert_eq!(again, Some(params), "{path}");
        }
        assert_eq!(matched("/a/{id}", "/a/"), None);
        assert_eq!(matched("/a", "/a/b"), None);
    }
}
