//! Sessions: a key, exchanged for a cookie that scripts of a page cannot read.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use parking_lot::Mutex;
use picloud_shared::Peer;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    AdminState,
    access::{Anyone, Caller},
    answer::{Answer, Problem, read},
    audit::{self, Actor},
    keys::{show, time},
};
use crate::keys::{FreshKey, hash};

/// The cookie's name.
const COOKIE: &str = "picloud_session";
/// Where it is sent: to the API alone, never to an app that is served on the same host.
const PATH: &str = "/api/v1/admin";
/// How long a session lasts, unless its key ends before.
const LIFE: TimeDelta = TimeDelta::days(7);
/// Wrong keys that an address may try in a minute.
const TRIES: u32 = 10;
const MINUTE: Duration = Duration::from_mins(1);
/// Addresses that are remembered; above it, those whose minute is over are forgotten.
const MAX_REMEMBERED: usize = 10_000;

/// The session's token that a request came with.
pub(super) fn token(headers: &HeaderMap) -> Option<String> {
    cookie_of(headers, COOKIE)
}

/// The value of a cookie that a request came with.
pub(super) fn cookie_of(headers: &HeaderMap, wanted: &str) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter();
    cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| value.to_owned())
}

/// What a write by session must bring: made from the session's token, which no page can read.
pub(super) fn csrf(token: &str) -> String {
    let digest = Sha256::digest(format!("picloud csrf {token}").as_bytes());
    URL_SAFE_NO_PAD.encode(digest)
}

/// Whether two texts are the same, in a time that tells nothing of where they differ: what is
/// compared are digests.
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    Sha256::digest(one) == Sha256::digest(other)
}

/// Wrong tries, by address.
#[derive(Debug, Default)]
pub(super) struct LoginThrottle {
    tries: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl LoginThrottle {
    /// How long an address has to wait, if it has to.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let tries = self.tries.lock();
        let (began, count) = tries.get(&network(address)).copied()?;
        let left = (began + MINUTE).checked_duration_since(now)?;
        (count >= TRIES && !left.is_zero()).then_some(left)
    }

    /// Counts a wrong try.
    pub(super) fn count(&self, address: IpAddr, now: Instant) {
        let mut tries = self.tries.lock();
        if tries.len() >= MAX_REMEMBERED {
            tries.retain(|_, (began, _)| now < *began + MINUTE);
        }
        let (began, count) = tries.entry(network(address)).or_insert((now, 0));
        if now >= *began + MINUTE {
            (*began, *count) = (now, 0);
        }
        *count += 1;
    }
}

/// What one subscriber has: an IPv4 address, or the 64 bits that an IPv6 network is given.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    key: String,
}

/// Opens a session.
pub(super) async fn create(
    State(state): State<AdminState>,
    anyone: Anyone,
    body: Bytes,
) -> Answer<Response> {
    let address = anyone.peer.map(|peer| peer.address);
    let now = Instant::now();
    let wait = address.and_then(|address| state.kept.throttle.wait(address, now));
    if let Some(wait) = wait {
        return Err(Problem::rate_limited(
            "too many wrong keys from this address",
            wait,
        ));
    }
    let body: Create = read(&body)?;
    let found = state
        .store
        .use_key(&hash(body.key.trim()), state.clock.now())
        .await?;
    let Some(record) = found else {
        if let Some(address) = address {
            state.kept.throttle.count(address, now);
        }
        tracing::warn!(address = ?address, "a session was asked for with a wrong key");
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "the key is not known, or its time is over",
        ));
    };
    let token = FreshKey::generate()
        .map_err(|error| Problem::unavailable(format!("no randomness: {error}")))?;
    let token = token.text.replacen("pic_", "ses_", 1);
    let now = state.clock.now();
    let ends = record
        .expires_at
        .map_or(now + LIFE, |end| end.min(now + LIFE));
    state
        .store
        .insert_session(&hash(&token), record.grant.id, now, ends)
        .await?;
    let detail = json!({ "after": { "expires_at": time(ends) }, "address": address });
    let target = record.grant.id.to_string();
    audit::note(
        &state,
        Actor::from(&record.grant),
        "session.create",
        &target,
        detail,
    )
    .await?;
    let answer = json!({
        "csrf": csrf(&token),
        "expires_at": time(ends),
        "key": show(&record, now),
        "scopes": record.grant.scopes,
        "app": record.grant.app.as_ref().map(|(_, name)| name),
    });
    let age = (ends - now).num_seconds().max(1);
    let cookie = cookie(&token, age, anyone.peer)?;
    Ok((
        StatusCode::CREATED,
        [(header::SET_COOKIE, cookie)],
        Json(answer),
    )
        .into_response())
}

