//! `picloud init`

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use picloud_shared::AppName;

use super::{Ending, print};
use crate::cli::InitArgs;

/// The files of the starter app, below its folder; `NAME` stands for the app's name.
const FILES: [(&str, &str); 4] = [
    ("app.yaml", include_str!("init/app.yaml")),
    ("scripts/hello.rhai", include_str!("init/hello.rhai")),
    ("modules/greeting.rhai", include_str!("init/greeting.rhai")),
    ("tests/hello.rhai", include_str!("init/test_hello.rhai")),
];

/// Writes a starter app; never over anything that is there.
pub fn run(args: &InitArgs) -> Result<Ending> {
    let name: AppName = args
        .name
        .parse()
        .map_err(|error| anyhow!("--name {:?}: a name {error}", args.name))?;
    let app = args.dir.join("apps").join(name.as_str());
    if app.exists() {
        bail!(
            "{} is there already; name another app with --name",
            app.display()
        );
    }
    for (path, text) in FILES {
        write(&app.join(path), &text.replace("NAME", name.as_str()))?;
    }
    let dir = args.dir.display();
    print(&format!(
        "Wrote {app}.\n\n  picloud test {dir}\n  cd {dir} && git init -b main && git add . && git commit -m \"feat: say hello\"\n  picloud up .\n  curl http://127.0.0.1:8080/apps/{name}/hello\n",
        app = app.display(),
    ))?;
    Ok(Ending::Done)
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
