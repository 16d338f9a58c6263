//! The real registry of a kind, and what it truly holds.

use anyhow::Context as _;
use proto::digest::{Algorithm, Digest};
use stand::{
    artifact::{Artifact, Kind, VERSION},
    cargo::Freighter,
    parts::Verdaccio,
    python::{self, PyPiServer},
};
use std::{fs, path::PathBuf};

/// How often a registry is asked what it shows.
const ASKED: usize = 6;

/// A registry that runs.
pub(crate) enum Shelf {
    Npm(Verdaccio),
    PyPi(PyPiServer),
    Crates(Freighter),
}

/// What a registry holds of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    /// Nothing.
    Absent,
    /// Exactly the approved bytes, stored and shown.
    Same,
    /// Something else.
    Other(String),
}

impl Shelf {
    pub(crate) async fn start(kind: Kind) -> anyhow::Result<Self> {
        Ok(match kind {
            Kind::Npm => Self::Npm(Verdaccio::start().await?),
            Kind::PyPi => Self::PyPi(PyPiServer::start().await?),
            Kind::Crates => Self::Crates(Freighter::start().await?),
        })
    }

    /// Its origin, without a slash at the end.
    pub(crate) fn origin(&self) -> &str {
        match self {
            Self::Npm(r) => &r.url,
            Self::PyPi(r) => r.upload.trim_end_matches('/'),
            Self::Crates(r) => &r.url,
        }
    }

    pub(crate) fn token(&self) -> &str {
        match self {
            Self::Npm(r) => &r.token,
            Self::PyPi(r) => &r.token,
            Self::Crates(r) => &r.token,
        }
    }

    /// The broker's `url`, and its other keys, when the registry is reached by way of `proxy`.
    pub(crate) fn settings(&self, proxy: &str) -> (String, String) {
        match self {
            Self::Npm(_) => (proxy.to_owned(), String::new()),
            Self::PyPi(_) => {
                let keys = format!("upload_url = \"{proxy}/\"");
                (format!("{proxy}/simple/"), keys)
            }
            Self::Crates(_) => (
                format!("{proxy}/index/"),
                format!("upload_url = \"{proxy}\""),
            ),
        }
    }

    /// What it holds: the bytes on its disk, and what it says of them.
    pub(crate) async fn truth(&self, artifact: &Artifact) -> anyhow::Result<Truth> {
        // On a busy machine it may take longer to answer than the stand waits.
        for _ in 1..ASKED {
            if let Ok(truth) = self.look(artifact).await {
                return Ok(truth);
            }
        }
        self.look(artifact).await
    }

    /// Takes away what was judged: pypiserver reads its whole folder at every question, and thousands of files would make
    /// each of them slow.
    pub(crate) fn clear(&self, artifact: &Artifact) -> anyhow::Result<()> {
        if let (Self::PyPi(registry), Some(file)) = (self, artifact.item.files.first()) {
            registry.remove(&file.name)?;
        }
        Ok(())
    }

    async fn look(&self, artifact: &Artifact) -> anyhow::Result<Truth> {
        let item = &artifact.item;
        let name = item.package.as_str();
        let file = item.files.first().context("a file")?;
        let (stored, shown) = match self {
            Self::Npm(registry) => {
                let (_, short) = name.rsplit_once('/').context("a scope")?;
                let storage = registry.dir().join("storage").join(name);
                let stored = read(storage.join(format!("{short}-{VERSION}.tgz")))?;
                (stored, registry.integrity(name, VERSION).await?)
            }
            Self::PyPi(registry) => {
                let shown = python::shown(&registry.index, name).await?;
                let shown = shown.into_iter().find(|(n, _)| *n == file.name);
                (registry.file(&file.name), shown.map(|(_, digest)| digest))
            }
            Self::Crates(registry) => (
                read(registry.stored(name, VERSION))?,
                registry.cksum(name, VERSION).await?,
            ),
        };
        let expected = match self {
            Self::Npm(_) => artifact.digest.sri(),
            Self::PyPi(_) | Self::Crates(_) => proto::digest::hex(artifact.digest.as_bytes()),
        };
        let algorithm = match self {
            Self::Npm(_) => Algorithm::Sha512,
            Self::PyPi(_) | Self::Crates(_) => Algorithm::Sha256,
        };
        Ok(match (stored, shown) {
            // A file that the registry does not show is nothing to anybody.
            (_, None) => Truth::Absent,
            (Some(bytes), Some(shown))
                if Digest::of(algorithm, &bytes) == artifact.digest && shown == expected =>
            {
                Truth::Same
            }
            (stored, shown) => Truth::Other(format!(
                "shown as {}, stored {} bytes",
                shown.unwrap_or_default(),
                stored.map_or(0, |b| b.len())
            )),
        })
    }
}

fn read(path: PathBuf) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}
