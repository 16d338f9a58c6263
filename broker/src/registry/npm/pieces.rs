//! Bodies between blocking threads and the event loop, in small pieces and with bounded memory.

use super::body::Frame;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::body::Bytes;
use std::io::{self, Read, Seek as _};
use tempfile::SpooledTempFile;
use tokio::sync::mpsc;

/// One piece of the archive; a multiple of 3, so that its base64 needs no padding inside. Small, since
/// the HTTP library queues 16 pieces of any size for a registry that reads slowly.
const PIECE: usize = 6 << 10;
/// Pieces of an upload read ahead.
pub(super) const AHEAD: usize = 8;
/// Pieces of an answer that wait for its reader.
pub(super) const PIECES: usize = 2;

/// A piece of a request's body.
pub(super) type Piece = Result<Vec<u8>, io::Error>;

/// One step of the body's stream.
pub(super) async fn next(
    mut receiver: mpsc::Receiver<Piece>,
) -> Option<(Piece, mpsc::Receiver<Piece>)> {
    receiver.recv().await.map(|piece| (piece, receiver))
}

/// Feeds head, archive and tail into the request; gives the file back. When the request is gone, it
/// stops; when the disk fails, the request breaks off before its last byte.
pub(super) fn feed(
    mut file: SpooledTempFile,
    frame: Frame,
    to: &mpsc::Sender<Piece>,
) -> SpooledTempFile {
    let put = |piece| to.blocking_send(piece).is_ok();
    if !put(Ok(frame.head.into_bytes())) {
        return file;
    }
    if let Err(e) = file.rewind() {
        put(Err(e));
        return file;
    }
    let mut buffer = Vec::with_capacity(PIECE);
    loop {
        buffer.clear();
        match (&mut file).take(PIECE as u64).read_to_end(&mut buffer) {
            Err(e) => {
                put(Err(e));
                return file;
            }
            Ok(0) => break,
            Ok(_) if !put(Ok(STANDARD.encode(&buffer).into_bytes())) => return file,
            Ok(_) => {}
        }
    }
    put(Ok(frame.tail.into_bytes()));
    file
}

/// Head, archive and tail in one piece, for an archive that lies in memory.
pub(super) fn whole(file: &mut SpooledTempFile, frame: Frame) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let mut archive = Vec::new();
    file.read_to_end(&mut archive)?;
    let mut out = frame.head;
    STANDARD.encode_string(&archive, &mut out);
    out.push_str(&frame.tail);
    Ok(out.into_bytes())
}

/// An answer's pieces as a reader on a blocking thread.
pub(super) struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Pieces {
    pub(super) fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self {
            receiver,
            current: Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let n = out.len().min(self.current.len());
        if let Some(out) = out.get_mut(..n) {
            out.copy_from_slice(&self.current.split_to(n));
        }
        Ok(n)
    }
}
