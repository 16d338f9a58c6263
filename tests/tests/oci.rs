//! OCI registries: a real docker-registry and the real skopeo, through the broker.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::{api::Opened, digest::hex, problem::Code, request::Item};
use serde_json::Value;
use stand::{
    api::{self, Api, Job, Reply, Small},
    daemon::Daemon,
    free_ports,
    oci::{self, DockerRegistry, IMAGE, INDEX, Image, TokenServer, USER, basic, sha256},
    parts::Issuer,
    run,
    team::Waiting,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const POLICY: &str = r#"
[[package]]
match = ["oci:acme/*"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 1
factors = ["device", "totp"]
version = "any"
"#;

const LIMIT: Duration = Duration::from_mins(1);

struct Stage {
    registry: DockerRegistry,
    small: Small,
    folder: PathBuf,
}

impl Stage {
    async fn start() -> Self {
        Self::over(DockerRegistry::start().await.unwrap(), "", POLICY).await
    }

    async fn over(registry: DockerRegistry, keys: &str, policy: &str) -> Self {
        Self::with(registry, keys, policy, "").await
    }

    async fn with(registry: DockerRegistry, keys: &str, policy: &str, extra: &str) -> Self {
        let issuer = Issuer::start().await.unwrap();
        let keys = format!("user = \"{USER}\"\n{keys}");
        let builder = Daemon::builder()
            .issuer("github", "github", &issuer.url, None)
            .registry_with("oci", "oci", &registry.url, &keys)
            .policy(policy)
            .extra(extra);
        let token = registry.password.clone();
        let small = Small::with_token(builder, issuer, ("oci", &token)).await;
        let small = small.unwrap();
        let folder = small.daemon.dir().join("work");
        fs::create_dir(&folder).unwrap();
        Self {
            registry,
            small,
            folder,
        }
    }

    /// Starts `countersign publish oci <args>` as the CI job.
    async fn publish(&self, args: &[&str]) -> (Waiting, Job) {
        oci::program("skopeo").unwrap();
        let token = self.small.id_token().await.unwrap();
        let all: Vec<&str> = ["publish", "oci"].iter().chain(args).copied().collect();
        let env = [("COUNTERSIGN_ID_TOKEN", token.as_str())];
        let waiting = Waiting::start(&self.small.daemon, &self.folder, &all, &env);
        let waiting = waiting.await.unwrap();
        let job = Job::seen_by(&self.small.alice, &waiting.id, &waiting.match_code).await;
        (waiting, job.unwrap())
    }

    async fn approve(&self, job: &Job) {
        let _: Value = self.small.alice.approve(job).await.unwrap().ok().unwrap();
    }

    /// A request that is approved and collected; what its holder shows at the registry origin.
    async fn collected(&self, items: &[Item]) -> Pusher {
        let job = self.small.open(items).await.unwrap();
        self.approve(&job).await;
        let credential = job.credential().await.unwrap();
        Pusher {
            basic: basic("countersign", &credential),
            api: self.small.endpoint().unwrap(),
            job,
        }
    }
}

impl Stage {
    /// A request of the CI job that takes uploads before anybody has approved it.
    async fn depositing(&self, items: &[Item]) -> (Pusher, Job) {
        let token = self.small.id_token().await.unwrap();
        let key = hex(&api::random::<16>().unwrap());
        let (body, identity) = api::asking(items, &key);
        let reply = self.small.api.bearer("POST", "/v1/requests", &token, &body);
        let reply = reply.await.unwrap();
        let opened: Opened = reply.ok().unwrap();
        let api = Api::of(&self.small.daemon).unwrap();
        let job = || Job::opened(api.clone(), &reply, identity.clone()).unwrap();
        let pusher = Pusher {
            basic: basic("countersign", &opened.deposit.unwrap()),
            api: self.small.endpoint().unwrap(),
            job: job(),
        };
        (pusher, job())
    }

    /// Files without a name that the broker keeps in its spool.
    fn spooled(&self, spool: &Path) -> usize {
        let open = format!("/proc/{}/fd", self.small.daemon.id().unwrap());
        let open = fs::read_dir(open).unwrap();
        let to = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        to.filter(|to| to.starts_with(spool)).count()
    }
}

/// Whoever holds a credential.
struct Pusher {
    api: Api,
    basic: String,
    job: Job,
}

impl Pusher {
    async fn blob(&self, name: &str, blob: &[u8]) -> Reply {
        oci::push_blob(&self.api, &self.basic, name, blob)
            .await
            .unwrap()
    }

    async fn manifest(&self, path: &str, bytes: &[u8], kind: &str) -> Reply {
        oci::put_manifest(&self.api, &self.basic, path, bytes, kind)
            .await
            .unwrap()
    }

    async fn call(&self, method: &str, path: &str) -> Reply {
        let headers = [("authorization", self.basic.as_str())];
        self.api
            .call(method, path, &headers, Vec::new())
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn an_image_of_umoci_is_pushed_by_skopeo_only_after_approval() {
    let stage = Stage::start().await;
    let dir = stage.folder.clone();
    fs::write(dir.join("hello"), "hello\n").unwrap();
    for args in [
        ["init", "--layout", "image", "", ""],
        ["new", "--image", "image:1.4.2", "", ""],
        [
            "insert",
            "--rootless",
            "--image=image:1.4.2",
            "hello",
            "/hello",
        ],
    ] {
        let args: Vec<_> = args.into_iter().filter(|a| !a.is_empty()).collect();
        let done = run("umoci", &args, &[], &dir, LIMIT).await.unwrap();
        done.ok().unwrap();
    }
    let args = ["acme/app:1.4.2", "--layout", "image"];
    let (mut waiting, job) = stage.publish(&args).await;
    let files = &job.facts.items[0].files;
    assert_eq!(files.len(), 3, "{files:?}");
    let top = &files[2];
    assert_eq!(top.name, "manifests/1.4.2");
    assert!(stage.registry.kept().is_empty());
    stage.approve(&job).await;
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let shown = stage.registry.digest("acme/app", "1.4.2").await.unwrap();
    assert_eq!(shown, Some(top.digest.to_string()));

    // The real client sees it, past the broker.
    let host = stage.registry.url.replace("http://", "docker://");
    let from = format!("{host}/acme/app:1.4.2");
    let creds = format!("--creds={USER}:{}", stage.registry.password);
    let args = ["inspect", "--tls-verify=false", &creds, &from];
    let seen = run("skopeo", &args, &[], &dir, LIMIT).await.unwrap();
    let seen: Value = serde_json::from_str(&seen.ok().unwrap().stdout).unwrap();
    assert_eq!(seen["Digest"], top.digest.to_string());

    // The tag is taken now: neither the same image nor another is asked about again.
    for image in [
        &job.facts.items[0],
        &Image::new(b"x").item("acme/app", "1.4.2").unwrap(),
    ] {
        let token = stage.small.id_token().await.unwrap();
        let again = stage.small.open_raw(&token, std::slice::from_ref(image));
        let again = again.await.unwrap();
        assert_eq!(again.code(), Some(Code::VersionTaken), "{}", again.text);
    }
}

#[tokio::test]
async fn an_index_of_two_and_a_second_tag_are_one_request() {
    let stage = Stage::start().await;
    let (one, two) = (Image::new(b"one"), Image::new(&vec![7; 200_000]));
    let index = oci::index(&[&one, &two]);
    let contents: Vec<&[u8]> = vec![
        &one.config,
        &one.layer,
        &one.manifest,
        &two.config,
        &two.layer,
        &two.manifest,
        &index,
    ];
    oci::layout(&stage.folder.join("both"), &contents, INDEX).unwrap();
    let args = ["acme/app:2.0", "acme/app:2", "--layout", "both"];
    let (mut waiting, job) = stage.publish(&args).await;
    assert_eq!(job.facts.items[0].files.len(), 7);
    stage.approve(&job).await;
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    for tag in ["2.0", "2"] {
        let shown = stage.registry.digest("acme/app", tag).await.unwrap();
        assert_eq!(shown, Some(sha256(&index)), "{tag}");
    }
    let child = sha256(&two.manifest);
    let shown = stage.registry.digest("acme/app", &child).await.unwrap();
    assert_eq!(shown, Some(child));
}

#[tokio::test]
async fn a_registry_with_a_token_server_is_pushed_to_with_short_tokens() {
    let tokens = TokenServer::start().await.unwrap();
    let registry = DockerRegistry::behind(&tokens).await.unwrap();
    let keys = format!("token_url = \"{}\"", tokens.url);
    let stage = Stage::over(registry, &keys, POLICY).await;
    let image = Image::new(b"layer");
    let contents: Vec<&[u8]> = vec![&image.config, &image.layer, &image.manifest];
    oci::layout(&stage.folder.join("image"), &contents, IMAGE).unwrap();
    let args = ["acme/app:1.0", "--layout", "image"];
    let (mut waiting, job) = stage.publish(&args).await;
    stage.approve(&job).await;
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let mut scopes = tokens.scopes.lock().unwrap().clone();
    scopes.sort();
    scopes.dedup();
    assert_eq!(
        scopes,
        ["repository:acme/app:pull", "repository:acme/app:pull,push"]
    );
    assert!(!stage.registry.kept().is_empty());
}

#[tokio::test]
async fn an_image_is_handed_over_and_published_when_the_job_is_gone() {
    let policy = format!("{POLICY}mode = \"deposit\"\n");
    let stage = Stage::over(DockerRegistry::start().await.unwrap(), "", &policy).await;
    let image = Image::new(&vec![3; 300_000]);
    let contents: Vec<&[u8]> = vec![&image.config, &image.layer, &image.manifest];
    oci::layout(&stage.folder.join("image"), &contents, IMAGE).unwrap();
    let (mut waiting, job) = stage.publish(&["acme/app:1.0", "--layout", "image"]).await;
    assert!(stage.registry.kept().is_empty());
    stage.approve(&job).await;
    assert_eq!(waiting.end().await.unwrap(), Some(0), "{}", waiting.text());
    let shown = stage.registry.digest("acme/app", "1.0").await.unwrap();
    assert_eq!(shown, Some(sha256(&image.manifest)));
}

#[tokio::test]
async fn attack_12_and_16_only_the_approved_bytes_reach_the_registry() {
    let stage = Stage::start().await;
    let (image, other) = (Image::new(b"layer"), Image::new(b"other"));
    let item = image.item("acme/app", "1.0").unwrap();
    let pusher = stage.collected(&[item]).await;
    let tag = "/v2/acme/app/manifests/1.0";

    // A manifest with one bit turned, another image's, another type; before and after its blobs.
    let mut swapped = image.manifest.clone();
    let at = swapped.len() - 3;
    swapped[at] ^= 1;
    for (bytes, kind) in [
        (&swapped, IMAGE),
        (&other.manifest, IMAGE),
        (&image.manifest, INDEX),
        (&image.manifest, "application/json"),
    ] {
        let reply = pusher.manifest(tag, bytes, kind).await;
        assert!(!reply.good(), "{kind}: {}", reply.text);
        assert!(reply.json()["errors"][0]["message"].is_string());
    }
    // The right one before its blobs: there is no moment with a tag that stands for nothing.
    let reply = pusher.manifest(tag, &image.manifest, IMAGE).await;
    assert!(
        !reply.good() && reply.text.contains("pushed before it"),
        "{}",
        reply.text
    );
    // Blobs that were not approved, and approved digests over other bytes.
    let name = "acme/app";
    let reply = pusher.blob(name, &other.layer).await;
    assert!(
        reply.text.contains("not among the approved"),
        "{}",
        reply.text
    );
    let mut bent = image.layer.clone();
    bent[4] ^= 1;
    let digest = sha256(&image.layer);
    let bent = oci::push_blob_as(&pusher.api, &pusher.basic, name, &bent, &digest);
    let bent = bent.await.unwrap();
    assert!(
        !bent.good() && bent.text.contains("approved were"),
        "{}",
        bent.text
    );
    // A file of the request under another reference of it, or a manifest as a blob.
    let own = format!("/v2/acme/app/manifests/{}", sha256(&image.manifest));
    assert!(!pusher.manifest(&own, &image.manifest, IMAGE).await.good());
    assert!(!pusher.blob(name, &image.manifest).await.good());
    assert!(
        stage.registry.kept().is_empty(),
        "{:?}",
        stage.registry.kept()
    );

    // And then the right ones, each twice: the second gets the recorded outcome.
    for blob in image.blobs() {
        for _ in 0..2 {
            pusher.blob(name, blob).await.ok_status().unwrap();
        }
        let has = pusher
            .call("HEAD", &format!("/v2/acme/app/blobs/{}", sha256(blob)))
            .await;
        assert_eq!(has.status, 200);
    }
    assert!(!pusher.manifest(tag, &swapped, IMAGE).await.good());
    for _ in 0..2 {
        let reply = pusher.manifest(tag, &image.manifest, IMAGE).await;
        reply.ok_status().unwrap();
    }
    assert_eq!(pusher.job.state().await.unwrap(), "published");
    let shown = stage.registry.digest(name, "1.0").await.unwrap();
    assert_eq!(shown, Some(sha256(&image.manifest)));
}

#[tokio::test]
async fn attack_15_a_credential_is_for_one_repository_and_its_tags() {
    let stage = Stage::start().await;
    let image = Image::new(b"layer");
    let item = image.item("acme/app", "1.0").unwrap();
    let pusher = stage.collected(&[item]).await;
    for name in ["acme/other", "acme/app/x", "acme", "library/app"] {
        let begun = oci::begin(&pusher.api, &pusher.basic, name).await;
        assert!(begun.is_err(), "{name}");
        let path = format!("/v2/{name}/manifests/1.0");
        let reply = pusher.manifest(&path, &image.manifest, IMAGE).await;
        assert!(!reply.good(), "{name}");
    }
    for tag in ["latest", "1", "1.0.0", "1.0-x"] {
        let path = format!("/v2/acme/app/manifests/{tag}");
        let reply = pusher.manifest(&path, &image.manifest, IMAGE).await;
        assert!(!reply.good(), "{tag}");
    }
    // One push cannot be taken over by another request's credential, nor for another repository.
    let second = Image::new(b"second").item("acme/second", "1.0").unwrap();
    let second = stage.collected(&[second]).await;
    let place = oci::begin(&pusher.api, &pusher.basic, "acme/app").await;
    let place = place.unwrap();
    for place in [place.clone(), place.replace("acme/app", "acme/second")] {
        assert!(!second.call("PATCH", &place).await.good(), "{place}");
    }
    // Without a credential, with a wrong one, as another user.
    let secret = pusher.job.credential().await.unwrap();
    for other in [
        String::new(),
        basic("countersign", "csc_AAAA"),
        basic(USER, &stage.registry.password),
        basic("robot", &secret),
        format!("Bearer {secret}"),
    ] {
        let headers = [("authorization", other.as_str())];
        let reply = pusher.api.call("GET", "/v2/", &headers, Vec::new()).await;
        assert_eq!(reply.unwrap().status, 401, "{other}");
    }
    assert!(stage.registry.kept().is_empty());
}

#[tokio::test]
async fn attack_16_an_image_in_an_index_must_be_approved_with_it() {
    let stage = Stage::start().await;
    let (one, two) = (Image::new(b"one"), Image::new(b"two"));
    let index = oci::index(&[&one, &two]);
    // Somebody asks for an index and names one of its two images.
    let mut files = one.item("acme/app", "1.0").unwrap().files;
    files.pop();
    let child = sha256(&one.manifest);
    files.push(oci::file(&format!("manifests/{child}"), &one.manifest));
    files.push(oci::file("manifests/1.0", &index));
    let item = oci::item("acme/app", "1.0", files).unwrap();
    let pusher = stage.collected(&[item]).await;
    for blob in one.blobs() {
        pusher.blob("acme/app", blob).await.ok_status().unwrap();
    }
    let path = format!("/v2/acme/app/manifests/{child}");
    let reply = pusher.manifest(&path, &one.manifest, IMAGE).await;
    reply.ok_status().unwrap();
    let before = stage.registry.kept().len();
    let path = format!("/v2/acme/app/manifests/{}", sha256(&two.manifest));
    assert!(!pusher.manifest(&path, &two.manifest, IMAGE).await.good());
    let reply = pusher
        .manifest("/v2/acme/app/manifests/1.0", &index, INDEX)
        .await;
    assert!(
        !reply.good() && reply.text.contains("not approved with it"),
        "{}",
        reply.text
    );
    assert_eq!(stage.registry.kept().len(), before);
    assert_eq!(
        stage.registry.digest("acme/app", "1.0").await.unwrap(),
        None
    );
}

#[tokio::test]
async fn attack_19_a_manifest_about_another_image_is_refused_or_shown() {
    let stage = Stage::start().await;
    let (name, tag) = ("acme/app", "/v2/acme/app/manifests/1.0");
    let (image, other) = (Image::new(b"layer"), Image::new(b"other"));
    stage.registry.push(&other, name, "0.9").await.unwrap();
    // Registries would list this one beside the image that people use.
    let mut about: Value = serde_json::from_slice(&image.manifest).unwrap();
    about["subject"] = oci::descriptor(IMAGE, &other.manifest);
    let about = Image {
        manifest: about.to_string().into_bytes(),
        ..image.clone()
    };
    let pusher = stage.collected(&[about.item(name, "1.0").unwrap()]).await;
    for blob in about.blobs() {
        pusher.blob(name, blob).await.ok_status().unwrap();
    }
    let reply = pusher.manifest(tag, &about.manifest, IMAGE).await;
    assert!(
        reply.text.contains("not approved with it"),
        "{}",
        reply.text
    );
    let tag = "/v2/acme/app/manifests/1.1";
    // A manifest that the tag does not stand for: what people see is not what they would say yes to.
    let child = format!("manifests/{}", sha256(&other.manifest));
    let mut files = image.item(name, "1.1").unwrap().files;
    files.extend(
        other
            .blobs()
            .map(|b| oci::file(&format!("blobs/{}", sha256(b)), b)),
    );
    files.push(oci::file(&child, &other.manifest));
    let item = oci::item(name, "1.1", files).unwrap();
    let pusher = stage.collected(std::slice::from_ref(&item)).await;
    for blob in [image.blobs(), other.blobs()].as_flattened() {
        pusher.blob(name, blob).await.ok_status().unwrap();
    }
    let path = format!("/v2/{name}/{child}");
    let reply = pusher.manifest(&path, &other.manifest, IMAGE).await;
    reply.ok_status().unwrap();
    let reply = pusher.manifest(tag, &image.manifest, IMAGE).await;
    assert!(reply.text.contains("no part of"), "{}", reply.text);
    assert_eq!(stage.registry.digest(name, "1.1").await.unwrap(), None);
    // Handed over before the approval, it is refused before anybody sees it.
    let policy = format!("{POLICY}mode = \"deposit\"\n");
    let stage = Stage::over(DockerRegistry::start().await.unwrap(), "", &policy).await;
    let (pusher, _) = stage.depositing(&[item]).await;
    let reply = pusher.manifest(tag, &image.manifest, IMAGE).await;
    assert!(reply.text.contains("no part of"), "{}", reply.text);
}

#[tokio::test]
async fn attack_53_and_54_unfinished_pushes_take_no_place_of_another_registry_and_end_with_their_request()
 {
    let registry = DockerRegistry::start().await.unwrap();
    let [port] = free_ports::<1>().unwrap();
    let policy = POLICY.replace("[\"oci:", "[\"images:acme/*\", \"oci:");
    let policy = format!("{policy}mode = \"deposit\"\n");
    let second = format!(
        "[[registry]]\nname = \"images\"\nkind = \"oci\"\nurl = \"{}\"\nuser = \"{USER}\"\n\
         listen = \"127.0.0.1:{port}\"\npublic_url = \"http://127.0.0.1:{port}\"\n",
        registry.url
    );
    let stage = Stage::with(registry, "", &policy, &second).await;
    let image = Image::new(&vec![9; 300_000]);
    let item = image.item("acme/app", "1.0").unwrap();
    let (thief, request) = stage.depositing(&[item]).await;
    let post = "/v2/acme/app/blobs/uploads/";
    // What begins nothing takes no place.
    for _ in 0..20 {
        let reply = thief.call("POST", &format!("{post}?digest=x")).await;
        assert_eq!(reply.status, 400, "{}", reply.text);
    }
    let mut places = Vec::new();
    for _ in 0..16 {
        let place = oci::begin(&thief.api, &thief.basic, "acme/app").await;
        places.push(place.unwrap());
    }
    assert_eq!(thief.call("POST", post).await.status, 429);
    // All his pushes together are no longer than what he asked for.
    let piece = async |place: &str| {
        let headers = [("authorization", thief.basic.as_str())];
        let bytes = image.layer.clone();
        let sent = thief.api.call("PATCH", place, &headers, bytes).await;
        sent.is_ok_and(|reply| reply.good())
    };
    assert!(piece(&places[0]).await);
    assert!(!piece(&places[1]).await);
    let spool = stage.small.daemon.dir().join("data/spool");
    assert_eq!(stage.spooled(&spool), 1);
    // The same account's other requests, here and at another registry, are in nobody's way.
    let other = Image::new(b"other");
    let (honest, _) = stage
        .depositing(&[other.item("acme/app", "2.0").unwrap()])
        .await;
    let mut item = other.item("acme/app", "1.0").unwrap();
    item.registry = "images".parse().unwrap();
    let (elsewhere, _) = stage.depositing(&[item]).await;
    let elsewhere = Pusher {
        api: Api::at(&format!("http://127.0.0.1:{port}")).unwrap(),
        ..elsewhere
    };
    for pusher in [honest, elsewhere] {
        let reply = pusher.blob("acme/app", &other.layer).await;
        reply.ok_status().unwrap();
    }
    // What was spooled goes with its request.
    request.cancel().await.unwrap().ok_status().unwrap();
    let start = Instant::now();
    while stage.spooled(&spool) > 0 {
        assert!(start.elapsed() < LIMIT, "a push outlives its request");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn attack_20_nothing_but_pushes_passes() {
    let stage = Stage::start().await;
    let image = Image::new(b"layer");
    stage
        .registry
        .push(&image, "acme/app", "0.9")
        .await
        .unwrap();
    let item = Image::new(b"new").item("acme/app", "1.0").unwrap();
    let pusher = stage.collected(&[item]).await;
    let (top, layer) = (sha256(&image.manifest), sha256(&image.layer));
    for (method, path) in [
        ("DELETE", format!("/v2/acme/app/manifests/{top}")),
        ("DELETE", "/v2/acme/app/manifests/0.9".to_owned()),
        ("DELETE", format!("/v2/acme/app/blobs/{layer}")),
        ("GET", "/v2/acme/app/tags/list".to_owned()),
        ("GET", "/v2/_catalog".to_owned()),
        ("GET", format!("/v2/acme/app/manifests/{top}")),
        ("HEAD", "/v2/acme/app/manifests/0.9".to_owned()),
        ("GET", format!("/v2/acme/app/blobs/{layer}")),
        ("HEAD", format!("/v2/acme/app/blobs/{layer}")),
        ("GET", format!("/v2/acme/app/referrers/{top}")),
        ("PUT", format!("/v2/acme/app/blobs/{layer}")),
        ("POST", "/v2/acme/app/manifests/1.0".to_owned()),
        ("POST", "/v2/".to_owned()),
        ("PUT", "/v2/acme/app/../app/manifests/1.0".to_owned()),
        ("PUT", "/v2/acme%2fapp/manifests/1.0".to_owned()),
        ("GET", "/".to_owned()),
        ("GET", "/token".to_owned()),
    ] {
        let reply = pusher.call(method, &path).await;
        assert!(
            !reply.good() && !(300..400).contains(&reply.status),
            "{method} {path}: {}",
            reply.status
        );
    }
    // A mount from another repository is answered like any other push: by asking for the bytes.
    let mount = format!("/v2/acme/app/blobs/uploads/?mount={layer}&from=acme/secret");
    assert_eq!(pusher.call("POST", &mount).await.status, 202);
    let shown = stage.registry.digest("acme/app", "0.9").await.unwrap();
    assert_eq!(shown, Some(top));
    assert_eq!(
        stage.registry.digest("acme/app", "1.0").await.unwrap(),
        None
    );
}

#[tokio::test]
async fn a_tag_that_appears_meanwhile_is_a_conflict_and_nothing_more_is_sent() {
    let stage = Stage::start().await;
    let image = Image::new(b"layer");
    let item = image.item("acme/app", "1.0").unwrap();
    let pusher = stage.collected(&[item]).await;
    pusher
        .blob("acme/app", &image.layer)
        .await
        .ok_status()
        .unwrap();
    let theirs = Image::new(b"theirs");
    stage
        .registry
        .push(&theirs, "acme/app", "1.0")
        .await
        .unwrap();
    let reply = pusher.blob("acme/app", &image.config).await;
    assert!(!reply.good(), "{}", reply.text);
    let tag = "/v2/acme/app/manifests/1.0";
    assert!(!pusher.manifest(tag, &image.manifest, IMAGE).await.good());
    let shown = stage.registry.digest("acme/app", "1.0").await.unwrap();
    assert_eq!(shown, Some(sha256(&theirs.manifest)));
}

#[tokio::test]
async fn a_registry_that_stops_between_two_pushes_is_gone_on_with() {
    let mut stage = Stage::start().await;
    let image = Image::new(b"layer");
    let item = image.item("acme/app", "1.0").unwrap();
    let pusher = stage.collected(&[item]).await;
    let name = "acme/app";
    pusher.blob(name, &image.config).await.ok_status().unwrap();
    stage.registry.stop();
    let reply = pusher.blob(name, &image.layer).await;
    assert!(!reply.good(), "{}", reply.text);
    stage.registry.run().await.unwrap();
    // The broker dies too: what was spooled is lost, what was recorded is not.
    let half = oci::begin(&pusher.api, &pusher.basic, name).await.unwrap();
    stage.small.daemon.restart().await.unwrap();
    let pusher = Pusher {
        api: stage.small.endpoint().unwrap(),
        ..pusher
    };
    assert_eq!(pusher.call("PATCH", &half).await.status, 404);
    pusher.blob(name, &image.layer).await.ok_status().unwrap();
    let tag = "/v2/acme/app/manifests/1.0";
    let reply = pusher.manifest(tag, &image.manifest, IMAGE).await;
    reply.ok_status().unwrap();
    assert_eq!(pusher.job.state().await.unwrap(), "published");
}

#[tokio::test]
async fn a_blob_in_pieces_follows_on_or_is_refused_and_ends_at_its_limit() {
    let stage = Stage::start().await;
    let image = Image::new(&vec![9; 150_000]);
    let item = image.item("acme/app", "1.0").unwrap();
    let pusher = stage.collected(&[item]).await;
    let place = oci::begin(&pusher.api, &pusher.basic, "acme/app").await;
    let place = place.unwrap();
    let piece = async |range: &str, bytes: &[u8]| {
        let headers = [
            ("authorization", pusher.basic.as_str()),
            ("content-range", range),
        ];
        let sent = pusher.api.call("PATCH", &place, &headers, bytes.to_vec());
        sent.await.unwrap()
    };
    assert_eq!(piece("0-99999", &image.layer[..100_000]).await.status, 202);
    let last = format!("{place}?digest={}", sha256(&image.layer));
    let headers = [("authorization", pusher.basic.as_str())];
    let rest = image.layer[100_000..].to_vec();
    let reply = pusher.api.call("PUT", &last, &headers, rest).await.unwrap();
    reply.ok_status().unwrap();
    assert_eq!(piece("0-1", b"xx").await.status, 404, "it has ended");
    // A piece that leaves a gap, and more bytes than any approved file has (attack 53).
    for (range, bytes) in [("5-6", vec![1; 2]), ("0-1", vec![1; 8 << 20])] {
        let place = oci::begin(&pusher.api, &pusher.basic, "acme/app").await;
        let place = place.unwrap();
        let headers = [
            ("authorization", pusher.basic.as_str()),
            ("content-range", range),
        ];
        let sent = pusher.api.call("PATCH", &place, &headers, bytes);
        // Where the broker hangs up first, the client sees a broken connection.
        assert!(!sent.await.is_ok_and(|reply| reply.good()), "{range}");
    }
}
