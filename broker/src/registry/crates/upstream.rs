//! The registry itself: its sparse index, and the one request that publishes.
//!
//! Two addresses, both from the configuration: the index says in its `config.json` where the API is, but
//! whoever could change that file would get the token. It is read for the download address alone.

use super::{body, doors, index, prove};
use crate::{
    registry::{
        self, Account, Address, BaseError, BoxFuture, Doors, Fetched, Keep, Proof, Publish,
        Published, ReadError, Sent, Timeouts, Trial, Upstream,
        artifact::Downloads,
        pieces,
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
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, HeaderValue},
};
use serde::Deserialize;
use std::time::Duration;
use tokio::{sync::Mutex, time::Instant};
use url::Url;

/// Longest file of the index; the longest of the public one has some 2 MB.
const MAX_INDEX: usize = 16 << 20;
/// How long the public registry may take to show what it accepted.
const LAG: Duration = Duration::from_secs(90);
/// How long the index's settings are believed.
const SETTINGS_AGE: Duration = Duration::from_mins(5);
/// Pause before they are asked for again when nothing is known.
const SETTINGS_PAUSE: Duration = Duration::from_secs(5);

/// One cargo registry.
pub struct Crates {
    pub(super) client: Client,
    /// The sparse index, with a slash at its end.
    index: Url,
    /// The API's root, with a slash at its end.
    pub(super) api: Url,
    /// What this registry is called in manifests.
    own: Vec<String>,
    downloads: Downloads,
    read: Duration,
    settings: Mutex<Settings>,
}

/// The download address as it was read last. Anybody may ask us for it, and must not make us ask the
/// registry each time (attack 53).
#[derive(Default)]
struct Settings {
    asked: Option<Instant>,
    downloads: Option<String>,
}

/// The index's `config.json`.
#[derive(Deserialize)]
struct IndexConfig {
    dl: String,
}

/// The API's word on a publish, good or bad.
#[derive(Default, Deserialize)]
struct Reply {
    #[serde(default)]
    errors: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(default)]
    detail: String,
}

impl Crates {
    /// For the addresses in the configuration.
    pub fn new(address: Address, timeouts: Timeouts) -> Result<Self, BaseError> {
        let index = registry::upstream::base(address.url)?;
        let api = registry::upstream::base(address.upload.ok_or(BaseError::Address)?)?;
        let broker = registry::upstream::base(address.endpoint)?;
        // Two addresses, one client: it is as strict as the stricter of both.
        let strict = if api.scheme() == "https" {
            &api
        } else {
            &index
        };
        Ok(Self {
            client: registry::upstream::client(strict, timeouts)?,
            downloads: Downloads::new(&[&index, &api], &address.downloads, timeouts)?,
            own: vec![index.to_string(), format!("{broker}index/")],
            index,
            api,
            read: timeouts.read,
            settings: Mutex::default(),
        })
    }

