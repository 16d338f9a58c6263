//! `npm deprecate`: the package's own document with one member changed, sent back without attachments.
//!
//! The document is the registry's; the broker changes `versions[…].deprecated` of one version and nothing else. It is
//! read right before it is sent, with its revision, since a registry takes it as the whole truth about the package.

use super::{
    Npm, name,
    upstream::{FULL, authorised, judged},
};
use crate::{
    registry::{
        BoxFuture, ReadError, Sent,
        upstream::{failed, limited},
        withdraw::{Mark, Withdraw},
    },
    secret::Secret,
};
use proto::ids::PackageName;
use reqwest::{
    StatusCode,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, time::Duration};

/// Longest document that is changed, in bytes: it lies in memory as a whole.
const MAX_DOCUMENT: usize = 16 << 20;

impl Npm {
    /// The package's document, as one that is about to be written.
    async fn document(
        &self,
        package: &PackageName,
        token: Option<&Secret<String>>,
    ) -> Result<Option<Map<String, Value>>, ReadError> {
        let address = self.base.join(&format!("./{}", name::escaped(package)));
        let mut address = address.map_err(|_| ReadError::NotUnderstood)?;
        address.set_query(Some("write=true"));
        let request = self
            .client
            .get(address)
            .header(ACCEPT, FULL)
            .header(CACHE_CONTROL, "no-cache")
            .timeout(self.read);
        let reply = authorised(request, token)
            .ok_or(ReadError::NotUnderstood)?
            .send()
            .await
            .map_err(|e| failed(&e))?;
        match reply.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::OK => {}
            status => return Err(ReadError::Status(status.as_u16())),
        }
        let text = limited(reply, MAX_DOCUMENT).await?;
        let document: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|_| ReadError::NotUnderstood)?;
        match document.get("name").and_then(Value::as_str) {
            Some(name) if name == package.as_str() => Ok(Some(document)),
            _ => Err(ReadError::NotUnderstood),
        }
    }

    async fn deprecate(&self, mark: Mark<'_>, token: &Secret<String>, within: Duration) -> Sent {
        let refused = |said: &str| Sent::Refused {
            status: 404,
            said: said.to_owned(),
        };
        let document = match self.document(mark.package, Some(token)).await {
            Ok(Some(document)) => document,
            Ok(None) => return refused("the registry does not show the package"),
            Err(ReadError::TooLarge) => {
                return refused("the package's document is too long; do it with your own login");
            }
            Err(_) => return Sent::Unclear,
        };
        let Some(document) = marked(document, mark) else {
            return refused("the registry does not show the version");
        };
        let address = self
            .base
            .join(&format!("./{}", name::escaped(mark.package)));
        let body = serde_json::to_vec(&document);
        let (Ok(address), Ok(body)) = (address, body) else {
            return Sent::Unclear;
        };
        let request = self.client.put(address).timeout(within);
        let request = request.header(CONTENT_TYPE, FULL).body(body);
        let request = Self::asking(request, "deprecate", None);
        let Some(request) = request.and_then(|r| authorised(r, Some(token))) else {
            return Sent::Unclear;
        };
        match request.send().await {
            Ok(reply) if reply.status() == StatusCode::UNAUTHORIZED => {
                self.challenged(reply, token).await
            }
            Ok(reply) => match judged(reply, token).await {
                Sent::Accepted => self.looked_at(mark, &document, token).await,
                other => other,
            },
            Err(_) => Sent::Unclear,
        }
    }

    /// Whether nothing else became another by the call: a registry that compares no revisions takes away what
    /// somebody published by another door in that moment, and one that compares them may keep what was not sent.
    async fn looked_at(
        &self,
        mark: Mark<'_>,
        sent: &Map<String, Value>,
        token: &Secret<String>,
    ) -> Sent {
        let Ok(Some(shown)) = self.document(mark.package, Some(token)).await else {
            return Sent::Unclear;
        };
        if content(&shown) == content(sent) {
            return Sent::Accepted;
        }
        let package = mark.package.as_str();
        tracing::error!(
            package,
            "ALARM: after a deprecation the registry shows other versions or tags than before it"
        );
        Sent::Refused {
            status: 409,
            said: "it shows other versions or tags than before: compare the package's versions and tags there with \
                   your releases"
                .to_owned(),
        }
    }
}

/// What a deprecation must leave as it is: each version's digests, and the tags.
fn content(document: &Map<String, Value>) -> (BTreeMap<&str, [Option<&Value>; 2]>, Option<&Value>) {
    let versions = document.get("versions").and_then(Value::as_object);
    let versions = versions.into_iter().flatten();
    let versions = versions.map(|(name, v)| {
        (
            name.as_str(),
            ["/dist/integrity", "/dist/shasum"].map(|at| v.pointer(at)),
        )
    });
    (versions.collect(), document.get("dist-tags"))
}

