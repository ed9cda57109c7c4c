//! Which tests there are: `tests/*.rhai` of each app.

use std::{collections::BTreeMap, sync::Arc};

use picloud_gitops_core::{EntryKind, Loaded, ReadError, TreeReader};
use picloud_shared::{
    AppId, AppSnapshot, AppSpec, BlobId, ScriptPath, SourceId, snapshot::ScriptSource,
};
use uuid::Uuid;

/// Bytes of a file of tests, as of a script.
const MAX_TEST: u64 = 256 << 10;
/// Bytes of a script, as the loader has it.
const MAX_SCRIPT: u64 = 256 << 10;

/// An app with its tests.
pub struct AppTests {
    /// As it would be served.
    pub app: Arc<AppSnapshot>,
    /// By name.
    pub files: Vec<TestFile>,
}

/// A file of tests.
pub struct TestFile {
    /// Below its app: `tests/x.rhai`.
    pub path: ScriptPath,
    /// Its text, or why it has none.
    pub text: Result<String, String>,
}

/// Finds the tests of the valid apps of a tree.
pub fn discover(
    reader: &dyn TreeReader,
    root: &BlobId,
    loaded: &Loaded,
) -> Result<Vec<AppTests>, ReadError> {
    let mut found = Vec::new();
    for (index, spec) in loaded.desired.apps.values().enumerate() {
        let files = files(reader, root, &spec.dir)?;
        if files.is_empty() {
            continue;
        }
        let id = AppId(Uuid::from_u128(index as u128 + 1));
        let app = Arc::new(snapshot(reader, id, spec)?);
        found.push(AppTests { app, files });
    }
    Ok(found)
}

fn snapshot(
    reader: &dyn TreeReader,
    id: AppId,
    spec: &Arc<AppSpec>,
) -> Result<AppSnapshot, ReadError> {
    let mut scripts = BTreeMap::new();
    for (path, script) in &spec.scripts {
        let bytes = reader.blob(&script.blob, MAX_SCRIPT)?;
        let source = ScriptSource {
            path: path.clone(),
            kind: script.kind,
            blob: script.blob.clone(),
            text: String::from_utf8_lossy(&bytes).into(),
        };
        scripts.insert(path.clone(), Arc::new(source));
    }
    Ok(AppSnapshot {
        id,
        source: SourceId::default(),
        generation: 1,
        pinned_commit: None,
        spec: Arc::clone(spec),
        scripts,
    })
}

fn files(reader: &dyn TreeReader, root: &BlobId, dir: &str) -> Result<Vec<TestFile>, ReadError> {
    let mut at = root.clone();
    for part in dir
        .split('/')
        .filter(|part| !part.is_empty())
        .chain(["tests"])
    {
        let entries = reader.tree(&at)?;
        let next = entries
            .into_iter()
            .find(|entry| entry.kind == EntryKind::Tree && entry.name == part.as_bytes());
        match next {
            Some(entry) => at = entry.id,
            None => return Ok(Vec::new()),
        }
    }
    let mut files = Vec::new();
    for entry in reader.tree(&at)? {
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        if entry.kind != EntryKind::File || !name.ends_with(".rhai") {
            continue;
        }
        let Ok(path) = format!("tests/{name}").parse() else {
            continue;
        };
        let text = match reader.blob(&entry.id, MAX_TEST) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned()),
            Err(ReadError::TooLarge { size }) => Err(format!(
                "the file has {size} bytes; at most {MAX_TEST} are read"
            )),
            Err(error) => return Err(error),
        };
        files.push(TestFile { path, text });
    }
    Ok(files)
}
