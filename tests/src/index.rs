//! A stand-in for the public Python index: it writes down everything it is asked, and keeps the rules that the
//! servers which can be installed do not (identical files are welcome again, other bytes never, no new files for old
//! releases, no attestations beside a token). And distributions to send it, wrong on demand.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what is missing fails the test, as it should"
)]

use anyhow::Context as _;
use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse as _, Response},
};
use base64::{
    Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD,
};
use http::{HeaderMap, Method, StatusCode, Uri};
use proto::{
    digest::{Algorithm, Digest, hex},
    request::{File, Item},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

/// The token of these tests.
pub const TOKEN: &str = "pypi-canary-registry-token";

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// Whether it carried the token as HTTP Basic.
    pub token: bool,
    /// The body.
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Inner {
    seen: Vec<Seen>,
    /// Files by name, with their bytes.
    files: BTreeMap<String, Vec<u8>>,
    /// Releases that are older than 14 days, as `name-version`.
    old: BTreeSet<String>,
    /// Answers of this status instead of an upload, and whether the file is kept all the same.
    next: Vec<(u16, bool)>,
    /// Where tokens are macaroons: the root key, and how far its clock is ahead, in seconds.
    macaroons: Option<(String, u64)>,
    /// The ids of its projects.
    ids: BTreeMap<String, String>,
}

/// The index.
#[derive(Clone, Default)]
pub struct Index {
    /// Its origin, without a slash at the end.
    pub url: String,
    inner: Arc<Mutex<Inner>>,
}

impl Index {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let index = Self {
            url: format!("http://{}", listener.local_addr()?),
            inner: Arc::default(),
        };
        let app = Router::new()
            .fallback(serve)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(index.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(index)
    }

    /// From now on takes macaroons instead of [`TOKEN`], and believes the reference library about them. Returns
    /// a token for everything.
    pub fn takes_macaroons(&self) -> anyhow::Result<String> {
        let key = crate::parts::random_hex()?;
        let token = macaroons(&["create", &key], "")?.context("a token")?;
        self.inner.lock().unwrap().macaroons = Some((key, 0));
        Ok(token.trim().to_owned())
    }

    /// Whether a macaroon is good for uploads of this project, so many seconds from now.
    pub fn holds(&self, token: &str, project: &str, later: i64) -> anyhow::Result<bool> {
        let mut inner = self.inner.lock().unwrap();
        let key = inner.macaroons.clone().context("macaroons")?.0;
        let id = inner.id(project)?;
        let now = crate::now()?.saturating_add_signed(later).to_string();
        Ok(macaroons(&["check", &key, project, &id, &now], token)?.is_some())
    }

    /// A project of this name is registered, anew if there is one; its id.
    pub fn registers(&self, project: &str) -> anyhow::Result<String> {
        let mut inner = self.inner.lock().unwrap();
        inner.ids.remove(project);
        inner.id(project)
    }

    /// Sets its clock ahead.
    pub fn ahead(&self, seconds: u64) {
        if let Some((_, ahead)) = &mut self.inner.lock().unwrap().macaroons {
            *ahead = seconds;
        }
    }

    /// Everything that could change something; not the broker's probes, which ask about a token alone.
    pub fn writes(&self) -> Vec<Seen> {
        let mut all = self.inner.lock().unwrap().seen.clone();
        let probes = |s: &Seen| String::from_utf8_lossy(&s.body).contains("countersign-probe");
        all.retain(|s| s.method != "GET" && s.method != "HEAD" && !probes(s));
        all
    }

    /// Everything that was asked.
    pub fn seen(&self) -> Vec<Seen> {
        self.inner.lock().unwrap().seen.clone()
    }

    /// The bytes of a file that it holds.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        self.inner.lock().unwrap().files.get(name).cloned()
    }

    /// Somebody else publishes a file.
    pub fn has(&self, name: &str, bytes: &[u8]) {
        let mut inner = self.inner.lock().unwrap();
        inner.files.insert(name.to_owned(), bytes.to_vec());
    }

    /// No new files for this release (`acme_left-1.0`).
    pub fn closes(&self, stem: &str) {
        self.inner.lock().unwrap().old.insert(stem.to_owned());
    }

    /// Answers the next upload with this status; `keeps` says whether the file is published all the same.
    pub fn answers(&self, status: u16, keeps: bool) {
        self.inner.lock().unwrap().next.push((status, keeps));
    }
}

