//! Servers of a bench: started, asked what they used, stopped.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use picloud_test_support::reachable_folder;
use tempfile::TempDir;

/// A server under test.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    pub(crate) started: Duration,
    folder: Option<TempDir>,
}

impl Server {
    /// The bare limit: this same program, on the database of another server where one is named.
    pub(crate) fn reference(database_of: Option<&Self>) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["reference", &port.to_string()]);
        if let Some(other) = database_of {
            let (socket, user) = other.database()?;
            command.arg(format!(
                "host={socket} port=5432 user={user} dbname=postgres"
            ));
        }
        let child = command.spawn()?;
        Self::ready(child, format!("127.0.0.1:{port}"), None)
    }

    /// The bare limit of pushes: that repository at `/bare.git`.
    pub(crate) fn reference_git(repository: &Path) -> Result<Self> {
        let port = free_port()?;
        let child = Command::new(std::env::current_exe()?)
            .args(["reference", &port.to_string(), "--repository"])
            .arg(repository)
            .spawn()?;
        Self::ready(child, format!("127.0.0.1:{port}"), None)
    }

    /// PiCloud with a hosted repository, still empty.
    pub(crate) fn hosted() -> Result<Self> {
        // There once the control plane is.
        Self::start(reachable_folder(), &[], None, "/api/v1/openapi.json")
    }

    /// Where a hosted repository of it is pushed to.
    pub(crate) fn remote(&self, source: &str) -> Result<String> {
        let folder = self.folder.as_ref().context("it has no data")?;
        let key = fs::read_to_string(folder.path().join("data/admin-token"))?;
        Ok(format!(
            "http://x:{}@{}/git/{source}.git",
            key.trim(),
            self.address
        ))
    }

    /// PiCloud on a repository, with scripts in processes apart.
    pub(crate) fn picloud_apart(repository: &Path) -> Result<Self> {
        let arguments = [
            repository.as_os_str(),
            "--executor".as_ref(),
            "process".as_ref(),
        ];
        Self::start(reachable_folder(), &arguments, None, "/readyz")
    }

    /// PiCloud on a repository.
    pub(crate) fn picloud(repository: &Path) -> Result<Self> {
        Self::picloud_in(reachable_folder(), repository, None)
    }

    /// PiCloud on a repository, with that data directory and database.
    pub(crate) fn picloud_in(
        folder: TempDir,
        repository: &Path,
        database: Option<&str>,
    ) -> Result<Self> {
        Self::start(folder, &[repository.as_os_str()], database, "/readyz")
    }

    fn start(
        folder: TempDir,
        arguments: &[&std::ffi::OsStr],
        database: Option<&str>,
        ready: &str,
    ) -> Result<Self> {
        let binary = std::env::current_exe()?.with_file_name("picloud");
        let port = free_port()?;
        let mut command = Command::new(binary);
        command
            .arg("up")
            .args(arguments)
            .args(["--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
            .arg(folder.path().join("data"))
            .env_remove("DATABASE_URL")
            .stdout(Stdio::null());
        if let Some(url) = database {
            command.env("DATABASE_URL", url);
        }
        let child = command.spawn().context("picloud: build it first")?;
        Self::ready_at(child, format!("127.0.0.1:{port}"), Some(folder), ready)
    }

    fn ready(child: Child, address: String, folder: Option<TempDir>) -> Result<Self> {
        Self::ready_at(child, address, folder, "/readyz")
    }

    fn ready_at(
        child: Child,
        address: String,
        folder: Option<TempDir>,
        path: &str,
    ) -> Result<Self> {
        let began = Instant::now();
        let mut server = Self {
            child,
            address,
            started: Duration::ZERO,
            folder,
        };
        while !matches!(server.get(path), Ok((200, _))) {
            if server.child.try_wait()?.is_some() || began.elapsed() > Duration::from_mins(2) {
                bail!("a server did not become ready");
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        server.started = began.elapsed();
        Ok(server)
    }

    /// Waits until a path answers with 200 and that text.
    pub(crate) fn wait_for(&self, path: &str, text: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            if let Ok((200, body)) = self.get(path)
                && body == text
            {
                return Ok(());
            }
            if began.elapsed() > Duration::from_mins(2) {
                bail!("{path} never said {text:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Status and body of a `GET`.
    pub(crate) fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Ok((status.context("no status")?, body.to_owned()))
    }

    /// Where its private PostgreSQL is reached.
    pub(crate) fn database_url(&self) -> Result<String> {
        let (socket, user) = self.database()?;
        let socket = socket.replace('/', "%2F");
        Ok(format!(
            "postgres://{user}@localhost:5432/postgres?host={socket}"
        ))
    }

    /// The folder of its private PostgreSQL's socket, and the user.
    fn database(&self) -> Result<(String, String)> {
        let folder = self.folder.as_ref().context("it has no data")?;
        let base = folder.path().join("data/postgres");
        let socket = base.join("socket").display().to_string();
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(owner(&base)?))?;
        Ok((socket, user.context("its owner")?.name))
    }

    /// Seconds of processor that its process used.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        // proc(5): utime and stime are the 14th and 15th, of which two and the name are cut off.
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
        let ticks = ticks(11).zip(ticks(12)).context("no times")?;
        Ok((ticks.0 + ticks.1) / 100.0)
    }

    /// KiB that `/proc/PID/smaps_rollup` gives for a line.
    pub(crate) fn memory(&self, name: &str) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = text.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        kib.context("no such line")
    }

    /// Stops it; gives its data back.
    pub(crate) fn stop(mut self) -> Result<Option<TempDir>> {
        kill(
            Pid::from_raw(self.child.id().cast_signed()),
            Signal::SIGTERM,
        )?;
        self.child.wait()?;
        Ok(self.folder.take())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // On the way out of an error; there is nobody left to tell.
            let _ = kill(
                Pid::from_raw(self.child.id().cast_signed()),
                Signal::SIGTERM,
            );
            let _ = self.child.wait();
        }
    }
}

fn owner(path: &Path) -> Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata(path.join("data"))?.uid())
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}
