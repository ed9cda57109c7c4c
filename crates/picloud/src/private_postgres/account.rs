//! As whom PostgreSQL runs, and where that user may have its files.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::{Gid, Uid, User, chown, geteuid};

use super::{PrivatePostgresError, io, set_mode};

/// Where clusters of root's data directories go that their user can't reach.
const ELSEWHERE: &str = "/var/lib/picloud";

/// The user that PostgreSQL runs as.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: String,
    /// Whom to become; `None`: as we are.
    other: Option<(Uid, Gid)>,
}

impl Account {
    /// We ourselves; as root, `postgres` or else `nobody`.
    pub(super) fn choose() -> Result<Self, PrivatePostgresError> {
        let user = geteuid();
        if !user.is_root() {
            let name = User::from_uid(user).ok().flatten().map(|user| user.name);
            return Ok(Self {
                name: name.unwrap_or_else(|| "picloud".to_owned()),
                other: None,
            });
        }
        let known = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten());
        let user = known.ok_or(PrivatePostgresError::NoAccount)?;
        Ok(Self {
            name: user.name,
            other: Some((user.uid, user.gid)),
        })
    }

    /// The folder of the cluster: below the data directory, or elsewhere where the user could not
    /// reach that (a clone below `/root`); then a file in the data directory says where.
    pub(super) fn place(&self, data_dir: &Path) -> Result<PathBuf, PrivatePostgresError> {
        let near = data_dir.join("postgres");
        let pointer = data_dir.join("postgres.location");
        if let Ok(text) = fs::read_to_string(&pointer) {
            let path = PathBuf::from(text.trim());
            self.private_folder(&path)?;
            return Ok(path);
        }
        if near.join("data").exists() || self.reaches(data_dir) {
            self.private_folder(&near)?;
            return Ok(near);
        }
        fs::create_dir_all(ELSEWHERE).map_err(io(format!("cannot create {ELSEWHERE}")))?;
        let path = Path::new(ELSEWHERE).join(digest(data_dir));
        self.private_folder(&path)?;
        fs::write(&pointer, format!("{}\n", path.display()))
            .map_err(io("cannot write postgres.location"))?;
        Ok(path)
    }

    /// Where the cluster is, or would be below the data directory; makes nothing.
    pub(super) fn known_place(data_dir: &Path) -> PathBuf {
        let pointer = fs::read_to_string(data_dir.join("postgres.location")).ok();
        pointer.map_or_else(
            || data_dir.join("postgres"),
            |text| PathBuf::from(text.trim()),
        )
    }

    /// Whether every folder above can be passed through.
    fn reaches(&self, path: &Path) -> bool {
        let Some((uid, gid)) = self.other else {
            return true;
        };
        path.ancestors().all(|folder| {
            fs::metadata(folder).is_ok_and(|metadata| {
                let mode = metadata.mode();
                mode & 0o001 != 0
                    || metadata.uid() == uid.as_raw() && mode & 0o100 != 0
                    || metadata.gid() == gid.as_raw() && mode & 0o010 != 0
            })
        })
    }

    /// A folder of that user alone.
    pub(super) fn private_folder(&self, path: &Path) -> Result<(), PrivatePostgresError> {
        fs::create_dir_all(path).map_err(io(format!("cannot create {}", path.display())))?;
        let owner = self
            .other
            .map_or_else(|| geteuid().as_raw(), |(uid, _)| uid.as_raw());
        let metadata =
            fs::symlink_metadata(path).map_err(io(format!("cannot look at {}", path.display())))?;
        if metadata.uid() != owner {
            let (uid, gid) = self.other.unwrap_or((geteuid(), nix::unistd::getegid()));
            chown(path, Some(uid), Some(gid)).map_err(|error| {
                io(format!("cannot give {} to {}", path.display(), self.name))(error.into())
            })?;
        }
        set_mode(path, 0o700)
    }

    /// A program run as that user, with nothing of our environment. A server dies with us, where
    /// the system can be told so; where not, the next start finds and stops it.
    pub(super) fn command(&self, program: &Path, with_us: bool) -> Command {
        let setpriv = Path::new("/usr/bin/setpriv");
        let mut command = if with_us && setpriv.exists() {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "INT"]);
            if let Some((uid, gid)) = self.other {
                command.args([
                    format!("--reuid={uid}"),
                    format!("--regid={gid}"),
                    "--clear-groups".to_owned(),
                ]);
            }
            command.arg("--").arg(program);
            command
        } else {
            let mut command = Command::new(program);
            if let Some((uid, gid)) = self.other {
                command.uid(uid.as_raw()).gid(gid.as_raw());
            }
            command
        };
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .current_dir("/");
        command
    }
}

/// A short name for a path, the same at each start.
pub(super) fn digest(path: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
