//! Attack 40 at the registry origins: requests whose length two programs could read differently, and paths that could
//! become other paths. Raw bytes over TCP, since no client would write them.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use axum::{Router, body::Body, extract::Request};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use proto::{
    answer::Decision,
    digest::{Algorithm, Digest},
    request::{File, Item},
};
use stand::{
    artifact::Kind,
    daemon::Daemon,
    direct::{CLIENT_KEY, Direct, Wish},
    gems,
    oci::{Image, basic, sha256},
};
use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A connection that is still open then was left open: nobody waits for its end otherwise.
const OPEN: Duration = Duration::from_mins(1);

/// What reached the registry: method and path of everything that could change something.
type Writes = Arc<Mutex<Vec<String>>>;

/// A registry that knows nothing and takes nothing: a clear no, so that nobody sends twice. Until it is opened, nothing can
/// be written there at all: so the token is stored unproved.
async fn registry() -> (String, Writes, Arc<AtomicBool>) {
    let (writes, open) = (Writes::default(), Arc::new(AtomicBool::new(false)));
    let (seen, opened) = (Arc::clone(&writes), Arc::clone(&open));
    let router = Router::new().fallback(move |request: Request<Body>| {
        let (seen, opened) = (Arc::clone(&seen), opened.load(Ordering::Relaxed));
        async move {
            if !opened {
                return StatusCode::METHOD_NOT_ALLOWED;
            }
            if [Method::GET, Method::HEAD].contains(request.method()) {
                return StatusCode::NOT_FOUND;
            }
            let what = format!("{} {}", request.method(), request.uri());
            let whole = request.into_body().collect().await.is_ok();
            seen.lock().unwrap().push(format!("{what} whole {whole}"));
            StatusCode::FORBIDDEN
        }
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, writes, open)
}

/// An upload as a client would make it.
struct Upload {
    item: Item,
    method: &'static str,
    path: String,
    media_type: String,
    body: Vec<u8>,
}

/// Which of the registry origins.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Of(Kind),
    Gems,
    Oci,
}

impl Origin {
    /// The kind's name, and the registry's.
    fn name(self) -> &'static str {
        match self {
            Self::Of(kind) => kind.name(),
            Self::Gems => "rubygems",
            Self::Oci => "oci",
        }
    }

    /// The registry's address in the configuration, and further keys.
    fn settings(self, url: String) -> (String, String) {
        match self {
            Self::Of(Kind::Npm) | Self::Gems => (url, String::new()),
            Self::Of(Kind::PyPi) => (format!("{url}/simple/"), format!("upload_url = \"{url}/\"")),
            Self::Of(Kind::Crates) => (format!("{url}/index/"), format!("upload_url = \"{url}\"")),
            Self::Oci => (url, "user = \"ours\"".to_owned()),
        }
    }

    /// Lines of the policy.
    fn rules(self) -> &'static str {
        match self {
            Self::Of(Kind::Npm) => "version = \"any\"\ntags = [\"latest\"]",
            Self::Of(Kind::PyPi) => "version = \"pep440\"",
            Self::Of(Kind::Crates) | Self::Gems => "version = \"semver\"",
            Self::Oci => "version = \"any\"",
        }
    }

    fn package(self) -> String {
        match self {
            Self::Of(kind) => kind.package("smuggled"),
            Self::Gems => "acme-smuggled".to_owned(),
            Self::Oci => "acme/smuggled".to_owned(),
        }
    }

    async fn upload(self, folder: &Path) -> Upload {
        match self {
            Self::Of(kind) => {
                let artifact = kind.artifact("smuggled", 0).unwrap();
                Upload {
                    method: artifact.method(),
                    item: artifact.item,
                    path: artifact.path,
                    media_type: artifact.media_type,
                    body: artifact.body,
                }
            }
            Self::Gems => {
                let file = gems::build(folder, "acme-smuggled", "1.0.0", "").await;
                let body = fs::read(file.unwrap()).unwrap();
                Upload {
                    item: self.item("1.0.0", "acme-smuggled-1.0.0.gem", &body),
                    method: "POST",
                    path: "/api/v1/gems".to_owned(),
                    media_type: "application/octet-stream".to_owned(),
                    body,
                }
            }
            // The whole blob in one request, as some clients push small ones.
            Self::Oci => {
                let image = Image::new(b"layer");
                let digest = sha256(&image.layer);
                Upload {
                    item: image.item("acme/smuggled", "1.0").unwrap(),
                    method: "POST",
                    path: format!("/v2/acme/smuggled/blobs/uploads/?digest={digest}"),
                    media_type: "application/octet-stream".to_owned(),
                    body: image.layer,
                }
            }
        }
    }

    fn item(self, version: &str, file: &str, bytes: &[u8]) -> Item {
        Item {
            registry: self.name().parse().unwrap(),
            package: self.package().parse().unwrap(),
            version: version.parse().unwrap(),
            tag: None,
            files: vec![File {
                name: file.to_owned(),
                size: bytes.len() as u64,
                digest: Digest::of(Algorithm::Sha256, bytes),
            }],
        }
    }

    /// The `Authorization` that carries a credential.
    fn authorization(self, credential: &str) -> String {
        match self {
            Self::Of(Kind::Npm) => format!("Bearer {credential}"),
            Self::Of(Kind::PyPi) => basic("__token__", credential),
            Self::Of(Kind::Crates) | Self::Gems => credential.to_owned(),
            Self::Oci => basic("countersign", credential),
        }
    }
}

