//! Builds the dashboard and makes a table of its files, which `src/dashboard.rs` takes in.
//!
//! Without Node.js the program is built all the same, with an empty table: it then serves a page
//! that says so.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    hash::{DefaultHasher, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What the build reads, below `dashboard`.
const SOURCES: [&str; 8] = [
    "src",
    "static",
    "scripts",
    "package.json",
    "package-lock.json",
    "svelte.config.js",
    "tsconfig.json",
    "vite.config.ts",
];
/// The oldest Node.js that the tools run on.
const NODE: (u32, u32) = (20, 19);

fn main() -> Result<()> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../dashboard");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-env-changed=PATH");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let built = out.join("dashboard");
    let table = match absence(&root) {
        None => {
            build(&root, &built)?;
            table(&built)?
        }
        Some(why) => {
            println!("cargo::warning=the dashboard is not built in: {why}");
            format!("const ABSENCE: &str = {why:?};\nconst FILES: &[File] = &[];\n")
        }
    };
    fs::write(out.join("dashboard.rs"), table)?;
    Ok(())
}

/// Why the dashboard can't be built here; `None` where it can.
fn absence(root: &Path) -> Option<String> {
    if !root.join("package.json").exists() {
        return Some("the folder `dashboard` is not beside `crates`".to_owned());
    }
    let Some(version) = output("node", &["--version"]) else {
        return Some("Node.js was not found when the program was built".to_owned());
    };
    let mut numbers = version
        .trim_start_matches('v')
        .split('.')
        .map(|part| part.trim().parse().unwrap_or(0));
    let have = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if have < NODE {
        return Some(format!(
            "Node.js {} or newer is needed, and {} was found when the program was built",
            NODE.0,
            version.trim()
        ));
    }
    if output("npm", &["--version"]).is_none() {
        return Some("npm was not found when the program was built".to_owned());
    }
    match install(root) {
        Ok(()) => None,
        Err(error) => {
            // Tried again at the next build, whatever changed: the network may be back.
            println!("cargo::rerun-if-changed={}", root.join(".again").display());
            Some(format!("`npm ci` failed: {error}"))
        }
    }
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn npm(root: &Path, arguments: &[&str], variables: &[(&str, &Path)]) -> Result<()> {
    let output = Command::new("npm")
        .args(arguments)
        .current_dir(root)
        .envs(variables.iter().copied())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "npm {}: {}\n{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    )
    .into())
}

/// `npm ci`, unless what the lock file says is there already. One at a time: builds with other
/// target folders share `node_modules`.
fn install(root: &Path) -> Result<()> {
    let lock = fs::File::open(root.join("package-lock.json"))?;
    lock.lock()?;
    let wanted = fs::read(root.join("package-lock.json"))?;
    let installed = root.join("node_modules/.installed-lock.json");
    if fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    npm(root, &["ci", "--no-fund", "--no-audit"], &[])?;
    fs::write(installed, wanted)?;
    Ok(())
}

/// The build itself, in folders of this target's own.
fn build(root: &Path, built: &Path) -> Result<()> {
    let lock = fs::File::open(root.join("package.json"))?;
    lock.lock()?;
    if built.exists() {
        fs::remove_dir_all(built)?;
    }
    npm(
        root,
        &["run", "--silent", "build"],
        &[("PICLOUD_DASHBOARD_OUT", built)],
    )
}

/// The table of files as Rust: sorted by path.
fn table(built: &Path) -> Result<String> {
    let mut files = Vec::new();
    walk(built, &mut files)?;
    files.sort();
    let mut table = String::from("const ABSENCE: &str = \"\";\nconst FILES: &[File] = &[\n");
    for file in &files {
        let path = file.strip_prefix(built)?.to_str().ok_or("a strange name")?;
        let variant = |end: &str| {
            let file = PathBuf::from(format!("{}{end}", file.display()));
            if file.exists() {
                format!("Some(include_bytes!({:?}))", file.display().to_string())
            } else {
                "None".to_owned()
            }
        };
        let mut hasher = DefaultHasher::new();
        hasher.write(&fs::read(file)?);
        writeln!(
            table,
            "File {{ path: {path:?}, kind: {:?}, tag: \"{:016x}\", plain: include_bytes!({:?}), brotli: {}, gzip: {} }},",
            kind(path)?,
            hasher.finish(),
            file.display().to_string(),
            variant(".br"),
            variant(".gz"),
        )?;
    }
    table.push_str("];\n");
    Ok(table)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else if path
            .extension()
            .is_none_or(|end| end != "br" && end != "gz")
        {
            files.push(path);
        }
    }
    Ok(())
}

fn kind(path: &str) -> Result<&'static str> {
    Ok(match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => return Err(format!("the dashboard has a file of unknown kind: {path}").into()),
    })
}
