//! The registry itself: the requests that push.

use super::{
    Envelope,
    login::{Login, Shown},
    manifest, prove,
};
use crate::{
    registry::{
        self, Account, Address, BaseError, BoxFuture, Fetched, Keep, Proof, Publish, Published,
        ReadError, Sent, Timeouts, Trial, Upstream,
        artifact::Downloads,
        pieces::{self, Frame},
        upstream::{failed, short_reply},
    },
    secret::Secret,
};
use proto::{
    ids::{PackageName, VersionText},
    request::{File, Item},
};
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
};
use serde::Deserialize;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;
use url::{Origin, Url};

/// One OCI registry.
pub struct Oci {
    client: Client,
    /// `…/v2/`
    root: Url,
    login: Login,
    downloads: Downloads,
    /// Where the configuration says that the registry keeps its blobs.
    pub(super) storage: Vec<Origin>,
    read: Duration,
}

/// A registry's no.
#[derive(Default, Deserialize)]
struct Reply {
    #[serde(default)]
    errors: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Where the bytes of an upload go, or why they go nowhere.
enum Begun {
    At(Url),
    No(Sent),
}

impl Oci {
    /// For the addresses in the configuration.
    pub fn new(address: Address, timeouts: Timeouts) -> Result<Self, BaseError> {
        let base = registry::upstream::base(address.url)?;
        let tokens = address.tokens;
        if let Some(tokens) = &tokens {
            registry::upstream::base(tokens.clone())?;
        }
        // Two addresses, one client: it is as strict as the stricter of both.
        let strict = tokens.as_ref().filter(|t| t.scheme() == "https");
        Ok(Self {
            client: registry::upstream::client(strict.unwrap_or(&base), timeouts)?,
            downloads: Downloads::new(&[&base], &address.downloads, timeouts)?,
            storage: address.downloads.iter().map(Url::origin).collect(),
            root: base.join("v2/").map_err(|_| BaseError::Address)?,
            login: Login {
                user: address.user.ok_or(BaseError::Address)?,
                tokens,
            },
            read: timeouts.read,
        })
    }

    pub(super) async fn shown_as(
        &self,
        package: &PackageName,
        what: &str,
        token: Option<&Secret<String>>,
    ) -> Result<Shown, ReadError> {
        let until = Instant::now() + self.read;
        self.shown_until(package, what, token, until).await
    }

    async fn shown_until(
        &self,
        package: &PackageName,
        what: &str,
        token: Option<&Secret<String>>,
        until: Instant,
    ) -> Result<Shown, ReadError> {
        let (client, root) = (&self.client, &self.root);
        let login = &self.login;
        login
            .for_repository(client, root, package, what, token, until)
            .await
    }

    pub(super) fn at(&self, package: &PackageName, place: &str) -> Result<Url, ReadError> {
        // The name was judged by its grammar: it has no `..`, no `%`, no scheme.
        self.root
            .join(&format!("{package}/{place}"))
            .map_err(|_| ReadError::NotUnderstood)
    }

    pub(super) fn ask(&self, method: Method, address: Url, login: &Shown) -> RequestBuilder {
        let request = self.client.request(method, address).timeout(self.read);
        let request = request.header(CACHE_CONTROL, "no-cache");
        match login {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        }
    }

    /// Whose name stands beside the token.
    pub(super) fn user(&self) -> &str {
        &self.login.user
    }

    /// Logs in, begins, and sends. All of it has one time: whoever reads the registry back when that is over must
    /// not be overtaken by bytes that a slow login held up (attacks 42 and 52).
    async fn send(&self, publish: &mut Publish, token: &Secret<String>, within: Duration) -> Sent {
        let until = Instant::now() + within;
        let package = publish.package.clone();
        let login = self.shown_until(&package, "pull,push", Some(token), until);
        let login = match login.await {
            Ok(login) => login,
            // Nothing of the publish has left.
            Err(why) => {
                // Without an answer nobody refused the token.
                let status = match &why {
                    ReadError::Status(status) => *status,
                    _ => 502,
                };
                return Sent::Refused {
                    status,
                    said: why.to_string(),
                };
            }
        };
        let registry::Envelope::Oci(envelope) = &publish.envelope else {
            return Sent::Unclear;
        };
        let (address, media_type) = match envelope {
            Envelope::Blob => {
                let digest = publish.digest.to_string();
                match self.begin(&package, &digest, &login, token, until).await {
                    Begun::At(address) => (Ok(address), "application/octet-stream"),
                    Begun::No(sent) => return sent,
                }
            }
            Envelope::Manifest { media_type, .. } => {
                let place = publish.name.as_deref().unwrap_or_default();
                (self.at(&package, place), *media_type)
            }
        };
        let Ok(address) = address else {
            return Sent::Unclear;
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Sent::Refused {
                status: 408,
                said: "the registry took too long before it took any bytes".to_owned(),
            };
        }
        let request = self.ask(Method::PUT, address, &login);
        let request = request.header(CONTENT_TYPE, media_type);
        let frame = Frame {
            head: Vec::new(),
            tail: Vec::new(),
            encode: <[u8]>::to_vec,
            length: publish.size,
        };
        match pieces::send(request, &mut publish.file, frame, left).await {
            Some(reply) => judged(reply, token, &login).await,
            None => Sent::Unclear,
        }
    }

