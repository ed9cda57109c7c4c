//! From what is live back to files: the change of a tree that makes git declare what is live. The
//! files stay as they were written wherever nothing differs.

mod app_yaml;
mod overlay;
mod written;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use picloud_shared::{
    AppName, AppSpec, BlobId, Diagnostic, SourceId,
    drift::{DesiredApp, DriftItem},
    plan::LiveApp,
};

use self::overlay::Overlay;
use crate::{
    SourceSettings,
    drift::Pair,
    load::{self, LoadOptions},
    tree::{EntryKind, ReadError, TreeReader},
};

/// Bytes of a file that is read.
const MAX_FILE: u64 = 25 << 20;
/// Files of one app.
const MAX_FILES: usize = 20_000;

/// What is to be adopted: one app of one tree.
pub struct Adopt<'a> {
    /// Reads the tree.
    pub reader: &'a dyn TreeReader,
    /// The tree that the change is for.
    pub root: &'a BlobId,
    /// Whose app it is.
    pub source: SourceId,
    /// The name that git has for the app, or live where git has none.
    pub name: &'a AppName,
    /// What the last applied commit declares; `None`: it has no such app.
    pub desired: Option<&'a AppSpec>,
    /// What is live; `None`: the app is gone.
    pub live: Option<&'a LiveApp>,
    /// Contents that live has and git may lack.
    pub contents: &'a BTreeMap<BlobId, Vec<u8>>,
    /// Git's hash of a content.
    pub hash: &'a dyn Fn(&[u8]) -> BlobId,
}

/// Files that change, by path; `None`: it goes.
pub type Files = BTreeMap<String, Option<Vec<u8>>>;

/// The change of a tree.
#[derive(Debug, Clone, Default)]
pub struct Adoption {
    /// The files that change.
    pub files: Files,
    /// What differs still when they are changed: files can't say it.
    pub left: Vec<DriftItem>,
    /// What is wrong with what is live; a commit of it would be refused.
    pub errors: Vec<Diagnostic>,
}

/// The contents of live files that git may lack.
pub fn wanted_contents(desired: Option<&AppSpec>, live: Option<&LiveApp>) -> BTreeSet<BlobId> {
    let blobs = |spec: &AppSpec| {
        let scripts = spec.scripts.values().map(|script| script.blob.clone());
        let files = spec.static_files.values().map(|file| file.blob.clone());
        scripts.chain(files).collect::<BTreeSet<_>>()
    };
    let known = desired.map(blobs).unwrap_or_default();
    let live = live.map(|app| blobs(&app.spec)).unwrap_or_default();
    live.difference(&known).cloned().collect()
}

/// Makes the change. What is found wrong is in the result; an error is a repository that can't be
/// read.
pub fn adopt(ask: &Adopt<'_>, options: &LoadOptions<'_>) -> Result<Adoption, ReadError> {
    let settings = load::settings_of(ask.reader, ask.root, options.path)?;
    let dir = match (ask.desired, ask.live) {
        (Some(spec), _) => spec.dir.clone(),
        (None, Some(live)) => live.spec.dir.clone(),
        (None, None) => return Ok(Adoption::default()),
    };
    let before = list(ask.reader, ask.root, &dir)?;
    let Some(live) = ask.live else {
        let gone = before
            .into_keys()
            .map(|path| (load::join(&dir, &path), None));
        return Ok(Adoption {
            files: gone.collect(),
            ..Adoption::default()
        });
    };
    let manifest = match before.get("app.yaml") {
        Some((EntryKind::File, id)) => text(ask.reader.blob(id, MAX_FILE)?),
        _ => None,
    };
    if manifest.is_some() {
        // What can't be read is not written anew: it is mended first, by who knows what it meant.
        let found = check(ask, options, &settings, &dir, &before, Files::new())?;
        if !found.errors.is_empty() {
            return Ok(found);
        }
    }
    let mut best: Option<Adoption> = None;
    for precision in app_yaml::PRECISIONS {
        let Some(text) = app_yaml::rewrite(manifest.as_deref(), &live.spec, &settings, precision)
        else {
            continue;
        };
        let mut files = changed_files(ask, live, &before)?;
        if manifest.as_deref() != Some(text.as_str()) {
            files.insert("app.yaml".to_owned(), Some(text.into_bytes()));
        }
        let found = check(ask, options, &settings, &dir, &before, files)?;
        let is_good = found.left.is_empty() && found.errors.is_empty();
        let cost = |found: &Adoption| (found.errors.len(), found.left.len());
        if best.as_ref().is_none_or(|best| cost(&found) < cost(best)) {
            best = Some(found);
        }
        if is_good {
            break;
        }
    }
    Ok(best.unwrap_or_default())
}

