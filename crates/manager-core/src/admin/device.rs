//! `picloud login`: a program asks, shows a code, and waits until a person who is signed in lets it
//! in (RFC 8628). The key is made when the program fetches it, and kept by nobody else.

use std::time::{Duration, Instant};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
};
use chrono::{DateTime, TimeDelta, Utc};
use picloud_shared::{KeyGrant, KeyId, Scope};
use picloud_store::{
    keys::NewKey,
    logins::{DeviceAnswer, DeviceGrant, DeviceLogin},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Anyone, Caller},
    answer::{Answer, Problem, read},
    audit::{self, Actor},
    keys::time,
};
use crate::keys::{FreshKey, hash, prefix};

/// How long a person has.
const LIFE: TimeDelta = TimeDelta::minutes(10);
/// Seconds between two questions of a program.
const INTERVAL: i64 = 3;
/// How long a key lasts unless the person says otherwise, and the longest.
const KEY_LIFE: TimeDelta = TimeDelta::days(30);
const LONGEST: TimeDelta = TimeDelta::days(365);
/// Letters of codes: none that are taken for one another, no vowels that make words (RFC 8628,
/// section 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters of a code: 34 bits, for ten minutes, and only for those who are signed in already.
const CODE: usize = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    name: String,
    #[serde(default)]
    scopes: Vec<Scope>,
}

/// A program asks to be let in.
pub(super) async fn begin(
    State(state): State<AdminState>,
    anyone: Anyone,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<(StatusCode, Json<Value>)> {
    let address = anyone.peer.map(|peer| peer.address);
    if let Some(address) = address {
        let now = Instant::now();
        if let Some(wait) = state.kept.logins.wait(address, now) {
            let detail = "too many logins were asked for from this address";
            return Err(Problem::rate_limited(detail, wait));
        }
        state.kept.logins.count(address, now);
    }
    let asked: Begin = read(&body)?;
    let name = asked.name.trim();
    if name.is_empty() || name.chars().count() > 80 || name.chars().any(char::is_control) {
        return Err(Problem::invalid("name must have 1 to 80 characters").at("name"));
    }
    let now = state.clock.now();
    let login = DeviceLogin {
        name: name.to_owned(),
        address: address.map(|address| address.to_string()),
        scopes: asked.scopes,
        created_at: now,
        expires_at: now + LIFE,
    };
    let device = secret()?.replacen("pic_", "dev_", 1);
    let code = code()?;
    if !state
        .store
        .begin_device_login(&hash(&device), &code, &login)
        .await?
    {
        let wait = Duration::from_mins(1);
        return Err(Problem::rate_limited(
            "too many programs wait already",
            wait,
        ));
    }
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let scheme = if anyone.peer.is_some_and(|peer| peer.https) {
        "https"
    } else {
        "http"
    };
    let page = format!("{scheme}://{}/dashboard/login", host.unwrap_or("localhost"));
    let shown = readable(&code);
    let answer = json!({
        "device_code": device,
        "user_code": shown,
        "verification_uri_complete": format!("{page}?code={shown}"),
        "verification_uri": page,
        "expires_in": LIFE.num_seconds(),
        "interval": INTERVAL,
    });
    Ok((StatusCode::CREATED, Json(answer)))
}

fn secret() -> Answer<String> {
    let fresh = FreshKey::generate();
    let fresh = fresh.map_err(|error| Problem::unavailable(format!("no randomness: {error}")))?;
    Ok(fresh.text)
}

/// Letters by chance, each as likely as the others.
fn code() -> Answer<String> {
    let mut code = String::with_capacity(CODE);
    while code.len() < CODE {
        let mut bytes = [0_u8; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| Problem::unavailable(format!("no randomness: {error}")))?;
        let fair = bytes.into_iter().filter(|byte| *byte < 240);
        let letters = fair.filter_map(|byte| LETTERS.get(usize::from(byte) % LETTERS.len()));
        code.extend(
            letters
                .map(|letter| char::from(*letter))
                .take(CODE - code.len()),
        );
    }
    Ok(code)
}

/// `BCDF-GHJK`
fn readable(code: &str) -> String {
    let (one, other) = code.split_at(code.len() / 2);
    format!("{one}-{other}")
}

/// A code as a person writes it: in any case, with hyphens and spaces anywhere.
fn canonical(code: &str) -> String {
    code.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_uppercase())
        .collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    device_code: String,
}

