//! One app's folder: its manifest, held against the files that are there.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use picloud_shared::{
    AppSpec, BlobId, Limits, LimitsPatch, ScriptPath, Severity, TriggerName,
    app::{RouteAuth, RouteSpec, ScriptKind, ScriptSpec, StaticFile, TriggerSpec},
    plan::NamePlace,
    script::{ScriptProblemKind, ScriptReport},
};

use super::{
    LoadOptions, LoadedApp, dependencies::Dependency, graph, join, link, read_text, submodule,
};
use crate::{
    decode::{Report, did_you_mean, excerpt},
    manifest::{self, AppManifest, MAX_MANIFEST, RouteManifest, SourceSettings},
    tree::{EntryKind, ReadError, TreeEntry, TreeReader},
    yaml::Place,
};

/// Bytes of a script.
const MAX_SCRIPT: u64 = 256 << 10;
/// Bytes of a static file.
const MAX_STATIC: u64 = 25 << 20;
/// Files of an app.
const MAX_FILES: usize = 20_000;
/// Folders in folders of an app.
const MAX_DEPTH: usize = 32;

/// Where an app is.
pub(super) struct Folder<'a> {
    pub(super) reader: &'a dyn TreeReader,
    pub(super) dir: &'a str,
    pub(super) entries: &'a [TreeEntry],
    pub(super) manifest: &'a TreeEntry,
}

/// A script with what the checker said of it.
pub(super) struct Script {
    pub(super) spec: ScriptSpec,
    pub(super) text: String,
    pub(super) report: Arc<ScriptReport>,
}

type Scripts = BTreeMap<ScriptPath, Script>;
type Checked = HashMap<(BlobId, ScriptKind), Arc<ScriptReport>>;

/// Reads an app, whatever state it is in.
pub(super) fn read(
    folder: &Folder<'_>,
    defaults: &SourceSettings,
    options: &LoadOptions<'_>,
    checked: &mut Checked,
) -> Result<LoadedApp, ReadError> {
    let path = join(folder.dir, "app.yaml");
    let text = match read_text(
        folder.reader,
        folder.manifest.kind,
        &folder.manifest.id,
        MAX_MANIFEST,
        &path,
    )? {
        Ok(text) => text,
        Err(finding) => return Ok(unreadable(folder, *finding)),
    };
    let mut report = Report::new(path, &text);
    let manifest = manifest::app(&text, &mut report);
    let mut files = Files::default();
    files.walk_scripts(folder, options, checked, &report)?;
    let static_files = read_static(folder, &manifest, &mut report, &mut files)?;
    files.find_nested(folder, &report)?;
    let handlers = Handlers {
        scripts: &files.scripts,
        unreadable: files.unreadable(folder.dir),
        comparisons: Cell::new(MAX_COMPARISONS),
    };
    let routes = routes(&manifest, &handlers, &mut report);
    let triggers = triggers(&manifest, &handlers, &mut report);
    check_secrets(&manifest, options, &mut report);
    graph::check(
        &files.scripts,
        folder.dir,
        report.app.as_ref(),
        &mut files.findings,
    );
    // Where a route or trigger is wrong, what it was to name isn't known.
    if report.found.is_empty() {
        let routed = routes.iter().map(|route| &route.script);
        let named = routed.chain(triggers.values().map(|trigger| &trigger.script));
        graph::unused_handlers(
            &files.scripts,
            &named.collect(),
            folder.dir,
            report.app.as_ref(),
            &mut files.findings,
        );
    }
    let mut findings = report.found;
    findings.append(&mut files.findings);
    let name = manifest
        .name
        .as_ref()
        .map(|name| (name.value.clone(), name.place));
    let name_line = name
        .as_ref()
        .and_then(|(_, place)| text.lines().nth(place.line as usize - 1))
        .map(excerpt);
    let depends_on = manifest.depends_on.iter().map(|app| Dependency {
        name: app.value.clone(),
        place: app.place,
        line: text.lines().nth(app.place.line as usize - 1).map(excerpt),
    });
    let depends_on = depends_on.collect();
    let domains = manifest.domains.iter().map(|(domain, place)| {
        let line = text.lines().nth(place.line as usize - 1).map(excerpt);
        (domain.clone(), named(*place, line))
    });
    let domains = domains.collect();
    let valid = !findings.iter().any(picloud_shared::Diagnostic::is_error);
    let spec = manifest.name.clone().filter(|_| valid).map(|name| {
        let mut spec = AppSpec::empty(name.value, folder.dir);
        spec.description = manifest.description;
        spec.domains = manifest.domains.into_keys().collect();
        spec.env = manifest.env.into_iter().collect();
        spec.http_allow = manifest.http_allow;
        spec.limits = merged(&defaults.default_limits, &manifest.limits);
        spec.static_dir = manifest.static_dir.map(|dir| clean(&dir.value));
        spec.static_files = static_files;
        spec.scripts = files
            .scripts
            .into_iter()
            .map(|(path, script)| (path, script.spec))
            .collect();
        spec.routes = routes;
        spec.triggers = triggers;
        spec.checks = manifest.checks;
        spec.secrets = manifest
            .secrets
            .into_iter()
            .map(|(name, sealed)| (name, sealed.value))
            .collect();
        Arc::new(spec)
    });
    Ok(LoadedApp {
        dir: folder.dir.to_owned(),
        name,
        name_line,
        domains,
        spec,
        findings,
        depends_on,
    })
}

