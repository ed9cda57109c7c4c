//! A PostgreSQL of PiCloud's own, below the data directory: durable, on a Unix socket alone, never
//! as root, stopped with the program and found again after a crash.

mod account;
mod binaries;
mod clients;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicI32,
            Ordering::{Acquire, Release},
        },
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use account::Account;
use binaries::Binaries;
pub use clients::client;

/// The port is part of the socket's name and nothing else.
const PORT: u16 = 5432;
const START_TIME: Duration = Duration::from_mins(1);
const STOP_TIME: Duration = Duration::from_secs(20);
/// Before a server that ended is started again; doubles while it keeps ending.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
const RESTART_MAX_PAUSE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);
/// Bytes of the log above which it begins anew at a start.
const MAX_LOG: u64 = 8 << 20;

/// Why there is no PostgreSQL. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PrivatePostgresError {
    /// No server programs.
    #[error(
        "no PostgreSQL server programs were found; install them (Debian, Ubuntu: `apt-get install postgresql`; macOS: `brew install postgresql`), or set DATABASE_URL"
    )]
    NotInstalled,
    /// The cluster is of a version whose programs aren't there.
    #[error(
        "{path} was made by PostgreSQL {version}, whose programs are not installed; install PostgreSQL {version}, or move the data with `pg_dump` and `pg_restore` to a new data directory"
    )]
    OtherVersion {
        /// Where the cluster is.
        path: String,
        /// Its major version.
        version: String,
    },
    /// As root, without anybody to run it as.
    #[error(
        "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as; run picloud as another user, or set DATABASE_URL"
    )]
    NoAccount,
    /// It did not do what it should.
    #[error("{what}; its log is {log}:\n{tail}")]
    Failed {
        /// What it should do.
        what: String,
        /// Where it says why.
        log: String,
        /// The end of that.
        tail: String,
    },
    /// The system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> PrivatePostgresError {
    let what = what.into();
    move |source| PrivatePostgresError::Io { what, source }
}

/// A server that runs.
#[derive(Debug)]
pub struct PrivatePostgres {
    supervised: Arc<Supervised>,
    sockets: PathBuf,
    user: String,
}

/// What the thread that keeps the server running shares with the one that stops it.
#[derive(Debug, Default)]
struct Supervised {
    pid: AtomicI32,
    stopping: AtomicBool,
}

impl PrivatePostgres {
    /// Starts the cluster below a data directory, which is made where it is missing.
    pub fn start(data_dir: &Path) -> Result<Self, PrivatePostgresError> {
        let account = Account::choose()?;
        let base = account.place(data_dir)?;
        let cluster = base.join("data");
        let binaries = Binaries::find(&cluster)?;
        let log = base.join("log");
        if !cluster.join("PG_VERSION").exists() {
            create(&binaries, &account, &cluster, &log)?;
        }
        let sockets = sockets(&base, &account)?;
        stop_orphan(&cluster)?;
        if fs::metadata(&log).is_ok_and(|log| log.len() > MAX_LOG) {
            fs::remove_file(&log).map_err(io("cannot remove the old log"))?;
        }
        let supervised = spawn(&binaries, &account, &cluster, &sockets, &log)?;
        let server = Self {
            supervised,
            sockets,
            user: account.name.clone(),
        };
        match server.wait_until_ready(&log) {
            Ok(()) => Ok(server),
            Err(error) => {
                server.stop();
                Err(error)
            }
        }
    }

    /// Where it is reached.
    pub fn database_url(&self) -> String {
        url(&self.user, &self.sockets)
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.supervised.pid.load(Acquire)
    }

    /// Stops it: open transactions end, what was committed is on the disk.
    pub fn stop(self) {
        // Said before the process is looked at: what is started after this is stopped by its thread.
        self.supervised.stopping.store(true, Release);
        let pid = Pid::from_raw(self.pid());
        // Fast shutdown is SIGINT (PostgreSQL, chapter 18.5). Gone already is as good.
        if kill(pid, Signal::SIGINT).is_err() {
            return;
        }
        if !wait_gone(pid, STOP_TIME) {
            tracing::warn!(
                pid = self.pid(),
                "PostgreSQL does not stop; it is killed, and will recover at the next start"
            );
            // It may have ended in between.
            let _ = kill(pid, Signal::SIGQUIT);
            wait_gone(pid, STOP_TIME);
        }
    }