/// A program asks whether a person said something.
pub(super) async fn ask(
    State(state): State<AdminState>,
    _: Anyone,
    body: Bytes,
) -> Answer<Json<Value>> {
    let asked: Ask = read(&body)?;
    let fresh = secret()?;
    let prefix = prefix(&fresh);
    let id = KeyId(state.clock.new_id());
    let key = NewKey {
        id,
        name: "",
        hash: hash(&fresh),
        prefix: &prefix,
        scopes: &[],
        app: None,
        expires_at: None,
    };
    let now = state.clock.now();
    // A little less than was asked for: clocks and networks are not exact.
    let fastest = TimeDelta::milliseconds(INTERVAL * 1000 - 500);
    let told = state
        .store
        .ask_device_login(&hash(&asked.device_code), &key, now, fastest)
        .await?;
    let refused = |status: StatusCode, code, words: &str| Err(Problem::new(status, code, words));
    match told {
        DeviceAnswer::Pending => refused(
            StatusCode::BAD_REQUEST,
            "authorization_pending",
            "nobody let the program in yet",
        ),
        DeviceAnswer::TooFast => refused(
            StatusCode::BAD_REQUEST,
            "slow_down",
            "the program asks more often than it was told to",
        ),
        DeviceAnswer::Denied => refused(
            StatusCode::BAD_REQUEST,
            "access_denied",
            "the program was not let in",
        ),
        DeviceAnswer::Gone => refused(
            StatusCode::BAD_REQUEST,
            "expired_token",
            "no such login waits, or its time is over",
        ),
        DeviceAnswer::Granted {
            scopes,
            app,
            expires_at,
            name,
        } => Ok(Json(json!({
            "id": id, "key": fresh, "name": name, "scopes": scopes, "app": app,
            "expires_at": time(expires_at),
        }))),
    }
}

fn show_login(login: &DeviceLogin, grant: &KeyGrant, code: &str) -> Value {
    json!({
        "user_code": readable(code),
        "name": login.name,
        "address": login.address,
        "created_at": time(login.created_at),
        "expires_at": time(login.expires_at),
        "scopes": given(grant, &login.scopes),
        "app": grant.app.as_ref().map(|(_, name)| name),
    })
}

/// What a person can give of what is wanted; nothing in particular: all that they may.
fn given(grant: &KeyGrant, wanted: &[Scope]) -> Vec<Scope> {
    if wanted.is_empty() {
        return grant.scopes.clone();
    }
    let admin = grant.scopes.contains(&Scope::InstanceAdmin);
    let held = |scope: &&Scope| admin || grant.scopes.contains(scope);
    wanted.iter().filter(held).copied().collect()
}

