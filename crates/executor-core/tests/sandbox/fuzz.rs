//! Scripts made by chance: none may abort the process, go on beyond its time, or make the engine
//! panic. `FUZZ_SECONDS` and `FUZZ_SEED` make it long; the script that runs stands in
//! `fuzz-SEED.rhai` below the target's temporary folder.

use std::time::{Duration, Instant};

use picloud_shared::Limits;

use crate::{
    Sandbox, ending,
    grammar::{self, Dice},
    on_a_script_thread,
};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_script_made_by_chance_breaks_out() {
    let seconds = number("FUZZ_SECONDS").unwrap_or(6);
    let first = number("FUZZ_SEED").unwrap_or(1);
    let until = Instant::now() + Duration::from_secs(seconds);
    let limits = Limits {
        timeout_ms: 100,
        memory: 16 << 20,
        operations: 2_000_000,
        ..Limits::default()
    };
    let (mut runs, mut well) = (0_u32, 0_u32);
    let mut seed = first;
    while Instant::now() < until {
        let text = grammar::script(&mut Dice::new(seed));
        let kept = format!("{}/fuzz-{first}.rhai", env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(&kept, &text).expect("the script is kept");
        let (outcome, took) = on_a_script_thread({
            let text = text.clone();
            let limits = limits.clone();
            move || Sandbox::new().run("fuzz", &text, limits)
        });
        let ended = ending(&outcome);
        runs += 1;
        well += u32::from(ended == "ok");
        assert_ne!(
            ended, "crashed",
            "seed {seed} made the engine panic:\n{text}"
        );
        assert!(
            took < Duration::from_millis(1500),
            "seed {seed} took {took:?} and ended with {ended}:\n{text}"
        );
        assert!(
            outcome.peak_memory < 128 << 20,
            "seed {seed} held {} MiB:\n{text}",
            outcome.peak_memory >> 20
        );
        seed = seed.wrapping_add(1);
    }
    eprintln!("{well} of {runs} scripts ended well; the next seed is {seed}");
    assert!(runs > 0);
}
