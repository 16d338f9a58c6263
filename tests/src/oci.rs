//! The world of OCI registries: a real one (`docker-registry`), layouts to push, and the calls that a client makes.

use crate::{api::Reply, command::Running, free_port, http, parts::random_hex};
use anyhow::{Context as _, bail};
use aws_lc_rs::digest::{SHA256, digest};
use axum::{Json, Router, extract::Query, http::HeaderMap, http::StatusCode, routing::get};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    digest::{Algorithm, Digest, hex},
    request::{File, Item},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long the registry may take to listen.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The user at the registry.
pub const USER: &str = "robot";
/// An image manifest.
pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// A list of them.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A real registry.
#[derive(Debug)]
pub struct DockerRegistry {
    /// Its address, without a slash at the end.
    pub url: String,
    /// The user's password.
    pub password: String,
    folder: TempDir,
    running: Option<Running>,
}

/// Finds a program that the tests need beside our own.
pub fn program(name: &str) -> anyhow::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join(name).is_file()) {
        return Ok(());
    }
    bail!("{name} is not installed: apt-get install docker-registry skopeo umoci apache2-utils")
}

impl DockerRegistry {
    /// Starts one that asks for user and password at every call.
    pub async fn start() -> anyhow::Result<Self> {
        program("htpasswd")?;
        let password = random_hex()?;
        let output = Command::new("htpasswd")
            .args(["-Bbn", USER, &password])
            .output()?;
        let folder = TempDir::new()?;
        let users = folder.path().join("users");
        fs::write(&users, output.stdout)?;
        let auth = json!({"htpasswd": {"realm": "test", "path": users}});
        Self::with(folder, password, &auth).await
    }

    /// Starts one that takes the tokens of a server.
    pub async fn behind(tokens: &TokenServer) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let roots = folder.path().join("roots.pem");
        fs::write(&roots, &tokens.certificate)?;
        let auth = json!({"token": {
            "realm": tokens.url, "service": "test-registry", "issuer": "test-issuer",
            "rootcertbundle": roots,
        }});
        Self::with(folder, tokens.password(), &auth).await
    }

    async fn with(folder: TempDir, password: String, auth: &Value) -> anyhow::Result<Self> {
        program("docker-registry")?;
        let port = free_port()?;
        // JSON is YAML.
        let config = json!({
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}, "delete": {"enabled": true}},
            "http": {"addr": format!("127.0.0.1:{port}"), "secret": "test"},
            "auth": auth,
        });
        fs::write(
            folder.path().join("config.yml"),
            serde_json::to_vec(&config)?,
        )?;
        let mut registry = Self {
            url: format!("http://127.0.0.1:{port}"),
            password,
            folder,
            running: None,
        };
        registry.run().await?;
        Ok(registry)
    }

    /// Starts it again on the same data.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))?;
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(self.folder.path().join("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        self.running = Some(Running::start(&mut command)?);
        let (start, client) = (Instant::now(), http()?);
        loop {
            let asked = client.get(format!("{}/v2/", self.url)).send().await;
            if asked.is_ok_and(|reply| reply.status() == 401) {
                return Ok(());
            }
            if start.elapsed() > START_LIMIT {
                let log = fs::read_to_string(self.folder.path().join("log"));
                bail!(
                    "docker-registry does not listen:\n{}",
                    log.unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Every file that it keeps: none, as long as nobody has sent it anything.
    pub fn kept(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().join("data")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path);
                }
            }
        }
        found
    }

    /// The digest that a repository shows for a tag, as the registry's own user sees it.
    pub async fn digest(&self, name: &str, tag: &str) -> anyhow::Result<Option<String>> {
        let reply = http()?
            .get(format!("{}/v2/{name}/manifests/{tag}", self.url))
            .basic_auth(USER, Some(&self.password))
            .header("accept", format!("{IMAGE}, {INDEX}"))
            .send()
            .await?;
        if reply.status() == 404 {
            return Ok(None);
        }
        let bytes = reply.error_for_status()?.bytes().await?;
        Ok(Some(sha256(&bytes)))
    }

    /// Pushes as the registry's own user, past the broker.
    pub async fn push(&self, image: &Image, name: &str, tag: &str) -> anyhow::Result<()> {
        let api = crate::api::Api::at(&self.url)?;
        let basic = basic(USER, &self.password);
        for blob in image.blobs() {
            push_blob(&api, &basic, name, blob).await?.ok_status()?;
        }
        let path = format!("/v2/{name}/manifests/{tag}");
        put_manifest(&api, &basic, &path, &image.manifest, IMAGE)
            .await?
            .ok_status()
    }
}

