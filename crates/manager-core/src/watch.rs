//! Tells when a repository's references may have changed.

use std::{path::Path, sync::Arc, time::Duration};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use crate::git::LocalPath;

/// It is looked at this often in any case: a notification can be lost, a look reads one file.
const SWEEP: Duration = Duration::from_secs(30);

/// Watches the references of one repository.
pub struct RefWatch {
    changed: Arc<Notify>,
    // Stops when it is dropped.
    _watcher: Option<RecommendedWatcher>,
}

impl RefWatch {
    /// Begins to watch. Where the system has no watches left, the slow look remains.
    pub fn new(path: &LocalPath) -> Self {
        let changed = Arc::new(Notify::new());
        let watcher = watcher(path, &changed)
            .inspect_err(|error| {
                tracing::warn!(%error, seconds = SWEEP.as_secs(), "the repository cannot be watched; it is looked at every so often");
            })
            .ok();
        Self {
            changed,
            _watcher: watcher,
        }
    }

    /// Waits until something may have changed. What happens while nobody waits is not lost.
    pub async fn changed(&self) {
        // An elapsed sweep is a reason to look like any other.
        let _ = tokio::time::timeout(SWEEP, self.changed.notified()).await;
    }
}

fn watcher(path: &LocalPath, changed: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let wake = Arc::clone(changed);
    let mut watcher =
        notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            Ok(event) if event.paths.iter().all(|path| is_noise(path)) => {}
            // A watch that failed is a reason to look, too.
            _ => wake.notify_one(),
        })?;
    // The folder itself for HEAD and packed-refs; replaced repositories are seen by their parent.
    watcher.watch(&path.git_dir, RecursiveMode::NonRecursive)?;
    if path.common_dir != path.git_dir {
        watcher.watch(&path.common_dir, RecursiveMode::NonRecursive)?;
    }
    for name in ["refs", "reftable"] {
        let folder = path.common_dir.join(name);
        if folder.is_dir() {
            watcher.watch(&folder, RecursiveMode::Recursive)?;
        }
    }
    if let Some(parent) = path.common_dir.parent() {
        watcher.watch(parent, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// What git writes beside references, and whatever lies beside the repository.
fn is_noise(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    let name = name.as_deref().unwrap_or_default();
    let in_git = path.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        part == "refs" || part == "reftable"
    });
    if in_git {
        return name.ends_with(".lock");
    }
    let known = matches!(name, "HEAD" | "packed-refs" | ".git") || name.ends_with(".git");
    !known
}

/// A time to wait, again and again.
pub struct Pause(Duration);

impl Pause {
    /// About so long, so that many who wait don't all come at once: up to a tenth less.
    pub fn with_jitter(time: Duration) -> Self {
        let mut byte = [0_u8; 1];
        // Without randomness it is just the time.
        let _ = getrandom::fill(&mut byte);
        Self(time.mul_f64(1.0 - f64::from(byte[0]) / 2550.0))
    }

    /// Waits.
    pub async fn over(&self) {
        tokio::time::sleep(self.0).await;
    }
}
