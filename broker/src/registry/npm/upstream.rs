//! The registry itself: what it shows, and the one request that publishes.
//!
//! The token is added here and nowhere else. It goes to the configured address only: no redirect is
//! followed, no proxy variable is read (attack 39), and no error of this file carries a request.

use super::{body, doors, json::JsonError, name, packument, stage::Via};
use crate::{
    registry::{
        self, Account, Address, BaseError, BoxFuture, Doors, Fetched, Keep, Proof, Publish,
        Published, ReadError, SecondFactor, Sent, Staging, Timeouts, Trial, Upstream,
        artifact::Downloads,
        pieces::{self, PIECES, Pieces},
        upstream::{failed, short_reply},
    },
    secret::Secret,
};
use proto::{
    digest::hex,
    ids::{PackageName, VersionText},
    request::File,
    text,
};
use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};
use std::time::Duration;
use tokio::sync::mpsc;
use url::Url;

/// Longest package document.
const MAX_PACKUMENT: u64 = 64 << 20;
/// A package document up to this length is read whole, in bytes.
const SHORT: u64 = 32 << 10;
/// Less to transfer than the full document, and all that is needed.
const ABBREVIATED: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8";
pub(super) const FULL: &str = "application/json";

/// One npm registry.
pub struct Npm {
    pub(super) client: Client,
    pub(super) base: Url,
    downloads: Downloads,
    pub(super) read: Duration,
    via: Via,
    /// Where the registry's own people may be sent, beside its own origin.
    pub(super) factor_origins: Vec<Url>,
}

impl Npm {
    /// For the address in the configuration.
    pub fn new(address: Address, timeouts: Timeouts) -> Result<Self, BaseError> {
        let base = registry::upstream::base(address.url)?;
        Ok(Self {
            client: registry::upstream::client(&base, timeouts)?,
            downloads: Downloads::new(&[&base], &address.downloads, timeouts)?,
            base,
            read: timeouts.read,
            via: address.via,
            factor_origins: address.factor_origins,
        })
    }

