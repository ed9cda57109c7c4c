//! Scripts that mean harm, in `attacks/`: each names the end that it has. None takes the server
//! with it, in either place where scripts run, and a neighbour's endpoint goes on answering.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use picloud_test_support::TestRepository;

use crate::support::{Answer, Server, eventually};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program/attacks");

/// One script.
struct Attack {
    name: String,
    expected: Vec<String>,
    timeout: Duration,
}

/// An app of all of them, and a neighbour.
fn corpus() -> (TestRepository, Vec<Attack>) {
    let repository = TestRepository::new();
    let mut manifest = "name: attacks\nlimits: {memory: 32MiB, operations: 1000000000}\nroutes:\n\
        \u{20} - {path: /spin, script: scripts/loop_forever.rhai, limits: {timeout: 10s}}\n"
        .to_owned();
    let mut attacks = Vec::new();
    for entry in fs::read_dir(CORPUS).expect("the attacks") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a script");
        let name = path.file_stem().expect("a name").to_string_lossy();
        let head = |word: &str| text.lines().find_map(|line| line.strip_prefix(word));
        let expected = head("// ends: ").expect("a line `// ends: …`");
        let timeout = if expected == "timeout" { 400 } else { 4_000 };
        let more = head("// limits: {").unwrap_or("}");
        manifest.push_str(&format!(
            "  - {{path: /{name}, script: scripts/{name}.rhai, limits: {{timeout: {timeout}ms, {more}}}\n"
        ));
        repository.write(&format!("apps/attacks/scripts/{name}.rhai"), &text);
        attacks.push(Attack {
            name: name.into_owned(),
            expected: expected.split(" or ").map(str::to_owned).collect(),
            timeout: Duration::from_millis(timeout),
        });
    }
    assert!(attacks.len() >= 80, "{} attacks", attacks.len());
    attacks.sort_by(|one, other| one.name.cmp(&other.name));
    repository.write("apps/attacks/app.yaml", &manifest);
    repository.write(
        "apps/neighbour/app.yaml",
        "name: neighbour\nroutes: [{path: /, script: scripts/a.rhai}]\n",
    );
    repository.write("apps/neighbour/scripts/a.rhai", "\"well\"");
    repository.commit("test: attacks");
    (repository, attacks)
}

/// How a request's run ended: `ok`, or the kind of its error.
fn ending(server: &Server, answer: &Answer) -> String {
    match answer.status {
        200..=299 => "ok".to_owned(),
        504 => "timeout".to_owned(),
        500 if answer.json()["code"] == "script_limit" => {
            answer.json()["limit"].as_str().unwrap_or("?").to_owned()
        }
        500 => {
            let run = answer.header("x-picloud-run").expect("a run").to_owned();
            let path = format!("/runs/{run}");
            eventually("the run's record", || {
                server.admin_request("GET", &path, None).status == 200
            });
            let kind = server.admin(&path)["error"]["kind"].clone();
            kind.as_str().unwrap_or("?").to_owned()
        }
        other => format!("status {other}"),
    }
}

fn each_ends_as_it_says(mode: &str) {
    let (repository, attacks) = corpus();
    let server = Arc::new(Server::start_with_executor(repository.path(), mode));
    let over = Arc::new(AtomicBool::new(false));
    let neighbour = std::thread::spawn({
        let (server, over) = (Arc::clone(&server), Arc::clone(&over));
        move || {
            let mut answered = 0_u32;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(server.get("/apps/neighbour/").text(), "well");
                answered += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            answered
        }
    });
    let mut wrong = Vec::new();
    for attack in &attacks {
        let began = Instant::now();
        let answer = server.get(&format!("/apps/attacks/{}", attack.name));
        let took = began.elapsed();
        let ended = ending(&server, &answer);
        if !attack.expected.contains(&ended) {
            let expected = attack.expected.join(" or ");
            wrong.push(format!("{}: {ended}, not {expected}", attack.name));
        }
        // Its time, what is promised beyond it, and room for a machine that does much else.
        if took > attack.timeout + Duration::from_secs(3) {
            wrong.push(format!("{}: took {took:?}", attack.name));
        }
    }
    over.store(true, Ordering::Relaxed);
    assert!(wrong.is_empty(), "{mode}:\n{}", wrong.join("\n"));
    let answered = neighbour.join().expect("the neighbour is served");
    assert!(answered > 10, "the neighbour was served {answered} times");
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn each_attack_in_process_ends_as_it_says_and_the_server_goes_on() {
    each_ends_as_it_says("in-process");
}

#[test]
fn each_attack_in_a_process_of_its_own_ends_as_it_says_and_the_server_goes_on() {
    each_ends_as_it_says("process");
}

/// The processes that run scripts for a server.
fn children(server: &Server) -> Vec<i32> {
    let parent = server.pid().to_string();
    let processes = fs::read_dir("/proc").expect("/proc");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.split_whitespace().nth(1) == Some(parent.as_str())
            && String::from_utf8_lossy(&line).contains("executor-child")
    })
    .collect()
}

#[test]
fn a_script_whose_process_dies_is_crashed_and_one_that_does_it_again_is_held_back() {
    let (repository, _) = corpus();
    let server = Arc::new(Server::start_with_executor(repository.path(), "process"));
    assert_eq!(server.get("/apps/neighbour/").text(), "well");
    let confined = children(&server);
    assert!(!confined.is_empty());
    for child in confined {
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(line), "{line} in {status}");
        }
        let environment = fs::read(format!("/proc/{child}/environ")).unwrap_or_default();
        assert!(environment.is_empty(), "{environment:?}");
    }
    for crash in 1..=3 {
        let (told, tells) = mpsc::channel();
        std::thread::spawn({
            let server = Arc::clone(&server);
            move || {
                told.send(server.get("/apps/attacks/spin"))
                    .expect("waited for");
            }
        });
        // Time enough for the run to begin.
        std::thread::sleep(Duration::from_millis(500));
        for child in children(&server) {
            kill(Pid::from_raw(child), Signal::SIGKILL).expect("killed");
        }
        let answer = tells.recv().expect("an answer");
        assert_eq!(answer.status, 500, "crash {crash}: {answer:?}");
        assert_eq!(ending(&server, &answer), "crashed", "crash {crash}");
        // The idle ones that died with it are replaced, too.
        eventually("the neighbour is served again", || {
            server.get("/apps/neighbour/").text() == "well"
        });
    }
    let held = server.get("/apps/attacks/spin");
    assert_eq!(held.status, 503, "{held:?}");
    assert_eq!(held.json()["code"], "crashed");
    assert!(held.header("retry-after").is_some());
    assert_eq!(server.get("/apps/neighbour/").text(), "well");
}

#[test]
fn a_run_whose_client_hangs_up_ends() {
    use std::io::Write;
    for mode in ["in-process", "process"] {
        let (repository, _) = corpus();
        let server = Server::start_with_executor(repository.path(), mode);
        let mut stream = std::net::TcpStream::connect(server.address()).expect("a connection");
        stream
            .write_all(b"GET /apps/attacks/spin HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            .expect("sent");
        std::thread::sleep(Duration::from_millis(500));
        drop(stream);
        let began = Instant::now();
        eventually("the run's end", || {
            let runs = server.admin("/runs?app=attacks");
            runs["items"][0]["error"]["kind"] == "cancelled"
        });
        assert!(began.elapsed() < Duration::from_secs(8), "{mode}");
    }
}
