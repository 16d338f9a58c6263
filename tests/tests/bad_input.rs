//! Files that are no package and registries on a bad day, for every kind of registry, by our own client: what
//! the person is told, the exit code, and that nothing is lost or sent twice.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use serde_json::{Value, json};
use stand::{
    Output,
    api::{self, Job, Small},
    cargo::{self, Freighter},
    daemon::Daemon,
    gems::{self, Gems, KEY},
    packages,
    parts::{Issuer, Verdaccio},
    proxy::{Fault, Proxy},
    python::{self, Built, PyPiServer, program, project},
    team::{PUBLISH, Waiting},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// A stage over one kind of registry, behind a proxy that spoils what it is told to.
struct Stage<R> {
    kind: &'static str,
    /// How an upload begins.
    upload: &'static str,
    small: Small,
    proxy: Proxy,
    folder: PathBuf,
    registry: R,
}

impl<R> Stage<R> {
    async fn over(
        kind: &'static str,
        upload: &'static str,
        (registry, token): (R, String),
        proxy: Proxy,
        builder: stand::daemon::Builder,
    ) -> Self {
        let issuer = Issuer::start().await.unwrap();
        let builder = builder.issuer("github", "github", &issuer.url, None);
        let small = Small::with_token(builder, issuer, (kind, &token)).await;
        let small = small.unwrap();
        let folder = small.daemon.dir().join("work");
        fs::create_dir(&folder).unwrap();
        Self {
            kind,
            upload,
            small,
            proxy,
            folder,
            registry,
        }
    }

    /// Clients of Python are in the tests' own environment; npm shall not try again by itself.
    fn env() -> Vec<(String, String)> {
        let venv = program("twine").unwrap();
        let venv = Path::new(&venv).parent().unwrap().display().to_string();
        let path = format!("{venv}:{}", std::env::var("PATH").unwrap());
        vec![
            ("PATH".into(), path),
            ("npm_config_fetch_retries".into(), "0".into()),
        ]
    }

    /// Runs `countersign <args>` to its end as the CI job.
    async fn job(&self, args: &[&str]) -> Output {
        let token = self.small.id_token().await.unwrap();
        let own = [
            ("COUNTERSIGN_BROKER", self.small.daemon.url.as_str()),
            ("COUNTERSIGN_ID_TOKEN", token.as_str()),
        ];
        let more = Self::env();
        let more = more.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let env: Vec<_> = own.into_iter().chain(more).collect();
        let daemon = &self.small.daemon;
        let run = daemon.countersign(args, &env, &self.folder, PUBLISH);
        run.await.unwrap()
    }

    /// A publish that is told no before anybody is asked.
    async fn refused(&self, file: &Path, exit: i32, words: &[&str]) {
        let out = self.job(&["publish", self.kind, &text(file)]).await;
        told(
            &format!("{} {}", self.kind, text(file)),
            out.status,
            &out.stderr,
            exit,
            words,
        );
        assert!(!out.stderr.contains("match code"), "{out}");
    }

    /// Approved, and the broker finds out at the upload what it is: nothing reaches the registry.
    async fn refused_at_the_upload(&self, file: &Path, words: &[&str]) {
        let (mut waiting, job) = self.asks(file).await;
        self.proxy.arm_all(self.upload, Fault::None);
        let before = self.arrived();
        self.approve(&job).await;
        let end = waiting.end().await.unwrap();
        let what = format!("{} {}", self.kind, text(file));
        told(&what, end, &waiting.text(), 1, words);
        assert_eq!(self.arrived(), before, "{what}");
    }

    /// Starts a publish; it waits for its approval.
    async fn asks(&self, file: &Path) -> (Waiting, Job) {
        self.asks_with(file, &[]).await
    }

    /// The same with a command that uploads.
    async fn asks_with(&self, file: &Path, command: &[&str]) -> (Waiting, Job) {
        let token = self.small.id_token().await.unwrap();
        let file = text(file);
        let own = ["publish", self.kind, &file, "--out", "request.json"];
        let dashes = if command.is_empty() { &[][..] } else { &["--"] };
        let args = [&own, dashes, command].concat();
        let more = Self::env();
        let more = more.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let env: Vec<_> = [("COUNTERSIGN_ID_TOKEN", token.as_str())]
            .into_iter()
            .chain(more)
            .collect();
        let waiting = Waiting::start(&self.small.daemon, &self.folder, &args, &env).await;
        let waiting = waiting.unwrap();
        let alice = &self.small.alice;
        let job = Job::seen_by(alice, &waiting.id, &waiting.match_code).await;
        (waiting, job.unwrap())
    }

    async fn approve(&self, job: &Job) {
        for device in [&self.small.alice, &self.small.bob] {
            let _: Value = device.approve(job).await.unwrap().ok().unwrap();
        }
    }

    /// How many uploads came through to the registry.
    fn arrived(&self) -> usize {
        let all = self.proxy.watched(self.upload);
        all.iter().filter(|w| !w.up.is_empty()).count()
    }

    /// Approved, and then something goes wrong: the job says so. Healed, the same approval publishes it once.
    async fn spoiled_and_healed(&self, case: &Spoiled, file: &Path) {
        let what = format!("{}: {}", self.kind, case.what);
        let (mut waiting, job) = self.asks(file).await;
        let text = if case.reads { "GET " } else { self.upload };
        self.proxy.arm_all(self.upload, Fault::None);
        self.proxy.arm_all(text, Fault::Answer(case.answer));
        let before = self.arrived();
        self.approve(&job).await;
        let end = waiting.end().await.unwrap();
        told(&what, end, &waiting.text(), 1, case.words);
        // Once in the line that ends the job, whoever uploaded.
        let all = waiting.text();
        let last = all.lines().find(|l| l.contains("\"exit\":1")).unwrap();
        for word in case.words {
            assert!(last.matches(word).count() <= 1, "{what}: {last}");
        }
        self.proxy.arm_all(text, Fault::None);
        assert_eq!(
            self.arrived(),
            before,
            "{what}: nothing reached the registry"
        );
        let again = self
            .job(&["collect", "--ticket-file", "request.json"])
            .await;
        assert_eq!(again.status, Some(0), "{what}: {again}");
        assert_eq!(self.arrived(), before + 1, "{what}: sent once");
    }

    /// A fault that the broker gets over by itself: the person sees a publish.
    async fn got_over(&self, what: &str, fault: Fault, file: &Path) {
        let (mut waiting, job) = self.asks(file).await;
        self.proxy.arm_all(self.upload, Fault::None);
        let before = self.arrived();
        self.proxy.arm(self.upload, fault);
        self.approve(&job).await;
        let end = waiting.end().await.unwrap();
        assert_eq!(end, Some(0), "{} {what}: {}", self.kind, waiting.text());
        assert_eq!(
            self.arrived(),
            before + 1,
            "{} {what}: sent once",
            self.kind
        );
    }
}

/// A registry's answer while it is ill.
struct Spoiled {
    what: &'static str,
    /// Whether its reads are ill, and not its uploads.
    reads: bool,
    answer: &'static str,
    /// What the person must be told.
    words: &'static [&'static str],
}

