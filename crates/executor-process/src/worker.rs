//! One process that runs scripts, seen from here.

use std::{
    collections::HashMap,
    io::{self, Read},
    os::unix::net::UnixStream,
    process::Child,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use picloud_shared::{
    AppId, AppSnapshot, AppSpec, Invocation, Outcome, Redactor, Reply,
    app::ScriptKind,
    invocation::{Answer, Cancel, Input},
    run::{RunError, RunErrorKind},
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
        let mut secrets = Redactor::default();
        let until = invocation.deadline + GRACE;
        loop {
            let (message, body) = self.read(until, &invocation.cancel)?;
            match message {
                FromChild::Call { script, call } => {
                    // One handler may run another of its app, and of no other.
                    let handler = app.scripts.get(&script);
                    if handler.is_some_and(|script| script.kind == ScriptKind::Handler) {
                        cx.script = script;
                    }
                    let got = answer(services, &cx, &mut secrets, call, body);
                    let (got, body) = match got {
                        Ok((got, body)) => (Ok(got), body),
                        Err(error) => (Err((error.code, error.message)), Bytes::new()),
                    };
                    self.send(&ToChild::Reply(got), &body)?;
                }
                FromChild::Done(done) => return outcome(*done, body, secrets),
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

fn outcome(done: Done, body: Bytes, secrets: Redactor) -> Result<Outcome, Lost> {
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
        logs: done.logs,
        dropped_logs: done.dropped_logs,
        secrets,
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
