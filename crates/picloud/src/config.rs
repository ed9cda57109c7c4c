//! Configuration, parsed whole before anything binds: flags, then variables, then a TOML file,
//! then defaults.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use picloud_manager_core::{Signers, oidc::OidcSettings};
use picloud_orchestrator_core::RecorderOptions;
use picloud_shared::{SourceName, duration};
use serde::Deserialize;

use crate::{
    cli::{ExecutorMode, LogFormat, Role, ServerArgs},
    oidc_config::{self, OidcFile},
};

/// The settings of a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where to listen; port 0 picks one.
    pub listen: SocketAddr,
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// `None`: a private PostgreSQL below the data directory.
    pub database_url: Option<String>,
    /// The owner key that was given; `None`: one is made.
    pub admin_token: Option<String>,
    /// Apps are also served at `{app}.{base_domain}`.
    pub base_domain: String,
    /// Written once the first deployment is served.
    pub ready_file: Option<PathBuf>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// How the log is written.
    pub log_format: LogFormat,
    /// Whether scripts may reach private addresses.
    pub http_allow_private: bool,
    /// The keys that open secrets; `None`: those of the data directory.
    pub secrets_key_file: Option<PathBuf>,
    /// Where scripts run; `None`: as the command has it.
    pub executor: Option<ExecutorMode>,
    /// Bytes of a webhook's delivery.
    pub webhook_max_body: usize,
    /// How many days history is kept.
    pub history_days: u64,
    /// Successful HTTP runs of an app that are recorded in a second; all are counted.
    pub record_rate: u64,
    /// Whose signatures of commits count, by source.
    pub signers: BTreeMap<SourceName, Signers>,
    /// Who people sign in by without a key.
    pub oidc: Option<OidcSettings>,
    /// What this process does.
    pub roles: Roles,
}

/// What a process of a cluster does. All of them together are one platform on one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// The control plane: sources, deployments, cron, hosted repositories, the admin API.
    pub manager: bool,
    /// Serves the apps' endpoints; their scripts run where their requests are.
    pub orchestrator: bool,
    /// Runs what is asynchronous: the events of the outbox.
    pub executor: bool,
}

impl Roles {
    /// Their names.
    pub fn names(self) -> Vec<String> {
        let all = [
            (self.manager, "manager"),
            (self.orchestrator, "orchestrator"),
            (self.executor, "executor"),
        ];
        let held = all.into_iter().filter(|(held, _)| *held);
        held.map(|(_, name)| name.to_owned()).collect()
    }

    /// Everything in one process.
    pub const ALL: Self = Self {
        manager: true,
        orchestrator: true,
        executor: true,
    };

    /// Those that are listed; `all` is all of them.
    pub fn of(listed: &[Role]) -> Self {
        let has = |role| listed.contains(&Role::All) || listed.contains(&role);
        Self {
            manager: has(Role::Manager),
            orchestrator: has(Role::Orchestrator),
            executor: has(Role::Executor),
        }
    }
}

/// The same settings in a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    listen: Option<String>,
    data_dir: Option<PathBuf>,
    database_url: Option<String>,
    admin_token: Option<String>,
    base_domain: Option<String>,
    ready_file: Option<PathBuf>,
    trusted_proxies: Option<Vec<IpAddr>>,
    log_format: Option<LogFormat>,
    http_allow_private: Option<bool>,
    secrets_key_file: Option<PathBuf>,
    executor: Option<ExecutorMode>,
    webhook_max_body: Option<String>,
    history_retention: Option<String>,
    record_rate: Option<u64>,
    #[serde(default)]
    oidc: OidcFile,
    #[serde(default)]
    sources: BTreeMap<String, SourceFile>,
}

/// What the file says of a source.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceFile {
    #[serde(default)]
    allowed_signers: Vec<String>,
    #[serde(default)]
    gpg_keys: Vec<String>,
}

/// The data directory where none is named.
pub const DEFAULT_DATA_DIR: &str = ".picloud";
/// How many days history is kept where nothing is said.
const HISTORY_DAYS: u64 = 30;
/// The address where none is named.
const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

