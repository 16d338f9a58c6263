//! An npm registry with staged publishing and a second factor of its own, as its documents describe it.
//! No registry that can be installed here has either (Verdaccio has no `/-/stage`), so this one is the
//! stand's own: strict, and able to lie. What it knows was never compared with a live registry.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a stand's own server fails by panic, as the tests do"
)]

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, Method, StatusCode, Uri};
use proto::digest::{Algorithm, Digest, hex};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// May stage and, with the second factor, approve; publishes nothing by itself.
pub const STAGE_ONLY: &str = "npm_canaryStageOnlyToken";
/// May publish with the second factor.
pub const WITH_FACTOR: &str = "npm_canaryNonBypassToken";
/// Another account's token.
pub const STRANGER: &str = "npm_strangersToken";
/// What a person's own authenticator would give at once.
pub const OWN_FACTOR: &str = "7777777777777777";

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// Whether it carried any credential.
    pub credential: bool,
    /// Whether it carried a second factor.
    pub factor: bool,
    /// Whether it came to the origin of people's pages.
    pub page: bool,
}

/// A stage.
#[derive(Clone, Debug)]
struct Stage {
    id: String,
    name: String,
    version: String,
    tag: String,
    actor: &'static str,
    manifest: Value,
    tarball: Vec<u8>,
}

struct Challenge {
    id: String,
    /// What it is good for: method and path.
    act: String,
    given: Option<String>,
    over: bool,
}

#[derive(Default)]
struct Inner {
    url: String,
    pages: String,
    seen: Vec<Seen>,
    stages: Vec<Stage>,
    packages: BTreeMap<String, Value>,
    challenges: Vec<Challenge>,
    count: u32,
    lies: Lies,
}

/// How it misbehaves.
#[derive(Clone, Debug, Default)]
pub struct Lies {
    /// A stage holds these bytes instead of the ones that were sent.
    pub swapped: Option<Vec<u8>>,
    /// A stage gets this tag.
    pub tag: Option<String>,
    /// A stage is shown with this SHA-1, or with none.
    pub shasum: Option<Option<String>>,
    /// A publish leaves its tag where it was.
    pub keeps_tags: bool,
    /// What makes stages may not approve them.
    pub stage_only_never_approves: bool,
    /// The page for people is at this origin.
    pub page_at: Option<String>,
    /// The outcome is asked for at this origin.
    pub done_at: Option<String>,
}

/// The registry.
#[derive(Clone, Default)]
pub struct Stages {
    /// Its origin, without a slash at the end.
    pub url: String,
    /// The origin of its pages for people.
    pub pages: String,
    inner: Arc<Mutex<Inner>>,
}

