//! The language and the SDK, held to what the documentation says of them by tests that are written
//! as an app's author writes them.

use std::{collections::BTreeMap, fs, path::Path};

use picloud_counting_alloc::CountingAllocator;
use picloud_executor_core::RhaiChecker;
use picloud_gitops_core::{LoadCache, LoadOptions, MapTree, load, render};
use picloud_shared::BlobId;
use picloud_test_runner::{Report, RunOptions, discover, run};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// FNV-1a: ids of contents need to differ, and no more.
fn id(content: &[u8]) -> BlobId {
    let hash = content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:040x}").parse().expect("an id")
}

fn files(folder: &Path, prefix: &str, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a plain name");
        let path = format!("{prefix}{name}");
        if entry.file_type().expect("its type").is_dir() {
            files(&entry.path(), &format!("{path}/"), into);
        } else {
            into.insert(path, fs::read(entry.path()).expect("a file"));
        }
    }
}

/// Runs the tests of the apps in these files.
fn report(files: &BTreeMap<String, Vec<u8>>) -> Report {
    let (tree, root) = MapTree::new(files, id);
    let checker = RhaiChecker::new();
    let options = LoadOptions {
        path: "",
        checker: &checker,
        secrets: None,
    };
    let loaded = load(&tree, &root, &options, &mut LoadCache::default()).expect("a tree");
    assert!(
        !loaded.has_errors(),
        "{}",
        render::human(&loaded.diagnostics, false)
    );
    let apps = discover(&tree, &root, &loaded).expect("a tree");
    run(&apps, &RunOptions::default())
}

/// All tests of a folder beside this file must pass.
fn passes(folder: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(folder);
    let mut all = BTreeMap::new();
    files(&root, "", &mut all);
    all_pass(&all);
}

fn all_pass(files: &BTreeMap<String, Vec<u8>>) {
    let report = report(files);
    let told: String = report
        .tests
        .iter()
        .filter_map(|test| {
            Some(format!(
                "{}\n{}\n",
                test.name,
                test.failure.as_ref()?.text()
            ))
        })
        .collect();
    assert!(told.is_empty(), "{told}");
    assert!(report.passed > 0, "there are tests");
}

#[test]
fn the_language_gives_right_results() {
    passes("language");
}

const CALLEE: &str =
    "let n = ctx.event.payload.n; if type_of(n) == \"string\" { throw \"thrown\"; } n * 2 + 2";

/// The scripts by which the real server is tested: what they find in memory is the same. `http` is
/// left out, for no test reaches the network.
#[test]
fn the_sdk_in_memory_is_as_the_real_one() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../picloud/tests/program/sdk");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("a script");
    let checks = read("checks.rhai");
    let mut all = BTreeMap::new();
    let mut tests = String::new();
    for entry in fs::read_dir(&folder).expect("the scripts") {
        let file = entry.expect("an entry").file_name();
        let file = file.into_string().expect("a plain name");
        if ["http.rhai", "checks.rhai"].contains(&file.as_str()) {
            continue;
        }
        let script = format!("{checks}\n{}\n\"ok\"", read(&file));
        all.insert(format!("scripts/{file}"), script.into_bytes());
        let name = file.trim_end_matches(".rhai");
        // One throws on purpose, after all its checks held.
        let expected = if name == "scripts" {
            "assert_eq(answer.error.message, \"with [redacted] in it\");"
        } else {
            "assert_eq(answer.error, ()); assert_eq(answer.body, \"ok\");"
        };
        tests.push_str(&format!(
            "fn test_{name}() {{ secrets::mock(\"TOKEN\", \"hunter2\"); let answer = call(\"scripts/{file}\"); {expected} }}\n"
        ));
    }
    all.insert("app.yaml".to_owned(), b"name: sdk\n".to_vec());
    all.insert("modules/checks.rhai".to_owned(), b"fn none() {}".to_vec());
    all.insert("scripts/callee.rhai".to_owned(), CALLEE.as_bytes().to_vec());
    all.insert("tests/all.rhai".to_owned(), tests.into_bytes());
    all_pass(&all);
}
