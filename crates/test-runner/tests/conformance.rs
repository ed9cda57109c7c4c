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
    let report = report(&all);
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
    assert!(report.passed > 0, "{folder} has tests");
}

#[test]
fn the_language_gives_right_results() {
    passes("language");
}
