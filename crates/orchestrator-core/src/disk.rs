//! The snapshot on disk: one file an app, and an index that is renamed into place, so that a node
//! starts and serves without the database. What did not change isn't written again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use picloud_shared::{AppSnapshot, SourceId, plan::LiveVersion, snapshot::SourceSnapshot};
use serde_json::{Value, json};

/// The form of the files. Another one is not read: the database has it all.
const FORMAT: u64 = 1;

pub(crate) struct Disk {
    dir: PathBuf,
}

/// What was kept.
pub(crate) struct Kept {
    pub(crate) version: LiveVersion,
    pub(crate) apps: Vec<AppSnapshot>,
    pub(crate) sources: BTreeMap<SourceId, SourceSnapshot>,
}

impl Disk {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Reads what was kept; `None` where there is nothing, or nothing that can be read.
    pub(crate) fn load(&self) -> Option<Kept> {
        match self.try_load() {
            Ok(kept) => Some(kept),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(dir = %self.dir.display(), %error, "the kept snapshot cannot be read; waiting for the database");
                None
            }
        }
    }

    fn try_load(&self) -> io::Result<Kept> {
        let index: Value = serde_json::from_slice(&fs::read(self.dir.join("current"))?)?;
        if index["format"] != FORMAT {
            return Err(io::Error::other("it was written by another version"));
        }
        let files: Vec<String> = serde_json::from_value(index["apps"].clone())?;
        let mut apps = Vec::with_capacity(files.len());
        for file in files {
            if file.contains(['/', '\\']) {
                return Err(io::Error::other("the index names a file elsewhere"));
            }
            apps.push(serde_json::from_slice(&fs::read(self.dir.join(file))?)?);
        }
        Ok(Kept {
            version: serde_json::from_value(index["version"].clone())?,
            sources: serde_json::from_value(index["sources"].clone())?,
            apps,
        })
    }

    /// Keeps a snapshot. A crash in between leaves the former one.
    pub(crate) fn store(
        &self,
        version: LiveVersion,
        apps: &[Arc<AppSnapshot>],
        sources: &BTreeMap<SourceId, SourceSnapshot>,
    ) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut files = BTreeSet::new();
        for app in apps {
            let name = format!("{}-{}.json", app.id, app.generation);
            let path = self.dir.join(&name);
            if !path.exists() {
                write(&path, &serde_json::to_vec(app)?)?;
            }
            files.insert(name);
        }
        let index =
            json!({ "format": FORMAT, "version": version, "apps": files, "sources": sources });
        write(&self.dir.join("current"), &serde_json::to_vec(&index)?)?;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name != "current" && !files.contains(name.as_ref()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&temporary, path)
}
