//! Requests to a forge's API: patient with its limits, and never twice where that would show.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use picloud_shared::Clock;
use reqwest::{
    Method, StatusCode,
    header::{self, HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use serde_json::Value;
use url::Url;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a request is made.
const TRIES: u32 = 5;
/// The first wait; doubles.
const BACKOFF: Duration = Duration::from_millis(500);
/// A limit that is farther away than this is told to the caller.
const LONGEST_WAIT: Duration = Duration::from_mins(15);
/// What GitHub asks to wait where its secondary limits name no time (docs.github.com, "Best
/// practices for using the REST API").
const UNNAMED_WAIT: Duration = Duration::from_mins(1);
/// Bytes of an answer.
const MAX_ANSWER: usize = 16 << 20;

/// Why a forge didn't do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    /// A person must act: the source doesn't say enough.
    #[error("the forge cannot be asked: {0}")]
    Unusable(String),
    /// The forge says no.
    #[error("the forge answered {status} to {request}: {message}")]
    Refused {
        /// HTTP's.
        status: u16,
        /// `POST /repos/…`
        request: String,
        /// Its own words, shortened.
        message: String,
    },
    /// It is tried again later.
    #[error("the forge is away: {0}")]
    Away(String),
    /// It is tried again when the limit is over.
    #[error("the forge's rate limit is reached for {} seconds", wait.as_secs())]
    Limited {
        /// From now.
        wait: Duration,
    },
}

impl ForgeError {
    /// Whether there is no such thing (any more), or it isn't ours.
    pub(super) fn is_not_ours(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                status: 403 | 404 | 410,
                ..
            }
        )
    }

    /// Whether trying again later may help.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Limited { .. })
    }
}

/// A forge's API.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    clock: Arc<dyn Clock>,
}

/// One request, below the API's address.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Each is one segment, whatever stands in it.
    pub(super) path: Vec<&'a str>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
    /// Whether doing it twice is as good as once.
    pub(super) repeatable: bool,
}

impl<'a> Call<'a> {
    pub(super) fn get(path: Vec<&'a str>) -> Self {
        Self {
            method: Method::GET,
            path,
            query: Vec::new(),
            body: None,
            repeatable: true,
        }
    }

    pub(super) fn write(method: Method, path: Vec<&'a str>, body: Value) -> Self {
        Self {
            repeatable: method != Method::POST,
            method,
            path,
            query: Vec::new(),
            body: Some(body),
        }
    }