const SPOILED: [Spoiled; 4] = [
    Spoiled {
        what: "an upload is refused",
        reads: false,
        answer: "HTTP/1.1 403 Forbidden\r\ncontent-length: 13\r\nconnection: close\r\n\r\nnot on Sunday",
        words: &[
            "the registry said",
            "not on Sunday",
            "nothing was published",
            "collect --ticket-file request.json",
        ],
    },
    Spoiled {
        what: "reads answer 503",
        reads: true,
        answer: "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        words: &[
            "nothing was published",
            "collect --ticket-file request.json",
        ],
    },
    Spoiled {
        what: "reads answer with a page",
        reads: true,
        answer: "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 26\r\nconnection: close\r\n\r\n<html>We are moving</html>",
        words: &[
            "nothing was published",
            "collect --ticket-file request.json",
        ],
    },
    Spoiled {
        what: "reads redirect",
        reads: true,
        answer: "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        words: &[
            "nothing was published",
            "collect --ticket-file request.json",
        ],
    },
];

/// Answers to an upload by which, at a Python index and at a cargo registry, surely nothing was published.
const CLEAR: [Spoiled; 2] = [
    Spoiled {
        what: "an upload comes too soon",
        reads: false,
        answer: TOO_MANY,
        words: &[
            "429 Too Many Requests",
            "try again later",
            "nothing was published",
            "collect --ticket-file request.json",
        ],
    },
    Spoiled {
        what: "an upload is redirected",
        reads: false,
        answer: REDIRECT,
        words: &[
            "write the final one as upload_url",
            "nothing was published",
            "collect --ticket-file request.json",
        ],
    },
];

