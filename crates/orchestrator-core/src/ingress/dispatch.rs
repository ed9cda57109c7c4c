//! From a matched route to an answer: admission, the run, its count and its record.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use picloud_shared::{
    EventId, Invocation, Outcome, Principal, RunId, RunRecord, RunSink, RunStatus,
    app::{RouteAuth, RouteMode},
    invocation::{Answer, Input, RequestData},
    run::{RunError, RunErrorKind, RunKind},
};
use picloud_store::outbox::{Idempotency, NewEvent};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{AnyBody, Client, Ingress, body, cors, gate, whole};
use crate::{
    async_request, dev,
    holder::ServedApp,
    problem::{self, Whole},
    request_record,
    routes::Route,
};

const RUN: HeaderName = HeaderName::from_static("x-picloud-run");
/// Characters of an `Idempotency-Key`.
const MAX_IDEMPOTENCY_KEY: usize = 255;
const COMMIT: HeaderName = HeaderName::from_static("x-picloud-commit");

/// A place among the runs; given back when it is dropped.
struct Slot<'a>(&'a AtomicU32);

impl<'a> Slot<'a> {
    fn take(counter: &'a AtomicU32, most: u32) -> Option<Self> {
        let slot = Self(counter);
        (counter.fetch_add(1, Relaxed) < most).then_some(slot)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Ingress {
    pub(super) async fn dispatch(
        &self,
        app: &Arc<ServedApp>,
        route: &Route,
        params: Vec<(Arc<str>, String)>,
        request: Request<Incoming>,
        offset: usize,
        client: &Client,
    ) -> Response<AnyBody> {
        let client_ip = self.client(&request, client.peer);
        let (parts, incoming) = request.into_parts();
        let origin = route
            .spec
            .cors
            .as_ref()
            .and_then(|_| parts.headers.get(header::ORIGIN).cloned());
        let mut response = match self.admit(app, route, &parts.headers, client_ip).await {
            Err(refused) => *refused,
            Ok(principal) => {
                match body::read(incoming, &parts.headers, route.limits.request_body).await {
                    Err(refused) => *refused,
                    Ok(body) => {
                        let data = RequestData {
                            method: parts.method,
                            uri: parts.uri,
                            path_offset: offset,
                            route: Arc::clone(&route.pattern),
                            params,
                            headers: parts.headers,
                            body,
                            client_ip,
                        };
                        self.signed(app, route, data, principal, client).await
                    }
                }
            }
        };
        cors::apply(
            route.spec.cors.as_ref(),
            origin.as_ref(),
            response.headers_mut(),
        );
        whole(response)
    }

    /// Whether the route takes a request, and on whose behalf, before its body is read.
    async fn admit(
        &self,
        app: &Arc<ServedApp>,
        route: &Route,
        headers: &HeaderMap,
        client: IpAddr,
    ) -> Result<Principal, Box<Response<Whole>>> {
        if route.spec.rate_limit.is_some() {
            let refused = app
                .stats
                .rates
                .check(route.spec.label(), client, route.spec.rate_limit);
            if let Some(refused) = refused {
                return Err(Box::new(refused));
            }
        }
        if route.spec.auth != RouteAuth::Key {
            return Ok(Principal::App);
        }
        let options = &self.options;
        self.keys
            .authorize(
                &options.store,
                headers,
                &app.snapshot.spec.name,
                options.clock.now(),
            )
            .await
    }

    async fn signed(
        &self,
        app: &Arc<ServedApp>,
        route: &Route,
        data: RequestData,
        principal: Principal,
        client: &Client,
    ) -> Response<Whole> {
        let refused = gate::check_signature(
            &route.spec.auth,
            &self.options.secrets,
            &app.snapshot.spec,
            &data.headers,
            &data.body,
            self.options.clock.now(),
        );
        match (refused, route.spec.mode) {
            (Some(refused), _) => refused,
            (None, RouteMode::Sync) => self.run(app, route, data, principal, client).await,
            (None, RouteMode::Async) => self.enqueue(app, route, &data, &principal).await,
        }
    }

    /// Hands a request over to the outbox.
    async fn enqueue(
        &self,
        app: &Arc<ServedApp>,
        route: &Route,
        data: &RequestData,
        principal: &Principal,
    ) -> Response<Whole> {
        let now = self.options.clock.now();
        let payload = async_request::write(data);
        let key = data.headers.get("idempotency-key");
        let key = key.map(|key| key.to_str().unwrap_or_default());
        if key.is_some_and(|key| key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY) {
            let detail = "Idempotency-Key must have 1 to 255 printable characters";
            return problem::problem(StatusCode::BAD_REQUEST, "bad_request", detail);
        }
        let label = route.spec.label();
        let digest: [u8; 32] = Sha256::new()
            .chain_update(data.method.as_str())
            .chain_update([0])
            .chain_update(data.uri.to_string())
            .chain_update([0])
            .chain_update(&data.body)
            .finalize()
            .into();
        let event = NewEvent {
            key: match principal {
                Principal::App => None,
                Principal::Key(grant) => Some(grant.id),
            },
            ..NewEvent::new(
                EventId(self.options.clock.new_id()),
                app.snapshot.id,
                "http",
                route.spec.script.as_str(),
                &payload,
                now,
            )
        };
        let once = key.map(|key| Idempotency {
            route: &label,
            key,
            digest,
        });
        let id = match self.options.store.enqueue_request(&event, once).await {
            Ok(Some(id)) => id,
            Ok(None) => {
                let detail = "the Idempotency-Key was used for another request";
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                return problem::problem(status, "idempotency_mismatch", detail);
            }
            Err(error) => {
                tracing::warn!(%error, "a request could not be handed over");
                let mut buffer = [0_u8; uuid_length()];
                let id = event.id.0.hyphenated().encode_lower(&mut buffer);
                return failure(RunErrorKind::Unavailable, id, None);
            }
        };
        let body = json!({ "run": id, "status": "accepted" }).to_string();
        let mut response = Response::new(Whole::new(body.into()));
        *response.status_mut() = StatusCode::ACCEPTED;
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, kind);
        if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
            headers.insert(RUN, value);
        }
        headers.insert(COMMIT, app.commit_header.clone());
        if let Some(notes) = &self.options.dev {
            notes.mark(&app.snapshot.spec.name, headers);
        }
        response
    }

