//! The ports through which a script reaches the world. Calls are synchronous, as the engine is;
//! an implementation that waits must keep within the deadline of its [`SdkCallCx`].

use std::{collections::BTreeMap, fmt, sync::Arc, time::Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{
    access::Principal,
    event::Link,
    ids::{AppId, EventId, RunId},
    names::{CommitId, ScriptPath, TriggerName},
    run::LogLine,
    snapshot::AppSnapshot,
};

/// Who calls, for attribution, authorisation and the time that is left.
#[derive(Debug, Clone)]
pub struct SdkCallCx {
    /// The caller's app, as of the generation that the run began on.
    pub app: Arc<AppSnapshot>,
    /// The handler that is running.
    pub script: ScriptPath,
    /// The run.
    pub run: RunId,
    /// On whose behalf.
    pub principal: Principal,
    /// When the run's time is up.
    pub deadline: Instant,
    /// The commit that runs.
    pub commit: CommitId,
    /// The runs that led to it, oldest first, without itself.
    pub chain: Vec<Link>,
    /// The trigger behind it.
    pub trigger: Option<TriggerName>,
}

impl SdkCallCx {
    /// The caller's app.
    pub fn app_id(&self) -> AppId {
        self.app.id
    }

    /// The runs that led to what this run does: itself included.
    pub fn links(&self) -> Vec<Link> {
        let mut chain = self.chain.clone();
        chain.push(Link {
            run: self.run,
            script: self.script.clone(),
            trigger: self.trigger.clone(),
        });
        chain
    }
}

/// Why a call of the SDK failed; thrown to the script as `#{code, message}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SdkError {
    /// Stable.
    pub code: SdkErrorCode,
    /// Readable alone; never holds a secret or a private address.
    pub message: String,
}

impl SdkError {
    /// An error of that code.
    pub fn new(code: SdkErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// The stable codes of SDK errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the contract")]
pub enum SdkErrorCode {
    Blocked,
    Timeout,
    Conflict,
    TooLarge,
    Invalid,
    Unavailable,
    Forbidden,
    NotFound,
    Failed,
}

impl SdkErrorCode {
    /// The word that a script sees.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Failed => "failed",
        }
    }
}

/// What every call of the SDK gives.
pub type SdkResult<T> = Result<T, SdkError>;

/// A value with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// Any JSON.
    pub value: Value,
    /// Rises with each write; 1 for the first.
    pub version: i64,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEntry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Its version.
    pub version: i64,
}

/// Options of `kv::set`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KvSetOptions {
    /// Milliseconds until the value is gone.
    pub ttl_ms: Option<u64>,
    /// 0: it must not exist.
    pub if_version: Option<i64>,
}

/// Options of `kv::list`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KvListOptions {
    /// Keys that begin so.
    pub prefix: Option<String>,
    /// Keys after this one.
    pub after: Option<String>,
    /// At most so many; the service has its own upper bound.
    pub limit: Option<u32>,
}

/// Key-value collections of an app.
pub trait KvService: Send + Sync {
    /// The value, or `None` where it is absent or expired.
    fn get(&self, cx: &SdkCallCx, collection: &str, key: &str) -> SdkResult<Option<Versioned>>;
    /// Several at once; absent keys are left out.
    fn get_many(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        keys: &[String],
    ) -> SdkResult<BTreeMap<String, Value>>;
    /// Writes; gives the new version.
    fn set(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        key: &str,
        value: &Value,
        options: &KvSetOptions,
    ) -> SdkResult<i64>;
    /// Whether it was there.
    fn delete(&self, cx: &SdkCallCx, collection: &str, key: &str) -> SdkResult<bool>;
    /// Adds to an integer (absent is 0); gives the new number.
    fn incr(&self, cx: &SdkCallCx, collection: &str, key: &str, by: i64) -> SdkResult<i64>;
    /// In key order (bytewise).
    fn list(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        options: &KvListOptions,
    ) -> SdkResult<Vec<KvEntry>>;
}

/// A document with what the service adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// UUIDv7.
    pub id: String,
    /// Rises with each write; 1 for the first.
    pub version: i64,
    /// An object.
    pub body: serde_json::Map<String, Value>,
}

/// Options of `docs::find`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FindOptions {
    /// A field, with `-` before it for descending order.
    pub sort: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
    /// The last document's id.
    pub after: Option<String>,
}

