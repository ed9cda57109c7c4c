//! Where requests come in: to the platform's own paths, or to an app's route or file.

mod body;
mod cors;
mod dispatch;
mod forwarded;
mod gate;
mod place;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::body::Body;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Either;
use hyper::body::{Body as _, Incoming};
use picloud_shared::{Clock, Executor, Peer, deployment::DeploymentStatus, invocation::Cancel};
use picloud_store::Store;
use tower::Service;

use crate::{
    holder::{ServedApp, SnapshotHolder},
    metrics::{self, Counters, Gauges, OutgoingCounts},
    problem::{self, Whole, problem},
    recorder::Recorder,
    routes::{self, Match},
    static_files::StaticFiles,
};
pub(crate) use gate::RateLimiter;
pub use gate::SecretLookup;
use place::Place;

/// What every answer's body is: there whole, or another service's stream.
pub(crate) type AnyBody = Either<Whole, Body>;

/// How long a scrape of the metrics waits for what the database knows.
const SCRAPE: Duration = Duration::from_secs(1);

/// What an ingress needs.
pub struct IngressOptions {
    /// Apps are also served at `{app}.{base_domain}`.
    pub base_domain: String,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// What is served.
    pub holder: Arc<SnapshotHolder>,
    /// Runs scripts.
    pub executor: Arc<dyn Executor>,
    /// Counts and records runs.
    pub recorder: Arc<Recorder>,
    /// Has the contents of static files.
    pub store: Store,
    /// Where they are kept near at hand.
    pub static_dir: std::path::PathBuf,
    /// The platform's other paths.
    pub platform: axum::Router,
    /// For times and ids.
    pub clock: Arc<dyn Clock>,
    /// Runs at the same time over all apps.
    pub max_runs: u32,
    /// Opens secrets that sign requests.
    pub secrets: SecretLookup,
    /// Counts the outgoing requests of scripts.
    pub outgoing: OutgoingCounts,
    /// Whether this node serves apps, and not the platform's own paths alone.
    pub serves_apps: bool,
    /// What is told at the endpoints under `picloud dev`, and only there.
    pub dev: Option<Arc<crate::dev::DevNotes>>,
}

/// Who is at the other end of a connection.
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    /// Says when it has hung up.
    pub(crate) cancel: Cancel,
    /// Whether a request was refused whose body may not have been read.
    pub(crate) unread: AtomicBool,
}

/// The front of a node.
pub struct Ingress {
    pub(crate) options: IngressOptions,
    pub(crate) draining: AtomicBool,
    /// Whether runs that still go on at the end are to be stopped.
    pub(crate) cut_off: AtomicBool,
    pub(crate) running: AtomicU32,
    pub(crate) connections: AtomicU32,
    pub(crate) counters: Counters,
    keys: gate::KeyCache,
    files: StaticFiles,
    dot_base: String,
}

impl Ingress {
    /// An ingress; [`crate::serve`] gives it connections.
    pub fn new(options: IngressOptions) -> Arc<Self> {
        Arc::new(Self {
            files: StaticFiles::new(options.store.clone(), options.static_dir.clone()),
            counters: Counters::default(),
            keys: gate::KeyCache::default(),
            dot_base: format!(".{}", options.base_domain),
            draining: AtomicBool::new(false),
            cut_off: AtomicBool::new(false),
            running: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            options,
        })
    }

    /// Answers one request. Never fails: what goes wrong is an answer, too.
    pub(crate) async fn answer(
        &self,
        mut request: Request<Incoming>,
        client: &Client,
    ) -> Response<AnyBody> {
        let trusted = &self.options.trusted_proxies;
        forwarded::settle(request.headers_mut(), client.peer, trusted);
        name_host(&mut request);
        let has_body = !request.body().is_end_stream();
        let response = self.answer_place(request, client).await;
        if has_body && response.status().as_u16() >= 400 {
            client.unread.store(true, Relaxed);
        }
        self.counters.answered(response.status());
        response
    }

    /// Counts a deployment that ended, for the metrics.
    pub fn count_deployment(&self, status: DeploymentStatus) {
        self.counters.deployed(status);
    }