    async fn run(
        &self,
        app: &Arc<ServedApp>,
        route: &Route,
        data: RequestData,
        principal: Principal,
        client: &Client,
    ) -> Response<Whole> {
        let run = RunId(self.options.clock.new_id());
        let asked = Arc::new(data);
        let began = Instant::now();
        let in_node = Slot::take(&self.running, self.options.max_runs);
        let in_app = Slot::take(&app.stats.in_flight, app.limits.concurrency);
        let outcome = if in_node.is_some() && in_app.is_some() {
            let invocation = Invocation {
                run,
                app: Arc::clone(&app.snapshot),
                commit: app.commit.clone(),
                script: Arc::clone(&route.script),
                limits: route.limits.clone(),
                deadline: began + route.limits.timeout(),
                input: Input::Request(Arc::clone(&asked)),
                principal,
                cause: None,
                chain: Vec::new(),
                cancel: client.cancel.clone(),
            };
            self.options.executor.execute(invocation).await
        } else {
            Outcome::refused(overloaded(in_app.is_none()))
        };
        drop((in_node, in_app));
        self.finish(app, route, run, &asked, began.elapsed(), outcome)
    }

    fn finish(
        &self,
        app: &ServedApp,
        route: &Route,
        run: RunId,
        asked: &RequestData,
        duration: Duration,
        mut outcome: Outcome,
    ) -> Response<Whole> {
        let status = outcome.status();
        let recorder = &self.options.recorder;
        let wanted = recorder.count(&app.stats, RunKind::Http, status, duration);
        let mut id = [0_u8; uuid_length()];
        let id = run.0.hyphenated().encode_lower(&mut id);
        let mut response = match &mut outcome.result {
            Ok(Answer::Http(reply)) => {
                let mut response = Response::new(Whole::new(std::mem::take(&mut reply.body)));
                *response.status_mut() = reply.status;
                *response.headers_mut() = std::mem::take(&mut reply.headers);
                response
            }
            Ok(Answer::Json(_)) => failure(RunErrorKind::Answer, id, None),
            Err(error) => {
                let why = self.options.dev.is_some().then(|| dev::explained(error));
                failure(error.kind, id, why.as_ref())
            }
        };
        if wanted {
            recorder.record(self.record(
                app,
                route,
                run,
                asked,
                duration,
                outcome,
                response.status(),
            ));
        }
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(id) {
            headers.insert(RUN, value);
        }
        headers.insert(COMMIT, app.commit_header.clone());
        if let Some(notes) = &self.options.dev {
            notes.mark(&app.snapshot.spec.name, headers);
        }
        response
    }