/// What is said of such an archive.
const BOMB: [&str; 2] = ["unpacks to more than is allowed", "nothing was published"];

const TOO_MANY: &str = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const UNAVAILABLE: &str =
    "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const REDIRECT: &str = "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Answers to an upload that leave open what became of it; npm's registries answer so too when they took it.
const UNCLEAR: [(&str, &str); 4] = [
    ("429", TOO_MANY),
    ("503", UNAVAILABLE),
    (
        "a page",
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\nconnection: close\r\n\r\n<html></html>",
    ),
    ("a redirect", REDIRECT),
];

/// 12 MiB that an archive holds in a five-hundredth of the room. npm unpacks nothing that holds more than a thousandfold.
fn bomb() -> Vec<u8> {
    let block = |n: u32| [&n.to_le_bytes()[..], &[0; 8188]].concat();
    (0..1536).flat_map(block).collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn told(what: &str, status: Option<i32>, text: &str, exit: i32, words: &[&str]) {
    assert_eq!(status, Some(exit), "{what}:\n{text}");
    for word in words {
        assert!(
            text.contains(word),
            "{what}: {word:?} is missing in\n{text}"
        );
    }
    assert!(!text.contains("panicked"), "{what}:\n{text}");
}

/// The first half of a file, under the same name.
fn half(file: &Path, into: &Path) -> PathBuf {
    let bytes = fs::read(file).unwrap();
    fs::create_dir_all(into).unwrap();
    let cut = into.join(file.file_name().unwrap());
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    cut
}

/// A file that changes between the approval and the upload is not sent; put back, it is.
async fn changed_and_put_back<R>(stage: &Stage<R>, file: &Path) {
    let (mut waiting, job) = stage.asks(file).await;
    let bytes = fs::read(file).unwrap();
    fs::write(file, [&bytes[..], b"more"].concat()).unwrap();
    stage.proxy.arm_all(stage.upload, Fault::None);
    let before = stage.arrived();
    stage.approve(&job).await;
    let end = waiting.end().await.unwrap();
    let words = ["changed after it was approved", "approved file"];
    told(stage.kind, end, &waiting.text(), 1, &words);
    assert_eq!(stage.arrived(), before);
    fs::write(file, bytes).unwrap();
    let again = stage
        .job(&["collect", "--ticket-file", "request.json"])
        .await;
    assert_eq!(again.status, Some(0), "{again}");
}

impl Stage<Verdaccio> {
    async fn npm() -> Self {
        let registry = Verdaccio::start().await.unwrap();
        let proxy = Proxy::start(&registry.url).await.unwrap();
        let builder = Daemon::builder()
            .registry("npm", "npm", &proxy.url)
            .policy(api::POLICY);
        let token = registry.token.clone();
        Self::over("npm", "PUT /@acme%2f", (registry, token), proxy, builder).await
    }

    fn package(&self, name: &str) -> PathBuf {
        self.package_with(name, b"module.exports = 1;\n")
    }

    fn package_with(&self, name: &str, index: &[u8]) -> PathBuf {
        let manifest = json!({"name": format!("@acme/{name}"), "version": "1.0.0"}).to_string();
        let entries: [(&str, &[u8]); 2] = [
            ("package/package.json", manifest.as_bytes()),
            ("package/index.js", index),
        ];
        let file = self.folder.join(format!("{name}.tgz"));
        fs::write(&file, packages::tarball(&entries).unwrap()).unwrap();
        file
    }
}

#[tokio::test]
async fn npm_says_what_is_wrong_and_loses_nothing() {
    let stage = Stage::npm().await;
    let whole = stage.package("whole");
    let cut = half(&whole, &stage.folder.join("cut"));
    stage
        .refused(&cut, 2, &["is no npm tarball", "npm pack"])
        .await;
    let page = stage.folder.join("page.tgz");
    fs::write(&page, "<html>404</html>").unwrap();
    stage
        .refused(&page, 2, &["is no npm tarball", "npm pack"])
        .await;
    stage
        .refused(
            &stage.folder.join("none.tgz"),
            1,
            &["Check that the file exists"],
        )
        .await;
    let file = stage.package_with("bomb", &bomb());
    stage.refused_at_the_upload(&file, &BOMB).await;
    changed_and_put_back(&stage, &whole).await;
    for (n, case) in SPOILED.iter().enumerate() {
        stage
            .spoiled_and_healed(case, &stage.package(&format!("spoiled{n}")))
            .await;
    }
}

#[tokio::test]
async fn npms_unclear_answers_are_got_over() {
    let stage = Stage::npm().await;
    for (n, (what, answer)) in UNCLEAR.iter().enumerate() {
        let file = stage.package(&format!("unclear{n}"));
        stage.got_over(what, Fault::Answer(answer), &file).await;
    }
    let slow = Fault::Delay(Duration::from_secs(2));
    stage.got_over("slowly", slow, &stage.package("slow")).await;
    assert!(
        stage
            .registry
            .integrity("@acme/slow", "1.0.0")
            .await
            .unwrap()
            .is_some()
    );
}

impl Stage<PyPiServer> {
    async fn python() -> Self {
        let registry = PyPiServer::start().await.unwrap();
        let upload = registry.upload.trim_end_matches('/');
        let proxy = Proxy::start(upload).await.unwrap();
        let keys = format!("upload_url = \"{}/\"", proxy.url);
        let index = format!("{}/simple/", proxy.url);
        let policy = python::policy(2).replace("\"totp\"", "\"device\", \"totp\"");
        let builder = Daemon::builder()
            .registry_with("pypi", "pypi", &index, &keys)
            .policy(&policy);
        let token = registry.token.clone();
        Self::over("pypi", "POST / ", (registry, token), proxy, builder).await
    }

    async fn built(&self, name: &str) -> Built {
        project(&self.folder, name, "1.0.0").await.unwrap()
    }
}

#[tokio::test]
async fn twine_is_told_what_is_wrong_with_a_file() {
    let stage = Stage::python().await;
    let whole = stage.built("acme-whole").await;
    for file in [&whole.wheel, &whole.sdist] {
        let cut = half(file, &stage.folder.join("cut"));
        stage
            .refused(&cut, 2, &["is cut off", "Build it again"])
            .await;
    }
    let text_file = stage.folder.join("notes.txt");
    fs::write(&text_file, "notes").unwrap();
    let kinds = ["npm pack", "a wheel", "a .crate", "a .gem"];
    stage.refused(&text_file, 2, &kinds).await;
    for name in ["acme-wheel", "acme-sdist"] {
        let module = name.replace('-', "_");
        let data = stage.folder.join(format!("{name}-1.0.0/src/{module}"));
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("zeros.bin"), bomb()).unwrap();
        let bomb = stage.built(name).await;
        let file = match name {
            "acme-wheel" => &bomb.wheel,
            _ => &bomb.sdist,
        };
        stage.refused_at_the_upload(file, &BOMB).await;
    }
    changed_and_put_back(&stage, &whole.wheel).await;

    // A wheel of another project under this name: only the broker looks inside, and says what it found.
    let other = stage.built("acme-other").await;
    let renamed = stage.folder.join("acme_named-1.0.0-py3-none-any.whl");
    fs::copy(&other.wheel, &renamed).unwrap();
    let (mut waiting, job) = stage.asks(&renamed).await;
    stage.approve(&job).await;
    let end = waiting.end().await.unwrap();
    told(
        "another project's wheel",
        end,
        &waiting.text(),
        1,
        &["upload-refused", "nothing was published"],
    );

    // A client that uploads another file than was approved: its error line says what is wrong.
    let (right, wrong) = (
        stage.built("acme-right").await,
        stage.built("acme-wrong").await,
    );
    let (mut waiting, job) = stage
        .asks_with(&right.wheel, &["twine", "upload", &text(&wrong.wheel)])
        .await;
    stage.approve(&job).await;
    let end = waiting.end().await.unwrap();
    told(
        "twine with another file",
        end,
        &waiting.text(),
        1,
        &["HTTPError: 403 Forbidden", "approved"],
    );
}

