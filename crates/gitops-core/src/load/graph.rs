//! Which script imports which module: missing ones, circles, and modules that nobody imports.

use std::collections::{BTreeMap, BTreeSet};

use picloud_shared::{AppName, Diagnostic, ScriptPath, Severity, app::ScriptKind};

use super::{app::Script, join};
use crate::{
    decode::{Report, did_you_mean},
    yaml::Place,
};

type Scripts = BTreeMap<ScriptPath, Script>;

/// Checks the imports of one app.
pub(super) fn check(
    scripts: &Scripts,
    dir: &str,
    app: Option<&AppName>,
    findings: &mut Vec<Diagnostic>,
) {
    let modules: BTreeMap<&str, &ScriptPath> = scripts
        .keys()
        .filter_map(|path| path.module_name().map(|name| (name, path)))
        .collect();
    let mut imported = BTreeSet::new();
    for (path, script) in scripts {
        let mut report = Report::new(join(dir, path.as_str()), &script.text);
        report.app = app.cloned();
        for import in &script.report.imports {
            let place = Place {
                line: import.line,
                column: import.column,
                length: 1,
            };
            if let Some(module) = modules.get(import.name.as_str()) {
                imported.insert(*module);
                if let Some(circle) = circle(scripts, &modules, path, module) {
                    let hint = Some("move what both need into a third module".to_owned());
                    report.error(
                        "E0406",
                        place,
                        format!("modules import each other: {circle}"),
                        hint,
                    );
                }
            } else {
                let hint = did_you_mean(&import.name, modules.keys().copied())
                    .unwrap_or_else(|| format!("it would be `modules/{}.rhai`", import.name));
                report.error(
                    "E0405",
                    place,
                    format!("the module `{}` is not there", import.name),
                    Some(hint),
                );
            }
        }
        findings.append(&mut report.found);
    }
    for (path, script) in scripts {
        if script.spec.kind == ScriptKind::Module && !imported.contains(path) {
            let mut report = Report::new(join(dir, path.as_str()), &script.text);
            report.app = app.cloned();
            let message = "no script imports this module".to_owned();
            report.add(Severity::Warning, "W0401", Place::START, message, None);
            findings.append(&mut report.found);
        }
    }
}

/// The way from `to` back to `from`, where there is one and `from` is a module.
fn circle(
    scripts: &Scripts,
    modules: &BTreeMap<&str, &ScriptPath>,
    from: &ScriptPath,
    to: &ScriptPath,
) -> Option<String> {
    from.module_name()?;
    let mut waiting = vec![vec![to]];
    let mut seen = BTreeSet::new();
    while let Some(way) = waiting.pop() {
        let last = way[way.len() - 1];
        if last == from {
            let names = [from]
                .into_iter()
                .chain(way)
                .filter_map(ScriptPath::module_name);
            return Some(names.collect::<Vec<_>>().join(" → "));
        }
        if !seen.insert(last) {
            continue;
        }
        for import in &scripts.get(last)?.report.imports {
            if let Some(next) = modules.get(import.name.as_str()) {
                waiting.push(way.iter().copied().chain([*next]).collect());
            }
        }
    }
    None
}
