//! The command line: what can be said, and how it is explained.

mod access;
mod delivery;
mod live;
mod oidc;

mod events;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

pub use events::{
    DeadLetterArgs, DeadLetterFilterArgs, DeadLetterListArgs, DeadLettersCommand, InvokeArgs,
    LogsArgs, ReplayArgs, RunArgs, RunsArgs, TriggersArgs,
};

pub use access::{CreateKeyArgs, KeysCommand, LoginArgs, LogoutArgs};
pub use delivery::{
    AddSourceArgs, ApproveArgs, BackupArgs, ForgeArg, RestoreArgs, SourceKindArg, SourcesCommand,
    WaitArgs,
};
pub use live::{DriftArgs, HealArgs, RollbackArgs, SourceArgs};
pub use oidc::OidcArgs;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "picloud",
    version,
    about = "A self-hosted, event-driven serverless platform driven by git",
    long_about = "A self-hosted, event-driven serverless platform driven by git.\n\n\
        A repository holds app.yaml files, Rhai scripts and triggers. The server watches it, \
        reconciles what it declares into PostgreSQL on each commit, and serves the endpoints.",
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 there are changes (plan --exit-code).",
    arg_required_else_help = true,
    propagate_version = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole platform in one process, for one machine
    Up(UpArgs),
    /// As `up`, and a folder's files are deployed as they are saved, without a commit
    Dev(DevArgs),
    /// As `up`, for production: needs a `DATABASE_URL` and an admin key of yours
    Serve(ServeArgs),
    /// Writes a starter app
    Init(InitArgs),
    /// Checks a tree, offline
    Validate(ValidateArgs),
    /// Runs the tests of a tree's apps, offline
    Test(TestArgs),
    /// Shows what a tree would change, on a server or against another revision
    Plan(PlanArgs),
    /// Shows the sources and apps of a running server
    Status(RemoteArgs),
    /// Lists deployments, newest first
    History(HistoryArgs),
    /// Lists runs, newest first
    Runs(RunsArgs),
    /// Shows one run with its logs
    Run(RunArgs),
    /// Shows what runs logged; with -f, as they log it
    Logs(LogsArgs),
    /// Runs a recorded run again
    Replay(ReplayArgs),
    /// Runs a handler now
    Invoke(InvokeArgs),
    /// Lists triggers, with their next fire times
    Triggers(TriggersArgs),
    /// Lists events that were given up, puts them back, discards them
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Deploys the head of a source now, and waits for it
    Sync(SyncArgs),
    /// Shows where live differs from git, field by field
    #[command(visible_alias = "diff")]
    Drift(DriftArgs),
    /// Makes live again what git declares
    Heal(HealArgs),
    /// Makes a former commit's state live, until a newer commit comes
    Rollback(RollbackArgs),
    /// Deploys nothing from a source until it is resumed
    Suspend(SourceArgs),
    /// Deploys a source's head, and what comes after it
    Resume(SourceArgs),
    /// Waits until a commit is live, or failed
    Wait(WaitArgs),
    /// Lets a deployment go that is held because it removes much, or waits for a window
    Approve(ApproveArgs),
    /// Adds, lists and removes what is deployed from
    #[command(subcommand)]
    Sources(SourcesCommand),
    /// Gets a key for this machine, once a person lets it in
    Login(LoginArgs),
    /// Ends the key that `login` got, and forgets it
    Logout(LogoutArgs),
    /// Makes, lists and revokes API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Lists previews of branches and pull requests, and lets those of forks be made
    #[command(subcommand)]
    Previews(PreviewsCommand),
    /// Shows when a schedule fires, offline
    Schedule(ScheduleArgs),
    /// Makes keys for secrets, and seals values
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Prints the JSON Schemas and editor definitions
    Schema(SchemaArgs),
    /// Brings the database's schema up to date
    Migrate(MigrateArgs),
    /// Writes everything into one file: the database, hosted repositories, keys
    Backup(BackupArgs),
    /// Makes a server's data anew from a backup
    Restore(RestoreArgs),
    /// Checks this machine and the configuration
    Doctor(DoctorArgs),
    /// Prints a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What `up` takes.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// A git repository, or a folder in one; without it, a hosted repository that is pushed to
    #[arg(value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub path: Option<PathBuf>,
    /// The branch to deploy; without it, the one that is checked out
    #[arg(long)]
    pub branch: Option<String>,
    /// Settings of the server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What `dev` takes.
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// The folder of the apps
    #[arg(value_name = "PATH", default_value = ".", value_hint = ValueHint::DirPath)]
    pub path: PathBuf,
    /// Settings of the server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What `serve` takes.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// A git repository, or a folder in one
    #[arg(value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub path: Option<PathBuf>,
    /// The branch to deploy; without it, the one that is checked out
    #[arg(long)]
    pub branch: Option<String>,
    /// What this process does: all, or some of manager, orchestrator, executor
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "all",
        value_name = "ROLE"
    )]
    pub role: Vec<Role>,
    /// Settings of the server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Everything.
    All,
    /// The control plane.
    Manager,
    /// The data plane.
    Orchestrator,
    /// Runs scripts.
    Executor,
}

