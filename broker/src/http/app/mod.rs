//! The phone app: static files, the same for everybody. What they show comes over the API, in calls that the
//! browser's device signs.
//!
//! There is no build step: what lies in this folder is what browsers run, as modules under an address that
//! names their content. Nothing comes from another origin, and the page's policy (CSP Level 3) lets nothing
//! else in: no inline script, no evaluated text, no string that becomes HTML (Trusted Types).

use super::{auth::Signatures, reply::Failed};
use crate::desk::Desk;
use aws_lc_rs::digest::{Context, SHA256, digest};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use proto::{digest::hex, ids::RequestId, problem::Code};
use std::{collections::BTreeMap, io::Write as _, sync::Arc};

/// The modules, by name.
const MODULES: &[(&str, &str)] = &[
    ("admin.js", include_str!("js/admin.js")),
    ("answer.js", include_str!("js/answer.js")),
    ("api.js", include_str!("js/api.js")),
    ("canonical.js", include_str!("js/canonical.js")),
    ("device.js", include_str!("js/device.js")),
    ("devices.js", include_str!("js/devices.js")),
    ("dom.js", include_str!("js/dom.js")),
    ("enroll.js", include_str!("js/enroll.js")),
    ("evidence.js", include_str!("js/evidence.js")),
    ("format.js", include_str!("js/format.js")),
    ("history.js", include_str!("js/history.js")),
    ("inbox.js", include_str!("js/inbox.js")),
    ("intents.js", include_str!("js/intents.js")),
    ("live.js", include_str!("js/live.js")),
    ("log.js", include_str!("js/log.js")),
    ("main.js", include_str!("js/main.js")),
    ("more.js", include_str!("js/more.js")),
    ("notify.js", include_str!("js/notify.js")),
    ("packages.js", include_str!("js/packages.js")),
    ("factor.js", include_str!("js/factor.js")),
    ("passkey.js", include_str!("js/passkey.js")),
    ("request.js", include_str!("js/request.js")),
    ("states.js", include_str!("js/states.js")),
    ("witness.js", include_str!("js/witness.js")),
];
/// Addresses of pages. All are the one document; its modules read the address.
const PAGES: &[&str] = &[
    "/",
    "/admin",
    "/devices",
    "/enroll",
    "/history",
    "/intents",
    "/log",
    "/more",
    "/notifications",
    "/packages",
];
const INDEX: &str = include_str!("index.html");
const STYLE: &str = include_str!("app.css");
const WORKER: &str = include_str!("sw.js");
const MANIFEST: &str = include_str!("manifest.webmanifest");
const ICON: &str = include_str!("icon.svg");
const ICON_192: &[u8] = include_bytes!("icon-192.png");
const ICON_512: &[u8] = include_bytes!("icon-512.png");

/// Under an address that names the content.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Asked for again each time, and not sent again when it is the same.
const ASK_AGAIN: &str = "no-cache";

/// What is served.
struct App {
    desk: Arc<Desk>,
    signatures: Arc<Signatures>,
    files: BTreeMap<String, File>,
    /// The document with `{nonce}` and `{first}` left open.
    document: String,
    policy: HeaderValue,
}

struct File {
    kind: &'static str,
    cache: &'static str,
    tag: HeaderValue,
    plain: Bytes,
    packed: Bytes,
}

impl File {
    fn new(kind: &'static str, cache: &'static str, bytes: impl Into<Bytes>) -> Self {
        let plain: Bytes = bytes.into();
        let tag = format!("\"{}\"", &hex(digest(&SHA256, &plain).as_ref()));
        Self {
            kind,
            cache,
            tag: HeaderValue::from_str(&tag).unwrap_or_else(|_| HeaderValue::from_static("\"\"")),
            packed: packed(&plain, Compression::best()),
            plain,
        }
    }
}

/// The app's routes. Everybody may fetch them: they hold nothing that is anybody's.
pub(super) fn router(desk: &Arc<Desk>, signatures: &Arc<Signatures>) -> Router {
    let app = Arc::new(App::new(Arc::clone(desk), Arc::clone(signatures)));
    let mut router = Router::new().route("/r/{id}", get(request_page));
    for path in PAGES {
        router = router.route(path, get(page));
    }
    for path in app.files.keys() {
        router = router.route(path, get(file));
    }
    router.with_state(app)
}