async fn serve(
    State(index): State<Index>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut inner = index.inner.lock().unwrap();
    let basic = format!("Basic {}", STANDARD.encode(format!("__token__:{TOKEN}")));
    let mut token = headers.get("authorization").is_some_and(|v| *v == *basic);
    if method == Method::POST && inner.macaroons.is_some() {
        token = upload_allowed(&mut inner, &headers, &body).unwrap_or(false);
    }
    inner.seen.push(Seen {
        method: method.to_string(),
        path: uri.path().to_owned(),
        token,
        body: body.to_vec(),
    });
    if method == Method::POST && uri.path() == "/legacy/" {
        let next = (!inner.next.is_empty()).then(|| inner.next.remove(0));
        if let Some((status, keeps)) = next {
            if keeps && let Some((name, file)) = parts(&headers, &body).and_then(|p| p.file) {
                inner.files.insert(name, file);
            }
            return page(status, "something went wrong");
        }
        if !token && has_ended(&mut inner, &headers, &body) {
            return page(403, "Invalid API Token: token is expired (see the help)");
        }
        if !token {
            return page(403, "Invalid or non-existent authentication information.");
        }
        return match parts(&headers, &body) {
            Some(parts) => upload(&mut inner, &parts),
            None => page(400, "Invalid upload."),
        };
    }
    let project = uri
        .path()
        .strip_prefix("/simple/")
        .and_then(|p| p.strip_suffix('/'));
    let Some(project) = project else {
        return page(404, "Not found");
    };
    let start = format!("{}-", project.replace('-', "_"));
    let files: Vec<_> = inner
        .files
        .iter()
        .filter(|(name, _)| name.starts_with(&start))
        .map(|(name, bytes)| json!({"filename": name, "url": "x", "hashes": {"sha256": sha256(bytes)}}))
        .collect();
    if files.is_empty() {
        return page(404, "Not found");
    }
    let kind = [("content-type", "application/vnd.pypi.simple.v1+json")];
    (
        kind,
        json!({"meta": {"api-version": "1.1"}, "name": project, "files": files}).to_string(),
    )
        .into_response()
}

impl Inner {
    /// The project's id. One that is not there is made, as by the public index, which asks what the token is for
    /// afterwards.
    fn id(&mut self, project: &str) -> anyhow::Result<String> {
        if !self.ids.contains_key(project) {
            let hex = crate::parts::random_hex()?;
            let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| hex[part].to_owned());
            self.ids.insert(project.to_owned(), parts.join("-"));
        }
        Ok(self.ids[project].clone())
    }
}

/// Whether the macaroon beside an upload was good long ago.
fn has_ended(inner: &mut Inner, headers: &HeaderMap, body: &[u8]) -> bool {
    allowed_at(inner, headers, body, 500_000_000).unwrap_or(false)
}

/// Whether the macaroon beside an upload is good for the project in its form.
fn upload_allowed(inner: &mut Inner, headers: &HeaderMap, body: &[u8]) -> Option<bool> {
    let ahead = inner.macaroons.clone()?.1;
    let now = crate::now().ok()? + ahead;
    allowed_at(inner, headers, body, now)
}

fn allowed_at(inner: &mut Inner, headers: &HeaderMap, body: &[u8], now: u64) -> Option<bool> {
    let key = inner.macaroons.clone()?.0;
    let pair = headers.get("authorization")?.to_str().ok()?;
    let pair = STANDARD.decode(pair.strip_prefix("Basic ")?).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    let token = pair.strip_prefix("__token__:")?;
    let fields = parts(headers, body)?.fields;
    let project = fields.get("name")?.to_lowercase().replace(['_', '.'], "-");
    let id = inner.id(&project).ok()?;
    let checked = macaroons(&["check", &key, &project, &id, &now.to_string()], token);
    Some(checked.ok()?.is_some())
}

