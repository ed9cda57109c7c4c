//! What the commands take that bring live and git together again.

use clap::Args;

use super::RemoteArgs;

/// What `drift` takes.
#[derive(Debug, Clone, Args)]
pub struct DriftArgs {
    /// The app; without it, all that drift
    pub app: Option<String>,
    /// End with 3 where something differs
    #[arg(long)]
    pub exit_code: bool,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `heal` takes.
#[derive(Debug, Clone, Args)]
pub struct HealArgs {
    /// The app; without it, all apps of the source
    pub app: Option<String>,
    /// The source; may be left out where there is only one
    #[arg(long, value_name = "NAME", conflicts_with = "app")]
    pub source: Option<String>,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `rollback` takes.
#[derive(Debug, Clone, Args)]
pub struct RollbackArgs {
    /// The commit to go back to: its id, the begin of it, or another revision
    pub commit: String,
    /// The source; may be left out where there is only one
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `suspend` and `resume` take.
#[derive(Debug, Clone, Args)]
pub struct SourceArgs {
    /// The source; may be left out where there is only one
    pub source: Option<String>,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}
