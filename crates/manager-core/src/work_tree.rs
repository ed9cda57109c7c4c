//! `picloud dev`: the files of a folder, as they are saved. Each state becomes a commit in a
//! repository of ours, so that all the rest is the same as for any other commit.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use git2::{FileMode, Oid, Repository, Signature, Time};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use picloud_shared::Clock;
use tokio::sync::Notify;

use crate::{
    git::{GitError, LocalPath},
    mirror::make_bare,
};

/// An editor writes a file in several steps; they are waited for.
const SETTLE: Duration = Duration::from_millis(25);
/// Saving without end doesn't put a deployment off for longer than this.
const MAX_SETTLE: Duration = Duration::from_millis(200);
/// It is looked at this often in any case: a notification can be lost.
const SWEEP: Duration = Duration::from_secs(10);
/// Files of a folder; above it somebody pointed at the wrong folder.
const MAX_FILES: usize = 100_000;
const REFERENCE: &str = "refs/heads/main";

/// A folder whose files are deployed as they are saved.
pub struct WorkTree {
    /// The repository's root, or the folder itself outside of any.
    root: PathBuf,
    prefix: String,
    git_dir: PathBuf,
    clock: Arc<dyn Clock>,
    known: Arc<Mutex<Known>>,
    changed: Arc<Notify>,
    // Stops when it is dropped.
    _watcher: Option<RecommendedWatcher>,
}

/// What is written already: files are read again only when their metadata changed.
#[derive(Default)]
struct Known {
    files: HashMap<PathBuf, (Stamp, Oid)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl WorkTree {
    /// Watches a folder; commits go into a bare repository at `git_dir`.
    pub fn new(dir: &Path, git_dir: PathBuf, clock: Arc<dyn Clock>) -> Result<Self, GitError> {
        let shown = dir.display().to_string();
        let full = dir.canonicalize().map_err(|_| GitError::NotARepository {
            path: shown.clone(),
        })?;
        let root = Repository::discover(&full)
            .ok()
            .and_then(|repository| repository.workdir()?.canonicalize().ok())
            .filter(|root| full.starts_with(root))
            .unwrap_or_else(|| full.clone());
        let prefix = full.strip_prefix(&root).unwrap_or(Path::new(""));
        let prefix = prefix.to_str().ok_or(GitError::NotUtf8(shown))?.to_owned();
        let changed = Arc::new(Notify::new());
        let watcher = watcher(&full, &changed)
            .inspect_err(|error| {
                tracing::warn!(%error, seconds = SWEEP.as_secs(), "the folder cannot be watched; it is looked at every so often");
            })
            .ok();
        Ok(Self {
            root,
            prefix,
            git_dir,
            clock,
            known: Arc::default(),
            changed,
            _watcher: watcher,
        })
    }

    /// The folder below the repository's root.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where commits are written.
    pub(crate) fn at_rest(&self) -> LocalPath {
        LocalPath {
            git_dir: self.git_dir.clone(),
            common_dir: self.git_dir.clone(),
            prefix: self.prefix.clone(),
        }
    }

    /// Waits until files may have changed, and are at rest.
    pub(crate) async fn changed(&self) {
        let told = tokio::time::timeout(SWEEP, self.changed.notified()).await;
        if told.is_err() {
            return;
        }
        let settled = async {
            while tokio::time::timeout(SETTLE, self.changed.notified())
                .await
                .is_ok()
            {}
        };
        // Saved without end: what there is is looked at.
        let _ = tokio::time::timeout(MAX_SETTLE, settled).await;
    }

    /// Writes the files as a commit, if they differ from the last one.
    pub(crate) async fn commit(&self) -> Result<LocalPath, GitError> {
        let path = self.at_rest();
        let writer = Writer {
            root: self.root.clone(),
            prefix: PathBuf::from(&self.prefix),
            git_dir: self.git_dir.clone(),
            now: self.clock.now().timestamp(),
        };
        let known = Arc::clone(&self.known);
        let written = tokio::task::spawn_blocking(move || writer.write(&mut known.lock()));
        written
            .await
            .map_err(|error| GitError::Remote(error.to_string()))??;
        Ok(path)
    }
}

fn watcher(dir: &Path, changed: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let wake = Arc::clone(changed);
    let mut watcher =
        notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            Ok(event) if event.paths.iter().all(|path| in_git_dir(path)) => {}
            // A watch that failed is a reason to look, too.
            _ => wake.notify_one(),
        })?;
    watcher.watch(dir, RecursiveMode::Recursive)?;
    Ok(watcher)
}

