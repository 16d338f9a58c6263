//! What the process that reads archives may do: read what it was given, write what it found, compute. Nothing of it
//! is needed while nobody has found a hole in the readers; all of it is for the day when somebody has.
//!
//! It is entered before the first byte of an archive is read. Whatever cannot be had is a failure: a process that
//! could do more is not let near an archive.

use rustix::process::{Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use thiserror::Error;

/// Address space, in bytes: the program itself, and what two large archives take.
const ADDRESSES: u64 = 320 << 20;
/// Processor time, in seconds.
const SECONDS: u64 = 15;
/// Behind everything that people wait for.
const NICENESS: i32 = 10;

/// Why it was not entered.
#[derive(Debug, Error)]
pub(super) enum SandboxError {
    /// The kernel refused a limit.
    #[error("a limit could not be set: {0}")]
    Limit(#[from] rustix::io::Errno),
    /// The filter cannot be made for this machine, or the kernel takes none.
    #[error("the system calls could not be limited: {0}")]
    Filter(String),
}

/// Enters it, for good.
pub(super) fn enter() -> Result<(), SandboxError> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // A courtesy and no limit: a service manager may have taken the call away.
    let _ = nice(NICENESS);
    // Where memory runs out, the kernel ends this process, and not the broker.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    for (what, most) in [
        (Resource::As, ADDRESSES),
        (Resource::Cpu, SECONDS),
        (Resource::Fsize, 0),
        (Resource::Nproc, 0),
        (Resource::Nofile, 0),
        (Resource::Core, 0),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(what, limit)?;
    }
    let program = filter().map_err(|e| SandboxError::Filter(e.to_string()))?;
    // It sets `no_new_privs` too.
    seccompiler::apply_filter(&program).map_err(|e| SandboxError::Filter(e.to_string()))
}

/// No file, no socket, no process, no memory that is run: any other call ends the process.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let any = [
        libc::SYS_read,
        libc::SYS_lseek,
        libc::SYS_close,
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_getrandom,
        libc::SYS_clock_gettime,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let mut rules: Vec<(i64, Vec<SeccompRule>)> = any.map(|call| (call, Vec::new())).to_vec();
    let output = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Le, 2)?;
    rules.push((libc::SYS_write, vec![SeccompRule::new(vec![output])?]));
    // What closes a file asks first whether it is open, in a build for tests.
    let asks = u64::from(libc::F_GETFD.unsigned_abs());
    let asks = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, asks)?;
    rules.push((libc::SYS_fcntl, vec![SeccompRule::new(vec![asks])?]));
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let run = SeccompCmpOp::MaskedEq(u64::from(libc::PROT_EXEC.unsigned_abs()));
        let not_run = SeccompCondition::new(2, SeccompCmpArgLen::Dword, run, 0)?;
        rules.push((call, vec![SeccompRule::new(vec![not_run])?]));
    }
    let machine: TargetArch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        machine,
    )?
    .try_into()
}

#[cfg(test)]
#[path = "sandbox_tests.rs"]
mod tests;
