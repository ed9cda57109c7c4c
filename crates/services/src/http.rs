//! `http::*`: outgoing requests of scripts, to addresses that were checked.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use parking_lot::Mutex;
use picloud_shared::{
    Capability, Principal,
    sdk::{HttpAnswer, HttpCall, HttpService, SdkCallCx, SdkError, SdkErrorCode, SdkResult},
};
use reqwest::{
    Client, Method, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{self, HeaderMap, HeaderName, HeaderValue},
};

use crate::{
    address_guard::{AddressGuard, Refused},
    waiting,
};

/// Unless the call says otherwise; the run's own time holds in any case.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence in the middle of an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a request's body.
const MAX_REQUEST: usize = 10 << 20;
/// Characters of a URL, and of all headers of a request.
const MAX_URL: usize = 8 << 10;
const MAX_HEADERS: usize = 64 << 10;
/// Clients that are kept, one a set of permissions; above it they are made again.
const MAX_CLIENTS: usize = 256;
/// Headers that frame a message or speak for somebody else are not a script's to set.
const OWN_HEADERS: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "proxy-authorization",
    "proxy-connection",
    "user-agent",
];

/// Finds the addresses of a name.
pub trait NameLookup: Send + Sync + 'static {
    /// All of them.
    fn lookup(&self, name: String) -> LookupFuture;
}

/// What [`NameLookup::lookup`] gives.
pub type LookupFuture =
    std::pin::Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;

/// As the system does.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

impl NameLookup for SystemLookup {
    fn lookup(&self, name: String) -> LookupFuture {
        async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        }
        .boxed()
    }
}

/// Outgoing requests by reqwest.
pub struct HttpServiceImpl {
    guard: AddressGuard,
    lookup: Arc<dyn NameLookup>,
    version: &'static str,
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
            clients: Mutex::default(),
        }
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
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(IDLE_TIMEOUT)
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

    /// Whether a script may ask for this address at all. Names are checked once more when they are
    /// resolved.
    fn check(&self, url: &Url, allow: Option<&Vec<String>>) -> SdkResult<()> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(blocked("only http and https are sent"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(blocked(
                "a URL must not hold a user name or password; send an Authorization header",
            ));
        }
        let port = url.port_or_known_default().unwrap_or(0);
        if !matches!(port, 80 | 443 | 1024..) {
            return Err(blocked(format!(
                "port {port}; only 80, 443 and 1024 to 65535 are reached"
            )));
        }
        let literal = match url.host() {
            Some(url::Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(url::Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(url::Host::Domain(_)) => None,
            None => return Err(invalid("the URL has no host")),
        };
        if let Some(address) = literal {
            self.guard
                .check(address)
                .map_err(|Refused(why)| blocked(why))?;
        }
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        if let Some(allow) = allow
            && !allow.iter().any(|pattern| matches_host(pattern, host))
        {
            return Err(blocked("the host is not in permissions.http.allow"));
        }
        Ok(())
    }

    async fn send(
        &self,
        call: HttpCall,
        allow: Option<Vec<String>>,
        agent: String,
    ) -> SdkResult<HttpAnswer> {
        let client = self.client(allow.as_ref())?;
        let mut url = parse(&call.url)?;
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
            self.check(&url, allow.as_ref())?;
            let mut request = client
                .request(method.clone(), url.clone())
                .headers(headers.clone());
            if let Some(body) = &body {
                request = request.body(body.clone());
            }
            let response = request.send().await.map_err(|error| told(&error))?;
            let next = match location(&response, &url) {
                Some(next) if call.follow_redirects > 0 => next?,
                _ => return read(response, call.max_body).await,
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
        let wanted = call
            .timeout_ms
            .map_or(DEFAULT_TIMEOUT, Duration::from_millis);
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
            sent.unwrap_or_else(|_| {
                Err(SdkError::new(
                    SdkErrorCode::Timeout,
                    "the request took longer than its time",
                ))
            })
        })?
    }
}

/// Checks every address of a name; what is connected to is what was checked.
struct GuardedResolver {
    guard: AddressGuard,
    lookup: Arc<dyn NameLookup>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, lookup) = (self.guard, Arc::clone(&self.lookup));
        async move {
            let found = lookup.lookup(name.as_str().to_owned()).await?;
            for address in &found {
                guard.check(*address)?;
            }
            let addresses: Addrs =
                Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        }
        .boxed()
    }
}

fn parse(text: &str) -> SdkResult<Url> {
    if text.len() > MAX_URL {
        return Err(invalid(format!("a URL has at most {MAX_URL} bytes")));
    }
    Url::parse(text).map_err(|error| invalid(format!("the URL: {error}")))
}