impl Stages {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        let api = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let web = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let stages = Self {
            url: format!("http://{}", api.local_addr()?),
            pages: format!("http://{}", web.local_addr()?),
            inner: Arc::default(),
        };
        {
            let mut inner = stages.inner.lock().unwrap();
            inner.url.clone_from(&stages.url);
            inner.pages.clone_from(&stages.pages);
        }
        for (listener, page) in [(api, false), (web, true)] {
            let app = Router::new()
                .fallback(serve)
                .layer(axum::extract::DefaultBodyLimit::disable())
                .with_state((stages.clone(), page));
            tokio::spawn(async move { axum::serve(listener, app).await });
        }
        Ok(stages)
    }

    /// What its clients call it (a proxy in front of it, say).
    pub fn known_as(&self, url: &str) {
        url.clone_into(&mut self.inner.lock().unwrap().url);
    }

    /// The lines of a broker's configuration for it.
    pub fn keys(&self, via: &str) -> String {
        format!("via = \"{via}\"\nfactor_origins = [\"{}\"]\n", self.pages)
    }

    /// Misbehaves from now on.
    pub fn lie(&self, lies: Lies) {
        self.inner.lock().unwrap().lies = lies;
    }

    /// Everything that was asked.
    pub fn seen(&self) -> Vec<Seen> {
        self.inner.lock().unwrap().seen.clone()
    }

    /// How many requests with this method had a path that begins so.
    pub fn count(&self, method: &str, path: &str) -> usize {
        let seen = self.seen();
        seen.iter()
            .filter(|s| s.method == method && s.path.starts_with(path))
            .count()
    }

    /// The integrity that it shows.
    pub fn integrity(&self, name: &str, version: &str) -> Option<String> {
        let inner = self.inner.lock().unwrap();
        let shown = &inner.packages.get(name)?["versions"][version]["dist"]["integrity"];
        shown.as_str().map(str::to_owned)
    }

    /// Ids of what is staged, with package and version.
    pub fn staged(&self) -> Vec<(String, String)> {
        let inner = self.inner.lock().unwrap();
        let stages = inner.stages.iter();
        stages
            .map(|s| (s.id.clone(), format!("{}@{}", s.name, s.version)))
            .collect()
    }

    /// Somebody else stages these bytes.
    pub fn squat(
        &self,
        actor: &'static str,
        (name, version, tag): (&str, &str, &str),
        bytes: &[u8],
    ) {
        let mut inner = self.inner.lock().unwrap();
        let stage = Stage {
            id: inner.id(),
            name: name.into(),
            version: version.into(),
            tag: tag.into(),
            actor,
            manifest: json!({"name": name, "version": version, "dist": {
                "integrity": Digest::of(Algorithm::Sha512, bytes).sri(),
            }}),
            tarball: bytes.to_vec(),
        };
        inner.stages.push(stage);
    }

    /// A person with the registry's own second factor says yes on a page that he was shown.
    pub async fn confirm(&self, page: &str) -> anyhow::Result<()> {
        let reply = crate::http()?.post(page).send().await?;
        anyhow::ensure!(reply.status() == 200, "{page}: {}", reply.status());
        Ok(())
    }

    /// All its pages are over.
    pub fn pages_end(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.challenges.iter_mut().for_each(|c| c.over = true);
    }
}

impl Inner {
    fn id(&mut self) -> String {
        self.count += 1;
        format!("00000000-0000-4000-8000-{:012}", self.count)
    }

    fn challenge(&mut self, act: &str, headers: &HeaderMap) -> Response {
        let web = headers.get("npm-auth-type").is_some_and(|v| v == "web");
        let known = ["publish", "stage", "token", "trust"];
        let command = headers.get("npm-command").and_then(|v| v.to_str().ok());
        let head = [("www-authenticate", "OTP")];
        if !web || !command.is_some_and(|c| known.contains(&c)) {
            let text = json!({"error": "This operation requires a one-time password."});
            return (StatusCode::UNAUTHORIZED, head, text.to_string()).into_response();
        }
        let id = self.id();
        self.challenges.push(Challenge {
            id: id.clone(),
            act: act.into(),
            given: None,
            over: false,
        });
        let page = self.lies.page_at.as_ref().unwrap_or(&self.pages);
        let done = self.lies.done_at.as_ref().unwrap_or(&self.url);
        let body = json!({
            "authUrl": format!("{page}/auth/cli/{id}"),
            "doneUrl": format!("{done}/-/v1/done?authId={id}"),
        });
        (StatusCode::UNAUTHORIZED, head, body.to_string()).into_response()
    }

    /// Whether a request carries the second factor for this very act; it is good once.
    fn factor(&mut self, act: &str, headers: &HeaderMap) -> bool {
        let Some(given) = headers.get("npm-otp").and_then(|v| v.to_str().ok()) else {
            return false;
        };
        let mine = |c: &&mut Challenge| c.given.as_deref() == Some(given) && c.act == act;
        if let Some(challenge) = self.challenges.iter_mut().find(mine) {
            challenge.given = None;
            challenge.over = true;
            return true;
        }
        given == OWN_FACTOR
    }

