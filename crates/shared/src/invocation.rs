//! One execution: what goes in, what comes out.

use std::{net::IpAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::Value;

use crate::{
    access::Principal,
    event::{Event, Link},
    ids::RunId,
    limits::Limits,
    names::CommitId,
    redact::Redactor,
    run::{LogLine, RunError, RunKind, RunStatus},
    snapshot::{AppSnapshot, ScriptSource},
};

/// A script to run, and all that it needs.
#[derive(Debug)]
pub struct Invocation {
    /// UUIDv7.
    pub run: RunId,
    /// Whose script. Holds the generation that the run began on.
    pub app: Arc<AppSnapshot>,
    /// The commit of the app.
    pub commit: CommitId,
    /// The handler.
    pub script: Arc<ScriptSource>,
    /// What it may use; the route's or trigger's own are merged in.
    pub limits: Limits,
    /// When its time is up.
    pub deadline: Instant,
    /// What it is about.
    pub input: Input,
    /// On whose behalf.
    pub principal: Principal,
    /// The run that caused it.
    pub cause: Option<RunId>,
    /// The runs that led to it, oldest first.
    pub chain: Vec<Link>,
    /// Says when nobody waits for the outcome any more.
    pub cancel: Cancel,
}

impl Invocation {
    /// What started it.
    pub fn kind(&self) -> RunKind {
        use crate::event::EventKind;
        match &self.input {
            Input::Request(_) => RunKind::Http,
            Input::Event(event) => match event.kind {
                EventKind::Http => RunKind::Http,
                EventKind::Cron => RunKind::Cron,
                EventKind::Kv => RunKind::Kv,
                EventKind::Docs => RunKind::Docs,
                EventKind::DeadLetter => RunKind::DeadLetter,
                EventKind::Invoke => RunKind::Invoke,
                EventKind::Enqueue => RunKind::Enqueue,
            },
        }
    }
}

/// What a run is about.
#[derive(Debug)]
pub enum Input {
    /// `ctx.request`: the value becomes an HTTP answer.
    Request(Arc<RequestData>),
    /// `ctx.event`: the value becomes JSON.
    Event(Box<Event>),
}

/// A request, as it came in. What `ctx.request` shows is made from it only when a script asks.
#[derive(Debug)]
pub struct RequestData {
    /// Upper case.
    pub method: Method,
    /// The request's target.
    pub uri: Uri,
    /// Where the path below the app begins in `uri.path()`.
    pub path_offset: usize,
    /// The pattern of the route.
    pub route: Arc<str>,
    /// Parameters of the pattern, percent-decoded.
    pub params: Vec<(Arc<str>, String)>,
    /// As received; names are lower case.
    pub headers: HeaderMap,
    /// Whole.
    pub body: Bytes,
    /// The client's address, from trusted proxies where there are any.
    pub client_ip: IpAddr,
}

impl RequestData {
    /// The path below the app, beginning with `/`.
    pub fn path(&self) -> &str {
        match self.uri.path().get(self.path_offset..) {
            Some(path) if path.starts_with('/') => path,
            _ => "/",
        }
    }
}

/// Asks whether anybody still waits for a run. Only runs that go on for long ask.
#[derive(Clone, Default)]
pub struct Cancel(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Cancel {
    /// Raised once `is_raised` says so.
    pub fn when(is_raised: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_raised)))
    }

    /// Never raised, and costs nothing.
    pub fn never() -> Self {
        Self(None)
    }

    /// Whether nobody waits any more.
    pub fn is_raised(&self) -> bool {
        self.0.as_ref().is_some_and(|is_raised| is_raised())
    }
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cancel")
    }
}

/// What came of an execution.
#[derive(Debug)]
pub struct Outcome {
    /// What the script gave, or why it gave nothing.
    pub result: Result<Answer, Box<RunError>>,
    /// Operations of the engine.
    pub operations: u64,
    /// The most bytes that it held at once.
    pub peak_memory: u64,
    /// What it logged.
    pub logs: Vec<LogLine>,
    /// Lines that did not fit.
    pub dropped_logs: u64,
    /// The secrets that it got to know: what is kept of its input holds none of them.
    pub secrets: Redactor,
}

impl Outcome {
    /// How the run ended.
    pub fn status(&self) -> RunStatus {
        match &self.result {
            Ok(_) => RunStatus::Ok,
            Err(error) => error.kind.status(),
        }
    }

    /// An outcome of a run that did not get to execute anything.
    pub fn refused(error: RunError) -> Self {
        Self {
            result: Err(Box::new(error)),
            operations: 0,
            peak_memory: 0,
            logs: Vec::new(),
            dropped_logs: 0,
            secrets: Redactor::default(),
        }
    }
}

/// A script's value, in the form that its caller needs.
#[derive(Debug)]
pub enum Answer {
    /// For a request.
    Http(Reply),
    /// For an event.
    Json(Value),
}

/// An HTTP answer, checked: the status is possible, the headers can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 100 to 999 as http allows, 200 to 599 as scripts may give.
    pub status: StatusCode,
    /// Includes `content-type` where there is a body.
    pub headers: HeaderMap,
    /// Whole.
    pub body: Bytes,
}
