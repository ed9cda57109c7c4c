//! `docs/SDK.md`: made from the table and from examples that are run as tests.

use super::{Function, functions, test_functions};

/// Tests of which each shows one function: `test_MODULE_NAME`.
const EXAMPLES: [&str; 3] = [
    include_str!("examples/data.rhai"),
    include_str!("examples/text.rhai"),
    include_str!("examples/rest.rhai"),
];
/// Those of what a test alone has.
const IN_TESTS: &str = include_str!("examples/testing.rhai");

const HEAD: &str = include_str!("reference_head.md");

/// The reference of the SDK, in Markdown.
pub fn sdk_reference() -> String {
    let mut out = HEAD.to_owned();
    let mut all: Vec<&Function> = functions().collect();
    all.sort_by_key(|function| function.module);
    for module in all.chunk_by(|a, b| a.module == b.module) {
        out.push_str(&format!("\n## {}\n", module[0].module));
        for function in module {
            describe(function, &EXAMPLES, &mut out);
        }
    }
    out.push_str(TESTS);
    for function in test_functions() {
        describe(function, &[IN_TESTS], &mut out);
    }
    out
}

const TESTS: &str = "
## In tests

What follows is there in `tests/*.rhai` alone, which `picloud test` runs.
";

fn describe(function: &Function, examples: &[&str], out: &mut String) {
    let prefix = if function.module.is_empty() {
        String::new()
    } else {
        format!("{}::", function.module)
    };
    out.push_str(&format!("\n### {prefix}{}\n\n", function.name));
    for signature in function.signatures {
        out.push_str(&format!("    {prefix}{signature}\n"));
    }
    out.push_str(&format!("\n{}\n", function.about));
    if let Some(example) = examples.iter().find_map(|text| example(text, function)) {
        out.push_str(&format!("\n```rust\n{example}```\n"));
    }
}

/// The body of the test that shows a function.
fn example(text: &str, function: &Function) -> Option<String> {
    let module = if function.module.is_empty() {
        String::new()
    } else {
        format!("{}_", function.module)
    };
    let head = format!("fn test_{module}{}() {{", function.name);
    let mut lines = text.lines().skip_while(|line| *line != head);
    lines.next()?;
    let body = lines.take_while(|line| *line != "}");
    Some(
        body.map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line)))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_reference_is_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/SDK.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, sdk_reference()).expect("written");
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == sdk_reference(),
            "docs/SDK.md is stale: run `make schema`"
        );
    }

    #[test]
    fn each_function_has_an_example() {
        let missing: Vec<String> = functions()
            .filter(|function| {
                !EXAMPLES
                    .iter()
                    .any(|text| example(text, function).is_some())
            })
            .chain(
                test_functions()
                    .iter()
                    .filter(|function| example(IN_TESTS, function).is_none()),
            )
            .map(|function| format!("{}::{}", function.module, function.name))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