impl ServerConfig {
    /// Merges what was given, and says everything that is wrong with it at once.
    pub fn resolve(args: &ServerArgs) -> Result<Self> {
        let file = match &args.config {
            Some(path) => read_file(path)?,
            None => ConfigFile::default(),
        };
        let mut problems = Vec::new();
        let listen = args.listen.clone().or(file.listen);
        let listen = parse_listen(listen.as_deref().unwrap_or(DEFAULT_LISTEN))
            .map_err(|error| problems.push(error))
            .ok();
        let base_domain = args.base_domain.clone().or(file.base_domain);
        let base_domain = parse_host(base_domain.as_deref().unwrap_or("localhost"))
            .map_err(|error| problems.push(error))
            .ok();
        let admin_token = non_empty(args.admin_token.clone().or(file.admin_token));
        if let Some(Err(error)) = admin_token.as_deref().map(check_token) {
            problems.push(error);
        }
        let max_body = args.webhook_max_body.clone().or(file.webhook_max_body);
        let webhook_max_body = parse_size(max_body.as_deref())
            .map_err(|error| problems.push(error))
            .unwrap_or_default();
        let retention = args.history_retention.clone().or(file.history_retention);
        let history_days = parse_retention(retention.as_deref())
            .map_err(|error| problems.push(error))
            .unwrap_or_default();
        let signers = signers(file.sources, &mut problems);
        let oidc = oidc_config::resolve(&args.oidc, file.oidc, &mut problems);
        let (Some(listen), Some(base_domain), true) = (listen, base_domain, problems.is_empty())
        else {
            let lines: Vec<String> = problems
                .iter()
                .map(|problem| format!("  {problem:#}"))
                .collect();
            bail!("the configuration has errors:\n{}", lines.join("\n"));
        };
        let data_dir = args.data_dir.clone().or(file.data_dir);
        Ok(Self {
            listen,
            data_dir: data_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR)),
            database_url: non_empty(args.database_url.clone().or(file.database_url)),
            admin_token,
            base_domain,
            ready_file: args.ready_file.clone().or(file.ready_file),
            trusted_proxies: args
                .trusted_proxies
                .clone()
                .or(file.trusted_proxies)
                .unwrap_or_default(),
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
            secrets_key_file: args.secrets_key_file.clone().or(file.secrets_key_file),
            executor: args.executor.or(file.executor),
            http_allow_private: allow_private().or(file.http_allow_private).unwrap_or(false),
            webhook_max_body,
            history_days,
            record_rate: args
                .record_rate
                .or(file.record_rate)
                .unwrap_or(RecorderOptions::default().successes_a_second),
            signers,
            oidc,
            roles: Roles::ALL,
        })
    }
}

/// Checked for what is sure to be a mistake; the keys themselves are read by ssh-keygen and gpg.
fn signers(
    sources: BTreeMap<String, SourceFile>,
    problems: &mut Vec<anyhow::Error>,
) -> BTreeMap<SourceName, Signers> {
    let mut all = BTreeMap::new();
    for (name, file) in sources {
        let Ok(source) = name.parse::<SourceName>() else {
            problems.push(anyhow!("sources.{name}: this is no name of a source"));
            continue;
        };
        for line in &file.allowed_signers {
            if line.split_whitespace().count() < 3 || line.contains('\n') {
                problems.push(anyhow!(
                    "sources.{name}.allowed_signers: expected `NAME KEY-TYPE KEY`, as in `alice@example.com ssh-ed25519 AAAA…`; got {line:?}"
                ));
            }
        }
        if file
            .gpg_keys
            .iter()
            .any(|key| !key.contains("BEGIN PGP PUBLIC KEY BLOCK"))
        {
            problems.push(anyhow!(
                "sources.{name}.gpg_keys: expected armored keys, as `gpg --armor --export` prints them"
            ));
        }
        let signers = Signers {
            ssh: file.allowed_signers,
            gpg: file.gpg_keys,
        };
        all.insert(source, signers);
    }
    all
}