fn unreadable(folder: &Folder<'_>, finding: picloud_shared::Diagnostic) -> LoadedApp {
    LoadedApp {
        dir: folder.dir.to_owned(),
        name: None,
        name_line: None,
        domains: BTreeMap::new(),
        spec: None,
        findings: vec![finding],
        depends_on: Vec::new(),
    }
}

fn named(place: Place, excerpt: Option<String>) -> NamePlace {
    NamePlace {
        line: place.line,
        column: place.column,
        length: place.length,
        excerpt,
    }
}

fn merged(defaults: &LimitsPatch, own: &LimitsPatch) -> LimitsPatch {
    LimitsPatch {
        timeout_ms: own.timeout_ms.or(defaults.timeout_ms),
        memory: own.memory.or(defaults.memory),
        operations: own.operations.or(defaults.operations),
        concurrency: own.concurrency.or(defaults.concurrency),
        request_body: own.request_body.or(defaults.request_body),
        response_body: own.response_body.or(defaults.response_body),
    }
}

fn clean(dir: &str) -> String {
    dir.trim_end_matches('/')
        .trim_start_matches("./")
        .to_owned()
}

/// What is found in an app's folder.
#[derive(Default)]
struct Files {
    scripts: Scripts,
    findings: Vec<picloud_shared::Diagnostic>,
    count: usize,
}

impl Files {
    /// The paths below the app at which something was found.
    fn unreadable(&self, dir: &str) -> Vec<String> {
        let below = |path: &str| {
            let path = path.strip_prefix(dir)?;
            Some(path.trim_start_matches('/').to_owned())
        };
        let found = self.findings.iter();
        found.filter_map(|finding| below(&finding.path)).collect()
    }

