//! What runs log, told while they run: to whoever listens, and at no cost where nobody does.
//!
//! A script never waits for it. Lines that find no room are passed over and counted; the run's
//! record has them all the same, once it has ended.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use picloud_shared::{
    AppId, AppSnapshot, EventSink, LiveEvent, Redactor, RunId, ScriptPath,
    live_event::LogEvent,
    run::LogLine,
    sdk::{LiveLogs, SdkCallCx},
};
use tokio::sync::mpsc;

use crate::recorder::Recorder;

/// Lines that wait to be told.
const CHANNEL: usize = 4_096;
/// How long lines are gathered for one event: an eye sees no difference.
const GATHER: Duration = Duration::from_millis(20);
/// Lines of one event.
const MAX_LINES: usize = 100;
/// Bytes of one event's texts, so that it fits into a notification to other processes.
const MAX_BYTES: usize = 4 << 10;
/// Apps whose secrets are at hand.
const MAX_KNOWN: usize = 1_000;

/// Makes what takes an app's secrets out of texts: all of them, since nobody knows here which of
/// them a run got to know.
pub type SecretsOf = Arc<dyn Fn(&AppSnapshot) -> Redactor + Send + Sync>;

/// Where the lines of running runs go.
pub struct LogTap {
    events: Arc<dyn EventSink>,
    lines: mpsc::Sender<Line>,
    passed_over: Arc<AtomicU64>,
}

/// A line, and whose it is.
struct Line {
    app: Arc<AppSnapshot>,
    run: RunId,
    script: ScriptPath,
    number: usize,
    line: LogLine,
}

/// The other end: what is to be told.
pub struct Tapped {
    lines: mpsc::Receiver<Line>,
}

impl LogTap {
    /// A tap, and what [`LogTap::run`] takes. Lines are told where the recorder tells of runs.
    pub fn new(recorder: &Recorder) -> (Arc<Self>, Tapped) {
        let (sender, lines) = mpsc::channel(CHANNEL);
        let tap = Self {
            events: Arc::clone(&recorder.events),
            lines: sender,
            passed_over: Arc::clone(&recorder.passed_over),
        };
        (Arc::new(tap), Tapped { lines })
    }

    /// Tells of lines, without the secrets in them, for ever.
    pub async fn run(self: Arc<Self>, mut tapped: Tapped, secrets_of: SecretsOf) {
        let mut known: HashMap<AppId, (i64, Redactor)> = HashMap::new();
        let mut batch = Vec::new();
        while tapped.lines.recv_many(&mut batch, CHANNEL).await > 0 {
            tokio::time::sleep(GATHER).await;
            while let Ok(line) = tapped.lines.try_recv() {
                batch.push(line);
            }
            for line in &mut batch {
                clean(line, &mut known, &secrets_of);
            }
            for event in events(batch.drain(..)) {
                self.events.publish(LiveEvent::Log(event));
            }
        }
    }
}

impl LiveLogs for LogTap {
    fn line(&self, cx: &SdkCallCx, number: usize, line: &LogLine) {
        if !self.events.hears_logs() {
            return;
        }
        let line = Line {
            app: Arc::clone(&cx.app),
            run: cx.run,
            script: cx.script.clone(),
            number,
            line: line.clone(),
        };
        if self.lines.try_send(line).is_err() {
            self.passed_over.fetch_add(1, Relaxed);
        }
    }
}

fn clean(line: &mut Line, known: &mut HashMap<AppId, (i64, Redactor)>, secrets_of: &SecretsOf) {
    if known.len() >= MAX_KNOWN {
        known.clear();
    }
    let app = &line.app;
    let (generation, secrets) = known
        .entry(app.id)
        .or_insert_with(|| (app.generation, secrets_of(app)));
    if *generation != app.generation {
        (*generation, *secrets) = (app.generation, secrets_of(app));
    }
    if secrets.is_empty() {
        return;
    }
    secrets.replace(&mut line.line.message);
    if let Some(fields) = &mut line.line.fields {
        secrets.json(fields);
    }
}

