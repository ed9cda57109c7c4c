//! What is said of keys.

use clap::{Args, Subcommand, ValueHint};

use super::RemoteArgs;

/// What `keys` does.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Lists the keys, without what they are
    List(RemoteArgs),
    /// Makes a key and prints it, this once
    Create(CreateKeyArgs),
    /// Ends a key and its sessions
    Revoke {
        /// Its id or its name
        key: String,
        /// The server and the format.
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// What `keys create` takes.
#[derive(Debug, Clone, Args)]
pub struct CreateKeyArgs {
    /// What people know it by
    pub name: String,
    /// What it may do; may be given several times, or with commas between
    #[arg(
        long = "scope",
        value_name = "SCOPE",
        required = true,
        value_delimiter = ','
    )]
    pub scopes: Vec<String>,
    /// The only app that it may touch; without it, all
    #[arg(long, value_name = "APP")]
    pub app: Option<String>,
    /// When it ends, as RFC 3339
    #[arg(long, value_name = "TIME")]
    pub expires_at: Option<String>,
    /// The server and the format.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What `login` takes.
#[derive(Debug, Clone, Args)]
pub struct LoginArgs {
    /// The server's address; without it, the one that runs on this machine
    #[arg(long, env = "PICLOUD_SERVER", value_name = "URL", value_hint = ValueHint::Url)]
    pub server: Option<String>,
    /// What the server's people see of this machine [default: the user and the host]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// What the key may do; without it, whatever the person may who lets it in
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// The data directory of a server on this machine [default: .picloud]
    #[arg(long, env = "PICLOUD_DATA_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<std::path::PathBuf>,
}

/// What `logout` takes.
#[derive(Debug, Clone, Args)]
pub struct LogoutArgs {
    /// The server's address; without it, the one that `login` was last used with
    #[arg(long, env = "PICLOUD_SERVER", value_name = "URL", value_hint = ValueHint::Url)]
    pub server: Option<String>,
}
