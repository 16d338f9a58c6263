//! Marking a version as one that nobody should choose: what registries call yank, or deprecate.

use super::{BoxFuture, ReadError, Sent};
use crate::secret::Secret;
use proto::ids::{PackageName, VersionText};
use std::time::Duration;

/// What is said of a version.
#[derive(Clone, Copy, Debug)]
pub struct Mark<'a> {
    /// The package.
    pub package: &'a PackageName,
    /// The version.
    pub version: &'a VersionText,
    /// What users are told, where the registry shows such.
    pub message: Option<&'a str>,
    /// The mark is taken away again.
    pub undo: bool,
}

/// A registry that marks versions for a program. One call, built here, that says nothing else; the same call again
/// changes nothing, so it is repeated after an unclear answer, and what the registry shows decides.
pub trait Withdraw: Send + Sync {
    /// Whether a mark can be taken away again.
    fn undoes(&self) -> bool;

    /// Whether the registry shows a message.
    fn tells(&self) -> bool;

    /// Whether the call says all of the package again, so that what comes to the registry at the same time would be lost.
    fn rewrites(&self) -> bool;

    /// Whether the registry shows what the mark says; `None` where it does not show the version at all.
    fn shows_mark<'a>(
        &'a self,
        mark: Mark<'a>,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Option<bool>, ReadError>>;

    /// Sends the one call. The token is in memory for this call only.
    fn send_mark<'a>(
        &'a self,
        mark: Mark<'a>,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Sent>;
}

#[cfg(test)]
mod tests {
    use crate::registry::{Address, KINDS, Kind, Timeouts};

    #[test]
    fn each_kind_marks_a_version_or_says_what_a_person_does() {
        for row in KINDS {
            let Some(connect) = row.connect.filter(|_| row.kind != Kind::Http) else {
                continue;
            };
            let url: url::Url = "https://registry.example/".parse().unwrap();
            let address = Address {
                upload: Some(url.clone()),
                user: Some("maint".to_owned()),
                ..Address::at(url)
            };
            let upstream = connect(address, Timeouts::default()).unwrap();
            match (row.kind, upstream.withdraw()) {
                (Kind::Npm | Kind::Crates | Kind::RubyGems, Ok(_)) => {}
                (Kind::PyPi, Err(said)) => assert!(said.ends_with("Options, Yank")),
                (_, Err(said)) => assert!(said.contains("push the good image")),
                (kind, Ok(_)) => panic!("{kind:?}"),
            }
        }
    }
}
