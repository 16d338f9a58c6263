//! A registry as the verbs see it: what it shows, and the one request that publishes.
//!
//! Each adapter implements [`Upstream`]. What all of them must keep to is done here once: the token
//! goes to the configured address only, no redirect is followed and no proxy variable is read (attack
//! 39), and no error carries a request.

use super::{
    Doors, FactorAsk, Fetched, Keep, Proof, Publish, SecondFactor, StageId, Staging, Trial,
    withdraw::Withdraw,
};
use crate::secret::Secret;
use proto::{
    digest::{Algorithm, Digest},
    ids::{PackageName, VersionText},
    request::{File, Item},
    text,
    time::UnixTime,
};
use reqwest::{Client, Response, StatusCode};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    time::Duration,
};
use thiserror::Error;
use url::Url;

/// Longest answer that is read beside a package's document.
const MAX_REPLY: usize = 64 << 10;
/// Longest answer to a question about a package.
const MAX_ANSWER: usize = 1 << 20;
/// Longest text of the registry that is shown to people, in characters.
const MAX_SAID: usize = 300;

/// Why a registry mints nothing, where its tokens cannot be narrowed.
pub const MINTS_NOTHING: &str =
    "has no tokens that can be narrowed; an admin changes the policy's mode";

/// An answer that is on its way.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One registry.
pub trait Upstream: Send + Sync {
    /// Everything published of a package; a copy of some minutes' age will do.
    fn versions<'a>(
        &'a self,
        package: &'a PackageName,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Published, ReadError>> {
        self.shows(package, token)
    }

    /// Everything that the registry shows of a package right now, past its caches.
    fn shows<'a>(
        &'a self,
        package: &'a PackageName,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Published, ReadError>>;

    /// What stands under these tags right now, for registries that list tags without digests: at each its manifest.
    fn shows_tags<'a>(
        &'a self,
        package: &'a PackageName,
        _tags: &'a BTreeSet<VersionText>,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Published, ReadError>> {
        self.shows(package, token)
    }

    /// What it shows in the place of one file of an item, and of the item's package. Registries without one
    /// document for a whole package are asked for this file alone.
    fn shows_file<'a>(
        &'a self,
        item: &'a Item,
        _file: &'a File,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Published, ReadError>> {
        self.shows(&item.package, token)
    }

    /// Whose token this is.
    fn whoami<'a>(&'a self, token: &'a Secret<String>)
    -> BoxFuture<'a, Result<Account, ReadError>>;

    /// Whether it takes this token, without publishing anything: what it is asked cannot succeed, whatever it answers.
    fn prove<'a>(
        &'a self,
        token: &'a Secret<String>,
        trial: Trial<'a>,
    ) -> BoxFuture<'a, Result<Proof, ReadError>>;

    /// Ends a token for good, where it has a call that a token can make about itself. Whether it is ended: what the
    /// registry merely says is not believed.
    fn revoke<'a>(&'a self, _token: &'a Secret<String>) -> BoxFuture<'a, Result<bool, ReadError>> {
        Box::pin(async { Ok(false) })
    }

    /// How long it may take to show what it was sent. Before that an absent version is not sent again after an
    /// unclear answer.
    fn lag(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// Where archives are downloaded, for the registries with a sparse index: the template in its settings.
    fn downloads(&self) -> BoxFuture<'_, Result<String, ReadError>> {
        Box::pin(async { Err(ReadError::NotUnderstood) })
    }

    /// Downloads a published file from where the registry says it lies, and hashes it; `keep` gets its bytes too.
    /// An adapter that cannot says that it lies elsewhere, which is told and never taken for a yes.
    fn fetch<'a>(
        &'a self,
        _package: &'a PackageName,
        _version: &'a VersionText,
        _file: &'a File,
        _keep: Keep<'a>,
        _token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Fetched, ReadError>> {
        Box::pin(async { Ok(Fetched::Elsewhere) })
    }

    /// What the registry tells of other ways to publish a package. An adapter that knows none has asked
    /// nothing, and says so by an empty answer.
    fn doors<'a>(
        &'a self,
        _package: &'a PackageName,
        _token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Doors> {
        Box::pin(async { Doors::default() })
    }

    /// What a person looks at on the registry's web pages, and where (`{name}` is the package).
    fn pages(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Where a file of its sparse index lies, if it has one.
    fn index_file(&self, _path: &str) -> Option<Url> {
        None
    }

    /// Whether attestations beside an upload are left out; otherwise such an upload is refused.
    fn drops_attestations(&self) -> bool {
        false
    }

    /// Narrows a token to one project and a short while, without asking anybody; `None` where the registry
    /// has no such tokens.
    fn mint(
        &self,
        _token: &Secret<String>,
        _package: &PackageName,
        _within: Life,
    ) -> Option<Result<Narrowed, String>> {
        None
    }

    /// Whether [`Upstream::mint`] is of any use for this package; otherwise what stands behind "the registry".
    fn mints(&self, _package: &PackageName) -> Result<(), &'static str> {
        Err(MINTS_NOTHING)
    }

    /// Sends the publish, once, within the given time. The token is in memory for this call only.
    fn publish<'a>(
        &'a self,
        publish: &'a mut Publish,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Sent>;

    /// Its own second factor, where that can be handed over to people.
    fn second_factor(&self) -> Option<&dyn SecondFactor> {
        None
    }

    /// How versions are marked as ones that nobody should choose; otherwise what a person does instead.
    fn withdraw(&self) -> Result<&dyn Withdraw, &'static str> {
        Err("this protocol has no call for that; look at what the server itself offers")
    }

    /// Its stages, where a publish goes by way of one.
    fn staging(&self) -> Option<&dyn Staging> {
        None
    }
}

