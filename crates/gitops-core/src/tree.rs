//! How the loader reads a tree, whatever it lies in.

use std::collections::BTreeMap;

use picloud_shared::BlobId;

/// What a tree's entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file, executable or not.
    File,
    /// A folder.
    Tree,
    /// A symbolic link.
    Symlink,
    /// A commit of another repository.
    Submodule,
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// As git has it: any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// The blob, or the tree.
    pub id: BlobId,
    /// What it is.
    pub kind: EntryKind,
}

/// Why an object could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It isn't there: a shallow or damaged repository.
    #[error("the object {id} is missing from the repository")]
    Missing {
        /// Which.
        id: BlobId,
    },
    /// It has more bytes than were asked for.
    #[error("the object has {size} bytes")]
    TooLarge {
        /// Its size.
        size: u64,
    },
    /// The repository could not be read.
    #[error("{message}")]
    Failed {
        /// Why.
        message: String,
    },
}

/// Reads git's objects. The same id gives the same content for ever.
pub trait TreeReader {
    /// The entries of a tree.
    fn tree(&self, id: &BlobId) -> Result<Vec<TreeEntry>, ReadError>;

    /// A blob of at most `max` bytes; decided by its header, so that a large one isn't read.
    fn blob(&self, id: &BlobId, max: u64) -> Result<Vec<u8>, ReadError>;

    /// How many bytes a blob has.
    fn blob_size(&self, id: &BlobId) -> Result<u64, ReadError>;
}

impl<T: TreeReader + Send + ?Sized> TreeReader for std::sync::Arc<T> {
    fn tree(&self, id: &BlobId) -> Result<Vec<TreeEntry>, ReadError> {
        (**self).tree(id)
    }

    fn blob(&self, id: &BlobId, max: u64) -> Result<Vec<u8>, ReadError> {
        (**self).blob(id, max)
    }

    fn blob_size(&self, id: &BlobId) -> Result<u64, ReadError> {
        (**self).blob_size(id)
    }
}

/// A tree in memory: of an uploaded archive, and of tests. Its ids only hold within it.
#[derive(Debug, Default)]
pub struct MapTree {
    trees: BTreeMap<BlobId, Vec<TreeEntry>>,
    blobs: BTreeMap<BlobId, Vec<u8>>,
}

/// The parts of a path, and what is there: the content of a file, or what else it is.
type PathAndContent<'f> = (Vec<&'f str>, Result<&'f Vec<u8>, EntryKind>);

impl MapTree {
    /// Makes a tree of files; `id` gives a blob's id from its content. Gives the root's id, too.
    pub fn new(files: &BTreeMap<String, Vec<u8>>, id: impl Fn(&[u8]) -> BlobId) -> (Self, BlobId) {
        Self::with_links(files, &BTreeMap::new(), id)
    }

    /// As [`MapTree::new`], with entries that are no files.
    pub fn with_links(
        files: &BTreeMap<String, Vec<u8>>,
        links: &BTreeMap<String, EntryKind>,
        id: impl Fn(&[u8]) -> BlobId,
    ) -> (Self, BlobId) {
        let mut map = Self::default();
        let files = files.iter().map(|(path, content)| (path, Ok(content)));
        let links = links.iter().map(|(path, kind)| (path, Err(*kind)));
        let entries: Vec<PathAndContent<'_>> = files
            .chain(links)
            .map(|(path, what)| (path.split('/').collect(), what))
            .collect();
        let root = map.add(&entries, &id);
        (map, root)
    }

    fn add(&mut self, files: &[PathAndContent<'_>], id: &impl Fn(&[u8]) -> BlobId) -> BlobId {
        let mut folders: BTreeMap<&str, Vec<PathAndContent<'_>>> = BTreeMap::new();
        let mut entries = Vec::new();
        for (path, what) in files {
            match (path.as_slice(), *what) {
                ([name], Ok(content)) => {
                    let blob = id(content);
                    self.blobs.insert(blob.clone(), content.clone());
                    entries.push(TreeEntry {
                        name: name.as_bytes().to_vec(),
                        id: blob,
                        kind: EntryKind::File,
                    });
                }
                ([name], Err(kind)) => entries.push(TreeEntry {
                    name: name.as_bytes().to_vec(),
                    id: id(name.as_bytes()),
                    kind,
                }),
                _ => folders
                    .entry(path[0])
                    .or_default()
                    .push((path[1..].to_vec(), *what)),
            }
        }
        for (name, below) in folders {
            let tree = self.add(&below, id);
            entries.push(TreeEntry {
                name: name.as_bytes().to_vec(),
                id: tree,
                kind: EntryKind::Tree,
            });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut listing = Vec::new();
        for entry in &entries {
            listing.extend_from_slice(&entry.name);
            listing.push(0);
            listing.extend_from_slice(entry.id.as_str().as_bytes());
        }
        let tree = id(&listing);
        self.trees.insert(tree.clone(), entries);
        tree
    }
}

impl TreeReader for MapTree {
    fn tree(&self, id: &BlobId) -> Result<Vec<TreeEntry>, ReadError> {
        let entries = self.trees.get(id).cloned();
        entries.ok_or_else(|| ReadError::Missing { id: id.clone() })
    }

    fn blob(&self, id: &BlobId, max: u64) -> Result<Vec<u8>, ReadError> {
        let size = self.blob_size(id)?;
        if size > max {
            return Err(ReadError::TooLarge { size });
        }
        Ok(self.blobs.get(id).cloned().unwrap_or_default())
    }

    fn blob_size(&self, id: &BlobId) -> Result<u64, ReadError> {
        let blob = self
            .blobs
            .get(id)
            .ok_or_else(|| ReadError::Missing { id: id.clone() })?;
        Ok(blob.len() as u64)
    }
}
