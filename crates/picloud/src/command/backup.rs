//! `picloud backup`: everything that can't be had from elsewhere, in one file. What is live goes on
//! meanwhile.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use picloud_shared::{Clock, SystemClock};
use serde_json::json;

use super::{Ending, print};
use crate::{
    cli::BackupArgs,
    config::ServerConfig,
    data_dir::DataDir,
    private_postgres::{self, PrivatePostgres},
};

/// The first entry: what the rest is.
pub(super) const MANIFEST: &str = "picloud-backup.json";
/// The database, as `pg_dump` writes it in its custom format.
pub(super) const DATABASE: &str = "database.dump";
/// Files of the data directory; below it in the archive, too.
pub(super) const FILES: [&str; 3] = ["secrets-key", "node-id", "admin-token"];
/// The version of the archive's form.
pub(super) const FORMAT: u64 = 1;
/// How often a repository is read again that git packed meanwhile.
const TRIES: u32 = 5;

/// Writes the backup, whole or not at all.
pub fn run(args: &BackupArgs) -> Result<Ending> {
    let config = ServerConfig::resolve(&args.server)?;
    let data = &config.data_dir;
    if !data.is_dir() {
        bail!("there is no data directory {}", data.display());
    }
    if args.file.exists() {
        bail!(
            "{} is there already; a backup overwrites nothing",
            args.file.display()
        );
    }
    let partial = beside(&args.file, "partial");
    let dump = beside(&args.file, "dump");
    let written = write(&config, &partial, &dump);
    let kept = written.and_then(|()| {
        // Fails where a file came in between, as renaming would not.
        fs::hard_link(&partial, &args.file)
            .with_context(|| format!("cannot write {}", args.file.display()))
    });
    for temporary in [&partial, &dump] {
        if temporary.exists() {
            fs::remove_file(temporary)
                .with_context(|| format!("cannot remove {}", temporary.display()))?;
        }
    }
    kept?;
    let size = fs::metadata(&args.file).map_or(0, |metadata| metadata.len());
    print(&format!(
        "Wrote {} ({} KiB). It holds keys: keep it where nobody else reads it.\n",
        args.file.display(),
        size.div_ceil(1024)
    ))?;
    Ok(Ending::Done)
}

fn beside(file: &Path, what: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{what}", std::process::id()));
    file.with_file_name(name)
}

/// A file for its owner alone, made anew.
fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn write(config: &ServerConfig, partial: &Path, dump: &Path) -> Result<()> {
    let data = &config.data_dir;
    // The database first: a repository that is ahead of it is deployed when it is restored.
    with_database(config, |url| dump_database(url, dump))?;
    let mut archive = tar::Builder::new(create(partial)?);
    archive.follow_symlinks(false);
    let manifest = json!({
        "format": FORMAT,
        "version": env!("CARGO_PKG_VERSION"),
        "created_at": SystemClock.now(),
    });
    add_bytes(&mut archive, MANIFEST, manifest.to_string().as_bytes())?;
    archive
        .append_path_with_name(dump, DATABASE)
        .context("cannot write the backup")?;
    for name in FILES {
        let path = data.join(name);
        if path.exists() {
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            add_bytes(&mut archive, &format!("data/{name}"), &bytes)?;
        }
    }
    for repository in repositories(data)? {
        add_repository(&mut archive, data, &repository)?;
    }
    let mut file = archive.into_inner().context("cannot write the backup")?;
    file.flush()
        .and_then(|()| file.sync_all())
        .context("cannot write the backup")
}

fn add_bytes(archive: &mut tar::Builder<File>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    archive
        .append_data(&mut header, name, bytes)
        .with_context(|| format!("cannot write {name}"))
}

/// The hosted repositories, from the data directory on.
fn repositories(data: &Path) -> Result<Vec<PathBuf>> {
    let folder = data.join("git");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).context("cannot read the hosted repositories")? {
        let name = entry
            .context("cannot read the hosted repositories")?
            .file_name();
        if Path::new(&name)
            .extension()
            .is_some_and(|extension| extension == "git")
        {
            found.push(Path::new("git").join(name));
        }
    }
    found.sort();
    Ok(found)
}