    fn wait_until_ready(&self, log: &Path) -> Result<(), PrivatePostgresError> {
        let socket = self.sockets.join(format!(".s.PGSQL.{PORT}"));
        let began = Instant::now();
        while began.elapsed() < START_TIME {
            if !alive(Pid::from_raw(self.pid())) {
                return Err(failed("PostgreSQL ended at its start", log));
            }
            if is_ready(&socket) {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        Err(failed("PostgreSQL did not become ready", log))
    }
}

/// Whether the server takes sessions: it answers a startup message with something but "starting up".
fn is_ready(socket: &Path) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = UnixStream::connect(socket) else {
        return false;
    };
    let body = b"user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(body.len() + 8).unwrap_or(0);
    let mut message = length.to_be_bytes().to_vec();
    message.extend_from_slice(&196_608_u32.to_be_bytes());
    message.extend_from_slice(body);
    let timeout = stream.set_read_timeout(Some(Duration::from_secs(1)));
    if timeout.is_err() || stream.write_all(&message).is_err() {
        return false;
    }
    let mut answer = [0_u8; 256];
    let Ok(size) = stream.read(&mut answer) else {
        return false;
    };
    // 57P03 is cannot_connect_now; other errors come from a server that is up.
    size > 0 && !answer[..size].windows(5).any(|code| code == b"57P03")
}

fn create(
    binaries: &Binaries,
    account: &Account,
    cluster: &Path,
    log: &Path,
) -> Result<(), PrivatePostgresError> {
    tracing::info!(path = %cluster.display(), "creating the database");
    // What a crash in the middle left is no cluster.
    if cluster.exists() {
        fs::remove_dir_all(cluster).map_err(io("cannot remove a half-made cluster"))?;
    }
    let mut command = account.command(&binaries.initdb, false);
    command.arg("-D").arg(cluster).args([
        "-U",
        &account.name,
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-instructions",
    ]);
    let output = command.output().map_err(io("cannot run initdb"))?;
    if output.status.success() {
        return Ok(());
    }
    let tail = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(PrivatePostgresError::Failed {
        what: "initdb failed".to_owned(),
        log: log.display().to_string(),
        tail,
    })
}

/// The folder of the socket, whose path must fit into 107 bytes.
fn sockets(base: &Path, account: &Account) -> Result<PathBuf, PrivatePostgresError> {
    let near = base.join("socket");
    let fits = near.as_os_str().len() + ".s.PGSQL.00000".len() < 107;
    let path = if fits {
        near
    } else {
        std::env::temp_dir().join(format!("picloud-{}", account::digest(base)))
    };
    account.private_folder(&path)?;
    Ok(path)
}

fn spawn(
    binaries: &Binaries,
    account: &Account,
    cluster: &Path,
    sockets: &Path,
    log: &Path,
) -> Result<Arc<Supervised>, PrivatePostgresError> {
    let output = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(io("cannot write PostgreSQL's log"))?;
    let errors = output
        .try_clone()
        .map_err(io("cannot write PostgreSQL's log"))?;
    let mut command = account.command(&binaries.postgres, true);
    command
        .arg("-D")
        .arg(cluster)
        .arg("-k")
        .arg(sockets)
        .args(["-p", &PORT.to_string()])
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        // Ctrl-C goes to the terminal's whole group: the server is stopped in its turn, after us.
        .process_group(0);
    let settings = [
        "listen_addresses=",
        "max_connections=50",
        // What is not used of it takes no memory.
        "shared_buffers=128MB",
        "fsync=on",
        "jit=off",
        "max_wal_size=256MB",
        "unix_socket_permissions=0700",
        "log_min_messages=warning",
        "max_worker_processes=4",
        "wal_level=minimal",
        "max_wal_senders=0",
    ];
    for setting in settings {
        command.args(["-c", setting]);
    }
    // A thread of its own that lives as long as the server: the system ties the server's life to
    // the thread that started it.
    let (tell, told) = mpsc::channel();
    let supervised = Arc::new(Supervised::default());
    let shared = Arc::clone(&supervised);
    thread::Builder::new()
        .name("postgres".to_owned())
        .spawn(move || supervise(&mut command, &shared, &tell))
        .map_err(io("cannot start a thread"))?;
    let started = told
        .recv()
        .map_err(|_| failed("PostgreSQL could not be started", log))?;
    started.map_err(io(format!("cannot run {}", binaries.postgres.display())))?;
    Ok(supervised)
}

/// Starts the server, and starts it again when it ends without having been asked to.
fn supervise(
    command: &mut Command,
    supervised: &Supervised,
    tell: &mpsc::Sender<std::io::Result<()>>,
) {
    let mut pause = RESTART_PAUSE;
    loop {
        let began = Instant::now();
        match command.spawn() {
            Ok(mut child) => {
                supervised.pid.store(child.id().cast_signed(), Release);
                if supervised.stopping.load(Acquire)
                    && let Err(error) =
                        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT)
                {
                    tracing::debug!(%error, "PostgreSQL ended by itself");
                }
                // The receiver waits for the first start alone.
                let _ = tell.send(Ok(()));
                if let Err(error) = child.wait() {
                    tracing::warn!(%error, "PostgreSQL's end could not be seen");
                }
            }
            Err(error) => {
                tracing::error!(%error, "PostgreSQL cannot be started");
                let _ = tell.send(Err(error));
            }
        }
        if supervised.stopping.load(Acquire) {
            return;
        }
        if began.elapsed() > RESTART_MAX_PAUSE {
            pause = RESTART_PAUSE;
        }
        tracing::error!(
            ms = pause.as_millis(),
            "PostgreSQL ended; it is started again"
        );
        thread::sleep(pause);
        pause = (pause * 2).min(RESTART_MAX_PAUSE);
        if supervised.stopping.load(Acquire) {
            return;
        }
    }
}

