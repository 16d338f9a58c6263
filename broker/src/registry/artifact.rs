//! The artifact itself: downloaded from where the registry says it lies, and hashed.
//!
//! That place is the registry's own word, and whoever can write there could name any address. So only
//! the configured origins are asked, each redirect is judged like the first address, and the token
//! never leaves for another origin than the registry's own (attack 39).

use super::{
    BaseError, ReadError, Timeouts,
    upstream::{self, failed},
};
use proto::{
    digest::{Digest, Hasher},
    request::File,
};
use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE, LOCATION},
};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use url::{Origin, Url};

/// Longest download.
const WITHIN: Duration = Duration::from_mins(5);
/// Redirects that are followed; registries need one to their storage.
const REDIRECTS_MAX: usize = 3;

/// Longest file that was only announced, in bytes: only crates are, and they end at 10 MiB.
const ANNOUNCED_MAX: u64 = super::crates::MAX_CRATE;

/// What came of fetching a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The approved bytes.
    Same,
    /// Other bytes; without a digest when there were more of them than approved, which are not read.
    Other(Option<Digest>),
    /// Nothing is there (yet).
    Absent,
    /// It lies at an origin that the configuration does not name: it was not asked.
    Elsewhere,
}

/// Where the bytes of a download go, if anybody wants them: they are the right ones if it is [`Fetched::Same`].
pub type Keep<'a> = Option<&'a mut tokio::fs::File>;

/// Fetches artifacts of one registry.
pub(super) struct Downloads {
    client: Client,
    origins: Vec<Origin>,
}

/// Puts the token into a request for the first address; `None` when it cannot stand in a header.
pub(super) type Authorise<'a> = &'a (dyn Fn(RequestBuilder) -> Option<RequestBuilder> + Sync);

impl Downloads {
    /// From the registry's own addresses, and from those that the configuration names beside them.
    pub(super) fn new(own: &[&Url], more: &[Url], timeouts: Timeouts) -> Result<Self, BaseError> {
        let all: Vec<_> = own.iter().copied().chain(more).collect();
        // As strict as the laxest of them: each address must have one of these origins, and its
        // scheme is a part of that.
        let lax = all.iter().find(|u| u.scheme() != "https");
        let base = lax.or(all.first()).ok_or(BaseError::Address)?;
        Ok(Self {
            client: upstream::client(base, timeouts)?,
            origins: all.iter().map(|u| u.origin()).collect(),
        })
    }

    /// Downloads the file at `place` and hashes it.
    pub(super) async fn fetch(
        &self,
        place: Url,
        file: &File,
        keep: Keep<'_>,
        authorise: Option<Authorise<'_>>,
    ) -> Result<Fetched, ReadError> {
        let mut place = place;
        let mut authorise = authorise;
        for _ in 0..=REDIRECTS_MAX {
            if !self.knows(&place) {
                return Ok(Fetched::Elsewhere);
            }
            let request = self
                .client
                .get(place.clone())
                .timeout(WITHIN)
                .header(CACHE_CONTROL, "no-cache")
                .header(ACCEPT_ENCODING, "identity");
            let request = match authorise.take() {
                Some(add) => add(request).ok_or(ReadError::NotUnderstood)?,
                None => request,
            };
            let reply = request.send().await.map_err(|e| failed(&e))?;
            match reply.status() {
                StatusCode::OK => return hashed(reply, file, keep).await,
                StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(Fetched::Absent),
                status if status.is_redirection() => place = next(&place, &reply)?,
                status => return Err(ReadError::Status(status.as_u16())),
            }
        }
        Err(ReadError::NotUnderstood)
    }

    fn knows(&self, place: &Url) -> bool {
        let plain = place.username().is_empty() && place.password().is_none();
        plain && self.origins.contains(&place.origin())
    }
}

fn next(from: &Url, reply: &Response) -> Result<Url, ReadError> {
    let to = reply.headers().get(LOCATION).and_then(|v| v.to_str().ok());
    to.and_then(|to| from.join(to).ok())
        .ok_or(ReadError::NotUnderstood)
}

/// Judges a body by its bytes. A page that says "back soon" is no artifact, and no proof of a wrong one; but a
/// page may be what was published.
async fn hashed(reply: Response, file: &File, keep: Keep<'_>) -> Result<Fetched, ReadError> {
    let kind = reply.headers().get(CONTENT_TYPE);
    let page = kind.is_some_and(|k| k.as_bytes().to_ascii_lowercase().starts_with(b"text/html"));
    match digest_of(reply, file, keep).await? {
        Fetched::Other(_) if page => Err(ReadError::NotUnderstood),
        fetched => Ok(fetched),
    }
}

