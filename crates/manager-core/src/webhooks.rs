//! `POST /api/v1/hooks/{source}`: what forges tell, and anybody with a key.
//!
//! Nothing is believed before its signature is; what was refused leaves no trace. A delivery is
//! answered once its deployment is, or after a bounded wait, so that the forge's own log of
//! deliveries says what became of it.

mod body;
pub(crate) mod delivery;
pub(crate) mod once;
mod signature;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use picloud_shared::{
    Capability, Clock, Scope, SourceName,
    deployment::{Deployment, DeploymentStatus},
};
use picloud_store::{Store, webhooks::WebhookSource};
use serde_json::{Value, json};

use crate::{
    admin::Problem,
    hosting::base_url,
    keys,
    previews::Previews,
    pulls::{PullError, Pulls, Reported},
    reconcile::{DeployError, Deployer},
    sources::Sources,
};
use body::{Bodies, BodyError};
use delivery::{Delivery, Event, PullEvent};
use once::{Once, Rate};

/// Bytes of a delivery, unless the configuration says otherwise.
pub const DEFAULT_MAX_BODY: usize = 25 << 20;
/// How long an answer waits for the deployment: forges give up after ten seconds.
const WAIT: Duration = Duration::from_secs(8);
/// How long deliveries are remembered. GitHub redelivers up to three days later.
pub const REMEMBERED: Duration = Duration::from_hours(7 * 24);

/// What webhooks need.
#[derive(Clone)]
pub struct WebhookState {
    /// For sources, keys and deliveries.
    pub store: Store,
    /// For times.
    pub clock: Arc<dyn Clock>,
    /// Whose deliveries.
    pub sources: Arc<Sources>,
    /// What is done about pull requests.
    pub pulls: Arc<Pulls>,
    /// What is done about other branches.
    pub previews: Arc<Previews>,
    shared: Arc<Shared>,
}

struct Shared {
    bodies: Bodies,
    once: Once,
    rate: Rate,
}

impl WebhookState {
    /// Takes deliveries of at most so many bytes.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        sources: Arc<Sources>,
        (pulls, previews): (Arc<Pulls>, Arc<Previews>),
        max_body: usize,
    ) -> Self {
        Self {
            store,
            clock,
            sources,
            pulls,
            previews,
            shared: Arc::new(Shared {
                bodies: Bodies::new(max_body),
                once: Once::default(),
                rate: Rate::default(),
            }),
        }
    }
}

/// The route.
pub fn router(state: WebhookState) -> Router {
    Router::new()
        .route("/api/v1/hooks/{source}", post(receive))
        .layer(DefaultBodyLimit::disable())
        .with_state(state)
}

async fn receive(
    State(state): State<WebhookState>,
    Path(source): Path<String>,
    request: Request,
) -> Response {
    match take(state, &source, request).await {
        Ok(answer) => answer.into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// What is answered, and remembered.
struct Answer {
    status: StatusCode,
    body: Value,
    /// Whether the same delivery is answered so for ever: not where something was away.
    is_final: bool,
    /// Seconds.
    retry_after: Option<u64>,
}

impl Answer {
    fn new(status: StatusCode, body: Value) -> Self {
        Self {
            status,
            body,
            is_final: true,
            retry_after: None,
        }
    }

    fn too_many(wait: Duration) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let body = json!({
            "type": "about:blank", "title": "Too Many Requests", "status": status.as_u16(),
            "code": "too_many_requests", "detail": "too many deliveries for this source",
        });
        Self {
            is_final: false,
            retry_after: Some(wait.as_secs().max(1)),
            ..Self::new(status, body)
        }
    }

    fn ignored(source: &SourceName, why: &str) -> Self {
        let body = json!({ "outcome": "ignored", "source": source, "detail": why });
        Self::new(StatusCode::ACCEPTED, body)
    }

    fn to_json(&self) -> Value {
        // As text: the same bytes are answered again, whatever the database does to JSON.
        json!({ "status": self.status.as_u16(), "text": self.body.to_string() })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let status = u16::try_from(value["status"].as_u64()?).ok()?;
        let body = match value["text"].as_str() {
            Some(text) => serde_json::from_str(text).ok()?,
            None => value["body"].clone(),
        };
        Some(Self::new(StatusCode::from_u16(status).ok()?, body))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let kind = if self.status.is_success() {
            "application/json"
        } else {
            "application/problem+json"
        };
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "no-store"),
        ];
        let mut response = (self.status, headers, self.body.to_string()).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

fn unsigned() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "the delivery is not signed with the source's webhook_secret; a generic request needs a key with the scope sync:write",
    )
}

