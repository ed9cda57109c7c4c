//! From a tree to the desired state and every finding. What did not change since the last commit
//! costs a look-up: folders are remembered by their tree's id, scripts by their blob's.

mod app;
mod dependencies;
mod graph;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use picloud_shared::{
    AppName, AppSpec, BlobId, Diagnostic, Severity,
    app::ScriptKind,
    plan::{DesiredState, InvalidApp, NamePlace},
    script::{ScriptChecker, ScriptReport, SecretChecker},
};

use self::dependencies::Dependency;
pub use self::dependencies::dependents;
use crate::{
    decode::Report,
    manifest::{self, MAX_MANIFEST, SourceSettings},
    tree::{EntryKind, ReadError, TreeEntry, TreeReader},
    yaml::Place,
};

/// Apps of one source.
const MAX_APPS: usize = 10_000;
/// Folders below which apps are looked for.
const MAX_DEPTH: usize = 32;
/// Folders that are looked into.
const MAX_FOLDERS: usize = 50_000;

/// How a tree is read.
pub struct LoadOptions<'a> {
    /// The source's path in the repository; empty at its root.
    pub path: &'a str,
    /// Compiles scripts.
    pub checker: &'a dyn ScriptChecker,
    /// Opens secrets; `None`: offline, where nobody has the key.
    pub secrets: Option<&'a dyn SecretChecker>,
}

/// What is remembered from commit to commit.
#[derive(Default)]
pub struct LoadCache {
    folders: HashMap<(BlobId, String), Remembered>,
    scripts: HashMap<(BlobId, ScriptKind), Arc<ScriptReport>>,
    defaults: Option<SourceSettings>,
    round: u64,
}

struct Remembered {
    found: Arc<Found>,
    round: u64,
}

/// What lies below a folder.
#[derive(Default)]
struct Found {
    apps: Vec<LoadedApp>,
    findings: Vec<Diagnostic>,
    folders: usize,
}

/// One app's folder, read.
#[derive(Clone)]
pub(crate) struct LoadedApp {
    dir: String,
    name: Option<(AppName, Place)>,
    /// The line of the name, for findings about it.
    name_line: Option<String>,
    /// Where its domains stand.
    domains: BTreeMap<String, NamePlace>,
    /// Absent where it has errors.
    pub(crate) spec: Option<Arc<AppSpec>>,
    pub(crate) findings: Vec<Diagnostic>,
    depends_on: Vec<Dependency>,
}

/// What a tree declares.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The valid apps, and the folders of the others.
    pub desired: DesiredState,
    /// `picloud.yaml`.
    pub settings: SourceSettings,
    /// Which valid apps need which others.
    pub depends_on: BTreeMap<AppName, BTreeSet<AppName>>,
    /// Sorted by place.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// Whether there is an error.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Reads a tree. Whatever is wrong with its content is a finding; an error is a repository that
/// can't be read.
pub fn load(
    reader: &dyn TreeReader,
    root: &BlobId,
    options: &LoadOptions<'_>,
    cache: &mut LoadCache,
) -> Result<Loaded, ReadError> {
    let mut loaded = Loaded::default();
    let path = options.path.trim_matches('/');
    let Some(start) = descend(reader, root, path)? else {
        loaded.diagnostics.push(Diagnostic {
            path: path.to_owned(),
            line: 1,
            column: 1,
            length: 1,
            severity: Severity::Error,
            code: "E0209".to_owned(),
            message: format!("the repository has no folder `{path}`"),
            hint: Some("check the source's path".to_owned()),
            excerpt: None,
            app: None,
        });
        return Ok(loaded);
    };
    loaded.settings = read_settings(reader, &start, path, &mut loaded.diagnostics)?;
    if cache.defaults.as_ref() != Some(&loaded.settings) {
        // Defaults are merged into each app: with others, all that was remembered is stale.
        cache.folders.clear();
        cache.defaults = Some(loaded.settings.clone());
    }
    cache.round += 1;
    let found = walk(reader, &start, path, 0, options, cache)?;
    let round = cache.round;
    cache
        .folders
        .retain(|_, remembered| remembered.round == round);
    collect(&found, &mut loaded);
    loaded.diagnostics.sort();
    loaded.diagnostics.dedup();
    Ok(loaded)
}

