//! The process around the keys: nothing of its memory should reach a disk or another process.

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
};

/// What could be had. A missing one is told to the admin; it does not stop the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hardening {
    /// Other processes of the same user can neither trace this one nor read its memory.
    pub not_dumpable: bool,
    /// A crash writes no core file.
    pub no_core: bool,
    /// Memory is never swapped out.
    pub locked: bool,
}

/// Hardens this process; called once, before a secret is read (attack 41).
pub fn harden_process() -> Hardening {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Hardening {
        not_dumpable: set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok(),
        no_core: setrlimit(Resource::Core, none).is_ok(),
        locked: lock_memory(),
    }
}

/// Locking needs a limit that does not bind: with a small one (8 MiB is usual) the lock of today's
/// pages would succeed and tomorrow's allocation fail, which kills the daemon in the middle of work.
fn lock_memory() -> bool {
    getrlimit(Resource::Memlock).current.is_none()
        && mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_41_no_core_file_and_no_tracer() {
        let got = harden_process();
        assert!(got.not_dumpable && got.no_core);
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
        assert_eq!(
            rustix::process::dumpable_behavior().ok(),
            Some(DumpableBehavior::NotDumpable)
        );
    }
}
