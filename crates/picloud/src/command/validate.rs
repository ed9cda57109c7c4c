//! `picloud validate`

use anyhow::{Context, Result};
use picloud_executor_core::RhaiChecker;
use picloud_gitops_core::{LoadCache, LoadOptions, Loaded, load, render};
use serde_json::json;

use super::{Ending, print, print_json};
use crate::{
    cli::{ValidateArgs, ValidateFormat},
    folder_tree::FolderTree,
    terminal::Style,
};

/// Checks a tree, offline.
pub fn run(args: &ValidateArgs) -> Result<Ending> {
    let tree = FolderTree::open(&args.dir)?;
    let loaded = read(&tree)?;
    let findings = &loaded.diagnostics;
    match args.format {
        ValidateFormat::Human => print(&human(&loaded))?,
        ValidateFormat::Json => {
            print_json(
                &json!({ "valid": !loaded.has_errors(), "apps": loaded.desired.apps.len(), "errors": findings }),
            )?;
        }
        ValidateFormat::Github => print(&render::github(findings))?,
        ValidateFormat::Sarif => print_json(&render::sarif(findings, env!("CARGO_PKG_VERSION")))?,
    }
    Ok(if loaded.has_errors() {
        Ending::Failed
    } else {
        Ending::Done
    })
}

/// Reads a folder's tree.
pub fn read(tree: &FolderTree) -> Result<Loaded> {
    let checker = RhaiChecker::new();
    let options = LoadOptions {
        path: tree.prefix(),
        checker: &checker,
        secrets: None,
    };
    load(tree, &tree.root_id(), &options, &mut LoadCache::default()).context("cannot read the tree")
}

fn human(loaded: &Loaded) -> String {
    let style = Style::stdout();
    let mut out = render::human(&loaded.diagnostics, style.is_on());
    let apps = match loaded.desired.apps.len() {
        1 => "1 valid app".to_owned(),
        count => format!("{count} valid apps"),
    };
    let summary = format!("{apps}, {}", render::count(&loaded.diagnostics));
    let summary = if loaded.has_errors() {
        style.red(&summary)
    } else {
        style.green(&summary)
    };
    out.push_str(&summary);
    out.push('\n');
    out
}
