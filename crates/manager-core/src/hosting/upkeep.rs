//! What keeps hosted repositories sound and small.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::mirror;

/// How long a push that outlived its server is waited for. It ends by itself: nobody sends to it.
const OUTLIVED: Duration = Duration::from_secs(5);
/// A repository is packed, where it should be, after so many pushes and fetches.
const PUSHES: u32 = 64;

/// Removes what pushes left that were under way when the process, or the computer, ended: locks
/// that would refuse every push from then on, and objects that were not accepted.
pub(super) fn clean(git_dirs: &[PathBuf]) {
    for git_dir in git_dirs {
        wait_for_pushes(git_dir);
        if let Err(error) = clean_one(git_dir) {
            tracing::warn!(%error, path = %git_dir.display(), "a hosted repository could not be looked through");
        }
    }
}

fn clean_one(git_dir: &Path) -> io::Result<()> {
    remove_locks(git_dir, 0)?;
    let objects = git_dir.join("objects");
    for entry in entries(&objects)? {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // git-receive-pack(1), "Quarantine environment"; the second name is that of older versions.
        if name.starts_with("tmp_objdir-") || name.starts_with("incoming-") {
            tracing::info!(path = %entry.path().display(), "removing what a broken push left");
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The references' locks, and those beside them.
fn remove_locks(folder: &Path, depth: usize) -> io::Result<()> {
    for entry in entries(folder)? {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            let holds_references = depth > 0 || entry.file_name() == "refs";
            if holds_references && depth < 64 {
                remove_locks(&path, depth + 1)?;
            }
        } else if path
            .extension()
            .is_some_and(|extension| extension == "lock")
        {
            tracing::warn!(path = %path.display(), "removing a lock that a broken push left");
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(found) => found.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Waits until no git of a killed server works on a repository any more.
fn wait_for_pushes(git_dir: &Path) {
    let began = Instant::now();
    while began.elapsed() < OUTLIVED && is_worked_on(git_dir) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process names a repository in its arguments, as [`mirror::git`] does.
fn is_worked_on(git_dir: &Path) -> bool {
    let wanted = git_dir.as_os_str().as_encoded_bytes();
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    let mut arguments = processes
        .filter_map(Result::ok)
        .filter(|process| process.file_name().as_encoded_bytes()[0].is_ascii_digit())
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    arguments.any(|line| {
        let mut words = line.split(|byte| *byte == 0);
        words
            .next()
            .is_some_and(|program| program.ends_with(b"git"))
            && words.any(|word| word == wanted)
    })
}

/// After each so many pushes and fetches: has git pack a repository, if there is enough to pack. Nothing is
/// thrown away: what a forced push left behind may be rolled back to.
pub(crate) fn tidy(git_dir: PathBuf) {
    static PUSHED: AtomicU32 = AtomicU32::new(0);
    if !(PUSHED.fetch_add(1, Relaxed) + 1).is_multiple_of(PUSHES) {
        return;
    }
    tokio::spawn(async move {
        let packed = mirror::git(&git_dir)
            .args(["-c", "gc.autoDetach=false", "-c", "gc.pruneExpire=never"])
            .args(["-c", "gc.reflogExpire=never", "-c", "pack.threads=1"])
            .args(["gc", "--auto", "--quiet"])
            .output()
            .await;
        match packed {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                tracing::warn!(said, path = %git_dir.display(), "a repository could not be packed");
            }
            Err(error) => tracing::warn!(%error, "git cannot be run"),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broken_push_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let git_dir = folder.path().join("a.git");
        let keep = [
            "HEAD",
            "refs/heads/main",
            "objects/ab/cd",
            "objects/pack/a.lock",
        ];
        let gone = [
            "HEAD.lock",
            "packed-refs.lock",
            "refs/heads/x/main.lock",
            "objects/tmp_objdir-incoming-1/pack/p",
            "objects/incoming-2/p",
        ];
        for path in keep.iter().chain(&gone) {
            let path = git_dir.join(path);
            fs::create_dir_all(path.parent().expect("a folder above")).expect("folders");
            fs::write(path, "").expect("a file");
        }
        clean(&[git_dir.clone(), folder.path().join("none.git")]);
        for path in keep {
            assert!(git_dir.join(path).exists(), "{path}");
        }
        for path in gone {
            assert!(!git_dir.join(path).exists(), "{path}");
        }
    }
}
