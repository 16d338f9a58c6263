//! The server itself: one request that uploads a file, and one that fetches it to hash it.

use super::Shape;
use crate::{
    registry::{
        self, Account, Address, BaseError, BoxFuture, Fetched, Keep, Proof, Publish, Published,
        ReadError, Sent, ShownFile, Timeouts, Trial, Upstream,
        artifact::Downloads,
        pieces::{self, Frame},
        upstream::short_reply,
    },
    secret::Secret,
};
use proto::{
    ids::{PackageName, VersionText},
    request::{File, Item},
};
use reqwest::{
    Client, Method, RequestBuilder, Response,
    header::{CONTENT_TYPE, IF_NONE_MATCH},
};
use std::time::Duration;
use url::Url;

/// One such server.
pub struct Server {
    client: Client,
    base: Url,
    shape: Shape,
    downloads: Downloads,
}

impl Server {
    /// For the address and the call in the configuration.
    pub fn new(address: Address, timeouts: Timeouts) -> Result<Self, BaseError> {
        let base = registry::upstream::base(address.url)?;
        Ok(Self {
            client: registry::upstream::client(&base, timeouts)?,
            downloads: Downloads::new(&[&base], &address.downloads, timeouts)?,
            shape: address.http.ok_or(BaseError::Address)?,
            base,
        })
    }

    async fn fetched(
        &self,
        package: &PackageName,
        version: &VersionText,
        file: &File,
        keep: Keep<'_>,
        token: Option<&Secret<String>>,
    ) -> Result<Fetched, ReadError> {
        let place = self
            .shape
            .read_path
            .fill(&self.base, package, version, &file.name);
        let place = place.ok_or(ReadError::NotUnderstood)?;
        let authorise = |request: RequestBuilder| match token {
            Some(token) => {
                let (name, value) = self.shape.token(token)?;
                Some(request.header(name, value))
            }
            None => Some(request),
        };
        self.downloads
            .fetch(place, file, keep, Some(&authorise))
            .await
    }

    /// The server keeps no list: what it shows is the file, hashed.
    async fn one(
        &self,
        item: &Item,
        file: &File,
        token: Option<&Secret<String>>,
    ) -> Result<Published, ReadError> {
        let fetched = self.fetched(&item.package, &item.version, file, None, token);
        let digest = match fetched.await? {
            Fetched::Absent => return Ok(Published::default()),
            Fetched::Elsewhere => return Err(ReadError::NotUnderstood),
            Fetched::Same => Some(file.digest.clone()),
            Fetched::Other(digest) => digest,
        };
        let shown = ShownFile {
            name: Some(file.name.clone()),
            digest,
        };
        Ok(Published {
            versions: [(item.version.clone(), vec![shown])].into(),
            ..Published::default()
        })
    }

    async fn send(&self, publish: &mut Publish, token: &Secret<String>, within: Duration) -> Sent {
        let name = publish.name.clone().unwrap_or_default();
        let (package, version) = (&publish.package, &publish.version);
        let address = self.shape.path.fill(&self.base, package, version, &name);
        let (Some(address), Some((header, value))) = (address, self.shape.token(token)) else {
            return Sent::Refused {
                status: 400,
                said: "the file's name or the token cannot stand in the request".to_owned(),
            };
        };
        let mut request = self
            .client
            .request(self.shape.method.clone(), address)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(header, value);
        if self.shape.method == Method::PUT {
            // RFC 9110 §13.1.2: what is there already is not replaced, by servers that know this.
            request = request.header(IF_NONE_MATCH, "*");
        }
        let frame = Frame {
            head: Vec::new(),
            tail: Vec::new(),
            encode: <[u8]>::to_vec,
            length: publish.size,
        };
        match pieces::send(request, &mut publish.file, frame, within).await {
            Some(reply) => judged(reply, token).await,
            None => Sent::Unclear,
        }
    }
}

impl Upstream for Server {
    fn shows<'a>(
        &'a self,
        _: &'a PackageName,
        _: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Published, ReadError>> {
        // It has no list of versions.
        Box::pin(async { Ok(Published::default()) })
    }

