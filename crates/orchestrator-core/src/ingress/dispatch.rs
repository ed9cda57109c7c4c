//! From a matched route to an answer: admission, the run, its count and its record.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use picloud_shared::{
    Invocation, Outcome, Principal, RunId, RunRecord, RunSink, RunStatus,
    invocation::{Answer, Cancel, Input, RequestData},
    run::{RunError, RunErrorKind, RunKind},
};
use serde_json::json;

use super::{AnyBody, Ingress, body, cors, whole};
use crate::{
    holder::ServedApp,
    problem::{self, Whole},
    routes::Route,
};

const RUN: HeaderName = HeaderName::from_static("x-picloud-run");
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

/// What a record keeps of a request.
struct Asked {
    method: http::Method,
    path: String,
}

impl Ingress {
    pub(super) async fn dispatch(
        &self,
        app: &Arc<ServedApp>,
        route: &Route,
        params: Vec<(Arc<str>, String)>,
        request: Request<Incoming>,
        offset: usize,
        peer: SocketAddr,
    ) -> Response<AnyBody> {
        let client_ip = self.client(&request, peer);
        let (parts, incoming) = request.into_parts();
        let origin = route
            .spec
            .cors
            .as_ref()
            .and_then(|_| parts.headers.get(header::ORIGIN).cloned());
        let mut response =
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
                    self.run(app, route, data).await
                }
            };
        cors::apply(
            route.spec.cors.as_ref(),
            origin.as_ref(),
            response.headers_mut(),
        );
        whole(response)
    }

    async fn run(&self, app: &Arc<ServedApp>, route: &Route, data: RequestData) -> Response<Whole> {
        let run = RunId(self.options.clock.new_id());
        let asked = Asked {
            method: data.method.clone(),
            path: data.path().to_owned(),
        };
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
                input: Input::Request(Box::new(data)),
                principal: Principal::App,
                cause: None,
                chain: Vec::new(),
                cancel: Cancel::never(),
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
        asked: &Asked,
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
            Ok(Answer::Json(_)) => failure(RunErrorKind::Answer, id),
            Err(error) => failure(error.kind, id),
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
        response
    }

    #[expect(clippy::too_many_arguments, reason = "a record tells of all of them")]
    fn record(
        &self,
        app: &ServedApp,
        route: &Route,
        run: RunId,
        asked: &Asked,
        duration: Duration,
        outcome: Outcome,
        answered: StatusCode,
    ) -> RunRecord {
        let status = outcome.status();
        let elapsed = chrono::TimeDelta::from_std(duration).unwrap_or_default();
        RunRecord {
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
            input: json!({ "method": asked.method.as_str(), "path": asked.path, "status": answered.as_u16() }),
        }
    }
}

const fn uuid_length() -> usize {
    36
}

/// What a client is told of a run that did not end well: the kind, never the message.
fn failure(kind: RunErrorKind, run: &str) -> Response<Whole> {
    let server = StatusCode::INTERNAL_SERVER_ERROR;
    let told = |status, code, detail: &str, more: &[(&str, &str)]| {
        let fields: Vec<(&str, &str)> = [("run", run)]
            .into_iter()
            .chain(more.iter().copied())
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
        RunErrorKind::Unavailable => {
            unavailable("unavailable", "something that the script needs is away")
        }
        RunErrorKind::Script
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