    fn finding(&mut self, path: &str, report: &Report<'_>, add: impl FnOnce(&mut Report<'_>)) {
        let mut own = Report::new(path, "");
        own.app.clone_from(&report.app);
        add(&mut own);
        self.findings.append(&mut own.found);
    }

    /// Reads what lies below `scripts/` and `modules/`.
    fn walk_scripts(
        &mut self,
        folder: &Folder<'_>,
        options: &LoadOptions<'_>,
        checked: &mut Checked,
        report: &Report<'_>,
    ) -> Result<(), ReadError> {
        for (name, kind) in [
            ("scripts", ScriptKind::Handler),
            ("modules", ScriptKind::Module),
        ] {
            let Some(entry) = folder
                .entries
                .iter()
                .find(|entry| entry.name == name.as_bytes())
            else {
                continue;
            };
            let files = self.list(folder, entry, name, report)?;
            for (path, entry) in files {
                if path.ends_with(".rhai") {
                    self.script(folder, &path, &entry, kind, options, checked, report)?;
                }
            }
        }
        Ok(())
    }

    /// All files below an entry, by their path below the app; links and the like become findings.
    fn list(
        &mut self,
        folder: &Folder<'_>,
        entry: &TreeEntry,
        path: &str,
        report: &Report<'_>,
    ) -> Result<Vec<(String, TreeEntry)>, ReadError> {
        let mut files = Vec::new();
        let mut waiting = vec![(path.to_owned(), entry.clone(), 0)];
        while let Some((path, entry, depth)) = waiting.pop() {
            let full = join(folder.dir, &path);
            match entry.kind {
                EntryKind::Symlink => self.finding(&full, report, link),
                EntryKind::Submodule => self.finding(&full, report, submodule),
                EntryKind::File => files.push((path, entry)),
                EntryKind::Tree if depth >= MAX_DEPTH => self.finding(&full, report, |own| {
                    own.error(
                        "E0208",
                        Place::START,
                        format!("folders are nested more than {MAX_DEPTH} deep"),
                        None,
                    );
                }),
                EntryKind::Tree => {
                    for below in folder.reader.tree(&entry.id)?.into_iter().rev() {
                        let name = std::str::from_utf8(&below.name).ok().map(str::to_owned);
                        let Some(name) = name.filter(|name| !name.chars().any(char::is_control))
                        else {
                            let shown = String::from_utf8_lossy(&below.name)
                                .escape_debug()
                                .to_string();
                            self.finding(&join(&full, &shown), report, |own| {
                                let hint = Some("rename the file".to_owned());
                                own.error(
                                    "E0210",
                                    Place::START,
                                    "the file's name is not plain UTF-8 text",
                                    hint,
                                );
                            });
                            continue;
                        };
                        waiting.push((format!("{path}/{name}"), below, depth + 1));
                    }
                }
            }
            self.count += 1;
            if self.count > MAX_FILES {
                self.finding(&full, report, |own| {
                    own.error(
                        "E0208",
                        Place::START,
                        format!("an app has at most {MAX_FILES} files"),
                        None,
                    );
                });
                break;
            }
        }
        Ok(files)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what a script needs comes from four places"
    )]
    fn script(
        &mut self,
        folder: &Folder<'_>,
        path: &str,
        entry: &TreeEntry,
        kind: ScriptKind,
        options: &LoadOptions<'_>,
        checked: &mut Checked,
        report: &Report<'_>,
    ) -> Result<(), ReadError> {
        let full = join(folder.dir, path);
        let parsed: ScriptPath = match path.parse() {
            Ok(parsed) => parsed,
            Err(error) => {
                self.finding(&full, report, |own| {
                    own.error("E0210", Place::START, format!("a script {error}"), None);
                });
                return Ok(());
            }
        };
        let text = match read_text(folder.reader, entry.kind, &entry.id, MAX_SCRIPT, &full)? {
            Ok(text) => text,
            Err(mut finding) => {
                finding.app.clone_from(&report.app);
                self.findings.push(*finding);
                return Ok(());
            }
        };
        let said = checked
            .entry((entry.id.clone(), kind))
            .or_insert_with(|| Arc::new(options.checker.check(&parsed, kind, &text)));
        let said = Arc::clone(said);
        let mut own = Report::new(full, &text);
        own.app.clone_from(&report.app);
        for problem in &said.problems {
            let (severity, code) = match problem.kind {
                ScriptProblemKind::Syntax => (Severity::Error, "E0401"),
                ScriptProblemKind::UnknownFunction => (Severity::Error, "E0402"),
                ScriptProblemKind::WrongArity => (Severity::Error, "E0403"),
                ScriptProblemKind::DynamicImport => (Severity::Error, "E0404"),
                ScriptProblemKind::Warning => (Severity::Warning, "W0402"),
            };
            let place = Place {
                line: problem.line,
                column: problem.column,
                length: 1,
            };
            own.add(
                severity,
                code,
                place,
                problem.message.clone(),
                problem.hint.clone(),
            );
        }
        self.findings.append(&mut own.found);
        let spec = ScriptSpec {
            kind,
            blob: entry.id.clone(),
        };
        self.scripts.insert(
            parsed,
            Script {
                spec,
                text,
                report: said,
            },
        );
        Ok(())
    }

    /// Apps do not nest: an `app.yaml` in a folder of an app is most likely a mistake of layout.
    fn find_nested(&mut self, folder: &Folder<'_>, report: &Report<'_>) -> Result<(), ReadError> {
        let mut waiting: Vec<(String, BlobId, usize)> = Vec::new();
        let below = |dir: &str, entries: &[TreeEntry], depth: usize| {
            let folders = entries.iter().filter(|entry| entry.kind == EntryKind::Tree);
            let named = folders.filter_map(|entry| {
                let name = std::str::from_utf8(&entry.name).ok()?;
                Some((join(dir, name), entry.id.clone(), depth + 1))
            });
            named.collect::<Vec<_>>()
        };
        waiting.extend(below(folder.dir, folder.entries, 0));
        let mut looked = 0;
        while let Some((dir, id, depth)) = waiting.pop() {
            looked += 1;
            if looked > MAX_FILES {
                break;
            }
            let entries = folder.reader.tree(&id)?;
            if entries.iter().any(|entry| entry.name == b"app.yaml") {
                self.finding(&join(&dir, "app.yaml"), report, |own| {
                    let hint = Some("move one of the two folders".to_owned());
                    own.error(
                        "E0203",
                        Place::START,
                        "an app cannot lie inside another app",
                        hint,
                    );
                });
            } else if depth < MAX_DEPTH {
                waiting.extend(below(&dir, &entries, depth));
            }
        }
        Ok(())
    }
}

