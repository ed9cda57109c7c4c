//! The contents that go into the database with a plan.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use picloud_gitops_core::{ReadError, TreeReader};
use picloud_shared::{BlobId, Plan};
use picloud_store::{Blob, Store};

use super::{DeployError, blocking};
use crate::git::GitRepository;

/// The largest static file, as validated.
const MAX_STATIC: u64 = 25 << 20;
/// The largest script, as validated.
pub(super) const MAX_SCRIPT: u64 = 256 << 10;

/// The contents of a plan's files that the database lacks, or holds otherwise than git.
pub(super) async fn contents(
    store: &Store,
    repository: &Arc<GitRepository>,
    plan: &Plan,
    edited: &BTreeSet<BlobId>,
) -> Result<Vec<Blob>, DeployError> {
    let specs = || plan.apps.values().filter_map(|app| app.desired.as_deref());
    let scripts: BTreeSet<BlobId> = specs()
        .flat_map(|spec| spec.scripts.values())
        .map(|script| script.blob.clone())
        .collect();
    let files: BTreeSet<BlobId> = specs()
        .flat_map(|spec| spec.static_files.values())
        .map(|file| file.blob.clone())
        .collect();
    if scripts.is_empty() && files.is_empty() {
        return Ok(Vec::new());
    }
    let (script_ids, file_ids): (Vec<_>, Vec<_>) = (
        scripts.iter().cloned().collect(),
        files.into_iter().collect(),
    );
    let mut missing: BTreeSet<BlobId> = store
        .missing_blobs(&script_ids, &file_ids)
        .await?
        .into_iter()
        .collect();
    missing.extend(edited.iter().cloned());
    let git = Arc::clone(repository);
    let read = blocking(move || {
        let mut blobs = Vec::with_capacity(missing.len());
        for id in file_ids.iter().filter(|id| missing.contains(*id)) {
            blobs.push(Blob::Static {
                id: id.clone(),
                bytes: Bytes::from(git.blob(id, MAX_STATIC)?),
            });
        }
        for id in scripts.iter().filter(|id| missing.contains(*id)) {
            let text = String::from_utf8(git.blob(id, MAX_SCRIPT)?);
            let text = text.map_err(|_| ReadError::Failed {
                message: format!("the script {id} is not UTF-8"),
            })?;
            blobs.push(Blob::Script {
                id: id.clone(),
                text,
            });
        }
        Ok::<_, ReadError>(blobs)
    });
    Ok(read.await??)
}
