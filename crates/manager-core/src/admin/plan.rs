//! What a tree would change: a tar of it, or a revision of a source.

use std::{collections::BTreeMap, io::Read, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, header},
};
use picloud_gitops_core::{
    MapTree,
    render::{self, Layout},
};
use serde::Deserialize;

use super::{
    AdminState,
    access::{Authorized, PlanCreate},
    answer::{Answer, Problem},
};
use crate::{
    git::hash_blob,
    reconcile::{DeployError, Deployer},
};

/// Bytes of all files of an uploaded tree.
const MAX_UNPACKED: u64 = 256 << 20;
/// Files of an uploaded tree.
const MAX_FILES: usize = 50_000;

#[derive(Deserialize)]
pub(super) struct Which {
    source: Option<String>,
    /// Columns of the terminal that `text` is for.
    width: Option<usize>,
}

impl Which {
    fn width(&self) -> usize {
        self.width.unwrap_or(Layout::PLAIN.width).clamp(20, 1000)
    }
}

pub(super) async fn create(
    State(state): State<AdminState>,
    caller: Authorized<PlanCreate>,
    Query(which): Query<Which>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let deployer = source(&state, which.source.as_deref())?;
    let deployer = deployer.as_ref();
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if kind.starts_with("application/json") {
        return Err(Problem::invalid(
            "a plan of a revision is not available yet; send a tar of the tree (application/x-tar)",
        ));
    }
    let files = tokio::task::spawn_blocking(move || unpack(&body))
        .await
        .map_err(|error| Problem::unavailable(error.to_string()))??;
    let (tree, root) = MapTree::new(&files, hash_blob);
    let tree = Arc::new(tree);
    let unavailable = |error: DeployError| Problem::unavailable(error.to_string());
    let planned = deployer
        .plan_tree(Arc::clone(&tree), root, String::new())
        .await;
    let (plan, loaded) = planned.map_err(unavailable)?;
    let review = deployer.review(&plan, &loaded, tree).await;
    let mut review = review.map_err(unavailable)?;
    if let Some(only) = caller.only() {
        review = review.only(only);
    }
    let mut answer = render::json(&review);
    answer["text"] = render::terminal(
        &review,
        Layout {
            color: false,
            width: which.width(),
        },
    )
    .into();
    answer["markdown"] = render::markdown(&review).into();
    Ok(Json(answer))
}

fn source(state: &AdminState, name: Option<&str>) -> Answer<Arc<Deployer>> {
    let mut deployers = state.sources.all().into_iter();
    let found = match name {
        Some(name) => deployers.find(|deployer| deployer.source().name.as_str() == name),
        None => deployers.next(),
    };
    found.ok_or_else(|| Problem::not_found("source"))
}

/// The files of a tar, in memory. Links and paths that lead outside are refused.
fn unpack(body: &[u8]) -> Answer<BTreeMap<String, Vec<u8>>> {
    let broken =
        |error: std::io::Error| Problem::invalid(format!("the body is no tar of a tree: {error}"));
    let mut files = BTreeMap::new();
    let mut total = 0;
    let mut archive = tar::Archive::new(body);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        let path = String::from_utf8(entry.path_bytes().into_owned());
        let path = path.map_err(|_| Problem::invalid("the tar has a path that is not UTF-8"))?;
        let path = path
            .trim_start_matches("./")
            .trim_end_matches('/')
            .to_owned();
        if kind.is_dir() || path.is_empty() || matches!(kind, tar::EntryType::XGlobalHeader) {
            continue;
        }
        let bad = |part: &str| {
            part.is_empty() || part == "." || part == ".." || part.contains(['\0', '\\'])
        };
        if !kind.is_file() || path.split('/').any(bad) {
            return Err(Problem::invalid(format!(
                "the tar holds `{}`, which is no file of a tree",
                path.escape_debug()
            )));
        }
        total += entry.size();
        if total > MAX_UNPACKED || files.len() >= MAX_FILES {
            return Err(Problem::invalid(format!(
                "the tree has more than {MAX_UNPACKED} bytes or {MAX_FILES} files"
            )));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(broken)?;
        if files
            .keys()
            .any(|other: &String| path.starts_with(&format!("{other}/")))
        {
            return Err(Problem::invalid(format!("`{path}` lies below a file")));
        }
        files.insert(path, content);
    }
    Ok(files)
}