/// Settings of a server. Flags win over variables, variables over the file.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// A TOML file with these settings
    #[arg(long, env = "PICLOUD_CONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Where to listen; port 0 picks one [default: 127.0.0.1:8080]
    #[arg(long, env = "PICLOUD_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where state is kept [default: .picloud]
    #[arg(long, env = "PICLOUD_DATA_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,
    /// PostgreSQL; without it `up` starts a private one below the data directory
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The first owner key; `up` makes one and prints it
    #[arg(
        long,
        env = "PICLOUD_ADMIN_TOKEN",
        value_name = "KEY",
        hide_env_values = true
    )]
    pub admin_token: Option<String>,
    /// Apps are also served at APP.BASE-DOMAIN [default: localhost]
    #[arg(long, env = "PICLOUD_BASE_DOMAIN", value_name = "HOST")]
    pub base_domain: Option<String>,
    /// Written, as JSON, once the first deployment is served
    #[arg(long, env = "PICLOUD_READY_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ready_file: Option<PathBuf>,
    /// Addresses of reverse proxies whose X-Forwarded-For is believed
    #[arg(
        long,
        env = "PICLOUD_TRUSTED_PROXIES",
        value_delimiter = ',',
        value_name = "ADDRESS"
    )]
    pub trusted_proxies: Option<Vec<std::net::IpAddr>>,
    /// How large a webhook's delivery may be [default: 25MiB]
    #[arg(long, env = "PICLOUD_WEBHOOK_MAX_BODY", value_name = "SIZE")]
    pub webhook_max_body: Option<String>,
    /// How long history is kept, in days [default: 30d]
    #[arg(long, env = "PICLOUD_HISTORY_RETENTION", value_name = "DAYS")]
    pub history_retention: Option<String>,
    /// Successful requests of an app that are recorded in a second; all are counted [default: 50]
    #[arg(long, env = "PICLOUD_RECORD_RATE", value_name = "N")]
    pub record_rate: Option<u64>,
    /// How the log is written [default: human]
    #[arg(long, env = "PICLOUD_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// The keys that open secrets, the same on all nodes of a cluster [default: made in the data directory]
    #[arg(long, env = "PICLOUD_SECRETS_KEY_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub secrets_key_file: Option<PathBuf>,
    /// Where scripts run: in this process, or in confined processes of their own
    #[arg(long, env = "PICLOUD_EXECUTOR", value_name = "MODE")]
    pub executor: Option<ExecutorMode>,
    /// Who people sign in by.
    #[command(flatten)]
    pub oidc: OidcArgs,
}

/// Where scripts run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecutorMode {
    /// On the threads of the server.
    InProcess,
    /// In supervised processes that can reach nothing by themselves.
    Process,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// For programs.
    Json,
}

/// Which server a command speaks to.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// The server's address; without it, the one that runs on this data directory
    #[arg(long, env = "PICLOUD_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// A key with the scope that the command needs
    #[arg(
        long,
        env = "PICLOUD_TOKEN",
        value_name = "KEY",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// The data directory of a server on this machine [default: .picloud]
    #[arg(long, env = "PICLOUD_DATA_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,
}

