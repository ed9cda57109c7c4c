//! `picloud up` and `picloud serve`

use std::{net::TcpListener, path::PathBuf};

use anyhow::{Context, Result, bail};
use picloud_manager_core::keys::FreshKey;
use picloud_shared::{Diagnostic, deployment::Deployment, plan::LiveVersion};
use picloud_store::SourceKind;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Ending, print, short};
use crate::{
    cli::{DevArgs, LogFormat, ServeArgs, UpArgs},
    config::{LONG_TOKEN, Roles, ServerConfig},
    data_dir::{DataDir, write_private},
    private_postgres::PrivatePostgres,
    server::{NamedSource, STACK, Server},
    terminal::{Style, framed, milliseconds, printable},
};

/// The whole platform, for one machine.
pub fn up(args: &UpArgs) -> Result<Ending> {
    let config = ServerConfig::resolve(&args.server)?;
    let source = match &args.path {
        Some(path) => NamedSource::Local {
            path: path.clone(),
            branch: args.branch.clone(),
        },
        None => NamedSource::Hosted,
    };
    run(&config, Some(source))
}

/// The same for a folder's files, as they are saved.
pub fn dev(args: &DevArgs) -> Result<Ending> {
    let config = ServerConfig::resolve(&args.server)?;
    run(&config, Some(NamedSource::WorkTree(args.path.clone())))
}

/// The same for production: nothing is made up.
pub fn serve(args: &ServeArgs) -> Result<Ending> {
    let config = ServerConfig {
        roles: Roles::of(&args.role),
        ..ServerConfig::resolve(&args.server)?
    };
    if args.path.is_some() && !config.roles.manager {
        bail!("only a process with the role `manager` deploys: leave PATH out, or add the role");
    }
    if config.database_url.is_none() {
        bail!("`serve` needs a database: set DATABASE_URL (`up` would start a private one)");
    }
    if config.admin_token.is_none() {
        bail!(
            "`serve` makes no key up: set PICLOUD_ADMIN_TOKEN (make one with `openssl rand -hex 32`)"
        );
    }
    if is_short(&config) {
        bail!(
            "PICLOUD_ADMIN_TOKEN: expected {LONG_TOKEN} to 256 characters (make one with `openssl rand -hex 32`)"
        );
    }
    let source = args.path.as_ref().map(|path| NamedSource::Local {
        path: path.clone(),
        branch: args.branch.clone(),
    });
    run(&config, source)
}

/// Whether the owner key that was given can be guessed.
fn is_short(config: &ServerConfig) -> bool {
    let token = config.admin_token.as_ref();
    token.is_some_and(|token| token.len() < LONG_TOKEN)
}

fn run(config: &ServerConfig, source: Option<NamedSource>) -> Result<Ending> {
    log(config.log_format)?;
    if is_short(config) {
        tracing::warn!(
            "PICLOUD_ADMIN_TOKEN has less than {LONG_TOKEN} characters: it may be guessed (make one with `openssl rand -hex 32`)"
        );
    }
    raise_descriptors();
    match &source {
        // Before anything is started: the most likely mistakes.
        Some(NamedSource::Local { path, .. }) => {
            picloud_manager_core::git::LocalPath::find(path)?;
        }
        Some(NamedSource::WorkTree(path)) if !path.is_dir() => {
            bail!("{} is not a folder", path.display());
        }
        _ => {}
    }
    let data = DataDir::open(&config.data_dir)?;
    if let Some(ready) = &config.ready_file {
        forget(ready)?;
    }
    let listener = TcpListener::bind(config.listen).with_context(|| {
        format!(
            "cannot listen on {}; name another address with --listen",
            config.listen
        )
    })?;
    listener.set_nonblocking(true).context("cannot listen")?;
    let (token, token_file) = owner_key(config, &data)?;
    let postgres = match &config.database_url {
        Some(_) => None,
        None => Some(PrivatePostgres::start(data.path())?),
    };
    let database_url = match (&config.database_url, &postgres) {
        (Some(url), _) => url.clone(),
        (None, Some(postgres)) => postgres.database_url(),
        (None, None) => bail!("there is no database"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("picloud")
        .thread_stack_size(STACK)
        .build()
        .context("cannot start the runtime")?;
    let served = runtime.block_on(live(
        config,
        &data,
        &database_url,
        listener,
        source,
        &token,
        token_file,
    ));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    if let Some(postgres) = postgres {
        postgres.stop();
    }
    served?;
    Ok(Ending::Done)
}

/// Removes what an earlier server said: it is not ready any more.
fn forget(ready: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(ready) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot replace {}", ready.display()))
        }
        _ => Ok(()),
    }
}

