//! Makes the processes, and takes leave of them. One thread does it for as long as the program
//! runs: the system ends a child with the very thread that made it.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
};

/// A process and the socket to it.
pub(crate) struct Spawned {
    pub(crate) child: Child,
    pub(crate) socket: UnixStream,
}

enum Order {
    Make(u64, mpsc::Sender<io::Result<Spawned>>),
    Bury(Child),
}

/// The thread that makes processes.
#[derive(Clone)]
pub(crate) struct Spawner(mpsc::Sender<Order>);

impl Spawner {
    pub(crate) fn start(program: PathBuf, arguments: Vec<String>) -> io::Result<Self> {
        let (orders, work) = mpsc::channel();
        std::thread::Builder::new()
            .name("picloud-spawner".to_owned())
            .spawn(move || {
                for order in work {
                    match order {
                        Order::Make(memory, to) => {
                            // Who asked may have gone meanwhile; then the process ends by itself.
                            let _ = to.send(make(&program, &arguments, memory));
                        }
                        Order::Bury(child) => bury(child),
                    }
                }
            })?;
        Ok(Self(orders))
    }

    /// A process whose runs may hold that much memory; comes when it has started.
    pub(crate) fn order(&self, memory: u64) -> mpsc::Receiver<io::Result<Spawned>> {
        let (to, made) = mpsc::channel();
        // Without the thread the receiver says that nothing comes.
        let _ = self.0.send(Order::Make(memory, to));
        made
    }

    /// Ends a process.
    pub(crate) fn bury(&self, child: Child) {
        if let Err(mpsc::SendError(Order::Bury(child))) = self.0.send(Order::Bury(child)) {
            bury(child);
        }
    }
}

fn make(program: &PathBuf, arguments: &[String], memory: u64) -> io::Result<Spawned> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new(program)
        .args(arguments)
        .arg(memory.to_string())
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()?;
    Ok(Spawned {
        child,
        socket: ours,
    })
}

fn bury(mut child: Child) {
    // One that has ended already is not there to be killed.
    let _ = child.kill();
    if let Err(error) = child.wait() {
        tracing::warn!(%error, "a process that ran scripts could not be waited for");
    }
}
