//! The daemon's own TLS: real clients over it, and certificates that change while it runs.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use stand::{
    authority::Authority,
    daemon::Daemon,
    team::{POLICY, Team},
};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a reload may take on a busy machine.
const RELOAD: Duration = Duration::from_secs(30);

/// A connection that is kept open.
struct Connection(StreamOwned<ClientConnection, TcpStream>);

impl Connection {
    fn open(url: &str, ca: &str, versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(ca.as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(url.strip_prefix("https://").unwrap()).unwrap();
        stream.set_read_timeout(Some(RELOAD)).unwrap();
        Self(StreamOwned::new(client, stream))
    }

    /// The status line of a `GET`, or why there is none. The connection stays open.
    fn get(&mut self, path: &str) -> std::io::Result<String> {
        write!(self.0, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let mut one = [0];
            self.0.read_exact(&mut one)?;
            head.push(char::from(one[0]));
        }
        let length = head
            .lines()
            .filter_map(|l| l.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, n)| n.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(head.lines().next().unwrap_or_default().to_owned())
    }

    fn certificate(&self) -> Vec<u8> {
        let chain = self.0.conn.peer_certificates().unwrap();
        chain.first().unwrap().to_vec()
    }
}

fn tls13(url: &str, ca: &str) -> Connection {
    let mut connection = Connection::open(url, ca, &[&rustls::version::TLS13]);
    connection.get("/-/ping").unwrap();
    connection
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < RELOAD, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn write(daemon: &Daemon, chain: &str, key: &str) {
    for (path, text) in daemon.certificate().iter().zip([chain, key]) {
        fs::write(path, text).unwrap();
    }
}

#[tokio::test]
async fn npm_publishes_over_the_daemons_tls_with_a_pinned_ca() {
    let ca = Authority::new().unwrap();
    let (chain, key) = ca.sign().unwrap();
    let team = Team::over_tls(&chain, &key, &ca.pem).await.unwrap();
    let dir = team.package("@acme/left", "1.0.0").unwrap();
    let dir = dir.display().to_string();
    let mut job = team.publish(&[&dir]).await.unwrap();
    team.approve_both(&job).await.unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    let shown = team
        .registry
        .integrity("@acme/left", "1.0.0")
        .await
        .unwrap();
    assert!(shown.is_some_and(|i| i.starts_with("sha512-")));

    // TLS 1.3 alone, and no plain HTTP on the same port.
    for url in [&team.daemon.url, &team.daemon.registry_url] {
        let mut old = Connection::open(url, &ca.pem, &[&rustls::version::TLS12]);
        assert!(old.get("/").is_err(), "{url} speaks TLS 1.2");
        let plain = url.replace("https:", "http:");
        assert!(stand::http().unwrap().get(plain).send().await.is_err());
    }
}

#[tokio::test]
async fn attack_35_a_broker_with_a_certificate_of_another_ca_is_refused() {
    let (ours, theirs) = (Authority::new().unwrap(), Authority::new().unwrap());
    // Theirs stands where ours is expected: a certificate that is good, by a CA that is not pinned.
    let (chain, key) = theirs.sign().unwrap();
    let daemon = Daemon::builder()
        .policy(POLICY)
        .tls(&chain, &key)
        .start()
        .await
        .unwrap();
    let pinned = daemon.dir().join("ca.pem");
    let pinned = pinned.display().to_string();
    let status = |ca: String| {
        let (daemon, pinned) = (&daemon, pinned.clone());
        async move {
            fs::write(&pinned, ca).unwrap();
            let env = [
                ("COUNTERSIGN_BROKER", daemon.url.as_str()),
                ("COUNTERSIGN_CA", pinned.as_str()),
            ];
            let out = daemon.countersign(&["status"], &env, daemon.dir(), RELOAD);
            out.await.unwrap()
        }
    };
    let refused = status(ours.pem.clone()).await;
    assert_eq!(refused.status, Some(6), "{refused}");
    assert!(refused.stderr.contains("COUNTERSIGN_CA"), "{refused}");
    let empty = status("no certificate".to_owned()).await;
    assert_eq!(empty.status, Some(2), "{empty}");
    let good = status(theirs.pem.clone()).await;
    assert!(good.success(), "{good}");
}

#[tokio::test]
async fn a_new_certificate_serves_new_connections_and_a_broken_one_nobody() {
    let ca = Authority::new().unwrap();
    let (first, key) = ca.sign().unwrap();
    let daemon = Daemon::builder()
        .registry("npm", "npm", "http://127.0.0.1:1")
        .policy(POLICY)
        .tls(&first, &key)
        .start()
        .await
        .unwrap();
    let urls = [daemon.url.clone(), daemon.registry_url.clone()];
    let mut open: Vec<Connection> = urls.iter().map(|url| tls13(url, &ca.pem)).collect();
    for c in &open {
        assert_eq!(c.certificate(), der(&first));
    }

    let (second, second_key) = ca.sign().unwrap();
    write(&daemon, &second, &second_key);
    daemon.reload().await.unwrap();
    for (url, old) in urls.iter().zip(&mut open) {
        until("the new certificate", || {
            tls13(url, &ca.pem).certificate() == der(&second)
        })
        .await;
        // Who was connected goes on, under the certificate that he knows.
        assert!(old.get("/-/ping").unwrap().starts_with("HTTP/1.1 "));
        assert_eq!(old.certificate(), der(&first));
    }

    // A certificate without its key, half a file, no file: said, and nothing changes.
    let said = || {
        let log = daemon.log();
        log.matches("the certificate was not reloaded").count()
    };
    for (chain, key) in [
        (first.as_str(), second_key.as_str()),
        (second.get(..second.len() / 2).unwrap(), second_key.as_str()),
        ("", second_key.as_str()),
        (second.as_str(), "no key"),
    ] {
        let before = said();
        write(&daemon, chain, key);
        daemon.reload().await.unwrap();
        until("a word about the broken certificate", || said() > before).await;
        for url in &urls {
            assert_eq!(tls13(url, &ca.pem).certificate(), der(&second));
        }
    }
    for old in &mut open {
        assert!(old.get("/-/ping").unwrap().starts_with("HTTP/1.1 "));
    }
}
