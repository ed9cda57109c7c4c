//! Sign-in by an identity provider: to it, and back.

use axum::{
    Json,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::TimeDelta;
use picloud_shared::{KeyId, Peer};
use picloud_store::{
    logins::ProviderLogin,
    people::{Identity, NewPerson},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminState,
    access::{Anyone, MaybeCaller},
    answer::{Answer, Problem},
    audit::{self, Actor},
    keys::time,
    session::{self, NewCookie},
};
use crate::{
    keys::{FreshKey, hash},
    oidc::{Oidc, OidcError, Person},
};

/// The cookie that ties a browser to the way that it is on.
const COOKIE: &str = "picloud_sign_in";
/// Where it is sent.
const PATH: &str = "/api/v1/admin/session/oidc";
/// How long one may be at the provider.
const LIFE: TimeDelta = TimeDelta::minutes(10);
/// Characters of a place that one wants to go to.
const MAX_NEXT: usize = 2000;

/// Whether somebody is signed in, and how one can be: never a refusal, so that a page may ask
/// before it knows.
pub(super) async fn probe(State(state): State<AdminState>, caller: MaybeCaller) -> Json<Value> {
    let me = caller.0.map(|caller| session::show_me(&state, &caller));
    let oidc = state
        .oidc
        .as_ref()
        .map(|oidc| json!({ "name": oidc.settings.name, "url": "/api/v1/admin/session/oidc" }));
    Json(json!({ "me": me, "oidc": oidc, "version": state.version }))
}

fn provider(state: &AdminState) -> Answer<&Oidc> {
    let provider = state.oidc.as_deref();
    provider.ok_or_else(|| Problem::not_found("identity provider: none is configured"))
}

/// Where the provider sends people back to: this server, as the browser knows it.
fn redirect(headers: &HeaderMap, peer: Option<Peer>) -> Answer<String> {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.ok_or_else(|| Problem::invalid("the request names no host"))?;
    let scheme = if peer.is_some_and(|peer| peer.https) {
        "https"
    } else {
        "http"
    };
    Ok(format!("{scheme}://{host}{PATH}/callback"))
}

#[derive(Deserialize)]
pub(super) struct Begin {
    next: Option<String>,
}

/// A page of the dashboard, and of nobody else.
fn page_of_ours(next: Option<&str>) -> String {
    let good = |next: &&str| {
        next.len() <= MAX_NEXT
            && (next.starts_with("/dashboard/") || *next == "/dashboard")
            && next
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    next.filter(good).unwrap_or("/dashboard/").to_owned()
}

/// Sends a browser to the provider.
pub(super) async fn begin(
    State(state): State<AdminState>,
    anyone: Anyone,
    headers: HeaderMap,
    Query(asked): Query<Begin>,
) -> Answer<Response> {
    let oidc = provider(&state)?;
    let outset = match oidc.begin(&redirect(&headers, anyone.peer)?).await {
        Ok(outset) => outset,
        Err(error) => return Ok(back(&state, &error, "")),
    };
    let now = state.clock.now();
    let login = ProviderLogin {
        nonce: outset.nonce,
        verifier: outset.verifier,
        next: page_of_ours(asked.next.as_deref()),
    };
    let noted = state
        .store
        .begin_provider_login(&hash(&outset.state), &login, now, now + LIFE)
        .await?;
    if !noted {
        let wait = std::time::Duration::from_mins(1);
        return Err(Problem::rate_limited("too many sign in at once", wait));
    }
    let cookie = NewCookie {
        name: COOKIE,
        value: &outset.state,
        path: PATH,
        seconds: LIFE.num_seconds(),
        // The way back comes from the provider's pages: a strict cookie would stay behind.
        same_site: "Lax",
    };
    let headers = [
        (header::SET_COOKIE, cookie.header(anyone.peer)?),
        (header::LOCATION, value(&outset.url)?),
    ];
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}

fn value(text: &str) -> Answer<HeaderValue> {
    HeaderValue::from_str(text).map_err(|error| Problem::unavailable(error.to_string()))
}

#[derive(Deserialize)]
pub(super) struct Callback {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
}

/// Takes a browser that comes back from the provider.
pub(super) async fn finish(
    State(state): State<AdminState>,
    anyone: Anyone,
    headers: HeaderMap,
    Query(told): Query<Callback>,
) -> Answer<Response> {
    let oidc = provider(&state)?;
    let ours = session::cookie_of(&headers, COOKIE);
    let same = |theirs: &String| {
        ours.as_ref()
            .is_some_and(|ours| session::same(ours.as_bytes(), theirs.as_bytes()))
    };
    let Some(token) = told.state.filter(same) else {
        return Ok(to_sign_in("expired", ""));
    };
    let now = state.clock.now();
    let login = state.store.end_provider_login(&hash(&token), now).await?;
    let Some(login) = login else {
        return Ok(to_sign_in("expired", ""));
    };
    let Some(code) = told.code.filter(|_| told.error.is_none()) else {
        tracing::info!(error = ?told.error, "the identity provider sent somebody back without a code");
        return Ok(to_sign_in("denied", &login.next));
    };
    let back_to = redirect(&headers, anyone.peer)?;
    let person = match oidc
        .finish(&back_to, code, login.nonce, login.verifier)
        .await
    {
        Ok(person) => person,
        Err(error) => {
            if let OidcError::NoRole { subject } = &error {
                let issuer = &oidc.settings.issuer;
                state.store.turn_person_away(issuer, subject, now).await?;
            }
            return Ok(back(&state, &error, &login.next));
        }
    };
    let cookie = open(&state, oidc, &person, anyone.peer).await?;
    let mut answer = (
        StatusCode::SEE_OTHER,
        [(header::LOCATION, value(&login.next)?)],
    )
        .into_response();
    answer.headers_mut().append(header::SET_COOKIE, cookie);
    let over = NewCookie {
        name: COOKIE,
        value: "",
        path: PATH,
        seconds: 0,
        same_site: "Lax",
    };
    let over = over.header(anyone.peer)?;
    answer.headers_mut().append(header::SET_COOKIE, over);
    Ok(answer)
}

/// Opens the session of somebody who was told who they are.
async fn open(
    state: &AdminState,
    oidc: &Oidc,
    person: &Person,
    peer: Option<Peer>,
) -> Answer<HeaderValue> {
    let now = state.clock.now();
    let identity = Identity {
        issuer: &oidc.settings.issuer,
        subject: &person.subject,
        name: &person.name,
        email: person.email.as_deref(),
        role: person.role.as_str(),
        scopes: person.role.scopes(),
    };
    let random = || {
        let fresh = FreshKey::generate();
        fresh.map_err(|error| Problem::unavailable(format!("no randomness: {error}")))
    };
    let new = NewPerson {
        id: state.clock.new_id(),
        key: KeyId(state.clock.new_id()),
        hash: hash(&random()?.text),
    };
    let (known, key) = state.store.greet_person(&new, &identity, now).await?;
    let token = random()?.text.replacen("pic_", "ses_", 1);
    let life = TimeDelta::from_std(oidc.settings.session).unwrap_or(TimeDelta::hours(12));
    let ends = now + life;
    state
        .store
        .insert_session(&hash(&token), key, now, ends)
        .await?;
    let detail = json!({
        "after": { "expires_at": time(ends), "role": person.role, "person": known.id },
        "address": peer.map(|peer| peer.address),
    });
    let actor = Actor::of(key, &known.name);
    audit::note(state, actor, "session.create", &key.to_string(), detail).await?;
    session::cookie(&token, life.num_seconds().max(1), peer)
}

/// Back to the sign-in page, which says what was wrong.
fn back(state: &AdminState, error: &OidcError, next: &str) -> Response {
    let code = match error {
        OidcError::Provider(_) => "provider",
        OidcError::Answer(_) => "refused",
        OidcError::NoRole { .. } => "no_role",
    };
    let issuer = state
        .oidc
        .as_ref()
        .map(|oidc| oidc.settings.issuer.as_str());
    tracing::warn!(%error, issuer, "somebody could not be signed in");
    to_sign_in(code, next)
}

fn to_sign_in(code: &str, next: &str) -> Response {
    let next = next.strip_prefix("/dashboard").unwrap_or_default();
    let encoded = percent_encoding::utf8_percent_encode(next, percent_encoding::NON_ALPHANUMERIC);
    let place = if matches!(next, "" | "/") {
        format!("/dashboard/sign-in?error={code}")
    } else {
        format!("/dashboard/sign-in?error={code}&next={encoded}")
    };
    (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_sent_to_pages_of_ours_alone() {
        for (asked, expected) in [
            (Some("/dashboard/runs?app=a"), "/dashboard/runs?app=a"),
            (Some("/dashboard"), "/dashboard"),
            (Some("//elsewhere.example"), "/dashboard/"),
            (Some("https://elsewhere.example/dashboard/"), "/dashboard/"),
            (Some("/dashboard/\\elsewhere"), "/dashboard/"),
            (Some("/dashboard/\r\nx: y"), "/dashboard/"),
            (Some("/dashboardish"), "/dashboard/"),
            (Some("/apps/a/"), "/dashboard/"),
            (None, "/dashboard/"),
        ] {
            assert_eq!(page_of_ours(asked), expected, "{asked:?}");
        }
    }
}
