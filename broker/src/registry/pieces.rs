//! Bodies between blocking threads and the event loop, in small pieces and with bounded memory.

use futures_util::stream;
use hyper::body::Bytes;
use reqwest::{RequestBuilder, Response, header::CONTENT_LENGTH};
use std::io::{self, Read, Seek as _};
use tempfile::SpooledTempFile;
use tokio::sync::mpsc;

/// One piece of the file; a multiple of 3, so that its base64 needs no padding inside. Small, since
/// the HTTP library queues 16 pieces of any size for a registry that reads slowly.
const PIECE: usize = 6 << 10;
/// Pieces of an upload read ahead.
const AHEAD: usize = 8;
/// Pieces of an answer that wait for its reader.
pub(super) const PIECES: usize = 2;

/// A request's body: what stands before the file, the file, what stands behind it.
pub(super) struct Frame {
    pub(super) head: Vec<u8>,
    pub(super) tail: Vec<u8>,
    /// How a piece of the file is written.
    pub(super) encode: fn(&[u8]) -> Vec<u8>,
    /// Length of the whole body in bytes.
    pub(super) length: u64,
}

/// A piece of a request's body.
type Piece = Result<Vec<u8>, io::Error>;

/// Sends a request with this body, once; `None` when it is not known what came of it.
pub(super) async fn send(
    request: RequestBuilder,
    file: &mut SpooledTempFile,
    frame: Frame,
) -> Option<Response> {
    if !file.is_rolled() {
        // It lies in memory already: no thread, no channel.
        let body = whole(file, frame).ok()?;
        return request.body(body).send().await.ok();
    }
    let (sender, receiver) = mpsc::channel(AHEAD);
    let request = request
        .header(CONTENT_LENGTH, frame.length)
        .body(reqwest::Body::wrap_stream(stream::unfold(receiver, next)));
    // The file is lent to a blocking thread, and comes back for the next attempt. Should it get
    // lost, the next attempt is shorter than it says, and the registry takes nothing.
    let lent = std::mem::replace(file, SpooledTempFile::new(0));
    let feeder = tokio::task::spawn_blocking(move || feed(lent, frame, &sender));
    let reply = request.send().await;
    if let Ok(lent) = feeder.await {
        *file = lent;
    }
    reply.ok()
}

/// One step of the body's stream.
async fn next(mut receiver: mpsc::Receiver<Piece>) -> Option<(Piece, mpsc::Receiver<Piece>)> {
    receiver.recv().await.map(|piece| (piece, receiver))
}

/// Feeds head, file and tail into the request; gives the file back. When the request is gone, it
/// stops; when the disk fails, the request breaks off before its last byte.
fn feed(mut file: SpooledTempFile, frame: Frame, to: &mpsc::Sender<Piece>) -> SpooledTempFile {
    let put = |piece| to.blocking_send(piece).is_ok();
    if !put(Ok(frame.head)) {
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
            Ok(_) if !put(Ok((frame.encode)(&buffer))) => return file,
            Ok(_) => {}
        }
    }
    put(Ok(frame.tail));
    file
}

/// Head, file and tail in one piece, for a file that lies in memory.
fn whole(file: &mut SpooledTempFile, frame: Frame) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let mut archive = Vec::new();
    file.read_to_end(&mut archive)?;
    let mut out = frame.head;
    out.extend_from_slice(&(frame.encode)(&archive));
    out.extend_from_slice(&frame.tail);
    Ok(out)
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