    /// Begins the upload of a blob. The registry says where its bytes go, and that must be the registry.
    async fn begin(
        &self,
        package: &PackageName,
        digest: &str,
        login: &Shown,
        token: &Secret<String>,
        until: Instant,
    ) -> Begun {
        let Ok(address) = self.at(package, "blobs/uploads/") else {
            return Begun::No(Sent::Unclear);
        };
        let left = until.saturating_duration_since(Instant::now());
        let request = self.ask(Method::POST, address.clone(), login);
        let request = request.timeout(left.min(self.read));
        let Ok(reply) = request.header(CONTENT_LENGTH, 0).send().await else {
            return Begun::No(Sent::Unclear);
        };
        if reply.status() != StatusCode::ACCEPTED {
            return Begun::No(match judged(reply, token, login).await {
                Sent::Accepted => Sent::Unclear,
                no => no,
            });
        }
        let place = reply.headers().get(LOCATION).and_then(|v| v.to_str().ok());
        let place = place.and_then(|place| address.join(place).ok());
        match place.filter(|place| place.origin() == self.root.origin()) {
            Some(mut place) => {
                place.query_pairs_mut().append_pair("digest", digest);
                Begun::At(place)
            }
            None => Begun::No(Sent::Refused {
                status: 202,
                said: "the registry sends uploads to another address; the token stays here"
                    .to_owned(),
            }),
        }
    }
}

impl Upstream for Oci {
    fn shows<'a>(
        &'a self,
        package: &'a PackageName,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Published, ReadError>> {
        Box::pin(async move {
            let login = self.shown_as(package, "pull", token).await?;
            self.tags(package, &login).await
        })
    }

    fn shows_tags<'a>(
        &'a self,
        package: &'a PackageName,
        tags: &'a BTreeSet<VersionText>,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Published, ReadError>> {
        Box::pin(self.tagged(package, tags, token))
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
        _: &'a VersionText,
        file: &'a File,
        keep: Keep<'a>,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Fetched, ReadError>> {
        Box::pin(async move {
            let login = self.shown_as(package, "pull", token).await?;
            let place = self.at(package, &file.name)?;
            let authorise = |request: RequestBuilder| {
                let request = request.header(ACCEPT, manifest::ACCEPT);
                Some(match &login {
                    Some(value) => request.header(AUTHORIZATION, value.clone()),
                    None => request,
                })
            };
            self.downloads
                .fetch(place, file, keep, Some(&authorise))
                .await
        })
    }

    fn withdraw(&self) -> Result<&dyn registry::withdraw::Withdraw, &'static str> {
        Err(
            "a container registry has no such mark: push the good image under the tag, by a request; whoever pulls by digest still gets the bad one",
        )
    }

    fn whoami<'a>(
        &'a self,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Account, ReadError>> {
        Box::pin(async move {
            let (client, login) = (&self.client, &self.login);
            let until = Instant::now() + self.read;
            let shown = login.shown(client, &self.root, None, Some(token), until);
            let status = match shown.await {
                Ok(shown) => {
                    let asked = self.ask(Method::GET, self.root.clone(), &shown);
                    let reply = asked.send().await.map_err(|e| failed(&e))?;
                    reply.status().as_u16()
                }
                Err(ReadError::Status(status)) => status,
                Err(why) => return Err(why),
            };
            match status {
                200 => Ok(Account::Named(self.login.user.clone())),
                401 | 403 => Ok(Account::Unknown),
                status => Err(ReadError::Status(status)),
            }
        })
    }

    fn prove<'a>(
        &'a self,
        token: &'a Secret<String>,
        trial: Trial<'a>,
    ) -> BoxFuture<'a, Result<Proof, ReadError>> {
        Box::pin(prove::ask(self, token, trial))
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

/// What the registry says goes to the job's output: it must not repeat to it what it was shown (attack 41).
async fn judged(reply: Response, token: &Secret<String>, login: &Shown) -> Sent {
    let status = reply.status().as_u16();
    let said = match status {
        201 | 202 => return Sent::Accepted,
        300..=399 => "the registry's address redirects; write the final one as url".to_owned(),
        400..=407 | 409..=417 | 422 | 429 => {
            let bytes = short_reply(reply).await.unwrap_or_default();
            let reply: Reply = serde_json::from_slice(&bytes).unwrap_or_default();
            let words = reply.errors.iter();
            let words: Vec<_> = words.map(|e| format!("{} {}", e.code, e.message)).collect();
            let words = without(&words.join("; "), login);
            if matches!(status, 401 | 403) {
                format!("{words} (may the stored token push to this repository?)")
            } else {
                words
            }
        }
        _ => return Sent::Unclear,
    };
    Sent::Refused {
        status,
        said: registry::upstream::said(said.trim(), token),
    }
}

/// Words without the login that stood in the request's head.
pub(super) fn without(words: &str, login: &Shown) -> String {
    let login = login.as_ref().and_then(|value| value.to_str().ok());
    let secret = login.and_then(|value| Some(value.split_once(' ')?.1.trim_end_matches('=')));
    match secret.filter(|s| !s.is_empty()) {
        Some(secret) => words.replace(secret, "[token]"),
        None => words.to_owned(),
    }
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
