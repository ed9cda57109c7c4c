//! The router, and beside each route what is said of it. Who may call comes from the handler's
//! type; what has no description can't be routed.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    handler::Handler,
    routing::{MethodFilter, on},
};
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Access, Guarded},
};

/// The methods that operations have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// As OpenAPI writes it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// Routes and their descriptions.
pub(super) struct Api {
    prefix: &'static str,
    router: Router<AdminState>,
    operations: Vec<Operation>,
}

/// An operation as the document shows it.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) method: Method,
    /// From the server's root, `{path}` for a rest.
    pub(super) path: String,
    pub(super) access: Access,
    pub(super) text: Op,
}

impl Api {
    /// None yet; all are below a path.
    pub(super) fn below(prefix: &'static str) -> Self {
        Self {
            prefix,
            router: Router::new(),
            operations: Vec::new(),
        }
    }

    pub(super) fn get<H, T>(self, path: &'static str, handler: H, text: Op) -> Self
    where
        H: Handler<T, AdminState>,
        T: Guarded + 'static,
    {
        self.on(Method::Get, path, handler, text)
    }

    pub(super) fn post<H, T>(self, path: &'static str, handler: H, text: Op) -> Self
    where
        H: Handler<T, AdminState>,
        T: Guarded + 'static,
    {
        self.on(Method::Post, path, handler, text)
    }

    pub(super) fn put<H, T>(self, path: &'static str, handler: H, text: Op) -> Self
    where
        H: Handler<T, AdminState>,
        T: Guarded + 'static,
    {
        self.on(Method::Put, path, handler, text)
    }

    pub(super) fn patch<H, T>(self, path: &'static str, handler: H, text: Op) -> Self
    where
        H: Handler<T, AdminState>,
        T: Guarded + 'static,
    {
        self.on(Method::Patch, path, handler, text)
    }

    pub(super) fn delete<H, T>(self, path: &'static str, handler: H, text: Op) -> Self
    where
        H: Handler<T, AdminState>,
        T: Guarded + 'static,
    {
        self.on(Method::Delete, path, handler, text)
    }

    fn on<H, T>(mut self, method: Method, path: &'static str, handler: H, text: Op) -> Self
    where
        H: Handler<T, AdminState>,
        T: Guarded + 'static,
    {
        let limit = DefaultBodyLimit::max(text.body_limit);
        let route = on(method.filter(), handler).route_layer(limit);
        self.router = self.router.route(path, route);
        if text.at.is_empty() {
            return self.elsewhere(method, &path.replace("{*", "{"), T::ACCESS, text);
        }
        for (at, body) in text.at {
            // One route that several addresses lead to: each has an id of its own.
            let mut one = text.clone();
            let own = at.split('/').zip(path.split('/'));
            let own = own.filter(|(at, route)| at != route);
            let own = own.map(|(at, _)| pascal(at));
            one.id = format!("{}{}", text.id, own.collect::<String>());
            one.body = Some(body);
            self = self.elsewhere(method, at, T::ACCESS, one);
        }
        self
    }

    /// An operation that another router answers.
    pub(super) fn elsewhere(
        mut self,
        method: Method,
        path: &str,
        access: Access,
        text: Op,
    ) -> Self {
        self.operations.push(Operation {
            method,
            path: format!("{}{path}", self.prefix),
            access,
            text,
        });
        self
    }

    pub(super) fn into_parts(self) -> (Router<AdminState>, Vec<Operation>) {
        (self.router, self.operations)
    }
}

fn pascal(word: &str) -> String {
    word.split(['_', '-'])
        .map(|part| {
            let mut letters = part.chars();
            let first = letters.next().map(|first| first.to_ascii_uppercase());
            first.into_iter().chain(letters).collect::<String>()
        })
        .collect()
}

/// What is said of an operation.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says one thing of the operation, and none depends on another"
)]
pub(super) struct Op {
    pub(super) id: String,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: Option<&'static str>,
    /// Name, what it means, its schema.
    pub(super) query: Vec<(&'static str, &'static str, Value)>,
    /// As `query`, for headers.
    pub(super) headers: Vec<(&'static str, &'static str, Value)>,
    /// A schema's name.
    pub(super) body: Option<&'static str>,
    pub(super) body_optional: bool,
    pub(super) tar: bool,
    /// Status, what it means, a schema's name.
    pub(super) answers: Vec<(u16, &'static str, Option<&'static str>)>,
    /// Refusals beyond those that every operation of its kind has.
    pub(super) problems: Vec<(u16, &'static str)>,
    pub(super) list: bool,
    pub(super) events: bool,
    pub(super) tagged: bool,
    pub(super) conditional: bool,
    /// What a cursor is made of: an id, else a name.
    pub(super) by_name: bool,
    body_limit: usize,
    at: &'static [(&'static str, &'static str)],
}

/// Bytes of a body, unless an operation says otherwise.
const BODY_LIMIT: usize = 2 << 20;

/// An operation: its id, the group it belongs to, and what it does.
pub(super) fn op(id: &'static str, tag: &'static str, summary: &'static str) -> Op {
    Op {
        id: id.to_owned(),
        tag,
        summary,
        description: None,
        query: Vec::new(),
        headers: Vec::new(),
        body: None,
        body_optional: false,
        tar: false,
        answers: Vec::new(),
        problems: Vec::new(),
        list: false,
        events: false,
        tagged: false,
        conditional: false,
        by_name: false,
        body_limit: BODY_LIMIT,
        at: &[],
    }
}

impl Op {
    /// More than the one sentence.
    pub(super) fn more(mut self, description: &'static str) -> Self {
        self.description = Some(description);
        self
    }

    /// Something that the query may say.
    pub(super) fn query(mut self, name: &'static str, about: &'static str, schema: Value) -> Self {
        self.query.push((name, about, schema));
        self
    }

    /// The filter that most lists have.
    pub(super) fn of_app(self) -> Self {
        let schema = json!({ "type": "string", "examples": ["guestbook"] });
        self.query("app", "An app's name or id: only what concerns it.", schema)
    }

    /// Times between which things happened.
    pub(super) fn between(self) -> Self {
        let time = || json!({ "type": "string", "format": "date-time" });
        self.query("since", "At this time or later (RFC 3339).", time())
            .query("until", "Before this time (RFC 3339).", time())
    }

    /// A header that may be sent.
    pub(super) fn header(mut self, name: &'static str, about: &'static str, schema: Value) -> Self {
        self.headers.push((name, about, schema));
        self
    }

    /// A write that may say what it is based on, by `If-Match`.
    pub(super) fn conditional(mut self) -> Self {
        self.conditional = true;
        self.can(
            412,
            "It was changed since: `If-Match` names another `ETag`.",
        )
    }

    /// The answer has an `ETag`.
    pub(super) fn tagged(mut self) -> Self {
        self.tagged = true;
        self
    }

    /// The JSON that it takes.
    pub(super) fn takes(mut self, schema: &'static str) -> Self {
        self.body = Some(schema);
        self
    }

    /// The JSON that it takes, if any is sent.
    pub(super) fn may_take(mut self, schema: &'static str) -> Self {
        self.body = Some(schema);
        self.body_optional = true;
        self
    }

    /// It also takes a tar of a tree, of so many bytes.
    pub(super) fn takes_tar(mut self, limit: usize) -> Self {
        self.tar = true;
        self.body_limit = limit;
        self
    }

    /// What it gives.
    pub(super) fn gives(mut self, status: u16, about: &'static str, schema: &'static str) -> Self {
        self.answers.push((status, about, Some(schema)));
        self
    }

    /// It gives nothing but the status.
    pub(super) fn empty(mut self, status: u16, about: &'static str) -> Self {
        self.answers.push((status, about, None));
        self
    }

    /// It gives a part of a list.
    pub(super) fn lists(mut self, schema: &'static str) -> Self {
        self.list = true;
        self.gives(200, "A part of the list.", schema)
    }

    /// As [`Op::lists`], in the order of names.
    pub(super) fn lists_by_name(mut self, schema: &'static str) -> Self {
        self.by_name = true;
        self.lists(schema)
    }

    /// It gives a stream of events.
    pub(super) fn streams(mut self) -> Self {
        self.events = true;
        self
    }

    /// It can be refused for this.
    pub(super) fn can(mut self, status: u16, why: &'static str) -> Self {
        self.problems.push((status, why));
        self
    }

    /// The addresses by which it is called, with the body of each: the route has a parameter for
    /// what is a word of the address in the document.
    pub(super) fn at(mut self, at: &'static [(&'static str, &'static str)]) -> Self {
        self.at = at;
        self
    }
}
