//! Which script imports which module: missing ones, circles, and modules that nobody imports.

use std::collections::{BTreeMap, BTreeSet};

use picloud_shared::{
    AppName, Diagnostic, ScriptPath, Severity,
    app::ScriptKind,
    script::{Export, ModuleCall},
};

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
        for call in &script.report.module_calls {
            let module = modules.get(call.module.as_str());
            if let Some(module) = module.and_then(|path| scripts.get(*path)) {
                check_call(call, &module.report.exports, &mut report);
            }
        }
        for closure in &script.report.closures {
            if let Some(other) = same_closure(scripts, path, &closure.name) {
                let place = Place {
                    line: closure.line,
                    column: closure.column,
                    length: 1,
                };
                let message = format!("`{other}` has the same closure at the same place");
                let hint = Some("move one of them to another line".to_owned());
                report.error("E0407", place, message, hint);
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

/// Whether a module has the function that is called, with that many arguments.
fn check_call(call: &ModuleCall, exports: &[Export], report: &mut Report<'_>) {
    let place = Place {
        line: call.line,
        column: call.column,
        length: 1,
    };
    let (module, name) = (&call.module, &call.function);
    let mut arities: Vec<usize> = exports
        .iter()
        .filter(|export| export.name == *name)
        .map(|export| export.parameters)
        .collect();
    if arities.contains(&call.arguments) {
        return;
    }
    if arities.is_empty() {
        let known = exports.iter().map(|export| export.name.as_str());
        let hint = did_you_mean(name, known.clone()).unwrap_or_else(|| {
            let known: BTreeSet<&str> = known.collect();
            format!("it has {}", Vec::from_iter(known).join(", "))
        });
        let message = format!("the module `{module}` has no function `{name}` for others");
        report.error("E0402", place, message, Some(hint));
        return;
    }
    arities.sort_unstable();
    let takes: Vec<String> = arities.iter().map(ToString::to_string).collect();
    report.error(
        "E0403",
        place,
        format!(
            "`{name}` of `{module}` does not take {} arguments",
            call.arguments
        ),
        Some(format!("it takes {}", takes.join(" or "))),
    );
}

/// Another script that has a closure of the same name: two modules, or a module and a handler that
/// may get to call it. Told at the later one.
fn same_closure<'a>(scripts: &'a Scripts, path: &ScriptPath, name: &str) -> Option<&'a ScriptPath> {
    let is_module = |path: &ScriptPath| path.module_name().is_some();
    let earlier = scripts.iter().take_while(|(other, _)| *other != path);
    let mut has = earlier.filter(|(_, other)| {
        let mut closures = other.report.closures.iter();
        closures.any(|closure| closure.name == name)
    });
    has.find(|(other, _)| is_module(other) || is_module(path))
        .map(|(other, _)| other)
}

/// Handlers that nothing names. Where a script makes names as it runs, any may be meant.
pub(super) fn unused_handlers(
    scripts: &Scripts,
    named: &BTreeSet<&ScriptPath>,
    dir: &str,
    app: Option<&AppName>,
    findings: &mut Vec<Diagnostic>,
) {
    if scripts.values().any(|script| script.report.invokes_any) {
        return;
    }
    let invoked: BTreeSet<&str> = scripts
        .values()
        .flat_map(|script| &script.report.invokes)
        .map(|invoke| invoke.name.as_str())
        .collect();
    for (path, script) in scripts {
        let handler = script.spec.kind == ScriptKind::Handler;
        if handler && !named.contains(path) && !invoked.contains(path.as_str()) {
            let mut report = Report::new(join(dir, path.as_str()), &script.text);
            report.app = app.cloned();
            let message = "no route, trigger or script names this handler".to_owned();
            report.add(Severity::Warning, "W0403", Place::START, message, None);
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
