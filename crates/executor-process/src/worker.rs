//! One process that runs scripts, seen from here.

use std::{
    borrow::Cow,
    collections::HashMap,
    io::{self, Read},
    os::unix::net::UnixStream,
    process::Child,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use picloud_shared::{
    AppId, AppSnapshot, AppSpec, Invocation, Outcome, Redactor, Reply, ScriptPath,
    app::ScriptKind,
    invocation::{Answer, Cancel, Input},
    run::{LogLine, RunError, RunErrorKind},
    sdk::{SdkCallCx, Services},
};

use crate::{
    answer::answer,
    frame,
    message::{Done, DoneAnswer, FromChild, Headers, Run, RunInput, ToChild, status},
    spawn::Spawned,
};

/// How long after its deadline a run is let be: by then the process should have stopped it.
const GRACE: Duration = Duration::from_millis(150);
/// How often somebody looks whether the time is up, or nobody waits any more.
const LOOK: Duration = Duration::from_millis(20);
/// How long a process may take to start.
const START: Duration = Duration::from_secs(10);
/// Apps that a process knows; one that knows more is replaced.
const MAX_APPS: usize = 64;
/// Lines of a run that are kept, and bytes of them.
const MAX_LINES: usize = 10_000;
const MAX_LOG_BYTES: usize = 1 << 20;
/// Runs after which a process is replaced.
const MAX_RUNS: u32 = 20_000;

/// Why a run's process is no more.
pub(crate) enum Lost {
    /// It died, or said what makes no sense.
    Died(String),
    /// It did not stop in time.
    Hung,
    /// Nobody waited for the run any more.
    Cancelled,
}

pub(crate) struct Worker {
    socket: UnixStream,
    pub(crate) child: Child,
    /// What the largest of its runs may hold.
    pub(crate) memory: u64,
    /// The apps that it was told, with their generations.
    apps: HashMap<AppId, i64>,
    runs: u32,
}

impl Worker {
    /// Waits until it is confined.
    pub(crate) fn greet(spawned: Spawned, memory: u64) -> Result<Self, (Child, Lost)> {
        let mut worker = Self {
            socket: spawned.socket,
            child: spawned.child,
            memory,
            apps: HashMap::new(),
            runs: 0,
        };
        let ready = worker
            .socket
            .set_read_timeout(Some(LOOK))
            .and_then(|()| worker.socket.set_write_timeout(Some(START)))
            .map_err(|error| Lost::Died(error.to_string()));
        let ready = ready.and_then(|()| worker.read(Instant::now() + START, &Cancel::never()));
        match ready {
            Ok((FromChild::Ready, _)) => Ok(worker),
            Ok(_) => Err((
                worker.child,
                Lost::Died("it did not say `ready`".to_owned()),
            )),
            Err(lost) => Err((worker.child, lost)),
        }
    }

    pub(crate) fn knows(&self, app: &AppSnapshot) -> bool {
        self.apps.get(&app.id) == Some(&app.generation)
    }

    /// Whether it had better be replaced.
    pub(crate) fn is_worn(&self) -> bool {
        self.runs >= MAX_RUNS || self.apps.len() > MAX_APPS
    }

    /// Runs one script; whatever it asks for is done here.
    pub(crate) fn run(
        &mut self,
        invocation: &Invocation,
        services: &Services,
        heard: &mut Heard,
    ) -> Result<Outcome, Lost> {
        self.runs += 1;
        let app = &invocation.app;
        if !self.knows(app) {
            self.send(&ToChild::App(Box::new(told(app))), &[])?;
            self.apps.insert(app.id, app.generation);
        }
        let (run, body) = told_run(invocation);
        self.send(&ToChild::Run(Box::new(run)), &body)?;
        let mut cx = caller(invocation);
        let until = invocation.deadline + GRACE;
        // One handler may run another of its app, and of no other.
        let is_handler = |script: &ScriptPath| {
            let script = app.scripts.get(script);
            script.is_some_and(|script| script.kind == ScriptKind::Handler)
        };
        loop {
            let (message, body) = self.read(until, &invocation.cancel)?;
            match message {
                FromChild::Call { script, call } => {
                    if is_handler(&script) {
                        cx.script = script;
                    }
                    let got = answer(services, &cx, &mut heard.secrets, call, body);
                    let (got, body) = match got {
                        Ok((got, body)) => (Ok(got), body),
                        Err(error) => (Err((error.code, error.message)), Bytes::new()),
                    };
                    self.send(&ToChild::Reply(got), &body)?;
                }
                FromChild::Log { script, line } => {
                    if is_handler(&script) {
                        cx.script = script;
                    }
                    // It is talkative, which costs it its time.
                    if Instant::now() >= until {
                        return Err(Lost::Hung);
                    }
                    heard.line(services, &cx, line);
                }
                FromChild::Done(done) => return outcome(*done, body),
                FromChild::Ready => return Err(Lost::Died("it started twice".to_owned())),
            }
        }
    }

    fn send(&mut self, message: &ToChild, body: &[u8]) -> Result<(), Lost> {
        frame::write(&mut self.socket, message, body).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Lost::Hung,
            _ => Lost::Died(error.to_string()),
        })
    }

    fn read(&mut self, until: Instant, cancel: &Cancel) -> Result<(FromChild, Bytes), Lost> {
        let mut reader = Patient {
            socket: &self.socket,
            until,
            cancel,
            lost: None,
        };
        let read = frame::read(&mut reader);
        read.map_err(|error| reader.lost.unwrap_or_else(|| Lost::Died(error.to_string())))
    }
}

