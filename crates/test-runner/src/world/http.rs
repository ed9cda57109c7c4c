//! `http::*` offline: what a test says, and nothing else.

use bytes::Bytes;
use picloud_executor_core::{HttpMock, SentRequest};
use picloud_shared::{
    AddressGuard,
    outgoing::{check_url, parse_url},
    sdk::{HttpAnswer, HttpCall, HttpService, SdkCallCx, SdkError, SdkErrorCode, SdkResult},
};
use url::Url;

use super::{Part, World, invalid};

/// Requests that are remembered.
const MAX_SENT: usize = 10_000;

impl World {
    /// A later answer for the same URL and method takes the place of an earlier one.
    pub(super) fn mock(&self, url: &str, mock: HttpMock) -> SdkResult<()> {
        let (bare, wild) = match url.strip_suffix('*') {
            Some(bare) => (bare, "*"),
            None => (url, ""),
        };
        let parsed = parse(bare)?;
        // What was written is kept where a wildcard follows: normalising adds a slash to a host.
        let pattern = if wild.is_empty() {
            parsed.to_string()
        } else {
            format!("{bare}*")
        };
        let mut data = self.data.lock();
        data.mocks
            .retain(|(other, before)| *other != pattern || before.method != mock.method);
        data.mocks.push((pattern, mock));
        Ok(())
    }

    /// The latest that fits: a whole URL before one without its query before a wildcard.
    fn mocked(&self, method: &str, url: &Url) -> Option<HttpAnswer> {
        let whole = url.to_string();
        let mut bare = url.clone();
        bare.set_query(None);
        let bare = bare.to_string();
        let data = self.data.lock();
        let of_method = |(_, mock): &&(String, HttpMock)| {
            mock.method.as_deref().is_none_or(|wanted| wanted == method)
        };
        let find = |fits: &dyn Fn(&str) -> bool| {
            let found = data.mocks.iter().rev().filter(of_method);
            found
                .filter(|(pattern, _)| fits(pattern))
                .max_by_key(|(pattern, mock)| (pattern.len(), mock.method.is_some()))
                .map(|(_, mock)| mock.answer.clone())
        };
        find(&|pattern| pattern == whole)
            .or_else(|| find(&|pattern| pattern == bare))
            .or_else(|| {
                find(&|pattern| {
                    pattern
                        .strip_suffix('*')
                        .is_some_and(|prefix| whole.starts_with(prefix))
                })
            })
    }
}

impl HttpService for Part {
    fn request(&self, cx: &SdkCallCx, mut call: HttpCall) -> SdkResult<HttpAnswer> {
        let world = self.world()?;
        let mut url = parse_url(&call.url)?;
        // A mock makes nothing reachable that a server would refuse.
        let guard = AddressGuard::default();
        let allow = cx.app.spec.http_allow.as_deref();
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let (mut method, mut body) = (call.method.clone(), call.body.clone());
        let mut left = call.follow_redirects;
        loop {
            check_url(&url, guard, allow)?;
            note(&world, &method, &url, &call, body.as_ref());
            let answer = world
                .mocked(&method, &url)
                .ok_or_else(|| unmocked(&method, &url))?;
            if answer.body.len() as u64 > call.max_body {
                return Err(SdkError::new(
                    SdkErrorCode::TooLarge,
                    format!("the answer has more than {} bytes", call.max_body),
                ));
            }
            let Some(next) = location(&answer, &url).filter(|_| call.follow_redirects > 0) else {
                return Ok(answer);
            };
            if left == 0 {
                return Err(SdkError::new(
                    SdkErrorCode::Failed,
                    format!("more than {} redirects", call.follow_redirects),
                ));
            }
            left -= 1;
            let as_get = answer.status == 303 && method != "HEAD"
                || matches!(answer.status, 301 | 302) && method == "POST";
            if as_get {
                (method, body) = ("GET".to_owned(), None);
            }
            let next = next?;
            if next.origin() != url.origin() {
                call.headers.retain(|(name, _)| !is_credential(name));
            }
            url = next;
        }
    }
}

/// What does not follow to another origin.
fn is_credential(name: &str) -> bool {
    name.eq_ignore_ascii_case("authorization") || name.eq_ignore_ascii_case("cookie")
}

fn note(
    world: &World,
    method: &str,
    url: &Url,
    call: &HttpCall,
    body: Option<&(Bytes, &'static str)>,
) {
    let mut headers: Vec<(String, String)> = call
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect();
    if let Some((_, kind)) = body
        && !headers.iter().any(|(name, _)| name == "content-type")
    {
        headers.push(("content-type".to_owned(), (*kind).to_owned()));
    }
    let mut data = world.data.lock();
    if data.sent.len() < MAX_SENT {
        data.sent.push(SentRequest {
            method: method.to_owned(),
            url: url.to_string(),
            headers,
            body: body.map(|(bytes, _)| bytes.clone()).unwrap_or_default(),
        });
    }
}

fn location(answer: &HttpAnswer, from: &Url) -> Option<SdkResult<Url>> {
    let redirects = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
    let mut headers = answer.headers.iter().filter(|_| redirects);
    let (_, to) = headers.find(|(name, _)| name == "location")?;
    let failed = |_| SdkError::new(SdkErrorCode::Failed, "the redirect leads to no address");
    Some(from.join(to).map_err(failed))
}

fn unmocked(method: &str, url: &Url) -> SdkError {
    SdkError::new(
        SdkErrorCode::Blocked,
        format!(
            "blocked: no test reaches the network, and there is no http::mock for {method} {url}"
        ),
    )
}

fn parse(text: &str) -> SdkResult<Url> {
    let url = Url::parse(text).map_err(|error| invalid(format!("the URL: {error}")))?;
    if matches!(url.scheme(), "http" | "https") {
        return Ok(url);
    }
    Err(SdkError::new(
        SdkErrorCode::Blocked,
        "blocked: only http and https are sent",
    ))
}
