//! `/git/{source}.git`: git's smart HTTP protocol (gitprotocol-http(5)).

use std::{process::Stdio, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, TryStreamExt};
use picloud_shared::{Capability, SourceName};
use picloud_store::SourceKind;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};
use tokio_util::io::ReaderStream;

use super::HostingState;
use crate::{keys, mirror};

/// Bytes of a pushed pack.
const MAX_PACK: u64 = 96 << 20;
/// Bytes of what a client asks for when it fetches, decompressed.
const MAX_WANTS: usize = 32 << 20;
/// What a client says that shows progress.
const SIDEBAND: &[u8] = b"side-band-64k";
/// A push whose client sends nothing is given up.
const STALLED: Duration = Duration::from_mins(1);

/// The routes.
pub fn router(state: HostingState) -> Router {
    Router::new()
        .route("/git/{repository}/info/refs", get(advertise))
        .route("/git/{repository}/git-upload-pack", post(fetch))
        .route("/git/{repository}/git-receive-pack", post(push))
        .layer(DefaultBodyLimit::disable())
        .with_state(state)
}

#[derive(Deserialize)]
struct Service {
    #[serde(default)]
    service: String,
}

fn refuse(status: StatusCode, text: &str) -> Response {
    (status, format!("{text}\n")).into_response()
}

/// The repository of a source that the caller may reach so.
async fn open(
    state: &HostingState,
    headers: &HeaderMap,
    repository: &str,
    capability: Capability,
) -> Result<(SourceName, Command), Response> {
    let unauthorized = || {
        let text = "a key is needed: any user name, the key as the password";
        let mut response = refuse(StatusCode::UNAUTHORIZED, text);
        let scheme = HeaderValue::from_static("Basic realm=\"PiCloud\", charset=\"UTF-8\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
        response
    };
    let key = password(headers).ok_or_else(unauthorized)?;
    let found = state
        .store
        .use_key(&keys::hash(&key), state.clock.now())
        .await;
    let found = found.map_err(|error| {
        tracing::warn!(%error, "a key could not be looked up");
        refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "the database is away; try again in a moment",
        )
    })?;
    let grant = found.ok_or_else(unauthorized)?.grant;
    // A repository holds many apps: a key of one app alone neither sees nor changes the others.
    if !grant.allows(capability, None) {
        let scope = capability.scope().as_str();
        let text = format!("the key lacks the scope {scope} for all apps");
        return Err(refuse(StatusCode::FORBIDDEN, &text));
    }
    let missing = || refuse(StatusCode::NOT_FOUND, "there is no such hosted repository");
    let name: SourceName = repository
        .strip_suffix(".git")
        .unwrap_or(repository)
        .parse()
        .map_err(|_| missing())?;
    let source = state.sources.get(&name).ok_or_else(missing)?;
    if source.source().kind != SourceKind::Hosted {
        return Err(missing());
    }
    let git_dir = state.sources.hosted_dir(&name);
    let branch = source.source().branch.as_deref().unwrap_or("main");
    mirror::make_hosted(&git_dir, branch).map_err(|error| {
        tracing::error!(%error, "a hosted repository cannot be opened");
        refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the repository cannot be opened",
        )
    })?;
    let mut command = mirror::git(&git_dir);
    command
        .args(["-c", "safe.directory=*"])
        .args(["-c", "receive.advertisePushOptions=true"])
        .args(["-c", "receive.fsckObjects=true"])
        .args(["-c", "receive.autogc=false"])
        .args(["-c", "receive.denyDeleteCurrent=refuse"])
        .args(["-c", "uploadpack.allowFilter=true"])
        .arg("-c")
        .arg(format!("receive.maxInputSize={MAX_PACK}"))
        .arg("-c")
        .arg(format!("core.hooksPath={}", state.hooks.display()))
        .env("PICLOUD_HOOK_SOCKET", &state.socket)
        .env("PICLOUD_SOURCE", name.as_str())
        .env("PICLOUD_KEY", grant.name.replace('\0', ""))
        .env("PICLOUD_KEY_ID", grant.id.to_string())
        .env("PICLOUD_BASE_URL", base_url(headers))
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", state.hooks.parent().unwrap_or(&state.hooks))
        .kill_on_drop(true);
    if let Some(protocol) = headers
        .get("git-protocol")
        .and_then(|value| value.to_str().ok())
    {
        command.env("GIT_PROTOCOL", protocol);
    }
    Ok((name, command))
}

