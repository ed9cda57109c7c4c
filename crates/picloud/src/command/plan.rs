//! `picloud plan`

use anyhow::{Context, Result, bail};
use picloud_executor_core::RhaiChecker;
use picloud_gitops_core::{
    EntryKind, LoadCache, LoadOptions, Loaded, Review, TreeReader, load, plan,
    render::{self, Layout},
    review::{Texts, wanted_texts},
};
use picloud_manager_core::git::{GitRepository, LocalPath};
use picloud_shared::{
    AppId, BlobId, Clock, SourceId, SystemClock,
    plan::{LiveApp, LiveState},
};

use super::{Ending, print, print_json, validate, wait};
use crate::{
    cli::{PlanArgs, PlanFormat},
    client::Client,
    folder_tree::FolderTree,
    terminal::{Style, printable, width},
};

/// Bytes of a script whose text is shown.
const MAX_SCRIPT: u64 = 256 << 10;

/// Shows what a tree would change.
pub fn run(args: &PlanArgs) -> Result<Ending> {
    let (changes, failed) = match &args.against {
        Some(revision) => offline(args, revision)?,
        None => online(args)?,
    };
    Ok(if failed {
        Ending::Failed
    } else if args.exit_code && changes {
        Ending::Changes
    } else {
        Ending::Done
    })
}

/// Against another revision of the same repository. Gives whether there are changes, and errors.
fn offline(args: &PlanArgs, revision: &str) -> Result<(bool, bool)> {
    let tree = FolderTree::open(&args.dir)?;
    let new = validate::read(&tree)?;
    let repository = GitRepository::open(&LocalPath::find(&args.dir)?)?;
    let old = at_revision(&repository, revision, tree.prefix())?;
    let source = SourceId::default();
    let mut live = LiveState::default();
    for (name, spec) in old.desired.apps {
        live.apps.insert(
            name,
            LiveApp {
                id: AppId::default(),
                source,
                pinned_commit: None,
                damaged: Vec::new(),
                spec,
            },
        );
    }
    let plan = plan(source, &new.desired, &live, new.settings.prune);
    let mut texts = Texts::new();
    for id in wanted_texts(&plan) {
        let text = tree.blob(&id, MAX_SCRIPT);
        let text = text.or_else(|_| repository.blob(&id, MAX_SCRIPT));
        if let Some(text) = text.ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
            texts.insert(id, text);
        }
    }
    let review = Review::new(&plan, &new.diagnostics, &texts, SystemClock.now());
    let layout = Layout {
        color: Style::stdout().is_on(),
        width: width(),
    };
    match args.format {
        PlanFormat::Human => {
            print(&render::human(&review.errors, layout.color))?;
            print(&render::terminal(&review, layout))?;
        }
        PlanFormat::Json => print_json(&render::json(&review))?,
        PlanFormat::Markdown => print(&render::markdown(&review))?,
    }
    Ok((!review.is_empty(), review.has_errors()))
}

fn at_revision(repository: &GitRepository, revision: &str, prefix: &str) -> Result<Loaded> {
    let Some(commit) = repository.resolve(revision)? else {
        bail!("--against: the repository has no revision `{revision}`");
    };
    let commit = repository.commit(&commit)?;
    let checker = RhaiChecker::new();
    let options = LoadOptions {
        path: prefix,
        checker: &checker,
        secrets: None,
    };
    load(
        repository,
        &commit.tree,
        &options,
        &mut LoadCache::default(),
    )
    .context("cannot read the revision")
}

/// Against what is live on a server.
fn online(args: &PlanArgs) -> Result<(bool, bool)> {
    let client = Client::connect(&args.connection)?;
    let tree = FolderTree::open(&args.dir)?;
    let archive = pack(&tree)?;
    let path = match &args.source {
        Some(source) => format!("/plan?source={}", crate::url_encode(source)),
        None => "/plan".to_owned(),
    };
    let answer = wait(client.post(&path, archive, "application/x-tar"))?;
    match args.format {
        PlanFormat::Json => print_json(&answer)?,
        PlanFormat::Markdown => print(answer["markdown"].as_str().unwrap_or_default())?,
        PlanFormat::Human => {
            let findings = serde_json::from_value(answer["errors"].clone())
                .context("the server's answer has another form")?;
            let findings: Vec<picloud_shared::Diagnostic> = findings;
            print(&render::human(&findings, Style::stdout().is_on()))?;
            print(&printable(answer["text"].as_str().unwrap_or_default()))?;
        }
    }
    let some = |field: &str| {
        answer[field]
            .as_array()
            .is_some_and(|items| !items.is_empty())
    };
    let failed = answer["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|finding| finding["severity"] == "error");
    Ok((some("changes"), failed))
}

/// The tree as a tar, by the paths that its files have in their repository.
fn pack(tree: &FolderTree) -> Result<Vec<u8>> {
    let mut root = tree.root_id();
    for part in tree.prefix().split('/').filter(|part| !part.is_empty()) {
        let entries = tree.tree(&root)?;
        let next = entries
            .into_iter()
            .find(|entry| entry.name == part.as_bytes());
        root = next
            .with_context(|| format!("{part} is ignored by git"))?
            .id;
    }
    let mut archive = tar::Builder::new(Vec::new());
    add(tree, &root, tree.prefix(), false, &mut archive)?;
    archive.into_inner().context("cannot pack the tree")
}

/// Adds what a plan is made of: apps with all that they hold, and settings.
fn add(
    tree: &FolderTree,
    id: &BlobId,
    prefix: &str,
    in_app: bool,
    archive: &mut tar::Builder<Vec<u8>>,
) -> Result<()> {
    let entries = tree.tree(id)?;
    let in_app = in_app || entries.iter().any(|entry| entry.name == b"app.yaml");
    for entry in entries {
        let Ok(name) = std::str::from_utf8(&entry.name) else {
            continue;
        };
        let path = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}/{name}")
        };
        match entry.kind {
            EntryKind::Tree => add(tree, &entry.id, &path, in_app, archive)?,
            EntryKind::File if !in_app && name != "picloud.yaml" => {}
            EntryKind::File => {
                let content = tree
                    .blob(&entry.id, 25 << 20)
                    .with_context(|| path.clone())?;
                put(archive, &path, &content)?;
            }
            // What the server says of them is told at their places.
            EntryKind::Symlink => {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                archive
                    .append_link(&mut header, &path, "elsewhere")
                    .with_context(|| path.clone())?;
            }
            EntryKind::Submodule => put(archive, &format!("{path}/.git"), b"")?,
        }
    }
    Ok(())
}

fn put(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive
        .append_data(&mut header, path, content)
        .with_context(|| path.to_owned())
}
