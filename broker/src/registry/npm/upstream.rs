//! The registry itself: what it shows, and the one request that publishes.
//!
//! The token is added here and nowhere else. It goes to the configured address only: no redirect is
//! followed, no proxy variable is read (attack 39), and no error of this file carries a request.

use super::{
    body,
    json::JsonError,
    name,
    packument::{self, Published, ReadBack},
    pieces::{PIECES, Pieces, feed, next, whole},
};
use crate::{registry::Publish, secret::Secret};
use futures_util::stream;
use proto::{
    digest::hex,
    ids::{PackageName, VersionText},
    text,
};
use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
};
use std::time::Duration;
use tempfile::SpooledTempFile;
use thiserror::Error;
use tokio::sync::mpsc;
use url::Url;

/// Longest package document.
const MAX_PACKUMENT: u64 = 64 << 20;
/// A package document up to this length is read whole, in bytes.
const SHORT: u64 = 32 << 10;
/// Longest other answer that is read.
const MAX_REPLY: usize = 64 << 10;
/// Longest text of the registry that is shown to people, in characters.
const MAX_SAID: usize = 300;
/// Less to transfer than the full document, and all that is needed.
const ABBREVIATED: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8";
const FULL: &str = "application/json";

/// How long the registry may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For a whole question and its answer; a publish has its own.
    pub read: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            read: Duration::from_mins(1),
        }
    }
}

/// Why an address cannot be a registry's.
#[derive(Debug, Error)]
pub enum BaseError {
    /// Something other than a scheme, a host and a path.
    #[error("a registry's address is http(s)://host/path/, without user, query or fragment")]
    Address,
    /// The TLS client could not be made.
    #[error("the HTTPS client could not be made")]
    Client,
}

/// Why the registry's state is not known.
#[derive(Debug, Error)]
pub enum ReadError {
    /// No connection, or it broke.
    #[error("the registry could not be reached")]
    Unreachable,
    /// It took too long.
    #[error("the registry did not answer in time")]
    TimedOut,
    /// It answered with this status.
    #[error("the registry answered with status {0}")]
    Status(u16),
    /// Its answer is longer than a package's document.
    #[error("the registry's answer is too long")]
    TooLarge,
    /// Its answer is not what npm's registry says.
    #[error("the registry's answer was not understood")]
    NotUnderstood,
    /// It shows the version without a sha512, so that nothing can be compared.
    #[error("the registry shows the version without a sha512 digest")]
    NoDigest,
}

/// What came of sending a publish. Only a read-back says whether it is published: a registry that
/// refuses may have taken an earlier attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The registry said yes.
    Accepted,
    /// The registry said no to this request.
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said, made harmless for display.
        said: String,
    },
    /// Nobody knows: read back.
    Unclear,
}

/// One npm registry.
pub struct Upstream {
    client: Client,
    base: Url,
    read: Duration,
}

impl Upstream {
    /// For the address in the configuration. Plain HTTP only where the configuration says so.
    pub fn new(mut base: Url, timeouts: Timeouts) -> Result<Self, BaseError> {
        let plain = base.username().is_empty()
            && base.password().is_none()
            && base.query().is_none()
            && base.fragment().is_none()
            && base.host_str().is_some_and(|h| !h.is_empty());
        if !plain || !["http", "https"].contains(&base.scheme()) {
            return Err(BaseError::Address);
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .https_only(base.scheme() == "https")
            .connect_timeout(timeouts.connect)
            .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| BaseError::Client)?;
        Ok(Self {
            client,
            base,
            read: timeouts.read,
        })
    }

    /// Everything published of a package.
    pub async fn versions(
        &self,
        package: &PackageName,
        token: Option<&Secret<String>>,
    ) -> Result<Published, ReadError> {
        let request = self
            .client
            .get(self.address(package)?)
            .header(ACCEPT, ABBREVIATED);
        self.packument(request, token).await
    }

    /// What the registry shows for one version right now, past its caches.
    pub async fn read_back(
        &self,
        package: &PackageName,
        version: &VersionText,
        token: Option<&Secret<String>>,
    ) -> Result<ReadBack, ReadError> {
        shown(&self.shows(package, token).await?, version)
    }

    /// Everything that the registry shows of a package right now, past its caches.
    pub async fn shows(
        &self,
        package: &PackageName,
        token: Option<&Secret<String>>,
    ) -> Result<Published, ReadError> {
        let mut address = self.address(package)?;
        let mut unique = [0; 8];
        aws_lc_rs::rand::fill(&mut unique).map_err(|_| ReadError::Unreachable)?;
        address.set_query(Some(&format!("read-back={}", hex(&unique))));
        let request = self
            .client
            .get(address)
            .header(ACCEPT, FULL)
            .header(CACHE_CONTROL, "no-cache");
        self.packument(request, token).await
    }