fn read_file(path: &Path) -> Result<ConfigFile> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
    toml::from_str(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// Just a variable, so that nobody sets it in passing on a command line.
fn allow_private() -> Option<bool> {
    let value = std::env::var("PICLOUD_HTTP_ALLOW_PRIVATE").ok()?;
    match value.as_str() {
        "" => None,
        value => Some(matches!(value, "1" | "true" | "yes")),
    }
}

/// A variable that is set but empty counts as absent, as in a compose file.
fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn parse_listen(text: &str) -> Result<SocketAddr> {
    let hint = "--listen: expected ADDRESS:PORT, like 127.0.0.1:8080 or [::]:80";
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    text.to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| anyhow!("{hint}; got {text:?}"))
}

fn parse_host(text: &str) -> Result<String> {
    let host = text.trim_end_matches('.').to_ascii_lowercase();
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if host.len() <= 253 && host.split('.').all(label) {
        Ok(host)
    } else {
        Err(anyhow!(
            "--base-domain: expected a host name without scheme or port; got {text:?}"
        ))
    }
}

fn parse_size(text: Option<&str>) -> Result<usize> {
    let Some(text) = text else {
        return Ok(picloud_manager_core::webhooks::DEFAULT_MAX_BODY);
    };
    picloud_gitops_core::units::bytes(text)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| (1 << 10..=1 << 30).contains(bytes))
        .ok_or_else(|| {
            anyhow!(
                "--webhook-max-body: expected a size from 1KiB to 1GiB, like 25MiB; got {text:?}"
            )
        })
}

/// Whole days: history is dropped by the day.
fn parse_retention(text: Option<&str>) -> Result<u64> {
    const DAY: u64 = 86_400_000;
    let Some(text) = text else {
        return Ok(HISTORY_DAYS);
    };
    duration::milliseconds(text)
        .filter(|ms| ms % DAY == 0)
        .map(|ms| ms / DAY)
        .filter(|days| (1..=3650).contains(days))
        .ok_or_else(|| {
            anyhow!("--history-retention: expected days from 1d to 3650d, like 30d; got {text:?}")
        })
}

/// Characters of an owner key that nobody guesses. A shorter one is refused in production.
pub const LONG_TOKEN: usize = 16;

fn check_token(token: &str) -> Result<()> {
    let plain = token.bytes().all(|b| b.is_ascii_graphic());
    if plain && (1..=256).contains(&token.len()) {
        Ok(())
    } else {
        Err(anyhow!(
            "PICLOUD_ADMIN_TOKEN: expected at most 256 printable characters without spaces (make one with `openssl rand -hex 32`)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ServerArgs {
        ServerArgs::default()
    }

    #[test]
    fn defaults() {
        let config = ServerConfig::resolve(&args()).expect("defaults are good");
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.data_dir, PathBuf::from(".picloud"));
        assert_eq!(config.base_domain, "localhost");
        assert_eq!(config.database_url, None);
        assert_eq!((config.history_days, config.record_rate), (30, 50));
    }

    #[test]
    fn every_error_is_reported_at_once() {
        let bad = ServerArgs {
            listen: Some("nowhere".into()),
            base_domain: Some("https://x".into()),
            admin_token: Some("two words".into()),
            history_retention: Some("36h".into()),
            ..args()
        };
        let message = ServerConfig::resolve(&bad)
            .expect_err("three errors")
            .to_string();
        for part in [
            "--listen",
            "--base-domain",
            "PICLOUD_ADMIN_TOKEN",
            "--history-retention",
        ] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    #[test]
    fn a_file_gives_way_to_flags_and_its_errors_have_a_place() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("picloud.toml");
        std::fs::write(
            &path,
            "listen = '127.0.0.1:1'\nbase_domain = 'example.com'\nhistory_retention = '7d'\nrecord_rate = 5\n",
        )
        .expect("written");
        let given = ServerArgs {
            config: Some(path.clone()),
            listen: Some("127.0.0.1:2".into()),
            record_rate: Some(0),
            ..args()
        };
        let config = ServerConfig::resolve(&given).expect("good");
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.base_domain, "example.com");
        assert_eq!((config.history_days, config.record_rate), (7, 0));
        std::fs::write(&path, "listne = 'x'\n").expect("written");
        let message = ServerConfig::resolve(&given)
            .expect_err("unknown key")
            .to_string();
        assert!(
            message.contains("listne") && message.contains("line 1"),
            "{message}"
        );
    }
}