async fn file(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Response {
    match app.files.get(uri.path()) {
        Some(file) => app.reply(file, &headers),
        None => Failed::new(Code::NotFound, "there is no such file", "").into_response(),
    }
}

async fn page(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    app.page("<p class=\"lead\">One moment…</p>", &headers)
}

/// The address in a job's output. Whoever has no browser, or one that is no device, reads how to answer.
async fn request_page(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Ok(id) = id.parse::<RequestId>() else {
        return Failed::new(Code::NotFound, "no such request", "").into_response();
    };
    let commands =
        format!("countersign show {id}\ncountersign approve {id}\ncountersign deny {id}");
    let wants_page = headers
        .get(header::ACCEPT)
        .and_then(|a| a.to_str().ok())
        .is_some_and(|a| a.contains("text/html"));
    if !wants_page {
        let text = format!(
            "Countersign: a publish waits for an answer.\n\nOpen this address on an enrolled phone, or in a terminal of an enrolled device:\n\n  {}\n",
            commands.replace('\n', "\n  ")
        );
        return text.into_response();
    }
    app.page(
        &format!(
            "<h1>A publish waits for your answer</h1><p class=\"lead\">Looking up what would be published…</p>\
             <details><summary>Answer in a terminal</summary><p>On an enrolled device:</p><pre>{commands}</pre></details>"
        ),
        &headers,
    )
}

impl App {
    fn new(desk: Arc<Desk>, signatures: Arc<Signatures>) -> Self {
        let version = version();
        let folder = format!("/app/{version}");
        let mut files = BTreeMap::new();
        let mut links = Vec::new();
        for (name, text) in MODULES {
            let path = format!("{folder}/{name}");
            links.push(format!("<link rel=\"modulepreload\" href=\"{path}\">"));
            let file = File::new("text/javascript; charset=utf-8", FOR_EVER, *text);
            files.insert(path, file);
        }
        links.push(format!(
            "<script type=\"module\" src=\"{folder}/main.js\"></script>"
        ));
        let kept: Vec<&str> = ["/", "/icon.svg", "/manifest.webmanifest"]
            .into_iter()
            .chain(files.keys().map(String::as_str))
            .collect();
        let worker = WORKER
            .replace("{version}", &version)
            .replace("{files}", &serde_json::to_string(&kept).unwrap_or_default());
        let others: [(&str, &'static str, Bytes); 5] = [
            ("/sw.js", "text/javascript; charset=utf-8", worker.into()),
            (
                "/manifest.webmanifest",
                "application/manifest+json",
                MANIFEST.into(),
            ),
            ("/icon.svg", "image/svg+xml", ICON.into()),
            ("/icon-192.png", "image/png", ICON_192.into()),
            ("/icon-512.png", "image/png", ICON_512.into()),
        ];
        for (path, kind, bytes) in others {
            files.insert(path.to_owned(), File::new(kind, ASK_AGAIN, bytes));
        }
        Self {
            desk,
            signatures,
            files,
            document: INDEX
                .replace("{style}", STYLE)
                .replace("{modules}", &links.join("\n")),
            policy: policy(),
        }
    }

    /// The document, with a nonce for the first call: it costs no second round trip.
    fn page(&self, first: &str, headers: &HeaderMap) -> Response {
        let nonce = match self.signatures.nonce(&self.desk) {
            Ok(nonce) => nonce,
            Err(failed) => return failed.into_response(),
        };
        let text = self
            .document
            .replace("{nonce}", &nonce)
            .replace("{first}", first);
        let plain: Bytes = text.into();
        // Packed anew for each visit, since each has its nonce: quickly.
        let (body, encoding) = if takes_gzip(headers) {
            (packed(&plain, Compression::fast()), Some("gzip"))
        } else {
            (plain, None)
        };
        let mut response = Response::new(Body::from(body));
        let head = response.headers_mut();
        set(head, header::CONTENT_TYPE, "text/html; charset=utf-8");
        set(head, header::CACHE_CONTROL, "no-store");
        head.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        set(head, header::X_FRAME_OPTIONS, "DENY");
        set(head, header::REFERRER_POLICY, "no-referrer");
        set(
            head,
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        );
        set(
            head,
            HeaderName::from_static("permissions-policy"),
            "publickey-credentials-get=(self), publickey-credentials-create=(self), camera=(), microphone=(), geolocation=()",
        );
        everywhere(head, encoding);
        response
    }

    fn reply(&self, file: &File, headers: &HeaderMap) -> Response {
        let known = headers.get(header::IF_NONE_MATCH) == Some(&file.tag);
        let (body, encoding) = if known {
            (Bytes::new(), None)
        } else if takes_gzip(headers) {
            (file.packed.clone(), Some("gzip"))
        } else {
            (file.plain.clone(), None)
        };
        let mut response = Response::new(Body::from(body));
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let head = response.headers_mut();
        set(head, header::CONTENT_TYPE, file.kind);
        set(head, header::CACHE_CONTROL, file.cache);
        head.insert(header::ETAG, file.tag.clone());
        // A worker has a policy of its own: it fetches from this origin and runs nothing else. A module has its
        // document's, and saying it with each would be a sixth of a first visit.
        if file.cache != FOR_EVER {
            head.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        }
        everywhere(head, encoding);
        response
    }
}

/// What each reply of the app says.
fn everywhere(head: &mut HeaderMap, encoding: Option<&'static str>) {
    set(head, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(head, header::VARY, "accept, accept-encoding");
    set(
        head,
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    );
    if let Some(encoding) = encoding {
        set(head, header::CONTENT_ENCODING, encoding);
    }
}

fn set(head: &mut HeaderMap, name: HeaderName, value: &'static str) {
    head.insert(name, HeaderValue::from_static(value));
}

/// Hash of all that the app is: each version has addresses of its own, so no browser mixes two.
fn version() -> String {
    let mut context = Context::new(&SHA256);
    for text in [INDEX, STYLE, WORKER, MANIFEST, ICON] {
        context.update(text.as_bytes());
    }
    for (name, text) in MODULES {
        context.update(name.as_bytes());
        context.update(text.as_bytes());
    }
    let mut version = hex(context.finish().as_ref());
    version.truncate(16);
    version
}

/// The document's policy. The one style element is named by its hash; scripts come from this origin, and
/// one of them may name the worker's address (the policy `countersign` in main.js).
fn policy() -> HeaderValue {
    let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()).as_ref());
    let text = format!(
        "default-src 'none'; script-src 'self'; style-src 'sha256-{style}'; img-src 'self'; connect-src 'self'; \
         manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types countersign"
    );
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING);
    accepted
        .and_then(|a| a.to_str().ok())
        .is_some_and(|a| a.split(',').any(|e| e.trim().starts_with("gzip")))
}

