//! A run that goes on for long has a thread of its own: what else there is to do goes on meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use picloud_executor_core::STACK;
use picloud_shared::Limits;

use crate::{Sandbox, ending};

#[test]
fn whatever_else_its_thread_has_to_do_is_done_while_a_script_goes_on() {
    // The only thread: nobody else could do it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_stack_size(STACK)
        .build()
        .expect("a runtime");
    // Many operations; and few that each take long.
    let scripts = [
        "loop {}",
        "let s = \"x\"; for i in 0..21 { s += s; } loop { crypto::sha256(s); }",
    ];
    for round in 0..8 {
        let begun = Arc::new(AtomicBool::new(false));
        let run = runtime.spawn({
            let begun = Arc::clone(&begun);
            async move {
                begun.store(true, Ordering::SeqCst);
                let limits = Limits {
                    timeout_ms: 600,
                    operations: u64::MAX,
                    ..Limits::default()
                };
                Sandbox::new().run("spin", scripts[round % 2], limits).0
            }
        });
        while !begun.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_micros(50));
        }
        let other = runtime.spawn(async {});
        runtime.block_on(other).expect("done");
        assert!(
            !run.is_finished(),
            "round {round}: it was done after the run"
        );
        let outcome = runtime.block_on(run).expect("it was begun");
        assert_eq!(ending(&outcome), "timeout");
    }
}
