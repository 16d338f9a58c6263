//! The registry itself: its compact index, and the one request that pushes.

use super::{doors, index, prove};
use crate::{
    registry::{
        self, Account, Address, BaseError, BoxFuture, Doors, Proof, Publish, Published, ReadError,
        SecondFactor, Sent, Timeouts, Trial, Upstream,
        artifact::{Downloads, Fetched, Keep},
        pieces::{self, Frame},
        upstream::{failed, limited, short_reply},
    },
    secret::Secret,
};
use proto::{
    digest::hex,
    ids::{PackageName, VersionText},
    request::File,
};
use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};
use std::time::Duration;
use url::Url;

/// Longest text of the index.
const MAX_INDEX: usize = 16 << 20;
/// How long the public registry may take to show what it accepted: it writes the index in a job of its own.
const LAG: Duration = Duration::from_secs(90);
/// The header of the registry's own second factor.
const FACTOR: &str = "otp";

/// One gem registry.
pub struct RubyGems {
    pub(super) client: Client,
    /// Its root, with a slash at its end.
    pub(super) base: Url,
    pub(super) read: Duration,
    downloads: Downloads,
    /// Where the registry's own people may be sent, beside its own origin.
    pub(super) factor_origins: Vec<Url>,
}

impl RubyGems {
    /// For the address in the configuration.
    pub fn new(address: Address, timeouts: Timeouts) -> Result<Self, BaseError> {
        let base = registry::upstream::base(address.url)?;
        Ok(Self {
            client: registry::upstream::client(&base, timeouts)?,
            downloads: Downloads::new(&[&base], &address.downloads, timeouts)?,
            base,
            read: timeouts.read,
            factor_origins: address.factor_origins,
        })
    }

    /// Everything that the index shows, past its caches. Anybody may read it: the key is not shown.
    async fn info(&self, package: &PackageName) -> Result<Published, ReadError> {
        Ok(self.listed(package).await?.unwrap_or_default())
    }

    /// The same; `None` where the registry has no such gem.
    pub(super) async fn listed(
        &self,
        package: &PackageName,
    ) -> Result<Option<Published>, ReadError> {
        let address = self.base.join(&format!("info/{package}"));
        let mut address = address.map_err(|_| ReadError::NotUnderstood)?;
        let mut unique = [0; 8];
        aws_lc_rs::rand::fill(&mut unique).map_err(|_| ReadError::Unreachable)?;
        address.set_query(Some(&format!("read-back={}", hex(&unique))));
        let request = self.client.get(address).timeout(self.read);
        let reply = request
            .header(CACHE_CONTROL, "no-cache")
            .send()
            .await
            .map_err(|e| failed(&e))?;
        match reply.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::OK => {}
            status => return Err(ReadError::Status(status.as_u16())),
        }
        let text = limited(reply, MAX_INDEX).await?;
        index::read(&text, package).map(Some)
    }

    /// The one request that pushes, with the registry's own second factor where that was given.
    pub(super) async fn send(
        &self,
        publish: &mut Publish,
        token: &Secret<String>,
        factor: Option<&Secret<String>>,
        within: Duration,
    ) -> Sent {
        let registry::Envelope::RubyGems = &publish.envelope else {
            return Sent::Unclear;
        };
        let Ok(address) = self.base.join("api/v1/gems") else {
            return Sent::Unclear;
        };
        let frame = Frame {
            head: Vec::new(),
            tail: Vec::new(),
            encode: <[u8]>::to_vec,
            length: publish.size,
        };
        let request = self
            .client
            .post(address)
            .header(CONTENT_TYPE, "application/octet-stream");
        let request = keyed(request, token).and_then(|r| match factor {
            Some(factor) => sensitive(r, FACTOR, factor),
            None => Some(r),
        });
        let Some(request) = request else {
            return Sent::Unclear;
        };
        match pieces::send(request, &mut publish.file, frame, within).await {
            Some(reply) if reply.status() == StatusCode::UNAUTHORIZED => {
                self.challenged(reply, token).await
            }
            Some(reply) => judged(reply, token).await,
            None => Sent::Unclear,
        }
    }
}