    fn shows_file<'a>(
        &'a self,
        item: &'a Item,
        file: &'a File,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Published, ReadError>> {
        Box::pin(self.one(item, file, token))
    }

    fn fetch<'a>(
        &'a self,
        package: &'a PackageName,
        version: &'a VersionText,
        file: &'a File,
        keep: Keep<'a>,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Fetched, ReadError>> {
        Box::pin(self.fetched(package, version, file, keep, token))
    }

    fn whoami<'a>(&'a self, _: &'a Secret<String>) -> BoxFuture<'a, Result<Account, ReadError>> {
        Box::pin(async { Ok(Account::CannotAsk) })
    }

    fn prove<'a>(
        &'a self,
        _: &'a Secret<String>,
        _: Trial<'a>,
    ) -> BoxFuture<'a, Result<Proof, ReadError>> {
        let why = "a server of this kind has one call, and that uploads a file";
        Box::pin(async move { Ok(Proof::unproved(why)) })
    }

    fn publish<'a>(
        &'a self,
        publish: &'a mut Publish,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Sent> {
        Box::pin(self.send(publish, token, within))
    }
}

async fn judged(reply: Response, token: &Secret<String>) -> Sent {
    let status = reply.status().as_u16();
    let said = match status {
        200..=299 => return Sent::Accepted,
        300..=399 => "the address redirects; write the final one as url".to_owned(),
        400..=407 | 409..=417 | 422 | 429 => {
            let bytes = short_reply(reply).await.unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => return Sent::Unclear,
    };
    Sent::Refused {
        status,
        said: registry::upstream::said(&said, token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Head, fake::fake, http};
    use proto::digest::{Algorithm, Digest};
    use std::io::Write as _;

    const PATH: &str = "/{package}/{version}/{file}";
    const LIMIT: Duration = Duration::from_secs(10);

    fn token() -> Secret<String> {
        Secret::new("files-canary".to_owned())
    }

    fn server(url: &Url) -> Server {
        let shape = Shape::parse(None, PATH, None, Some("X-Api-Key: {token}")).unwrap();
        let address = Address {
            http: Some(shape),
            ..Address::at(url.clone())
        };
        Server::new(address, Timeouts::default()).unwrap()
    }

    fn upload() -> Publish {
        let mut body = tempfile::spooled_tempfile(1 << 20);
        body.write_all(b"bytes").unwrap();
        let head = Head {
            package: Some("acme/app".parse().unwrap()),
            version: Some("1.0".parse().unwrap()),
            file: Some("app.tgz".to_owned()),
            ..Head::default()
        };
        http::read(&mut body, &head).unwrap()
    }

    #[tokio::test]
    async fn a_file_is_the_body_of_one_request() {
        let (url, log) = fake(201, &[], "").await;
        let sent = server(&url).publish(&mut upload(), &token(), LIMIT).await;
        assert_eq!(sent, Sent::Accepted);
        let seen = log.lock().unwrap().clone();
        assert_eq!(seen.len(), 1);
        assert_eq!(
            (seen[0].method.as_str(), seen[0].path.as_str()),
            ("PUT", "/r/acme/app/1.0/app.tgz")
        );
        assert_eq!(seen[0].body, b"bytes");
        assert_eq!(seen[0].headers["x-api-key"], "files-canary");
        assert!(!seen[0].headers.contains_key("authorization"));
    }

    #[tokio::test]
    async fn attack_39_a_redirect_gets_neither_token_nor_file() {
        let (other, log) = fake(200, &[], "").await;
        for status in [301, 302, 307, 308] {
            let to = [("location", other.to_string())];
            let (url, _) = fake(status, &to, "").await;
            let sent = server(&url).publish(&mut upload(), &token(), LIMIT).await;
            assert!(matches!(sent, Sent::Refused { .. }), "{sent:?}");
        }
        assert!(log.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_read_back_is_hashed() {
        let file = File {
            name: "app.tgz".to_owned(),
            size: 5,
            digest: Digest::of(Algorithm::Sha256, b"bytes"),
        };
        let item = Item {
            registry: "files".parse().unwrap(),
            package: "acme/app".parse().unwrap(),
            version: "1.0".parse().unwrap(),
            tag: None,
            files: vec![file.clone()],
        };
        for (status, body, want) in [
            (200, "bytes", Some(Some(file.digest.clone()))),
            (
                200,
                "other",
                Some(Some(Digest::of(Algorithm::Sha256, b"other"))),
            ),
            (404, "", Some(None)),
            (500, "", None),
            (401, "", None),
        ] {
            let (url, _) = fake(status, &[], body).await;
            let server = server(&url);
            let shown = server.shows_file(&item, &file, Some(&token())).await.ok();
            let shown = shown.map(|shown| match shown.file(&item.version, &file).unwrap() {
                registry::ReadBack::Shows(digest) => Some(digest),
                registry::ReadBack::Absent => None,
            });
            assert_eq!(shown, want, "{status} {body}");
        }
    }
}