/// From when until when a minted token is good.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Not before; a little in the past, since clocks differ.
    pub from: UnixTime,
    /// Not any more.
    pub until: UnixTime,
}

/// A minted token, and how it is used.
pub struct Narrowed {
    /// The token.
    pub token: Secret<String>,
    /// The user name beside it.
    pub user: String,
    /// Where it is good for uploads.
    pub upload: Url,
}

/// How long a registry may take.
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
    /// What it sent could not be written to the broker's own disk.
    #[error("the broker's disk failed")]
    Disk,
    /// It took too long.
    #[error("the registry did not answer in time")]
    TimedOut,
    /// It answered with this status.
    #[error("the registry answered with status {0}")]
    Status(u16),
    /// It sends the broker elsewhere for its tokens.
    #[error(
        "the registry names another address for its tokens than the configuration; if it is right, write it as token_url"
    )]
    TokensElsewhere,
    /// It keeps a file at an origin that the configuration does not name.
    #[error(
        "the registry sends to another origin for the file; if it is its storage, write it into downloads"
    )]
    Elsewhere,
    /// Its answer is longer than a package's document.
    #[error("the registry's answer is too long")]
    TooLarge,
    /// Its answer is not what such a registry says.
    #[error("the registry's answer was not understood")]
    NotUnderstood,
    /// It shows the file without a digest that could be compared.
    #[error("the registry shows the file without a {} digest", .0.name())]
    NoDigest(Algorithm),
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// This account's.
    Named(String),
    /// The registry does not know the token.
    Unknown,
    /// The registry has no way to ask.
    CannotAsk,
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
    /// It keeps the bytes aside under this name; nothing is published.
    Staged(StageId),
    /// It wants its own second factor first; nothing is published.
    NeedsFactor(FactorAsk),
    /// Nobody knows: read back.
    Unclear,
}

/// What is published of a package. Empty when the package is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The files of every version.
    pub versions: BTreeMap<VersionText, Vec<ShownFile>>,
    /// The newest version by the registry's own order.
    pub newest: Option<VersionText>,
    /// Where a version's files lie, by their names (empty: the version's only file): the registry's
    /// word, to be judged before anybody asks there.
    pub places: BTreeMap<VersionText, BTreeMap<String, String>>,
    /// Versions that are still there but that nobody should choose: yanked.
    pub withdrawn: BTreeSet<VersionText>,
    /// Where the tag `latest` points, on registries that have tags.
    pub latest: Option<VersionText>,
    /// When versions were published, where the registry says so.
    pub times: BTreeMap<VersionText, UnixTime>,
    /// Where its tags point, on registries that have tags.
    pub tags: BTreeMap<String, VersionText>,
}

/// One file that a registry shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownFile {
    /// Its name, where a version may have several files; `None`: the version's only file.
    pub name: Option<String>,
    /// Its digest in the registry's own algorithm, where the registry tells it.
    pub digest: Option<Digest>,
}

/// What the registry shows for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// Nothing (yet).
    Absent,
    /// A file with this digest.
    Shows(Digest),
}

impl Published {
    /// Whether every file of this item is there already, whatever its bytes.
    pub fn has(&self, item: &Item) -> bool {
        self.versions.get(&item.version).is_some_and(|shown| {
            item.files.iter().all(|file| {
                let named = |s: &ShownFile| s.name.as_ref().is_none_or(|n| *n == file.name);
                shown.iter().any(named)
            })
        })
    }