/// What was heard of a run so far: it is kept, whatever becomes of its process.
#[derive(Default)]
pub(crate) struct Heard {
    secrets: Redactor,
    logs: Vec<LogLine>,
    bytes: usize,
    dropped: u64,
}

impl Heard {
    fn line(&mut self, services: &Services, cx: &SdkCallCx, line: LogLine) {
        let fields = line.fields.as_ref().map_or(0, |map| map.to_string().len());
        self.bytes += line.message.len() + fields;
        // The process holds itself to less than that.
        if self.logs.len() >= MAX_LINES || self.bytes > MAX_LOG_BYTES {
            self.dropped += 1;
            return;
        }
        if let Some(live) = &services.live_logs {
            live.line(cx, self.logs.len(), &line);
        }
        self.logs.push(line);
    }

    /// Puts it into the outcome, without the secrets that the script got to know.
    pub(crate) fn into_outcome(mut self, mut outcome: Outcome) -> Outcome {
        if !self.secrets.is_empty() {
            for line in &mut self.logs {
                if let Cow::Owned(clean) = self.secrets.text(&line.message) {
                    line.message = clean;
                }
                if let Some(fields) = &mut line.fields {
                    self.secrets.json(fields);
                }
            }
        }
        outcome.logs = self.logs;
        outcome.dropped_logs += self.dropped;
        outcome.secrets = self.secrets;
        outcome
    }
}

/// Reads on until the time is up, or nobody waits any more.
struct Patient<'a> {
    socket: &'a UnixStream,
    until: Instant,
    cancel: &'a Cancel,
    lost: Option<Lost>,
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket.read(buffer) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    if Instant::now() >= self.until {
                        self.lost = Some(Lost::Hung);
                    } else if self.cancel.is_raised() {
                        self.lost = Some(Lost::Cancelled);
                    } else {
                        continue;
                    }
                    return Err(io::Error::other("the process is given up"));
                }
                read => return read,
            }
        }
    }
}

/// An app, without what its scripts never see.
fn told(app: &AppSnapshot) -> AppSnapshot {
    let mut spec = AppSpec::empty(app.spec.name.clone(), app.spec.dir.clone());
    spec.env = app.spec.env.clone();
    AppSnapshot {
        spec: Arc::new(spec),
        ..app.clone()
    }
}

fn told_run(invocation: &Invocation) -> (Run, Bytes) {
    let mut body = Bytes::new();
    let input = match &invocation.input {
        Input::Event(event) => RunInput::Event(event.clone()),
        Input::Request(data) => {
            body = data.body.clone();
            RunInput::Request {
                method: data.method.as_str().to_owned(),
                uri: data.uri.to_string(),
                path_offset: data.path_offset,
                route: data.route.to_string(),
                params: data
                    .params
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.clone()))
                    .collect(),
                headers: Headers::of(&data.headers),
                client_ip: data.client_ip,
            }
        }
    };
    let left = invocation.deadline - Instant::now();
    let run = Run {
        id: invocation.run,
        app: invocation.app.id,
        commit: invocation.commit.clone(),
        script: invocation.script.path.clone(),
        limits: invocation.limits.clone(),
        left_us: u64::try_from(left.as_micros()).unwrap_or(u64::MAX),
        input,
        cause: invocation.cause,
        chain: invocation.chain.clone(),
    };
    (run, body)
}

fn caller(invocation: &Invocation) -> SdkCallCx {
    SdkCallCx {
        app: Arc::clone(&invocation.app),
        script: invocation.script.path.clone(),
        run: invocation.run,
        principal: invocation.principal.clone(),
        deadline: invocation.deadline,
        commit: invocation.commit.clone(),
        chain: invocation.chain.clone(),
        trigger: match &invocation.input {
            Input::Event(event) => event.trigger.clone(),
            Input::Request(_) => None,
        },
    }
}

/// The outcome, without what was heard of the run on its way.
fn outcome(done: Done, body: Bytes) -> Result<Outcome, Lost> {
    let nonsense = || Lost::Died("its answer makes no sense".to_owned());
    let result = match done.result {
        Err(error) => Err(error),
        Ok(DoneAnswer::Json(value)) => Ok(Answer::Json(value)),
        Ok(DoneAnswer::Http {
            status: number,
            headers,
        }) => Ok(Answer::Http(Reply {
            status: status(number).ok_or_else(nonsense)?,
            headers: headers.parse().ok_or_else(nonsense)?,
            body,
        })),
    };
    Ok(Outcome {
        result,
        operations: done.operations,
        peak_memory: done.peak_memory,
        logs: Vec::new(),
        dropped_logs: done.dropped_logs,
        secrets: Redactor::default(),
    })
}

/// The error of a run whose process is no more.
pub(crate) fn lost_error(lost: &Lost, invocation: &Invocation) -> RunError {
    let (kind, message) = match lost {
        Lost::Died(reason) => (
            RunErrorKind::Crashed,
            format!("the process that ran the script died: {reason}"),
        ),
        Lost::Hung => (
            RunErrorKind::Timeout,
            "the run took longer than limits.timeout, and its process was ended".to_owned(),
        ),
        Lost::Cancelled => (
            RunErrorKind::Cancelled,
            "nobody waited for the run any more".to_owned(),
        ),
    };
    RunError {
        kind,
        message,
        script: Some(invocation.script.path.clone()),
        line: None,
        column: None,
        trace: Vec::new(),
    }
}