/// Asks the reference library; what it prints, if it says yes.
fn macaroons(args: &[&str], token: &str) -> anyhow::Result<Option<String>> {
    let mut child = Command::new(crate::python::program("python")?)
        .arg(crate::root().join("tests/parts/macaroons.py"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("its input")?;
    input.write_all(token.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(output.status.success().then_some(text))
}

struct Parts {
    fields: BTreeMap<String, String>,
    file: Option<(String, Vec<u8>)>,
}

/// Takes a form apart, as strictly as a test needs.
fn parts(headers: &HeaderMap, body: &[u8]) -> Option<Parts> {
    let kind = headers.get("content-type")?.to_str().ok()?;
    let boundary = format!("--{}", kind.split_once("boundary=")?.1);
    let mut out = Parts {
        fields: BTreeMap::new(),
        file: None,
    };
    let mut rest = body;
    loop {
        rest = rest.strip_prefix(boundary.as_bytes())?;
        if rest.starts_with(b"--") {
            return Some(out);
        }
        let end = rest.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&rest[..end]).ok()?;
        let data = &rest[end + 4..];
        let stop = format!("\r\n{boundary}");
        let length = data
            .windows(stop.len())
            .position(|w| w == stop.as_bytes())?;
        let field = head.split("name=\"").nth(1)?.split('"').next()?;
        if let Some((_, name)) = head.split_once("filename=\"") {
            out.file = Some((name.split('"').next()?.to_owned(), data[..length].to_vec()));
        } else {
            let text = std::str::from_utf8(&data[..length]).ok()?;
            out.fields.insert(field.to_owned(), text.to_owned());
        }
        rest = &data[length + 2..];
    }
}

fn upload(inner: &mut Inner, parts: &Parts) -> Response {
    let field = |name: &str| parts.fields.get(name).map(String::as_str);
    let Some((name, bytes)) = parts.file.as_ref() else {
        return page(400, "Upload payload does not have a file.");
    };
    if field(":action") != Some("file_upload") || field("protocol_version") != Some("1") {
        return page(400, "Unknown protocol version.");
    }
    if field("attestations").is_some() {
        return page(
            400,
            "Attestations are only supported when using Trusted Publishing.",
        );
    }
    if field("sha256_digest") != Some(&sha256(bytes)) {
        return page(
            400,
            "The digest supplied does not match a digest calculated from the uploaded file.",
        );
    }
    match inner.files.get(name) {
        Some(old) if old == bytes => return page(200, ""),
        Some(_) => {
            return page(
                400,
                "File already exists. See the help for more information.",
            );
        }
        None => {}
    }
    let stem: Vec<_> = name
        .trim_end_matches(".tar.gz")
        .splitn(3, '-')
        .take(2)
        .collect();
    if inner.old.contains(&stem.join("-")) {
        return page(
            400,
            "New files cannot be added to releases older than 14 days.",
        );
    }
    inner.files.insert(name.clone(), bytes.clone());
    page(200, "")
}

/// A page as the public index writes it.
fn page(status: u16, text: &str) -> Response {
    let body = format!(
        "<html>\n <head>\n  <title>{status} {text}</title>\n </head>\n <body>\n  <h1>{status} {text}</h1>\n \
         The server could not comply with the request.<br/><br/>\n </body>\n</html>"
    );
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("content-type", "text/html")], body).into_response()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// A distribution on its way to a test.
#[derive(Clone, Debug)]
pub struct Dist {
    /// The project, as the index spells it.
    pub project: String,
    /// The version.
    pub version: String,
    /// The file's name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a test does to the files of a wheel before they are packed.
pub type Change = fn(&mut Vec<(String, Vec<u8>)>);

impl Dist {
    /// A usual wheel.
    pub fn wheel(project: &str, version: &str) -> Self {
        Self::named(project, version, project, version, |_| {})
    }

    /// A wheel whose name says one thing and whose inside says another; `change` runs before RECORD is written.
    pub fn named(
        project: &str,
        version: &str,
        inner: &str,
        inner_version: &str,
        change: Change,
    ) -> Self {
        Self::packed(project, version, inner, inner_version, change)
    }

    /// The same with a change that brings something along.
    pub fn packed(
        project: &str,
        version: &str,
        inner: &str,
        inner_version: &str,
        change: impl FnOnce(&mut Vec<(String, Vec<u8>)>),
    ) -> Self {
        let module = inner.replace('-', "_");
        let info = format!("{module}-{inner_version}.dist-info");
        let metadata = format!(
            "Metadata-Version: 2.1\nName: {inner}\nVersion: {inner_version}\nSummary: A wheel of the tests\nRequires-Dist: idna\n"
        );
        let mut files = vec![
            (format!("{module}/__init__.py"), b"X = 1\n".to_vec()),
            (format!("{info}/METADATA"), metadata.into_bytes()),
            (
                format!("{info}/WHEEL"),
                b"Wheel-Version: 1.0\nTag: py3-none-any\n".to_vec(),
            ),
        ];
        change(&mut files);
        let mut record = String::new();
        for (name, data) in &files {
            let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, data));
            let _ = writeln!(record, "{name},sha256={hash},{}", data.len());
        }
        let _ = writeln!(record, "{info}/RECORD,,");
        files.push((format!("{info}/RECORD"), record.into_bytes()));
        Self {
            project: project.to_owned(),
            version: version.to_owned(),
            name: format!("{}-{version}-py3-none-any.whl", project.replace('-', "_")),
            bytes: zip(&files),
        }
    }

    /// The same for another interpreter: another file of the same release.
    #[must_use]
    pub fn tagged(mut self, python: &str) -> Self {
        self.name = self.name.replace("-py3-", &format!("-{python}-"));
        self
    }

    /// As a file of a request.
    pub fn file(&self) -> File {
        File {
            name: self.name.clone(),
            size: self.bytes.len() as u64,
            digest: Digest::of(Algorithm::Sha256, &self.bytes),
        }
    }

    /// A request's item for this file and others of the release.
    pub fn item(&self, more: &[&Self]) -> anyhow::Result<Item> {
        Ok(Item {
            registry: "pypi".parse()?,
            package: self.project.parse()?,
            version: self.version.parse()?,
            tag: None,
            files: [self].iter().chain(more).map(|d| d.file()).collect(),
        })
    }

    /// The fields that a client writes.
    pub fn fields(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            pair(":action", "file_upload"),
            pair("protocol_version", "1"),
            pair("filetype", "bdist_wheel"),
            pair("pyversion", "py3"),
            pair("metadata_version", "2.1"),
            pair("name", &self.project),
            pair("version", &self.version),
            pair("summary", "A wheel of the tests"),
            pair("requires_dist", "idna"),
            pair("sha256_digest", &sha256(&self.bytes)),
        ]
    }

    /// The body of an upload.
    pub fn form(&self) -> Vec<u8> {
        form(&self.fields(), &[(&self.name, &self.bytes)])
    }
}