struct Stage {
    origin: Origin,
    daemon: Daemon,
    writes: Writes,
    upload: Upload,
    credential: String,
}

impl Stage {
    /// A broker with one approved upload and its live credential.
    async fn start(origin: Origin) -> Self {
        let (url, writes, open) = registry().await;
        let (at, keys) = origin.settings(url);
        let package = format!("{}:{}", origin.name(), origin.package());
        let policy = format!(
            "[[package]]\nmatch = [\"{package}\"]\n\
             callers = [{{ issuer = \"client-key\", client_key = \"{CLIENT_KEY}\" }}]\n\
             approvers = [\"release\"]\nquorum = 1\nfactors = [\"device\"]\n{}\n",
            origin.rules()
        );
        let daemon = Daemon::builder()
            .registry_with(origin.name(), origin.name(), &at, &keys)
            .policy(&policy)
            .start()
            .await
            .unwrap();
        let direct = Direct::with_people(&daemon).await.unwrap();
        direct
            .add_token(origin.name(), "canary-registry-token")
            .await
            .unwrap();
        open.store(true, Ordering::Relaxed);
        let upload = origin.upload(daemon.dir()).await;
        direct.add_client_key(CLIENT_KEY, &[package]).await.unwrap();
        let wish = Wish::of(vec![upload.item.clone()]).unwrap();
        let token = direct.id_token().unwrap();
        let opened = direct.open(&token, &wish.asked).await.unwrap();
        let about = (opened.id, opened.request_digest, opened.match_code.as_str());
        direct
            .answer(&direct.alice, about, Decision::Approve)
            .await
            .unwrap();
        let collected = direct.collect(opened.id, &opened.ticket).await.unwrap();
        let credential = wish.credential(&collected).unwrap();
        Self {
            origin,
            daemon,
            writes,
            upload,
            credential,
        }
    }

    /// The head of an honest upload, without anything about its length.
    fn head(&self) -> String {
        self.head_of(&self.upload.path)
    }

    fn head_of(&self, path: &str) -> String {
        format!(
            "{} {path} HTTP/1.1\r\nHost: registry\r\nAuthorization: {}\r\nContent-Type: {}\r\n",
            self.upload.method,
            self.origin.authorization(&self.credential),
            self.upload.media_type
        )
    }

    /// A second request, that a proxy in front would have taken for a part of the first one's body.
    fn hidden(&self) -> String {
        format!(
            "{}Content-Length: {}\r\n\r\n",
            self.head(),
            self.upload.body.len()
        )
    }

    /// Sends bytes on a connection of their own; what came back until the broker closed it.
    async fn send(&self, bytes: &[u8]) -> String {
        let place = self.daemon.registry_url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(place).await.unwrap();
        // The broker may close before it has read all.
        let _ = stream.write_all(bytes).await;
        let mut said = Vec::new();
        let reading = tokio::time::timeout(OPEN, stream.read_to_end(&mut said));
        let ended = reading.await;
        assert!(ended.is_ok(), "{:?}: left open", self.origin);
        String::from_utf8_lossy(&said).into_owned()
    }

    fn written(&self) -> Vec<String> {
        self.writes.lock().unwrap().clone()
    }
}

