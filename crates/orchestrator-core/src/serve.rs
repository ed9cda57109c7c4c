//! Connections: accepted, bounded, timed, and drained at the end.

use std::{
    convert::Infallible,
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
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
        .max_buf_size(64 << 10)
        .pipeline_flush(true);
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

/// Says to the runs of a connection when nobody waits for them any more.
fn cancel(stream: &TcpStream, ingress: &Arc<Ingress>) -> Cancel {
    // Hyper has the stream; a second descriptor of it can be looked at meanwhile.
    let stream = stream.as_fd().try_clone_to_owned();
    let stream = stream.map(std::net::TcpStream::from).ok();
    let ingress = Arc::downgrade(ingress);
    Cancel::when(move || {
        stream.as_ref().is_some_and(hung_up)
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
    let service = {
        let client = Arc::new(Client {
            peer,
            cancel: cancel(&stream, ingress),
        });
        let ingress = Arc::clone(ingress);
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
        if let Err(error) = watched.await {
            tracing::debug!(%peer, %error, "a connection ended with an error");
        }
        ingress.connections.fetch_sub(1, Relaxed);
    });
}
