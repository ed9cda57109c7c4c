//! Broken trees and what is said of them: each `tests/broken/NAME.tree` holds files, each
//! `NAME.err` beside it the reviewed findings. `UPDATE_GOLDEN=1` writes them anew.

use std::{collections::BTreeMap, fs, path::Path};

use picloud_gitops_core::{LoadCache, LoadOptions, MapTree, load, render};
use picloud_shared::{
    BlobId, ScriptPath,
    app::ScriptKind,
    script::{Import, ScriptChecker, ScriptProblem, ScriptProblemKind, ScriptReport},
};

/// Knows imports by their first word, and one way to be wrong.
struct FakeChecker;

impl ScriptChecker for FakeChecker {
    fn check(&self, _: &ScriptPath, _: ScriptKind, source: &str) -> ScriptReport {
        let mut report = ScriptReport::default();
        for (index, line) in source.lines().enumerate() {
            let number = u32::try_from(index + 1).expect("a short script");
            if let Some(rest) = line.strip_prefix("import \"") {
                let name = rest.split('"').next().expect("a name").to_owned();
                report.imports.push(Import {
                    name,
                    line: number,
                    column: 8,
                });
            }
            if let Some(at) = line.find("???") {
                report.problems.push(ScriptProblem {
                    kind: ScriptProblemKind::Syntax,
                    line: number,
                    column: u32::try_from(at + 1).expect("a short line"),
                    message: "this is no script".to_owned(),
                    hint: None,
                });
            }
        }
        report
    }
}

fn id(content: &[u8]) -> BlobId {
    let hash = content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:040x}").parse().expect("an id")
}

fn files(text: &str) -> BTreeMap<String, Vec<u8>> {
    let parts = text.split("=== ").skip(1);
    parts
        .map(|part| {
            let (path, content) = part.split_once('\n').expect("a path's line");
            (path.trim().to_owned(), content.as_bytes().to_vec())
        })
        .collect()
}

fn findings(text: &str) -> String {
    let (tree, root) = MapTree::new(&files(text), id);
    let options = LoadOptions {
        path: "",
        checker: &FakeChecker,
        secrets: None,
    };
    let loaded = load(&tree, &root, &options, &mut LoadCache::default()).expect("a tree in memory");
    render::human(&loaded.diagnostics, false)
}

#[test]
fn every_broken_tree_is_told_as_reviewed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for entry in fs::read_dir(&folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "tree") {
            continue;
        }
        count += 1;
        let told = findings(&fs::read_to_string(&path).expect("a tree"));
        let golden = path.with_extension("err");
        if update {
            fs::write(&golden, &told).expect("written");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if told != expected || told.is_empty() {
            wrong.push(format!(
                "--- {}\nexpected:\n{expected}\ntold:\n{told}",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 40, "only {count} trees");
}