/// Lines as events: those of a run that follow one another stand together.
fn events(lines: impl Iterator<Item = Line>) -> Vec<LogEvent> {
    let mut done = Vec::new();
    let mut open: HashMap<RunId, (usize, LogEvent)> = HashMap::new();
    for line in lines {
        let size = line.line.message.len()
            + line
                .line
                .fields
                .as_ref()
                .map_or(0, |fields| fields.to_string().len());
        if let Some((bytes, event)) = open.get_mut(&line.run) {
            let follows = event.end() == line.number && event.script == line.script;
            if follows && event.lines.len() < MAX_LINES && *bytes + size <= MAX_BYTES {
                *bytes += size;
                event.lines.push(line.line);
                continue;
            }
        }
        let run = line.run;
        let event = LogEvent {
            run,
            app: line.app.spec.name.clone(),
            script: line.script,
            first: line.number,
            lines: vec![line.line],
            more: 0,
        };
        done.extend(open.insert(run, (size, event)).map(|(_, full)| full));
    }
    done.extend(open.into_values().map(|(_, event)| event));
    done
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Instant};

    use parking_lot::Mutex;
    use picloud_shared::{
        AppSpec, Clock, Principal, SourceId, SystemClock, run::LogLevel, sdk::SecretValue,
    };

    use super::*;
    use crate::recorder::RecorderOptions;

    #[derive(Default)]
    struct Heard(Mutex<Vec<LogEvent>>);

    impl EventSink for Heard {
        fn publish(&self, event: LiveEvent) {
            let LiveEvent::Log(event) = event else {
                panic!("{event:?}");
            };
            self.0.lock().push(event);
        }

        fn hears_logs(&self) -> bool {
            true
        }
    }

    fn caller(run: u128) -> SdkCallCx {
        SdkCallCx {
            app: Arc::new(AppSnapshot {
                id: AppId::default(),
                source: SourceId::default(),
                generation: 1,
                pinned_commit: None,
                spec: Arc::new(AppSpec::empty("shop".parse().expect("a name"), "")),
                scripts: BTreeMap::new(),
            }),
            script: "scripts/a.rhai".parse().expect("a path"),
            run: RunId(uuid::Uuid::from_u128(run)),
            principal: Principal::App,
            deadline: Instant::now(),
            commit: "0".repeat(40).parse().expect("an id"),
            chain: Vec::new(),
            trigger: None,
        }
    }

    #[tokio::test]
    async fn lines_are_told_in_their_order_without_secrets_and_never_waited_for() {
        let heard = Arc::new(Heard::default());
        let nobodys: SecretsOf = Arc::new(|_| Redactor::default());
        let (recorder, _pending) = Recorder::new(
            RecorderOptions::default(),
            Arc::new(SystemClock),
            Arc::clone(&heard) as _,
            nobodys,
        );
        let (tap, tapped) = LogTap::new(&recorder);
        let (one, two) = (caller(1), caller(2));
        let line = |message: &str| LogLine {
            at: SystemClock.now(),
            level: LogLevel::Info,
            message: message.to_owned(),
            fields: Some(serde_json::json!({ "with": message })),
        };
        tap.line(&one, 0, &line("a"));
        tap.line(&two, 0, &line("b"));
        tap.line(&one, 1, &line("it is open-sesame"));
        // One that is larger than an event; and more of them than there is room for.
        tap.line(&one, 2, &line(&"x".repeat(MAX_BYTES)));
        for number in 3..CHANNEL + 9 {
            tap.line(&one, number, &line("y"));
        }
        assert_eq!(recorder.passed_over.load(Relaxed), 10);
        let secrets: SecretsOf = Arc::new(|_| {
            let mut redactor = Redactor::default();
            redactor.learn(&SecretValue("open-sesame".into()));
            redactor
        });
        tokio::spawn(Arc::clone(&tap).run(tapped, secrets));
        let told = |of: &Heard| {
            of.0.lock()
                .iter()
                .map(|event| event.lines.len())
                .sum::<usize>()
        };
        while told(&heard) < CHANNEL {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let events = heard.0.lock();
        let of = |run: u128| {
            let of = events
                .iter()
                .filter(move |event| event.run.0.as_u128() == run);
            of.collect::<Vec<_>>()
        };
        assert_eq!(of(2).len(), 1);
        let of_one = of(1);
        assert_eq!(of_one.last().map(|event| event.end()), Some(CHANNEL - 1));
        assert_eq!(
            (
                of_one[0].lines.len(),
                of_one[1].lines.len(),
                of_one[2].first
            ),
            (2, 1, 3)
        );
        assert!(of_one.windows(2).all(|two| two[0].end() == two[1].first));
        assert_eq!(of_one[0].lines[1].message, "it is [redacted]");
        assert_eq!(
            of_one[0].lines[1].fields,
            Some(serde_json::json!({ "with": "it is [redacted]" }))
        );
    }
}