impl Upstream for RubyGems {
    fn shows<'a>(
        &'a self,
        package: &'a PackageName,
        _: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Published, ReadError>> {
        Box::pin(self.info(package))
    }

    /// Anybody may download a gem: the key is not shown.
    fn fetch<'a>(
        &'a self,
        _: &'a PackageName,
        _: &'a VersionText,
        file: &'a File,
        keep: Keep<'a>,
        _: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Fetched, ReadError>> {
        Box::pin(async move {
            // The file's name is the gem's own: name, version and platform, of letters that stand in an address.
            let place = self.base.join(&format!("gems/{}", file.name));
            let place = place.map_err(|_| ReadError::NotUnderstood)?;
            self.downloads.fetch(place, file, keep, None).await
        })
    }

    fn whoami<'a>(&'a self, _: &'a Secret<String>) -> BoxFuture<'a, Result<Account, ReadError>> {
        // A key that may push alone may not ask.
        Box::pin(async { Ok(Account::CannotAsk) })
    }

    fn prove<'a>(
        &'a self,
        token: &'a Secret<String>,
        _: Trial<'a>,
    ) -> BoxFuture<'a, Result<Proof, ReadError>> {
        Box::pin(prove::ask(self, token))
    }

    fn lag(&self) -> Duration {
        LAG
    }

    fn doors<'a>(
        &'a self,
        package: &'a PackageName,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Doors> {
        Box::pin(doors::ask(self, package, token))
    }

    fn pages(&self) -> &'static [(&'static str, &'static str)] {
        doors::PAGES
    }

    fn publish<'a>(
        &'a self,
        publish: &'a mut Publish,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Sent> {
        Box::pin(self.send(publish, token, None, within))
    }

    fn second_factor(&self) -> Option<&dyn SecondFactor> {
        Some(self)
    }

    fn withdraw(&self) -> Result<&dyn registry::withdraw::Withdraw, &'static str> {
        Ok(self)
    }
}

/// Adds the key. gem sends it as it is, without a scheme. `None` when it cannot stand in a header.
pub(super) fn keyed(request: RequestBuilder, token: &Secret<String>) -> Option<RequestBuilder> {
    sensitive(request, AUTHORIZATION.as_str(), token)
}

/// Adds a secret, marked so that no log line of the HTTP library shows it.
fn sensitive(
    request: RequestBuilder,
    name: &str,
    secret: &Secret<String>,
) -> Option<RequestBuilder> {
    let mut value = HeaderValue::from_str(secret.expose()).ok()?;
    value.set_sensitive(true);
    Some(request.header(name, value))
}