    /// The versions beside this item's own. Its own counts as there as soon as the registry shows a file of
    /// it that was not approved with the others: a release's first file must not stand in the way of its
    /// second, and nobody's file may slip in between (attack 16).
    pub fn beside(&self, item: &Item) -> Vec<VersionText> {
        let approved = |shown: &ShownFile| {
            item.files.iter().any(|file| {
                shown.name.as_ref().is_none_or(|n| *n == file.name)
                    && shown.digest.as_ref() == Some(&file.digest)
            })
        };
        let own = |(version, shown): &(&VersionText, &Vec<ShownFile>)| {
            **version == item.version && !shown.is_empty() && shown.iter().all(approved)
        };
        let others = self.versions.iter().filter(|v| !own(v));
        others.map(|(version, _)| version.clone()).collect()
    }

    /// Where the registry says that a file lies.
    pub fn place(&self, version: &VersionText, name: &str) -> Option<&str> {
        let places = self.places.get(version)?;
        places
            .get(name)
            .or_else(|| places.get(""))
            .map(String::as_str)
    }

    /// The versions that stand against asking for this item. A release that is half out may be asked for
    /// again, with the files that are there and others; one that is whole, or has another file, may not.
    pub fn when_asked(&self, item: &Item) -> Vec<VersionText> {
        let absent = |file| matches!(self.file(&item.version, file), Ok(ReadBack::Absent));
        if item.files.iter().any(absent) {
            self.beside(item)
        } else {
            self.versions.keys().cloned().collect()
        }
    }

    /// What is shown in the place of this file.
    pub fn file(&self, version: &VersionText, file: &File) -> Result<ReadBack, ReadError> {
        let same = |shown: &&ShownFile| shown.name.as_ref().is_none_or(|n| *n == file.name);
        let mut files = self.versions.get(version).into_iter().flatten();
        match files.find(same) {
            None => Ok(ReadBack::Absent),
            Some(ShownFile {
                digest: Some(digest),
                ..
            }) => Ok(ReadBack::Shows(digest.clone())),
            Some(ShownFile { digest: None, .. }) => {
                Err(ReadError::NoDigest(file.digest.algorithm()))
            }
        }
    }
}

/// A configured address, with a slash at its end.
pub(super) fn base(mut base: Url) -> Result<Url, BaseError> {
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
    Ok(base)
}

/// The HTTP client of one configured server. Plain HTTP only where its address says so.
pub fn client(base: &Url, timeouts: Timeouts) -> Result<Client, BaseError> {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .https_only(base.scheme() == "https")
        .connect_timeout(timeouts.connect)
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|_| BaseError::Client)
}

/// The registry's words, in a form that may be shown. It might repeat what it was sent.
pub(super) fn said(words: &str, token: &Secret<String>) -> String {
    let words = words.replace(token.expose().as_str(), "[token]");
    text::harmless(&words.chars().take(MAX_SAID).collect::<String>())
}

/// The body of an answer to a question, and nothing but a plain yes.
pub(super) async fn answer(mut reply: Response) -> Result<Vec<u8>, ReadError> {
    if reply.status() != StatusCode::OK {
        return Err(ReadError::Status(reply.status().as_u16()));
    }
    let mut out = Vec::new();
    while let Some(piece) = reply.chunk().await.map_err(|e| failed(&e))? {
        out.extend_from_slice(&piece);
        if out.len() > MAX_ANSWER {
            return Err(ReadError::TooLarge);
        }
    }
    Ok(out)
}

/// The whole of a short answer.
pub(super) async fn short_reply(mut reply: Response) -> Result<Vec<u8>, ReadError> {
    let mut out = Vec::new();
    while let Some(piece) = reply.chunk().await.map_err(|e| failed(&e))? {
        out.extend_from_slice(&piece);
        if out.len() > MAX_REPLY {
            return Err(ReadError::TooLarge);
        }
    }
    Ok(out)
}

/// A reply's whole body, where it is no longer than `most` bytes.
pub async fn limited(mut reply: Response, most: usize) -> Result<Vec<u8>, ReadError> {
    let mut out = Vec::new();
    while let Some(piece) = reply.chunk().await.map_err(|e| failed(&e))? {
        out.extend_from_slice(&piece);
        if out.len() > most {
            return Err(ReadError::TooLarge);
        }
    }
    Ok(out)
}

/// The library's error names the address and perhaps more: only its kind is kept.
pub(super) fn failed(e: &reqwest::Error) -> ReadError {
    if e.is_timeout() {
        ReadError::TimedOut
    } else {
        ReadError::Unreachable
    }
}
