//! The corpus of attacks, as the server's own test has it.

use std::time::Duration;

use picloud_shared::Limits;

use crate::{Sandbox, ending, on_a_script_thread};

const CORPUS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../picloud/tests/program/attacks"
);

#[test]
fn each_attack_ends_as_it_says_and_in_time() {
    let mut wrong = Vec::new();
    let mut names: Vec<_> = std::fs::read_dir(CORPUS)
        .expect("the attacks")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    names.sort();
    assert!(names.len() >= 80, "{} attacks", names.len());
    for path in names {
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if std::env::var("ATTACK").is_ok_and(|only| !name.contains(&only)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a script");
        let expected = text
            .lines()
            .find_map(|line| line.strip_prefix("// ends: "))
            .expect("a line `// ends: …`")
            .to_owned();
        let timeout_ms = if expected == "timeout" { 400 } else { 4_000 };
        let limits = Limits {
            timeout_ms,
            memory: if text.contains("// limits: {memory: 4MiB}") {
                4 << 20
            } else {
                32 << 20
            },
            operations: if text.contains("// limits: {operations: 100000}") {
                100_000
            } else {
                u64::MAX
            },
            ..Limits::default()
        };
        eprintln!("{name}");
        let (outcome, took) = on_a_script_thread({
            let name = name.clone();
            move || Sandbox::new().run(&name, &text, limits)
        });
        let ended = ending(&outcome);
        let message = outcome
            .result
            .as_ref()
            .err()
            .map_or("", |error| &error.message);
        // Answers of requests are checked by the server's test.
        let as_event = expected.contains("output") && matches!(ended, "ok" | "memory")
            || expected.contains("answer") && ended != "timeout";
        if !expected.split(" or ").any(|one| one == ended) && !as_event {
            wrong.push(format!("{name}: {ended} ({message}), not {expected}"));
        }
        // The time, what is promised beyond it, and as much again for a loaded machine.
        if took > Duration::from_millis(timeout_ms + 800) {
            wrong.push(format!("{name}: took {took:?} ({ended})"));
        }
        if outcome.peak_memory > 96 << 20 {
            let mib = outcome.peak_memory >> 20;
            wrong.push(format!("{name}: held {mib} MiB"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
