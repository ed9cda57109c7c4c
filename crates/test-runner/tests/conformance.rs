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

const EXAMPLES_APP: &str = "
name: examples
routes:
  - {path: '/echo/{id}', methods: [POST], script: scripts/echo.rhai}
triggers:
  - {name: on-note, kind: kv, collection: notes, script: scripts/note.rhai}
";

#[test]
fn the_examples_of_the_reference_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../executor-core/src/sdk/examples");
    let mut all = BTreeMap::new();
    files(&folder, "tests/", &mut all);
    for (path, text) in [
        ("app.yaml", EXAMPLES_APP),
        ("scripts/double.rhai", "ctx.event.payload * 2"),
        (
            "scripts/keep.rhai",
            "kv::set(\"kept\", \"payload\", ctx.event.payload);",
        ),
        (
            "scripts/echo.rhai",
            "#{ id: ctx.request.params.id, n: ctx.request.json.n }",
        ),
        ("scripts/note.rhai", "ctx.event.kv.value"),
    ] {
        all.insert(path.to_owned(), text.as_bytes().to_vec());
    }
    all_pass(&all);
}

/// What the validator says of these files.
fn findings(files: &[(&str, &str)]) -> String {
    let files = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))
        .collect();
    let (tree, root) = MapTree::new(&files, id);
    let checker = RhaiChecker::new();
    let options = LoadOptions {
        path: "",
        checker: &checker,
        secrets: None,
    };
    let loaded = load(&tree, &root, &options, &mut LoadCache::default()).expect("a tree");
    loaded
        .diagnostics
        .iter()
        .map(|finding| {
            let hint = finding.hint.as_deref().unwrap_or_default();
            format!(
                "{}:{}:{} {} {} ({hint})\n",
                finding.path, finding.line, finding.column, finding.code, finding.message
            )
        })
        .collect()
}

#[test]
fn calls_are_checked_before_they_are_deployed() {
    let routed = "name: a\nroutes: [{path: /, script: scripts/s.rhai}]\n";
    let module =
        "fn show(a) { a }\nfn show(a, b) { a + b }\nprivate fn own() { 1 }\nfn all() { own() }\n";
    let cases = [
        (
            "lenght(\"x\")",
            "scripts/s.rhai:1:1 E0402 there is no function `lenght` (a closure in a variable is called with lenght.call(…))\n",
        ),
        (
            "now()",
            "scripts/s.rhai:1:1 E0402 there is no function `now` (did you mean `time::now`?)\n",
        ),
        (
            "fn greet(a) { a }\ngreat(1)",
            "scripts/s.rhai:2:1 E0402 there is no function `great` (did you mean `greet`?)\n",
        ),
        (
            "fn greet(a) { a }\ngreet()",
            "scripts/s.rhai:2:1 E0403 greet does not take 0 arguments (it takes 1)\n",
        ),
        (
            "max(1)",
            "scripts/s.rhai:1:1 E0403 max does not take 1 arguments (it takes 2)\n",
        ),
        (
            "kv::gett(\"c\", \"k\")",
            "scripts/s.rhai:1:1 E0402 the module `kv` has no function `gett` (did you mean `get`?)\n",
        ),
        (
            "kv::get(\"c\")",
            "scripts/s.rhai:1:1 E0403 kv::get does not take 1 arguments (it is kv::get(collection: String, key: String) -> Dynamic)\n",
        ),
        (
            "import \"m\" as m; m::shou(1)",
            "scripts/s.rhai:1:18 E0402 the module `m` has no function `shou` for others (did you mean `show`?)\n",
        ),
        (
            "import \"m\" as m; m::own()",
            "scripts/s.rhai:1:18 E0402 the module `m` has no function `own` for others (it has all, show)\n",
        ),
        (
            "import \"m\" as m; m::show()",
            "scripts/s.rhai:1:18 E0403 `show` of `m` does not take 0 arguments (it takes 1 or 2)\n",
        ),
        // All of this is well.
        (
            "import \"m\" as m; m::show(1) + m::show(1, 2) + m::all()",
            "",
        ),
        (
            "let f = |x| x + 1; let t = timestamp(); f.call(1) + max(1, 2) + len(\"x\") + type_of(f).len",
            "",
        ),
        ("fn int.double() { this * 2 } let n = 2; n.double()", ""),
        (
            "let m = #{ inc: || this.n += 1, n: 1 }; m.inc(); print(m.n); debug(m); is_def_var(\"m\")",
            "",
        ),
        ("fn outer() { inner() } fn inner() { 1 } outer()", ""),
        (
            "fn f(x) { x } call(Fn(\"f\"), 1) + Fn(\"f\").curry(1).call()",
            "",
        ),
        (
            "let a = [3, 1]; a.sort(); a.push(blob(2)); a.map(|x| parse_int(\"1\")) + a.filter(Fn(\"is_odd\"))",
            "",
        ),
    ];
    for (script, expected) in cases {
        let told = findings(&[
            ("app.yaml", routed),
            ("scripts/s.rhai", script),
            ("modules/m.rhai", module),
        ]);
        let told: String = told
            .lines()
            .filter(|line| !line.contains(" W0401 "))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(told, expected, "{script}");
    }
}

#[test]
fn what_nothing_names_is_told_and_closures_that_would_be_confused_are_refused() {
    let routed = "name: a\nroutes: [{path: /, script: scripts/s.rhai}]\n";
    let job = ("scripts/job.rhai", "1");
    let unused = "scripts/job.rhai:1:1 W0403 no route, trigger or script names this handler ()\n";
    for (script, expected) in [
        ("1", unused),
        ("scripts::enqueue(\"scripts/job.rhai\", 1)", ""),
        ("scripts::invoke(ctx.request.body, 1)", ""),
    ] {
        let told = findings(&[("app.yaml", routed), ("scripts/s.rhai", script), job]);
        assert_eq!(told, expected, "{script}");
    }
    let script = "import \"m\" as m; import \"n\" as n; m::get().call(1) + n::get().call(1)";
    let told = |m: &str, n: &str| {
        findings(&[
            ("app.yaml", routed),
            ("scripts/s.rhai", script),
            ("modules/m.rhai", m),
            ("modules/n.rhai", n),
        ])
    };
    let text = "fn get() { |x| helper(x) }\nfn helper(x) { x * 2 }";
    assert_eq!(
        told(text, &text.replace('2', "3")),
        "modules/n.rhai:1:16 E0407 `modules/m.rhai` has the same closure at the same place (move one of them to another line)\n"
    );
    assert_eq!(told(text, &format!("\n{text}")), "");
    // It calls nothing of its module: whose it is makes no difference.
    let text = "fn get() { |x| x.abs() }";
    assert_eq!(told(text, text), "");
}
