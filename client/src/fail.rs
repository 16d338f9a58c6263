//! How a command fails: an exit code, one line that says what, one line that says what to do next.

use proto::{
    problem::{Code, Exit, Problem},
    text::harmless,
};

/// A failure, ready to be printed. It never holds a secret.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the process exits with.
    pub(crate) exit: Exit,
    /// The broker's code, where the broker said it.
    pub(crate) code: Option<Code>,
    /// What went wrong.
    pub(crate) what: String,
    /// What to do next.
    pub(crate) next: String,
}

impl Failure {
    /// With any exit code.
    pub(crate) fn new(exit: Exit, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            exit,
            code: None,
            what: what.into(),
            next: next.into(),
        }
    }
    /// The command was used wrongly.
    pub(crate) fn usage(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what, next)
    }
    /// Something did not work.
    pub(crate) fn failed(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what, next)
    }
    /// What the other side says does not hold.
    pub(crate) fn refused(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(Exit::Refused, what, next)
    }
    /// The broker cannot be reached.
    pub(crate) fn unreachable(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, what, next)
    }
    /// A file could not be read or written.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::failed(
            format!("{}: {error}", path.display()),
            "Check that the file exists and that you may read and write it.",
        )
    }
    /// Whether asking again later may help: the broker was away, or sealed.
    pub(crate) fn is_away(&self) -> bool {
        self.exit == Exit::Unreachable
    }
}

impl From<Problem> for Failure {
    /// Whatever a broker writes is shown without characters that mislead (attack 10).
    fn from(p: Problem) -> Self {
        let next = if p.detail.is_empty() {
            hint(p.code).to_owned()
        } else {
            harmless(&p.detail)
        };
        Self {
            exit: p.code.exit(),
            code: Some(p.code),
            what: harmless(&p.title),
            next,
        }
    }
}

/// What to do next, where the broker did not say.
const fn hint(code: Code) -> &'static str {
    match code {
        Code::Sealed => "Ask an admin to run `countersign admin unseal`.",
        Code::PolicyDenied | Code::NoToken => {
            "Ask an admin whether the policy and the vault know this package."
        }
        Code::NotAllowed => "Ask an admin; `countersign devices` shows your groups.",
        Code::MatchCodeWrong => "Type the 6 digits from the CI job's own output.",
        Code::FactorWrong | Code::FactorMissing => {
            "Type the code that your authenticator shows now."
        }
        Code::ClockWrong => "Set this machine's clock; it must be within a minute of the broker's.",
        Code::ClockSuspect => {
            "An admin checks the clock of the broker's machine, then: `countersign admin trust-clock`."
        }
        Code::Frozen => "Two people must thaw it: `countersign admin thaw`.",
        Code::Expired | Code::NotApproved => "Run the job again when a maintainer can answer.",
        Code::VersionTaken => "Choose a new version.",
        Code::Unsettled => "Wait: the broker keeps reading the registry back.",
        Code::RegistryConflict | Code::BytesDiffer => {
            "Do not release: find out where the other bytes come from."
        }
        _ => "`countersign status` shows the broker; its log has the details.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_an_exit_code_that_is_not_success_and_a_next_step() {
        for code in [
            Code::Sealed,
            Code::Denied,
            Code::Expired,
            Code::Unknown,
            Code::Internal,
        ] {
            let f = Failure::from(Problem::new(code, "x\u{1b}[2Jy", ""));
            assert_ne!(f.exit, Exit::Done);
            assert!(!f.next.is_empty());
            assert!(!f.what.contains('\u{1b}'));
        }
        assert_eq!(
            Failure::from(Problem::new(Code::Denied, "a", "")).exit as u8,
            3
        );
        assert_eq!(
            Failure::from(Problem::new(Code::Sealed, "a", "")).exit as u8,
            6
        );
    }
}
