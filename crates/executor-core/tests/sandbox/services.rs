//! What services keep is theirs, and what they answer is the run's.

use picloud_shared::Limits;

use crate::{Sandbox, ending, on_a_script_thread};

const MIB: &str = "let text = \"\"; text.pad(1048576, \"x\");\n";

#[test]
fn memory_counts_for_whoever_holds_it() {
    let cases = [
        // The service keeps 60 MiB of what it was given.
        ("for n in 0..60 { kv::set(\"c\", `${n}`, text); }", "ok"),
        // What it lets go makes no room for the run.
        (
            "for n in 0..60 { kv::set(\"c\", `${n}`, text); }\nfor n in 0..60 { kv::delete(\"c\", `${n}`); }\nlet all = []; for n in 0..60 { all.push(text + n); }",
            "memory",
        ),
        // Answers that are let go of; and answers that are kept.
        (
            "kv::set(\"c\", \"k\", text);\nfor n in 0..60 { kv::get(\"c\", \"k\"); kv::get_many(\"c\", [\"k\"]); }",
            "ok",
        ),
        (
            "kv::set(\"c\", \"k\", text);\nlet all = []; for n in 0..60 { all.push(kv::get(\"c\", \"k\")); }",
            "memory",
        ),
    ];
    on_a_script_thread(move || {
        for (script, expected) in cases {
            let sandbox = Sandbox::new();
            let limits = Limits {
                memory: 32 << 20,
                ..Limits::default()
            };
            // What a run seems to leave behind would be taken from the next ones.
            for _ in 0..3 {
                let (outcome, _) =
                    sandbox.run("services", &format!("{MIB}{script}"), limits.clone());
                assert_eq!(ending(&outcome), expected, "{script}: {:?}", outcome.result);
            }
        }
    });
}