    #[expect(clippy::too_many_arguments, reason = "a record tells of all of them")]
    fn record(
        &self,
        app: &ServedApp,
        route: &Route,
        run: RunId,
        asked: &RequestData,
        duration: Duration,
        outcome: Outcome,
        answered: StatusCode,
    ) -> RunRecord {
        let status = outcome.status();
        let elapsed = chrono::TimeDelta::from_std(duration).unwrap_or_default();
        let mut input = request_record::write(asked, Some(answered));
        outcome.secrets.json(&mut input);
        let mut record = RunRecord {
            id: run,
            app_id: app.snapshot.id,
            app: app.snapshot.spec.name.clone(),
            script: route.script.path.clone(),
            kind: RunKind::Http,
            trigger: None,
            route: Some(route.spec.label()),
            commit: app.commit.clone(),
            attempt: 1,
            status,
            started_at: self.options.clock.now() - elapsed,
            duration_ms: if status == RunStatus::Rejected {
                0.0
            } else {
                duration.as_secs_f64() * 1000.0
            },
            queue_ms: 0.0,
            operations: outcome.operations,
            peak_memory: outcome.peak_memory,
            error: outcome.result.err().map(|error| *error),
            logs: outcome.logs,
            dropped_logs: outcome.dropped_logs,
            cause: None,
            input,
        };
        self.options.recorder.clean(&app.snapshot, &mut record);
        record
    }
}

const fn uuid_length() -> usize {
    36
}

/// What a client is told of a run that did not end well: the kind, and the reason under
/// `picloud dev` alone.
fn failure(kind: RunErrorKind, run: &str, why: Option<&Value>) -> Response<Whole> {
    let server = StatusCode::INTERNAL_SERVER_ERROR;
    let told = |status, code, detail: &str, more: &[(&str, &str)]| {
        let fields: Vec<(&str, Value)> = [("run", run)]
            .into_iter()
            .chain(more.iter().copied())
            .map(|(name, value)| (name, value.into()))
            .chain(why.map(|why| ("dev", why.clone())))
            .collect();
        problem::with_fields(status, code, detail, &fields)
    };
    let unavailable = |code, detail| {
        let mut response = told(StatusCode::SERVICE_UNAVAILABLE, code, detail, &[]);
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        response
    };
    match kind {
        RunErrorKind::Timeout => told(
            StatusCode::GATEWAY_TIMEOUT,
            "timeout",
            "the script took too long",
            &[("limit", "timeout")],
        ),
        RunErrorKind::Memory
        | RunErrorKind::Operations
        | RunErrorKind::Depth
        | RunErrorKind::Output => {
            let limit = kind.as_str();
            told(
                server,
                "script_limit",
                &format!("the script exceeded its limit on {limit}"),
                &[("limit", limit)],
            )
        }
        RunErrorKind::Overloaded => {
            unavailable("overloaded", "there are too many runs at the moment")
        }
        RunErrorKind::HeldBack => {
            let detail = "the script crashed several times and is held back for a while";
            let mut response = unavailable("crashed", detail);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
            response
        }
        RunErrorKind::Unavailable => {
            unavailable("unavailable", "something that the script needs is away")
        }
        RunErrorKind::Script
        | RunErrorKind::Compile
        | RunErrorKind::Answer
        | RunErrorKind::Crashed
        | RunErrorKind::Cancelled => told(
            server,
            "script_error",
            "the script failed; its owner finds the reason in the run's record",
            &[],
        ),
    }
}

fn overloaded(by_app: bool) -> RunError {
    let message = if by_app {
        "the app has limits.concurrency runs already"
    } else {
        "the node has all the runs that it takes"
    };
    RunError {
        kind: RunErrorKind::Overloaded,
        message: message.to_owned(),
        script: None,
        line: None,
        column: None,
        trace: Vec::new(),
    }
}