/// `Basic …`
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// `sha256:…`
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(digest(&SHA256, bytes).as_ref()))
}

/// Pushes one blob: POST, then PUT with all of it.
pub async fn push_blob(
    api: &crate::api::Api,
    basic: &str,
    name: &str,
    blob: &[u8],
) -> anyhow::Result<Reply> {
    push_blob_as(api, basic, name, blob, &sha256(blob)).await
}

/// The same under a digest of the test's own.
pub async fn push_blob_as(
    api: &crate::api::Api,
    basic: &str,
    name: &str,
    blob: &[u8],
    digest: &str,
) -> anyhow::Result<Reply> {
    let place = begin(api, basic, name).await?;
    let and = if place.contains('?') { '&' } else { '?' };
    let headers = [("authorization", basic)];
    api.call(
        "PUT",
        &format!("{place}{and}digest={digest}"),
        &headers,
        blob.to_vec(),
    )
    .await
}

/// Begins a push; the path that its bytes go to.
pub async fn begin(api: &crate::api::Api, basic: &str, name: &str) -> anyhow::Result<String> {
    let headers = [("authorization", basic)];
    let path = format!("/v2/{name}/blobs/uploads/");
    let begun = api.call("POST", &path, &headers, Vec::new()).await?;
    let place = begun.location.clone().with_context(|| begun.text.clone())?;
    Ok(match place.find("/v2/") {
        Some(at) => place.get(at..).unwrap_or_default().to_owned(),
        None => place,
    })
}

/// Puts a manifest.
pub async fn put_manifest(
    api: &crate::api::Api,
    basic: &str,
    path: &str,
    bytes: &[u8],
    kind: &str,
) -> anyhow::Result<Reply> {
    let headers = [("authorization", basic), ("content-type", kind)];
    api.call("PUT", path, &headers, bytes.to_vec()).await
}

/// An image of one layer.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its configuration.
    pub config: Vec<u8>,
    /// Its layer.
    pub layer: Vec<u8>,
    /// Its manifest.
    pub manifest: Vec<u8>,
}

impl Image {
    /// With these bytes as its layer.
    pub fn new(layer: &[u8]) -> Self {
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [sha256(layer)]}});
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        });
        Self {
            config,
            layer: layer.to_vec(),
            manifest: manifest.to_string().into_bytes(),
        }
    }

    /// Configuration and layer.
    pub fn blobs(&self) -> [&[u8]; 2] {
        [&self.config, &self.layer]
    }

    /// The item that publishes it under a tag.
    pub fn item(&self, name: &str, tag: &str) -> anyhow::Result<Item> {
        let mut files: Vec<_> = self
            .blobs()
            .map(|b| file(&format!("blobs/{}", sha256(b)), b))
            .into();
        files.push(file(&format!("manifests/{tag}"), &self.manifest));
        item(name, tag, files)
    }
}

/// An item of these files.
pub fn item(name: &str, tag: &str, files: Vec<File>) -> anyhow::Result<Item> {
    Ok(Item {
        registry: "oci".parse()?,
        package: name.parse()?,
        version: tag.parse()?,
        tag: None,
        files,
    })
}

/// A file with its digest.
pub fn file(name: &str, bytes: &[u8]) -> File {
    File {
        name: name.to_owned(),
        size: bytes.len() as u64,
        digest: Digest::of(Algorithm::Sha256, bytes),
    }
}

/// A descriptor.
pub fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": sha256(bytes), "size": bytes.len()})
}