fn in_git_dir(path: &Path) -> bool {
    path.components()
        .any(|part| part.as_os_str() == ".git" || part.as_os_str() == ".picloud")
}

struct Writer {
    root: PathBuf,
    prefix: PathBuf,
    git_dir: PathBuf,
    now: i64,
}

impl Writer {
    fn write(&self, known: &mut Known) -> Result<(), GitError> {
        make_bare(&self.git_dir)?;
        let repository = Repository::open(&self.git_dir)?;
        // Which files are ignored is said by the repository that the folder is in.
        let outer = Repository::discover(&self.root).ok();
        let mut seen = HashMap::with_capacity(known.files.len());
        let mut tree = self.folder(&repository, outer.as_ref(), &self.prefix, known, &mut seen)?;
        known.files = seen;
        for name in self.prefix.ancestors().filter_map(Path::file_name) {
            let mut above = repository.treebuilder(None)?;
            above.insert(name.as_bytes(), tree, FileMode::Tree.into())?;
            tree = above.write()?;
        }
        let parent = repository
            .find_reference(REFERENCE)
            .and_then(|reference| reference.peel_to_commit())
            .ok();
        let unchanged = parent
            .as_ref()
            .is_some_and(|parent| parent.tree_id() == tree);
        if unchanged {
            return Ok(());
        }
        let who = Signature::new("work tree", "dev@localhost", &Time::new(self.now, 0))?;
        let tree_object = repository.find_tree(tree)?;
        repository.commit(
            Some(REFERENCE),
            &who,
            &who,
            "saved files",
            &tree_object,
            &parent.iter().collect::<Vec<_>>(),
        )?;
        Ok(())
    }

    fn folder(
        &self,
        repository: &Repository,
        outer: Option<&Repository>,
        path: &Path,
        known: &Known,
        seen: &mut HashMap<PathBuf, (Stamp, Oid)>,
    ) -> Result<Oid, GitError> {
        let full = self.root.join(path);
        let mut builder = repository.treebuilder(None)?;
        let mut entries = BTreeMap::new();
        for item in fs::read_dir(&full).map_err(|error| unreadable(&full, &error))? {
            let item = item.map_err(|error| unreadable(&full, &error))?;
            entries.insert(item.file_name(), item.path());
        }
        for (name, full) in entries {
            let below = path.join(&name);
            let ignored = outer.is_some_and(|outer| outer.is_path_ignored(&below).unwrap_or(false));
            if ignored || name == ".git" || name == ".picloud" {
                continue;
            }
            // What was removed in between is not there.
            let Ok(metadata) = fs::symlink_metadata(&full) else {
                continue;
            };
            let (oid, mode) = if metadata.is_symlink() {
                let Ok(target) = fs::read_link(&full) else {
                    continue;
                };
                let oid = repository.blob(target.as_os_str().as_bytes())?;
                (oid, FileMode::Link)
            } else if metadata.is_dir() && full.join(".git").exists() {
                (Oid::from_bytes(&[1; 20])?, FileMode::Commit)
            } else if metadata.is_dir() {
                let oid = self.folder(repository, outer, &below, known, seen)?;
                (oid, FileMode::Tree)
            } else if metadata.is_file() {
                let stamp = stamp(&metadata);
                let same = known
                    .files
                    .get(&below)
                    .filter(|(before, _)| *before == stamp);
                let oid = match same {
                    Some((_, oid)) => *oid,
                    None => match repository.blob_path(&full) {
                        Ok(oid) => oid,
                        Err(_) if !full.exists() => continue,
                        Err(error) => return Err(error.into()),
                    },
                };
                seen.insert(below, (stamp, oid));
                (oid, FileMode::Blob)
            } else {
                continue;
            };
            if seen.len() > MAX_FILES {
                return Err(GitError::Remote(format!(
                    "{} holds more than {MAX_FILES} files; name the folder of the apps",
                    self.root.join(&self.prefix).display()
                )));
            }
            builder.insert(name.as_bytes(), oid, mode.into())?;
        }
        Ok(builder.write()?)
    }
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    Stamp {
        size: metadata.size(),
        inode: metadata.ino(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> GitError {
    GitError::Remote(format!("{} cannot be read: {error}", path.display()))
}