pub(crate) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    }
}

pub(crate) fn descend(
    reader: &dyn TreeReader,
    root: &BlobId,
    path: &str,
) -> Result<Option<BlobId>, ReadError> {
    let mut at = root.clone();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let entries = reader.tree(&at)?;
        let next = entries
            .into_iter()
            .find(|entry| entry.kind == EntryKind::Tree && entry.name == part.as_bytes());
        match next {
            Some(entry) => at = entry.id,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// The settings of a tree, as far as they can be read.
pub(crate) fn settings_of(
    reader: &dyn TreeReader,
    root: &BlobId,
    path: &str,
) -> Result<SourceSettings, ReadError> {
    let path = path.trim_matches('/');
    match descend(reader, root, path)? {
        Some(start) => read_settings(reader, &start, path, &mut Vec::new()),
        None => Ok(SourceSettings::default()),
    }
}

/// One app by its folder's tree; `None`: the folder has no app.yaml.
pub(crate) fn load_app(
    reader: &dyn TreeReader,
    tree: &BlobId,
    dir: &str,
    settings: &SourceSettings,
    options: &LoadOptions<'_>,
) -> Result<Option<LoadedApp>, ReadError> {
    let entries = reader.tree(tree)?;
    let Some(manifest) = entries.iter().find(|entry| entry.name == b"app.yaml") else {
        return Ok(None);
    };
    let folder = app::Folder {
        reader,
        dir,
        entries: &entries,
        manifest,
    };
    app::read(&folder, settings, options, &mut HashMap::new()).map(Some)
}

fn read_settings(
    reader: &dyn TreeReader,
    start: &BlobId,
    path: &str,
    findings: &mut Vec<Diagnostic>,
) -> Result<SourceSettings, ReadError> {
    let entries = reader.tree(start)?;
    let Some(entry) = entries.iter().find(|entry| entry.name == b"picloud.yaml") else {
        let mut found = Found::default();
        misnamed(&mut found, &entries, path, "picloud");
        findings.append(&mut found.findings);
        return Ok(SourceSettings::default());
    };
    let path = join(path, "picloud.yaml");
    let text = match read_text(reader, entry.kind, &entry.id, MAX_MANIFEST, &path)? {
        Ok(text) => text,
        Err(finding) => {
            findings.push(*finding);
            return Ok(SourceSettings::default());
        }
    };
    let mut report = Report::new(path, &text);
    let settings = manifest::settings(&text, &mut report);
    findings.append(&mut report.found);
    Ok(settings)
}

/// A file as text, or the finding that says why it is none.
fn read_text(
    reader: &dyn TreeReader,
    kind: EntryKind,
    id: &BlobId,
    max: u64,
    path: &str,
) -> Result<Result<String, Box<Diagnostic>>, ReadError> {
    let mut report = Report::new(path, "");
    match kind {
        EntryKind::File => {}
        EntryKind::Symlink => link(&mut report),
        EntryKind::Submodule => submodule(&mut report),
        EntryKind::Tree => {
            report.error(
                "E0103",
                Place::START,
                "this must be a file; it is a folder",
                None,
            );
        }
    }
    if report.found.is_empty() {
        match reader.blob(id, max) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) if text.contains('\0') => {
                    let before = text.split('\0').next().unwrap_or_default();
                    let hint = Some("remove the character, or save the file as UTF-8".to_owned());
                    let mut own = Report::new(report.path(), &text);
                    own.error(
                        "E0109",
                        end_of(before),
                        "the file holds the character U+0000",
                        hint,
                    );
                    report.found.append(&mut own.found);
                }
                Ok(text) => return Ok(Ok(text)),
                Err(error) => {
                    let good = error.utf8_error().valid_up_to();
                    let before = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
                    let shown = String::from_utf8_lossy(error.as_bytes()).into_owned();
                    let hint = Some("save it as UTF-8".to_owned());
                    let mut own = Report::new(report.path(), &shown);
                    own.error("E0109", end_of(&before), "the file is not UTF-8", hint);
                    report.found.append(&mut own.found);
                }
            },
            Err(ReadError::TooLarge { size }) => {
                let message = format!("the file has {size} bytes; at most {max} are read");
                let hint = Some("split it up".to_owned());
                report.error("E0109", Place::START, message, hint);
            }
            Err(error) => return Err(error),
        }
    }
    let finding = report.found.pop().map(Box::new);
    Ok(Err(finding.unwrap_or_else(|| {
        unreachable!("each way here has a finding")
    })))
}