/// The registry's word is plain text. Whatever it is, the index decides.
pub(super) async fn judged(reply: Response, token: &Secret<String>) -> Sent {
    let status = reply.status().as_u16();
    let refused = |said: &str| Sent::Refused {
        status,
        said: registry::upstream::said(said, token),
    };
    match status {
        // Identical bytes again are 200 too.
        200 => Sent::Accepted,
        300..=399 => refused("the registry's address redirects; write the final one as url"),
        400 | 402..=407 | 409..=417 | 422 | 429 => {
            let bytes = short_reply(reply).await.unwrap_or_default();
            let said = String::from_utf8_lossy(&bytes).trim().to_owned();
            refused(&match status {
                403 => format!("{said} (does the stored key cover this gem?)"),
                _ => said,
            })
        }
        _ => Sent::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{
        fake::fake,
        rubygems::{read, samples::Parts},
    };

    async fn sent(status: u16, headers: &[(&'static str, String)], body: &str) -> (Sent, usize) {
        let (url, log) = fake(status, headers, body).await;
        let registry = RubyGems::new(Address::at(url), Timeouts::default()).unwrap();
        let gem = Parts::new("acme-left", "1.4.2").gem();
        let mut publish = read(gem.as_slice(), &std::env::temp_dir()).unwrap();
        let token = Secret::new("the-key".to_owned());
        let sent = registry
            .publish(&mut publish, &token, Duration::from_secs(10))
            .await;
        let seen = log.lock().unwrap().clone();
        let first = seen.first().unwrap();
        assert_eq!(
            (first.method.as_str(), first.path.as_str()),
            ("POST", "/r/api/v1/gems")
        );
        assert_eq!(first.headers["authorization"], "the-key");
        assert_eq!(first.body, gem);
        (sent, seen.len())
    }

    #[tokio::test]
    async fn attack_42_only_a_clear_no_is_a_no() {
        let (ok, _) = sent(200, &[], "Successfully registered gem: acme-left (1.4.2)").await;
        assert_eq!(ok, Sent::Accepted);
        for status in [401, 403, 409, 422, 429] {
            let (no, _) = sent(status, &[], "no, the-key\u{1b}[2J").await;
            let Sent::Refused { status: told, said } = no else {
                panic!("{status}: {no:?}");
            };
            assert_eq!(told, status);
            assert!(
                !said.contains("the-key") && !said.contains('\u{1b}'),
                "{said}"
            );
        }
        for status in [201, 202, 204, 408, 500, 502, 503] {
            assert_eq!(sent(status, &[], "?").await.0, Sent::Unclear, "{status}");
        }
        let otp = "You have enabled multifactor authentication but no OTP code provided.";
        let (Sent::Refused { said, .. }, asked) = sent(401, &[], otp).await else {
            panic!("a demand for a code is no yes");
        };
        assert!(said.contains("second factor of its own"), "{said}");
        assert_eq!(asked, 2, "the push, and the question for a page");
    }

    #[tokio::test]
    async fn attack_39_a_redirect_gets_neither_key_nor_gem() {
        let (other, log) = fake(200, &[], "").await;
        let (no, count) = sent(307, &[("location", other.to_string())], "").await;
        assert!(matches!(no, Sent::Refused { status: 307, .. }), "{no:?}");
        assert_eq!(count, 1);
        assert!(log.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_key_is_not_shown_to_the_index() {
        let (url, log) = fake(404, &[], "This gem could not be found").await;
        let registry = RubyGems::new(Address::at(url), Timeouts::default()).unwrap();
        let key = Secret::new("the-key".to_owned());
        let package = "acme-left".parse().unwrap();
        let shown = registry.shows(&package, Some(&key)).await.unwrap();
        assert!(shown.versions.is_empty());
        let seen = log.lock().unwrap().clone();
        assert!(
            seen[0].path.starts_with("/r/info/acme-left?"),
            "{}",
            seen[0].path
        );
        assert!(seen[0].headers.get("authorization").is_none());
        let (url, _) = fake(200, &[], "<html>").await;
        let registry = RubyGems::new(Address::at(url), Timeouts::default()).unwrap();
        assert!(registry.shows(&package, None).await.is_err());
    }

    #[tokio::test]
    async fn a_gem_is_downloaded_without_the_key_and_believed_by_its_digest() {
        let gem = Parts::new("acme-left", "1.4.2").gem();
        let (url, log) = fake(200, &[], "other bytes").await;
        let registry = RubyGems::new(Address::at(url), Timeouts::default()).unwrap();
        let file = File {
            name: "acme-left-1.4.2.gem".to_owned(),
            size: gem.len() as u64,
            digest: proto::digest::Digest::of(proto::digest::Algorithm::Sha256, &gem),
        };
        let (package, version) = ("acme-left".parse().unwrap(), "1.4.2".parse().unwrap());
        let key = Secret::new("the-key".to_owned());
        let got = registry.fetch(&package, &version, &file, None, Some(&key));
        assert!(matches!(got.await.unwrap(), Fetched::Other(_)));
        let seen = log.lock().unwrap();
        assert_eq!(seen[0].path, "/r/gems/acme-left-1.4.2.gem");
        assert!(seen[0].headers.get("authorization").is_none());
    }
}