/// What commands take that only need a server.
#[derive(Debug, Clone, Args)]
pub struct RemoteArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Which server.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// What `history` takes.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// Only this source's
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub limit: u16,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `schedule` takes.
#[derive(Debug, Clone, Args)]
pub struct ScheduleArgs {
    /// Six fields as in crontab(5) with the second first, five without it, or @daily and the like
    #[arg(value_name = "EXPR", allow_hyphen_values = true)]
    pub expression: String,
    /// The time zone, an IANA name
    #[arg(long, value_name = "TZ", default_value = "UTC")]
    pub timezone: String,
    /// The instant after which times are shown (RFC 3339) [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// How many times
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub next: u32,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// What `secrets` does.
#[derive(Debug, Clone, Subcommand)]
pub enum SecretsCommand {
    /// Prints a new age identity for a server
    Keygen {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Prints what values are sealed to: age1…
    Recipient(RemoteArgs),
    /// Reads a value on standard input, prints it sealed
    Seal(SealArgs),
}

/// What `secrets seal` takes.
#[derive(Debug, Clone, Args)]
pub struct SealArgs {
    /// What to seal to; without it, the server is asked
    #[arg(long, value_name = "AGE1…")]
    pub recipient: Option<String>,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `sync` takes.
#[derive(Debug, Clone, Args)]
pub struct SyncArgs {
    /// The source; may be left out where there is only one
    pub source: Option<String>,
    /// Waits until it is live, or failed; this is what it does anyway
    #[arg(long, conflicts_with = "no_wait")]
    pub wait: bool,
    /// Only asks for it
    #[arg(long)]
    pub no_wait: bool,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `previews` does.
#[derive(Debug, Clone, Subcommand)]
pub enum PreviewsCommand {
    /// Lists the previews of a source, and what waits for an approval
    List {
        /// The source
        source: String,
        /// The server and the format.
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Lets the head of a fork's pull request have a preview
    Approve {
        /// The source
        source: String,
        /// As in `list`: `pr-7`
        slug: String,
        /// The server and the format.
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// What `init` takes.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Where the repository is or shall be
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// The app's name
    #[arg(long, default_value = "hello")]
    pub name: String,
}

/// What `test` takes.
#[derive(Debug, Clone, Args)]
pub struct TestArgs {
    /// The folder of the apps, or of one
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Runs those tests alone whose `app/tests/file.rhai::name` holds this
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Runs them again whenever a file changes
    #[arg(long)]
    pub watch: bool,
    /// Tests that run at the same time; without it, as many as there are processors
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = TestFormat::Human)]
    pub format: TestFormat,
}

/// How `test` prints its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TestFormat {
    /// For people
    Human,
    /// For programs
    Json,
    /// For continuous integration
    Junit,
}

/// What `validate` takes.
#[derive(Debug, Clone, Args)]
pub struct ValidateArgs {
    /// The tree: a folder, with or without git
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ValidateFormat,
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ValidateFormat {
    /// For people.
    #[default]
    Human,
    /// For programs.
    Json,
    /// Workflow commands of GitHub Actions.
    Github,
    /// SARIF 2.1.0.
    Sarif,
}

/// What `plan` takes.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// The tree: a folder, with or without git
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Compare with this revision of the repository, offline
    #[arg(long, value_name = "REV", conflicts_with = "source")]
    pub against: Option<String>,
    /// The source on the server that the tree is held against
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: PlanFormat,
    /// End with 3 where there are changes
    #[arg(long)]
    pub exit_code: bool,
    /// Which server.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// For people.
    #[default]
    Human,
    /// For programs.
    Json,
    /// For a pull request.
    Markdown,
}

/// What `schema` takes.
#[derive(Debug, Clone, Args)]
pub struct SchemaArgs {
    /// Which one
    #[arg(value_enum)]
    pub which: SchemaKind,
    /// Write files into this folder instead of printing
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}

/// What `schema` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaKind {
    /// The JSON Schema of app.yaml.
    App,
    /// The JSON Schema of picloud.yaml.
    Picloud,
    /// The OpenAPI document of the admin API.
    Openapi,
    /// Rhai definitions for editors.
    Rhai,
}

/// What `migrate` takes.
#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// PostgreSQL
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: String,
    /// Only list what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// What `doctor` takes.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Settings of the server.
    #[command(flatten)]
    pub server: ServerArgs,
}
