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
    /// The same, after so long.
    LateAnswer(Duration, &'static str),
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
    armed: Vec<Armed>,
    watched: Vec<(String, Watched)>,
    /// Faults that hit every request, and not just the next.
    sticky: Vec<(String, Fault)>,
    down: bool,
}

/// A request that is waited for.
#[derive(Debug)]
struct Armed {
    text: String,
    /// Where the text stands: at the start of the request, or anywhere in it.
    inside: bool,
    fault: Fault,
}

/// How much of a request is read, at most, to find out which one it is.
const LOOK_MAX: usize = 64 << 10;

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
                    // A connection that says nothing would keep a server busy that serves one at a time.
                    if !matches!(client.peek(&mut [0]).await, Ok(1..)) {
                        return;
                    }
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
        self.push(text, false, fault);
    }

    /// As [`Self::arm`] for the next `PUT`, `POST` or `PATCH` with `text` anywhere in its first 64 KiB: for registries where every
    /// publish goes to one path.
    pub fn arm_inside(&self, text: &str, fault: Fault) {
        self.push(text, true, fault);
    }

    fn push(&self, text: &str, inside: bool, fault: Fault) {
        let text = text.to_owned();
        let armed = Armed {
            text,
            inside,
            fault,
        };
        lock(&self.state).armed.push(armed);
    }

    /// Watches `text` no longer, and keeps nothing of what was seen.
    pub fn forget(&self, text: &str) {
        let mut state = lock(&self.state);
        state.armed.retain(|a| a.text != text);
        for (_, watched) in state.watched.iter_mut().filter(|(t, _)| t == text) {
            *watched = Watched::default();
        }
    }

    /// Spoils every request that starts with `text`, until it is armed again.
    pub fn arm_all(&self, text: &str, fault: Fault) {
        let mut state = lock(&self.state);
        state.armed.retain(|a| a.text != text);
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

    /// Watches every request from now on, and keeps nothing of what was seen before.
    pub fn watch_all(&self) {
        let mut state = lock(&self.state);
        for (_, watched) in &mut state.watched {
            *watched = Watched::default();
        }
        state.armed.clear();
        let all = ["GET ", "HEAD ", "PUT ", "POST ", "PATCH "];
        state.sticky = all.map(|text| (text.to_owned(), Fault::None)).into();
    }

    /// Every request that was watched and arrived, in order.
    pub fn arrived(&self) -> Vec<Vec<u8>> {
        let state = lock(&self.state);
        let all = state.watched.iter().map(|(_, w)| w.up.clone());
        all.filter(|up| !up.is_empty()).collect()
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
        let shown = piece.get(..piece.len().min(LOOK_MAX)).unwrap_or_default();
        let inside = writes(piece).then(|| String::from_utf8_lossy(shown));
        let begins = |text: &String| piece.starts_with(text.as_bytes());
        let found = self.armed.iter_mut().find(|a| {
            if a.inside {
                inside.as_ref().is_some_and(|i| i.contains(&a.text))
            } else {
                begins(&a.text)
            }
        });
        let (text, fault) = match found {
            // One fault hits one request; the client's next try passes.
            Some(a) => (a.text.clone(), std::mem::replace(&mut a.fault, Fault::None)),
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

    /// Whether more of a request must be read to know which one it is.
    fn looks_inside(&self) -> bool {
        self.armed.iter().any(|a| a.inside)
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

/// Whether a request begins here.
fn begins(piece: &[u8]) -> bool {
    let bare: [&[u8]; 3] = [b"GET ", b"HEAD ", b"DELETE "];
    writes(piece) || bare.iter().any(|method| piece.starts_with(method))
}

/// Whether a request with a body begins here.
fn writes(piece: &[u8]) -> bool {
    ["PUT ", "POST ", "PATCH "]
        .iter()
        .any(|method| piece.starts_with(method.as_bytes()))
}

/// Whether a piece holds a whole request, or as much of it as is looked at.
fn is_whole(piece: &[u8]) -> bool {
    let Some(head) = piece.windows(4).position(|w| w == b"\r\n\r\n") else {
        return piece.len() >= LOOK_MAX;
    };
    let text = String::from_utf8_lossy(piece.get(..head).unwrap_or_default()).to_lowercase();
    let length = text
        .lines()
        .find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok());
    piece.len() >= LOOK_MAX || length.is_none_or(|n: usize| piece.len() >= head + 4 + n)
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
        let mut piece = buffer.get(..n).unwrap_or_default().to_vec();
        if writes(&piece) && lock(state).looks_inside() {
            while !is_whole(&piece)
                && let Ok(n @ 1..) = from.read(&mut buffer).await
            {
                piece.extend_from_slice(buffer.get(..n).unwrap_or_default());
            }
        }
        let n = piece.len();
        if begins(&piece) {
            *lock(current) = lock(state).begin(&piece);
            count = 0;
        }
        if lock(state).down {
            return None;
        }
        let now = *lock(current);
        let answer = match now {
            Some((_, Fault::Answer(answer))) => Some((Duration::ZERO, answer)),
            Some((_, Fault::LateAnswer(time, answer))) => Some((time, answer)),
            _ => None,
        };
        if let Some((time, answer)) = answer {
            let mut rest = rest_of(&piece).unwrap_or_default();
            while rest > 0
                && let Ok(n @ 1..) = from.read(&mut buffer).await
            {
                rest = rest.saturating_sub(n);
            }
            tokio::time::sleep(time).await;
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
    let (mut count, mut counted) = (0u64, None);
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let now = *lock(current);
        // The bytes of one reply are counted, not those of the connection.
        if counted != now.map(|(at, _)| at) {
            (count, counted) = (0, now.map(|(at, _)| at));
        }
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