    /// A `POST` that only sets what is so.
    pub(super) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    pub(super) fn query(mut self, name: &'static str, value: &impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }
}

/// What became of one try.
enum Tried {
    Done(Value),
    Failed(ForgeError),
    /// Again, after a wait.
    Again(Duration, ForgeError),
}

impl Client {
    /// `proof`: the header that proves us.
    pub(super) fn new(
        base: Url,
        proof: (HeaderName, String),
        extra: &[(HeaderName, &'static str)],
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ForgeError> {
        // The first to come sets it for the process; all set the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        for (name, value) in extra {
            headers.insert(name.clone(), HeaderValue::from_static(value));
        }
        let unusable = |what: String| ForgeError::Unusable(what);
        let mut value = HeaderValue::from_str(&proof.1)
            .map_err(|_| unusable("forge.token is no token".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(proof.0, value);
        // A token goes to the forge and nowhere else.
        let origin = base.origin();
        let same_origin = redirect::Policy::custom(move |attempt| {
            if attempt.url().origin() == origin && attempt.previous().len() < 5 {
                attempt.follow()
            } else {
                attempt.stop()
            }
        });
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .user_agent(concat!("PiCloud/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .connect_timeout(Duration::from_secs(10))
            .redirect(same_origin)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { http, base, clock })
    }

    /// Makes a request, and gives its answer's JSON.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Value, ForgeError> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(&call.path);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let mut backoff = BACKOFF;
        let mut tries = 1;
        loop {
            match self.once(&call, url.clone(), backoff).await {
                Tried::Done(value) => return Ok(value),
                Tried::Failed(error) => return Err(error),
                Tried::Again(wait, error) if tries >= TRIES || wait > LONGEST_WAIT => {
                    tracing::debug!(%error, seconds = wait.as_secs(), "a forge's call is given up for now");
                    return Err(error);
                }
                Tried::Again(wait, _) => tokio::time::sleep(wait).await,
            }
            tries += 1;
            backoff *= 2;
        }
    }

    async fn once(&self, call: &Call<'_>, url: Url, backoff: Duration) -> Tried {
        let shown = format!("{} {}", call.method, url.path());
        let mut request = self.http.request(call.method.clone(), url);
        if let Some(body) = &call.body {
            request = request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                // Without a connection nothing was done; else it may have been.
                let safe = call.repeatable || error.is_connect();
                let error = ForgeError::Away(causes(&error.without_url()));
                return if safe {
                    Tried::Again(backoff, error)
                } else {
                    Tried::Failed(error)
                };
            }
        };
        let status = response.status();
        let headers = response.headers().clone();
        let body = match read(response).await {
            Ok(body) => body,
            Err(why) if call.repeatable => return Tried::Again(backoff, ForgeError::Away(why)),
            Err(why) => return Tried::Failed(ForgeError::Away(why)),
        };
        if status.is_success() {
            // An answer without JSON has nothing to tell.
            return Tried::Done(serde_json::from_slice(&body).unwrap_or(Value::Null));
        }
        if let Some(wait) = limited(status, &headers, self.clock.now()) {
            return Tried::Again(wait, ForgeError::Limited { wait });
        }
        let refused = ForgeError::Refused {
            status: status.as_u16(),
            request: shown,
            message: super::line(&String::from_utf8_lossy(&body), 300),
        };
        if status.is_server_error() {
            let away = ForgeError::Away(refused.to_string());
            return if call.repeatable {
                Tried::Again(backoff, away)
            } else {
                Tried::Failed(away)
            };
        }
        Tried::Failed(refused)
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn read(response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| causes(&error.without_url()))?;
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err("its answer is too large".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// How long the forge wants to be left alone, if that is why it refuses.
fn limited(status: StatusCode, headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let number = |name: &str| text(name).and_then(|value| value.trim().parse::<i64>().ok());
    let is_429 = status == StatusCode::TOO_MANY_REQUESTS;
    let spent = number("x-ratelimit-remaining") == Some(0);
    let after = text("retry-after");
    let busy = status == StatusCode::SERVICE_UNAVAILABLE && after.is_some();
    let refused = status == StatusCode::FORBIDDEN && (after.is_some() || spent);
    if !(is_429 || busy || refused) {
        return None;
    }
    let until = |at: i64| u64::try_from(at - now.timestamp()).unwrap_or(0);
    let seconds = match after.map(str::trim) {
        Some(after) => after.parse::<u64>().ok().or_else(|| {
            let at = DateTime::parse_from_rfc2822(after).ok()?;
            Some(until(at.timestamp()))
        }),
        None => number("x-ratelimit-reset")
            .or_else(|| number("ratelimit-reset"))
            .map(until),
    };
    let wait = seconds.map_or(UNNAMED_WAIT, Duration::from_secs);
    // Never hot, whatever the forge says.
    Some(wait.max(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(status: u16, pairs: &[(&'static str, &'static str)]) -> Option<u64> {
        let headers = pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        let status = StatusCode::from_u16(status).expect("a status");
        let now = DateTime::from_timestamp(1_000_000_000, 0).expect("an instant");
        limited(status, &headers, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn limits_are_waited_for_as_the_forge_says() {
        assert_eq!(wait(429, &[("retry-after", "7")]), Some(7));
        assert_eq!(wait(403, &[("retry-after", "7")]), Some(7));
        assert_eq!(wait(503, &[("retry-after", "0")]), Some(1));
        let spent = [
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1000000042"),
        ];
        assert_eq!(wait(403, &spent), Some(42));
        assert_eq!(wait(429, &[("ratelimit-reset", "1000000009")]), Some(9));
        assert_eq!(wait(429, &[]), Some(60));
        assert_eq!(
            wait(429, &[("retry-after", "Sun, 09 Sep 2001 01:46:50 GMT")]),
            Some(10)
        );
        assert_eq!(wait(403, &[("x-ratelimit-remaining", "12")]), None);
        assert_eq!(wait(403, &[]), None);
        assert_eq!(wait(500, &[]), None);
        assert_eq!(wait(422, &[("retry-after", "1")]), None);
    }
}
