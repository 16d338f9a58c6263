//! An upload on its way: small ones stay in memory, larger ones go to a file without a name. Neither
//! takes more memory than a few pieces, however large it is or however slowly it comes.

use crate::registry::IN_MEMORY;
use axum::body::{Body, Bytes};
use futures_util::StreamExt as _;
use std::{
    io::{self, Seek as _, Write as _},
    path::PathBuf,
};
use tempfile::SpooledTempFile;
use thiserror::Error;

/// Why an upload was not taken.
#[derive(Debug, Error)]
pub(super) enum NotTaken {
    /// Longer than it may be.
    #[error("the upload is too large")]
    TooLarge,
    /// The client went away.
    #[error("the upload broke off")]
    BrokeOff,
    /// The broker's own disk.
    #[error("the upload could not be stored")]
    Disk,
}

impl From<io::Error> for NotTaken {
    fn from(_: io::Error) -> Self {
        Self::Disk
    }
}

/// Takes a body of at most `most` bytes.
pub(super) async fn take(
    body: Body,
    folder: PathBuf,
    most: u64,
) -> Result<SpooledTempFile, NotTaken> {
    let file = tempfile::spooled_tempfile_in(IN_MEMORY, folder);
    let mut left = most;
    let may = |bytes| left.checked_sub(bytes).map(|less| left = less).is_some();
    let (mut file, _) = append(file, 0, body, may).await?;
    file.rewind()?;
    Ok(file)
}

/// Takes a body behind the `taken` bytes that have come already, each piece if it `may` come; the file, and how long
/// it is now. The disk is written by threads that may block, one piece at a time: a slow disk holds up this upload and nothing else.
pub(super) async fn append(
    mut file: SpooledTempFile,
    mut taken: u64,
    body: Body,
    mut may: impl FnMut(u64) -> bool,
) -> Result<(SpooledTempFile, u64), NotTaken> {
    let (mut pieces, mut held) = (Vec::new(), 0);
    let mut frames = body.into_data_stream();
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|_| NotTaken::BrokeOff)?;
        taken = taken.saturating_add(frame.len() as u64);
        if !may(frame.len() as u64) {
            return Err(NotTaken::TooLarge);
        }
        held += frame.len();
        pieces.push(frame);
        // What fits in memory is written at the end, where it is known that all of it does.
        if held >= IN_MEMORY {
            (file, held) = (written(file, std::mem::take(&mut pieces)).await?, 0);
        }
    }
    if taken >= IN_MEMORY as u64 {
        file = written(file, pieces).await?;
    } else {
        // It never leaves memory.
        for piece in pieces {
            file.write_all(&piece)?;
        }
    }
    Ok((file, taken))
}

/// Writes pieces where blocking is allowed, as they came and without a copy; gives the file back.
async fn written(
    mut file: SpooledTempFile,
    pieces: Vec<Bytes>,
) -> Result<SpooledTempFile, NotTaken> {
    let task = tokio::task::spawn_blocking(move || {
        for piece in pieces {
            file.write_all(&piece)?;
        }
        Ok::<_, io::Error>(file)
    });
    Ok(task.await.map_err(|_| NotTaken::Disk)??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use std::io::Read as _;

    /// A body of `count` pieces of 1000 bytes, cut off after them if `cut`.
    fn body(count: u8, cut: bool) -> Body {
        let pieces = (0..count).map(|n| Ok(vec![n; 1000]));
        let end = cut.then(|| Err(io::Error::other("gone")));
        Body::from_stream(stream::iter(pieces.chain(end)))
    }

    async fn taken(count: u8, cut: bool, most: u64) -> Result<Vec<u8>, NotTaken> {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = take(body(count, cut), folder.path().to_owned(), most).await?;
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut all = Vec::new();
        spool.read_to_end(&mut all).unwrap();
        Ok(all)
    }

    #[tokio::test]
    async fn what_was_sent_is_read_whether_it_fits_in_memory_or_not() {
        for count in [0, 1, 65, 66, 67, 200] {
            let sent: Vec<u8> = (0..count).flat_map(|n| [n; 1000]).collect();
            let most = sent.len() as u64;
            assert_eq!(taken(count, false, most).await.unwrap(), sent, "{count}");
        }
    }

    #[tokio::test]
    async fn attack_53_an_upload_ends_at_its_limit_in_memory_and_on_disk() {
        for count in [10, 200] {
            let less = u64::from(count) * 1000 - 1;
            let refused = taken(count, false, less).await;
            assert!(matches!(refused, Err(NotTaken::TooLarge)), "{count}");
        }
    }

    #[tokio::test]
    async fn attack_42_half_an_upload_is_none() {
        for count in [10, 200] {
            let refused = taken(count, true, 1 << 20).await;
            assert!(matches!(refused, Err(NotTaken::BrokeOff)), "{count}");
        }
    }
}