fn password(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (_, password) = decoded.split_once(':')?;
    Some(password.to_owned())
}

/// How the client reached us, for the addresses that it is told. The ingress lets the word on the
/// scheme through from trusted proxies alone.
pub(crate) fn base_url(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text("host").unwrap_or("localhost");
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '[' | ']');
    let scheme = match text("x-forwarded-proto") {
        Some("https") => "https",
        _ => "http",
    };
    if host.chars().all(plain) {
        format!("{scheme}://{host}")
    } else {
        String::new()
    }
}

fn uncached(kind: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(kind) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    let none = HeaderValue::from_static("no-cache, max-age=0, must-revalidate");
    headers.insert(header::CACHE_CONTROL, none);
    response
}

async fn advertise(
    State(state): State<HostingState>,
    Path(repository): Path<String>,
    Query(query): Query<Service>,
    headers: HeaderMap,
) -> Response {
    let (service, capability) = match query.service.as_str() {
        "git-upload-pack" => ("upload-pack", Capability::SourceView),
        "git-receive-pack" => ("receive-pack", Capability::SourceSync),
        _ => {
            let text = "this is a repository for git clients of protocol version 1.6.6 or later";
            return refuse(StatusCode::FORBIDDEN, text);
        }
    };
    let (name, mut command) = match open(&state, &headers, &repository, capability).await {
        Ok(opened) => opened,
        Err(refused) => return refused,
    };
    let output = command
        .args([service, "--stateless-rpc", "--advertise-refs"])
        .arg(state.sources.hosted_dir(&name))
        .output()
        .await;
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            tracing::error!(error, "git could not read a hosted repository");
            return refuse(StatusCode::INTERNAL_SERVER_ERROR, "git failed");
        }
        Err(error) => return no_git(&error),
    };
    let line = format!("# service=git-{service}\n");
    let mut body = Vec::new();
    // Version 2 begins without this line (gitprotocol-v2(5)).
    if !output.stdout.starts_with(b"000eversion 2\n") {
        body = format!("{:04x}{line}0000", line.len() + 4).into_bytes();
    }
    body.extend(output.stdout);
    let kind = format!("application/x-git-{service}-advertisement");
    uncached(&kind, Body::from(body))
}

fn no_git(error: &std::io::Error) -> Response {
    tracing::error!(%error, "git cannot be run; hosted repositories need it installed");
    refuse(StatusCode::INTERNAL_SERVER_ERROR, "the server has no git")
}

fn spawn(command: &mut Command) -> std::io::Result<Child> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

async fn fetch(
    State(state): State<HostingState>,
    Path(repository): Path<String>,
    request: Request,
) -> Response {
    let headers = request.headers().clone();
    let opened = open(&state, &headers, &repository, Capability::SourceView).await;
    let (name, mut command) = match opened {
        Ok(opened) => opened,
        Err(refused) => return refused,
    };
    let mut wants = Vec::new();
    let mut limited = reader(request).take(MAX_WANTS as u64 + 1);
    match limited.read_to_end(&mut wants).await {
        Ok(_) if wants.len() <= MAX_WANTS => {}
        Ok(_) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large"),
        Err(_) => return refuse(StatusCode::BAD_REQUEST, "the request broke off"),
    }
    command
        .args(["upload-pack", "--stateless-rpc"])
        .arg(state.sources.hosted_dir(&name));
    let mut child = match spawn(&mut command) {
        Ok(child) => child,
        Err(error) => return no_git(&error),
    };
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    tokio::spawn(async move {
        if let Some(mut stdin) = stdin {
            // A client that hung up is seen at the other end.
            let _ = stdin.write_all(&wants).await;
        }
    });
    let kind = "application/x-git-upload-pack-result";
    uncached(kind, output(child, stdout, Bytes::new()))
}

