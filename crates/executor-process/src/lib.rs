//! Runs scripts in supervised processes of their own. The process that has a script has nothing
//! else: no database, no network, no files, no keys. What the script asks of the SDK comes back
//! over a socket and is done here, within the same services and limits as in-process.

mod answer;
mod child;
mod confine;
mod crashes;
mod frame;
mod message;
mod pool;
mod port;
mod queue;
mod spawn;
mod worker;

pub use child::main as child_main;
pub use pool::{ProcessExecutor, ProcessOptions};