fn packed(plain: &[u8], how: Compression) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), how);
    // Writing to memory cannot fail.
    let _ = encoder.write_all(plain);
    encoder.finish().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_31_the_policy_lets_nothing_in_and_nobody_frame_the_page() {
        let policy = policy();
        let policy = policy.to_str().unwrap();
        for part in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(part), "{part}");
        }
        for open in ["unsafe", "http:", "https:", "data:", "blob:", "*"] {
            assert!(!policy.contains(open), "{open}");
        }
    }

    /// Every module that a module imports is served, and what is served is imported.
    #[test]
    fn the_modules_are_whole() {
        for (name, text) in MODULES {
            for after in text.split("from \"./").skip(1) {
                let wanted = after.split('"').next().unwrap();
                assert!(
                    MODULES.iter().any(|(n, _)| *n == wanted),
                    "{name}: {wanted}"
                );
            }
            let from = format!("from \"./{name}\"");
            assert!(
                *name == "main.js" || MODULES.iter().any(|(_, t)| t.contains(&from)),
                "{name}"
            );
        }
    }

    /// Nothing parses HTML and nothing evaluates text, whatever Trusted Types would say.
    #[test]
    fn attack_10_no_module_makes_markup_of_text() {
        for (name, text) in MODULES {
            for sink in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "Function(",
                "DOMParser",
                "srcdoc",
            ] {
                assert!(!text.contains(sink), "{name}: {sink}");
            }
        }
    }

    #[test]
    fn the_app_is_small() {
        let sum: usize = MODULES
            .iter()
            .map(|(_, t)| packed(t.as_bytes(), Compression::best()).len())
            .sum();
        let document = INDEX.replace("{style}", STYLE);
        let document = packed(document.as_bytes(), Compression::fast()).len();
        let worker = packed(WORKER.as_bytes(), Compression::best()).len();
        assert!(sum + document + worker < 60_000, "{sum} {document}");
    }
}