/// A name matches itself; `*.x` any name below `x`, however deep, and not `x`.
fn matches_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(above) => host
            .strip_suffix(above)
            .is_some_and(|below| below.len() > 1 && below.ends_with('.')),
        None => pattern == host,
    }
}

fn header_map(pairs: &[(String, String)]) -> SdkResult<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(pairs.len() + 2);
    let size: usize = pairs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if size > MAX_HEADERS {
        return Err(SdkError::new(
            SdkErrorCode::TooLarge,
            format!("the headers have {size} bytes; at most {MAX_HEADERS} are sent"),
        ));
    }
    for (name, value) in pairs {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .ok()
            .filter(|name| !OWN_HEADERS.contains(&name.as_str()))
            .ok_or_else(|| {
                invalid(format!(
                    "`{}` is no header that a script sets",
                    name.escape_debug()
                ))
            })?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
            invalid(format!(
                "the header `{name}` holds a character that cannot be sent"
            ))
        })?;
        headers.append(parsed, value);
    }
    Ok(headers)
}

/// Where a redirect leads.
fn location(response: &Response, from: &Url) -> Option<SdkResult<Url>> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let to = response
        .headers()
        .get(header::LOCATION)
        .filter(|_| redirects)?;
    let url = std::str::from_utf8(to.as_bytes())
        .ok()
        .and_then(|to| from.join(to).ok());
    Some(url.ok_or_else(|| SdkError::new(SdkErrorCode::Failed, "the redirect leads to no address")))
}

/// Reads an answer's body, decompressed, and not a byte more than it may have.
async fn read(mut response: Response, max: u64) -> SdkResult<HttpAnswer> {
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect();
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| told(&error))? {
        if (body.len() + chunk.len()) as u64 > max {
            return Err(SdkError::new(
                SdkErrorCode::TooLarge,
                format!("the answer has more than {max} bytes"),
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(HttpAnswer {
        status,
        headers,
        body: Bytes::from(body),
    })
}

/// What a script is told of a request that failed: never an address.
fn told(error: &reqwest::Error) -> SdkError {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    let mut last = String::new();
    while let Some(at) = cause {
        if let Some(Refused(why)) = at.downcast_ref::<Refused>() {
            return blocked(why);
        }
        last = at.to_string();
        cause = at.source();
    }
    if error.is_timeout() {
        return SdkError::new(SdkErrorCode::Timeout, "the server took too long");
    }
    tracing::debug!(%error, cause = last, "a script's request failed");
    let message = if error.is_connect() && last.contains("lookup") {
        "the name cannot be resolved"
    } else if error.is_connect() {
        "the connection failed"
    } else if error.is_decode() {
        "the answer could not be decoded"
    } else {
        "the request failed"
    };
    SdkError::new(SdkErrorCode::Failed, message)
}

fn blocked(why: impl std::fmt::Display) -> SdkError {
    SdkError::new(SdkErrorCode::Blocked, format!("blocked: {why}"))
}

fn invalid(message: impl Into<String>) -> SdkError {
    SdkError::new(SdkErrorCode::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_itself_or_what_is_below() {
        assert!(matches_host("a.com", "a.com"));
        assert!(!matches_host("a.com", "b.a.com"));
        assert!(matches_host("*.a.com", "b.a.com"));
        assert!(matches_host("*.a.com", "c.b.a.com"));
        assert!(!matches_host("*.a.com", "a.com"));
        assert!(!matches_host("*.a.com", ".a.com"));
        assert!(!matches_host("*.a.com", "ba.com"));
    }

    #[test]
    fn every_spelling_of_a_refused_address_is_refused_before_anything_is_sent() {
        let service = HttpServiceImpl::new(AddressGuard::default(), Arc::new(SystemLookup), "test");
        let spellings = [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://１２７.0.0.1/",
            "http://127。0。0。1/",
            "http://%31%32%37.0.0.1/",
            "http:\\\\127.0.0.1\\",
            "http:127.0.0.1",
            "http://127.0.0.1./",
            "http://0/",
            "http://[::]/",
            "http://[64:ff9b::7f00:1]/",
            "http://169.254.169.254/latest",
            "http://[fe80::1%25eth0]/",
            "http://1.1.1.1:22/",
            "http://1.1.1.1:25/",
            "ftp://1.1.1.1/",
            "file:///etc/passwd",
            "http://user@1.1.1.1/",
            "http://u:p@1.1.1.1/",
            "http://168.63.129.16/",
        ];
        for text in spellings {
            let refused = parse(text).and_then(|url| service.check(&url, None));
            assert!(refused.is_err(), "{text} was let through");
        }
        for text in [
            "http://1.1.1.1/",
            "https://example.com:8443/",
            "http://example.com/",
        ] {
            let url = parse(text).expect("a URL");
            assert_eq!(service.check(&url, None), Ok(()), "{text}");
        }
    }
}