    /// Everything that the index shows, past its caches. It is read by anybody, and lies at another host
    /// than the API: the token is not shown there.
    async fn file(&self, package: &PackageName) -> Result<Published, ReadError> {
        let path = index::path(package.as_str()).ok_or(ReadError::NotUnderstood)?;
        let mut address = self.at(&path)?;
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
            // The Cargo Book, "Index format", sparse protocol: any of these is "there is none".
            StatusCode::NOT_FOUND
            | StatusCode::GONE
            | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => {
                return Ok(Published::default());
            }
            StatusCode::OK => {}
            status => return Err(ReadError::Status(status.as_u16())),
        }
        let text = limited(reply, MAX_INDEX).await?;
        index::read(&text, package)
    }

    /// The download address; one asks, the others wait for what he is told. What was read once is better
    /// than nothing.
    async fn known_downloads(&self) -> Result<String, ReadError> {
        let mut settings = self.settings.lock().await;
        let pause = match settings.downloads {
            Some(_) => SETTINGS_AGE,
            None => SETTINGS_PAUSE,
        };
        if settings.asked.is_none_or(|at| at.elapsed() >= pause) {
            settings.asked = Some(Instant::now());
            match self.config().await {
                Ok(downloads) => settings.downloads = Some(downloads),
                Err(why) if settings.downloads.is_none() => return Err(why),
                Err(_) => {}
            }
        }
        settings.downloads.clone().ok_or(ReadError::Unreachable)
    }

    async fn config(&self) -> Result<String, ReadError> {
        let request = self.client.get(self.at("config.json")?).timeout(self.read);
        let reply = request.send().await.map_err(|e| failed(&e))?;
        if reply.status() != StatusCode::OK {
            return Err(ReadError::Status(reply.status().as_u16()));
        }
        let config: IndexConfig = serde_json::from_slice(&short_reply(reply).await?)
            .map_err(|_| ReadError::NotUnderstood)?;
        Ok(config.dl)
    }

    /// A question to the API.
    pub(super) async fn question(
        &self,
        path: &str,
        token: Option<&Secret<String>>,
    ) -> Result<Vec<u8>, ReadError> {
        let address = self.api.join(path).map_err(|_| ReadError::NotUnderstood)?;
        let mut request = self.client.get(address).timeout(self.read);
        if let Some(token) = token {
            let value = HeaderValue::from_str(token.expose());
            let mut value = value.map_err(|_| ReadError::NotUnderstood)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.header(ACCEPT, "application/json");
        let reply = request.send().await.map_err(|e| failed(&e))?;
        registry::upstream::answer(reply).await
    }

    /// The head of a publish that carries no archive. cargo sends the token as it is, without a scheme.
    pub(super) fn uploading(&self, token: &Secret<String>) -> Result<RequestBuilder, ReadError> {
        self.tokened(Method::PUT, "api/v1/crates/new", token)
    }

    /// A yank of one version.
    pub(super) fn yanking(
        &self,
        package: &PackageName,
        version: &str,
        token: &Secret<String>,
    ) -> Result<RequestBuilder, ReadError> {
        let path = format!("api/v1/crates/{package}/{version}/yank");
        self.tokened(Method::DELETE, &path, token)
    }

    /// The end of the token itself.
    pub(super) fn ending(&self, token: &Secret<String>) -> Result<RequestBuilder, ReadError> {
        self.tokened(Method::DELETE, "api/v1/tokens/current", token)
    }

    fn tokened(
        &self,
        method: Method,
        path: &str,
        token: &Secret<String>,
    ) -> Result<RequestBuilder, ReadError> {
        let (address, value) = (self.api.join(path), HeaderValue::from_str(token.expose()));
        let (Ok(address), Ok(mut value)) = (address, value) else {
            return Err(ReadError::NotUnderstood);
        };
        value.set_sensitive(true);
        let request = self.client.request(method, address).timeout(self.read);
        Ok(request.header(AUTHORIZATION, value))
    }

    /// A crate's archive, from where the index's settings say it lies; as the index, without the token.
    async fn archive(
        &self,
        package: &PackageName,
        version: &VersionText,
        file: &File,
        keep: Keep<'_>,
    ) -> Result<Fetched, ReadError> {
        let template = self.config().await?;
        let place = index::download(&template, package.as_str(), version.as_str(), &file.digest);
        let place = place.and_then(|p| p.parse().ok());
        let place: Url = place.ok_or(ReadError::NotUnderstood)?;
        self.downloads.fetch(place, file, keep, None).await
    }

    fn at(&self, path: &str) -> Result<Url, ReadError> {
        // `./` since a name may not be read as a scheme.
        self.index
            .join(&format!("./{path}"))
            .map_err(|_| ReadError::NotUnderstood)
    }

    async fn send(&self, publish: &mut Publish, token: &Secret<String>, within: Duration) -> Sent {
        let registry::Envelope::Crates(envelope) = &publish.envelope else {
            return Sent::Unclear;
        };
        let address = self.api.join("api/v1/crates/new");
        let frame = body::frame(&envelope.metadata, publish.size, &self.own);
        // cargo sends the token as it is, without a scheme.
        let value = HeaderValue::from_str(token.expose());
        let (Ok(address), Some(frame), Ok(mut value)) = (address, frame, value) else {
            return Sent::Unclear;
        };
        value.set_sensitive(true);
        let request = self
            .client
            .put(address)
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, value);
        match pieces::send(request, &mut publish.file, frame, within).await {
            Some(reply) => judged(reply, token).await,
            None => Sent::Unclear,
        }
    }
}

impl Upstream for Crates {
    fn shows<'a>(
        &'a self,
        package: &'a PackageName,
        _: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Published, ReadError>> {
        Box::pin(self.file(package))
    }