/// A list of images.
pub fn index(images: &[&Image]) -> Vec<u8> {
    let children = images.iter().zip(["amd64", "arm64"]).map(|(image, arch)| {
        json!({
            "mediaType": IMAGE,
            "digest": sha256(&image.manifest),
            "size": image.manifest.len(),
            "platform": {"architecture": arch, "os": "linux"},
        })
    });
    let children: Vec<_> = children.collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
    index.to_string().into_bytes()
}

/// Writes an OCI layout whose one entry is the last of these contents, of this type.
pub fn layout(folder: &Path, contents: &[&[u8]], kind: &str) -> anyhow::Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    for bytes in contents {
        fs::write(blobs.join(hex(digest(&SHA256, bytes).as_ref())), bytes)?;
    }
    let top = descriptor(kind, contents.last().context("no contents")?);
    let index = json!({"schemaVersion": 2, "manifests": [top]});
    fs::write(folder.join("index.json"), index.to_string())?;
    let version = json!({"imageLayoutVersion": "1.0.0"});
    Ok(fs::write(folder.join("oci-layout"), version.to_string())?)
}

/// A server of short tokens for a registry, as the big public ones have.
#[derive(Debug)]
pub struct TokenServer {
    /// Where tokens are asked for: the `realm` of the challenge.
    pub url: String,
    password: Arc<Mutex<String>>,
    /// The certificate of the key that it signs with, PEM.
    pub certificate: String,
    /// The scopes that were asked for.
    pub scopes: Arc<Mutex<Vec<String>>>,
}

impl TokenServer {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        let certificate =
            rcgen::CertificateParams::new(vec!["tokens.test".to_owned()])?.self_signed(&key)?;
        let chain = vec![STANDARD.encode(certificate.der())];
        let signer = jsonwebtoken::EncodingKey::from_ec_der(&key.serialize_der());
        let password = Arc::new(Mutex::new(random_hex()?));
        let known = Arc::clone(&password);
        let scopes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&scopes);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/token", listener.local_addr()?);
        let give = move |headers: HeaderMap, Query(query): Query<BTreeMap<String, String>>| {
            let given = headers.get("authorization").and_then(|v| v.to_str().ok());
            let wanted = known.lock().map(|known| basic(USER, &known));
            let token = (given == wanted.ok().as_deref())
                .then(|| token(&signer, &chain, query.get("scope").map(String::as_str)))
                .and_then(Result::ok);
            if let (Some(scope), Ok(mut seen)) = (query.get("scope"), seen.lock()) {
                seen.push(scope.clone());
            }
            async move {
                match token {
                    Some(token) => Ok(Json(json!({"token": token, "expires_in": 60}))),
                    None => Err(StatusCode::UNAUTHORIZED),
                }
            }
        };
        let app = Router::new().route("/token", get(give));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self {
            url,
            password,
            certificate: certificate.pem(),
            scopes,
        })
    }
}

impl TokenServer {
    /// The user's password.
    pub fn password(&self) -> String {
        self.password.lock().map_or(String::new(), |p| p.clone())
    }

    /// From now on the user has another one.
    pub fn renew(&self) -> anyhow::Result<()> {
        let next = random_hex()?;
        let mut password = self.password.lock();
        if let Ok(password) = &mut password {
            **password = next;
        }
        Ok(())
    }
}

fn token(
    signer: &jsonwebtoken::EncodingKey,
    chain: &[String],
    scope: Option<&str>,
) -> anyhow::Result<String> {
    let now = crate::now()?;
    let access: Vec<_> = scope
        .and_then(|scope| {
            let mut parts = scope.splitn(3, ':');
            let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
            let actions: Vec<_> = actions.split(',').collect();
            Some(json!({"type": kind, "name": name, "actions": actions}))
        })
        .into_iter()
        .collect();
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    header.x5c = Some(chain.to_vec());
    let claims = json!({
        "iss": "test-issuer", "sub": USER, "aud": "test-registry", "exp": now + 60, "nbf": now - 10,
        "iat": now, "jti": random_hex()?, "access": access,
    });
    Ok(jsonwebtoken::encode(&header, &claims, signer)?)
}
