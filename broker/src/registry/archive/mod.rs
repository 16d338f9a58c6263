//! Archives as registries take them: read as a stream, and refused where two programs could unpack them
//! differently. Shared by the adapters; each looks for its own files inside.

pub(super) mod names;
pub(super) mod tar;
mod walk;
pub(super) mod zip;

pub use names::NamesError;
pub use walk::{Format, See, walk, walk_source};

use std::io;
use thiserror::Error;

/// Bytes after unpacking.
const MAX_UNPACKED: u64 = 512 << 20;
/// Files and folders; the ZIP format without extensions counts up to 65,534.
const MAX_ENTRIES: u32 = 100_000;
/// An archive may grow by this factor; above [`RATIO_FREE`] bytes more is a bomb (attack 53).
const MAX_RATIO: u64 = 200;
const RATIO_FREE: u64 = 8 << 20;

/// Why an archive was refused.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// Not of the format, or cut short.
    #[error("the archive cannot be unpacked")]
    Broken(#[source] io::Error),
    /// More than a package has.
    #[error("the archive unpacks to more than is allowed ({0})")]
    TooLarge(&'static str),
    /// A header that programs read differently.
    #[error("the archive has an ambiguous header: {0}")]
    Header(&'static str),
    /// Not a file and not a folder.
    #[error("'{0}' in the archive is neither a file nor a folder")]
    NotAFile(String),
    /// A name that programs unpack differently.
    #[error(transparent)]
    Name(#[from] NamesError),
    /// Bytes behind the archive's end.
    #[error("the archive goes on after its end")]
    AfterEnd,
}

/// How much an archive may still unpack to.
struct Budget {
    left: u64,
    limit: u64,
}

impl Budget {
    /// For an archive of `packed` bytes.
    fn of(packed: u64) -> Self {
        let limit = MAX_UNPACKED.min(RATIO_FREE.max(packed.saturating_mul(MAX_RATIO)));
        Self { left: limit, limit }
    }

    /// Takes so many bytes of it.
    fn take(&mut self, bytes: usize) -> Result<(), ArchiveError> {
        self.left = self
            .left
            .checked_sub(bytes as u64)
            .ok_or(ArchiveError::TooLarge("bytes"))?;
        Ok(())
    }

    /// Bytes taken so far.
    fn spent(&self) -> u64 {
        self.limit - self.left
    }
}

#[cfg(test)]
pub(crate) mod samples;
