//! What stands before a route: its rate limit, and who may call it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use picloud_shared::{
    AppName, AppSpec, Capability, KeyGrant, Principal,
    app::{RateLimit, RouteAuth, SignatureScheme},
    sdk::SecretValue,
};
use picloud_store::Store;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::problem::{Whole, problem};

/// A signature's timestamp may be so old, or so early.
const TOLERANCE: i64 = 300;
/// A key is asked for again after this; what was revoked is refused within a second.
const REMEMBERED: Duration = Duration::from_millis(700);
/// Where the scheme `hmac-sha256` looks for the code: by habit, senders have no one name for it.
const HMAC_HEADERS: [&str; 5] = [
    "x-signature",
    "x-signature-256",
    "x-hub-signature-256",
    "x-hmac-sha256",
    "x-webhook-signature",
];
/// Keys and addresses that are remembered; above it, those whose time is over are forgotten.
const MAX_REMEMBERED: usize = 50_000;

/// Opens an app's secret.
pub type SecretLookup = Arc<dyn Fn(&AppSpec, &str) -> Option<SecretValue> + Send + Sync>;

/// Counts requests of addresses.
#[derive(Debug, Default)]
pub(crate) struct RateLimiter {
    windows: Mutex<HashMap<(String, IpAddr), Window>>,
}

#[derive(Debug)]
struct Window {
    ends: Instant,
    count: u32,
}

impl RateLimiter {
    /// Counts a request; `Err` where it is one too many: until when.
    fn count(
        &self,
        route: String,
        client: IpAddr,
        limit: RateLimit,
        now: Instant,
    ) -> Result<(), Duration> {
        let mut windows = self.windows.lock();
        if windows.len() >= MAX_REMEMBERED {
            windows.retain(|_, window| window.ends > now);
        }
        let fresh = now + Duration::from_millis(limit.window_ms);
        let window = windows.entry((route, client)).or_insert(Window {
            ends: fresh,
            count: 0,
        });
        if window.ends <= now {
            *window = Window {
                ends: fresh,
                count: 0,
            };
        }
        if window.count >= limit.requests {
            return Err(window.ends - now);
        }
        window.count += 1;
        Ok(())
    }

    /// The refusal of a request that is one too many.
    pub(crate) fn check(
        &self,
        route: String,
        client: IpAddr,
        limit: Option<RateLimit>,
    ) -> Option<Response<Whole>> {
        let left = self.count(route, client, limit?, Instant::now()).err()?;
        let detail = "there were too many requests from this address";
        let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
        let seconds = left.as_millis().div_ceil(1000).max(1);
        if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        Some(response)
    }
}

/// What a key was found to be (`None`: nobody's), and until when that is believed.
type Known = (Option<Arc<KeyGrant>>, Instant);

/// Keys that called lately.
#[derive(Default)]
pub(crate) struct KeyCache {
    known: Mutex<HashMap<[u8; 32], Known>>,
}

impl KeyCache {
    /// On whose behalf a request with a key acts; the refusal where the key may not.
    pub(crate) async fn authorize(
        &self,
        store: &Store,
        headers: &HeaderMap,
        app: &AppName,
        now: DateTime<Utc>,
    ) -> Result<Principal, Box<Response<Whole>>> {
        let unauthorized = || {
            let detail = "the route needs a key: `Authorization: Bearer pic_…`";
            let mut response = problem(StatusCode::UNAUTHORIZED, "unauthorized", detail);
            let scheme = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
            Box::new(response)
        };
        let key = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, key)| key.trim())
            .ok_or_else(unauthorized)?;
        let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let grant = self.grant(store, hash, now).await.map_err(|()| {
            let detail = "the key cannot be looked up at the moment";
            let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
            let second = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, second);
            Box::new(response)
        })?;
        let grant = grant.ok_or_else(unauthorized)?;
        if !grant.allows(Capability::AppInvoke, Some(app)) {
            let detail = "the key lacks the scope app:invoke for this app";
            return Err(Box::new(problem(
                StatusCode::FORBIDDEN,
                "forbidden",
                detail,
            )));
        }
        Ok(Principal::Key(grant))
    }

    async fn grant(
        &self,
        store: &Store,
        hash: [u8; 32],
        now: DateTime<Utc>,
    ) -> Result<Option<Arc<KeyGrant>>, ()> {
        let asked = Instant::now();
        if let Some((grant, until)) = self.known.lock().get(&hash)
            && *until > asked
        {
            return Ok(grant.clone());
        }
        let record = store.use_key(&hash, now).await.map_err(|error| {
            tracing::warn!(%error, "a key could not be looked up");
        })?;
        let grant = record.map(|record| Arc::new(record.grant));
        let mut known = self.known.lock();
        if known.len() >= MAX_REMEMBERED {
            known.retain(|_, (_, until)| *until > asked);
        }
        known.insert(hash, (grant.clone(), asked + REMEMBERED));
        Ok(grant)
    }
}

