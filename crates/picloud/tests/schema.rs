//! The committed schemas are those that the program prints: `make schema` writes them anew.

use std::{fs, path::Path, process::Command};

#[test]
fn the_committed_schemas_are_fresh() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema");
    for (kind, file) in [
        ("app", "app.schema.json"),
        ("picloud", "picloud.schema.json"),
        ("openapi", "openapi.json"),
        ("rhai", "picloud.d.rhai"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_picloud"))
            .args(["schema", kind])
            .output()
            .expect("it runs");
        assert!(output.status.success());
        let committed = fs::read_to_string(folder.join(file)).expect("a committed schema");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            committed,
            "{file} is stale: run `make schema`"
        );
    }
}
