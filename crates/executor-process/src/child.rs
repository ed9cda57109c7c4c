//! The process that runs scripts: one at a time, until its socket is closed.

use std::{
    collections::HashMap,
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Uri};
use picloud_executor_core::{InProcessExecutor, STACK};
use picloud_shared::{
    AppId, AppSnapshot, Executor, Invocation, Outcome, Principal, SystemClock,
    invocation::{Answer, Cancel, Input, RequestData},
};

use crate::{
    confine,
    message::{Done, DoneAnswer, FromChild, Headers, Run, RunInput, ToChild},
    port::Port,
};

type Apps = HashMap<AppId, Arc<AppSnapshot>>;

/// The whole life of such a process: standard input is the socket. `memory` is what the largest of
/// its runs may hold.
pub fn main(memory: u64) -> io::Result<()> {
    // Threads are made before it may not make any more.
    picloud_executor_core::start_clock();
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let runner = std::thread::Builder::new()
        .name("picloud-script".to_owned())
        .stack_size(STACK)
        .spawn(move || serve(socket, memory))?;
    runner
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the loop of runs failed")))
}

fn serve(socket: UnixStream, memory: u64) -> io::Result<()> {
    confine::close_all_but(&socket)?;
    let port = Port::new(socket)?;
    confine::process(memory)?;
    let executor = InProcessExecutor::new(port.services(), Arc::new(SystemClock));
    port.write(&FromChild::Ready, &[])?;
    let mut apps = Apps::new();
    loop {
        let (message, body) = match port.read() {
            Ok(read) => read,
            // It is not needed any more.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        match message {
            ToChild::App(app) => {
                let app = Arc::new(*app);
                executor.prepare(&app);
                apps.insert(app.id, app);
            }
            ToChild::Run(run) => {
                let invocation = invocation(*run, body, &apps)
                    .ok_or_else(|| io::Error::other("the run is of an app that was not told"))?;
                let (done, body) = done(executor.run(&invocation));
                port.write(&FromChild::Done(Box::new(done)), &body)?;
            }
            ToChild::Reply(_) => return Err(io::Error::other("nothing was asked")),
        }
    }
}

fn invocation(run: Run, body: Bytes, apps: &Apps) -> Option<Invocation> {
    let app = apps.get(&run.app)?;
    let input = match run.input {
        RunInput::Event(event) => Input::Event(event),
        RunInput::Request {
            method,
            uri,
            path_offset,
            route,
            params,
            headers,
            client_ip,
        } => Input::Request(Arc::new(RequestData {
            method: Method::from_bytes(method.as_bytes()).ok()?,
            uri: uri.parse::<Uri>().ok()?,
            path_offset,
            route: route.into(),
            params: params
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect(),
            headers: headers.parse()?,
            body,
            client_ip,
        })),
    };
    Some(Invocation {
        run: run.id,
        app: Arc::clone(app),
        commit: run.commit,
        script: Arc::clone(app.scripts.get(&run.script)?),
        limits: run.limits,
        deadline: Instant::now() + Duration::from_micros(run.left_us),
        input,
        // What it may do is decided where it is done.
        principal: Principal::App,
        cause: run.cause,
        chain: run.chain,
        cancel: Cancel::never(),
    })
}

fn done(outcome: Outcome) -> (Done, Bytes) {
    let mut body = Bytes::new();
    let result = outcome.result.map(|answer| match answer {
        Answer::Http(reply) => {
            body = reply.body;
            DoneAnswer::Http {
                status: reply.status.as_u16(),
                headers: Headers::of(&reply.headers),
            }
        }
        Answer::Json(value) => DoneAnswer::Json(value),
    });
    let done = Done {
        result,
        operations: outcome.operations,
        peak_memory: outcome.peak_memory,
        dropped_logs: outcome.dropped_logs,
    };
    (done, body)
}
