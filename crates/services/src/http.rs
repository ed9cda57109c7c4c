//! `http::*`: outgoing requests of scripts, to addresses that were checked.

mod lookup;
mod message;
mod outcomes;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use picloud_shared::{
    AddressGuard, Capability, Principal,
    outgoing::{check_url, parse_url},
    sdk::{HttpAnswer, HttpCall, HttpService, SdkCallCx, SdkError, SdkErrorCode, SdkResult},
};
use reqwest::{
    Client, Method, StatusCode,
    header::{self, HeaderValue},
};
use tokio::time::timeout;

use crate::waiting;
use lookup::GuardedResolver;
use message::{header_map, invalid, location, read, told, too_long};

pub use lookup::{LookupFuture, NameLookup, SystemLookup};
pub use outcomes::HttpOutcomes;

/// Bytes of a request's body.
const MAX_REQUEST: usize = 10 << 20;
/// Clients that are kept, one a set of permissions; above it they are made again.
const MAX_CLIENTS: usize = 256;

/// How long the stages of a request may take; the run's own time holds in any case.
#[derive(Debug, Clone, Copy)]
pub struct HttpTimes {
    /// Until there is a connection: name, handshakes.
    pub connect: Duration,
    /// From then until the head of the answer.
    pub head: Duration,
    /// Silence in the middle of an answer.
    pub idle: Duration,
    /// All of it, redirects included, unless the call says otherwise.
    pub total: Duration,
}

impl Default for HttpTimes {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(20),
            idle: Duration::from_secs(15),
            total: Duration::from_secs(30),
        }
    }
}

/// Outgoing requests by reqwest.
pub struct HttpServiceImpl {
    guard: AddressGuard,
    lookup: Arc<dyn NameLookup>,
    version: &'static str,
    times: HttpTimes,
    outcomes: Arc<HttpOutcomes>,
    /// By what an app may reach: a connection is never used by one that may reach something else.
    clients: Mutex<HashMap<Option<Vec<String>>, Client>>,
}

impl HttpServiceImpl {
    /// Reaches what the guard lets through.
    pub fn new(guard: AddressGuard, lookup: Arc<dyn NameLookup>, version: &'static str) -> Self {
        Self {
            guard,
            lookup,
            version,
            times: HttpTimes::default(),
            outcomes: Arc::default(),
            clients: Mutex::default(),
        }
    }

    /// With other times.
    pub fn with_times(self, times: HttpTimes) -> Self {
        Self { times, ..self }
    }

    /// What became of its requests.
    pub fn outcomes(&self) -> Arc<HttpOutcomes> {
        Arc::clone(&self.outcomes)
    }

