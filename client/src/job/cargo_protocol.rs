//! What cargo says to a credential provider, and what it is answered.
//!
//! cargo starts the program with `--cargo-plugin`. The program greets with the versions that it speaks; then
//! each line of its standard input is a request and each line of its standard output the answer. Standard
//! error is free for people. The reference is the cargo book's "Credential Provider Protocol", version 1.
//! cargo takes an answer for an answer only from a program that then exits 0.

use crate::fail::Failure;
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, Read as _};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use zeroize::Zeroizing;

/// The one version that exists.
pub(crate) const VERSION: u32 = 1;
/// Longest line that is read, in bytes.
const LINE_MAX: u64 = 64 << 10;

/// The first line.
#[derive(Serialize)]
pub(crate) struct Hello {
    v: [u32; 1],
}

impl Hello {
    /// Version 1 alone.
    pub(crate) const fn new() -> Self {
        Self { v: [VERSION] }
    }
}

/// A request. Members that later versions add are left alone, as the protocol demands.
#[derive(Deserialize)]
pub(crate) struct Request {
    /// The version that cargo chose.
    #[serde(default)]
    pub(crate) v: u32,
    /// The registry that the credential is for.
    pub(crate) registry: Registry,
    /// `get`, `login`, `logout`, or what is not known yet.
    pub(crate) kind: String,
    /// For `get`: `read`, `publish`, `yank`, …
    #[serde(default)]
    pub(crate) operation: String,
    /// For `publish`: the crate.
    #[serde(default)]
    pub(crate) name: String,
    /// For `publish`: its version.
    #[serde(default)]
    pub(crate) vers: String,
    /// For `publish`: the sha256 of the `.crate`, hex.
    #[serde(default)]
    pub(crate) cksum: String,
    /// What the settings say behind the program's name.
    #[serde(default)]
    pub(crate) args: Vec<String>,
}

/// A registry as cargo knows it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Registry {
    /// The index, with `sparse+` or `registry+` before it, or as cargo's settings have it.
    pub(crate) index_url: String,
    /// Its name in cargo's settings; `crates-io` is cargo's own name and nobody else's.
    #[serde(default)]
    pub(crate) name: Option<String>,
}

/// An answer.
#[derive(Serialize)]
pub(crate) enum Answer {
    /// A credential.
    Ok(Given),
    /// None.
    Err(Refused),
}

/// A credential.
#[derive(Serialize)]
pub(crate) struct Given {
    kind: &'static str,
    #[serde(serialize_with = "exposed")]
    token: Zeroizing<String>,
    cache: Cache,
    /// Whether it would do for another operation too: never.
    operation_independent: bool,
}

/// How long cargo may keep a token.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cache {
    /// For this one call.
    Never,
    /// For this run, and for reads alone.
    Session,
}

impl Given {
    /// A token for the operation that was asked about, and no other.
    pub(crate) const fn new(token: Zeroizing<String>, cache: Cache) -> Self {
        Self {
            kind: "get",
            token,
            cache,
            operation_independent: false,
        }
    }
}

/// The one place where a token is written out: to cargo.
fn exposed<S: serde::Serializer>(token: &Zeroizing<String>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(token)
}

/// Why there is no credential.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Refused {
    /// Another registry's: cargo asks its next provider.
    UrlNotSupported,
    /// Nothing but publishing.
    OperationNotSupported,
    /// Anything else, in words; cargo prints them and stops.
    #[serde(rename_all = "kebab-case")]
    Other {
        /// What went wrong.
        message: String,
        /// What to do next.
        caused_by: Vec<String>,
    },
}

impl From<&Failure> for Refused {
    fn from(f: &Failure) -> Self {
        Self::Other {
            message: f.what.clone(),
            caused_by: vec![f.next.clone()],
        }
    }
}

/// Lines of standard input as they come. The end of the lines means that cargo is gone: nobody would take
/// the token then.
pub(crate) fn lines() -> UnboundedReceiver<String> {
    let (send, receive) = unbounded_channel();
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = String::new();
            let read = input.by_ref().take(LINE_MAX).read_line(&mut line);
            // A line that is cut off at the limit is no JSON, and is refused as such.
            if read.map_or(0, |n| n) == 0 || send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocols_own_examples() {
        let text = |a: &Answer| serde_json::to_string(a).unwrap();
        assert_eq!(
            serde_json::to_string(&Hello::new()).unwrap(),
            r#"{"v":[1]}"#
        );
        let line = r#"{"v":1,"registry":{"index-url":"sparse+https://r.example/index/","name":"mine"},"kind":"get","operation":"publish","name":"sample","vers":"0.1.0","cksum":"ab","args":["x"]}"#;
        let request: Request = serde_json::from_str(line).unwrap();
        assert_eq!(request.registry.name.as_deref(), Some("mine"));
        assert_eq!(
            (request.vers.as_str(), request.cksum.as_str()),
            ("0.1.0", "ab")
        );
        let given = Given::new(Zeroizing::new("t".to_owned()), Cache::Never);
        assert_eq!(
            text(&Answer::Ok(given)),
            r#"{"Ok":{"kind":"get","token":"t","cache":"never","operation_independent":false}}"#
        );
        assert_eq!(
            text(&Answer::Err(Refused::UrlNotSupported)),
            r#"{"Err":{"kind":"url-not-supported"}}"#
        );
        let refused = Refused::from(&Failure::failed("no.", "next."));
        assert_eq!(
            text(&Answer::Err(refused)),
            r#"{"Err":{"kind":"other","message":"no.","caused-by":["next."]}}"#
        );
    }
}
