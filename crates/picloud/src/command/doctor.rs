//! `picloud doctor`

use std::process::Command;

use anyhow::Result;
use picloud_store::Store;
use serde_json::json;

use super::{Ending, print, print_json, wait};
use crate::{
    cli::{DoctorArgs, Format},
    config::ServerConfig,
    terminal::Style,
};

struct Check {
    what: &'static str,
    good: bool,
    detail: String,
}

/// Checks this machine and the configuration.
pub fn run(args: &DoctorArgs) -> Result<Ending> {
    let config = ServerConfig::resolve(&args.server)?;
    let mut checks = vec![git(), data_dir(&config), port(&config)];
    checks.push(match &config.database_url {
        Some(url) => database(url),
        None => private_postgres(&config),
    });
    let good = checks.iter().all(|check| check.good);
    if args.format == Format::Json {
        let items: Vec<_> = checks
            .iter()
            .map(|check| json!({ "check": check.what, "ok": check.good, "detail": check.detail }))
            .collect();
        print_json(&json!({ "ok": good, "checks": items }))?;
    } else {
        let style = Style::stdout();
        for check in &checks {
            let mark = if check.good {
                style.green("ok  ")
            } else {
                style.red("fail")
            };
            print(&format!("{mark}  {:<16} {}\n", check.what, check.detail))?;
        }
    }
    Ok(if good { Ending::Done } else { Ending::Failed })
}

fn git() -> Check {
    let output = Command::new("git").arg("--version").output();
    let (good, detail) = match output {
        Ok(output) if output.status.success() => (
            true,
            String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        ),
        _ => (
            false,
            "git is not installed (Debian, Ubuntu: `apt-get install git`)".to_owned(),
        ),
    };
    Check {
        what: "git",
        good,
        detail,
    }
}

fn data_dir(config: &ServerConfig) -> Check {
    let path = config.data_dir.display();
    let (good, detail) = match std::fs::metadata(&config.data_dir) {
        Ok(metadata) if metadata.is_dir() => (true, format!("{path}")),
        Ok(_) => (false, format!("{path} is not a folder")),
        Err(_) => (true, format!("{path} will be created")),
    };
    Check {
        what: "data directory",
        good,
        detail,
    }
}

fn port(config: &ServerConfig) -> Check {
    let own = crate::client::running(Some(&config.data_dir)).ok();
    let own = own.filter(|own| own.url == format!("http://{}", config.listen));
    let (good, detail) = match std::net::TcpListener::bind(config.listen) {
        Ok(_) => (true, format!("{} is free", config.listen)),
        // What it is there for.
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && own.is_some() => {
            let pid = own.map_or(0, |own| own.pid);
            (
                true,
                format!("{}: the server {pid} runs there", config.listen),
            )
        }
        Err(error) => (
            false,
            format!("{}: {error}; a server may run there already", config.listen),
        ),
    };
    Check {
        what: "address",
        good,
        detail,
    }
}

fn database(url: &str) -> Check {
    let asked = wait(async {
        let store = Store::connect(url, crate::server::store_options(1)).await?;
        Ok(store.pending_migrations().await?.len())
    });
    let (good, detail) = match asked {
        Ok(0) => (true, "reached, and up to date".to_owned()),
        Ok(pending) => (
            true,
            format!("reached; {pending} migrations are pending (`picloud migrate`)"),
        ),
        Err(error) => (false, format!("{error:#}")),
    };
    Check {
        what: "database",
        good,
        detail,
    }
}

fn private_postgres(config: &ServerConfig) -> Check {
    let found = crate::private_postgres::programs(&config.data_dir);
    let (good, detail) = match found {
        Ok(path) => (true, format!("a private one, by {}", path.display())),
        Err(error) => (false, error.to_string()),
    };
    Check {
        what: "database",
        good,
        detail,
    }
}