/// A folder or file that a key names must lie below the app.
fn escapes(path: &str) -> bool {
    path.starts_with('/') || path.contains('\\') || path.split('/').any(|part| part == "..")
}

fn read_static(
    folder: &Folder<'_>,
    manifest: &AppManifest,
    report: &mut Report<'_>,
    files: &mut Files,
) -> Result<BTreeMap<String, StaticFile>, ReadError> {
    let mut found = BTreeMap::new();
    let Some(dir) = &manifest.static_dir else {
        return Ok(found);
    };
    let name = clean(&dir.value);
    if escapes(&dir.value) || name.is_empty() || name == "." {
        let hint = Some("name a folder below the app's, like `public`".to_owned());
        report.error(
            "E0206",
            dir.place,
            format!("`{}` is not a folder below the app's", dir.value),
            hint,
        );
        return Ok(found);
    }
    let mut entries = folder.entries.to_vec();
    let mut entry = None;
    for (passed, part) in name.split('/').enumerate() {
        let next = entries
            .iter()
            .find(|entry| entry.name == part.as_bytes())
            .cloned();
        let Some(next) = next else {
            let names = entries
                .iter()
                .filter_map(|entry| std::str::from_utf8(&entry.name).ok());
            let hint = did_you_mean(part, names);
            report.error(
                "E0207",
                dir.place,
                format!("the folder `{name}` is not there"),
                hint,
            );
            return Ok(found);
        };
        if matches!(next.kind, EntryKind::Symlink | EntryKind::Submodule) {
            let at = name.split_inclusive('/');
            let at: String = at.take(passed + 1).collect();
            files.finding(&join(folder.dir, at.trim_end_matches('/')), report, |own| {
                if next.kind == EntryKind::Symlink {
                    link(own);
                } else {
                    submodule(own);
                }
            });
            return Ok(found);
        }
        entries = if next.kind == EntryKind::Tree {
            folder.reader.tree(&next.id)?
        } else {
            Vec::new()
        };
        entry = Some(next);
    }
    let Some(entry) = entry else { return Ok(found) };
    if entry.kind == EntryKind::File {
        report.error(
            "E0207",
            dir.place,
            format!("`{name}` is a file, not a folder"),
            None,
        );
        return Ok(found);
    }
    for (path, entry) in files.list(folder, &entry, &name, report)? {
        let size = folder.reader.blob_size(&entry.id)?;
        if size > MAX_STATIC {
            files.finding(&join(folder.dir, &path), report, |own| {
                let message =
                    format!("the file has {size} bytes; a static file has at most {MAX_STATIC}");
                own.error("E0209", Place::START, message, None);
            });
        }
        let below = path[name.len() + 1..].to_owned();
        found.insert(
            below,
            StaticFile {
                blob: entry.id,
                size,
            },
        );
    }
    Ok(found)
}

