//! What the registry shows: its tags, its manifests, whether it has a blob.
//!
//! A blob's address is its digest, so that a registry which has it has these bytes. A manifest is fetched and
//! hashed: the header that names its digest is not believed by itself.

use super::{MANIFEST_MAX, Place, login::Shown, manifest, upstream::Oci};
use crate::{
    registry::{
        Published, ReadError, ShownFile,
        upstream::{failed, limited},
    },
    secret::Secret,
};
use proto::{
    digest::{Algorithm, Digest},
    ids::{PackageName, VersionText},
    request::{File, Item},
};
use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT, LINK},
};
use serde::Deserialize;
use std::collections::BTreeSet;
use url::Url;

/// Pages of tags that are read.
const PAGES_MAX: usize = 50;
/// Tags that are asked for one by one.
const TAGS_MAX: usize = 1000;
/// Longest page of tags, in bytes.
const PAGE_MAX: usize = 1 << 20;
/// The header that names a manifest's digest.
pub(super) const DIGEST: &str = "docker-content-digest";

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Oci {
    /// All tags, without their files.
    pub(super) async fn tags(
        &self,
        package: &PackageName,
        login: &Shown,
    ) -> Result<Published, ReadError> {
        let mut address = self.at(package, "tags/list")?;
        address.set_query(Some("n=1000"));
        let mut published = Published::default();
        for _ in 0..PAGES_MAX {
            let asked = self.ask(Method::GET, address.clone(), login).send().await;
            let reply = asked.map_err(|e| failed(&e))?;
            match reply.status() {
                StatusCode::NOT_FOUND => return Ok(published),
                StatusCode::OK => {}
                status => return Err(ReadError::Status(status.as_u16())),
            }
            let next = next_page(&reply, &address)?;
            let page: Tags = serde_json::from_slice(&limited(reply, PAGE_MAX).await?)
                .map_err(|_| ReadError::NotUnderstood)?;
            for tag in page.tags.unwrap_or_default() {
                // What is no tag by its grammar can be no version of ours either.
                if let Ok(tag) = tag.parse() {
                    published.versions.insert(tag, Vec::new());
                }
            }
            let Some(next) = next else {
                published.newest = newest(published.versions.keys());
                return Ok(published);
            };
            address = next;
        }
        Err(ReadError::TooLarge)
    }

    /// Of these tags the manifests' digests; a tag that is not there is left out.
    pub(super) async fn tagged(
        &self,
        package: &PackageName,
        tags: &BTreeSet<VersionText>,
        token: Option<&Secret<String>>,
    ) -> Result<Published, ReadError> {
        if tags.len() > TAGS_MAX {
            return Err(ReadError::TooLarge);
        }
        let login = self.shown_as(package, "pull", token).await?;
        let mut published = Published::default();
        for tag in tags {
            let digest = self.manifest(package, tag.as_str(), &login).await?;
            let shown = digest.map(|digest| ShownFile {
                name: Some(Place::Tag(tag.clone()).name()),
                digest: Some(digest),
            });
            let files = shown.into_iter().collect();
            published.versions.insert(tag.clone(), files);
        }
        Ok(published)
    }

    /// The digest of the manifest that the registry shows, of its very bytes.
    pub(super) async fn manifest(
        &self,
        package: &PackageName,
        reference: &str,
        login: &Shown,
    ) -> Result<Option<Digest>, ReadError> {
        let address = self.at(package, &format!("manifests/{reference}"))?;
        let request = self.ask(Method::GET, address, login);
        let reply = request.header(ACCEPT, manifest::ACCEPT).send().await;
        let reply = reply.map_err(|e| failed(&e))?;
        match reply.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::OK => {}
            status => return Err(ReadError::Status(status.as_u16())),
        }
        let named = reply.headers().get(DIGEST).cloned();
        let most = usize::try_from(MANIFEST_MAX).unwrap_or(usize::MAX);
        let digest = Digest::of(Algorithm::Sha256, &limited(reply, most).await?);
        // A registry that names another digest than it serves is not understood, and nothing is published.
        match named {
            Some(named) if named.as_bytes() != digest.to_string().as_bytes() => {
                Err(ReadError::NotUnderstood)
            }
            _ => Ok(Some(digest)),
        }
    }

    pub(super) async fn has_blob(
        &self,
        package: &PackageName,
        file: &File,
        login: &Shown,
    ) -> Result<bool, ReadError> {
        let address = self.at(package, &format!("blobs/{}", file.digest))?;
        let reply = self.ask(Method::HEAD, address.clone(), login).send().await;
        let reply = reply.map_err(|e| failed(&e))?;
        let header = |name: &str| reply.headers().get(name).and_then(|v| v.to_str().ok());
        match reply.status() {
            StatusCode::NOT_FOUND => Ok(false),
            StatusCode::OK => {
                let digest = file.digest.to_string();
                let named = header(DIGEST).is_none_or(|named| named == digest);
                let long = header("content-length").and_then(|n| n.parse().ok()) == Some(file.size);
                (named && long)
                    .then_some(true)
                    .ok_or(ReadError::NotUnderstood)
            }
            // Some registries keep blobs elsewhere and say where; whether they have it is all we ask. A page
            // where people log in is no such place, nor is one that the configuration does not name.
            StatusCode::FOUND | StatusCode::TEMPORARY_REDIRECT => {
                let to = header("location").and_then(|to| address.join(to).ok());
                match to {
                    Some(to) if self.storage.contains(&to.origin()) => Ok(true),
                    _ => Err(ReadError::Elsewhere),
                }
            }
            status => Err(ReadError::Status(status.as_u16())),
        }
    }

    /// What is shown in the place of one file, and under the tag; with all tags when the file is the tag's.
    pub(super) async fn one(
        &self,
        item: &Item,
        file: &File,
        token: Option<&Secret<String>>,
    ) -> Result<Published, ReadError> {
        let login = self.shown_as(&item.package, "pull", token).await?;
        let place = Place::parse(&file.name).ok_or(ReadError::NotUnderstood)?;
        let mut published = Published::default();
        let mut files = Vec::new();
        let own = match &place {
            Place::Tag(_) => {
                published = self.tags(&item.package, &login).await?;
                None
            }
            Place::Manifest(digest) => {
                let reference = digest.to_string();
                self.manifest(&item.package, &reference, &login).await?
            }
            // Its name is its digest, and so is the file's own.
            Place::Blob(digest) if *digest == file.digest => {
                let has = self.has_blob(&item.package, file, &login).await?;
                has.then(|| digest.clone())
            }
            Place::Blob(_) => return Err(ReadError::NotUnderstood),
        };
        files.extend(own.map(|digest| ShownFile {
            name: Some(file.name.clone()),
            digest: Some(digest),
        }));
        let tag = item.version.as_str();
        let tagged = self.manifest(&item.package, tag, &login).await?;
        files.extend(tagged.map(|digest| ShownFile {
            name: Some(Place::Tag(item.version.clone()).name()),
            digest: Some(digest),
        }));
        if !files.is_empty() {
            published.versions.insert(item.version.clone(), files);
        }
        Ok(published)
    }
}

/// The next page of a list, which must be of the same list.
fn next_page(reply: &Response, address: &Url) -> Result<Option<Url>, ReadError> {
    let Some(link) = reply.headers().get(LINK) else {
        return Ok(None);
    };
    let link = link.to_str().ok().and_then(|link| {
        let (to, behind) = link.strip_prefix('<')?.split_once('>')?;
        let next = address.join(to).ok()?;
        let same = next.origin() == address.origin() && next.path() == address.path();
        (same && behind.contains("next") && next != *address).then_some(next)
    });
    link.map(Some).ok_or(ReadError::NotUnderstood)
}

/// The newest tag that reads as a version; a `v` may stand before it.
fn newest<'t>(tags: impl Iterator<Item = &'t VersionText>) -> Option<VersionText> {
    tags.filter_map(|tag| {
        let text = tag.as_str();
        let version = semver::Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()?;
        Some((version, tag))
    })
    .max_by(|(a, _), (b, _)| a.cmp(b))
    .map(|(_, tag)| tag.clone())
}