/// Where the character stands that comes after a text.
fn end_of(text: &str) -> Place {
    let last = text.rsplit('\n').next().unwrap_or_default();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Place {
        line: number(text.matches('\n').count() + 1),
        column: number(last.chars().count() + 1),
        length: 1,
    }
}

fn link(report: &mut Report<'_>) {
    let hint = Some("commit the file itself".to_owned());
    report.error(
        "E0204",
        Place::START,
        "a symbolic link is not followed",
        hint,
    );
}

fn submodule(report: &mut Report<'_>) {
    let hint = Some("commit the files themselves; submodules are not fetched".to_owned());
    report.error(
        "E0205",
        Place::START,
        "a submodule cannot be part of an app",
        hint,
    );
}

/// Looks for apps below a folder.
fn walk(
    reader: &dyn TreeReader,
    id: &BlobId,
    dir: &str,
    depth: usize,
    options: &LoadOptions<'_>,
    cache: &mut LoadCache,
) -> Result<Arc<Found>, ReadError> {
    let round = cache.round;
    if let Some(remembered) = cache.folders.get_mut(&(id.clone(), dir.to_owned())) {
        remembered.round = round;
        return Ok(Arc::clone(&remembered.found));
    }
    let entries = reader.tree(id)?;
    let mut found = Found {
        folders: 1,
        ..Found::default()
    };
    if let Some(manifest) = entries.iter().find(|entry| entry.name == b"app.yaml") {
        let defaults = cache.defaults.clone().unwrap_or_default();
        let folder = app::Folder {
            reader,
            dir,
            entries: &entries,
            manifest,
        };
        let app = app::read(&folder, &defaults, options, &mut cache.scripts)?;
        found.apps.push(app);
    } else if depth < MAX_DEPTH {
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Tree) {
            // A folder whose name can't be printed can't be named by an app.yaml either.
            let Ok(name) = std::str::from_utf8(&entry.name) else {
                continue;
            };
            if name.chars().any(char::is_control) {
                continue;
            }
            if found.folders >= MAX_FOLDERS || found.apps.len() > MAX_APPS {
                break;
            }
            let below = walk(
                reader,
                &entry.id,
                &join(dir, name),
                depth + 1,
                options,
                cache,
            )?;
            found.folders += below.folders;
            found.apps.extend(below.apps.iter().cloned());
            found.findings.extend(below.findings.iter().cloned());
        }
        beside_apps(&mut found, &entries, dir, depth);
        misnamed(&mut found, &entries, dir, "app");
    }
    let found = Arc::new(found);
    let remembered = Remembered {
        found: Arc::clone(&found),
        round,
    };
    cache
        .folders
        .insert((id.clone(), dir.to_owned()), remembered);
    Ok(found)
}

/// Tells of a manifest with the other ending of YAML, which nothing reads.
fn misnamed(found: &mut Found, entries: &[TreeEntry], dir: &str, stem: &str) {
    let name = format!("{stem}.yml");
    if entries.iter().any(|entry| entry.name == name.as_bytes()) {
        let mut report = Report::new(join(dir, &name), "");
        let message = format!("`{name}` is not read");
        let hint = Some(format!("name it `{stem}.yaml`"));
        report.add(Severity::Warning, "W0404", Place::START, message, hint);
        found.findings.append(&mut report.found);
    }
}

