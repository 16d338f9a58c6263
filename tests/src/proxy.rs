//! A loopback TCP proxy that spoils a connection after exactly so many bytes.

use anyhow::Context as _;
use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

/// What happens to the next request that starts with the armed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Bytes from the client after this many never arrive, and the connection ends.
    CutUp(u64),
    /// Bytes to the client after this many never arrive, and the connection ends.
    CutDown(u64),
    /// As `CutDown`, by a TCP reset.
    ResetDown(u64),
    /// Every piece of the reply is held back this long.
    Delay(Duration),
    /// The request never arrives; this whole reply is its answer.
    Answer(&'static str),
    /// From this request on nothing passes at all, until [`Proxy::up`].
    Down,
}

/// One request that was watched.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// Every byte that arrived at the server.
    pub up: Vec<u8>,
    /// How many bytes arrived at the client.
    pub down: u64,
    /// Whether a fault hit it.
    pub hit: bool,
}

#[derive(Debug, Default)]
struct State {
    armed: Vec<(String, Fault)>,
    watched: Vec<(String, Watched)>,
    /// Faults that hit every request, and not just the next.
    sticky: Vec<(String, Fault)>,
    down: bool,
}

/// A proxy in front of a port.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub url: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// In front of `http://host:port`, on a port of its own.
    pub async fn start(upstream: &str) -> anyhow::Result<Self> {
        Self::at(0, upstream).await
    }

    /// The same on a given port.
    pub async fn at(port: u16, upstream: &str) -> anyhow::Result<Self> {
        let to = upstream
            .split_once("://")
            .map(|(_, rest)| rest.trim_end_matches('/').to_owned())
            .context("an address")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, state) = (to.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(&to).await {
                        serve(client, server, &state).await;
                    }
                });
            }
        });
        Ok(Self { url, state, task })
    }

    /// Spoils the next request that starts with `text` (`PUT /left `, say), and watches all such requests. Requests
    /// are found where a piece of a connection starts with the text, so clients that pipeline are not served well.
    pub fn arm(&self, text: &str, fault: Fault) {
        lock(&self.state).armed.push((text.into(), fault));
    }

    /// Spoils every request that starts with `text`, until it is armed again.
    pub fn arm_all(&self, text: &str, fault: Fault) {
        let mut state = lock(&self.state);
        state.armed.retain(|(t, _)| t != text);
        state.sticky.retain(|(t, _)| t != text);
        state.sticky.push((text.into(), fault));
    }

    /// Nothing passes from now on.
    pub fn down(&self) {
        lock(&self.state).down = true;
    }

    /// Everything passes again.
    pub fn up(&self) {
        lock(&self.state).down = false;
    }

    /// The requests that started with `text` since it was armed.
    pub fn watched(&self, text: &str) -> Vec<Watched> {
        let state = lock(&self.state);
        let mine = state.watched.iter().filter(|(t, _)| t == text);
        mine.map(|(_, w)| w.clone()).collect()
    }
}

impl State {
    /// A watched request begins: its place in `watched`, and its fault.
    fn begin(&mut self, piece: &[u8]) -> Option<(usize, Fault)> {
        let begins = |text: &String| piece.starts_with(text.as_bytes());
        let (text, fault) = match self.armed.iter_mut().find(|(text, _)| begins(text)) {
            // One fault hits one request; the client's next try passes.
            Some((text, fault)) => (text.clone(), std::mem::replace(fault, Fault::None)),
            None => self.sticky.iter().find(|(text, _)| begins(text))?.clone(),
        };
        let watched = Watched {
            hit: fault != Fault::None,
            ..Watched::default()
        };
        self.watched.push((text, watched));
        self.down |= fault == Fault::Down;
        Some((self.watched.len() - 1, fault))
    }

    fn note(&mut self, at: Option<(usize, Fault)>, up: &[u8], down: usize) {
        if let Some((_, watched)) = at.and_then(|(at, _)| self.watched.get_mut(at)) {
            watched.up.extend_from_slice(up);
            watched.down += down as u64;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The watched request that a connection is busy with.
type Current = Mutex<Option<(usize, Fault)>>;

/// One connection, until one of its sides ends or is spoiled.
async fn serve(client: TcpStream, server: TcpStream, state: &Mutex<State>) {
    let (from_client, mut to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let current = Current::default();
    let answer = tokio::select! {
        answer = up(from_client, to_server, state, &current) => answer,
        () = down(from_server, &mut to_client, state, &current) => None,
    };
    if let Some(answer) = answer {
        let _ = to_client.write_all(answer.as_bytes()).await;
    }
}

/// How many bytes of a request are still to come behind its first piece.
fn rest_of(piece: &[u8]) -> Option<usize> {
    let head = piece.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(piece.get(..head)?).to_lowercase();
    let mut lines = text.lines();
    let length = lines.find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok());
    Some((head + length.unwrap_or(0_usize)).saturating_sub(piece.len()))
}

async fn up(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &Mutex<State>,
    current: &Current,
) -> Option<&'static str> {
    let mut buffer = vec![0; 16 << 10];
    let mut count = 0u64;
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let piece = buffer.get(..n).unwrap_or_default();
        if let Some(begun) = lock(state).begin(piece) {
            *lock(current) = Some(begun);
            count = 0;
        }
        if lock(state).down {
            return None;
        }
        let now = *lock(current);
        if let Some((_, Fault::Answer(answer))) = now {
            let mut rest = rest_of(piece).unwrap_or_default();
            while rest > 0
                && let Ok(n @ 1..) = from.read(&mut buffer).await
            {
                rest = rest.saturating_sub(n);
            }
            return Some(answer);
        }
        let cut = match now {
            Some((_, Fault::CutUp(k))) => Some(k),
            _ => None,
        };
        let left = cut.map_or(u64::MAX, |k| k.saturating_sub(count));
        let passes = n.min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = piece.get(..passes).unwrap_or_default();
        lock(state).note(now, piece, 0);
        let Ok(()) = to.write_all(piece).await else {
            return None;
        };
        count += passes as u64;
        if cut.is_some_and(|k| count >= k) {
            return None;
        }
    }
    None
}

async fn down(
    mut from: OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    state: &Mutex<State>,
    current: &Current,
) {
    let mut buffer = vec![0; 16 << 10];
    let mut count = 0u64;
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let now = *lock(current);
        let fault = now.map_or(Fault::None, |(_, fault)| fault);
        let cut = match fault {
            Fault::CutDown(k) | Fault::ResetDown(k) => Some(k),
            _ => None,
        };
        if let Fault::Delay(time) = fault {
            tokio::time::sleep(time).await;
        }
        let left = cut.map_or(u64::MAX, |k| k.saturating_sub(count));
        let passes = n.min(usize::try_from(left).unwrap_or(usize::MAX));
        let Ok(()) = to.write_all(buffer.get(..passes).unwrap_or_default()).await else {
            return;
        };
        lock(state).note(now, &[], passes);
        if now.is_some() {
            count += passes as u64;
        }
        if cut.is_some_and(|k| count >= k) {
            if matches!(fault, Fault::ResetDown(_)) {
                reset(to);
            }
            return;
        }
    }
}

/// Lingering for no time at all is how a reset is sent.
fn reset(socket: &OwnedWriteHalf) {
    #[allow(
        deprecated,
        reason = "no time at all is the one case that does not block"
    )]
    let _ = socket.as_ref().set_linger(Some(Duration::ZERO));
}
