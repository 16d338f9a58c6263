//! Uploads of any size for each kind of registry, as its clients send them. Names of one length give uploads of one
//! length: nothing in them is compressed.

use crate::{
    api,
    index::{self, Dist},
    packages::stored_tarball,
};
use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    digest::{Algorithm, Digest},
    request::{File, Item},
};
use serde_json::{Value, json};

/// A kind of registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// npm's.
    Npm,
    /// Python's.
    PyPi,
    /// cargo's.
    Crates,
}

/// The one version of these packages.
pub const VERSION: &str = "1.0.0";

/// One file, ready to be asked for and to be uploaded.
#[derive(Clone, Debug)]
pub struct Artifact {
    kind: Kind,
    /// As a request names it.
    pub item: Item,
    /// The file's digest, in the registry's own algorithm.
    pub digest: Digest,
    /// The path of the upload.
    pub path: String,
    /// The media type of the upload.
    pub media_type: String,
    /// The body of the upload.
    pub body: Vec<u8>,
}

impl Kind {
    /// The name in configuration and policy.
    pub fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::PyPi => "pypi",
            Self::Crates => "crates",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        let all = [Self::Npm, Self::PyPi, Self::Crates];
        all.into_iter().find(|k| k.name() == name)
    }

    /// A package's name: `stem` with what such registries want around it.
    pub fn package(self, stem: &str) -> String {
        match self {
            Self::Npm => format!("@acme/{stem}"),
            Self::PyPi | Self::Crates => format!("acme-{stem}"),
        }
    }

    /// What matches all of them in a policy.
    pub fn pattern(self) -> &'static str {
        match self {
            Self::Npm => "npm:@acme/*",
            Self::PyPi => "pypi:acme-*",
            Self::Crates => "crates:acme-*",
        }
    }

    /// A package with so many bytes of filler in it.
    pub fn artifact(self, stem: &str, filler: usize) -> anyhow::Result<Artifact> {
        let name = self.package(stem);
        let filler = bytes(filler);
        match self {
            Self::Npm => npm(&name, &filler),
            Self::PyPi => pypi(&name, &filler),
            Self::Crates => cargo(&name, &filler),
        }
    }
}

impl Artifact {
    /// The method of the upload.
    pub fn method(&self) -> &'static str {
        match self.kind {
            Kind::Npm | Kind::Crates => "PUT",
            Kind::PyPi => "POST",
        }
    }

    /// The `Authorization` that carries a credential or, past the broker, the registry's token.
    pub fn authorization(&self, credential: &str) -> String {
        match self.kind {
            Kind::Npm => format!("Bearer {credential}"),
            Kind::PyPi => {
                let pair = format!("__token__:{credential}");
                format!("Basic {}", STANDARD.encode(pair))
            }
            Kind::Crates => credential.to_owned(),
        }
    }
}

/// Bytes that do not compress, always the same.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(count + 8);
    while out.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(count);
    out
}

fn npm(name: &str, filler: &[u8]) -> anyhow::Result<Artifact> {
    let manifest = json!({"name": name, "version": VERSION, "license": "MIT"}).to_string();
    let tgz = stored_tarball(&[
        ("package/package.json", manifest.as_bytes()),
        ("package/filler", filler),
    ])?;
    let item = api::item("npm", name, VERSION, "latest", &tgz)?;
    Ok(Artifact {
        kind: Kind::Npm,
        digest: digest_of(&item)?,
        item,
        path: format!("/{}", name.replace('/', "%2f")),
        media_type: "application/json".into(),
        body: npm_document(name, &tgz)?,
    })
}

/// The publish document with its attachment last, written in one piece: a tree of JSON would hold it several times.
fn npm_document(name: &str, tgz: &[u8]) -> anyhow::Result<Vec<u8>> {
    let hole = "\u{2}hole\u{2}";
    let text = api::publish_document(name, VERSION, &[], "latest")?;
    let mut document: Value = serde_json::from_slice(&text)?;
    let sha512 = Digest::of(Algorithm::Sha512, tgz);
    let sha1 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, tgz);
    let version = document
        .pointer_mut("/versions/1.0.0")
        .context("a version")?;
    *version.pointer_mut("/dist/integrity").context("a dist")? = json!(sha512.sri());
    *version.pointer_mut("/dist/shasum").context("a dist")? =
        json!(proto::digest::hex(sha1.as_ref()));
    if let Some(version) = version.as_object_mut() {
        version.insert("license".into(), json!("MIT"));
    }
    let attachment = document
        .get_mut("_attachments")
        .and_then(|a| a.as_object_mut()?.values_mut().next())
        .context("an attachment")?;
    *attachment = json!({
        "content_type": "application/octet-stream", "data": hole, "length": tgz.len(),
    });
    let text = document.to_string();
    let quoted = json!(hole).to_string();
    let (before, after) = text
        .split_once(quoted.trim_matches('"'))
        .context("a place for the attachment")?;
    let mut out = String::with_capacity(text.len() + tgz.len() / 3 * 4 + 8);
    out.push_str(before);
    STANDARD.encode_string(tgz, &mut out);
    out.push_str(after);
    Ok(out.into_bytes())
}

fn pypi(name: &str, filler: &[u8]) -> anyhow::Result<Artifact> {
    let dist = Dist::packed(name, VERSION, name, VERSION, |files| {
        files.insert(1, ("filler.bin".into(), filler.to_vec()));
    });
    let item = dist.item(&[])?;
    Ok(Artifact {
        kind: Kind::PyPi,
        digest: digest_of(&item)?,
        item,
        path: "/legacy/".into(),
        media_type: format!("multipart/form-data; boundary={}", index::BOUNDARY),
        body: dist.form(),
    })
}

fn cargo(name: &str, filler: &[u8]) -> anyhow::Result<Artifact> {
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"{VERSION}\"\nedition = \"2024\"\n\
         description = \"A crate of the tests\"\nlicense = \"MIT\"\n"
    );
    let root = format!("{name}-{VERSION}");
    let archive = stored_tarball(&[
        (&format!("{root}/Cargo.toml"), manifest.as_bytes()),
        (&format!("{root}/src/lib.rs"), b"//! Nothing.\n"),
        (&format!("{root}/filler"), filler),
    ])?;
    let (none, nothing) = (Vec::<String>::new(), json!({}));
    let metadata = json!({
        "name": name, "vers": VERSION, "deps": none, "features": nothing, "authors": none,
        "description": "A crate of the tests", "documentation": null, "homepage": null, "readme": null,
        "readme_file": null, "keywords": none, "categories": none, "license": "MIT", "license_file": null,
        "repository": null, "badges": nothing, "links": null, "rust_version": null,
    })
    .to_string();
    let mut body = u32::try_from(metadata.len())?.to_le_bytes().to_vec();
    body.extend_from_slice(metadata.as_bytes());
    body.extend_from_slice(&u32::try_from(archive.len())?.to_le_bytes());
    body.extend_from_slice(&archive);
    let item = Item {
        registry: "crates".parse()?,
        package: name.parse()?,
        version: VERSION.parse()?,
        tag: None,
        files: vec![File {
            name: format!("{root}.crate"),
            size: archive.len() as u64,
            digest: Digest::of(Algorithm::Sha256, &archive),
        }],
    };
    Ok(Artifact {
        kind: Kind::Crates,
        digest: digest_of(&item)?,
        item,
        path: "/api/v1/crates/new".into(),
        media_type: "application/octet-stream".into(),
        body,
    })
}

fn digest_of(item: &Item) -> anyhow::Result<Digest> {
    let file = item.files.first().context("a file")?;
    Ok(file.digest.clone())
}
