//! Gems for tests, right by default and wrong on demand.

use crate::registry::archive::samples::{entry, gzip, tgz};
use proto::digest::{Algorithm, Digest};

/// What Ruby writes of a gem, as far as it is read.
pub(super) fn spec(name: &str, version: &str) -> String {
    format!(
        "--- !ruby/object:Gem::Specification\nname: {name}\nversion: !ruby/object:Gem::Version\n  version: {version}\n\
         platform: ruby\nauthors:\n- Acme\nfiles:\n- lib/x.rb\nrubygems_version: 3.3.15\n"
    )
}

/// A gem's checksums.
pub(super) enum Sums {
    Right,
    Other(&'static str),
    Missing,
}

/// A gem's parts.
pub(super) struct Parts {
    pub(super) metadata: Vec<u8>,
    pub(super) data: Vec<u8>,
    /// What the checksums are made of, where it is something else.
    pub(super) claimed_metadata: Option<Vec<u8>>,
    pub(super) claimed_data: Option<Vec<u8>>,
    pub(super) checksums: Sums,
    /// Further entries.
    pub(super) more: Vec<Vec<u8>>,
}

impl Parts {
    pub(super) fn new(name: &str, version: &str) -> Self {
        Self {
            metadata: gzip(spec(name, version).as_bytes()),
            data: tgz(&[entry("lib/x.rb", b'0', b"X = 1\n")]),
            claimed_metadata: None,
            claimed_data: None,
            checksums: Sums::Right,
            more: Vec::new(),
        }
    }

    pub(super) fn gem(&self) -> Vec<u8> {
        let metadata = self.claimed_metadata.as_ref().unwrap_or(&self.metadata);
        let data = self.claimed_data.as_ref().unwrap_or(&self.data);
        let hex = |algorithm, bytes: &[u8]| {
            let text = Digest::of(algorithm, bytes).to_string();
            text.split_once(':').unwrap().1.to_owned()
        };
        let mut checksums = "---\n".to_owned();
        for (head, algorithm) in [("SHA256", Algorithm::Sha256), ("SHA512", Algorithm::Sha512)] {
            let (m, d) = (hex(algorithm, metadata), hex(algorithm, data));
            let lines = format!("{head}:\n  metadata.gz: {m}\n  data.tar.gz: {d}\n");
            checksums.push_str(&lines);
        }
        let checksums = match self.checksums {
            Sums::Right => Some(checksums),
            Sums::Other(text) => Some(text.to_owned()),
            Sums::Missing => None,
        };
        let mut tar = entry("metadata.gz", b'0', &self.metadata);
        tar.extend(entry("data.tar.gz", b'0', &self.data));
        if let Some(text) = checksums {
            tar.extend(entry("checksums.yaml.gz", b'0', &gzip(text.as_bytes())));
        }
        tar.extend(self.more.concat());
        tar.resize(tar.len() + 1024, 0);
        tar
    }
}
