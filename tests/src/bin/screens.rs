//! Pictures of every page of the phone app, at 360 and 1280 pixels: `cargo run --bin screens -- docs/screens`.
//!
//! A real broker with a real registry behind it, and a real Chromium. Build the workspace first.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use stand::{
    api::Packed,
    browser::{Browser, Page},
    daemon::Daemon,
    parts::Verdaccio,
    people::{Office, Reply},
};
use std::path::PathBuf;

/// Most bytes of a picture.
const PICTURE_MAX: u64 = 200_000;

const POLICY: &str = r#"
[[package]]
match = ["npm:@acme/*"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 1
factors = ["passkey", "totp"]
version = "semver-release"
tags = ["latest"]
answers = "2h"
"#;

/// What the pictures are of.
struct Scene {
    office: Office,
    waiting: String,
    over: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).context("usage: screens FOLDER")?;
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder)?;
    let registry = Verdaccio::start().await?;
    let scene = scene(&registry).await?;
    let browser = Browser::start().await?;
    for (name, width, dark) in [
        ("alice", 360, false),
        ("anna", 360, true),
        ("arne", 1280, false),
    ] {
        let how = json!({ "width": width, "dark": dark });
        let page = browser.page(name, how).await?;
        let invite = scene.office.invite(name, &["release"], true, &[]).await?;
        let url = &scene.office.daemon.url;
        let shot = Shot {
            page,
            folder: &folder,
            size: if dark {
                format!("{width}-dark")
            } else {
                width.to_string()
            },
        };
        page.goto(&format!("{url}/enroll#{invite}")).await?;
        page.sees("Go on").await?;
        shot.take("enrol").await?;
        page.click("Go on").await?;
        page.sees("Welcome").await?;
        shot.take("enrol-factor").await?;
        page.click("Make a passkey").await?;
        page.sees("to answer").await?;
        shot.take("inbox").await?;
        for (name, path, text) in [
            ("request", scene.waiting.as_str(), "is new: node index.js"),
            ("denied", &scene.over, "Nothing of it can be published"),
            ("history", "/history", "denied by bob"),
            ("packages", "/packages", "Frozen by bob"),
            ("announced", "/intents", "Say what is about to be released"),
            ("notifications", "/notifications", "Quiet hours"),
            ("devices", "/devices", "Add a passkey"),
            ("admin", "/admin", "Registry tokens"),
            ("more", "/more", "Phones, terminals"),
        ] {
            let path = path.strip_prefix(url.as_str()).unwrap_or(path);
            page.goto(&format!("{url}{path}")).await?;
            page.sees(text).await?;
            shot.take(name).await?;
        }
    }
    Ok(())
}

/// One browser's pictures.
struct Shot<'a> {
    page: Page<'a>,
    folder: &'a std::path::Path,
    size: String,
}

impl Shot<'_> {
    async fn take(&self, name: &str) -> anyhow::Result<()> {
        // Of the dark ones two say how they look.
        if self.size.ends_with("dark") && !matches!(name, "inbox" | "request") {
            return Ok(());
        }
        let path = self.folder.join(format!("{name}-{}.png", self.size));
        self.page
            .step("screenshot", json!({ "path": path }))
            .await?;
        let bytes = std::fs::metadata(&path)?.len();
        println!("{} {bytes}", path.display());
        if bytes > PICTURE_MAX {
            bail!(
                "{} has {bytes} bytes; at most {PICTURE_MAX} are wanted",
                path.display()
            );
        }
        Ok(())
    }
}

/// Something on every page: published, denied, frozen, open, and open with a warning.
async fn scene(registry: &Verdaccio) -> anyhow::Result<Scene> {
    let office = Office::start_as(Daemon::builder().named(), POLICY, &registry.url).await?;
    office.store(&registry.token).await?;
    let bob = office.hire("bob", &["release"], true, &[]).await?;
    let before = Packed::new("@acme/left", "1.4.1")?.tgz;
    office.publish(&bob, "@acme/left", "1.4.1", &before).await?;
    let denied = office.open("@acme/left", "1.4.3", b"no").await?;
    good(bob.deny(&denied, false).await?)?;
    let frozen = office.open("@acme/right", "2.0.0", b"no").await?;
    good(bob.deny(&frozen, true).await?)?;
    office
        .open("@acme/a-package-with-quite-a-long-name", "10.20.30", b"new")
        .await?;
    let extra = json!({"scripts": {"postinstall": "node index.js"}, "dependencies": {"left-pad": "^1.3.0"}});
    let bytes = Packed::with("@acme/left", "1.4.2", &extra)?.tgz;
    let waiting = office.open("@acme/left", "1.4.2", &bytes).await?;
    good(waiting.hand_in(&bytes).await?)?;
    Ok(Scene {
        office,
        waiting: waiting.opened.page,
        over: denied.opened.page,
    })
}

fn good(reply: Reply) -> anyhow::Result<()> {
    reply.ok::<Value>().map(drop)
}
