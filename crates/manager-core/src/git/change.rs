//! Changes of a tree without a work tree: as a patch, and as a commit on a branch.

use std::path::Path;

use git2::{
    DiffFormat, DiffOptions, ErrorCode, FileMode, Oid, Repository, Signature, Tree,
    build::TreeUpdateBuilder,
};
use picloud_gitops_core::adopt::Files;
use picloud_shared::{BlobId, CommitId};

use super::{GitError, GitRepository, commit_id};

/// A commit that is to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewCommit<'a> {
    /// What it is made on.
    pub(crate) parent: &'a CommitId,
    /// Where it goes, without `refs/heads/`.
    pub(crate) branch: &'a str,
    /// Who asked for it.
    pub(crate) author: &'a str,
    pub(crate) message: &'a str,
}

impl GitRepository {
    /// What a change of a tree's files is, as `git apply` takes it. Nothing is written.
    pub(crate) fn patch(&self, tree: &BlobId, files: &Files) -> Result<Vec<u8>, GitError> {
        let repository = self.repository.lock();
        // Where new objects go that nobody is to find.
        repository.odb()?.add_new_mempack_backend(1_000)?;
        let before = repository.find_tree(Oid::from_str(tree.as_str())?)?;
        let after = repository.find_tree(changed(&repository, &before, files)?)?;
        let mut options = DiffOptions::new();
        options.show_binary(true).id_abbrev(40);
        let diff = repository.diff_tree_to_tree(Some(&before), Some(&after), Some(&mut options))?;
        let mut out = Vec::new();
        diff.print(DiffFormat::Patch, |_, _, line| {
            if let '+' | '-' | ' ' = line.origin() {
                out.push(u8::try_from(line.origin()).unwrap_or(b' '));
            }
            out.extend_from_slice(line.content());
            true
        })?;
        Ok(out)
    }

    /// The commit that a branch is at; `None`: there is no such branch.
    pub(crate) fn branch(&self, branch: &str) -> Result<Option<CommitId>, GitError> {
        self.head(Some(branch))
    }

    /// Whether this is a branch's name (git-check-ref-format(1)).
    pub(crate) fn is_branch_name(name: &str) -> bool {
        git2::Branch::name_is_valid(name).unwrap_or(false)
    }

    /// Commits changed files to a branch, which is made where it isn't there. Only the object
    /// database and the reference are written; `None`: somebody else moved the branch meanwhile.
    pub(crate) fn commit_files(
        &self,
        new: &NewCommit<'_>,
        files: &Files,
    ) -> Result<Option<CommitId>, GitError> {
        let repository = self.repository.lock();
        let parent = repository.find_commit(Oid::from_str(new.parent.as_str())?)?;
        let tree = repository.find_tree(changed(&repository, &parent.tree()?, files)?)?;
        // What a name may not have in a commit's header is left out by libgit2, or refused.
        let author: String = new
            .author
            .chars()
            .filter(|c| !"<>\n\0".contains(*c))
            .collect();
        let author = if author.trim().is_empty() {
            "PiCloud"
        } else {
            author.trim()
        };
        let author = Signature::now(author, "picloud@localhost")?;
        let committer = Signature::now("PiCloud", "picloud@localhost")?;
        let id = repository.commit(None, &author, &committer, new.message, &tree, &[&parent])?;
        let reference = format!("refs/heads/{}", new.branch);
        let log = "adopt what is live";
        let moved = match repository.find_reference(&reference) {
            Ok(_) => repository.reference_matching(&reference, id, true, parent.id(), log),
            Err(error) if error.code() == ErrorCode::NotFound => {
                repository.reference(&reference, id, false, log)
            }
            Err(error) => Err(error),
        };
        match moved {
            Ok(_) => Ok(Some(commit_id(id)?)),
            Err(error) if matches!(error.code(), ErrorCode::Modified | ErrorCode::Exists) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes the tree with these files changed. A file that stays keeps its mode.
fn changed(repository: &Repository, before: &Tree<'_>, files: &Files) -> Result<Oid, git2::Error> {
    let mut update = TreeUpdateBuilder::new();
    for (path, content) in files {
        let old = before.get_path(Path::new(path)).ok();
        match content {
            Some(content) => {
                let executable = old.is_some_and(|entry| entry.filemode() == 0o100_755);
                let mode = if executable {
                    FileMode::BlobExecutable
                } else {
                    FileMode::Blob
                };
                update.upsert(path.as_str(), repository.blob(content)?, mode);
            }
            None if old.is_some() => drop(update.remove(path.as_str())),
            None => {}
        }
    }
    update.create_updated(repository, before)
}
