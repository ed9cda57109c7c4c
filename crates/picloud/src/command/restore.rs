//! `picloud restore`: a server's data anew, from a backup.

use std::{
    fs::{self, File},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{
    Ending,
    backup::{DATABASE, FILES, FORMAT, MANIFEST, client, run_client},
    print,
};
use crate::{
    cli::RestoreArgs,
    config::ServerConfig,
    data_dir::{DataDir, write_private},
    private_postgres::PrivatePostgres,
};

/// Restores into an empty data directory and an empty database; where that fails, both are empty
/// again.
pub fn run(args: &RestoreArgs) -> Result<Ending> {
    let config = ServerConfig::resolve(&args.server)?;
    let file =
        File::open(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let existed = config.data_dir.exists();
    if existed && fs::read_dir(&config.data_dir).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            "the data directory {} is not empty; a restore overwrites nothing",
            config.data_dir.display()
        );
    }
    let data = DataDir::open(&config.data_dir)?;
    let done = unpack(file, &data).and_then(|()| fill_database(&config, &data));
    let path = data.path().to_owned();
    if let Err(error) = done {
        remove_contents(&path)
            .with_context(|| format!("{} holds a part of the backup", path.display()))?;
        return Err(error);
    }
    fs::remove_file(path.join(DATABASE)).context("cannot remove the dump")?;
    print(&format!(
        "Restored into {}. Start it as before, with --data-dir {}.\n",
        path.display(),
        config.data_dir.display()
    ))?;
    Ok(Ending::Done)
}

fn remove_contents(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn unpack(file: File, data: &DataDir) -> Result<()> {
    let broken = "this is no backup of PiCloud, or a damaged one";
    let mut archive = tar::Archive::new(file);
    let mut entries = archive.entries().context(broken)?;
    let mut first = entries.next().context(broken)?.context(broken)?;
    if first.path().context(broken)?.as_os_str() != MANIFEST {
        bail!(broken);
    }
    let manifest: Value = serde_json::from_reader(&mut first).context(broken)?;
    if manifest["format"].as_u64() != Some(FORMAT) {
        bail!(
            "the backup is of another version of PiCloud ({})",
            manifest["version"].as_str().unwrap_or("unknown")
        );
    }
    let mut has_database = false;
    for entry in entries {
        let mut entry = entry.context(broken)?;
        let name = entry.path().context(broken)?.into_owned();
        let path =
            place(&name).with_context(|| format!("{broken}: it holds {}", name.display()))?;
        if !entry.header().entry_type().is_file() {
            bail!("{broken}: {} is no file", name.display());
        }
        has_database |= path == Path::new(DATABASE);
        let path = data.path().join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).context(broken)?;
        write_private(&path, &bytes)?;
    }
    if !has_database {
        bail!("{broken}: it has no database");
    }
    Ok(())
}

/// Where an entry goes in the data directory; `None`: a backup has no such entry.
fn place(name: &Path) -> Option<PathBuf> {
    if name == Path::new(DATABASE) {
        return Some(name.to_owned());
    }
    let below = name.strip_prefix("data").ok()?;
    let plain = below
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let known = FILES.iter().any(|file| below == Path::new(file)) || below.starts_with("git");
    (plain && known).then(|| below.to_owned())
}

fn fill_database(config: &ServerConfig, data: &DataDir) -> Result<()> {
    let dump = data.path().join(DATABASE);
    let restore = |url: &str| {
        let mut command = client("pg_restore", url)?;
        command
            .args([
                "--no-owner",
                "--no-privileges",
                "--exit-on-error",
                "--single-transaction",
            ])
            .arg(&dump);
        run_client("pg_restore", &mut command).context("the database must be empty")
    };
    if let Some(url) = &config.database_url {
        return restore(url);
    }
    let postgres = PrivatePostgres::start(data.path())?;
    let done = restore(&postgres.database_url());
    postgres.stop();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_outside_of_what_a_backup_has() {
        let placed = |name: &str| place(Path::new(name)).is_some();
        for good in ["database.dump", "data/secrets-key", "data/git/a.git/HEAD"] {
            assert!(placed(good), "{good}");
        }
        for bad in [
            "data/../x",
            "/etc/passwd",
            "data/server.json",
            "data",
            "x",
            "data/git/../../x",
        ] {
            assert!(!placed(bad), "{bad}");
        }
    }
}