    fn fetch<'a>(
        &'a self,
        package: &'a PackageName,
        version: &'a VersionText,
        file: &'a File,
        keep: Keep<'a>,
        _: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Fetched, ReadError>> {
        Box::pin(self.archive(package, version, file, keep))
    }

    fn whoami<'a>(&'a self, _: &'a Secret<String>) -> BoxFuture<'a, Result<Account, ReadError>> {
        // The public registry answers that to a browser's session alone.
        Box::pin(async { Ok(Account::CannotAsk) })
    }

    fn prove<'a>(
        &'a self,
        token: &'a Secret<String>,
        trial: Trial<'a>,
    ) -> BoxFuture<'a, Result<Proof, ReadError>> {
        Box::pin(prove::ask(self, token, trial))
    }

    fn revoke<'a>(&'a self, token: &'a Secret<String>) -> BoxFuture<'a, Result<bool, ReadError>> {
        Box::pin(prove::revoke(self, token))
    }

    fn lag(&self) -> Duration {
        LAG
    }

    fn downloads(&self) -> BoxFuture<'_, Result<String, ReadError>> {
        Box::pin(self.known_downloads())
    }

    fn index_file(&self, path: &str) -> Option<Url> {
        self.at(path).ok()
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
            "The crate has no trusted publishing, no team and no owner that is not needed.",
            "crates/{name}/settings",
        )]
    }

    fn publish<'a>(
        &'a self,
        publish: &'a mut Publish,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Sent> {
        Box::pin(self.send(publish, token, within))
    }

    fn withdraw(&self) -> Result<&dyn registry::withdraw::Withdraw, &'static str> {
        Ok(self)
    }
}

pub(super) async fn judged(reply: Response, token: &Secret<String>) -> Sent {
    let reason = reply.status().canonical_reason();
    let status = reply.status().as_u16();
    let refused = |said: &str| Sent::Refused {
        status,
        said: registry::upstream::said(said, token),
    };
    match status {
        // Some servers say no with 200 and `errors`, and cargo reads it so.
        200 => match short_reply(reply).await.map(|bytes| details(&bytes)) {
            Ok(Some(said)) if said.is_empty() => Sent::Accepted,
            Ok(Some(said)) => refused(&said),
            Ok(None) | Err(_) => Sent::Unclear,
        },
        300..=399 => refused("the API's address redirects; write the final one as upload_url"),
        400..=407 | 409..=417 | 422 | 429 => {
            let bytes = short_reply(reply).await.unwrap_or_default();
            let said = details(&bytes).filter(|said| !said.is_empty());
            let said = said.unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned());
            let said = if said.trim().is_empty() {
                reason.unwrap_or_default().to_owned()
            } else {
                said
            };
            refused(&match status {
                401 | 403 => format!("{said} (does the stored token cover this crate?)"),
                429 => format!("{said} (too many publishes or new crates; try again later)"),
                _ => said,
            })
        }
        _ => Sent::Unclear,
    }
}