/// References first, then objects: what a reference names is there before it, and stays.
fn add_repository(archive: &mut tar::Builder<File>, data: &Path, repository: &Path) -> Result<()> {
    let mut names = Vec::new();
    for below in ["HEAD", "config", "packed-refs", "refs"] {
        list(data, &repository.join(below), &mut names)?;
    }
    let mut read = Vec::with_capacity(names.len());
    for name in names {
        let bytes = fs::read(data.join(&name))
            .with_context(|| format!("cannot read {}", name.display()))?;
        read.push((name, bytes));
    }
    for (name, bytes) in read {
        add_bytes(archive, &format!("data/{}", name.display()), &bytes)?;
    }
    let mut added = std::collections::BTreeSet::new();
    for attempt in 1.. {
        match add_objects(archive, data, repository, &mut added) {
            // Git put many objects into one file, and removed them: they are there by another name.
            Err(error) if attempt < TRIES && is_gone(&error) => {}
            done => return done,
        }
    }
    Ok(())
}

fn add_objects(
    archive: &mut tar::Builder<File>,
    data: &Path,
    repository: &Path,
    added: &mut std::collections::BTreeSet<PathBuf>,
) -> Result<()> {
    let mut names = Vec::new();
    list(data, &repository.join("objects"), &mut names)?;
    for name in names {
        if added.contains(&name) {
            continue;
        }
        let mut file = File::open(data.join(&name))?;
        archive
            .append_file(format!("data/{}", name.display()), &mut file)
            .with_context(|| format!("cannot write {}", name.display()))?;
        added.insert(name);
    }
    Ok(())
}

fn is_gone(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// The files below a path, without what is under way: locks and what isn't accepted yet.
fn list(data: &Path, path: &Path, names: &mut Vec<PathBuf>) -> Result<()> {
    let full = data.join(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with("tmp_") || name.starts_with("incoming-") || name.ends_with(".lock") {
        return Ok(());
    }
    let Ok(metadata) = fs::symlink_metadata(&full) else {
        return Ok(());
    };
    if metadata.is_file() {
        names.push(path.to_owned());
    } else if metadata.is_dir() {
        let entries =
            fs::read_dir(&full).with_context(|| format!("cannot read {}", full.display()))?;
        let mut below: Vec<_> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.file_name())
            .collect();
        below.sort();
        for entry in below {
            list(data, &path.join(entry), names)?;
        }
    }
    Ok(())
}

/// Does something with the database: the named one, the private one that runs, or the private one
/// started for this.
pub(super) fn with_database<T>(
    config: &ServerConfig,
    work: impl FnOnce(&str) -> Result<T>,
) -> Result<T> {
    if let Some(url) = &config.database_url {
        return work(url);
    }
    if let Some(url) = PrivatePostgres::url_of_running(&config.data_dir) {
        return work(&url);
    }
    let data = DataDir::open(&config.data_dir)?;
    let postgres = PrivatePostgres::start(data.path())?;
    let done = work(&postgres.database_url());
    postgres.stop();
    done
}

fn dump_database(url: &str, dump: &Path) -> Result<()> {
    let file = create(dump)?;
    let mut command = client("pg_dump", url)?;
    command
        .args(["--format=custom", "--no-owner", "--no-privileges"])
        .stdout(file);
    run_client("pg_dump", &mut command)
}

/// A PostgreSQL client program; the password isn't in its arguments, which everybody can read.
pub(super) fn client(name: &str, url: &str) -> Result<Command> {
    let program = private_postgres::client(name).with_context(|| {
        format!("{name} is not installed (Debian, Ubuntu: `apt-get install postgresql-client`)")
    })?;
    let mut url = reqwest::Url::parse(url).context("DATABASE_URL")?;
    let mut command = Command::new(program);
    if let Some(password) = url.password() {
        let password = percent_encoding::percent_decode_str(password)
            .decode_utf8_lossy()
            .into_owned();
        command.env("PGPASSWORD", password);
    }
    // Fails only where there is no host, and then no password either.
    let _ = url.set_password(None);
    command
        .arg(format!("--dbname={url}"))
        .arg("--no-password")
        .stdin(Stdio::null());
    Ok(command)
}

pub(super) fn run_client(name: &str, command: &mut Command) -> Result<()> {
    let output = command
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .with_context(|| format!("{name} cannot be run"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said
        .lines()
        .filter(|line| !line.is_empty())
        .take(3)
        .collect();
    bail!("{name} failed: {}", said.join("; "))
}