/// The boundary of [`form`].
pub const BOUNDARY: &str = "a-boundary";

/// A form of these fields and files.
pub fn form(fields: &[(String, String)], files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.extend_from_slice(
            format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            )
            .as_bytes(),
        );
    }
    for (name, bytes) in files {
        out.extend_from_slice(
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"content\"; filename=\"{name}\"\r\n\r\n")
                .as_bytes(),
        );
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    out
}

/// Uploads a form to a broker's endpoint, as a client would; status and words.
pub async fn post(
    endpoint: &str,
    credential: &str,
    body: Vec<u8>,
) -> anyhow::Result<(u16, String)> {
    let reply = crate::http()?
        .post(format!("{endpoint}/legacy/"))
        .header(
            "content-type",
            format!("multipart/form-data; boundary={BOUNDARY}"),
        )
        .basic_auth("__token__", Some(credential))
        .timeout(std::time::Duration::from_secs(150))
        .body(body)
        .send()
        .await
        .context("the broker's answer")?;
    Ok((reply.status().as_u16(), reply.text().await?))
}

/// A ZIP archive whose files are stored as they are (APPNOTE.TXT 4.3).
pub fn zip(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    let u32le = |n: usize| u32::try_from(n).unwrap_or_default().to_le_bytes();
    let u16le = |n: usize| u16::try_from(n).unwrap_or_default().to_le_bytes();
    for (name, data) in files {
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let mut same = b"\x14\0\0\0\0\0\0\0\x21\x54".to_vec();
        same.extend_from_slice(&crc.sum().to_le_bytes());
        same.extend_from_slice(&u32le(data.len()));
        same.extend_from_slice(&u32le(data.len()));
        same.extend_from_slice(&u16le(name.len()));
        same.extend_from_slice(&[0, 0]);
        let at = out.len();
        out.extend_from_slice(&[b"PK\x03\x04", &same[..], name.as_bytes(), data].concat());
        directory.extend_from_slice(&[b"PK\x01\x02\x14\x03", &same[..], &[0; 10]].concat());
        directory.extend_from_slice(&u32le(at));
        directory.extend_from_slice(name.as_bytes());
    }
    let at = out.len();
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    out.extend_from_slice(&[u16le(files.len()), u16le(files.len())].concat());
    out.extend_from_slice(&u32le(directory.len()));
    out.extend_from_slice(&u32le(at));
    out.extend_from_slice(&[0, 0]);
    out
}
