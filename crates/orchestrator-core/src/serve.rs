//! Connections: accepted, bounded, timed, and drained at the end.

use std::{
    convert::Infallible,
    net::Shutdown,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use picloud_shared::invocation::Cancel;

use crate::ingress::{Client, Ingress};

/// How long a client may take to send the head of a request.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Connections at the same time; more wait in the system's queue.
const MAX_CONNECTIONS: u32 = 10_000;
/// How long requests may go on after the end was asked for.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a client that was refused may go on sending, and how much.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 64 << 20;
/// How long those have that were cut off after it.
const CUT_OFF: Duration = Duration::from_secs(1);

/// Serves until `stop` is true, then lets open requests end.
pub async fn serve(listener: TcpListener, ingress: Arc<Ingress>, mut stop: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(64 << 10);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if ingress.connections.fetch_add(1, Relaxed) >= MAX_CONNECTIONS {
            ingress.connections.fetch_sub(1, Relaxed);
            drop(stream);
            continue;
        }
        connection(&builder, &graceful, stream, peer, &ingress);
    }
    ingress.draining.store(true, Relaxed);
    drop(listener);
    let mut ended = std::pin::pin!(graceful.shutdown());
    if tokio::time::timeout(DRAIN, &mut ended).await.is_err() {
        tracing::warn!("some requests did not end in time and are cut off");
        ingress.cut_off.store(true, Relaxed);
        // Just long enough for their runs to see it, and to be recorded.
        let _ = tokio::time::timeout(CUT_OFF, ended).await;
    }
}

/// Whether the client of a connection has hung up: it sends nothing more, and waits for nothing.
/// Looks without taking anything.
fn hung_up(stream: &std::net::TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// A second descriptor of a connection: hyper has the first, and this can be looked at meanwhile.
type Beside = Option<Arc<std::net::TcpStream>>;

fn beside(stream: &TcpStream) -> Beside {
    let stream = stream.as_fd().try_clone_to_owned().ok()?;
    Some(Arc::new(std::net::TcpStream::from(stream)))
}

/// Says to the runs of a connection when nobody waits for them any more.
fn cancel(stream: Beside, ingress: &Arc<Ingress>) -> Cancel {
    let ingress = Arc::downgrade(ingress);
    Cancel::when(move || {
        stream.as_deref().is_some_and(hung_up)
            || ingress
                .upgrade()
                .is_none_or(|ingress| ingress.cut_off.load(Relaxed))
    })
}

fn connection(
    builder: &auto::Builder<TokioExecutor>,
    graceful: &GracefulShutdown,
    stream: TcpStream,
    peer: std::net::SocketAddr,
    ingress: &Arc<Ingress>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let beside = beside(&stream);
    let client = Arc::new(Client {
        peer,
        cancel: cancel(beside.clone(), ingress),
        unread: AtomicBool::new(false),
    });
    let service = {
        let (ingress, client) = (Arc::clone(ingress), Arc::clone(&client));
        service_fn(move |request| {
            let (ingress, client) = (Arc::clone(&ingress), Arc::clone(&client));
            async move { Ok::<_, Infallible>(ingress.answer(request, &client).await) }
        })
    };
    let connection = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .into_owned();
    let watched = graceful.watch(connection);
    let ingress = Arc::clone(ingress);
    tokio::spawn(async move {
        let ended = watched.await;
        if let Err(error) = &ended {
            tracing::debug!(%peer, %error, "a connection ended with an error");
        }
        if let Some(stream) = beside
            && (ended.is_err() || client.unread.load(Relaxed))
        {
            linger(&stream).await;
        }
        ingress.connections.fetch_sub(1, Relaxed);
    });
}

/// Takes what a client still sends after its last answer, until it hangs up. A connection that is
/// closed with something unread in it is reset, and the client may lose the answer with it (RFC
/// 9112, section 9.6).
async fn linger(stream: &std::net::TcpStream) {
    if hung_up(stream) || stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let Ok(mut stream) = stream.try_clone().and_then(TcpStream::from_std) else {
        return;
    };
    let rest = async {
        let (mut part, mut left) = (vec![0; 16 << 10], LINGER_BYTES);
        while let Ok(read @ 1..) = stream.read(&mut part).await
            && left > read
        {
            left -= read;
        }
    };
    // Who takes longer, or sends more, may lose it.
    let _ = tokio::time::timeout(LINGER, rest).await;
}
