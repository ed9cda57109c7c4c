//! Which route of an app answers a path: a literal part beats a parameter, a parameter beats a
//! wildcard, from left to right.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderValue, Method};
use percent_encoding::percent_decode_str;
use picloud_shared::{
    AppSnapshot, Limits,
    app::RouteSpec,
    route_pattern::{RoutePattern, Segment},
    snapshot::ScriptSource,
};

/// A route, ready to be dispatched.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) spec: RouteSpec,
    pub(crate) pattern: Arc<str>,
    pub(crate) script: Arc<ScriptSource>,
    pub(crate) limits: Limits,
}

/// The routes of an app.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    root: Node,
    routes: Vec<Route>,
}

#[derive(Debug, Default)]
struct Node {
    literals: BTreeMap<String, Node>,
    parameter: Option<Box<Node>>,
    /// Routes that end here, by index. Their parameters may have different names.
    here: Vec<usize>,
    wildcard: Vec<usize>,
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Match<'a> {
    /// A route, and the values of its parameters.
    Found(&'a Route, Vec<(Arc<str>, String)>),
    /// Routes of other methods alone.
    WrongMethod(Vec<&'a Route>),
    /// Nothing.
    None,
}

impl RouteTable {
    /// The table of an app. A route whose script is missing, which no deployment makes, is left out.
    pub(crate) fn new(app: &AppSnapshot) -> Self {
        let mut table = Self::default();
        let limits = app.spec.effective_limits();
        for spec in &app.spec.routes {
            let (Ok(pattern), Some(script)) = (
                RoutePattern::parse(&spec.path),
                app.scripts.get(&spec.script),
            ) else {
                tracing::warn!(app = %app.spec.name, route = spec.label(), "a live route cannot be served");
                continue;
            };
            let index = table.routes.len();
            table.routes.push(Route {
                pattern: Arc::from(spec.path.as_str()),
                script: Arc::clone(script),
                limits: limits.with(&spec.limits),
                spec: spec.clone(),
            });
            let mut node = &mut table.root;
            let mut wild = false;
            for segment in pattern.segments() {
                match segment {
                    Segment::Literal(text) => node = node.literals.entry(text.clone()).or_default(),
                    Segment::Parameter(_) => node = node.parameter.get_or_insert_default(),
                    Segment::Wildcard(_) => wild = true,
                }
            }
            if wild {
                node.wildcard.push(index);
            } else {
                node.here.push(index);
            }
        }
        table
    }

    /// Finds the route of a path, which begins with `/`. `HEAD` is answered by `GET`'s.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Match<'_> {
        let parts: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
        let mut wrong = Vec::new();
        let mut values = Vec::new();
        let found = self.descend(&self.root, &parts, method, &mut values, &mut wrong);
        match found {
            Some(route) => Match::Found(route, named(route, &values)),
            None if wrong.is_empty() => Match::None,
            None => Match::WrongMethod(wrong),
        }
    }

    fn descend<'a>(
        &'a self,
        node: &'a Node,
        parts: &[&str],
        method: &Method,
        values: &mut Vec<String>,
        wrong: &mut Vec<&'a Route>,
    ) -> Option<&'a Route> {
        let Some((first, rest)) = parts.split_first() else {
            return self.pick(&node.here, method, wrong);
        };
        let text = percent_decode_str(first).decode_utf8().ok()?;
        if let Some(next) = node.literals.get(text.as_ref())
            && let Some(found) = self.descend(next, rest, method, values, wrong)
        {
            return Some(found);
        }
        if let Some(next) = &node.parameter
            && !text.is_empty()
        {
            values.push(text.into_owned());
            if let Some(found) = self.descend(next, rest, method, values, wrong) {
                return Some(found);
            }
            values.pop();
        }
        let tail = parts.join("/");
        let tail = percent_decode_str(&tail).decode_utf8().ok()?;
        if node.wildcard.is_empty() || tail.is_empty() {
            return None;
        }
        let found = self.pick(&node.wildcard, method, wrong);
        if found.is_some() {
            values.push(tail.into_owned());
        }
        found
    }

    fn pick<'a>(
        &'a self,
        indexes: &[usize],
        method: &Method,
        wrong: &mut Vec<&'a Route>,
    ) -> Option<&'a Route> {
        let routes = || indexes.iter().map(|index| &self.routes[*index]);
        let found = routes().find(|route| route.spec.methods.contains(method.as_str()));
        let found = found.or_else(|| {
            let by_get =
                |route: &&Route| *method == Method::HEAD && route.spec.methods.contains("GET");
            routes().find(by_get)
        });
        if found.is_none() {
            wrong.extend(routes());
        }
        found
    }
}

fn named(route: &Route, values: &[String]) -> Vec<(Arc<str>, String)> {
    if values.is_empty() {
        return Vec::new();
    }
    let names = route.pattern.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(Arc::from(name.trim_start_matches('*')))
    });
    names.zip(values.iter().cloned()).collect()
}

/// What a path's routes answer to, for `Allow` (RFC 9110, section 10.2.1).
pub(crate) fn allow(routes: &[&Route]) -> HeaderValue {
    let mut methods: Vec<&str> = routes
        .iter()
        .flat_map(|route| route.spec.methods.iter().map(String::as_str))
        .collect();
    methods.push("OPTIONS");
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    methods.dedup();
    HeaderValue::from_str(&methods.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"))
}
