//! Bodies between blocking threads and the event loop, in small pieces and with bounded memory.

use futures_util::stream;
use hyper::body::Bytes;
use proto::digest::{Algorithm, Digest, Hasher};
use reqwest::{RequestBuilder, Response, header::CONTENT_LENGTH};
use std::{
    io::{self, Read, Seek as _},
    time::Duration,
};
use tempfile::SpooledTempFile;
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, timeout_at},
};

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

/// Length and digest of a file, which is at its start afterwards.
pub(super) fn digest_of(
    file: &mut SpooledTempFile,
    algorithm: Algorithm,
) -> io::Result<(u64, Digest)> {
    file.rewind()?;
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 64 << 10];
    let mut size = 0;
    loop {
        let n = file.read(&mut buffer)?;
        let Some(piece) = buffer.get(..n).filter(|p| !p.is_empty()) else {
            file.rewind()?;
            return Ok((size, hasher.finish()));
        };
        hasher.update(piece);
        size += n as u64;
    }
}

/// A piece of a request's body.
type Piece = Result<Vec<u8>, io::Error>;

/// Sends a request with this body, once and within the given time; `None` when it is not known what came
/// of it.
pub(super) async fn send(
    request: RequestBuilder,
    file: &mut SpooledTempFile,
    frame: Frame,
    within: Duration,
) -> Option<Response> {
    let request = request.timeout(within);
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
    // lost, the next attempt finds its body too short, and nothing is sent.
    let lent = std::mem::replace(file, SpooledTempFile::new(0));
    let to = Feeding {
        sender,
        runtime: Handle::current(),
        until: Instant::now() + within,
    };
    let feeder = tokio::task::spawn_blocking(move || feed(lent, frame, &to));
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

/// Where pieces go.
struct Feeding {
    sender: mpsc::Sender<Piece>,
    runtime: Handle,
    until: Instant,
}

impl Feeding {
    /// Gives one piece away; `false` when nobody takes it. A registry that has answered and reads no further
    /// takes none, and nothing else would end the wait: the request's own time is over with the answer.
    fn put(&self, piece: Piece) -> bool {
        match self.sender.try_send(piece) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(piece)) => {
                let taken = async { timeout_at(self.until, self.sender.send(piece)).await };
                self.runtime.block_on(taken).is_ok_and(|sent| sent.is_ok())
            }
        }
    }
}

/// Feeds head, file and tail into the request; gives the file back. When the request is gone or its time
/// is over, it stops; when the disk fails, the request breaks off before its last byte.
fn feed(mut file: SpooledTempFile, frame: Frame, to: &Feeding) -> SpooledTempFile {
    let put = |piece| to.put(piece);
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
    // A file that got lost would make a complete request without it.
    if out.len() as u64 != frame.length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::fake::fake;
    use std::io::Write as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn attack_12_a_lost_upload_is_never_sent_empty() {
        let (url, log) = fake(201, &[], "").await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        // What is left when the file of an attempt got lost.
        let mut file = SpooledTempFile::new(0);
        let frame = Frame {
            head: b"<".to_vec(),
            tail: b">".to_vec(),
            encode: <[u8]>::to_vec,
            length: 5 + 2,
        };
        let sent = send(client.put(url), &mut file, frame, Duration::from_secs(10)).await;
        assert!(sent.is_none());
        assert!(log.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn attack_42_a_registry_that_answers_and_reads_no_further_holds_up_nothing() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let registry = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut some = [0; 1024];
            assert!(stream.read(&mut some).await.unwrap() > 0);
            let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            stream.write_all(reply).await.unwrap();
            // Open, and never read again.
            stream
        });
        let size = 64 << 20;
        let mut file = SpooledTempFile::new(0);
        file.write_all(&vec![7; size]).unwrap();
        let frame = Frame {
            head: Vec::new(),
            tail: Vec::new(),
            encode: <[u8]>::to_vec,
            length: size as u64,
        };
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let sending = send(client.put(url), &mut file, frame, Duration::from_secs(2));
        // The system gives up by itself after 30 s without an acknowledgement: that would be no defence of ours.
        let sent = tokio::time::timeout(Duration::from_secs(20), sending).await;
        assert!(sent.is_ok(), "it is waited for without an end");
        // The file is there for the next attempt.
        let mut kept = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut kept).unwrap();
        assert_eq!(kept.len(), size);
        drop(registry.await.unwrap());
    }
}
