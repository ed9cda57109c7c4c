//! `make bench`: PiCloud beside its limits, interleaved in one run. What counts are the ratios:
//! figures swing with the machine, and the load generator shares its cores.

mod cron;
mod deploy;
mod hello;
mod idle;
mod load;
mod process;
mod push;
mod queue;
mod reference;
mod scripts;

use anyhow::Result;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("reference") => reference::serve(),
        Some("hello") => hello::run(),
        Some("scripts") => scripts::run(),
        Some("deploy") => deploy::run(),
        Some("push") => push::run(),
        Some("queue") => queue::run(),
        Some("cron") => cron::run(),
        Some("idle") => idle::run(),
        Some("start") => idle::start(),
        None => {
            hello::run()?;
            scripts::run()?;
            deploy::run()?;
            push::run()?;
            queue::run()?;
            cron::run()?;
            idle::start()?;
            idle::run()
        }
        Some(other) => {
            anyhow::bail!(
                "no bench is called {other}: hello, scripts, deploy, push, queue, cron, start, idle"
            )
        }
    }
}

/// Writes a line of the report.
fn say(text: &str) {
    use std::io::Write;
    // A report that nobody reads any more needs no writing.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The value below which that share of the sorted values lies.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of a short list"
    )]
    let at = (last as f64 * share).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}