    async fn answer_place(&self, request: Request<Incoming>, client: &Client) -> Response<AnyBody> {
        let place = {
            let served = self.options.holder.guard();
            place::find(
                request.uri(),
                request.headers(),
                &served,
                &self.options.base_domain,
                &self.dot_base,
            )
        };
        match place {
            Place::App(..) if !self.options.serves_apps => whole(problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "not_served_here",
                "this node serves no apps; ask one with the role `orchestrator`",
            )),
            Place::App(app, offset) => self.app(&app, request, offset, client).await,
            Place::NoApp => whole(problem(
                StatusCode::NOT_FOUND,
                "not_found",
                "there is no such app",
            )),
            Place::Home => redirect("/dashboard/"),
            Place::Health => whole(text(StatusCode::OK, "ok\n")),
            Place::Ready => self.ready(),
            Place::Metrics => whole(metrics::response(self, &self.gauges().await)),
            Place::Platform => self.platform(request, client.peer).await,
            Place::Nothing => whole(problem(
                StatusCode::NOT_FOUND,
                "not_found",
                "nothing is served at this address",
            )),
        }
    }

    async fn gauges(&self) -> Gauges {
        let depth = tokio::time::timeout(SCRAPE, self.options.store.outbox_depth()).await;
        Gauges {
            pool: self.options.store.pool_status(),
            shed: self.options.recorder.shed.load(Relaxed),
            passed_over: self.options.recorder.passed_over.load(Relaxed),
            // Without the database the depth isn't known, and not said.
            outbox: depth.ok().and_then(Result::ok),
        }
    }

    fn ready(&self) -> Response<AnyBody> {
        let served = self.options.holder.guard();
        if self.draining.load(Relaxed) {
            whole(problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "draining",
                "the server is stopping",
            ))
        } else if served.version.is_none() {
            whole(problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "not_ready",
                "nothing is deployed yet",
            ))
        } else {
            whole(text(StatusCode::OK, "ready\n"))
        }
    }

    async fn platform(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<AnyBody> {
        let from = Peer {
            address: self.client(&request, peer),
            https: self.came_by_https(&request, peer),
        };
        request.extensions_mut().insert(from);
        let mut router = self.options.platform.clone();
        let answered: Result<Response<Body>, Infallible> =
            router.call(request.map(Body::new)).await;
        match answered {
            Ok(response) => response.map(Either::Right),
            Err(never) => match never {},
        }
    }

    async fn app(
        &self,
        app: &Arc<ServedApp>,
        request: Request<Incoming>,
        offset: usize,
        client: &Client,
    ) -> Response<AnyBody> {
        let path = match request.uri().path().get(offset..) {
            Some(path) if path.starts_with('/') => path,
            _ => "/",
        };
        if place::has_dot_segments(path) {
            return whole(problem(
                StatusCode::BAD_REQUEST,
                "bad_request",
                "the path has `.` or `..` parts",
            ));
        }
        match app.routes.find(request.method(), path) {
            Match::Found(route, params) => {
                self.dispatch(app, route, params, request, offset, client)
                    .await
            }
            Match::None => self.file(app, &request, path).await,
            Match::WrongMethod(found) => {
                if *request.method() == Method::OPTIONS {
                    return whole(cors::options(&found, request.headers()));
                }
                let served = matches!(*request.method(), Method::GET | Method::HEAD)
                    && app.snapshot.spec.static_dir.is_some();
                if served {
                    let file = self.file(app, &request, path).await;
                    if file.status() != StatusCode::NOT_FOUND {
                        return file;
                    }
                }
                whole(not_allowed(routes::allow(&found)))
            }
        }
    }

    async fn file(
        &self,
        app: &ServedApp,
        request: &Request<Incoming>,
        path: &str,
    ) -> Response<AnyBody> {
        if app.snapshot.spec.static_dir.is_none() {
            return whole(problem(
                StatusCode::NOT_FOUND,
                "not_found",
                "the app has no route for this path",
            ));
        }
        whole(
            self.files
                .answer(
                    &app.snapshot.spec,
                    request.method(),
                    request.uri(),
                    path,
                    request.headers(),
                )
                .await,
        )
    }

    /// Whether a trusted proxy says so; without one there is no TLS here.
    fn came_by_https(&self, request: &Request<Incoming>, peer: SocketAddr) -> bool {
        let trusted = self
            .options
            .trusted_proxies
            .contains(&peer.ip().to_canonical());
        let scheme = request.headers().get("x-forwarded-proto");
        trusted && scheme.is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"))
    }

    /// The client's address: the socket's, or what a trusted proxy in front says.
    fn client(&self, request: &Request<Incoming>, peer: SocketAddr) -> IpAddr {
        let peer = peer.ip().to_canonical();
        if !self.options.trusted_proxies.contains(&peer) {
            return peer;
        }
        let forwarded = request.headers().get_all("x-forwarded-for").iter();
        let hops: Vec<IpAddr> = forwarded
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|hop| hop.trim().parse().ok())
            .collect();
        // From the right: the first that isn't ours is as far as the word can be trusted.
        let outside = hops
            .iter()
            .rev()
            .find(|hop| !self.options.trusted_proxies.contains(*hop));
        outside.copied().unwrap_or(peer)
    }
}

/// HTTP/2 says in `:authority` what scripts and the platform look for in `Host` (RFC 9113, section
/// 8.3.1).
fn name_host(request: &mut Request<Incoming>) {
    if request.headers().contains_key(header::HOST) {
        return;
    }
    let named = request.uri().authority();
    let named = named.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(named) = named {
        request.headers_mut().insert(header::HOST, named);
    }
}

fn whole(response: Response<Whole>) -> Response<AnyBody> {
    response.map(Either::Left)
}

fn text(status: StatusCode, text: &'static str) -> Response<Whole> {
    let mut response = Response::new(Whole::new(text.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn redirect(to: &'static str) -> Response<AnyBody> {
    let mut response = Response::new(Whole::default());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response
        .headers_mut()
        .insert(header::LOCATION, HeaderValue::from_static(to));
    whole(response)
}

fn not_allowed(allow: HeaderValue) -> Response<Whole> {
    let detail = "the path has no route for this method";
    let mut response = problem::with_fields(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        detail,
        &[],
    );
    response.headers_mut().insert(header::ALLOW, allow);
    response
}
