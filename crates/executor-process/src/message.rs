//! What the two processes say to each other.

use std::{collections::BTreeMap, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use picloud_shared::{
    AppId, AppSnapshot, CommitId, EventId, Limits, RunId, ScriptPath,
    event::{Event, Link},
    run::{LogLine, RunError},
    sdk::{Document, SdkError, SdkErrorCode},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// To the process that runs scripts.
#[derive(Serialize, Deserialize)]
pub(crate) enum ToChild {
    /// An app that will be run, before its first run.
    App(Box<AppSnapshot>),
    /// A script to run. Body: the request's.
    Run(Box<Run>),
    /// What a call gave. Body: that of an HTTP answer.
    Reply(Result<Got, (SdkErrorCode, String)>),
}

/// A run, as far as the script needs to know it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) app: AppId,
    pub(crate) commit: CommitId,
    pub(crate) script: ScriptPath,
    pub(crate) limits: Limits,
    pub(crate) left_us: u64,
    pub(crate) input: RunInput,
    pub(crate) cause: Option<RunId>,
    pub(crate) chain: Vec<Link>,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum RunInput {
    Request {
        method: String,
        uri: String,
        path_offset: usize,
        route: String,
        params: Vec<(String, String)>,
        headers: Headers,
        client_ip: IpAddr,
    },
    Event(Box<Event>),
}

/// From the process that runs scripts.
#[derive(Serialize, Deserialize)]
pub(crate) enum FromChild {
    /// It is confined, and waits for runs.
    Ready,
    /// The script asks for something. Body: that of an HTTP request.
    Call { script: ScriptPath, call: Call },
    /// The script logged something that is kept.
    Log { script: ScriptPath, line: LogLine },
    /// The run has ended. Body: that of the answer.
    Done(Box<Done>),
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) result: Result<DoneAnswer, Box<RunError>>,
    pub(crate) operations: u64,
    pub(crate) peak_memory: u64,
    pub(crate) dropped_logs: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum DoneAnswer {
    Http { status: u16, headers: Headers },
    Json(Value),
}

/// A call of the SDK.
#[derive(Serialize, Deserialize)]
pub(crate) enum Call {
    KvGet(String, String),
    KvGetMany(String, Vec<String>),
    KvSet {
        collection: String,
        key: String,
        value: Value,
        ttl_ms: Option<u64>,
        if_version: Option<i64>,
    },
    KvDelete(String, String),
    KvIncr(String, String, i64),
    KvList {
        collection: String,
        prefix: Option<String>,
        after: Option<String>,
        limit: Option<u32>,
    },
    DocsCreate(String, Value),
    DocsGet(String, String),
    DocsUpdate {
        collection: String,
        id: String,
        body: Value,
        if_version: Option<i64>,
    },
    DocsPatch(String, String, Value),
    DocsDelete(String, String),
    DocsFind {
        collection: String,
        filter: Value,
        sort: Option<String>,
        limit: Option<u32>,
        after: Option<String>,
    },
    DocsCount(String, Value),
    Secret(String),
    Http {
        method: String,
        url: String,
        query: Vec<(String, String)>,
        headers: Vec<(String, String)>,
        content_type: Option<String>,
        timeout_ms: Option<u64>,
        max_body: u64,
        follow_redirects: u32,
    },
    Enqueue {
        script: ScriptPath,
        payload: Value,
        delay_ms: u64,
        key: Option<String>,
    },
}

/// What a call gave.
#[derive(Serialize, Deserialize)]
pub(crate) enum Got {
    Value(Option<(Value, i64)>),
    Values(BTreeMap<String, Value>),
    Number(i64),
    Flag(bool),
    Text(String),
    Entries(Vec<(String, Value, i64)>),
    Documents(Vec<Doc>),
    Http(u16, Vec<(String, String)>),
    Event(EventId),
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Doc {
    id: String,
    version: i64,
    body: Map<String, Value>,
}

impl From<Document> for Doc {
    fn from(document: Document) -> Self {
        Self {
            id: document.id,
            version: document.version,
            body: document.body,
        }
    }
}

impl From<Doc> for Document {
    fn from(doc: Doc) -> Self {
        Self {
            id: doc.id,
            version: doc.version,
            body: doc.body,
        }
    }
}

/// Headers; values are any bytes, each as the character of its number.
#[derive(Serialize, Deserialize)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let pairs = headers.iter().map(|(name, value)| {
            let value = value.as_bytes().iter().copied().map(char::from).collect();
            (name.as_str().to_owned(), value)
        });
        Self(pairs.collect())
    }

    /// `None` where some could not stand in a message.
    pub(crate) fn parse(self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(self.0.len() + 4);
        for (name, value) in self.0 {
            let bytes: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(c).ok()).collect();
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).ok()?,
                HeaderValue::from_bytes(&bytes?).ok()?,
            );
        }
        Some(headers)
    }
}

/// A status that a script may answer with.
pub(crate) fn status(number: u16) -> Option<StatusCode> {
    StatusCode::from_u16(number)
        .ok()
        .filter(|status| (200..=599).contains(&status.as_u16()))
}

pub(crate) fn sdk_error((code, message): (SdkErrorCode, String)) -> SdkError {
    SdkError::new(code, message)
}