fn url(user: &str, sockets: &Path) -> String {
    let sockets = crate::url_encode(&sockets.to_string_lossy());
    format!("postgres://{user}@localhost:{PORT}/postgres?host={sockets}")
}

/// Stops a server that a killed picloud left behind.
fn stop_orphan(cluster: &Path) -> Result<(), PrivatePostgresError> {
    let path = cluster.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(());
    };
    let pid = text
        .lines()
        .next()
        .and_then(|line| line.trim().parse().ok())
        .map(Pid::from_raw);
    let Some(pid) = pid.filter(|pid| is_postgres(*pid, cluster)) else {
        // Another process got its number, or none has it: PostgreSQL would be in doubt about that.
        return fs::remove_file(&path).map_err(io("cannot remove a stale postmaster.pid"));
    };
    tracing::info!(
        pid = pid.as_raw(),
        "stopping the database that an earlier picloud left"
    );
    if kill(pid, Signal::SIGINT).is_ok() {
        wait_gone(pid, STOP_TIME);
    }
    Ok(())
}

/// Whether a process is the server of this cluster.
fn is_postgres(pid: Pid, cluster: &Path) -> bool {
    let Ok(command) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return !Path::new("/proc/self").exists() && alive(pid);
    };
    let command = String::from_utf8_lossy(&command);
    command.contains("postgres") && command.contains(&*cluster.to_string_lossy())
}

fn alive(pid: Pid) -> bool {
    // A zombie takes signals, too. Its state stands behind the name, which may hold anything.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let zombie = stat
        .rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('Z'));
    kill(pid, None).is_ok() && !zombie
}

fn wait_gone(pid: Pid, time: Duration) -> bool {
    let began = Instant::now();
    while alive(pid) {
        if began.elapsed() > time {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}

fn failed(what: &str, log: &Path) -> PrivatePostgresError {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(10)..].join("\n");
    PrivatePostgresError::Failed {
        what: what.to_owned(),
        log: log.display().to_string(),
        tail,
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), PrivatePostgresError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(io(format!("cannot set the mode of {}", path.display())))
}

/// Which server program would be used for a data directory.
pub fn programs(data_dir: &Path) -> Result<PathBuf, PrivatePostgresError> {
    let cluster = Account::known_place(data_dir).join("data");
    Binaries::find(&cluster).map(|binaries| binaries.postgres)
}
