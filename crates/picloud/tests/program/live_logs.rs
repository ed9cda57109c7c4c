//! What runs log, as whoever follows sees it: while they run.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use picloud::private_postgres::PrivatePostgres;
use picloud_test_support::{TestRepository, reachable_folder};
use serde_json::Value;

use crate::support::{Server, eventually};

const MANIFEST: &str = "name: app\nlimits: {timeout: 20s, operations: 1000000000}\nroutes:\n  - {path: /, script: scripts/slow.rhai}\n  - {path: /quick, script: scripts/quick.rhai}\n  - {path: /dies, script: scripts/dies.rhai}\n";
/// Works about two seconds between two lines.
const SLOW: &str = "log::info(\"begins\", #{ n: 1 });\nlet over = time::unix_ms() + 2000;\nwhile time::unix_ms() < over {}\nlog::warn(\"ends\");\n7";

fn repository() -> TestRepository {
    let repository = TestRepository::new();
    repository.write("app.yaml", MANIFEST);
    repository.write("scripts/slow.rhai", SLOW);
    repository.write(
        "scripts/dies.rhai",
        "log::info(\"the last words\"); loop {}",
    );
    repository.write("scripts/quick.rhai", "log::info(\"quick\"); 1");
    repository.commit("feat: an app");
    repository
}

/// `picloud logs --follow`.
struct Following {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Following {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_picloud"))
            .args(["logs", "--follow", "--format", "json"])
            .args(arguments)
            .env("PICLOUD_DATA_DIR", server.data_folder())
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("picloud runs");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).expect("a line");
        assert!(read > 0, "it ended");
        serde_json::from_str(&line).expect("JSON")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // One that ended by itself failed the test already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The run's id; both lines were there in their order, each once, and the first while it ran.
fn is_seen_live(asked: &Server, followed: &Server) {
    // A line that is there shows that somebody listens.
    assert_eq!(asked.get("/apps/app/quick").status, 200);
    eventually("the first run is kept", || {
        followed.admin("/runs")["items"].as_array().map(Vec::len) == Some(1)
    });
    let mut following = Following::start(followed, &[]);
    assert_eq!(following.next()["message"], "quick");
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| asked.get("/apps/app/"));
        let first = following.next();
        assert!(!asking.is_finished(), "it was told after the end: {first}");
        assert_eq!(
            (&first["message"], &first["level"], &first["fields"]["n"]),
            (&"begins".into(), &"info".into(), &1.into()),
            "{first}"
        );
        let run = first["run"].as_str().expect("an id").to_owned();
        // Its record is not there yet: nothing else can have told of it.
        let record = format!("/runs/{run}");
        assert_eq!(followed.admin_request("GET", &record, None).status, 404);
        let second = following.next();
        assert_eq!(
            (&second["message"], &second["run"]),
            (&"ends".into(), &first["run"])
        );
        let answer = asking.join().expect("an answer");
        assert_eq!(answer.header("x-picloud-run"), Some(run.as_str()));
        // The record tells of the same lines, and they are not shown again.
        eventually("its record", || {
            followed.admin_request("GET", &record, None).status == 200
        });
    });
    assert_eq!(asked.get("/apps/app/quick").status, 200);
    assert_eq!(following.next()["message"], "quick");
}

/// Ends the process that works for the script that works most.
fn kill_busiest_child(server: &Server) {
    let children = std::fs::read_dir("/proc").expect("processes");
    let busiest = children
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let words = std::fs::read(entry.path().join("cmdline")).ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // What follows the name: state, parent, …; `utime` is the twelfth (proc(5)).
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            let is_child = fields[1].parse() == Ok(server.pid())
                && String::from_utf8_lossy(&words).contains("executor-child");
            is_child.then_some((fields[11].parse::<u64>().ok()?, pid))
        })
        .max();
    let (_, pid) = busiest.expect("a process for scripts");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
}

#[test]
fn a_line_is_seen_while_its_run_goes_on() {
    let repository = repository();
    let server = Server::start(repository.path());
    is_seen_live(&server, &server);
}

#[test]
fn so_is_one_of_a_process_for_scripts_and_it_is_kept_when_that_process_dies() {
    let repository = repository();
    let server = Server::start_with_executor(repository.path(), "process");
    is_seen_live(&server, &server);
    let mut following = Following::start(&server, &["--limit", "1"]);
    following.next();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| server.get("/apps/app/dies"));
        loop {
            let line = following.next();
            if line["message"] == "the last words" {
                break;
            }
        }
        kill_busiest_child(&server);
        assert_eq!(asking.join().expect("an answer").status, 500);
    });
    eventually("its record, with its line", || {
        let crashed = server.admin("/runs?status=crashed");
        crashed["items"][0]["logs"][0]["message"] == "the last words"
    });
}

#[test]
fn so_is_one_of_another_node() {
    let folder = reachable_folder();
    let postgres = PrivatePostgres::start(folder.path()).expect("a database");
    let repository = repository();
    let database = postgres.database_url();
    let manager = Server::serve("manager", Some(repository.path()), &database);
    let node = Server::serve("orchestrator,executor", None, &database);
    eventually("the app at the node", || {
        node.get("/apps/app/nothing").status == 404 && node.get("/readyz").status == 200
    });
    is_seen_live(&node, &manager);
    drop((manager, node));
    postgres.stop();
}
