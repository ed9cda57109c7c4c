//! What is said of sources, deployments and copies of everything.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::{RemoteArgs, ServerArgs};

/// What `sources` does.
#[derive(Debug, Clone, Subcommand)]
pub enum SourcesCommand {
    /// Lists the sources
    List(RemoteArgs),
    /// Shows one source
    Show {
        /// Its name
        name: String,
        /// The server and the format.
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Adds a source, or replaces the one of that name
    Add(Box<AddSourceArgs>),
    /// Removes a source and its apps; their data is kept for 30 days
    Remove {
        /// Its name
        name: String,
        /// The server and the format.
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// What `sources add` takes.
#[derive(Debug, Clone, Args)]
pub struct AddSourceArgs {
    /// Its name
    pub name: String,
    /// A repository: a path on the server's machine, or an address; without it, one that is pushed to
    #[arg(value_hint = ValueHint::AnyPath)]
    pub url: Option<String>,
    /// The kind, where it is not what the address says
    #[arg(long, value_enum)]
    pub kind: Option<SourceKindArg>,
    /// The branch to deploy [default: main; of a local one, what is checked out]
    #[arg(long)]
    pub branch: Option<String>,
    /// The folder of the apps, from the repository's root
    #[arg(long, value_name = "DIR")]
    pub path: Option<String>,
    /// How often a remote is fetched without being told [default: 3m]
    #[arg(long, value_name = "TIME")]
    pub interval: Option<String>,
    /// What webhooks are signed with
    #[arg(
        long,
        env = "PICLOUD_WEBHOOK_SECRET",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub webhook_secret: Option<String>,
    /// The forge that pull requests come from
    #[arg(long, value_enum)]
    pub forge: Option<ForgeArg>,
    /// The forge's API, where it is not the public one
    #[arg(long, value_name = "URL", requires = "forge")]
    pub forge_api: Option<String>,
    /// The forge's token
    #[arg(
        long,
        env = "PICLOUD_FORGE_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub forge_token: Option<String>,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// Where a source's commits come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SourceKindArg {
    /// A repository on the server's machine.
    Local,
    /// A repository of the server's own, pushed to.
    Hosted,
    /// A repository elsewhere.
    Remote,
}

impl SourceKindArg {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Hosted => "hosted",
            Self::Remote => "remote",
        }
    }
}

/// A forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ForgeArg {
    Github,
    Gitlab,
    Gitea,
    Forgejo,
    Bitbucket,
}

impl ForgeArg {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Gitea => "gitea",
            Self::Forgejo => "forgejo",
            Self::Bitbucket => "bitbucket",
        }
    }
}

/// What `wait` takes.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// A commit: its id, the begin of it, or a revision of the repository here (`HEAD`)
    pub commit: String,
    /// Only this source's
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "5m")]
    pub timeout: String,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `approve` takes.
#[derive(Debug, Clone, Args)]
pub struct ApproveArgs {
    /// The deployment's id, or the begin of its commit's
    pub deployment: String,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `backup` takes.
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// Where to write; it holds secrets, and is readable by you alone
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Which data directory and database.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What `restore` takes.
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// What `picloud backup` wrote
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Which data directory and database; both must be empty.
    #[command(flatten)]
    pub server: ServerArgs,
}