    fn publish(&mut self, stage: &Stage) {
        let keeps = self.lies.keeps_tags;
        let package = self.packages.entry(stage.name.clone());
        let package = package.or_insert_with(
            || json!({"_id": stage.name, "name": stage.name, "dist-tags": {}, "versions": {}}),
        );
        package["versions"][&stage.version] = stage.manifest.clone();
        if !keeps {
            package["dist-tags"][&stage.tag] = json!(stage.version);
        }
    }

    fn shows(&self, name: &str, version: &str) -> bool {
        let package = self.packages.get(name);
        package.is_some_and(|p| p["versions"][version].is_object())
    }

    fn view(&self, stage: &Stage) -> Value {
        let sum =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &stage.tarball);
        let mut view = json!({
            "id": stage.id, "packageName": stage.name, "version": stage.version, "tag": stage.tag,
            "createdAt": "2026-11-21T00:00:00.000Z", "actor": stage.actor, "actorType": "user",
            "access": "public", "shasum": hex(sum.as_ref()),
        });
        match (&self.lies.shasum, view.as_object_mut()) {
            (Some(Some(lie)), Some(view)) => _ = view.insert("shasum".to_owned(), json!(lie)),
            (Some(None), Some(view)) => _ = view.remove("shasum"),
            _ => {}
        }
        view
    }

    /// The stage that a publish document makes.
    fn read(&mut self, name: &str, body: &[u8], actor: &'static str) -> Option<Stage> {
        let document: Value = serde_json::from_slice(body).ok()?;
        let (version, manifest) = document["versions"].as_object()?.iter().next()?;
        let attachments = document["_attachments"].as_object()?;
        let data = attachments.values().next()?["data"].as_str()?;
        let (tag, _) = document["dist-tags"].as_object()?.iter().next()?;
        let sent = STANDARD.decode(data).ok()?;
        Some(Stage {
            id: self.id(),
            name: name.to_owned(),
            version: version.clone(),
            tag: self.lies.tag.clone().unwrap_or_else(|| tag.clone()),
            actor,
            manifest: manifest.clone(),
            tarball: self.lies.swapped.clone().unwrap_or(sent),
        })
    }
}

fn says(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (
        status,
        [("content-type", "application/json")],
        body.to_string(),
    )
        .into_response()
}

fn error(status: u16, text: &str) -> Response {
    says(status, &json!({ "error": text }))
}

async fn serve(
    State((stages, page)): State<(Stages, bool)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let token = headers.get("authorization").and_then(|v| v.to_str().ok());
    let token = token.and_then(|t| t.strip_prefix("Bearer "));
    let mut inner = stages.inner.lock().unwrap();
    inner.seen.push(Seen {
        method: method.to_string(),
        path: uri.to_string(),
        credential: headers.contains_key("authorization") || headers.contains_key("cookie"),
        factor: headers.contains_key("npm-otp"),
        page,
    });
    if page {
        return on_a_page(&mut inner, &method, uri.path());
    }
    if uri.path() == "/-/v1/done" {
        return done(&inner, uri.query().unwrap_or_default());
    }
    let actor = match token {
        Some(STAGE_ONLY | WITH_FACTOR) => "acme-bot",
        Some(STRANGER) => "mallory",
        _ if method == Method::GET && !uri.path().starts_with("/-/") => "",
        _ => return error(401, "who are you?"),
    };
    let act = format!("{method} {}", uri.path());
    let path = uri.path().replace("%2f", "/");
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["-", "whoami"]) => says(200, &json!({ "username": actor })),
        ("GET", ["-", "stage"]) => list(&inner, uri.query().unwrap_or_default()),
        ("GET", ["-", "stage", id]) => match inner.stages.iter().find(|s| s.id == *id) {
            Some(stage) => says(200, &inner.view(stage)),
            None => error(404, "no such stage"),
        },
        ("GET", ["-", "stage", id, "tarball"]) => match inner.stages.iter().find(|s| s.id == *id) {
            Some(stage) => stage.tarball.clone().into_response(),
            None => error(404, "no such stage"),
        },
        ("POST", ["-", "stage", "package", rest @ ..]) => {
            stage(&mut inner, &rest.join("/"), &body, actor)
        }
        ("POST" | "DELETE", ["-", "stage", id, rest @ ..]) => {
            let Some(at) = inner.stages.iter().position(|s| s.id == *id) else {
                return error(404, "no such stage");
            };
            if inner.lies.stage_only_never_approves && token == Some(STAGE_ONLY) {
                return error(403, "this token may stage alone");
            }
            // Always, whatever the token.
            if !inner.factor(&act, &headers) {
                return inner.challenge(&act, &headers);
            }
            let stage = inner.stages.remove(at);
            if *rest == ["approve"] {
                inner.publish(&stage);
                return says(201, &json!({"message": "published"}));
            }
            StatusCode::NO_CONTENT.into_response()
        }
        ("GET", name) => match inner.packages.get(&name.join("/")) {
            Some(package) => says(200, package),
            None => error(404, "no such package"),
        },
        ("PUT", name) if token == Some(WITH_FACTOR) => {
            let name = name.join("/");
            if !inner.factor(&act, &headers) {
                return inner.challenge(&act, &headers);
            }
            match inner.read(&name, &body, actor) {
                Some(s) if inner.shows(&name, &s.version) => error(403, "it exists"),
                Some(s) => {
                    inner.publish(&s);
                    says(200, &json!({"success": true}))
                }
                None => error(400, "no publish document"),
            }
        }
        _ => error(403, "this token may not do that"),
    }
}