    /// Whose token this is; `None` when the registry does not know it.
    pub async fn whoami(&self, token: &Secret<String>) -> Result<Option<String>, ReadError> {
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
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(None),
            StatusCode::OK => {}
            status => return Err(ReadError::Status(status.as_u16())),
        }
        let bytes = start_of(reply).await?;
        let reply: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|_| ReadError::NotUnderstood)?;
        let name = reply.get("username").and_then(serde_json::Value::as_str);
        let name = name.filter(|n| text::check(n, 214).is_ok());
        name.map(|n| Some(n.to_owned()))
            .ok_or(ReadError::NotUnderstood)
    }

    /// Sends the publish, once, within the given time. The token is in memory for this call only.
    pub async fn publish(
        &self,
        publish: &mut Publish,
        token: &Secret<String>,
        within: Duration,
    ) -> Sent {
        let Ok(address) = self.address(&publish.package) else {
            return Sent::Unclear;
        };
        let frame = body::frame(publish, &self.base);
        let request = self
            .client
            .put(address)
            .timeout(within)
            .header(CONTENT_TYPE, FULL)
            .header("npm-command", "publish");
        let Some(request) = authorised(request, Some(token)) else {
            return Sent::Unclear;
        };
        if !publish.file.is_rolled() {
            // It lies in memory already: no thread, no channel.
            let Ok(body) = whole(&mut publish.file, frame) else {
                return Sent::Unclear;
            };
            return match request.body(body).send().await {
                Ok(reply) => judged(reply, token).await,
                Err(_) => Sent::Unclear,
            };
        }
        let (sender, receiver) = mpsc::channel(PIECES);
        let request = request
            .header(CONTENT_LENGTH, frame.length)
            .body(reqwest::Body::wrap_stream(stream::unfold(receiver, next)));
        // The file is lent to a blocking thread, and comes back for the next attempt. Should it get
        // lost, the next attempt is shorter than it says, and the registry takes nothing.
        let file = std::mem::replace(&mut publish.file, SpooledTempFile::new(0));
        let feeder = tokio::task::spawn_blocking(move || feed(file, frame, &sender));
        let reply = request.send().await;
        let sent = match reply {
            Ok(reply) => judged(reply, token).await,
            Err(_) => Sent::Unclear,
        };
        if let Ok(file) = feeder.await {
            publish.file = file;
        }
        sent
    }

    fn address(&self, package: &PackageName) -> Result<Url, ReadError> {
        // `./` since a name may not be read as a scheme; the name was parsed, so it has no `..`.
        self.base
            .join(&format!("./{}", name::escaped(package)))
            .map_err(|_| ReadError::NotUnderstood)
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

/// One version of what is shown.
pub fn shown(published: &Published, version: &VersionText) -> Result<ReadBack, ReadError> {
    match published.versions.get(version) {
        None => Ok(ReadBack::Absent),
        Some(Some(digest)) => Ok(ReadBack::Shows(digest.clone())),
        Some(None) => Err(ReadError::NoDigest),
    }
}

/// Adds the token, marked as sensitive so that no log line of the HTTP library shows it. `None` when
/// it cannot stand in a header.
fn authorised(request: RequestBuilder, token: Option<&Secret<String>>) -> Option<RequestBuilder> {
    let Some(token) = token else {
        return Some(request);
    };
    let value = zeroize::Zeroizing::new(format!("Bearer {}", token.expose()));
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some(request.header(AUTHORIZATION, value))
}

async fn judged(reply: Response, token: &Secret<String>) -> Sent {
    let status = reply.status().as_u16();
    match status {
        200 | 201 => Sent::Accepted,
        400..=404 | 413 | 422 => Sent::Refused {
            status,
            said: said(&start_of(reply).await.unwrap_or_default(), token),
        },
        // 408, 409, 429, 5xx, and redirects, which are not followed.
        _ => Sent::Unclear,
    }
}

/// The registry's words, in a form that may be shown. It might repeat what it was sent.
fn said(reply: &[u8], token: &Secret<String>) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(reply).ok();
    let found = json.as_ref().and_then(|j| {
        let field = |name| j.get(name).and_then(serde_json::Value::as_str);
        field("error").or_else(|| field("message"))
    });
    let words = match found {
        Some(words) => words.to_owned(),
        None => String::from_utf8_lossy(reply).into_owned(),
    };
    let words = words.replace(token.expose().as_str(), "[token]");
    text::harmless(&words.chars().take(MAX_SAID).collect::<String>())
}

/// At most [`MAX_REPLY`] bytes of an answer.
async fn start_of(mut reply: Response) -> Result<Vec<u8>, ReadError> {
    let mut out = Vec::new();
    while let Some(piece) = reply.chunk().await.map_err(|e| failed(&e))? {
        out.extend_from_slice(&piece);
        if out.len() > MAX_REPLY {
            return Err(ReadError::TooLarge);
        }
    }
    Ok(out)
}

/// The library's error names the address and perhaps more: only its kind is kept.
fn failed(e: &reqwest::Error) -> ReadError {
    if e.is_timeout() {
        ReadError::TimedOut
    } else {
        ReadError::Unreachable
    }
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
