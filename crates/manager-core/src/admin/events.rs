//! What happens, as it happens: `text/event-stream`.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{Query, State},
    http::{HeaderMap, HeaderValue},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use chrono::{DateTime, Utc};
use futures_util::stream;
use picloud_shared::{AppName, KeyId, LiveEvent, RunId, Scope, live_event::LogEvent};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, watch};
use uuid::Uuid;

use super::{
    AdminState,
    access::{Authorized, EventsView},
    answer::{Answer, Problem},
};
use crate::events::{Heard, HearsLogs, Listener, Told};

/// How often a silent stream shows that it is alive: proxies cut what is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When a browser tries again after its connection was lost.
const RETRY: Duration = Duration::from_secs(2);
/// Runs of which a stream knows how many of their lines it told.
const KNOWN_RUNS: usize = 4_096;

#[derive(Deserialize)]
pub(super) struct Filter {
    app: Option<String>,
    /// For clients that cannot send the header.
    last_event_id: Option<String>,
}

/// A stream that is open.
struct Stream {
    state: AdminState,
    listener: Listener,
    /// The only app whose events are wanted, or may be seen.
    app: Option<AppName>,
    /// Whether runs and their logs may be seen; lines are told as they are written then.
    runs: Option<HearsLogs>,
    /// How many lines of which runs were told. Ids of runs rise with time.
    told_lines: BTreeMap<RunId, usize>,
    key: KeyId,
    session: Option<[u8; 32]>,
    ends_at: Option<DateTime<Utc>>,
    access: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
    /// What was heard and isn't sent yet, the next one last.
    waiting: Vec<Event>,
    _permit: OwnedSemaphorePermit,
}

pub(super) async fn stream(
    State(state): State<AdminState>,
    caller: Authorized<EventsView>,
    Query(filter): Query<Filter>,
    headers: HeaderMap,
) -> Answer<Response> {
    let app = caller.app_filter(&state, filter.app.as_deref()).await?;
    let app = app.ok_or_else(|| Problem::not_found("app"))?;
    let permit = Arc::clone(&state.kept.streams).try_acquire_owned();
    let permit = permit.map_err(|_| Problem::unavailable("too many streams of events are open"))?;
    let header = headers.get("last-event-id");
    let last = header
        .and_then(|value| value.to_str().ok())
        .or(filter.last_event_id.as_deref());
    // An id that is none of ours: the client has seen nothing that we know of.
    let after = last.map(|id| id.parse().unwrap_or(Uuid::nil()));
    let mut access = state.access.clone();
    access.mark_unchanged();
    let stop = state.stop.clone();
    let hello = Event::default().retry(RETRY).comment("listening");
    let mut scopes = caller.grant.scopes.iter();
    let runs = scopes.any(|scope| matches!(scope, Scope::RunRead | Scope::InstanceAdmin));
    let opened = Stream {
        listener: state.events.listen(after),
        app,
        runs: runs.then(|| state.events.hear_logs()),
        told_lines: BTreeMap::new(),
        key: caller.grant.id,
        session: caller.session,
        ends_at: caller.ends_at,
        access,
        stop,
        waiting: vec![hello],
        state,
        _permit: permit,
    };
    let events = stream::unfold(opened, |mut opened| async move {
        let event = opened.next().await?;
        Some((Ok::<_, Infallible>(event), opened))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // Asks proxies (nginx) not to gather what is to be seen at once.
    let plain = HeaderValue::from_static("no");
    response.headers_mut().insert("x-accel-buffering", plain);
    Ok(response)
}

/// Waits until the server is to end.
async fn ended(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone is a server that ends, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Stream {
    /// The next event; `None` where the stream ends.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop() {
                return Some(event);
            }
            let left = self
                .ends_at
                .map(|end| (end - self.state.clock.now()).to_std().unwrap_or_default());
            let over = async move {
                match left {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = ended(&mut self.stop) => return None,
                () = over => return None,
                // A sender that is gone is a server that ends.
                changed = self.access.changed() => {
                    if changed.is_err() || !self.may_go_on().await {
                        return None;
                    }
                }
                heard = self.listener.next() => self.take(heard),
            }
        }
    }

    /// Whether key and session are good still. Where the database can't say, it is asked again:
    /// its return is told as a change.
    async fn may_go_on(&self) -> bool {
        let (store, now) = (&self.state.store, self.state.clock.now());
        let good = match &self.session {
            Some(hash) => store
                .use_session(hash, now)
                .await
                .map(|session| session.is_some()),
            None => store.key_is_good(self.key, now).await,
        };
        good.unwrap_or_else(|error| error.is_unavailable())
    }

    fn take(&mut self, heard: Heard) {
        match heard {
            Heard::Missed => {
                let told = Event::default().event("missed");
                self.waiting.push(told.data("{}"));
            }
            Heard::Events(events) => {
                let mut shown: Vec<Event> = Vec::new();
                for told in &events {
                    shown.extend(self.show(told));
                }
                shown.reverse();
                self.waiting = shown;
            }
        }
    }

    /// Each line is told once: while its run goes on, or with the run's record.
    fn news(&mut self, logged: LogEvent) -> Option<LogEvent> {
        let (run, end) = (logged.run, logged.end());
        let told = self.told_lines.entry(run).or_default();
        let before = std::mem::replace(told, end.max(*told));
        if self.told_lines.len() > KNOWN_RUNS {
            self.told_lines.pop_first();
        }
        logged.after(before)
    }

    fn show(&mut self, told: &Told) -> Option<Event> {
        let of_runs = matches!(*told.event, LiveEvent::Run(_) | LiveEvent::Log(_));
        if of_runs && self.runs.is_none() {
            return None;
        }
        let mut event = match &self.app {
            None => LiveEvent::clone(&told.event),
            Some(app) => told.event.confined(app)?,
        };
        if let LiveEvent::Log(logged) = event {
            event = LiveEvent::Log(self.news(logged)?);
        }
        let mut value = serde_json::to_value(&event).ok()?;
        let data = value.get_mut("data").map(Value::take)?;
        Some(
            Event::default()
                .event(event.name())
                .id(told.id.to_string())
                .data(data.to_string()),
        )
    }
}