fn stage(inner: &mut Inner, name: &str, body: &[u8], actor: &'static str) -> Response {
    let Some(stage) = inner.read(name, body, actor) else {
        return error(400, "no publish document");
    };
    let same = |s: &Stage| s.name == name && s.version == stage.version;
    if inner.stages.iter().any(same) || inner.shows(name, &stage.version) {
        return error(409, "this version is taken");
    }
    let reply = json!({"message": "staged", "stageId": stage.id});
    inner.stages.push(stage);
    says(201, &reply)
}

fn list(inner: &Inner, query: &str) -> Response {
    let query: BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
    let number = |name: &str, default: usize| {
        let value = query.get(name).and_then(|n| n.parse().ok());
        value.unwrap_or(default)
    };
    let (page, per) = (number("page", 0), number("perPage", 10).min(100));
    let wanted = |s: &&Stage| query.get("package").is_none_or(|p| *p == s.name);
    let all: Vec<_> = inner
        .stages
        .iter()
        .filter(wanted)
        .map(|stage| inner.view(stage))
        .collect();
    let items: Vec<_> = all.iter().skip(page * per).take(per).collect();
    says(
        200,
        &json!({"items": items, "page": page, "perPage": per, "total": all.len()}),
    )
}

fn done(inner: &Inner, query: &str) -> Response {
    let id = query.strip_prefix("authId=").unwrap_or_default();
    match inner.challenges.iter().find(|c| c.id == id) {
        Some(Challenge { over: true, .. }) | None => error(404, "it is over"),
        Some(Challenge {
            given: Some(given), ..
        }) => says(200, &json!({ "token": given })),
        Some(_) => (StatusCode::ACCEPTED, [("retry-after", "1")], "{}").into_response(),
    }
}

/// `POST` is a person who says yes with his second factor.
fn on_a_page(inner: &mut Inner, method: &Method, path: &str) -> Response {
    let id = path.strip_prefix("/auth/cli/").unwrap_or_default();
    let factor = format!("1234{:0>12}", inner.count);
    inner.count += 1;
    let found = inner.challenges.iter_mut().find(|c| c.id == id && !c.over);
    match (method.as_str(), found) {
        ("GET", Some(_)) => "say yes?".into_response(),
        ("POST", Some(challenge)) => {
            challenge.given = Some(factor);
            "thank you".into_response()
        }
        _ => error(404, "no such page"),
    }
}