/// The session's cookie.
pub(super) fn cookie(token: &str, seconds: i64, peer: Option<Peer>) -> Answer<HeaderValue> {
    let cookie = NewCookie {
        name: COOKIE,
        value: token,
        path: PATH,
        seconds,
        same_site: "Strict",
    };
    cookie.header(peer)
}

/// A cookie that no page can read.
pub(super) struct NewCookie<'a> {
    pub(super) name: &'static str,
    pub(super) value: &'a str,
    pub(super) path: &'static str,
    pub(super) seconds: i64,
    pub(super) same_site: &'static str,
}

impl NewCookie<'_> {
    pub(super) fn header(&self, peer: Option<Peer>) -> Answer<HeaderValue> {
        let secure = if peer.is_some_and(|peer| peer.https) {
            "; Secure"
        } else {
            ""
        };
        let Self {
            name,
            value,
            path,
            seconds,
            same_site,
        } = self;
        let text = format!(
            "{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite={same_site}{secure}"
        );
        HeaderValue::from_str(&text).map_err(|error| Problem::unavailable(error.to_string()))
    }
}

/// Ends the session that the request came with; without one there is nothing to end.
pub(super) async fn remove(State(state): State<AdminState>, caller: Caller) -> Answer<Response> {
    if let Some(session) = &caller.session {
        state.store.delete_session(&session.hash).await?;
        let grant = &caller.record.grant;
        let target = grant.id.to_string();
        audit::note(
            &state,
            Actor::from(grant),
            "session.delete",
            &target,
            json!({}),
        )
        .await?;
    }
    let over = cookie("", 0, None)?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, over)]).into_response())
}

/// Who one is, and what one may.
pub(super) async fn me(State(state): State<AdminState>, caller: Caller) -> Json<Value> {
    Json(show_me(&state, &caller))
}

pub(super) fn show_me(state: &AdminState, caller: &Caller) -> Value {
    let grant = &caller.record.grant;
    json!({
        "key": show(&caller.record, state.clock.now()),
        "scopes": grant.scopes,
        "app": grant.app.as_ref().map(|(_, name)| name),
        "csrf": caller.session.as_ref().map(|session| &session.csrf),
        "expires_at": caller.ends_at().map(time),
        "version": state.version,
        "recipient": state.recipient,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_wrong_try_of_a_minute_waits() {
        let throttle = LoginThrottle::default();
        let address: IpAddr = "192.0.2.7".parse().expect("an address");
        let other: IpAddr = "192.0.2.8".parse().expect("an address");
        let now = Instant::now();
        for _ in 0..TRIES {
            assert_eq!(throttle.wait(address, now), None);
            throttle.count(address, now);
        }
        let later = now + Duration::from_secs(20);
        assert_eq!(throttle.wait(address, later), Some(Duration::from_secs(40)));
        assert_eq!(throttle.wait(other, later), None);
        let much_later = now + MINUTE;
        assert_eq!(throttle.wait(address, much_later), None);
        throttle.count(address, much_later);
        assert_eq!(throttle.wait(address, much_later), None);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one() {
        let throttle = LoginThrottle::default();
        let now = Instant::now();
        for last in 0..TRIES {
            let address = format!("2001:db8::{last:x}").parse().expect("an address");
            throttle.count(address, now);
        }
        let (near, far) = ("2001:db8::ffff", "2001:db8:0:1::1");
        assert!(throttle.wait(near.parse().expect("one"), now).is_some());
        assert!(throttle.wait(far.parse().expect("one"), now).is_none());
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_static("a=b; picloud_session=ses_x; c=d");
        headers.insert(header::COOKIE, value);
        assert_eq!(token(&headers).as_deref(), Some("ses_x"));
        assert!(same(csrf("ses_x").as_bytes(), csrf("ses_x").as_bytes()));
        assert!(!same(csrf("ses_x").as_bytes(), csrf("ses_y").as_bytes()));
    }
}
