//! `picloud wait`

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use picloud_gitops_core::render;
use picloud_shared::{Diagnostic, duration};
use serde_json::Value;

use super::{Ending, print, print_json, short, sync::outcome, text, wait};
use crate::{
    cli::{Format, WaitArgs},
    client::Client,
    terminal::Style,
};

/// Between two looks; rises to the second.
const PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// Waits until a commit is live or failed.
pub fn run(args: &WaitArgs) -> Result<Ending> {
    let timeout = duration::milliseconds(&args.timeout).map(Duration::from_millis);
    let timeout = timeout.context("--timeout must be a time like 30s or 5m")?;
    let wanted = Wanted::parse(&args.commit)?;
    let client = Client::connect(&args.remote.connection)?;
    let found = wait(until_settled(&client, &wanted, args, timeout))?;
    if args.remote.format == Format::Json {
        print_json(&found)?;
    } else {
        let findings: Vec<Diagnostic> =
            serde_json::from_value(found["errors"].clone()).unwrap_or_default();
        let style = Style::stdout();
        print(&render::human(&findings, style.is_on()))?;
        print(&outcome(&found, style))?;
    }
    Ok(if found["status"] == "synced" {
        Ending::Done
    } else {
        Ending::Failed
    })
}

/// A commit as it was named, and the repository here, where it is known.
struct Wanted {
    prefix: String,
    repository: Option<git2::Repository>,
}

impl Wanted {
    fn parse(named: &str) -> Result<Self> {
        let repository = git2::Repository::discover(".").ok();
        let here = repository.as_ref().and_then(|repository| {
            let object = repository.revparse_single(named).ok()?;
            Some(object.peel_to_commit().ok()?.id().to_string())
        });
        let digits = named.len() >= 4 && named.bytes().all(|byte| byte.is_ascii_hexdigit());
        let prefix = match here {
            Some(id) => id,
            None if digits => named.to_ascii_lowercase(),
            None => bail!(
                "`{named}` is no commit: give its id, at least four digits of it, or a revision of the repository here"
            ),
        };
        Ok(Self { prefix, repository })
    }

    fn is(&self, commit: &str) -> bool {
        commit.starts_with(&self.prefix)
    }

    /// Whether a commit contains the wanted one, as far as the repository here knows.
    fn is_within(&self, commit: &str) -> bool {
        let contains = || {
            let repository = self.repository.as_ref()?;
            let wanted = repository.revparse_single(&self.prefix).ok()?.id();
            let commit = git2::Oid::from_str(commit).ok()?;
            repository.graph_descendant_of(commit, wanted).ok()
        };
        contains().unwrap_or(false)
    }
}

/// Whether the last that was chosen for the source of a deployment is another commit.
fn is_rolled_back(items: &[Value], found: &Value) -> bool {
    let of_source = |item: &&Value| item["source"] == found["source"] && item["reason"] != "heal";
    let newest = items.iter().find(of_source);
    newest
        .is_some_and(|newest| newest["reason"] == "rollback" && newest["commit"] != found["commit"])
}

async fn until_settled(
    client: &Client,
    wanted: &Wanted,
    args: &WaitArgs,
    timeout: Duration,
) -> Result<Value> {
    let began = Instant::now();
    let mut pause = PAUSE;
    let mut told = String::new();
    let source = args.source.as_deref();
    let of = source.map_or_else(String::new, |name| {
        format!("&source={}", crate::url_encode(name))
    });
    loop {
        let page = client.get(&format!("/deployments?limit=100{of}")).await?;
        let items = page["items"].as_array().cloned().unwrap_or_default();
        let mut state = "not seen yet".to_owned();
        if let Some(found) = items.iter().find(|item| wanted.is(&text(item, "commit"))) {
            match found["status"].as_str() {
                Some("applying" | "held" | "waiting") => state = text(found, "status"),
                // It was live, and somebody went back from it since.
                Some("synced" | "partial") if is_rolled_back(&items, found) => {
                    "rolled back".clone_into(&mut state);
                }
                _ => return Ok(found.clone()),
            }
        }
        // The newest wins: a commit that came with others is live with the last of them.
        let later = items
            .iter()
            .find(|item| item["status"] == "synced" && wanted.is_within(&text(item, "commit")));
        if let Some(later) = later {
            return Ok(later.clone());
        }
        if began.elapsed() >= timeout {
            bail!(
                "{} is not live after {}: {state}",
                short(&wanted.prefix),
                args.timeout
            );
        }
        if state != told && !matches!(state.as_str(), "not seen yet" | "applying") {
            crate::complain(&format!("{} is {state}\n", short(&wanted.prefix)));
            told = state;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}
