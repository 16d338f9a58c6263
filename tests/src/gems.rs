//! A stand-in for a gem registry: it writes down everything it is asked, keeps the public registry's rules (identical
//! bytes are welcome again, other bytes never, the key without a scheme, a second factor of its own on a page that is
//! over as soon as another is asked for), and serves a compact index. And gems, made by the real `gem build`.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use crate::command::{Output, run};
use anyhow::Context as _;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse as _, Response},
};
use flate2::read::GzDecoder;
use http::{HeaderMap, Method, StatusCode, Uri};
use proto::{
    digest::{Algorithm, Digest, hex},
    gem::Gem,
};
use serde_json::json;
use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

/// The key of these tests.
pub const KEY: &str = "rubygems_canary_registry_key";
/// How the registry begins when it wants its second factor.
const WANTED: &str = "You have enabled multifactor authentication but no OTP code provided.";
/// One command of gem.
const COMMAND: Duration = Duration::from_mins(2);

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// Whether it carried the key.
    pub key: bool,
    /// Whether it carried a second factor.
    pub factor: bool,
    /// The body.
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Inner {
    seen: Vec<Seen>,
    /// Gems by file name, with their bytes, in the order in which they came.
    gems: Vec<(Gem, Vec<u8>)>,
    /// Answers instead of a push, and whether the gem is kept all the same.
    next: Vec<(u16, String, bool)>,
    /// Whether the key needs the second factor, and the origin of the pages where that is given.
    pages: Option<String>,
    page: Option<Page>,
    count: u32,
}

/// The account's one page.
#[derive(Default)]
struct Page {
    name: String,
    over: bool,
    given: Option<String>,
}

/// The registry.
#[derive(Clone, Default)]
pub struct Gems {
    /// Its origin, without a slash at the end.
    pub url: String,
    inner: Arc<Mutex<Inner>>,
}

impl Gems {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let gems = Self {
            url: format!("http://{}", listener.local_addr()?),
            inner: Arc::default(),
        };
        let app = Router::new()
            .fallback(serve)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(gems.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(gems)
    }

    /// Everything that could change something; not the broker's probes, which ask about a key alone.
    pub fn writes(&self) -> Vec<Seen> {
        let mut all = self.seen();
        let probe = |s: &Seen| s.body == b"countersign-probe";
        all.retain(|s| s.method != "GET" && s.method != "HEAD" && !probe(s));
        all
    }

    /// Everything that was asked.
    pub fn seen(&self) -> Vec<Seen> {
        self.inner.lock().unwrap().seen.clone()
    }

    /// The bytes of a gem that it holds.
    pub fn gem(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.inner.lock().unwrap();
        let found = inner.gems.iter().find(|(g, _)| g.file_name() == name);
        found.map(|(_, bytes)| bytes.clone())
    }

    /// Answers the next push with this; `keeps` says whether the gem is published all the same.
    pub fn answers(&self, status: u16, text: &str, keeps: bool) {
        let mut inner = self.inner.lock().unwrap();
        inner.next.push((status, text.to_owned(), keeps));
    }

    /// From now on the key needs the second factor, which is given on pages at this origin.
    pub fn wants_factor(&self, pages: &str) {
        self.inner.lock().unwrap().pages = Some(pages.to_owned());
    }

    /// The page is over: nobody answered it.
    pub fn page_ends(&self) {
        if let Some(page) = &mut self.inner.lock().unwrap().page {
            page.over = true;
        }
    }

    /// A person says yes with his security device on a page that he was shown. That opens only when it is told a
    /// port, as the public one.
    pub async fn confirm(&self, page: &str) -> anyhow::Result<()> {
        let reply = crate::http()?.post(page).send().await?;
        anyhow::ensure!(reply.status() == 200, "{page}: {}", reply.status());
        Ok(())
    }
}

async fn serve(
    State(gems): State<Gems>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut inner = gems.inner.lock().unwrap();
    let mut keys = headers.get_all("authorization").iter();
    let key = keys.next().is_some_and(|v| v == KEY) && keys.next().is_none();
    inner.seen.push(Seen {
        method: method.to_string(),
        path: uri.path().to_owned(),
        key,
        factor: headers.contains_key("otp"),
        body: body.to_vec(),
    });
    if uri.path().contains("webauthn_verification") {
        return second_factor(&mut inner, &gems.url, (&method, &uri), key);
    }
    if method == Method::POST && uri.path() == "/api/v1/gems" {
        let raw = headers
            .get("content-type")
            .is_some_and(|t| t == "application/octet-stream");
        let gem = read(&body).filter(|_| raw);
        let next = (!inner.next.is_empty()).then(|| inner.next.remove(0));
        if let Some((status, text, keeps)) = next {
            if let Some(gem) = gem.filter(|_| keeps) {
                inner.gems.push((gem, body.to_vec()));
            }
            return page(status, &text);
        }
        if !key {
            return page(401, "Access Denied. Please sign up for an account");
        }
        if inner.pages.is_some() && !inner.confirmed(&headers) {
            return page(401, WANTED);
        }
        let Some(gem) = gem else {
            return page(422, "The registry cannot process this gem.");
        };
        let known = inner.gems.iter().find(|(g, _)| *g == gem);
        return match known {
            Some((_, old)) if old[..] == body[..] => page(200, "Gem was already pushed"),
            Some(_) => page(409, "Repushing of gem versions is not allowed."),
            None => {
                let text = format!(
                    "Successfully registered gem: {} ({})",
                    gem.name, gem.version
                );
                inner.gems.push((gem, body.to_vec()));
                page(200, &text)
            }
        };
    }
    if method == Method::DELETE && uri.path() == "/api/v1/gems/yank" {
        if !key {
            return page(401, "Access Denied. Please sign up for an account");
        }
        let form: Vec<_> = url::form_urlencoded::parse(&body).collect();
        let of = |name: &str| {
            form.iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_ref())
        };
        let before = inner.gems.len();
        inner.gems.retain(|(g, _)| {
            of("gem_name") != Some(g.name.as_str()) || of("version") != Some(g.version.as_str())
        });
        return match inner.gems.len() {
            n if n < before => page(200, "Successfully deleted gem"),
            _ => page(404, "This rubygem could not be found."),
        };
    }
    if let Some(file) = uri.path().strip_prefix("/gems/") {
        let found = inner.gems.iter().find(|(gem, _)| gem.file_name() == file);
        return found.map_or_else(
            || page(404, "not found"),
            |(_, bytes)| bytes.clone().into_response(),
        );
    }
    let asked = uri.path().strip_prefix("/info/").unwrap_or_default();
    let mut text = "---\n".to_owned();
    for (gem, bytes) in inner.gems.iter().filter(|(g, _)| g.name.as_str() == asked) {
        let number = match gem.platform.as_str() {
            "ruby" => gem.version.to_string(),
            platform => format!("{}-{platform}", gem.version),
        };
        let sum = hex(Digest::of(Algorithm::Sha256, bytes).as_bytes());
        let line = format!("{number} rake:>= 0|checksum:{sum},ruby:>= 2.7\n");
        text.push_str(&line);
    }
    match method {
        Method::GET if text.len() > 4 => text.into_response(),
        _ => page(404, "This gem could not be found"),
    }
}