#[tokio::test]
async fn python_says_what_the_index_said_and_loses_nothing() {
    let stage = Stage::python().await;
    // A page without links is an index that has no files: it is no fault here.
    let pages = SPOILED.iter().filter(|c| !c.answer.contains("<html>"));
    for (n, case) in pages.chain(&CLEAR).enumerate() {
        let built = stage.built(&format!("acme-spoiled{n}")).await;
        stage.spoiled_and_healed(case, &built.wheel).await;
    }
    // twine itself repeats an upload after a 5xx, and gets the outcome of the one that is under way.
    let built = stage.built("acme-unclear").await;
    stage
        .got_over("503", Fault::Answer(UNAVAILABLE), &built.wheel)
        .await;
    assert!(
        stage
            .registry
            .file("acme_unclear-1.0.0-py3-none-any.whl")
            .is_some()
    );
}

#[tokio::test]
async fn cargo_says_what_is_wrong_and_loses_nothing() {
    let registry = Freighter::start().await.unwrap();
    let proxy = Proxy::start(&registry.url).await.unwrap();
    let keys = format!("upload_url = \"{}\"", proxy.url);
    let index = format!("{}/index/", proxy.url);
    let policy = api::POLICY.replace("npm:@acme/*", "crates:acme-*").replace(
        "version = \"semver-release\"\ntags = [\"latest\", \"next\"]",
        "version = \"semver\"",
    );
    let builder = Daemon::builder()
        .registry_with("crates", "crates", &index, &keys)
        .policy(&policy);
    let token = registry.token.clone();
    let upload = "PUT /api/v1/crates/new";
    let stage = Stage::over("crates", upload, (registry, token), proxy, builder).await;
    let package = async |name: &str| {
        let folder = cargo::package(&stage.folder, name, "1.0.0").unwrap();
        if name == "acme-bomb" {
            fs::write(folder.join("zeros.bin"), bomb()).unwrap();
        }
        let args = ["package", "--no-verify", "--allow-dirty", "--offline"];
        cargo::cargo(&folder, &args, &[])
            .await
            .unwrap()
            .ok()
            .unwrap();
        folder.join(format!("target/package/{name}-1.0.0.crate"))
    };

    let whole = package("acme-whole").await;
    let cut = half(&whole, &stage.folder.join("cut"));
    stage
        .refused(&cut, 2, &["is no crate", "cargo package"])
        .await;
    let page = stage.folder.join("page.crate");
    fs::write(&page, "<html>404</html>").unwrap();
    stage
        .refused(&page, 2, &["is no crate", "cargo package"])
        .await;
    let bomb = package("acme-bomb").await;
    stage.refused_at_the_upload(&bomb, &BOMB).await;
    changed_and_put_back(&stage, &whole).await;
    for (n, case) in SPOILED.iter().chain(&CLEAR).enumerate() {
        let file = package(&format!("acme-spoiled{n}")).await;
        stage.spoiled_and_healed(case, &file).await;
    }
    // An answer that leaves things open is read back for 90 s before anything is sent again: `sweep` tries that.
    let shown = stage.registry.cksum("acme-spoiled0", "1.0.0").await;
    assert!(shown.unwrap().is_some());
}