async fn take(state: WebhookState, source: &str, request: Request) -> Result<Answer, Problem> {
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let name = source.parse::<SourceName>().ok();
    let found = match &name {
        Some(name) => state.store.webhook_source(name).await?,
        None => None,
    };
    let secrets = found.as_ref().map_or(&[][..], |found| &found.secrets);
    let is_signed = signature::is_signed(&headers) && !secrets.is_empty();
    // Whether it may be, is decided before anybody learns whether there is such a source.
    if !is_signed && let Err(refusal) = check_key(&state, &headers).await {
        body::discard(body).await;
        return Err(refusal);
    }
    let bodies = &state.shared.bodies;
    let read = bodies.read(&headers, body).await;
    let (body, _room) = read.map_err(|error| match error {
        BodyError::TooLarge => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("a delivery may have {} bytes", bodies.max()),
        ),
        BodyError::Broken(why) => Problem::new(StatusCode::BAD_REQUEST, "bad_request", why),
    })?;
    let now = state.clock.now().timestamp();
    if is_signed && !signature::verify(&headers, &body, secrets, now) {
        return Err(unsigned());
    }
    let source = found.ok_or_else(|| Problem::not_found("source"))?;
    once_only(state, source, headers, body, !is_signed).await
}

/// Whether a key lets the sender ask for a look at the head.
async fn check_key(state: &WebhookState, headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let (scheme, key) = value
        .and_then(|value| value.split_once(' '))
        .ok_or_else(unsigned)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unsigned());
    }
    let hash = keys::hash(key.trim());
    let found = state.store.use_key(&hash, state.clock.now()).await?;
    let grant = found.ok_or_else(unsigned)?.grant;
    // A repository holds many apps: a key of one app alone doesn't speak for the others.
    if grant.app.is_some() || !grant.allows(Capability::SourceSync, None) {
        return Err(Problem::forbidden(Scope::SyncWrite.as_str()));
    }
    Ok(())
}

/// Answers a delivery that was seen before as it was answered then.
async fn once_only(
    state: WebhookState,
    source: WebhookSource,
    headers: HeaderMap,
    body: Bytes,
    generic: bool,
) -> Result<Answer, Problem> {
    // To its end even where the sender doesn't wait: its answer is to be remembered.
    let done = tokio::spawn(async move {
        let id = delivery::id(&headers);
        let _turn = match &id {
            Some(id) => Some(state.shared.once.turn(source.id, id).await),
            None => None,
        };
        if let Some(id) = &id
            && let Some(answer) = state.store.webhook_answer(source.id, id).await?
            && let Some(answer) = Answer::from_json(&answer)
        {
            return Ok(answer);
        }
        if let Err(wait) = state.shared.rate.take(source.id) {
            return Ok(Answer::too_many(wait));
        }
        let read = delivery::read(&headers, &body, generic);
        let read = read.map_err(|error| Problem::invalid(error.to_string()))?;
        drop(body);
        if !generic {
            let (named, url) = (read.repository.as_deref(), base_url(&headers));
            state.store.set_forge_names(source.id, named, &url).await?;
        }
        let answer = act(&state, &source, read).await?;
        if let Some(id) = &id
            && answer.is_final
        {
            let (now, told) = (state.clock.now(), answer.to_json());
            let kept = state.store.remember_webhook(source.id, id, &told, now);
            if let Err(error) = kept.await {
                tracing::warn!(source = %source.name, %error, "a delivery could not be remembered");
            }
        }
        Ok(answer)
    });
    done.await.map_err(|error| {
        tracing::error!(%error, "a delivery could not be answered");
        Problem::internal()
    })?
}

async fn act(
    state: &WebhookState,
    source: &WebhookSource,
    delivery: Delivery,
) -> Result<Answer, Problem> {
    let name = &source.name;
    let deployer = state.sources.get(name);
    let deployer =
        deployer.ok_or_else(|| Problem::unavailable("this process does not deploy the source"))?;
    match delivery.event {
        Event::Ping => {
            let body = json!({ "outcome": "pong", "source": name });
            Ok(Answer::new(StatusCode::OK, body))
        }
        Event::Push { references } if !references.iter().any(|of| deployer.deploys(of)) => {
            preview(state, &deployer, &references).await
        }
        Event::Push { .. } | Event::Sync => deploy(state, &deployer).await,
        Event::Pull(pull) => plan(state, &deployer, delivery.repository, pull).await,
        Event::Other(event) => Ok(Answer::ignored(
            name,
            &format!("nothing is done about `{event}`"),
        )),
    }
}

/// Fetches and deploys; deliveries that come meanwhile share the next look.
async fn deploy(state: &WebhookState, deployer: &Arc<Deployer>) -> Result<Answer, Problem> {
    let name = &deployer.source().name;
    let under_way = deployer.sync_shared();
    let Ok(done) = tokio::time::timeout(WAIT, under_way).await else {
        let body = json!({
            "outcome": "accepted", "source": name,
            "detail": "the deployment is under way; `picloud history` tells what becomes of it",
        });
        return Ok(Answer::new(StatusCode::ACCEPTED, body));
    };
    let made = match done {
        Ok(made) => made,
        Err(error) => return Ok(not_now(name, &error)),
    };
    let (outcome, deployment) = if let Some(deployment) = made {
        (outcome(deployment.status), Some(deployment))
    } else {
        let source = state.store.source(name).await?;
        let suspended = source.is_some_and(|source| source.suspended);
        let last = state.store.last_deployment(name).await?.map(Arc::new);
        let word = if suspended { "suspended" } else { "unchanged" };
        (word, last)
    };
    let mut body = json!({
        "outcome": outcome, "source": name,
        "commit": deployment.as_ref().map(|deployment| &deployment.commit),
    });
    body["deployment"] = deployment.as_deref().map_or(Value::Null, show_deployment);
    Ok(Answer::new(StatusCode::OK, body))
}