/// Each secret can be opened here, and each that a route names is declared.
fn check_secrets(manifest: &AppManifest, options: &LoadOptions<'_>, report: &mut Report<'_>) {
    if let Some(checker) = options.secrets {
        for (name, sealed) in &manifest.secrets {
            if let Err(reason) = checker.check(&sealed.value) {
                let message =
                    format!("the secret `{name}` cannot be opened by this server: {reason}");
                let hint = Some("seal it to this server: `picloud secrets seal`".to_owned());
                report.error("E0602", sealed.place, message, hint);
            }
        }
    }
    for route in &manifest.routes {
        let (RouteAuth::Signature { secret, .. }, Some(place)) = (&route.auth, route.secret_place)
        else {
            continue;
        };
        if !manifest.secrets.iter().any(|(name, _)| name == secret) {
            let names = manifest.secrets.iter().map(|(name, _)| name.as_str());
            let hint = did_you_mean(secret, names)
                .or_else(|| Some("declare it below `secrets`".to_owned()));
            let message = format!("the app declares no secret `{secret}`");
            report.error("E0603", place, message, hint);
        }
    }
}

fn triggers(
    manifest: &AppManifest,
    handlers: &Handlers<'_>,
    report: &mut Report<'_>,
) -> BTreeMap<TriggerName, TriggerSpec> {
    let mut triggers = BTreeMap::new();
    for trigger in &manifest.triggers {
        let script = handlers.find(&trigger.script.value, trigger.script.place, report);
        let Some(script) = script else { continue };
        let spec = TriggerSpec {
            kind: trigger.kind.clone(),
            script,
            enabled: trigger.enabled,
            retry: trigger.retry.clone(),
            max_concurrency: trigger.max_concurrency,
            limits: trigger.limits.clone(),
        };
        triggers.insert(trigger.name.value.clone(), spec);
    }
    triggers
}

fn routes(
    manifest: &AppManifest,
    handlers: &Handlers<'_>,
    report: &mut Report<'_>,
) -> Vec<RouteSpec> {
    let mut good: Vec<(&RouteManifest, RouteSpec)> = Vec::new();
    for route in &manifest.routes {
        let Some(script) = handlers.find(&route.script.value, route.script.place, report) else {
            continue;
        };
        for (other, _) in &good {
            conflict(route, other, report);
        }
        let spec = RouteSpec {
            path: route.pattern.to_string(),
            methods: route.methods.clone(),
            script,
            mode: route.mode,
            auth: route.auth.clone(),
            cors: route.cors.clone(),
            rate_limit: route.rate_limit,
            limits: route.limits.clone(),
        };
        check_limits(&Limits::default().with(&route.limits), route, report);
        good.push((route, spec));
    }
    let mut specs: Vec<RouteSpec> = good.into_iter().map(|(_, spec)| spec).collect();
    specs.sort_by(|a, b| (&a.path, &a.methods).cmp(&(&b.path, &b.methods)));
    specs
}