impl Inner {
    /// Whether a push carries the code of the page that somebody said yes on; it is good once.
    fn confirmed(&mut self, headers: &HeaderMap) -> bool {
        let code = headers.get("otp").and_then(|v| v.to_str().ok());
        let given = self.page.as_ref().and_then(|p| p.given.as_deref());
        let good = code.is_some() && code == given;
        if good {
            self.page = None;
        }
        good
    }
}

/// The page where the second factor is given, and how it came out.
fn second_factor(inner: &mut Inner, url: &str, asked: (&Method, &Uri), key: bool) -> Response {
    let (method, uri) = asked;
    let count = inner.count;
    match (method.as_str(), uri.path()) {
        (_, path) if path.starts_with("/api/") && !key => page(401, "Access Denied"),
        ("POST", "/api/v1/webauthn_verification") => {
            let Some(pages) = &inner.pages else {
                return page(422, "You don't have any security devices");
            };
            inner.count += 1;
            let name = format!("odow34b93t6aPC{count:02}");
            let address = format!("{pages}/webauthn_verification/{name}");
            inner.page = Some(Page {
                name,
                ..Page::default()
            });
            page(200, &address)
        }
        ("GET", path) if path.ends_with("/status.json") => {
            let known = inner.page.as_ref().filter(|p| {
                path == format!("/api/v1/webauthn_verification/{}/status.json", p.name)
            });
            let said = match known {
                None => json!({"status": "not_found"}),
                Some(p) if p.over => json!({"status": "expired"}),
                Some(Page { given: None, .. }) => json!({"status": "pending"}),
                Some(Page { given, .. }) => json!({"status": "success", "code": given}),
            };
            page(200, &said.to_string())
        }
        ("POST", path) => {
            let ports = uri.query().is_some_and(|q| q.starts_with("port="));
            let mine = |p: &&mut Page| path == format!("/webauthn_verification/{}", p.name);
            match inner.page.as_mut().filter(mine).filter(|p| !p.over) {
                Some(p) if ports => {
                    p.given = Some(format!("Uvh6T57tkWuUnW{count:02}"));
                    page(200, "thank you")
                }
                _ => page(404, url),
            }
        }
        _ => page(404, "no such page"),
    }
}

fn page(status: u16, text: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, text.to_owned()).into_response()
}

/// What a gem says of itself, as a registry reads it.
fn read(bytes: &[u8]) -> Option<Gem> {
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries().ok()? {
        let entry = entry.ok()?;
        if entry.path_bytes().as_ref() == b"metadata.gz" {
            let mut text = String::new();
            GzDecoder::new(entry).read_to_string(&mut text).ok()?;
            return Gem::read(&text).ok();
        }
    }
    None
}

/// Builds a gem with the real `gem build`; `more` goes into the specification.
pub async fn build(dir: &Path, name: &str, version: &str, more: &str) -> anyhow::Result<PathBuf> {
    let folder = dir.join(format!("{name}-{version}-src"));
    fs::create_dir_all(folder.join("lib"))?;
    fs::write(folder.join("lib/left.rb"), "LEFT = 1\n")?;
    let spec = format!(
        "Gem::Specification.new do |s|\n  s.name = '{name}'\n  s.version = '{version}'\n  s.summary = 'A gem of the tests'\n  \
         s.description = \"Two lines:\\nname: evil\"\n  s.authors = ['Acme']\n  s.license = 'MIT'\n  s.homepage = 'https://acme.example'\n  \
         s.files = ['lib/left.rb']\n  s.add_dependency 'rake', '>= 12', '< 14'\n  {more}\nend\n"
    );
    fs::write(folder.join("x.gemspec"), spec)?;
    let out = dir.join(format!("{name}-{version}-{}.gem", more.len()));
    let to = out.display().to_string();
    gem(&folder, &["build", "x.gemspec", "--output", &to], &[])
        .await?
        .ok()?;
    Ok(out)
}

/// Runs the real gem.
pub async fn gem(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Output> {
    run("gem", args, env, folder, COMMAND)
        .await
        .context("the tests need RubyGems' own client: apt-get install ruby")
}