/// Tells of links and submodules where apps lie, which would be taken for apps. Links with an
/// ending are to files.
fn beside_apps(found: &mut Found, entries: &[TreeEntry], dir: &str, depth: usize) {
    let inside = |app: &LoadedApp| {
        app.dir
            .rsplit_once('/')
            .is_some_and(|(above, _)| above == dir)
    };
    let of_apps = depth > 0 && found.apps.iter().any(inside);
    if !of_apps && dir.rsplit('/').next() != Some("apps") {
        return;
    }
    for entry in entries {
        let Ok(name) = std::str::from_utf8(&entry.name) else {
            continue;
        };
        let mut report = Report::new(join(dir, name), "");
        match entry.kind {
            EntryKind::Symlink if !name.contains('.') => link(&mut report),
            EntryKind::Submodule => submodule(&mut report),
            _ => {}
        }
        found.findings.append(&mut report.found);
    }
}

/// Puts the apps together: names and domains must be free.
fn collect(found: &Found, loaded: &mut Loaded) {
    loaded.diagnostics.extend(found.findings.iter().cloned());
    if found.apps.len() > MAX_APPS {
        let mut report = Report::new(found.apps[MAX_APPS].dir.clone(), "");
        report.error(
            "E0208",
            Place::START,
            format!("a source has at most {MAX_APPS} apps"),
            None,
        );
        loaded.diagnostics.append(&mut report.found);
    }
    let mut names: BTreeMap<&AppName, &LoadedApp> = BTreeMap::new();
    let mut domains: BTreeMap<&str, &AppName> = BTreeMap::new();
    for app in found.apps.iter().take(MAX_APPS) {
        loaded.diagnostics.extend(app.findings.iter().cloned());
        let mut valid = app.spec.clone();
        if let Some((name, _)) = &app.name {
            match names.get(name) {
                Some(first) => {
                    loaded.diagnostics.push(taken(app, name, &first.dir));
                    valid = None;
                }
                None => {
                    names.insert(name, app);
                }
            }
            let wanted = app.spec.iter().flat_map(|spec| &spec.domains);
            for domain in wanted {
                if let Some(other) = domains.insert(domain, name).filter(|other| *other != name) {
                    let finding = domain_taken(app, domain, other);
                    let place = app.domains.get(domain.as_str()).cloned();
                    loaded.diagnostics.push(at(finding, place));
                    valid = None;
                }
            }
        }
        match valid {
            Some(spec) => {
                let named = app.name.as_ref().map(|(_, place)| NamePlace {
                    line: place.line,
                    column: place.column,
                    length: place.length,
                    excerpt: app.name_line.clone(),
                });
                let names = &mut loaded.desired.names;
                names.insert(spec.name.clone(), named.unwrap_or_default());
                loaded.desired.domains.extend(app.domains.clone());
                loaded.desired.apps.insert(spec.name.clone(), spec);
            }
            None => loaded.desired.invalid.push(InvalidApp {
                dir: app.dir.clone(),
                name: app.name.as_ref().map(|(name, _)| name.clone()),
            }),
        }
    }
    dependencies::settle(&names, loaded);
}

fn at_name(app: &LoadedApp, code: &str, message: String, hint: Option<String>) -> Diagnostic {
    let place = app.name.as_ref().map_or(Place::START, |(_, place)| *place);
    Diagnostic {
        path: join(&app.dir, "app.yaml"),
        line: place.line,
        column: place.column,
        length: place.length,
        severity: Severity::Error,
        code: code.to_owned(),
        message,
        hint,
        excerpt: app.name_line.clone(),
        app: app.name.as_ref().map(|(name, _)| name.clone()),
    }
}

fn taken(app: &LoadedApp, name: &AppName, first: &str) -> Diagnostic {
    let message = format!("the name `{name}` is taken by {}", join(first, "app.yaml"));
    at_name(
        app,
        "E0202",
        message,
        Some("give one of them another name".to_owned()),
    )
}

/// A finding at another place of the same file.
pub(crate) fn at(finding: Diagnostic, place: Option<NamePlace>) -> Diagnostic {
    match place {
        Some(place) => Diagnostic {
            line: place.line,
            column: place.column,
            length: place.length,
            excerpt: place.excerpt,
            ..finding
        },
        None => finding,
    }
}

fn domain_taken(app: &LoadedApp, domain: &str, other: &AppName) -> Diagnostic {
    let message = format!("the domain `{domain}` is taken by the app `{other}`");
    at_name(
        app,
        "E0202",
        message,
        Some("a domain serves one app".to_owned()),
    )
}