/// As many open files as the system lets this process have: a connection takes two.
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Runs until a signal comes, then drains.
async fn live(
    config: &ServerConfig,
    data: &DataDir,
    database_url: &str,
    listener: TcpListener,
    source: Option<NamedSource>,
    token: &str,
    token_file: PathBuf,
) -> Result<()> {
    let stop = signals()?;
    tokio::pin!(stop);
    let starting = Server::start(config, data, database_url, listener, source.as_ref(), token);
    let server = tokio::select! {
        server = starting => server?,
        // Nothing was promised to anybody yet.
        () = &mut stop => return Ok(()),
    };
    let style = Style::stdout();
    let mut finished = server.sources.subscribe();
    if let Some(deployer) = &server.named {
        // One that can't be made now is told by the deployer, and tried again below.
        let _ = deployer.sync().await;
        if let Ok(done) = finished.try_recv() {
            print(&deployment_lines(&done.0, style))?;
        }
    }
    server.sources.run();
    tokio::spawn(async move {
        use tokio::sync::broadcast::error::RecvError;
        loop {
            match finished.recv().await {
                Ok(done) if print(&deployment_lines(&done.0, style)).is_ok() => {}
                // Too many to show; they are all in the history.
                Err(RecvError::Lagged(_)) => {}
                _ => return,
            }
        }
    });
    tell_failures(&server, style);
    let mut served = server.holder.watch();
    // What is live now may be newer than the snapshot that was kept.
    if let Ok(live) = server.live_version().await
        && live != LiveVersion::default()
    {
        let reached = served.wait_for(|served| served.is_some_and(|served| served >= live));
        let reached = tokio::time::timeout(std::time::Duration::from_secs(5), reached);
        if reached.await.is_err() {
            print("What is live is not served yet.\n")?;
        }
    }
    server.announce(data, config.ready_file.as_deref(), token_file)?;
    print(&format!("{}\n", framed(&greeting(&server, config, token))))?;
    stop.await;
    print("Stopping: open requests end first.\n")?;
    server.stop().await;
    Ok(())
}

fn greeting(server: &Server, config: &ServerConfig, token: &str) -> Vec<String> {
    let shown = if config.admin_token.is_some() {
        "as given".to_owned()
    } else {
        token.to_owned()
    };
    let mut lines = vec![
        format!("PiCloud {} is running", env!("CARGO_PKG_VERSION")),
        String::new(),
        format!("apps       {}/apps/…", server.url),
        format!("admin API  {}/api/v1/admin/", server.url),
        format!("admin key  {shown}"),
    ];
    let hosted = server
        .sources
        .all()
        .into_iter()
        .filter(|deployer| deployer.source().kind == SourceKind::Hosted);
    for deployer in hosted {
        let name = &deployer.source().name;
        lines.push(String::new());
        lines.push(format!(
            "git remote add picloud {}/git/{name}.git",
            server.url
        ));
        lines.push(
            "git push picloud main        (any user name; the admin key is the password)"
                .to_owned(),
        );
    }
    let mut apps: Vec<String> = server
        .holder
        .served()
        .snapshots()
        .map(|app| app.spec.name.to_string())
        .collect();
    apps.sort();
    if !apps.is_empty() {
        lines.push(String::new());
        lines.extend(
            apps.iter()
                .take(12)
                .map(|app| format!("           {}/apps/{app}/", server.url)),
        );
        if apps.len() > 12 {
            lines.push(format!(
                "           and {} more: `picloud status`",
                apps.len() - 12
            ));
        }
    }
    lines
}

fn deployment_lines(deployment: &Deployment, style: Style) -> String {
    let subject = deployment.message.lines().next().unwrap_or_default();
    let took = deployment
        .duration_ms
        .map_or_else(String::new, milliseconds);
    let mut line = format!(
        "{} {}  {}  {} changes  {took}\n",
        style.status(deployment.status.as_str()),
        short(deployment.commit.as_str()),
        printable(subject),
        deployment.changes.len(),
    );
    let errors: Vec<Diagnostic> = deployment
        .errors
        .iter()
        .filter(|error| error.is_error())
        .cloned()
        .collect();
    line.push_str(&picloud_gitops_core::render::human(&errors, style.is_on()));
    line
}

fn tell_failures(server: &Server, style: Style) {
    let mut failures = server.recorder.failures();
    tokio::spawn(async move {
        loop {
            match failures.recv().await {
                Ok(record) => {
                    let error = record.error.as_ref();
                    let message = error.map_or("", |error| error.message.as_str());
                    let line = error.and_then(|error| error.line);
                    let line = line.map_or_else(String::new, |line| format!(":{line}"));
                    let text = format!(
                        "{} {}  {}{line}  {}  (picloud run {})\n",
                        style.status(record.status.as_str()),
                        record.app,
                        record.script,
                        printable(message.lines().next().unwrap_or_default()),
                        record.id
                    );
                    if print(&text).is_err() {
                        return;
                    }
                }
                // Too many to show; they are all in the history.
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    });
}

/// The key that was given, or the one that was made at the first start.
fn owner_key(config: &ServerConfig, data: &DataDir) -> Result<(String, PathBuf)> {
    let path = data.path().join("admin-token");
    let kept = std::fs::read_to_string(&path)
        .ok()
        .map(|text| text.trim().to_owned());
    let token = match (&config.admin_token, kept) {
        (Some(given), _) => given.clone(),
        (None, Some(kept)) if !kept.is_empty() => return Ok((kept, path)),
        (None, _) => FreshKey::generate().context("cannot make a key")?.text,
    };
    write_private(&path, format!("{token}\n").as_bytes())?;
    Ok((token, path))
}

/// Ends with the first SIGINT or SIGTERM.
fn signals() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn log(format: LogFormat) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let set = match format {
        LogFormat::Human => builder.with_ansi(Style::stderr().is_on()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    set.map_err(|error| anyhow::anyhow!("cannot set up the log: {error}"))
}
