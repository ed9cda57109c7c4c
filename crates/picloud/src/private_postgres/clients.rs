//! The client programs that come with a server, and the server that another process runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;

use super::{PrivatePostgres, account::Account, binaries, is_postgres};

impl PrivatePostgres {
    /// Where the server is reached that runs on a data directory, started by another process.
    pub fn url_of_running(data_dir: &Path) -> Option<String> {
        let account = Account::choose().ok()?;
        let near = data_dir.join("postgres");
        let base = match fs::read_to_string(data_dir.join("postgres.location")) {
            Ok(text) => PathBuf::from(text.trim()),
            Err(_) => near,
        };
        let cluster = base.join("data");
        // Its lines are described in PostgreSQL's miscinit.h: the first is the process, the fifth
        // the folder of the socket.
        let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        let pid = Pid::from_raw(lines.next()?.trim().parse().ok()?);
        let sockets = lines.nth(3)?.trim();
        is_postgres(pid, &cluster).then(|| super::url(&account.name, Path::new(sockets)))
    }
}

/// The newest program of a name among those that are installed: a client speaks to older servers,
/// not to newer ones.
pub fn client(name: &str) -> Option<PathBuf> {
    let found = binaries::folders()
        .into_iter()
        .map(|folder| folder.join(name));
    found
        .filter(|program| program.is_file())
        .filter_map(|program| Some((binaries::major(&program)?, program)))
        .max_by_key(|(major, _)| *major)
        .map(|(_, program)| program)
}