/// The reasons in a reply, in one line; `None` when it is no such reply.
fn details(bytes: &[u8]) -> Option<String> {
    let reply: Reply = serde_json::from_slice(bytes).ok()?;
    let texts: Vec<_> = reply.errors.into_iter().map(|e| e.detail).collect();
    match texts.as_slice() {
        [] => Some(String::new()),
        some => Some(format!("{} ", some.join("; ")).trim().to_owned()).map(|said| {
            if said.is_empty() {
                "no reason given".to_owned()
            } else {
                said
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{
        crates::{
            read_file,
            samples::{MANIFEST, NAME, crate_of},
        },
        fake::{Seen, fake},
    };

    fn at(url: Url) -> Crates {
        let address = Address {
            upload: Some(url.clone()),
            endpoint: "https://broker.example".parse().unwrap(),
            ..Address::at(url)
        };
        Crates::new(address, Timeouts::default()).unwrap()
    }

    async fn sent(
        status: u16,
        headers: &[(&'static str, String)],
        reply: &str,
    ) -> (Sent, Vec<Seen>) {
        let (url, log) = fake(status, headers, reply).await;
        let archive = crate_of(MANIFEST);
        let mut publish = read_file(archive.as_slice(), None, &std::env::temp_dir()).unwrap();
        let token = Secret::new("cio-canary".to_owned());
        let within = Duration::from_secs(20);
        let sent = at(url).publish(&mut publish, &token, within).await;
        let seen = log.lock().unwrap().clone();
        (sent, seen)
    }

    #[tokio::test]
    async fn a_publish_is_one_put_with_the_bare_token() {
        let (sent, seen) = sent(200, &[], r#"{"warnings":{"other":[]}}"#).await;
        assert_eq!(sent, Sent::Accepted);
        let [one] = seen.as_slice() else {
            panic!("{} requests", seen.len());
        };
        assert_eq!(
            (one.method.as_str(), one.path.as_str()),
            ("PUT", "/r/api/v1/crates/new")
        );
        assert_eq!(one.headers["authorization"], "cio-canary");
        assert!(one.body.ends_with(&crate_of(MANIFEST)));
        assert!(!String::from_utf8_lossy(&one.body).contains("broker.example"));
    }

    #[tokio::test]
    async fn the_registrys_words_are_relayed_without_the_token() {
        let details = |text: &str| format!(r#"{{"errors":[{{"detail":"{text}"}}]}}"#);
        for (status, body, want) in [
            (200, details("no cio-canary"), "no [token]"),
            (200, r#"{"errors":[{}]}"#.to_owned(), "no reason given"),
            (
                400,
                details("crate version `1.4.2` is already uploaded"),
                "crate version `1.4.2` is already uploaded",
            ),
            (
                403,
                details("authentication failed"),
                "authentication failed (does the stored token cover this crate?)",
            ),
            (413, "<html>".to_owned(), "<html>"),
        ] {
            let (got, _) = sent(status, &[], &body).await;
            assert_eq!(
                got,
                Sent::Refused {
                    status,
                    said: want.to_owned()
                }
            );
        }
        for (status, body) in [
            (200, "<html>"),
            (200, ""),
            (500, "{}"),
            (502, "x"),
            (204, ""),
        ] {
            assert_eq!(
                sent(status, &[], body).await.0,
                Sent::Unclear,
                "{status} {body}"
            );
        }
    }

    #[tokio::test]
    async fn attack_39_a_redirect_gets_neither_token_nor_archive() {
        let (other, log) = fake(200, &[], "{}").await;
        for status in [301, 302, 307, 308] {
            let to = [("location", other.to_string())];
            let (got, _) = sent(status, &to, "").await;
            assert!(matches!(got, Sent::Refused { .. }), "{got:?}");
        }
        assert!(log.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_index_is_read_without_the_token_and_past_caches() {
        let line = format!(
            r#"{{"name":"{NAME}","vers":"1.4.2","cksum":"{}"}}"#,
            "ab".repeat(32)
        );
        let (url, log) = fake(200, &[], &line).await;
        let package = NAME.parse().unwrap();
        let token = Secret::new("cio-canary".to_owned());
        let shown = at(url).shows(&package, Some(&token)).await.unwrap();
        assert_eq!(shown.newest.unwrap().as_str(), "1.4.2");
        let seen = log.lock().unwrap().clone();
        assert!(seen[0].path.starts_with("/r/ac/me/acme-left?read-back="));
        assert!(!seen[0].headers.contains_key("authorization"));
        for (status, good) in [
            (404, true),
            (410, true),
            (451, true),
            (500, false),
            (302, false),
            (401, false),
        ] {
            let (url, _) = fake(status, &[], "x").await;
            let got = at(url).shows(&package, None).await;
            assert_eq!(got.is_ok(), good, "{status}");
        }
    }

    #[tokio::test]
    async fn attack_53_many_who_ask_for_the_settings_ask_the_registry_once() {
        let (url, log) = fake(200, &[], r#"{"dl":"https://dl.example"}"#).await;
        let registry = at(url);
        let asked = (0..50).map(|_| registry.downloads());
        for got in futures_util::future::join_all(asked).await {
            assert_eq!(got.unwrap(), "https://dl.example");
        }
        assert_eq!(log.lock().unwrap().len(), 1);
        // Nor does one that fails get asked by everybody.
        let (url, log) = fake(500, &[], "").await;
        let registry = at(url);
        for _ in 0..50 {
            assert!(registry.downloads().await.is_err());
        }
        assert_eq!(log.lock().unwrap().len(), 1);
    }
}