/// Hashes a body piece by piece, and no further than the approved length.
async fn digest_of(
    mut reply: Response,
    file: &File,
    mut keep: Keep<'_>,
) -> Result<Fetched, ReadError> {
    // Nobody told the size of what was only announced; its digest decides.
    let most = if file.is_announced() {
        ANNOUNCED_MAX
    } else {
        file.size
    };
    if reply.content_length().is_some_and(|n| n > most) {
        return Ok(Fetched::Other(None));
    }
    let mut hasher = Hasher::new(file.digest.algorithm());
    let mut length = 0;
    while let Some(piece) = reply.chunk().await.map_err(|e| failed(&e))? {
        length += piece.len() as u64;
        if length > most {
            return Ok(Fetched::Other(None));
        }
        hasher.update(&piece);
        if let Some(to) = keep.as_deref_mut() {
            to.write_all(&piece).await.map_err(|_| ReadError::Disk)?;
        }
    }
    if let Some(to) = keep {
        to.flush().await.map_err(|_| ReadError::Disk)?;
    }
    let digest = hasher.finish();
    Ok(if digest == file.digest {
        Fetched::Same
    } else {
        Fetched::Other(Some(digest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::fake::fake;
    use proto::digest::Algorithm;

    const BYTES: &str = "the approved bytes";

    fn file() -> File {
        File {
            name: "left.tgz".to_owned(),
            size: BYTES.len() as u64,
            digest: Digest::of(Algorithm::Sha512, BYTES.as_bytes()),
        }
    }

    fn only(own: &Url) -> Downloads {
        Downloads::new(&[own], &[], Timeouts::default()).unwrap()
    }

    #[tokio::test]
    async fn the_bytes_decide_and_a_page_or_an_error_does_not() {
        let other = Digest::of(Algorithm::Sha512, b"the swapped_ bytes");
        for (body, want) in [
            (BYTES, Fetched::Same),
            ("the swapped_ bytes", Fetched::Other(Some(other))),
            ("the approved bytes and more", Fetched::Other(None)),
        ] {
            let (url, _) = fake(200, &[], body).await;
            let got = only(&url).fetch(url, &file(), None, None).await.unwrap();
            assert_eq!(got, want, "{body}");
        }
        for status in [404, 410] {
            let (url, _) = fake(status, &[], BYTES).await;
            let got = only(&url).fetch(url, &file(), None, None).await.unwrap();
            assert_eq!(got, Fetched::Absent);
        }
        for status in [401, 503, 304] {
            let (url, _) = fake(status, &[], BYTES).await;
            let got = only(&url).fetch(url, &file(), None, None).await;
            assert!(got.is_err(), "{status}");
        }
    }

    #[tokio::test]
    async fn attack_42_an_html_file_is_read_back_by_its_digest() {
        let html = [("content-type", "text/html; charset=utf-8".to_owned())];
        let (url, _) = fake(200, &html, BYTES).await;
        let got = only(&url).fetch(url, &file(), None, None).await;
        assert_eq!(got.ok(), Some(Fetched::Same));
        // Another page is no artifact, and no proof of a wrong one, whatever its length.
        for page in [
            "the swapped_ bytes",
            "back soon",
            "back soon, and much longer than it",
        ] {
            let (url, _) = fake(200, &html, page).await;
            let got = only(&url).fetch(url, &file(), None, None).await;
            assert!(got.is_err(), "{page}");
        }
    }

    #[tokio::test]
    async fn attack_39_other_origins_get_no_call_and_redirects_no_token() {
        let (other, visits) = fake(200, &[], BYTES).await;
        let (own, _) = fake(200, &[], BYTES).await;
        // The registry's word names another place: the metadata service of a cloud, say.
        let got = only(&own).fetch(other.clone(), &file(), None, None).await;
        assert_eq!(got.unwrap(), Fetched::Elsewhere);
        let mut with_user = own.clone();
        with_user.set_username("x").unwrap();
        let got = only(&own).fetch(with_user, &file(), None, None).await;
        assert_eq!(got.unwrap(), Fetched::Elsewhere);
        for to in [
            "http://169.254.169.254/latest",
            other.as_str(),
            "file:///etc/passwd",
        ] {
            let (own, _) = fake(302, &[("location", to.to_owned())], "").await;
            let got = only(&own).fetch(own.clone(), &file(), None, None).await;
            assert_eq!(got.unwrap(), Fetched::Elsewhere, "{to}");
        }
        assert!(visits.lock().unwrap().is_empty());

        // A storage that the configuration names is followed to, without the token.
        let (own, asked) = fake(302, &[("location", other.to_string())], "").await;
        let both = Downloads::new(&[&own], std::slice::from_ref(&other), Timeouts::default());
        let add = |r: RequestBuilder| Some(r.header("authorization", "canary"));
        let got = both.unwrap().fetch(own, &file(), None, Some(&add)).await;
        assert_eq!(got.unwrap(), Fetched::Same);
        assert!(
            asked.lock().unwrap()[0]
                .headers
                .contains_key("authorization")
        );
        let visits = visits.lock().unwrap();
        assert_eq!(visits.len(), 1);
        assert!(!visits[0].headers.contains_key("authorization"));
    }

    #[tokio::test]
    async fn redirects_end() {
        let (url, log) = fake(302, &[("location", "/r".to_owned())], "").await;
        assert!(only(&url).fetch(url, &file(), None, None).await.is_err());
        assert_eq!(log.lock().unwrap().len(), REDIRECTS_MAX + 1);
    }
}