/// Document collections of an app.
pub trait DocsService: Send + Sync {
    /// Gives the new id.
    fn create(&self, cx: &SdkCallCx, collection: &str, body: &Value) -> SdkResult<String>;
    /// The document, or `None`.
    fn get(&self, cx: &SdkCallCx, collection: &str, id: &str) -> SdkResult<Option<Document>>;
    /// Replaces; gives the new version.
    fn update(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        id: &str,
        body: &Value,
        if_version: Option<i64>,
    ) -> SdkResult<i64>;
    /// Merges (RFC 7396); gives the new version.
    fn patch(&self, cx: &SdkCallCx, collection: &str, id: &str, merge: &Value) -> SdkResult<i64>;
    /// Whether it was there.
    fn delete(&self, cx: &SdkCallCx, collection: &str, id: &str) -> SdkResult<bool>;
    /// Documents that match.
    fn find(
        &self,
        cx: &SdkCallCx,
        collection: &str,
        filter: &Value,
        options: &FindOptions,
    ) -> SdkResult<Vec<Document>>;
    /// How many match.
    fn count(&self, cx: &SdkCallCx, collection: &str, filter: &Value) -> SdkResult<i64>;
}

/// A secret's value; shown to nobody by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(pub SecretText);

/// Text that is overwritten where it lay once nobody holds it any more.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Arc<Zeroizing<String>>);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(Arc::new(Zeroizing::new(text)))
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl AsRef<str> for SecretText {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for SecretText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(redacted)")
    }
}

/// Secrets of an app.
pub trait SecretsService: Send + Sync {
    /// The value, or `not_found`.
    fn get(&self, cx: &SdkCallCx, name: &str) -> SdkResult<SecretValue>;
}

/// An outgoing request.
#[derive(Debug, Clone)]
pub struct HttpCall {
    /// Upper case.
    pub method: String,
    /// As the script gave it.
    pub url: String,
    /// Query parameters to add.
    pub query: Vec<(String, String)>,
    /// Headers to send.
    pub headers: Vec<(String, String)>,
    /// The body, and the content type to send unless the script set one.
    pub body: Option<(Bytes, &'static str)>,
    /// Milliseconds; the run's deadline holds in any case.
    pub timeout_ms: Option<u64>,
    /// Bytes of the answer's body, decompressed.
    pub max_body: u64,
    /// How many redirects are followed.
    pub follow_redirects: u32,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// 100 to 999.
    pub status: u16,
    /// Names in lower case; repeated ones in order.
    pub headers: Vec<(String, String)>,
    /// Decompressed.
    pub body: Bytes,
}

/// Outgoing requests.
pub trait HttpService: Send + Sync {
    /// Sends; a status of 400 or more is an answer, not an error.
    fn request(&self, cx: &SdkCallCx, call: HttpCall) -> SdkResult<HttpAnswer>;
}

/// Options of `scripts::enqueue`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnqueueOptions {
    /// Milliseconds before it is due.
    pub delay_ms: u64,
    /// One waiting job a key.
    pub key: Option<String>,
}

/// Other scripts of the same app, later.
pub trait InvokeService: Send + Sync {
    /// Through the outbox; gives the event's id.
    fn enqueue(
        &self,
        cx: &SdkCallCx,
        script: &ScriptPath,
        payload: &Value,
        options: &EnqueueOptions,
    ) -> SdkResult<EventId>;
}

/// All that a script may reach. A service that isn't there is absent from the SDK, too.
#[derive(Clone)]
pub struct Services {
    /// `kv::*`
    pub kv: Arc<dyn KvService>,
    /// `docs::*`
    pub docs: Option<Arc<dyn DocsService>>,
    /// `secrets::*`
    pub secrets: Option<Arc<dyn SecretsService>>,
    /// `http::*`
    pub http: Option<Arc<dyn HttpService>>,
    /// `scripts::enqueue`
    pub invoke: Option<Arc<dyn InvokeService>>,
    /// Who watches what runs log.
    pub live_logs: Option<Arc<dyn LiveLogs>>,
}

/// Takes the lines of runs as they are written, for whoever watches. Never waits: lines that find
/// no room are passed over, and the run's record has them all the same.
pub trait LiveLogs: Send + Sync {
    /// A line that is kept; `number` counts the run's lines from 0.
    fn line(&self, cx: &SdkCallCx, number: usize, line: &LogLine);
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Services")
    }
}