    async fn account(&self, token: &Secret<String>) -> Result<Account, ReadError> {
        let address = self
            .base
            .join("-/whoami")
            .map_err(|_| ReadError::Unreachable)?;
        let request = self
            .client
            .get(address)
            .header(ACCEPT, FULL)
            .timeout(self.read);
        let reply = authorised(request, Some(token))
            .ok_or(ReadError::NotUnderstood)?
            .send()
            .await
            .map_err(|e| failed(&e))?;
        match reply.status() {
            StatusCode::UNAUTHORIZED => return Ok(Account::Unknown),
            StatusCode::OK => {}
            status => return Err(ReadError::Status(status.as_u16())),
        }
        let bytes = short_reply(reply).await?;
        let reply: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|_| ReadError::NotUnderstood)?;
        // Some registries answer whom they do not know like that.
        if reply.is_object() && reply.get("username").is_none_or(serde_json::Value::is_null) {
            return Ok(Account::Unknown);
        }
        let name = reply.get("username").and_then(serde_json::Value::as_str);
        let name = name.filter(|n| text::check(n, 214).is_ok());
        name.map(|n| Account::Named(n.to_owned()))
            .ok_or(ReadError::NotUnderstood)
    }

    /// Whose the token is, and whether that account maintains the package. What the token itself may do the registry
    /// tells to a browser's session alone.
    async fn proved(&self, token: &Secret<String>, trial: Trial<'_>) -> Result<Proof, ReadError> {
        let account = match self.account(token).await {
            Ok(Account::Named(name)) => name,
            Ok(Account::Unknown | Account::CannotAsk) => {
                return Ok(Proof::unknown("it does not know the token"));
            }
            // A firewall says so as well, of a token that is good.
            Err(ReadError::Status(403)) => {
                return Ok(Proof::refused("it answers 403 to the question whose it is"));
            }
            Err(why) => return Err(why),
        };
        let known = Proof::proved("it knows the token");
        let Some(package) = trial.package else {
            return Ok(known.whose(account));
        };
        let proof = match doors::maintainers(self, package, token).await {
            Ok(all) if all.contains(&account) => Proof::proved(format!(
                "it knows the token, and its account maintains {package}"
            )),
            Ok(all) if !all.is_empty() => Proof::unproved(format!(
                "it knows the token, but its account is not among the maintainers of {package}"
            )),
            // A new package, or a registry that keeps no such list.
            Ok(_) | Err(_) => known,
        };
        Ok(proof.whose(account))
    }

    /// The one request that carries the bytes: a publish, or a stage with the very same document.
    pub(super) async fn send(
        &self,
        publish: &mut Publish,
        token: &Secret<String>,
        factor: Option<&Secret<String>>,
        within: Duration,
    ) -> Sent {
        let registry::Envelope::Npm(envelope) = &publish.envelope else {
            return Sent::Unclear;
        };
        let stage = self.via == Via::Stage;
        let place = if stage { "./-/stage/package/" } else { "./" };
        let Ok(address) = self.address(place, &publish.package) else {
            return Sent::Unclear;
        };
        let frame = body::frame(publish, envelope, &self.base);
        let (request, command) = if stage {
            (self.client.post(address), "stage")
        } else {
            (self.client.put(address), "publish")
        };
        let request = request.timeout(within).header(CONTENT_TYPE, FULL);
        let request =
            Self::asking(request, command, factor).and_then(|r| authorised(r, Some(token)));
        let Some(request) = request else {
            return Sent::Unclear;
        };
        let Some(reply) = pieces::send(request, &mut publish.file, frame, within).await else {
            return Sent::Unclear;
        };
        match reply.status() {
            StatusCode::UNAUTHORIZED => self.challenged(reply, token).await,
            StatusCode::OK | StatusCode::CREATED if stage => Self::staged(reply).await,
            _ => judged(reply, token).await,
        }
    }

    fn address(&self, place: &str, package: &PackageName) -> Result<Url, ReadError> {
        // `./` since a name may not be read as a scheme; the name was parsed, so it has no `..`.
        self.base
            .join(&format!("{place}{}", name::escaped(package)))
            .map_err(|_| ReadError::NotUnderstood)
    }

    /// A question to the configured address.
    pub(super) async fn question(
        &self,
        path: &str,
        token: Option<&Secret<String>>,
    ) -> Result<Vec<u8>, ReadError> {
        let address = self.base.join(&format!("./{path}"));
        let address = address.map_err(|_| ReadError::NotUnderstood)?;
        let request = self.client.get(address).header(ACCEPT, FULL);
        let reply = authorised(request.timeout(self.read), token)
            .ok_or(ReadError::NotUnderstood)?
            .send()
            .await
            .map_err(|e| failed(&e))?;
        registry::upstream::answer(reply).await
    }

    /// The tarball, from where `dist.tarball` says it lies. Private packages are downloaded with the
    /// token, but only from this very package's own folder at the configured address.
    async fn tarball(
        &self,
        package: &PackageName,
        version: &VersionText,
        file: &File,
        keep: Keep<'_>,
        token: Option<&Secret<String>>,
    ) -> Result<Fetched, ReadError> {
        let shown = self.shows(package, token).await?;
        let Some(place) = shown.place(version, "") else {
            return Ok(Fetched::Absent);
        };
        let place = self
            .base
            .join(place)
            .map_err(|_| ReadError::NotUnderstood)?;
        let own = self
            .base
            .join(&format!("./{package}/-/"))
            .map_err(|_| ReadError::NotUnderstood)?;
        let ours = place.origin() == own.origin() && place.path().starts_with(own.path());
        let add = |request| authorised(request, token);
        self.downloads
            .fetch(place, file, keep, ours.then_some(&add))
            .await
    }

    /// The document is parsed while it comes, so that a long one never lies in memory.
    async fn packument(
        &self,
        request: RequestBuilder,
        token: Option<&Secret<String>>,
    ) -> Result<Published, ReadError> {
        let mut reply = authorised(request.timeout(self.read), token)
            .ok_or(ReadError::NotUnderstood)?
            .send()
            .await
            .map_err(|e| failed(&e))?;
        match reply.status() {
            StatusCode::NOT_FOUND => return Ok(Published::default()),
            StatusCode::OK => {}
            status => return Err(ReadError::Status(status.as_u16())),
        }
        if reply.content_length().is_some_and(|n| n <= SHORT) {
            // Not worth a thread.
            let bytes = reply.bytes().await.map_err(|e| failed(&e))?;
            return packument::read(&*bytes, MAX_PACKUMENT).map_err(|_| ReadError::NotUnderstood);
        }
        let (sender, receiver) = mpsc::channel(PIECES);
        let parser = tokio::task::spawn_blocking(move || {
            let input = Pieces::new(receiver);
            packument::read(input, MAX_PACKUMENT)
        });
        while let Some(piece) = reply.chunk().await.map_err(|e| failed(&e))? {
            if sender.send(piece).await.is_err() {
                break;
            }
        }
        drop(sender);
        match parser.await {
            Ok(Ok(published)) => Ok(published),
            Ok(Err(JsonError::TooLarge)) => Err(ReadError::TooLarge),
            Ok(Err(_)) | Err(_) => Err(ReadError::NotUnderstood),
        }
    }
}

