//! Stored tokens: what their registries say of them without a publish, and that a refused one takes no good one's place.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what is missing fails the test, as it should"
)]

use broker::{
    secret::Secret,
    store::{
        Batch, Store as _,
        redb::{Options, Redb},
    },
    vault::{
        Unseal, Vault,
        tokens::{self, NewToken},
    },
    world::World,
};
use serde_json::{Value, json};
use stand::{
    cargo::{self, Freighter},
    daemon::{Builder, Daemon},
    gems::{Gems, KEY},
    nginx::Nginx,
    oci::{DockerRegistry, TokenServer, USER},
    parts::{Clock, Verdaccio},
    people::{Device, NO_REGISTRY, Reply},
    python::{Devpi, PyPiServer},
    team::Team,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

const POLICY: &str = r#"
[[package]]
match = ["secrets:deploy-key"]
callers = [{ issuer = "client-key", client_key = "old-ci" }]
approvers = ["release"]
quorum = 1
factors = ["totp"]
version = "any"
mode = "reveal"
"#;

/// A broker with one admin, and nobody who publishes.
struct House {
    daemon: Daemon,
    admin: Device,
}

impl House {
    async fn start(builder: Builder) -> Self {
        let daemon = builder.policy(POLICY).start().await.unwrap();
        let invite = fs::read_to_string(daemon.invite_path()).unwrap();
        let admin = Device::enroll(&daemon.url, &invite).await.unwrap();
        Self { daemon, admin }
    }

    async fn over(name: &str, kind: &str, url: &str, keys: &str) -> Self {
        let builder = Daemon::builder().registry("secrets", "generic", "");
        Self::start(builder.registry_with(name, kind, url, keys)).await
    }

    async fn act(&self, kind: &str, place: (&str, &str), token: &str) -> Reply {
        let act = json!({"kind": kind, "registry": place.0, "scope": place.1});
        self.admin.act(act, Some(token)).await.unwrap()
    }

    /// The outcome that a stored or rotated token was given.
    async fn put(&self, kind: &str, place: (&str, &str), token: &str) -> String {
        let acted = self.act(kind, place, token).await;
        assert_eq!(acted.body["done"], true, "{}", acted.body);
        let proof = &acted.body["token"]["proof"];
        println!("{place:?} {proof}");
        proof["outcome"].as_str().unwrap().to_owned()
    }

    async fn tokens(&self) -> Vec<Value> {
        let all = self.admin.get("/v1/admin/tokens").await.unwrap();
        all.ok().unwrap()
    }

    async fn check(&self, place: (&str, &str)) -> Value {
        let name = json!({"registry": place.0, "scope": place.1});
        let reply = self.admin.post("/v1/admin/tokens/check", name).await;
        reply.unwrap().ok().unwrap()
    }

    /// A token that the registry refuses is neither rotated to nor stored, and that is in the log.
    async fn refuses(&self, place: (&str, &str), wrong: &str) {
        let before = self.tokens().await;
        let refused = self.act("rotate-token", place, wrong).await;
        assert_eq!(refused.code(), "registry-refused", "{}", refused.body);
        println!("{place:?} {}", refused.body["title"]);
        assert!(!refused.body.to_string().contains(wrong));
        assert_eq!(self.tokens().await, before, "the old one stays");
        let log = self.daemon.log();
        assert!(!log.contains(wrong), "the token is in no log");
    }
}

#[tokio::test]
async fn a_token_that_verdaccio_refuses_takes_no_good_ones_place() {
    let registry = Verdaccio::start().await.unwrap();
    let house = House::over("npm", "npm", &registry.url, "").await;
    let place = ("npm", "@acme/*");
    let refused = house.act("add-token", place, "canary-wrong-token").await;
    assert_eq!(refused.code(), "registry-refused", "{}", refused.body);
    assert!(house.tokens().await.is_empty(), "a first one neither");
    assert_eq!(
        house.put("add-token", place, &registry.token).await,
        "proved"
    );
    house.refuses(place, "canary-wrong-token").await;
    let checked = house.check(place).await;
    assert_eq!(checked["outcome"], "proved", "{checked}");
    assert!(checked["account"].is_string() && checked["at"].is_u64());
    let next = registry.another_token().await.unwrap();
    assert_eq!(house.put("rotate-token", place, &next).await, "proved");
    let tokens = house.tokens().await;
    assert_eq!(tokens.len(), 2);
    assert!(tokens[0]["overlap_until"].is_u64() && tokens[1]["version"] == 2);
    // A registry that is away: the present one works, as far as anybody knows, and stays. A first one is stored.
    drop(registry);
    let third = house.act("rotate-token", place, "canary-third").await;
    assert_eq!(third.code(), "registry-down", "{}", third.body);
    assert_eq!(house.tokens().await, tokens);
    let other = ("npm", "@other/*");
    assert_eq!(house.put("add-token", other, "canary-b").await, "unproved");
}

#[tokio::test]
async fn pypiserver_and_devpi_tell_by_a_form_that_asks_for_nothing() {
    let registry = PyPiServer::start().await.unwrap();
    let keys = format!("upload_url = \"{}\"", registry.upload);
    let house = House::over("pypi", "pypi", &registry.index, &keys).await;
    let place = ("pypi", "acme-demo");
    assert_eq!(
        house.put("add-token", place, &registry.token).await,
        "proved"
    );
    house.refuses(place, "pypi-canary-wrong").await;
    assert_eq!(house.check(place).await["outcome"], "proved");

    let registry = Devpi::start().await.unwrap();
    let token = registry.token("acme-demo").await.unwrap();
    let keys = format!(
        "upload_url = \"{}\"\nuser = \"{}\"",
        registry.upload, registry.user
    );
    let house = House::over("pypi", "pypi", &registry.index, &keys).await;
    assert_eq!(house.put("add-token", place, &token).await, "proved");
    house.refuses(place, "devpi-canary-wrong").await;
    assert_eq!(house.check(place).await["outcome"], "proved");
}

#[tokio::test]
async fn a_cargo_registry_tells_by_a_yank_of_nothing() {
    let registry = Freighter::start().await.unwrap();
    let keys = format!("upload_url = \"{}\"", registry.url);
    let house = House::over("crates", "crates", &registry.index, &keys).await;
    let place = ("crates", "acme-left");
    let wrong = house.act("add-token", place, "canary-wrong-token").await;
    // Nobody can tell: this registry looks at an archive's length before it looks at the token, and to yank is a right
    // of its own. The next one is measured by the one that is there.
    println!("{}", wrong.body);
    assert_eq!(wrong.body["token"]["proof"]["outcome"], "unproved");
    let first = house.put("rotate-token", place, &registry.token).await;
    assert_eq!(first, "proved");
    let folder = cargo::package(house.daemon.dir(), "acme-left", "1.0.0").unwrap();
    cargo::publish_past(&registry, &folder, &registry.token)
        .await
        .unwrap();
    let checked = house.check(place).await;
    assert_eq!(checked["outcome"], "proved", "{checked}");
    // Another user's token: known to the registry, and of no use. One that may publish and no more looks the same here,
    // and the reply says what to do.
    house.refuses(place, &registry.other).await;
    let refused = house.act("rotate-token", place, &registry.other).await;
    let said = refused.body.to_string();
    assert!(said.contains("token remove, then add"), "{said}");
    house.refuses(place, "canary-wrong-again").await;
    assert_eq!(registry.lines("acme-left").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_gem_registry_tells_by_a_push_of_no_gem() {
    let registry = Gems::start().await.unwrap();
    let house = House::over("gems", "rubygems", &registry.url, "").await;
    let place = ("gems", "*");
    assert_eq!(house.put("add-token", place, KEY).await, "proved");
    house.refuses(place, "rubygems_canary-wrong").await;
    registry.wants_factor(&registry.url);
    let checked = house.check(place).await;
    assert_eq!(checked["outcome"], "proved", "{checked}");
    let detail = checked["detail"].as_str().unwrap();
    assert!(detail.contains("second factor"), "{detail}");
    assert!(registry.writes().is_empty(), "no gem was pushed");
}

#[tokio::test]
async fn docker_registry_tells_by_an_upload_that_is_taken_back() {
    let registry = DockerRegistry::start().await.unwrap();
    let keys = format!("user = \"{USER}\"");
    let house = House::over("oci", "oci", &registry.url, &keys).await;
    for place in [("oci", "*"), ("oci", "acme/app")] {
        let stored = house.put("add-token", place, &registry.password).await;
        assert_eq!(stored, "proved", "{place:?}");
        house.refuses(place, "canary-wrong-password").await;
    }
    // It notes that an upload began even after that was taken back, and clears such notes away itself.
    let mut kept = registry.kept();
    kept.retain(|path| !path.components().any(|c| c.as_os_str() == "hashstates"));
    assert_eq!(kept, Vec::<PathBuf>::new());

    let tokens = TokenServer::start().await.unwrap();
    let registry = DockerRegistry::behind(&tokens).await.unwrap();
    let keys = format!("user = \"{USER}\"\ntoken_url = \"{}\"", tokens.url);
    let house = House::over("oci", "oci", &registry.url, &keys).await;
    let place = ("oci", "acme/app");
    assert_eq!(
        house.put("add-token", place, &tokens.password()).await,
        "proved"
    );
    house.refuses(place, "canary-wrong-password").await;
}

#[tokio::test]
async fn what_nobody_can_be_asked_about_is_said_and_can_be_rotated() {
    let server = Nginx::start().await.unwrap();
    let keys =
        "path = \"/store/{package}/{version}/{file}\"\ntoken_header = \"X-Api-Key: {token}\"\n";
    let builder = Daemon::builder()
        .registry_with("files", "http", &server.url, keys)
        .registry("secrets", "generic", "");
    let house = House::start(builder).await;
    for place in [("files", "acme/app"), ("secrets", "deploy-key")] {
        let stored = house.put("add-token", place, "canary-first").await;
        assert_eq!(stored, "unproved", "{place:?}");
        let checked = house.check(place).await;
        assert_eq!(checked["outcome"], "unproved", "{checked}");
    }
    let rotated = house.put("rotate-token", ("files", "acme/app"), "canary-second");
    assert_eq!(rotated.await, "unproved");
}

/// One that is rotated in the broker's own time.
struct Aged {
    house: House,
    clock: Clock,
    _folder: TempDir,
}

impl Aged {
    async fn over(name: &str, kind: &str, url: &str, keys: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Clock::make(folder.path()).await.unwrap();
        let builder = clock.env(Daemon::builder());
        let builder = builder.registry("secrets", "generic", "");
        let house = House::start(builder.registry_with(name, kind, url, keys)).await;
        Self {
            house,
            clock,
            _folder: folder,
        }
    }

    /// Lets time pass, and waits until so many versions are left.
    async fn pass(&mut self, seconds: i64, versions: usize) {
        self.clock
            .pass(&mut self.house.daemon, seconds)
            .await
            .unwrap();
        for _ in 0..200 {
            if self.house.tokens().await.len() == versions {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{:?}", self.house.tokens().await);
    }

    async fn left(&self) -> Vec<Value> {
        let left = self.house.admin.get("/v1/admin/tokens/left").await;
        left.unwrap().ok().unwrap()
    }

    async fn events(&self, kind: &str) -> Vec<Value> {
        let path = "/v1/log/export?from=0&limit=1000";
        let text = match self.house.admin.get(path).await.unwrap().body {
            Value::String(text) => text,
            one => one.to_string(),
        };
        let lines = text.lines().filter(|l| !l.is_empty());
        let events = lines.map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let leaf: Value = serde_json::from_str(line["leaf"].as_str().unwrap()).unwrap();
            leaf["event"].clone()
        });
        events.filter(|e| e["type"] == kind).collect()
    }

    /// A figure, as soon as it is this.
    async fn metric(&self, name: &str, want: u64) {
        for _ in 0..100 {
            if self.house.daemon.metric(name).await.unwrap() == want {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{name} is not {want}");
    }
}

#[tokio::test]
async fn an_old_token_serves_for_an_hour_and_is_an_admins_until_it_is_revoked() {
    let registry = Verdaccio::start().await.unwrap();
    let mut aged = Aged::over("npm", "npm", &registry.url, "").await;
    let place = ("npm", "@acme/*");
    aged.house.put("add-token", place, &registry.token).await;
    let next = registry.another_token().await.unwrap();
    aged.house.put("rotate-token", place, &next).await;
    let tokens = aged.house.tokens().await;
    let [old, new] = tokens.as_slice() else {
        panic!("{tokens:?}");
    };
    let hour = old["overlap_until"].as_u64().unwrap() - new["stored"].as_u64().unwrap();
    assert_eq!(hour, 3600);
    // Just before, it is there; just after, it is not, and that is told everywhere until somebody did it.
    aged.pass(3500, 2).await;
    assert!(aged.left().await.is_empty());
    aged.pass(3700, 1).await;
    let left = aged.left().await;
    assert_eq!((left.len(), &left[0]["version"]), (1, &json!(1)));
    let print = left[0]["fingerprint"].clone();
    assert_eq!(print, old["fingerprint"]);
    let destroyed = aged.events("token-destroyed").await;
    assert_eq!(destroyed.len(), 1);
    assert_eq!(destroyed[0]["end"], "open", "{destroyed:?}");
    aged.metric("countersign_tokens_to_revoke", 1).await;
    aged.house.daemon.restart().await.unwrap();
    aged.metric("countersign_tokens_to_revoke", 1).await;
    let wrong = json!({"fingerprint": "00000000"});
    let path = "/v1/admin/tokens/revoked";
    let none = aged.house.admin.post(path, wrong).await.unwrap();
    assert_eq!(none.code(), "bad-request");
    let of = json!({"fingerprint": print});
    let done: Vec<Value> = aged.house.admin.post(path, of).await.unwrap().ok().unwrap();
    assert_eq!(done.len(), 1);
    assert!(aged.left().await.is_empty());
    assert_eq!(aged.events("token-revoked").await[0]["by"], "robin");
    aged.metric("countersign_tokens_to_revoke", 0).await;
}

#[tokio::test]
async fn what_its_registry_does_not_know_any_more_is_nobodys_to_revoke() {
    // Its password was changed at the registry in time.
    let tokens = TokenServer::start().await.unwrap();
    let registry = DockerRegistry::behind(&tokens).await.unwrap();
    let keys = format!("user = \"{USER}\"\ntoken_url = \"{}\"", tokens.url);
    let mut aged = Aged::over("oci", "oci", &registry.url, &keys).await;
    let place = ("oci", "acme/app");
    aged.house.put("add-token", place, &tokens.password()).await;
    tokens.renew().unwrap();
    let rotated = aged
        .house
        .put("rotate-token", place, &tokens.password())
        .await;
    assert_eq!(rotated, "proved");
    aged.pass(3700, 1).await;
    assert_eq!(aged.events("token-destroyed").await[0]["end"], "unknown");
    assert!(aged.left().await.is_empty());
}

#[tokio::test]
async fn a_token_that_another_place_holds_is_nobodys_to_revoke() {
    let aged = Aged::over("gems", "rubygems", NO_REGISTRY, "").await;
    // The same token in two places: who revoked it for the one would end the other.
    for scope in ["one", "two"] {
        aged.house
            .put("add-token", ("secrets", scope), "canary-in-two-places")
            .await;
    }
    let remove = json!({"kind": "remove-token", "registry": "secrets", "scope": "one"});
    let removed = aged.house.admin.act(remove, None).await.unwrap();
    assert_eq!(removed.body["done"], true, "{}", removed.body);
    assert!(aged.left().await.is_empty());
    let remove = json!({"kind": "remove-token", "registry": "secrets", "scope": "two"});
    aged.house.admin.act(remove, None).await.unwrap();
    assert_eq!(aged.left().await.len(), 1);
    // Stored again, it is in use again.
    aged.house
        .put("add-token", ("secrets", "one"), "canary-in-two-places")
        .await;
    assert!(aged.left().await.is_empty());
}

#[tokio::test]
async fn two_old_versions_of_one_token_do_not_wait_for_each_other_and_a_typed_date_ends_none() {
    let mut aged = Aged::over("gems", "rubygems", NO_REGISTRY, "").await;
    let soon = stand::now().unwrap() + 1000;
    for scope in ["one", "two"] {
        let add =
            json!({"kind": "add-token", "registry": "secrets", "scope": scope, "expires": soon});
        let added = aged.house.admin.act(add, Some("canary-in-two-places"));
        assert_eq!(added.await.unwrap().body["done"], true);
        let next = format!("canary-next-{scope}");
        aged.house
            .put("rotate-token", ("secrets", scope), &next)
            .await;
    }
    aged.pass(3700, 2).await;
    // Neither serves any more, so neither is in use; and nobody but a person said when they expire.
    let ends = aged.events("token-destroyed").await;
    let ends: Vec<_> = ends.iter().map(|e| &e["end"]).collect();
    assert_eq!(ends, ["open", "open"]);
    assert_eq!(aged.left().await.len(), 2);
    aged.house.daemon.restart().await.unwrap();
    aged.metric("countersign_tokens_to_revoke", 2).await;
    assert_eq!(aged.left().await.len(), 2);
}

#[tokio::test]
async fn a_stored_token_is_perhaps_elsewhere_until_an_admin_says_that_it_is_not() {
    let aged = Aged::over("gems", "rubygems", NO_REGISTRY, "").await;
    let place = ("secrets", "deploy-key");
    aged.house.put("add-token", place, "canary-first").await;
    let act =
        json!({"kind": "add-token", "registry": "secrets", "scope": "other", "emptied": true});
    let said = aged.house.admin.act(act, Some("canary-other")).await;
    let said = said.unwrap();
    assert!(said.body["token"]["emptied"].is_u64(), "{}", said.body);
    aged.metric("countersign_tokens_not_emptied", 1).await;
    let tokens = aged.house.tokens().await;
    let print = &tokens[0]["fingerprint"];
    assert!(tokens[0].get("emptied").is_none(), "{tokens:?}");
    let path = "/v1/admin/tokens/emptied";
    let of = json!({"fingerprint": print});
    let done: Vec<Value> = aged.house.admin.post(path, of).await.unwrap().ok().unwrap();
    assert_eq!(done[0]["scope"], "deploy-key");
    assert!(aged.house.tokens().await[0]["emptied"].is_u64());
    aged.metric("countersign_tokens_not_emptied", 0).await;
    let events = aged.events("token-emptied").await;
    assert_eq!((events.len(), &events[0]["by"]), (1, &json!("robin")));
}

/// What an admin sees in a terminal: the checklist, the list, the glance and the report.
#[tokio::test]
async fn a_terminal_says_what_is_left_to_do_about_tokens() {
    let team = Team::start().await.unwrap();
    let shown = async |args: &[&str]| {
        let out = team.admin(args).await.unwrap();
        println!("$ countersign {}\n{}", args.join(" "), out.stdout);
        out.stdout
    };
    let list = shown(&["admin", "token", "list"]).await;
    assert!(list.contains("proved") && list.contains("empty the old places"));
    let print = list.lines().nth(1).unwrap();
    let print = print.split_whitespace().nth(2).unwrap().to_owned();
    let status = shown(&["admin", "status"]).await;
    assert!(
        status.contains("! 1 token may still lie elsewhere"),
        "{status}"
    );
    let report = shown(&["admin", "report"]).await;
    assert!(report.contains("nobody said that it is nowhere else"));
    let checked = team.admin(&["admin", "token", "check", "npm", "*"]).await;
    let checked = checked.unwrap();
    assert_eq!(checked.status, Some(0), "{checked}");
    assert!(
        checked.stdout.starts_with("proved by the registry ("),
        "{checked}"
    );
    let file = team.folder().join("new-token");
    fs::write(&file, "canary-of-the-test").unwrap();
    let file = file.display().to_string();
    let args = ["admin", "token", "add", "secrets", "x", "--token-file"];
    let added = shown(&[&args[..], &[file.as_str()]].concat()).await;
    assert!(added.contains("cannot be proved without publishing"));
    for words in [
        "[ ] the file that it was just read from",
        ".pypirc",
        "gh secret list",
        "token emptied ",
    ] {
        assert!(added.contains(words), "{words}");
    }
    let unproved = team
        .admin(&["admin", "token", "check", "secrets", "x"])
        .await;
    assert_eq!(unproved.unwrap().status, Some(7));
    let emptied = shown(&["admin", "token", "emptied", &print]).await;
    assert!(emptied.contains("npm:* is nowhere but here"), "{emptied}");
    let one = shown(&["admin", "token", "list", "--not-emptied"]).await;
    assert!(one.contains("secrets:x") && !one.contains("npm:*"), "{one}");
    assert!(one.contains("1 of 2 stored"), "{one}");
    let none = shown(&["admin", "token", "left"]).await;
    assert!(none.contains("no old token is left"), "{none}");
}

/// Three hundred tokens, stored by the vault's own calls while the daemon does not run.
async fn fill(folder: &Path, count: usize) {
    let vault = Vault::new(World::system());
    let identity = fs::read_to_string(folder.join("unseal.age")).unwrap();
    let file = fs::read(folder.join("data/vault.json")).unwrap();
    let identity = Unseal::Identity(Secret::new(identity));
    vault.unseal(&file, &identity).unwrap();
    let live = Redb::open(folder.join("data/live.redb"), Options::new(8 << 20)).unwrap();
    let (mut batch, now) = (Batch::new(), World::system().now());
    for n in 0..count {
        let wanted = NewToken {
            registry: &"npm".parse().unwrap(),
            scope: &format!("@acme/a-package-with-a-name-{n:03}")
                .parse()
                .unwrap(),
            token: &Secret::new(format!("canary-{n:03}")),
            expires: (n % 100 == 7).then(|| now.after(3600)),
            proof: None,
            emptied: n % 2 == 0,
            keeps_old: false,
        };
        let added = tokens::add(&vault, &live, batch, &wanted, now);
        batch = added.unwrap().0;
    }
    live.commit(batch).await.unwrap();
}

#[tokio::test]
async fn three_hundred_tokens_are_a_page_and_every_one_can_be_found() {
    let mut team = Team::start().await.unwrap();
    team.daemon.kill9();
    fill(team.daemon.dir(), 299).await;
    team.daemon.restart().await.unwrap();
    let shown = async |args: &[&str]| {
        let all = [&["admin", "token", "list"], args].concat();
        team.admin(&all).await.unwrap().ok().unwrap().stdout
    };
    let page = shown(&[]).await;
    println!("{page}");
    let lines: Vec<_> = page.lines().collect();
    assert_eq!(
        lines.len(),
        1 + 40 + 2,
        "head, tokens, how many more, summary"
    );
    for (at, name) in [(1, "007"), (2, "107"), (3, "207")] {
        assert!(
            lines[at].contains(name) && lines[at].contains("expires"),
            "{}",
            lines[at]
        );
    }
    assert!(lines[41].contains("and 260 more"), "{}", lines[41]);
    assert!(lines[42].starts_with("300 stored; to rotate: 0 now, 3 soon; 150 "));
    assert!(lines.iter().all(|l| l.chars().count() < 160), "{page}");
    assert_eq!(shown(&["--all"]).await.lines().count(), 302);
    assert_eq!(shown(&["--due"]).await.lines().count(), 5);
    let found = shown(&["--registry", "npm", "@acme/a-package-with-a-name-250"]).await;
    // Its own, and the one for everything.
    assert!(
        found.contains("name-250") && found.contains("npm:* "),
        "{found}"
    );
    assert!(found.contains("2 of 300 stored"), "{found}");
    let json = team.admin(&["--json", "admin", "token", "list"]).await;
    let json: Value = serde_json::from_str(&json.unwrap().stdout).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 300);
    let status = team.admin(&["admin", "status"]).await.unwrap().stdout;
    assert!(status.lines().count() < 30, "{status}");
}
