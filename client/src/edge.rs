//! The edge to the operating system: environment, clock, entropy, files that hold secrets.

use crate::fail::Failure;
use proto::{digest::hex, time::UnixTime};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Most bytes of a file or a stream that holds a secret.
const SECRET_MAX: u64 = 64 * 1024;

/// The environment, read once.
#[derive(Clone, Default)]
pub(crate) struct Env(BTreeMap<OsString, OsString>);

impl Env {
    /// This process's.
    pub(crate) fn process() -> Self {
        Self(std::env::vars_os().collect())
    }
    /// A variable that is set, not empty and UTF-8.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(std::ffi::OsStr::new(name))
            .and_then(|v| v.to_str())
            .filter(|v| !v.is_empty())
    }
    /// Every name that is UTF-8.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().filter_map(|k| k.to_str())
    }
    /// The user's home directory.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.get("HOME").map(PathBuf::from)
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Env {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.map(|(k, v)| (k.into(), v.into())).into())
    }
}

/// The clock of this machine; the one place that reads it.
#[allow(clippy::disallowed_methods, reason = "this is the client's edge")]
pub(crate) fn now() -> UnixTime {
    UnixTime(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
    )
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut out = [0; N];
    aws_lc_rs::rand::fill(&mut out).map_err(|_| {
        Failure::failed(
            "The operating system gave no random bytes.",
            "Check that /dev/urandom can be read.",
        )
    })?;
    Ok(out)
}

/// 128 random bits, hex.
pub(crate) fn random_id() -> Result<String, Failure> {
    random::<16>().map(|b| hex(&b))
}

/// Writes a file that only its owner can read: a temporary file (mode 0600), flushed, then renamed,
/// so that a crash leaves the old file or the new one.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let fail = |e: &std::io::Error| Failure::file(path, e);
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".countersign-")
        .tempfile_in(folder)
        .map_err(|e| fail(&e))?;
    file.write_all(bytes).map_err(|e| fail(&e))?;
    file.as_file().sync_all().map_err(|e| fail(&e))?;
    file.persist(path).map_err(|e| fail(&e.error))?;
    Ok(())
}

/// Reads a whole file of at most `max` bytes.
pub(crate) fn read_capped(path: &Path, max: u64) -> Result<Vec<u8>, Failure> {
    let file = std::fs::File::open(path).map_err(|e| Failure::file(path, &e))?;
    let mut bytes = Vec::new();
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::file(path, &e))?;
    if bytes.len() as u64 > max {
        return Err(Failure::failed(
            format!("{} is larger than {max} bytes.", path.display()),
            "Check that this is the file you meant.",
        ));
    }
    Ok(bytes)
}

/// A secret from a file, or from standard input for `-`, without the line's end.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin()
            .take(SECRET_MAX)
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::file(Path::new("standard input"), &e))?;
        bytes
    } else {
        read_capped(path, SECRET_MAX)?
    };
    let bytes = Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes)
        .map(|t| t.trim_end_matches(['\r', '\n']))
        .unwrap_or_default();
    if text.is_empty() {
        return Err(Failure::usage(
            format!("{} holds no text.", path.display()),
            "Put the secret into it, on one line.",
        ));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_private_file_is_its_owners_alone_and_replaces_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        std::fs::write(&path, "old").unwrap();
        write_private(&path, b"new\n").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(read_secret(&path).unwrap().as_str(), "new");
        assert!(read_capped(&path, 2).is_err());
    }
}
