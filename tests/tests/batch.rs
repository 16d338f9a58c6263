//! Many packages, one approval: npm, pnpm and Yarn workspaces with a real registry.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use serde_json::{Value, json};
use stand::{
    Output,
    api::{Job, POLICY, Small},
    daemon::Daemon,
    packages::npm_package,
    parts::{self, Issuer, Verdaccio},
    proxy::{Fault, Proxy},
    run,
    team::{PUBLISH, Waiting},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

struct Stage {
    registry: Verdaccio,
    proxy: Proxy,
    small: Small,
    root: PathBuf,
}

impl Stage {
    async fn start() -> Self {
        let registry = Verdaccio::start().await.unwrap();
        let proxy = Proxy::start(&registry.url).await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let builder = Daemon::builder()
            .issuer("github", "github", &issuer.url, None)
            .registry("npm", "npm", &proxy.url)
            .policy(POLICY);
        let small = Small::with_token(builder, issuer, ("npm", &registry.token))
            .await
            .unwrap();
        let root = small.daemon.dir().join("monorepo");
        fs::create_dir(&root).unwrap();
        let manifest = json!({"name": "monorepo", "private": true, "workspaces": ["packages/*"]});
        fs::write(root.join("package.json"), manifest.to_string()).unwrap();
        Self {
            registry,
            proxy,
            small,
            root,
        }
    }

    /// Adds a package to the workspace.
    fn package(&self, name: &str, version: &str, extra: &Value) {
        let folder = self.root.join("packages").join(name.replace('/', "+"));
        npm_package(&folder, name, version, extra).unwrap();
    }

    /// Starts `countersign publish npm --workspaces <args>` at the root, as the CI job.
    async fn publish(&self, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<(Waiting, Job)> {
        let all: Vec<&str> = [&["publish", "npm", "--workspaces"], args].concat();
        self.asks(&all, env).await
    }

    /// Starts `countersign <args>` at the root, as a CI job that asks.
    async fn asks(&self, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<(Waiting, Job)> {
        let token = self.small.id_token().await?;
        let env: Vec<_> = [&[("COUNTERSIGN_ID_TOKEN", token.as_str())], env].concat();
        let waiting = Waiting::start(&self.small.daemon, &self.root, args, &env).await?;
        let job = Job::seen_by(&self.small.alice, &waiting.id, &waiting.match_code).await?;
        Ok((waiting, job))
    }

    async fn approve(&self, job: &Job) {
        for device in [&self.small.alice, &self.small.bob] {
            let _: Value = device.approve(job).await.unwrap().ok().unwrap();
        }
    }

    /// Runs `countersign <args>` to its end as the CI job.
    async fn job(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let token = self.small.id_token().await.unwrap();
        let own = [
            ("COUNTERSIGN_BROKER", self.small.daemon.url.as_str()),
            ("COUNTERSIGN_ID_TOKEN", token.as_str()),
        ];
        let env: Vec<_> = own.iter().chain(env).copied().collect();
        let (daemon, root) = (&self.small.daemon, &self.root);
        daemon.countersign(args, &env, root, PUBLISH).await.unwrap()
    }

    async fn shows(&self, name: &str, version: &str) -> bool {
        let shown = self.registry.integrity(name, version).await.unwrap();
        shown.is_some()
    }

    /// Publishes a package past the broker, as somebody did last year.
    async fn published_before(&self, name: &str, version: &str) {
        let folder = self.small.daemon.dir().join("before");
        npm_package(&folder, name, version, &json!({})).unwrap();
        stand::packages::npmrc(&folder, &self.registry.url, &self.registry.token).unwrap();
        let out = run("npm", &["publish"], &[], &folder, PUBLISH).await;
        out.unwrap().ok().unwrap();
    }
}

fn names(job: &Job) -> Vec<String> {
    let items = job.facts.items.iter();
    items
        .map(|i| format!("{}@{}", i.package, i.version))
        .collect()
}

fn path_with(program: &Path) -> String {
    let folder = program.parent().unwrap().display();
    format!("{folder}:{}", std::env::var("PATH").unwrap())
}

/// npm does not try again by itself: what fails is seen at once.
const ONE_TRY: (&str, &str) = ("npm_config_fetch_retries", "0");

#[tokio::test]
async fn a_workspace_is_one_approval_in_order_and_goes_on_where_it_stopped() {
    let stage = Stage::start().await;
    stage.published_before("@acme/old", "1.0.0").await;
    stage.package("@acme/old", "1.0.0", &json!({}));
    stage.package("@acme/tool", "1.0.0", &json!({"private": true}));
    let needs = |kind: &str, name: &str| json!({kind: {name: "*"}});
    let both = json!({"dependencies": {"@acme/b": "*", "@acme/c": "^1.0.0", "left-pad": "*"}});
    stage.package("@acme/a", "1.0.0", &both);
    stage.package("@acme/b", "1.0.0", &needs("dependencies", "@acme/d"));
    stage.package("@acme/c", "1.0.0", &needs("peerDependencies", "@acme/d"));
    stage.package("@acme/d", "1.0.0", &needs("devDependencies", "@acme/a"));
    let next = json!({"optionalDependencies": {"@acme/a": "*"}, "publishConfig": {"tag": "next"}});
    stage.package("@acme/next", "2.0.0-rc.1", &next);

    // Which versions there are decides what is asked for: nothing is asked while the registry is silent.
    stage.proxy.down();
    let silent = stage.job(&["publish", "npm", "--workspaces"], &[]).await;
    assert_eq!(silent.status, Some(1), "{silent}");
    assert!(silent.stderr.contains("which versions of"), "{silent}");
    stage.proxy.up();

    let keep = ["--out", "request.json"];
    let (mut waiting, job) = stage.publish(&keep, &[ONE_TRY]).await.unwrap();
    let order = ["@acme/d", "@acme/b", "@acme/c", "@acme/a"];
    let mut versions = order.map(|n| format!("{n}@1.0.0")).to_vec();
    versions.push("@acme/next@2.0.0-rc.1".to_owned());
    assert_eq!(names(&job), versions);
    for told in [
        "@acme/tool: it is private",
        "@acme/old@1.0.0: it is published already",
    ] {
        assert!(waiting.text().contains(told), "{}", waiting.text());
    }

    // One connection breaks in the middle of a package: the broker sends it again. The next loses its registry.
    stage.proxy.arm("PUT /@acme%2fb ", Fault::CutUp(900));
    stage.proxy.arm("GET /@acme%2fc", Fault::Down);
    for name in ["d", "c", "a"] {
        stage
            .proxy
            .arm(&format!("PUT /@acme%2f{name} "), Fault::None);
    }
    stage.approve(&job).await;
    assert_eq!(waiting.end().await.unwrap(), Some(1), "{}", waiting.text());
    let text = waiting.text();
    for told in [
        "2 of 5 packages are published, not: npm:@acme/c@1.0.0, npm:@acme/a@1.0.0, npm:@acme/next@2.0.0-rc.1",
        "collect --ticket-file request.json",
    ] {
        assert!(text.contains(told), "{told}:\n{text}");
    }
    stage.proxy.up();
    assert!(stage.shows("@acme/b", "1.0.0").await);
    assert!(!stage.shows("@acme/c", "1.0.0").await);

    // The same approval, the rest of it.
    let rest = stage
        .job(&["collect", "--ticket-file", "request.json"], &[ONE_TRY])
        .await;
    assert_eq!(rest.status, Some(0), "{rest}");
    for told in [
        "already out 2 of 5: npm:@acme/b@1.0.0",
        "publishing 3 of 5: npm:@acme/c@1.0.0",
    ] {
        assert!(rest.stderr.contains(told), "{rest}");
    }
    for name in order {
        assert!(stage.shows(name, "1.0.0").await, "{name}");
    }
    let last = stage.registry.package("@acme/next").await.unwrap().unwrap();
    assert_eq!(last["dist-tags"]["next"], "2.0.0-rc.1");
    let tries = |name: &str| stage.proxy.watched(&format!("PUT /@acme%2f{name} ")).len();
    assert_eq!(["d", "b", "c", "a"].map(tries), [1, 2, 1, 1]);

    // Once more there is nothing to ask for.
    let again = stage.job(&["publish", "npm", "--workspaces"], &[]).await;
    assert_eq!(again.status, Some(0), "{again}");
    assert!(again.stdout.contains("nothing to publish"), "{again}");
    let request = ["request", "npm", "--workspaces", "--out", "again.json"];
    let again = stage.job(&request, &[]).await;
    assert_eq!(again.status, Some(7), "{again}");
}

#[tokio::test]
async fn pnpm_and_yarn_workspaces_are_packed_by_their_own_tool() {
    let stage = Stage::start().await;
    let link = json!({"dependencies": {"@acme/base": "workspace:^"}});
    stage.package("@acme/top", "1.0.0", &link);
    stage.package("@acme/base", "1.2.0", &json!({}));
    stage.package("@acme/own", "1.0.0", &json!({"private": true}));
    fs::write(
        stage.root.join("pnpm-workspace.yaml"),
        "packages: ['packages/*']\n",
    )
    .unwrap();
    let pnpm = parts::client("pnpm").unwrap();
    let path = path_with(&pnpm);
    let (mut waiting, job) = stage.publish(&[], &[("PATH", &path)]).await.unwrap();
    assert_eq!(names(&job), ["@acme/base@1.2.0", "@acme/top@1.0.0"]);
    stage.approve(&job).await;
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let shown = stage.registry.package("@acme/top").await.unwrap().unwrap();
    let needs = &shown["versions"]["1.0.0"]["dependencies"]["@acme/base"];
    assert_eq!(needs, "^1.2.0");

    // Yarn, and its own command once for all: what is published already is no part of it.
    fs::remove_file(stage.root.join("pnpm-workspace.yaml")).unwrap();
    fs::write(stage.root.join(".yarnrc.yml"), "").unwrap();
    fs::write(stage.root.join("yarn.lock"), "").unwrap();
    stage.package("@acme/base", "1.3.0", &json!({}));
    stage.package("@acme/top", "1.1.0", &link);
    let yarn = parts::client("yarn").unwrap();
    let offline = [
        ("YARN_ENABLE_TELEMETRY", "0"),
        ("YARN_ENABLE_IMMUTABLE_INSTALLS", "0"),
    ];
    let installed = run(&yarn, &["install"], &offline, &stage.root, PUBLISH).await;
    installed.unwrap().ok().unwrap();
    let path = path_with(&yarn);
    let env = [("PATH", path.as_str()), offline[0]];
    let command = [
        "--",
        "yarn",
        "workspaces",
        "foreach",
        "-A",
        "--no-private",
        "--topological",
        "npm",
        "publish",
    ];
    let (mut waiting, job) = stage.publish(&command, &env).await.unwrap();
    assert_eq!(names(&job), ["@acme/base@1.3.0", "@acme/top@1.1.0"]);
    stage.approve(&job).await;
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let shown = stage.registry.package("@acme/top").await.unwrap().unwrap();
    let needs = &shown["versions"]["1.1.0"]["dependencies"]["@acme/base"];
    assert_eq!(needs, "^1.3.0");
}

#[tokio::test]
async fn two_tarballs_are_one_approval_and_the_needed_one_goes_first() {
    let stage = Stage::start().await;
    let needs = json!({"dependencies": {"@acme/base": "^1.0.0"}});
    stage.package("@acme/top", "2.0.0", &needs);
    stage.package("@acme/base", "1.0.0", &json!({}));
    let mut files = Vec::new();
    for (name, file) in [
        ("@acme/top", "acme-top-2.0.0.tgz"),
        ("@acme/base", "acme-base-1.0.0.tgz"),
    ] {
        let folder = stage.root.join("packages").join(name.replace('/', "+"));
        let packed = run("npm", &["pack"], &[], &folder, PUBLISH).await.unwrap();
        packed.ok().unwrap();
        files.push(folder.join(file).display().to_string());
    }
    let args = ["publish", "npm", &files[0], &files[1]];
    let (mut waiting, job) = stage.asks(&args, &[ONE_TRY]).await.unwrap();
    assert_eq!(names(&job), ["@acme/base@1.0.0", "@acme/top@2.0.0"]);
    stage.proxy.watch_all();
    stage.approve(&job).await;
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    for item in &job.facts.items {
        let (name, version) = (item.package.as_str(), item.version.as_str());
        let shown = stage.registry.integrity(name, version).await.unwrap();
        assert_eq!(shown, Some(item.files[0].digest.sri()), "{name}");
    }
    let sent: Vec<_> = stage.proxy.arrived();
    let sent: Vec<_> = sent.iter().filter(|up| up.starts_with(b"PUT ")).collect();
    assert_eq!(sent.len(), 2);
    assert!(sent[0].starts_with(b"PUT /@acme%2fbase "));
}

#[tokio::test]
async fn sixty_packages_are_one_approval() {
    let stage = Stage::start().await;
    for n in 0..60 {
        let needs = json!({"dependencies": {format!("@acme/p{:02}", n + 1): "*"}});
        stage.package(&format!("@acme/p{n:02}"), "1.0.0", &needs);
    }
    let (mut waiting, job) = stage.publish(&[], &[]).await.unwrap();
    assert_eq!(job.facts.items.len(), 60);
    assert_eq!(names(&job)[0], "@acme/p59@1.0.0");
    stage.approve(&job).await;
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    for n in [0, 30, 59] {
        assert!(stage.shows(&format!("@acme/p{n:02}"), "1.0.0").await);
    }
}

#[tokio::test]
async fn what_does_not_fit_one_approval_is_refused_with_what_to_do() {
    let stage = Stage::start().await;
    let circle = |name: &str| json!({"dependencies": {name: "*"}});
    stage.package("@acme/a", "1.0.0", &circle("@acme/b"));
    stage.package("@acme/b", "1.0.0", &circle("@acme/a"));
    let (waiting, job) = stage.publish(&[], &[]).await.unwrap();
    assert_eq!(names(&job), ["@acme/a@1.0.0", "@acme/b@1.0.0"]);
    let told = "circle; these go first: @acme/a";
    assert!(waiting.text().contains(told), "{}", waiting.text());
    drop(waiting);

    for n in 0..200 {
        let folder = stage.root.join(format!("packages/p{n}"));
        fs::create_dir(&folder).unwrap();
        let manifest = json!({"name": format!("@acme/p{n}"), "version": "1.0.0"});
        fs::write(folder.join("package.json"), manifest.to_string()).unwrap();
    }
    let many = stage.job(&["publish", "npm", "--workspaces"], &[]).await;
    assert_eq!(many.status, Some(2), "{many}");
    assert!(many.stderr.contains("at most 200"), "{many}");
    let no = stage
        .job(
            &[
                "publish",
                "npm",
                "--workspaces",
                "packages/p1",
                "packages/p2",
            ],
            &[],
        )
        .await;
    assert_eq!(no.status, Some(2), "{no}");
}
