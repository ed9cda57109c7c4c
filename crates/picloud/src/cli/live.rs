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
    /// Print the change of the files that would make git agree, for `git apply`
    #[arg(long, conflicts_with = "adopt")]
    pub as_patch: bool,
    /// Commit that change to a branch of the server's repository
    #[arg(long, requires = "branch")]
    pub adopt: bool,
    /// The branch: a new one, or one to put the commit on top of
    #[arg(long, value_name = "NAME", requires = "adopt")]
    pub branch: Option<String>,
    /// The commit's message
    #[arg(long, short, value_name = "TEXT", requires = "adopt")]
    pub message: Option<String>,
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