    fn client(&self, allow: Option<&Vec<String>>) -> SdkResult<Client> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&allow.cloned()) {
            return Ok(client.clone());
        }
        // Fails only when a provider is there already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(self.times.connect)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(8)
            .dns_resolver(Arc::new(GuardedResolver {
                guard: self.guard,
                lookup: Arc::clone(&self.lookup),
            }))
            .build()
            .map_err(|error| {
                tracing::error!(%error, "the HTTP client cannot be made");
                SdkError::new(SdkErrorCode::Unavailable, "requests cannot be sent here")
            })?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(allow.cloned(), client.clone());
        Ok(client)
    }

    async fn send(
        &self,
        call: HttpCall,
        allow: Option<Vec<String>>,
        agent: String,
    ) -> SdkResult<HttpAnswer> {
        let client = self.client(allow.as_ref())?;
        let mut url = parse_url(&call.url)?;
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let mut method = Method::from_bytes(call.method.as_bytes())
            .ok()
            .filter(|method| !matches!(method.as_str(), "CONNECT" | "TRACE"))
            .ok_or_else(|| invalid(format!("`{}` is no method that is sent", call.method)))?;
        let mut headers = header_map(&call.headers)?;
        let mut body = None;
        if let Some((bytes, kind)) = call.body {
            if bytes.len() > MAX_REQUEST {
                return Err(SdkError::new(
                    SdkErrorCode::TooLarge,
                    format!(
                        "a body has at most {MAX_REQUEST} bytes; this has {}",
                        bytes.len()
                    ),
                ));
            }
            headers
                .entry(header::CONTENT_TYPE)
                .or_insert(HeaderValue::from_static(kind));
            body = Some(bytes);
        }
        let agent = HeaderValue::from_str(&agent).map_err(|_| invalid("the script's name"))?;
        headers.insert(header::USER_AGENT, agent);
        let mut left = call.follow_redirects;
        loop {
            check_url(&url, self.guard, allow.as_deref())?;
            let mut request = client
                .request(method.clone(), url.clone())
                .headers(headers.clone());
            if let Some(body) = body.as_ref().filter(|body| !body.is_empty()) {
                request = request.body(body.clone());
            } else if matches!(method, Method::POST | Method::PUT | Method::PATCH) {
                // Some servers refuse what is silent of it (RFC 9110, section 8.6).
                request = request.header(header::CONTENT_LENGTH, 0);
            }
            let response = timeout(self.times.connect + self.times.head, request.send())
                .await
                .map_err(|_| too_long("the server did not answer in time"))?
                .map_err(|error| told(&error))?;
            let next = match location(&response, &url) {
                Some(next) if call.follow_redirects > 0 => next?,
                _ => return read(response, call.max_body, self.times.idle).await,
            };
            if left == 0 {
                return Err(SdkError::new(
                    SdkErrorCode::Failed,
                    format!("more than {} redirects", call.follow_redirects),
                ));
            }
            left -= 1;
            let status = response.status();
            let as_get = status == StatusCode::SEE_OTHER && method != Method::HEAD
                || matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND)
                    && method == Method::POST;
            if as_get {
                method = Method::GET;
                body = None;
                for name in [
                    header::CONTENT_TYPE,
                    header::CONTENT_ENCODING,
                    header::CONTENT_LANGUAGE,
                    header::CONTENT_LOCATION,
                ] {
                    headers.remove(name);
                }
            }
            if next.origin() != url.origin() {
                headers.remove(header::AUTHORIZATION);
                headers.remove(header::COOKIE);
            }
            url = next;
        }
    }
}

impl HttpService for HttpServiceImpl {
    fn request(&self, cx: &SdkCallCx, call: HttpCall) -> SdkResult<HttpAnswer> {
        let outcome = Self::permitted(cx).and_then(|()| self.timed(cx, call));
        self.outcomes.count(&outcome);
        outcome
    }
}

impl HttpServiceImpl {
    /// Whether on this behalf anything may be sent.
    fn permitted(cx: &SdkCallCx) -> SdkResult<()> {
        if let Principal::Key(grant) = &cx.principal
            && !grant.allows(Capability::AppHttpRequest, Some(&cx.app.spec.name))
        {
            return Err(SdkError::new(
                SdkErrorCode::Forbidden,
                format!(
                    "the key that called lacks the scope {}",
                    Capability::AppHttpRequest.scope().as_str()
                ),
            ));
        }
        Ok(())
    }

    fn timed(&self, cx: &SdkCallCx, call: HttpCall) -> SdkResult<HttpAnswer> {
        let wanted = call
            .timeout_ms
            .map_or(self.times.total, Duration::from_millis);
        let until = Instant::now()
            .checked_add(wanted)
            .map_or(cx.deadline, |until| until.min(cx.deadline));
        let agent = format!(
            "PiCloud/{} ({}/{})",
            self.version, cx.app.spec.name, cx.script
        );
        let allow = cx.app.spec.http_allow.clone();
        waiting::block(async {
            let sent = tokio::time::timeout_at(until.into(), self.send(call, allow, agent)).await;
            sent.unwrap_or_else(|_| Err(too_long("the request took longer than its time")))
        })?
    }
}
