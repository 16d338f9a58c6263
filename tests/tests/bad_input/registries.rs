//! What the registry answers on a bad day: refusals, pages, redirects, slowness.

use super::super::{Stage, told};
use stand::proxy::Fault;
use std::{path::Path, time::Duration};

/// Slow, and within everybody's patience.
const SLOW: Fault = Fault::Delay(Duration::from_secs(2));

impl<R> Stage<R> {
    /// Approved, and then something goes wrong: the job says so. Healed, the same approval publishes it once.
    async fn spoiled_and_healed(&self, case: &Spoiled, file: &Path) {
        let what = format!("{}: {}", self.kind, case.what);
        let (mut waiting, job) = self.asks(file).await;
        let text = if case.reads { "GET " } else { self.upload };
        self.proxy.arm_all(self.upload, Fault::None);
        self.proxy.arm_all(text, case.fault);
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
    fault: Fault,
    /// What the person must be told.
    words: &'static [&'static str],
}

const SPOILED: [Spoiled; 4] = [
    Spoiled {
        what: "an upload is refused",
        reads: false,
        fault: Fault::Answer(
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 13\r\nconnection: close\r\n\r\nnot on Sunday",
        ),
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
        fault: Fault::Answer(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        ),
        words: &[
            "nothing was published",
            "collect --ticket-file request.json",
        ],
    },
    Spoiled {
        what: "reads answer with a page",
        reads: true,
        fault: Fault::Answer(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 26\r\nconnection: close\r\n\r\n<html>We are moving</html>",
        ),
        words: &[
            "nothing was published",
            "collect --ticket-file request.json",
        ],
    },
    Spoiled {
        what: "reads redirect",
        reads: true,
        fault: Fault::Answer(
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        ),
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
        fault: Fault::Answer(TOO_MANY),
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
        fault: Fault::Answer(REDIRECT),
        words: &[
            "write the final one as upload_url",
            "nothing was published",
            "collect --ticket-file request.json",
        ],
    },
];

/// Longer than the broker waits for one answer to a question (60 s).
const TOO_SLOW: Spoiled = Spoiled {
    what: "reads take too long",
    reads: true,
    fault: Fault::Delay(Duration::from_secs(75)),
    words: &[
        "the registry cannot be reached",
        "nothing was published",
        "collect --ticket-file request.json",
    ],
};

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

#[tokio::test]
async fn npm_says_what_the_registry_said_and_loses_nothing() {
    let stage = Stage::npm().await;
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
    stage.got_over("slowly", SLOW, &stage.package("slow")).await;
    let shown = stage.registry.integrity("@acme/slow", "1.0.0").await;
    assert!(shown.unwrap().is_some());
}

#[tokio::test]
async fn python_says_what_the_index_said_and_loses_nothing() {
    let stage = Stage::python().await;
    // A page without links is an index that has no files: it is no fault here.
    let page = |c: &&Spoiled| matches!(c.fault, Fault::Answer(a) if a.contains("<html>"));
    let others = SPOILED.iter().filter(|c| !page(c));
    for (n, case) in others.chain(&CLEAR).enumerate() {
        let built = stage.built(&format!("acme-spoiled{n}")).await;
        stage.spoiled_and_healed(case, &built.wheel).await;
    }
    // twine itself repeats an upload after a 5xx, and gets the outcome of the one that is under way.
    for (name, fault) in [
        ("acme-unclear", Fault::Answer(UNAVAILABLE)),
        ("acme-slow", SLOW),
    ] {
        let built = stage.built(name).await;
        stage.got_over(name, fault, &built.wheel).await;
        let file = built.wheel.file_name().unwrap().to_str().unwrap();
        assert!(stage.registry.file(file).is_some(), "{file}");
    }
}

#[tokio::test]
async fn cargo_says_what_the_registry_said_and_loses_nothing() {
    let stage = Stage::cargo().await;
    for (n, case) in SPOILED.iter().chain(&CLEAR).enumerate() {
        let file = stage.package(&format!("acme-spoiled{n}")).await;
        stage.spoiled_and_healed(case, &file).await;
    }
    // An answer that leaves things open is read back for 90 s before anything is sent again: `sweep` tries that.
    let file = stage.package("acme-slow").await;
    stage.got_over("slowly", SLOW, &file).await;
    for name in ["acme-spoiled0", "acme-slow"] {
        let shown = stage.registry.cksum(name, "1.0.0").await;
        assert!(shown.unwrap().is_some(), "{name}");
    }
}

#[tokio::test]
async fn gems_are_told_what_the_registry_said_and_nothing_is_lost() {
    let stage = Stage::gems().await;
    for (n, case) in SPOILED.iter().enumerate() {
        let file = stage.gem(&format!("acme-spoiled{n}")).await;
        stage.spoiled_and_healed(case, &file).await;
    }
    let file = stage.gem("acme-slow").await;
    stage.got_over("slowly", SLOW, &file).await;
    assert!(stage.registry.gem("acme-slow-1.0.0.gem").is_some());
}

#[tokio::test]
async fn a_registry_that_is_too_slow_is_told_and_the_approval_stays_good() {
    let stage = Stage::gems().await;
    let file = stage.gem("acme-left").await;
    stage.spoiled_and_healed(&TOO_SLOW, &file).await;
    assert!(stage.registry.gem("acme-left-1.0.0.gem").is_some());
}