/// A route's limits cannot set how many runs the whole app has.
fn check_limits(limits: &Limits, route: &RouteManifest, report: &mut Report<'_>) {
    if limits.concurrency != Limits::default().concurrency && route.limits.concurrency.is_some() {
        let hint = Some("set it in the app's limits".to_owned());
        report.error(
            "E0108",
            route.place,
            "`concurrency` holds for the whole app, not for one route",
            hint,
        );
    }
}

fn conflict(route: &RouteManifest, other: &RouteManifest, report: &mut Report<'_>) {
    let Some(method) = route.methods.intersection(&other.methods).next() else {
        return;
    };
    if route.pattern == other.pattern {
        let message = format!(
            "{method} {} is declared twice; first in line {}",
            route.pattern, other.place.line
        );
        report.error(
            "E0302",
            route.place,
            message,
            Some("keep one of them".to_owned()),
        );
    } else if route.pattern.ties_with(&other.pattern) {
        let message = format!(
            "{method} {} matches the same requests as {} in line {}",
            route.pattern, other.pattern, other.place.line
        );
        report.error(
            "E0303",
            route.place,
            message,
            Some("give one of them another literal part".to_owned()),
        );
    }
}

/// What routes and triggers may name.
struct Handlers<'a> {
    scripts: &'a Scripts,
    /// Paths below the app at which something else was found.
    unreadable: Vec<String>,
    /// Names that may still be compared for hints.
    comparisons: Cell<usize>,
}

/// Names that are compared for the hints of one app.
const MAX_COMPARISONS: usize = 50_000;

impl Handlers<'_> {
    /// The handler that a key names.
    fn find(&self, name: &str, place: Place, report: &mut Report<'_>) -> Option<ScriptPath> {
        if escapes(name) {
            let hint =
                Some("name a script below the app's folder, like `scripts/hello.rhai`".to_owned());
            report.error(
                "E0206",
                place,
                format!("`{name}` is not a file below the app's folder"),
                hint,
            );
            return None;
        }
        let parsed = name.parse::<ScriptPath>().ok();
        let found = parsed.as_ref().and_then(|path| self.scripts.get(path));
        match (parsed, found) {
            (Some(path), Some(script)) if script.spec.kind == ScriptKind::Handler => Some(path),
            (Some(_), Some(_)) => {
                let hint = Some(
                    "modules are imported; a route names a script below `scripts/`".to_owned(),
                );
                report.error(
                    "E0304",
                    place,
                    format!("`{name}` is a module, not a handler"),
                    hint,
                );
                None
            }
            // It is told at its own place why it can't be read: a link, too large, in a submodule.
            _ if self.is_unreadable(name) => None,
            _ => {
                let handlers = self
                    .scripts
                    .iter()
                    .filter(|(_, script)| script.spec.kind == ScriptKind::Handler);
                // To compare many names with many takes its time.
                let left = self.comparisons.get();
                self.comparisons
                    .set(left.saturating_sub(self.scripts.len()));
                let handlers = handlers.filter(|_| left > 0);
                let hint = did_you_mean(name, handlers.map(|(path, _)| path.as_str()))
                    .unwrap_or_else(|| {
                        "scripts lie below `scripts/` and end in `.rhai`".to_owned()
                    });
                report.error(
                    "E0207",
                    place,
                    format!("the script `{name}` is not there"),
                    Some(hint),
                );
                None
            }
        }
    }

    fn is_unreadable(&self, name: &str) -> bool {
        self.unreadable.iter().any(|path| {
            let rest = name.strip_prefix(path.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}
