//! The guide's first chapter, run as it stands: each command of it, in order, against a real server.

use std::{fs, path::Path, process::Command};

use crate::support::{HOSTED, Server, eventually};

/// The commands of the chapter's blocks, in their order.
fn commands() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/GUIDE.md");
    let guide = fs::read_to_string(path).expect("the guide");
    let chapter = guide.split("\n## ").nth(1).expect("a chapter");
    let blocks: Vec<&str> = chapter
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next())
        .collect();
    assert!(blocks.len() >= 8, "the chapter has lost its blocks");
    blocks.join("\n")
}

#[test]
fn the_first_chapter_of_the_guide_does_what_it_says() {
    let server = Server::start(Path::new(HOSTED));
    let folder = tempfile::tempdir().expect("a folder");
    let program = Path::new(env!("CARGO_BIN_EXE_picloud"));
    let programs = program.parent().expect("its folder").display();
    // The reader's own address and password.
    let script = commands()
        .replace(
            "http://127.0.0.1:8080/git/default.git",
            &server.remote(None),
        )
        .replace("127.0.0.1:8080", server.address());
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-euxo", "pipefail", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", format!("{programs}:{path}"))
        .env("PICLOUD_DATA_DIR", server.data_folder())
        .env(
            "PICLOUD_TOKEN",
            server.bearer().trim_start_matches("Authorization: Bearer "),
        )
        .env("PICLOUD_SERVER", format!("http://{}", server.address()))
        .env_remove("DATABASE_URL")
        .envs([
            ("GIT_AUTHOR_NAME", "Reader"),
            ("GIT_AUTHOR_EMAIL", "reader@example.com"),
        ])
        .envs([
            ("GIT_COMMITTER_NAME", "Reader"),
            ("GIT_COMMITTER_EMAIL", "reader@example.com"),
        ])
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .expect("bash runs");
    let said = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}");
    // What the chapter tells happened, and not something that only ends well.
    for expected in [
        "is live",
        "report",
        "is held: the plan",
        "T09:00:00+0",
        "0 7 * * MON-FRI",
    ] {
        assert!(said.contains(expected), "{expected} is missing:\n{said}");
    }
    let trigger = || server.admin("/apps/shop/triggers")["items"][0]["schedule"].clone();
    eventually("the head's schedule", || trigger() == "0 7 * * MON-FRI");
}