/// What waits under a code.
pub(super) async fn show(
    State(state): State<AdminState>,
    caller: Caller,
    Path(code): Path<String>,
) -> Answer {
    let code = canonical(&code);
    let login = state.store.device_login(&code, state.clock.now()).await?;
    let login = login.ok_or_else(|| Problem::not_found("code, or its time is over"))?;
    Ok(Json(show_login(&login, &caller.record.grant, &code)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Approve {
    scopes: Option<Vec<Scope>>,
    expires_at: Option<DateTime<Utc>>,
}

/// A person lets a program in, to do no more than they may themselves.
pub(super) async fn approve(
    State(state): State<AdminState>,
    caller: Caller,
    Path(code): Path<String>,
    body: Bytes,
) -> Answer {
    let wanted = if body.is_empty() {
        Approve {
            scopes: None,
            expires_at: None,
        }
    } else {
        read(&body)?
    };
    let now = state.clock.now();
    let code = canonical(&code);
    let login = state.store.device_login(&code, now).await?;
    let login = login.ok_or_else(|| Problem::not_found("code, or its time is over"))?;
    let mut scopes = given(
        &caller.record.grant,
        wanted.scopes.as_ref().unwrap_or(&login.scopes),
    );
    scopes.sort();
    scopes.dedup();
    if scopes.is_empty() {
        let detail = "none of the scopes is one that can be given";
        return Err(Problem::invalid(detail).at("scopes"));
    }
    let mut ends = wanted.expires_at.unwrap_or(now + KEY_LIFE);
    if ends <= now || ends > now + LONGEST {
        let detail = "expires_at must be a time of the year to come";
        return Err(Problem::invalid(detail).at("expires_at"));
    }
    ends = caller.record.expires_at.map_or(ends, |end| end.min(ends));
    let grant = DeviceGrant {
        scopes: &scopes,
        app: caller.record.grant.app.as_ref().map(|(id, _)| *id),
        parent: caller.record.grant.id,
        expires_at: ends,
    };
    if !state
        .store
        .decide_device_login(&code, Some(&grant), now)
        .await?
    {
        return Err(Problem::not_found("code, or its time is over"));
    }
    let app = caller.record.grant.app.as_ref().map(|(_, name)| name);
    let after = json!({ "scopes": scopes, "app": app, "expires_at": time(ends) });
    let detail = json!({ "app": app, "after": after, "address": login.address });
    audit::note(
        &state,
        Actor::from(&caller.record.grant),
        "login.approve",
        &login.name,
        detail,
    )
    .await?;
    let mut shown = show_login(&login, &caller.record.grant, &code);
    shown["scopes"] = json!(scopes);
    shown["expires_at"] = time(ends).into();
    Ok(Json(shown))
}

/// A person turns a program away.
pub(super) async fn deny(
    State(state): State<AdminState>,
    caller: Caller,
    Path(code): Path<String>,
) -> Answer<StatusCode> {
    let now = state.clock.now();
    let code = canonical(&code);
    let login = state.store.device_login(&code, now).await?;
    let login = login.ok_or_else(|| Problem::not_found("code, or its time is over"))?;
    state.store.decide_device_login(&code, None, now).await?;
    let detail = json!({ "address": login.address });
    audit::note(
        &state,
        Actor::from(&caller.record.grant),
        "login.deny",
        &login.name,
        detail,
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_people_write_them() {
        let code = code().expect("a code");
        assert_eq!(code.len(), CODE);
        assert!(code.bytes().all(|byte| LETTERS.contains(&byte)), "{code}");
        let shown = readable(&code);
        assert_eq!(shown.len(), CODE + 1);
        assert_eq!(canonical(&shown.to_lowercase().replace('-', " - ")), code);
    }

    #[test]
    fn nobody_gives_what_they_lack() {
        let grant = |scopes: &[Scope]| KeyGrant {
            id: KeyId(uuid::Uuid::nil()),
            name: "me".to_owned(),
            scopes: scopes.to_vec(),
            app: None,
        };
        let viewer = grant(&[Scope::AppRead, Scope::RunRead]);
        assert_eq!(given(&viewer, &[]), viewer.scopes);
        assert_eq!(
            given(&viewer, &[Scope::AppRead, Scope::SyncWrite]),
            [Scope::AppRead]
        );
        assert!(given(&viewer, &[Scope::InstanceAdmin]).is_empty());
        let admin = grant(&[Scope::InstanceAdmin]);
        assert_eq!(given(&admin, &[Scope::SyncWrite]), [Scope::SyncWrite]);
    }
}
