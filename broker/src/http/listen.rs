//! Accepting connections: limits on headers, time and number; TLS by rustls with certificate
//! reload; graceful drain.

use arc_swap::ArcSwap;
use axum::Router;
use http::{HeaderMap, HeaderValue, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{
    collections::{HashMap, hash_map::Entry},
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

/// Open connections of one listener.
const CONNECTIONS_MAX: usize = 4096;
/// Of these, what one address may hold (attack 53).
const PEER_MAX: usize = CONNECTIONS_MAX / 4;
/// Time in which a peer that takes nothing of what it is sent loses its connection (RFC 5482).
const TAKES_NOTHING: Duration = Duration::from_mins(1);
/// Time for a request's head, and for the TLS handshake.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers of one request.
const HEADERS_MAX: usize = 64;
/// Buffer of one connection, in bytes; bounds the head as well.
const BUFFER_MAX: usize = 32 * 1024;
/// Time for open requests to finish when the daemon stops.
pub const DRAIN: Duration = Duration::from_secs(20);

/// A listener's certificate, replaced on reload.
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

impl Certificate {
    /// Loads chain and key, both PEM.
    pub fn load(chain: &Path, key: &Path) -> Result<Arc<Self>, String> {
        let current = ArcSwap::from_pointee(read(chain, key)?);
        Ok(Arc::new(Self {
            chain: chain.to_owned(),
            key: key.to_owned(),
            current,
        }))
    }

    /// Loads them again; a broken file leaves the old certificate in place.
    pub fn reload(&self) -> Result<(), String> {
        self.current.store(Arc::new(read(&self.chain, &self.key)?));
        Ok(())
    }
}

fn read(chain: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| format!("{}: {e}", chain.display()))?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|e| format!("{}: {e}", key.display()))?;
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&private)
        .map_err(|e| format!("{}: {e}", key.display()))?;
    let pair = CertifiedKey::new(certificates, signer);
    pair.keys_match()
        .map_err(|e| format!("certificate and key do not fit: {e}"))?;
    Ok(pair)
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// One listener.
pub struct Listener {
    /// Bound.
    pub socket: TcpListener,
    /// TLS, or plain HTTP on loopback or behind a named proxy.
    pub certificate: Option<Arc<Certificate>>,
    /// Only this peer may connect, if set.
    pub only_from: Option<IpAddr>,
    /// What it serves.
    pub router: Router,
}

/// Serves until `stop` changes, then drains.
pub async fn serve(listener: Listener, mut stop: watch::Receiver<bool>) {
    let tls = listener.certificate.map(acceptor);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let peers = Peers::default();
    let mut connections = JoinSet::new();
    loop {
        let permit = Arc::clone(&room).acquire_owned();
        let accepted = tokio::select! {
            _ = stop.changed() => break,
            got = async { (permit.await, listener.socket.accept().await) } => got,
        };
        while connections.try_join_next().is_some() {}
        let (Ok(permit), Ok((stream, peer))) = accepted else {
            // Out of file descriptors, most likely: wait instead of spinning.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if listener.only_from.is_some_and(|only| peer.ip() != only) {
            continue;
        }
        // Behind a proxy, and on the machine itself, one address is many people.
        let shared = listener.only_from.is_some() || peer.ip().is_loopback();
        let Some(place) = peers.enter(peer.ip(), if shared { CONNECTIONS_MAX } else { PEER_MAX })
        else {
            continue;
        };
        let (tls, router, stop) = (tls.clone(), listener.router.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, tls, router, stop).await;
            drop((permit, place));
        });
    }
    drop(listener.socket);
    let drained = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN, drained).await;
}

/// How many connections each address holds.
#[derive(Clone, Default)]
struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's place among those of its address, until it is dropped.
struct Place {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    /// A place, unless the address holds `max` already.
    fn enter(&self, peer: IpAddr, max: usize) -> Option<Place> {
        let peer = network(peer);
        let mut held = lock(&self.0);
        let count = held.entry(peer).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        let peers = self.clone();
        Some(Place { peers, peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = lock(&self.peers.0);
        if let Entry::Occupied(mut count) = held.entry(self.peer) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

fn lock(held: &Mutex<HashMap<IpAddr, usize>>) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whoever has an IPv6 address has its whole /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(TAKES_NOTHING));
    match tls {
        None => http(TokioIo::new(stream), router, stop).await,
        Some(tls) => {
            // The handshake runs in the connection's own task: a slow client blocks nobody.
            if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                http(TokioIo::new(stream), router, stop).await;
            }
        }
    }
}

async fn http<I>(io: I, router: Router, mut stop: watch::Receiver<bool>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let last = ends_the_connection(request.headers());
        let reply = router.clone().oneshot(request.map(axum::body::Body::new));
        async move {
            let mut reply = reply.await?;
            if last {
                let close = HeaderValue::from_static("close");
                reply.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(reply)
        }
    });
    let mut connection = std::pin::pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(HEADERS_MAX)
            .max_buf_size(BUFFER_MAX)
            .serve_connection(io, service)
    );
    tokio::select! {
        _ = &mut connection => return,
        _ = stop.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// A request whose length is told by its chunks is the last one of its connection: where a proxy in front believed a
/// `Content-Length` beside them, what it sent as the body's rest would be the next request here (attack 40; RFC 9112,
/// section 6.1). The HTTP library takes that header away, so both together cannot be told from chunks alone.
fn ends_the_connection(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
}

fn acceptor(certificate: Arc<Certificate>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // TLS 1.3 alone: the builder says so even if a dependency switches older versions on.
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13]);
    let Ok(builder) = builder else {
        unreachable!("the provider speaks TLS 1.3")
    };
    let mut config = builder
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_53_one_address_leaves_room_to_the_others() {
        let peers = Peers::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = peers.enter(ip("192.0.2.1"), 2);
        let two = peers.enter(ip("::ffff:192.0.2.1"), 2);
        assert!(one.is_some() && two.is_some());
        assert!(peers.enter(ip("192.0.2.1"), 2).is_none());
        assert!(peers.enter(ip("192.0.2.2"), 2).is_some());
        drop(one);
        assert!(peers.enter(ip("192.0.2.1"), 2).is_some());

        let six = ["2001:db8::1", "2001:db8::2"].map(|a| peers.enter(ip(a), 2));
        assert!(six.iter().all(Option::is_some));
        assert!(peers.enter(ip("2001:db8::3"), 2).is_none());
        assert!(peers.enter(ip("2001:db8:0:1::3"), 2).is_some());
        drop((two, six));
        assert!(lock(&peers.0).is_empty());
    }
}
