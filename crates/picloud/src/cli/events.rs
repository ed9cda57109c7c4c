//! Arguments of the commands about runs, triggers and dead letters.

use clap::{Args, Subcommand};

use super::RemoteArgs;

/// What `runs` takes.
#[derive(Debug, Clone, Args)]
pub struct RunsArgs {
    /// Only this app's
    #[arg(long)]
    pub app: Option<String>,
    /// Only those that ended so: ok, failed, timeout, limit, crashed, skipped, rejected
    #[arg(long)]
    pub status: Option<String>,
    /// Only those that were started so: http, cron, kv, docs, `dead_letter`, invoke, enqueue
    #[arg(long)]
    pub kind: Option<String>,
    /// Only those of this trigger
    #[arg(long)]
    pub trigger: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub limit: u16,
    /// Go on with those that come
    #[arg(short, long)]
    pub follow: bool,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `run` takes.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The run's id, as in `x-picloud-run`
    pub id: String,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `logs` takes.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Only this app's
    #[arg(long)]
    pub app: Option<String>,
    /// Only this run's
    #[arg(long, value_name = "ID")]
    pub run: Option<String>,
    /// Of so many runs, the newest
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub limit: u16,
    /// Go on with what is logged from now on
    #[arg(short, long)]
    pub follow: bool,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `replay` takes.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// The run's id
    pub id: String,
    /// On the commit that it ran on, not on the one that is live
    #[arg(long)]
    pub original: bool,
    /// Do not wait for its end
    #[arg(long)]
    pub no_wait: bool,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `invoke` takes.
#[derive(Debug, Clone, Args)]
pub struct InvokeArgs {
    /// The app
    pub app: String,
    /// The handler, like scripts/report.rhai
    pub script: String,
    /// JSON for `ctx.event.payload`; `-` reads it on standard input
    #[arg(
        long,
        value_name = "JSON",
        default_value = "null",
        allow_hyphen_values = true
    )]
    pub payload: String,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `triggers` takes.
#[derive(Debug, Clone, Args)]
pub struct TriggersArgs {
    /// Only this app's
    #[arg(long)]
    pub app: Option<String>,
    /// So many of the next fire times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub next: u32,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `dead-letters` does.
#[derive(Debug, Clone, Subcommand)]
pub enum DeadLettersCommand {
    /// Lists them, newest first
    List(DeadLetterListArgs),
    /// Puts events back, to be tried again
    Redrive(DeadLetterArgs),
    /// Throws them away
    Discard(DeadLetterArgs),
}

/// Which dead letters are meant.
#[derive(Debug, Clone, Args)]
pub struct DeadLetterFilterArgs {
    /// Only this app's
    #[arg(long)]
    pub app: Option<String>,
    /// Only this trigger's
    #[arg(long)]
    pub trigger: Option<String>,
    /// Only events of this kind: cron, kv, docs, `dead_letter`, invoke, enqueue, http
    #[arg(long, value_name = "KIND")]
    pub source_kind: Option<String>,
}

/// What `dead-letters list` takes.
#[derive(Debug, Clone, Args)]
pub struct DeadLetterListArgs {
    /// Which.
    #[command(flatten)]
    pub filter: DeadLetterFilterArgs,
    /// At most so many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub limit: u16,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `dead-letters redrive` and `discard` take.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["ids", "all", "app", "trigger", "source_kind"]))]
pub struct DeadLetterArgs {
    /// Their ids
    pub ids: Vec<String>,
    /// All that the key may touch
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
    /// Which.
    #[command(flatten)]
    pub filter: DeadLetterFilterArgs,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}