/// The refusal of a request whose signature is missing or wrong.
pub(crate) fn check_signature(
    auth: &RouteAuth,
    secrets: &SecretLookup,
    spec: &AppSpec,
    headers: &HeaderMap,
    body: &[u8],
    now: DateTime<Utc>,
) -> Option<Response<Whole>> {
    let RouteAuth::Signature { scheme, secret } = auth else {
        return None;
    };
    let Some(secret) = secrets(spec, secret) else {
        let detail = "the route's secret cannot be opened";
        return Some(problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            detail,
        ));
    };
    if is_signed(*scheme, secret.0.as_bytes(), headers, body, now.timestamp()) {
        return None;
    }
    let detail = "the request's signature is missing, wrong or stale";
    Some(problem(
        StatusCode::UNAUTHORIZED,
        "invalid_signature",
        detail,
    ))
}

fn is_signed(
    scheme: SignatureScheme,
    secret: &[u8],
    headers: &HeaderMap,
    body: &[u8],
    now: i64,
) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let recent = |time: &str| {
        time.parse::<i64>()
            .is_ok_and(|time| now.saturating_sub(time).saturating_abs() <= TOLERANCE)
    };
    match scheme {
        SignatureScheme::Github => header("x-hub-signature-256")
            .and_then(|value| value.strip_prefix("sha256="))
            .is_some_and(|code| verify(secret, &[body], code)),
        SignatureScheme::HmacSha256 => HMAC_HEADERS
            .into_iter()
            .filter_map(header)
            .map(|value| value.strip_prefix("sha256=").unwrap_or(value))
            .any(|code| verify(secret, &[body], code)),
        SignatureScheme::Slack => {
            let time = header("x-slack-request-timestamp").filter(|time| recent(time));
            let code = header("x-slack-signature").and_then(|value| value.strip_prefix("v0="));
            time.zip(code).is_some_and(|(time, code)| {
                verify(secret, &[b"v0:", time.as_bytes(), b":", body], code)
            })
        }
        SignatureScheme::Stripe => {
            let Some(value) = header("stripe-signature") else {
                return false;
            };
            let parts = || {
                value
                    .split(',')
                    .filter_map(|part| part.trim().split_once('='))
            };
            let time = parts().find(|(name, _)| *name == "t").map(|(_, time)| time);
            let Some(time) = time.filter(|time| recent(time)) else {
                return false;
            };
            // Several while the secret is being rotated.
            parts()
                .filter(|(name, _)| *name == "v1")
                .any(|(_, code)| verify(secret, &[time.as_bytes(), b".", body], code))
        }
    }
}

/// Whether that is the HMAC-SHA-256 of the parts, in constant time.
fn verify(secret: &[u8], parts: &[&[u8]], hex: &str) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
        return false;
    };
    for part in parts {
        mac.update(part);
    }
    let code = mac.finalize().into_bytes();
    let mut expected = String::with_capacity(64);
    for byte in code {
        expected.push_str(&format!("{byte:02x}"));
    }
    let given = hex.to_ascii_lowercase();
    bool::from(expected.as_bytes().ct_eq(given.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn the_published_vectors_are_accepted_and_one_flipped_bit_is_not() {
        // docs.github.com, "Validating webhook deliveries": testing.
        let good = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let secret = b"It's a Secret to Everybody";
        let github = |value: &str, body: &[u8]| {
            let headers = headers(&[("x-hub-signature-256", value)]);
            is_signed(SignatureScheme::Github, secret, &headers, body, 0)
        };
        assert!(github(good, b"Hello, World!"));
        assert!(!github(good, b"Hello, World?"));
        assert!(!github(&good.replace("757", "657"), b"Hello, World!"));
        assert!(!github("", b"Hello, World!"));
        // api.slack.com, "Verifying requests from Slack".
        let body = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
        let slack = headers(&[
            ("x-slack-request-timestamp", "1531420618"),
            (
                "x-slack-signature",
                "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            ),
        ]);
        let secret = b"8f742231b10e8888abcd99yyyzzz85a5";
        let at = |now| is_signed(SignatureScheme::Slack, secret, &slack, body, now);
        assert!(at(1_531_420_618) && at(1_531_420_900));
        assert!(!at(1_531_420_919) && !at(1_531_420_317), "stale");
    }

    #[test]
    fn a_plain_code_is_found_by_any_of_its_names() {
        // RFC 4231, section 4.3.
        let code = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let body = b"what do ya want for nothing?";
        let signed = |pairs: &[(&'static str, &str)]| {
            let headers = headers(pairs);
            is_signed(SignatureScheme::HmacSha256, b"Jefe", &headers, body, 0)
        };
        let prefixed = format!("sha256={code}");
        for name in HMAC_HEADERS {
            assert!(
                signed(&[(name, code)]) && signed(&[(name, &prefixed)]),
                "{name}"
            );
            assert!(!signed(&[(name, &code.replace("5b", "6b"))]), "{name}");
        }
        assert!(signed(&[
            ("x-signature", "of another"),
            ("x-hmac-sha256", code)
        ]));
        assert!(!signed(&[]));
    }

    #[test]
    fn a_window_takes_so_many_requests_an_address() {
        let limiter = RateLimiter::default();
        let limit = RateLimit {
            requests: 2,
            window_ms: 1000,
        };
        let (one, other) = (IpAddr::from([1, 1, 1, 1]), IpAddr::from([2, 2, 2, 2]));
        let now = Instant::now();
        let count = |client, after: u64| {
            let at = now + Duration::from_millis(after);
            limiter.count("r".to_owned(), client, limit, at).is_ok()
        };
        assert!(count(one, 0) && count(one, 10) && !count(one, 20));
        assert!(count(other, 30));
        assert!(count(one, 1001));
    }
}
