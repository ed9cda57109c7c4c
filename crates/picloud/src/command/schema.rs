//! `picloud schema`

use anyhow::{Context, Result};

use super::{Ending, print};
use crate::cli::{SchemaArgs, SchemaKind};

/// Prints a schema, or writes it into a folder.
pub fn run(args: &SchemaArgs) -> Result<Ending> {
    let (name, text) = match args.which {
        SchemaKind::App => (
            "app.schema.json",
            pretty(&picloud_gitops_core::schema::app())?,
        ),
        SchemaKind::Picloud => (
            "picloud.schema.json",
            pretty(&picloud_gitops_core::schema::picloud())?,
        ),
        SchemaKind::Openapi => (
            "openapi.json",
            pretty(&picloud_manager_core::admin::openapi::document())?,
        ),
        SchemaKind::Rhai => ("picloud.d.rhai", picloud_executor_core::rhai_definitions()),
    };
    match &args.out {
        None => print(&text)?,
        Some(dir) => {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot create {}", dir.display()))?;
            let path = dir.join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
            print(&format!("{}\n", path.display()))?;
        }
    }
    Ok(Ending::Done)
}

fn pretty(value: &serde_json::Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(value).context("cannot write JSON")? + "\n")
}