/// Heads that end with another idea of the body's length, and bodies behind them.
fn lengths(stage: &Stage) -> Vec<(&'static str, Vec<u8>)> {
    let (head, hidden) = (stage.head(), stage.hidden());
    let upload = &stage.upload.body;
    let behind = |lines: &str, start: &[u8]| {
        let mut all = format!("{head}{lines}\r\n").into_bytes();
        all.extend_from_slice(start);
        all.extend_from_slice(hidden.as_bytes());
        all.extend_from_slice(upload);
        all
    };
    let all = 5 + hidden.len() + upload.len();
    let both = format!("Content-Length: {all}\r\nTransfer-Encoding: chunked\r\n");
    let other = format!("Transfer-Encoding: chunked\r\nContent-Length: {all}\r\n");
    let two = format!("Content-Length: 0\r\nContent-Length: {all}\r\n");
    vec![
        ("length, then chunks", behind(&both, b"0\r\n\r\n")),
        ("chunks, then length", behind(&other, b"0\r\n\r\n")),
        ("two lengths", behind(&two, b"")),
        ("a list of lengths", behind("Content-Length: 0, 0\r\n", b"")),
        (
            "a length with a sign",
            behind("Content-Length: +0\r\n", b""),
        ),
        (
            "chunks that are not the last coding",
            behind("Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
        ),
        (
            "a coding that looks like chunks",
            behind("Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
        ),
        (
            "a blank before the colon",
            behind("Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
        ),
        (
            "a folded line",
            behind(
                "X: a\r\n Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
                b"",
            ),
        ),
        (
            "a bare carriage return",
            behind(
                "X: a\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n",
                b"",
            ),
        ),
        ("a NUL", behind("X: a\0b\r\nContent-Length: 0\r\n", b"")),
        (
            "a chunk's length that overflows",
            behind(
                "Transfer-Encoding: chunked\r\n",
                b"10000000000000000\r\n\r\n",
            ),
        ),
        (
            "a chunk's extension with a line's end",
            behind("Transfer-Encoding: chunked\r\n", b"0;a\nb\r\n\r\n"),
        ),
        (
            "chunks in HTTP/1.0",
            String::from_utf8_lossy(&behind("Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"))
                .replacen("HTTP/1.1", "HTTP/1.0", 1)
                .into_bytes(),
        ),
    ]
}

async fn nothing_is_smuggled(origin: Origin) {
    let stage = Stage::start(origin).await;
    for (what, bytes) in lengths(&stage) {
        let said = stage.send(&bytes).await;
        let replies = said.matches("HTTP/1.1 ").count();
        assert!(replies <= 1, "{what}: the hidden request was read: {said}");
        assert!(!said.starts_with("HTTP/1.1 2"), "{what}: {said}");
        assert_eq!(stage.written(), [""; 0], "{what}");
    }
    // Paths that become other paths, or lines.
    let name = stage.origin.package();
    for path in [
        format!("/{name}%0d%0aX:%20y"),
        format!("/x/..{}", stage.upload.path),
        format!("/%2e%2e{}", stage.upload.path),
        format!("{}/../-/user", stage.upload.path),
        format!("//registry.example{}", stage.upload.path),
        format!("{}%00", stage.upload.path),
        format!("{}\\..\\x", stage.upload.path),
    ] {
        let mut bytes = format!(
            "{}Connection: close\r\nContent-Length: {}\r\n\r\n",
            stage.head_of(&path),
            stage.upload.body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(&stage.upload.body);
        let said = stage.send(&bytes).await;
        assert!(!said.starts_with("HTTP/1.1 2"), "{path}: {said}");
        assert_eq!(stage.written(), [""; 0], "{path}");
    }
    // The credential was good all the time: chunks alone are an honest upload, and the last one of its connection.
    let mut bytes = format!("{}Transfer-Encoding: chunked\r\n\r\n", stage.head()).into_bytes();
    bytes.extend_from_slice(format!("{:x}\r\n", stage.upload.body.len()).as_bytes());
    bytes.extend_from_slice(&stage.upload.body);
    bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    bytes.extend_from_slice(b"GET /-/ping HTTP/1.1\r\nHost: registry\r\n\r\n");
    let said = stage.send(&bytes).await;
    assert!(said.matches("HTTP/1.1 ").count() <= 1, "{said}");
    assert_eq!(stage.written().len(), 1, "{said}");
}

#[tokio::test]
async fn attack_40_nothing_is_smuggled_into_the_npm_origin() {
    nothing_is_smuggled(Origin::Of(Kind::Npm)).await;
}

#[tokio::test]
async fn attack_40_nothing_is_smuggled_into_the_python_origin() {
    nothing_is_smuggled(Origin::Of(Kind::PyPi)).await;
}

#[tokio::test]
async fn attack_40_nothing_is_smuggled_into_the_cargo_origin() {
    nothing_is_smuggled(Origin::Of(Kind::Crates)).await;
}

#[tokio::test]
async fn attack_40_nothing_is_smuggled_into_the_gems_origin() {
    nothing_is_smuggled(Origin::Gems).await;
}

#[tokio::test]
async fn attack_40_nothing_is_smuggled_into_the_images_origin() {
    nothing_is_smuggled(Origin::Oci).await;
}
