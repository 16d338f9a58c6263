//! Which packages a token is for.

use proto::ids::PackageName;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Which packages a token is for: one name, `@scope/*`, or `*`. Nothing else is a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(String);

/// A text that is no scope.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a token's scope is a package's exact name, `@scope/*` or `*`")]
pub struct ScopeError;

impl FromStr for Scope {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        // "@acme/*" is a scope when "@acme/x" is a package.
        let name = match text.strip_suffix("/*") {
            Some(head) if head.starts_with('@') && head.len() > 1 && !head.contains('/') => {
                format!("{head}/x")
            }
            _ => text.to_owned(),
        };
        let good = text == "*" || name.parse::<PackageName>().is_ok();
        good.then(|| Self(text.to_owned())).ok_or(ScopeError)
    }
}

impl TryFrom<String> for Scope {
    type Error = ScopeError;
    fn try_from(text: String) -> Result<Self, ScopeError> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Scope {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether some package is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let holds = |wide: &Self, narrow: &Self| match wide.0.strip_suffix('*') {
            Some(head) => narrow.0.starts_with(head),
            None => wide.0 == narrow.0,
        };
        holds(self, other) || holds(other, self)
    }

    /// The scopes that hold the package, narrowest first.
    pub fn candidates(package: &PackageName) -> Vec<Self> {
        let name = package.as_str();
        let group = name
            .split_once('/')
            .filter(|(head, _)| head.starts_with('@'))
            .map(|(head, _)| Self(format!("{head}/*")));
        [
            Some(Self(name.to_owned())),
            group,
            Some(Self("*".to_owned())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
