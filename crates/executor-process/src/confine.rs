//! What a process that runs scripts gives up before it sees the first one.

use std::{
    collections::BTreeMap,
    io,
    os::{fd::AsRawFd, unix::net::UnixStream},
};

use nix::sys::{
    prctl,
    resource::{Resource, setrlimit},
    signal::Signal,
};
use picloud_executor_core::STACK;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Address space beside what a run may hold: the program itself, the allocator's arenas.
const BASE: u64 = 768 << 20;
/// Seconds of processor time in its whole life: long before that it is replaced.
const CPU_SECONDS: u64 = 3_600;

/// Confines this process; it has all the descriptors and threads that it will ever have.
pub(crate) fn process(memory: u64) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let space = memory.saturating_mul(2) + STACK as u64 + BASE;
    for (resource, most) in [
        (Resource::RLIMIT_AS, space),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_CPU, CPU_SECONDS),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NOFILE, 0),
        (Resource::RLIMIT_NPROC, 0),
    ] {
        setrlimit(resource, most, most)?;
    }
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    filter_calls()
}

/// What was not meant for this process is closed: all but the socket and the standard streams, of
/// which one is the socket, too, one is nothing, and one is the log.
pub(crate) fn close_all_but(socket: &UnixStream) -> io::Result<()> {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open {
        if descriptor > 2 && descriptor != socket.as_raw_fd() {
            // The one of the listing itself is closed already.
            let _ = nix::unistd::close(descriptor);
        }
    }
    Ok(())
}

/// The system calls that a process needs that computes, speaks on a socket and ends. All others
/// fail: no file is opened, no process made, no socket connected.
const CALLS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

fn filter_calls() -> io::Result<()> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        tracing::warn!("system calls cannot be filtered on this kind of processor");
        return Ok(());
    };
    let rules: BTreeMap<i64, Vec<_>> = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)?;
    // All threads: the main one waits, the clock's sleeps.
    seccompiler::apply_filter_all_threads(&filter).or_else(|error| {
        // A kernel without it, or a container that does not let it be used.
        tracing::warn!(%error, "system calls are not filtered here");
        Ok(())
    })
}