#[tokio::test]
async fn gems_that_are_none_are_told_and_nothing_is_lost() {
    let registry = Gems::start().await.unwrap();
    let proxy = Proxy::start(&registry.url).await.unwrap();
    let policy = api::POLICY.replace("npm:@acme/*", "gems:acme-*").replace(
        "version = \"semver-release\"\ntags = [\"latest\", \"next\"]",
        "version = \"semver\"",
    );
    let builder = Daemon::builder()
        .registry("gems", "rubygems", &proxy.url)
        .policy(&policy);
    let upload = "POST /api/v1/gems";
    let stage = Stage::over("gems", upload, (registry, KEY.into()), proxy, builder).await;
    let gem = async |name: &str| {
        let built = gems::build(&stage.folder, name, "1.0.0", "").await;
        built.unwrap()
    };
    let whole = gem("acme-whole").await;
    let cut = half(&whole, &stage.folder.join("cut"));
    stage.refused(&cut, 2, &["is no gem", "gem build"]).await;
    let page = stage.folder.join("page.gem");
    fs::write(&page, "<html>404</html>").unwrap();
    stage.refused(&page, 2, &["is no gem", "gem build"]).await;
    changed_and_put_back(&stage, &whole).await;
    for (n, case) in SPOILED.iter().enumerate() {
        let file = gem(&format!("acme-spoiled{n}")).await;
        stage.spoiled_and_healed(case, &file).await;
    }
}