/// Another branch: nothing, or its preview.
async fn preview(
    state: &WebhookState,
    deployer: &Arc<Deployer>,
    references: &[String],
) -> Result<Answer, Problem> {
    let source = deployer.source();
    let is_branch = |of: &String| of.starts_with("refs/heads/");
    let previews =
        references.iter().any(is_branch) && state.previews.are_on(source.id).await.unwrap_or(false);
    if !previews {
        let shown = references.join(", ");
        let why = format!("{shown}: not the branch that is deployed");
        return Ok(Answer::ignored(&source.name, &why));
    }
    // The look that follows brings its preview; also where nobody waits.
    let done = tokio::time::timeout(WAIT, deployer.sync_shared()).await;
    if let Ok(Err(error)) = done {
        return Ok(not_now(&source.name, &error));
    }
    let body = json!({ "outcome": "preview", "source": source.name, "references": references });
    Ok(Answer::new(StatusCode::ACCEPTED, body))
}

/// Plans a pull request and tells its forge; goes on where nobody waits any more.
async fn plan(
    state: &WebhookState,
    deployer: &Arc<Deployer>,
    repository: Option<String>,
    pull: PullEvent,
) -> Result<Answer, Problem> {
    let name = &deployer.source().name;
    let number = pull.number;
    let Some(repository) = repository.filter(|_| deployer.source().forge.is_some()) else {
        let why = format!("pull request {number}: the source has no forge");
        return Ok(Answer::ignored(name, &why));
    };
    let (pulls, asked) = (Arc::clone(&state.pulls), Arc::clone(deployer));
    let under_way = tokio::spawn(async move { pulls.event(&asked, repository, pull).await });
    let answer = |status, outcome: &str, detail: String| {
        let body =
            json!({ "outcome": outcome, "source": name, "pull_request": number, "detail": detail });
        Answer::new(status, body)
    };
    let Ok(done) = tokio::time::timeout(WAIT, under_way).await else {
        let detail = "the plan is being made".to_owned();
        return Ok(answer(StatusCode::ACCEPTED, "accepted", detail));
    };
    let done = done.map_err(|error| {
        tracing::error!(%error, "a pull request could not be planned");
        Problem::internal()
    })?;
    Ok(match done {
        Ok(Reported::Ignored(why)) => answer(
            StatusCode::ACCEPTED,
            "ignored",
            format!("pull request {number}: {why}"),
        ),
        Ok(Reported::Unchanged) => answer(
            StatusCode::OK,
            "unchanged",
            "its head is as it was".to_owned(),
        ),
        Ok(Reported::Closed) => answer(StatusCode::OK, "closed", "it is closed".to_owned()),
        Ok(Reported::Planned { valid, summary }) => {
            let outcome = if valid { "planned" } else { "invalid" };
            answer(StatusCode::OK, outcome, summary)
        }
        Err(error) => Answer {
            is_final: false,
            ..answer(StatusCode::ACCEPTED, retried(&error), error.to_string())
        },
    })
}

fn retried(error: &PullError) -> &'static str {
    if error.is_passing() {
        "retrying"
    } else {
        "failed"
    }
}

/// It is tried again by itself; the same delivery, sent again, is too.
fn not_now(name: &SourceName, error: &Arc<DeployError>) -> Answer {
    let body = json!({ "outcome": "retrying", "source": name, "error": error.to_string() });
    Answer {
        is_final: false,
        ..Answer::new(StatusCode::ACCEPTED, body)
    }
}

fn outcome(status: DeploymentStatus) -> &'static str {
    match status {
        DeploymentStatus::Synced => "deployed",
        other => other.as_str(),
    }
}

fn show_deployment(deployment: &Deployment) -> Value {
    /// Errors that stand in a forge's log; the deployment has them all.
    const SHOWN: usize = 20;
    let errors: Vec<String> = deployment
        .errors
        .iter()
        .take(SHOWN)
        .map(|error| {
            format!(
                "{}:{}:{}: {} {}",
                error.path, error.line, error.column, error.code, error.message
            )
        })
        .collect();
    json!({
        "id": deployment.id,
        "status": deployment.status,
        "commit": deployment.commit,
        "previous_commit": deployment.previous_commit,
        "changes": deployment.changes.len(),
        "errors": errors,
        "duration_ms": deployment.duration_ms,
    })
}
