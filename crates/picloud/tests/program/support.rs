//! A server of a test's own, and requests to it over a plain socket.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use picloud_test_support::reachable_folder;
use serde_json::Value;
use tempfile::TempDir;

/// Waits until something is so; a test that waits in vain says for what.
pub(crate) fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    within(Duration::from_secs(20), what, is_so);
}

/// As [`eventually`], for what has a time of its own.
pub(crate) fn within(time: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < time, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// In the place of a repository: the one that the server itself hosts.
pub(crate) const HOSTED: &str = "";

/// A running picloud.
pub(crate) struct Server {
    data: TempDir,
    child: Child,
    address: String,
    token: String,
}

impl Server {
    /// Starts one on a repository, with a data directory of its own.
    pub(crate) fn start(repository: &Path) -> Self {
        Self::on(reachable_folder(), repository, None)
    }

    /// Both: keys for secrets, and a place where scripts run.
    pub(crate) fn start_with_secrets_and_executor(
        repository: &Path,
        keys: &str,
        mode: &str,
    ) -> Self {
        let data = reachable_folder();
        fs::create_dir_all(data.path().join("data")).expect("the data directory");
        fs::write(data.path().join("data/secrets-key"), keys).expect("the key");
        let mut command = command(&data, repository);
        command.args(["--executor", mode]);
        Self::run(data, command)
    }

    /// As above, and scripts reach listeners of the test's own.
    pub(crate) fn start_for_upstream(repository: &Path, keys: &str, mode: &str) -> Self {
        let data = reachable_folder();
        fs::create_dir_all(data.path().join("data")).expect("the data directory");
        fs::write(data.path().join("data/secrets-key"), keys).expect("the key");
        let mut command = command(&data, repository);
        command
            .args(["--executor", mode])
            .env("PICLOUD_HTTP_ALLOW_PRIVATE", "1");
        Self::run(data, command)
    }

    /// The folder of all that it keeps.
    pub(crate) fn folder(&self) -> &Path {
        self.data.path()
    }

    /// Starts one with its scripts in this place.
    pub(crate) fn start_with_executor(repository: &Path, mode: &str) -> Self {
        let data = reachable_folder();
        let mut command = command(&data, repository);
        command.args(["--executor", mode]);
        Self::run(data, command)
    }

    fn on(data: TempDir, repository: &Path, database: Option<&str>) -> Self {
        let mut command = command(&data, repository);
        if let Some(url) = database {
            command.env("DATABASE_URL", url);
        }
        Self::run(data, command)
    }

    /// Starts one that hosts its repository, with more arguments.
    pub(crate) fn start_hosted(arguments: &[&str]) -> Self {
        let data = reachable_folder();
        let mut command = command(&data, Path::new(HOSTED));
        command.args(arguments);
        Self::run(data, command)
    }

    /// Starts one as `picloud serve` with a role, on a database and with a key of the test's.
    pub(crate) fn serve(role: &str, repository: Option<&Path>, database: &str) -> Self {
        let data = reachable_folder();
        let mut command = Command::new(env!("CARGO_BIN_EXE_picloud"));
        command
            .args([
                "serve",
                "--role",
                role,
                "--listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(data.path().join("data"))
            .args(repository)
            .env("DATABASE_URL", database)
            .env(
                "PICLOUD_ADMIN_TOKEN",
                "an-owner-key-of-a-test-0123456789abcdef",
            )
            .stdin(Stdio::null());
        Self::run(data, command)
    }

    fn run(data: TempDir, mut command: Command) -> Self {
        let ready = data.path().join("ready.json");
        if ready.exists() {
            fs::remove_file(&ready).expect("the old ready file");
        }
        let log = fs::File::create(data.path().join("output")).expect("a log");
        let mut child = command
            .arg("--ready-file")
            .arg(&ready)
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("picloud starts");
        let began = Instant::now();
        while !ready.exists() {
            let ended = child.try_wait().expect("its state");
            let output = fs::read_to_string(data.path().join("output")).unwrap_or_default();
            assert!(
                ended.is_none() && began.elapsed() < Duration::from_mins(1),
                "picloud is not ready:\n{output}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let told: Value =
            serde_json::from_slice(&fs::read(&ready).expect("the ready file")).expect("JSON");
        let url = told["url"].as_str().expect("an address");
        let token = fs::read_to_string(told["admin_token_file"].as_str().expect("a file"))
            .expect("the key");
        Self {
            address: url.trim_start_matches("http://").to_owned(),
            token: token.trim().to_owned(),
            data,
            child,
        }
    }

    /// Starts one on a database that the test has.
    pub(crate) fn start_on_database(repository: &Path, database: &str) -> Self {
        Self::on(reachable_folder(), repository, Some(database))
    }

    /// Starts one that has this key for secrets already.
    pub(crate) fn start_with_secrets(repository: &Path, keys: &str) -> Self {
        let data = reachable_folder();
        fs::create_dir_all(data.path().join("data")).expect("the data directory");
        fs::write(data.path().join("data/secrets-key"), keys).expect("the key");
        Self::on(data, repository, None)
    }

    /// Runs `picloud` with these arguments, which finds this server by its data directory.
    pub(crate) fn program(&self, folder: &Path, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_picloud"))
            .args(arguments)
            .current_dir(folder)
            .env("PICLOUD_DATA_DIR", self.data_folder())
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .output()
            .expect("picloud runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().expect("an exit code");
        (code, text(&output.stdout), text(&output.stderr))
    }

    /// Its data directory.
    pub(crate) fn data_folder(&self) -> std::path::PathBuf {
        self.data.path().join("data")
    }

    /// Starts one on a data directory that is there.
    pub(crate) fn start_in(data: TempDir, repository: &Path) -> Self {
        Self::on(data, repository, None)
    }

    /// Starts one that serves a folder's files as they are saved.
    pub(crate) fn start_dev(folder: &Path) -> Self {
        let data = reachable_folder();
        let mut command = Command::new(env!("CARGO_BIN_EXE_picloud"));
        command
            .args(["dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.path().join("data"))
            .arg(folder)
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null());
        Self::run(data, command)
    }

    /// Starts one with a configuration file.
    pub(crate) fn start_with_config(repository: &Path, config: &str) -> Self {
        let data = reachable_folder();
        let mut command = command(&data, repository);
        command.args(["--config", config]);
        Self::run(data, command)
    }

    /// Its hosted repository, with the credentials of a key, the owner's if none is named.
    pub(crate) fn remote(&self, key: Option<&str>) -> String {
        let key = key.unwrap_or(&self.token);
        format!("http://anyone:{key}@{}/git/default.git", self.address)
    }

    /// A `GET` of something that is no text.
    pub(crate) fn get_bytes(&self, path: &str) -> Vec<u8> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        self.exchange(head.as_bytes())
    }

    /// Asks the hosted repository for objects, compressed as git does it.
    pub(crate) fn fetch_compressed(&self, question: &str) -> Vec<u8> {
        use base64::Engine;
        let mut child = Command::new("gzip")
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("gzip runs");
        let mut stdin = child.stdin.take().expect("its input");
        stdin.write_all(question.as_bytes()).expect("written");
        drop(stdin);
        let body = child.wait_with_output().expect("its end").stdout;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!(":{}", self.token));
        let mut request = format!(
            "POST /git/default.git/git-upload-pack HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Basic {basic}\r\nContent-Type: application/x-git-upload-pack-request\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(body);
        self.exchange(&request)
    }

    /// The body of the answer to a request's bytes.
    fn exchange(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        stream.write_all(request).expect("sent");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        bytes.split_off(end.expect("a head") + 4)
    }

    /// Where its hosted repository lies.
    pub(crate) fn hosted_folder(&self) -> std::path::PathBuf {
        self.data.path().join("data/git/default.git")
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What it printed so far.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.data.path().join("output")).expect("its output")
    }

    /// Starts again on the same data and that database.
    pub(crate) fn restart_on_database(mut self, repository: &Path, database: &str) -> Self {
        let data = std::mem::replace(&mut self.data, reachable_folder());
        drop(self);
        Self::on(data, repository, Some(database))
    }

    /// The most memory that its process had.
    pub(crate) fn peak_memory_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("its status");
        let line = status.lines().find(|line| line.starts_with("VmHWM"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.expect("a number") / 1024
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process of its PostgreSQL.
    pub(crate) fn postgres_pid(&self) -> i32 {
        let path = self.data.path().join("data/postgres/data/postmaster.pid");
        let text = fs::read_to_string(path).expect("PostgreSQL runs");
        text.lines()
            .next()
            .expect("a line")
            .trim()
            .parse()
            .expect("a number")
    }

    /// How its private PostgreSQL is reached by others. Lines 4 and 5 of `postmaster.pid` are the
    /// port and the folder of the socket (PostgreSQL's miscadmin.h); its owner is the superuser.
    pub(crate) fn database_url(&self) -> String {
        use std::os::unix::fs::MetadataExt;
        let path = self.data.path().join("data/postgres/data/postmaster.pid");
        let owner = fs::metadata(&path).expect("PostgreSQL runs").uid();
        let owner = nix::unistd::User::from_uid(owner.into()).expect("users");
        let owner = owner.expect("a user of that id").name;
        let text = fs::read_to_string(path).expect("PostgreSQL runs");
        let lines: Vec<&str> = text.lines().collect();
        let folder = lines[4].replace('/', "%2F");
        format!(
            "postgres://{owner}@localhost:{}/postgres?host={folder}",
            lines[3]
        )
    }

    /// Ends its PostgreSQL at once, without a word.
    pub(crate) fn kill_postgres(&self) {
        kill(Pid::from_raw(self.postgres_pid()), Signal::SIGQUIT).expect("PostgreSQL is killed");
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("picloud is killed");
        self.child.wait().expect("its end");
    }

    /// Asks it to end; gives its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        kill(
            Pid::from_raw(self.child.id().cast_signed()),
            Signal::SIGTERM,
        )
        .expect("a signal");
        self.child.wait().expect("its end").code()
    }

    /// Starts again on the same data.
    pub(crate) fn restart(mut self, repository: &Path) -> Self {
        let data = std::mem::replace(&mut self.data, reachable_folder());
        drop(self);
        Self::on(data, repository, None)
    }

    /// What a second one on the same data says.
    pub(crate) fn second(&self, repository: &Path) -> Output {
        command(&self.data, repository)
            .output()
            .expect("picloud runs")
    }

    /// A `GET`.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    /// A `GET` of the admin API, with the owner's key.
    pub(crate) fn admin(&self, path: &str) -> Value {
        self.admin_request("GET", path, None).json()
    }

    /// A `POST` of the admin API, with the owner's key.
    pub(crate) fn admin_post(&self, path: &str, body: &Value) -> Value {
        self.admin_request("POST", path, Some(body)).json()
    }

    /// A request to the admin API, with the owner's key.
    pub(crate) fn admin_request(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let bearer = format!("Authorization: Bearer {}", self.token);
        let body = body.map(Value::to_string).unwrap_or_default();
        self.request(method, &format!("/api/v1/admin{path}"), &[&bearer], &body)
    }

    /// The header that brings the owner's key.
    pub(crate) fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    /// A connection with a request on its way, to be read from.
    pub(crate) fn open(&self, method: &str, path: &str, headers: &[&str]) -> TcpStream {
        self.ask(method, path, headers, "")
    }

    /// The status of an answer, whatever comes after it.
    pub(crate) fn status(&self, method: &str, path: &str, headers: &[&str], body: &str) -> u16 {
        let mut line = String::new();
        let mut stream = BufReader::new(self.ask(method, path, headers, body));
        stream.read_line(&mut line).expect("an answer");
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        status.unwrap_or_else(|| panic!("no status: {line:?}"))
    }

    /// A request, as bytes on a socket.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut stream = self.ask(method, path, headers, body);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        Answer::parse(&bytes)
    }

    fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a time limit");
        let host = if headers.iter().any(|header| header.starts_with("Host:")) {
            String::new()
        } else {
            "Host: 127.0.0.1\r\n".to_owned()
        };
        let lines: String = headers
            .iter()
            .fold(String::new(), |all, header| all + *header + "\r\n");
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{host}{lines}Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        // A server that refuses early may close before all is sent; its answer counts.
        let _ = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body.as_bytes()));
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // A test that fails must not leave a server behind.
            let _ = kill(
                Pid::from_raw(self.child.id().cast_signed()),
                Signal::SIGTERM,
            );
            let _ = self.child.wait();
        }
    }
}

fn command(data: &TempDir, repository: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_picloud"));
    command.arg("up");
    if repository != Path::new(HOSTED) {
        command.arg(repository);
    }
    command
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data.path().join("data"))
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null());
    command
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            status: status.unwrap_or_else(|| panic!("no answer: {text:?}")),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
            body: body.to_owned(),
        }
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body.
    pub(crate) fn text(&self) -> String {
        self.body.clone()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
