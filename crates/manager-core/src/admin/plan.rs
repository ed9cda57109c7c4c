//! What a tree would change: a tar of it, or a revision of a source.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    sync::Arc,
};

use axum::{
    Json,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, header},
};
use picloud_gitops_core::{
    EntryKind, MapTree, Review, app_name,
    render::{self, Layout},
};
use serde::Deserialize;

use super::{
    AdminState,
    access::{Authorized, PlanCreate},
    answer::{Answer, Problem, read},
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

/// A plan of a revision of a source's repository.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfRevision {
    source: String,
    revision: String,
}

pub(super) async fn create(
    State(state): State<AdminState>,
    caller: Authorized<PlanCreate>,
    Query(which): Query<Which>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    // A tar begins with a file's name, and isn't JSON after all.
    let is_json = kind.starts_with("application/json")
        || body.first() == Some(&b'{') && serde_json::from_slice::<OfRevision>(&body).is_ok();
    let mut review = if is_json {
        of_revision(&state, &body).await?
    } else {
        of_tree(&state, which.source.as_deref(), body).await?
    };
    if let Some(only) = caller.only() {
        review = review.only(only);
    }
    let layout = Layout {
        color: false,
        width: which.width(),
    };
    let mut answer = render::json(&review);
    answer["text"] = render::terminal(&review, layout).into();
    answer["markdown"] = render::markdown(&review).into();
    Ok(Json(answer))
}

fn unavailable(error: DeployError) -> Problem {
    match error {
        DeployError::NoSuchCommit(_) => Problem::invalid(error.to_string()),
        error => Problem::unavailable(error.to_string()),
    }
}

async fn of_revision(state: &AdminState, body: &Bytes) -> Answer<Review> {
    let body: OfRevision = read(body)?;
    let deployer = named(state, &body.source)?;
    let planned = deployer.review_revision(&body.revision).await;
    planned.map_err(unavailable)
}

async fn of_tree(state: &AdminState, source: Option<&str>, body: Bytes) -> Answer<Review> {
    let unpacked = tokio::task::spawn_blocking(move || Unpacked::read(&body))
        .await
        .map_err(|error| Problem::unavailable(error.to_string()))??;
    let deployer = match source {
        Some(name) => named(state, name)?,
        None => owner(state, &unpacked.files).await?,
    };
    let prefix = deployer.origin().prefix().to_owned();
    let unpacked = unpacked.below(&prefix);
    let (tree, root) = MapTree::with_links(&unpacked.files, &unpacked.links, hash_blob);
    let tree = Arc::new(tree);
    let planned = deployer.plan_tree(Arc::clone(&tree), root, prefix).await;
    let (plan, loaded) = planned.map_err(unavailable)?;
    let review = deployer.review(&plan, &loaded, tree).await;
    review.map_err(unavailable)
}

fn named(state: &AdminState, name: &str) -> Answer<Arc<Deployer>> {
    let mut deployers = state.sources.all().into_iter();
    let found = deployers.find(|deployer| {
        let source = deployer.source();
        source.name.as_str() == name || source.id.to_string() == name
    });
    found.ok_or_else(|| Problem::not_found("source"))
}

/// The source that a tree is held against where none is named: the one that owns most of the
/// tree's apps, or the only one that there is.
async fn owner(state: &AdminState, files: &BTreeMap<String, Vec<u8>>) -> Answer<Arc<Deployer>> {
    let deployers = state.sources.all();
    if let [only] = deployers.as_slice() {
        return Ok(Arc::clone(only));
    }
    let names: BTreeSet<String> = files
        .iter()
        .filter(|(path, _)| path.rsplit('/').next() == Some("app.yaml"))
        .filter_map(|(_, content)| app_name(std::str::from_utf8(content).ok()?))
        .collect();
    let live = state.kept.live.get(&state.store).await?;
    let owned = |deployer: &Arc<Deployer>| {
        let own = live.apps.iter().filter(|(name, app)| {
            app.source == deployer.source().id && names.contains(name.as_str())
        });
        own.count()
    };
    let best = deployers.iter().max_by_key(|deployer| owned(deployer));
    match best {
        Some(best) if owned(best) > 0 => Ok(Arc::clone(best)),
        Some(_) => Err(Problem::invalid(
            "no source owns an app of this tree: name the one that it is held against (`source`)",
        )),
        None => Err(Problem::not_found("source")),
    }
}

/// What a tar holds, in memory.
#[derive(Default)]
struct Unpacked {
    files: BTreeMap<String, Vec<u8>>,
    /// Links and submodules: what is wrong with them is a finding at their place.
    links: BTreeMap<String, EntryKind>,
}

impl Unpacked {
    /// Reads a tar. Paths that lead outside are refused.
    fn read(body: &[u8]) -> Answer<Self> {
        let broken = |error: std::io::Error| {
            Problem::invalid(format!("the body is no tar of a tree: {error}"))
        };
        let mut unpacked = Self::default();
        let mut total = 0;
        let mut archive = tar::Archive::new(body);
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let kind = entry.header().entry_type();
            let path = String::from_utf8(entry.path_bytes().into_owned());
            let path =
                path.map_err(|_| Problem::invalid("the tar has a path that is not UTF-8"))?;
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
            if !(kind.is_file() || kind.is_symlink()) || path.split('/').any(bad) {
                return Err(Problem::invalid(format!(
                    "the tar holds `{}`, which is no file of a tree",
                    path.escape_debug()
                )));
            }
            total += entry.size();
            if total > MAX_UNPACKED || unpacked.files.len() + unpacked.links.len() >= MAX_FILES {
                return Err(Problem::invalid(format!(
                    "the tree has more than {MAX_UNPACKED} bytes or {MAX_FILES} files"
                )));
            }
            if unpacked.is_below_a_file(&path) {
                return Err(Problem::invalid(format!("`{path}` lies below a file")));
            }
            // Git keeps no folder of that name: it is what a submodule's work tree has.
            if let Some(submodule) = path.strip_suffix("/.git") {
                let submodule = submodule.to_owned();
                unpacked.links.insert(submodule, EntryKind::Submodule);
            } else if kind.is_symlink() {
                unpacked.links.insert(path, EntryKind::Symlink);
            } else {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).map_err(broken)?;
                unpacked.files.insert(path, content);
            }
        }
        Ok(unpacked)
    }

    fn is_below_a_file(&self, path: &str) -> bool {
        let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        folders
            .into_iter()
            .any(|folder| self.files.contains_key(folder) || self.links.contains_key(folder))
    }

    /// The same as it lies in a source's repository. A tar may be of the whole repository, or of
    /// the source's folder alone.
    fn below(self, prefix: &str) -> Self {
        let inside = format!("{prefix}/");
        let has = |path: &String| path.starts_with(&inside);
        if prefix.is_empty() || self.files.keys().any(has) {
            return self;
        }
        let put = |path: String| format!("{inside}{path}");
        Self {
            files: self
                .files
                .into_iter()
                .map(|(path, content)| (put(path), content))
                .collect(),
            links: self
                .links
                .into_iter()
                .map(|(path, kind)| (put(path), kind))
                .collect(),
        }
    }
}