async fn push(
    State(state): State<HostingState>,
    Path(repository): Path<String>,
    request: Request,
) -> Response {
    let headers = request.headers().clone();
    let opened = open(&state, &headers, &repository, Capability::SourceSync).await;
    let (name, mut command) = match opened {
        Ok(opened) => opened,
        Err(refused) => return refused,
    };
    command
        .args(["receive-pack", "--stateless-rpc"])
        .arg(state.sources.hosted_dir(&name));
    let mut child = match spawn(&mut command) {
        Ok(child) => child,
        Err(error) => return no_git(&error),
    };
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "git failed");
    };
    // The whole request is read before the answer begins: proxies cut a request short whose answer
    // has begun. What git says meanwhile is kept.
    let mut body = reader(request);
    let mut said = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    let mut open = true;
    let (mut size, mut sideband) = (0_u64, false);
    while open {
        let mut heard = [0; 4096];
        tokio::select! {
            read = tokio::time::timeout(STALLED, body.read(&mut chunk)) => match read {
                Ok(Ok(0)) => open = false,
                // Git ended early, and says why.
                Ok(Ok(read)) => {
                    let read = &chunk[..read];
                    sideband |= size == 0 && read.windows(SIDEBAND.len()).any(|at| at == SIDEBAND);
                    size += read.len() as u64;
                    open = stdin.write_all(read).await.is_ok();
                }
                Ok(Err(_)) | Err(_) => {
                    tracing::info!(source = %name, "a push broke off");
                    return refuse(StatusCode::BAD_REQUEST, "the push broke off");
                }
            },
            heard_bytes = stdout.read(&mut heard) => match heard_bytes {
                Ok(size) if size > 0 => said.extend_from_slice(&heard[..size]),
                _ => open = false,
            },
        }
    }
    drop(stdin);
    // What git doesn't want any more is read all the same: the client is still sending it.
    let mut nowhere = tokio::io::sink();
    let rest = tokio::io::copy(&mut body, &mut nowhere);
    if tokio::time::timeout(STALLED, rest).await.is_err() {
        return refuse(StatusCode::BAD_REQUEST, "the push broke off");
    }
    if size > MAX_PACK && sideband {
        let mib = MAX_PACK >> 20;
        let text = format!("error: a push has at most {mib} MiB; push in several steps\n");
        said.splice(0..0, progress(&text));
    }
    let kind = "application/x-git-receive-pack-result";
    uncached(kind, output(child, Some(stdout), said.into()))
}

/// A line that a pusher's git shows (gitprotocol-pack(5), the second band).
fn progress(text: &str) -> Vec<u8> {
    format!("{:04x}\x02{text}", text.len() + 5).into_bytes()
}

/// The request's body, decompressed where it came so.
fn reader(request: Request) -> Box<dyn AsyncRead + Send + Unpin> {
    let gzip = request
        .headers()
        .get(header::CONTENT_ENCODING)
        .is_some_and(|value| value == "gzip" || value == "x-gzip");
    let stream = request
        .into_body()
        .into_data_stream()
        .map_err(std::io::Error::other);
    let plain = tokio_util::io::StreamReader::new(stream);
    if gzip {
        Box::new(Box::pin(
            async_compression::tokio::bufread::GzipDecoder::new(plain),
        ))
    } else {
        Box::new(Box::pin(plain))
    }
}

/// What a child prints, as a body; what it complains about goes to the log.
fn output(mut child: Child, stdout: Option<tokio::process::ChildStdout>, first: Bytes) -> Body {
    let Some(stdout) = stdout else {
        return Body::empty();
    };
    let errors = child.stderr.take();
    tokio::spawn(async move {
        let mut text = String::new();
        if let Some(errors) = errors {
            // What can't be read can't be logged.
            let _ = errors.take(4096).read_to_string(&mut text).await;
        }
        match child.wait().await {
            Ok(status) if status.success() => {}
            Ok(status) => tracing::info!(%status, said = text.trim(), "git ended with an error"),
            Err(error) => tracing::warn!(%error, "git's end could not be seen"),
        }
    });
    let first = futures_util::stream::iter([Ok::<_, std::io::Error>(first)]);
    Body::from_stream(first.chain(ReaderStream::with_capacity(stdout, 64 << 10)))
}
