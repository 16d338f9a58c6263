//! Names. Each is made by one parser only, so that no limiter, index or map is ever keyed by a
//! spelling that another part of the program would read as somebody else.

use crate::text;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Why a name was refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{what} {why}")]
pub struct NameError {
    what: &'static str,
    why: String,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                $check(s).map_err(|why| NameError { what: $what, why })?;
                Ok(Self(s.to_owned()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                s.parse()
            }
        }
        impl From<$name> for String {
            fn from(n: $name) -> String {
                n.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A person: lower-case letters, digits and hyphens, 1 to 39 characters.
    PersonId, "person name", slug
);
name!(
    /// A registry as the configuration names it: lower-case letters, digits and hyphens.
    RegistryId, "registry name", slug
);
name!(
    /// A group of people in the policy.
    GroupName, "group name", slug
);
name!(
    /// A client key that an admin registered for CI without OIDC.
    ClientKeyId, "client key name", slug
);
name!(
    /// A package in its registry's own spelling, 1 to 214 bytes; the registry's adapter judges more.
    PackageName, "package name", package
);
name!(
    /// A version as written in the request, 1 to 128 bytes.
    VersionText, "version", version
);
name!(
    /// A device's key id: `dev_` and 26 characters, derived from its public key.
    DeviceId, "device id", device
);

fn slug(s: &str) -> Result<(), String> {
    let ok = (1..=39).contains(&s.len())
        && s.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !s.starts_with('-')
        && !s.ends_with('-');
    ok.then_some(()).ok_or_else(|| {
        format!(
            "'{}' is not 1 to 39 lower-case letters, digits and inner hyphens",
            text::harmless(s)
        )
    })
}

fn package(s: &str) -> Result<(), String> {
    text::check(s, 214).map_err(|e| e.to_string())?;
    let ok = s
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.~@/:".contains(&b));
    ok.then_some(()).ok_or_else(|| {
        format!(
            "'{}' has characters that no package name has",
            text::harmless(s)
        )
    })
}

fn version(s: &str) -> Result<(), String> {
    text::check(s, 128).map_err(|e| e.to_string())?;
    let ok = s
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.+!~".contains(&b));
    ok.then_some(())
        .ok_or_else(|| format!("'{}' has characters that no version has", text::harmless(s)))
}

fn device(s: &str) -> Result<(), String> {
    let ok = s.len() == 30
        && s.strip_prefix("dev_").is_some_and(|r| {
            r.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        });
    ok.then_some(())
        .ok_or_else(|| "is not a device id (dev_…)".to_owned())
}

/// A request's id. Time-ordered (UUID version 7), so that rows of one day lie together; never a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub uuid::Uuid);

impl FromStr for RequestId {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        // One spelling only: hyphenated lower case.
        match uuid::Uuid::try_parse(s) {
            Ok(id) if id.hyphenated().to_string() == s => Ok(Self(id)),
            _ => Err(NameError {
                what: "request id",
                why: "is not a request id".to_owned(),
            }),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// An intent's id; time-ordered as a request's, and written the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IntentId(pub uuid::Uuid);

impl FromStr for IntentId {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        match s.parse::<RequestId>() {
            Ok(id) => Ok(Self(id.0)),
            Err(_) => Err(NameError {
                what: "intent id",
                why: "is not an intent id".to_owned(),
            }),
        }
    }
}

impl fmt::Display for IntentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_only() {
        assert!("alice".parse::<PersonId>().is_ok());
        for bad in [
            "Alice", " alice", "alice ", "al ice", "", "-a", "ａlice", "a\0",
        ] {
            assert!(bad.parse::<PersonId>().is_err(), "{bad:?}");
        }
        assert!("@acme/left".parse::<PackageName>().is_ok());
        assert!("left%2fpad".parse::<PackageName>().is_err());
        let id = RequestId(uuid::Uuid::from_u128(7));
        assert_eq!(id.to_string().parse::<RequestId>(), Ok(id));
        assert!(
            id.to_string()
                .to_uppercase()
                .replace('0', "A")
                .parse::<RequestId>()
                .is_err()
        );
    }
}
