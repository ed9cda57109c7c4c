//! An app's folder with some of its files changed, without writing anything.

use std::collections::BTreeMap;

use picloud_shared::BlobId;

use super::Files;
use crate::tree::{EntryKind, ReadError, TreeEntry, TreeReader};

/// The folder as it would be.
pub(super) struct Overlay<'a> {
    below: &'a dyn TreeReader,
    hash: &'a dyn Fn(&[u8]) -> BlobId,
    trees: BTreeMap<BlobId, Vec<TreeEntry>>,
    blobs: BTreeMap<BlobId, Vec<u8>>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(
        below: &'a dyn TreeReader,
        before: &BTreeMap<String, (EntryKind, BlobId)>,
        files: &Files,
        hash: &'a dyn Fn(&[u8]) -> BlobId,
    ) -> Self {
        let mut overlay = Self {
            below,
            hash,
            trees: BTreeMap::new(),
            blobs: BTreeMap::new(),
        };
        let root = overlay.root();
        overlay.trees.insert(root, Vec::new());
        for (path, (kind, id)) in before {
            if !files.contains_key(path) {
                overlay.put(path, *kind, id.clone());
            }
        }
        for (path, content) in files {
            if let Some(content) = content {
                let id = hash(content);
                overlay.blobs.insert(id.clone(), content.clone());
                overlay.put(path, EntryKind::File, id);
            }
        }
        overlay
    }

    /// The id of the folder.
    pub(super) fn root(&self) -> BlobId {
        self.id_of("")
    }

    /// Ids of folders hold within this tree alone.
    fn id_of(&self, folder: &str) -> BlobId {
        (self.hash)(format!("the folder {folder}").as_bytes())
    }

    fn put(&mut self, path: &str, kind: EntryKind, id: BlobId) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let tree = self.id_of(folder);
        if !self.trees.contains_key(&tree) {
            self.trees.insert(tree.clone(), Vec::new());
            self.put(folder, EntryKind::Tree, tree.clone());
        }
        let entry = TreeEntry {
            name: name.as_bytes().to_vec(),
            id,
            kind,
        };
        self.trees.entry(tree).or_default().push(entry);
    }
}

impl TreeReader for Overlay<'_> {
    fn tree(&self, id: &BlobId) -> Result<Vec<TreeEntry>, ReadError> {
        match self.trees.get(id) {
            Some(entries) => Ok(entries.clone()),
            None => self.below.tree(id),
        }
    }

    fn blob(&self, id: &BlobId, max: u64) -> Result<Vec<u8>, ReadError> {
        match self.blobs.get(id) {
            Some(content) if content.len() as u64 > max => Err(ReadError::TooLarge {
                size: content.len() as u64,
            }),
            Some(content) => Ok(content.clone()),
            None => self.below.blob(id, max),
        }
    }

    fn blob_size(&self, id: &BlobId) -> Result<u64, ReadError> {
        match self.blobs.get(id) {
            Some(content) => Ok(content.len() as u64),
            None => self.below.blob_size(id),
        }
    }
}