/// The document with the mark; `None` where it has no such version.
fn marked(mut document: Map<String, Value>, mark: Mark<'_>) -> Option<Map<String, Value>> {
    // With attachments it would be a publish.
    document.remove("_attachments");
    let versions = document.get_mut("versions")?.as_object_mut()?;
    let version = versions.get_mut(mark.version.as_str())?.as_object_mut()?;
    // npm takes an empty text for "no more".
    let words = if mark.undo { "" } else { mark.message? };
    version.insert("deprecated".to_owned(), words.into());
    Some(document)
}

impl Withdraw for Npm {
    fn undoes(&self) -> bool {
        true
    }

    fn tells(&self) -> bool {
        true
    }

    fn rewrites(&self) -> bool {
        true
    }

    fn shows_mark<'a>(
        &'a self,
        mark: Mark<'a>,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Option<bool>, ReadError>> {
        Box::pin(async move {
            let document = self.document(mark.package, token).await?;
            let version = document.as_ref().and_then(|d| {
                let versions = d.get("versions")?.as_object()?;
                versions.get(mark.version.as_str())
            });
            Ok(version.map(|v| {
                let words = v.get("deprecated").and_then(Value::as_str);
                let words = words.filter(|w| !w.is_empty());
                words == mark.message.filter(|_| !mark.undo)
            }))
        })
    }

    fn send_mark<'a>(
        &'a self,
        mark: Mark<'a>,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Sent> {
        Box::pin(self.deprecate(mark, token, within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{
        Address, Timeouts,
        fake::{fake, fake_with},
    };
    use proto::ids::VersionText;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    const DOCUMENT: &str = r#"{"_id":"left","_rev":"3-a","name":"left","dist-tags":{"latest":"1.1.0"},
        "versions":{"1.0.0":{"name":"left","version":"1.0.0","dist":{"integrity":"x"}},
                    "1.1.0":{"name":"left","version":"1.1.0","dist":{"integrity":"y"}}},
        "_attachments":{"left-1.0.0.tgz":{"data":"AAAA"}},"readme":"r"}"#;

    const fn broken<'a>(package: &'a PackageName, version: &'a VersionText) -> Mark<'a> {
        Mark {
            package,
            version,
            message: Some("broken"),
            undo: false,
        }
    }

    #[tokio::test]
    async fn attack_20_a_deprecation_changes_one_member_of_one_version_and_publishes_nothing() {
        let (url, log) = fake(200, &[], DOCUMENT).await;
        let npm = Npm::new(Address::at(url), Timeouts::default()).unwrap();
        let token = Secret::new("npm-canary".to_owned());
        let (package, version) = ("left".parse().unwrap(), "1.0.0".parse().unwrap());
        let mark = broken(&package, &version);
        assert_eq!(
            npm.shows_mark(mark, Some(&token)).await.unwrap(),
            Some(false)
        );
        let sent = npm.send_mark(mark, &token, Duration::from_secs(5)).await;
        assert_eq!(sent, Sent::Accepted);
        let seen = log.lock().unwrap().clone();
        // It is read again after the call.
        assert_eq!(seen.last().unwrap().method, "GET");
        let put = seen.iter().rfind(|s| s.method == "PUT").unwrap();
        assert_eq!((put.method.as_str(), put.path.as_str()), ("PUT", "/r/left"));
        assert_eq!(put.headers["npm-command"], "deprecate");
        let body: Value = serde_json::from_slice(&put.body).unwrap();
        let mut wanted: Value = serde_json::from_str(DOCUMENT).unwrap();
        wanted.as_object_mut().unwrap().remove("_attachments");
        wanted["versions"]["1.0.0"]["deprecated"] = "broken".into();
        assert_eq!(body, wanted);
        // A version that is not there, and another package's document.
        let other = "9.9.9".parse().unwrap();
        let none = Mark {
            version: &other,
            ..mark
        };
        assert_eq!(npm.shows_mark(none, None).await.unwrap(), None);
        let sent = npm.send_mark(none, &token, Duration::from_secs(5)).await;
        assert!(matches!(sent, Sent::Refused { .. }), "{sent:?}");
        let right = "right".parse().unwrap();
        let foreign = Mark {
            package: &right,
            ..mark
        };
        assert!(npm.shows_mark(foreign, None).await.is_err());
    }

    #[tokio::test]
    async fn a_registry_that_shows_other_versions_or_tags_after_the_call_is_told_of() {
        let lost = DOCUMENT.replace(r#""latest":"1.1.0""#, r#""latest":"1.0.0""#);
        let put = Arc::new(AtomicBool::new(false));
        let (url, _) = fake_with(move |seen| {
            let before = !put.fetch_or(seen.method == "PUT", Ordering::SeqCst);
            (200, if before { DOCUMENT } else { &lost }.to_owned())
        })
        .await;
        let npm = Npm::new(Address::at(url), Timeouts::default()).unwrap();
        let token = Secret::new("npm-canary".to_owned());
        let (package, version) = ("left".parse().unwrap(), "1.0.0".parse().unwrap());
        let mark = broken(&package, &version);
        let sent = npm.send_mark(mark, &token, Duration::from_secs(5)).await;
        assert!(
            matches!(&sent, Sent::Refused { status: 409, said } if said.contains("other versions")),
            "{sent:?}"
        );
    }
}