impl Upstream for Npm {
    fn versions<'a>(
        &'a self,
        package: &'a PackageName,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Published, ReadError>> {
        Box::pin(async move {
            let address = self.address("./", package)?;
            let request = self.client.get(address).header(ACCEPT, ABBREVIATED);
            self.packument(request, token).await
        })
    }

    fn shows<'a>(
        &'a self,
        package: &'a PackageName,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Published, ReadError>> {
        Box::pin(async move {
            let mut address = self.address("./", package)?;
            let mut unique = [0; 8];
            aws_lc_rs::rand::fill(&mut unique).map_err(|_| ReadError::Unreachable)?;
            address.set_query(Some(&format!("read-back={}", hex(&unique))));
            let request = self
                .client
                .get(address)
                .header(ACCEPT, FULL)
                .header(CACHE_CONTROL, "no-cache");
            self.packument(request, token).await
        })
    }

    fn whoami<'a>(
        &'a self,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Account, ReadError>> {
        Box::pin(async move {
            match self.account(token).await {
                Err(ReadError::Status(403)) => Ok(Account::Unknown),
                other => other,
            }
        })
    }

    fn prove<'a>(
        &'a self,
        token: &'a Secret<String>,
        trial: Trial<'a>,
    ) -> BoxFuture<'a, Result<Proof, ReadError>> {
        Box::pin(self.proved(token, trial))
    }

    fn fetch<'a>(
        &'a self,
        package: &'a PackageName,
        version: &'a VersionText,
        file: &'a File,
        keep: Keep<'a>,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Fetched, ReadError>> {
        Box::pin(self.tarball(package, version, file, keep, token))
    }

    fn doors<'a>(
        &'a self,
        package: &'a PackageName,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Doors> {
        Box::pin(doors::ask(self, package, token))
    }

    fn pages(&self) -> &'static [(&'static str, &'static str)] {
        &[(
            "The package has no trusted publisher, and tokens may publish only as far as the broker needs it.",
            "package/{name}/access",
        )]
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

    fn staging(&self) -> Option<&dyn Staging> {
        (self.via == Via::Stage).then_some(self)
    }
}

/// Adds the token, marked as sensitive so that no log line of the HTTP library shows it. `None` when
/// it cannot stand in a header.
pub(super) fn authorised(
    request: RequestBuilder,
    token: Option<&Secret<String>>,
) -> Option<RequestBuilder> {
    let Some(token) = token else {
        return Some(request);
    };
    let value = zeroize::Zeroizing::new(format!("Bearer {}", token.expose()));
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some(request.header(AUTHORIZATION, value))
}

pub(super) async fn judged(reply: Response, token: &Secret<String>) -> Sent {
    let status = reply.status().as_u16();
    match status {
        200 | 201 => Sent::Accepted,
        400..=404 | 413 | 422 => Sent::Refused {
            status,
            said: said(&short_reply(reply).await.unwrap_or_default(), token),
        },
        // 408, 409, 429, 5xx, and redirects, which are not followed.
        _ => Sent::Unclear,
    }
}

/// The words of npm's answer.
pub(super) fn said(reply: &[u8], token: &Secret<String>) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(reply).ok();
    let found = json.as_ref().and_then(|j| {
        let field = |name| j.get(name).and_then(serde_json::Value::as_str);
        field("error").or_else(|| field("message"))
    });
    match found {
        Some(words) => registry::upstream::said(words, token),
        None => registry::upstream::said(&String::from_utf8_lossy(reply), token),
    }
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