fn text(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok()
}

/// All files below a folder, by their path below it.
fn list(
    reader: &dyn TreeReader,
    root: &BlobId,
    dir: &str,
) -> Result<BTreeMap<String, (EntryKind, BlobId)>, ReadError> {
    let mut found = BTreeMap::new();
    let Some(start) = load::descend(reader, root, dir)? else {
        return Ok(found);
    };
    let mut waiting = vec![(String::new(), start)];
    while let Some((path, tree)) = waiting.pop() {
        for entry in reader.tree(&tree)? {
            let Ok(name) = String::from_utf8(entry.name) else {
                continue;
            };
            let path = load::join(&path, &name);
            if entry.kind == EntryKind::Tree {
                waiting.push((path, entry.id));
            } else {
                found.insert(path, (entry.kind, entry.id));
            }
        }
        if found.len() > MAX_FILES {
            break;
        }
    }
    Ok(found)
}

/// Scripts and static files that differ, by their path below the app.
fn changed_files(
    ask: &Adopt<'_>,
    live: &LiveApp,
    before: &BTreeMap<String, (EntryKind, BlobId)>,
) -> Result<Files, ReadError> {
    let spec = &live.spec;
    let mut wanted: BTreeMap<String, &BlobId> = spec
        .scripts
        .iter()
        .map(|(path, script)| (path.as_str().to_owned(), &script.blob))
        .collect();
    let folder = spec.static_dir.as_deref();
    if let Some(folder) = folder {
        let files = spec.static_files.iter();
        wanted.extend(files.map(|(path, file)| (load::join(folder, path), &file.blob)));
    }
    let mut files = Files::new();
    for (path, blob) in &wanted {
        if before
            .get(path)
            .is_some_and(|(kind, id)| *kind == EntryKind::File && id == *blob)
        {
            continue;
        }
        let content = match ask.contents.get(*blob) {
            Some(content) => content.clone(),
            None => match ask.reader.blob(blob, MAX_FILE) {
                Ok(content) => content,
                // It is told as what is left.
                Err(ReadError::Missing { .. } | ReadError::TooLarge { .. }) => continue,
                Err(error) => return Err(error),
            },
        };
        files.insert(path.clone(), Some(content));
    }
    let is_own = |path: &str| {
        let script = path.starts_with("scripts/") || path.starts_with("modules/");
        let below = folder.and_then(|folder| path.strip_prefix(folder));
        script && path.ends_with(".rhai") || below.is_some_and(|rest| rest.starts_with('/'))
    };
    for path in before
        .keys()
        .filter(|path| is_own(path) && !wanted.contains_key(*path))
    {
        files.insert(path.clone(), None);
    }
    Ok(files)
}

/// Reads the app as it would be, and tells what differs still.
fn check(
    ask: &Adopt<'_>,
    options: &LoadOptions<'_>,
    settings: &SourceSettings,
    dir: &str,
    before: &BTreeMap<String, (EntryKind, BlobId)>,
    files: Files,
) -> Result<Adoption, ReadError> {
    let overlay = Overlay::new(ask.reader, before, &files, ask.hash);
    let app = load::load_app(&overlay, &overlay.root(), dir, settings, options)?;
    let (spec, findings) = match app {
        Some(app) => (app.spec, app.findings),
        None => (None, Vec::new()),
    };
    let pair = |spec: Option<&DesiredApp>| {
        Pair {
            desired: spec,
            live: ask.live,
        }
        .items(ask.source, ask.name)
    };
    // What can't be read is as far from live as it was before.
    let reached = spec.or_else(|| ask.desired.cloned().map(Arc::new));
    let desired = reached.zip(ask.live).map(|(spec, live)| DesiredApp {
        id: live.id,
        pinned_commit: None,
        spec,
    });
    Ok(Adoption {
        left: pair(desired.as_ref()),
        errors: findings.into_iter().filter(Diagnostic::is_error).collect(),
        files: files
            .into_iter()
            .map(|(path, content)| (load::join(dir, &path), content))
            .collect(),
    })
}
