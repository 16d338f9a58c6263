//! Rows 12 to 18: other bytes, names, versions and tags than the approved ones. The registry must see nothing at all.

use super::upstream::{TOKEN, Upstream};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{answer::Decision, problem::Code, request::Item};
use serde_json::{Value, json};
use stand::{
    api::{self, Api, Job, Packed, Reply, Small, publish_document},
    packages::tarball,
};

/// One approval is enough here.
async fn start(upstream: &Upstream) -> Small {
    let policy = api::policy_of_one();
    Small::over(&upstream.url, TOKEN, &policy).await.unwrap()
}

fn left(version: &str) -> Packed {
    Packed::new("@acme/left", version).unwrap()
}

/// Opens, has it approved, collects.
async fn approved(small: &Small, items: &[Item]) -> (Job, String) {
    let job = small.open(items).await.unwrap();
    let answer = small.alice.approve(&job).await.unwrap();
    assert!(answer.good(), "{}", answer.text);
    let credential = job.credential().await.unwrap();
    (job, credential)
}

/// An upload that the registry never hears of.
fn refused(upstream: &Upstream, reply: &Reply, why: &str) {
    assert!(!reply.good(), "{why}: {} {}", reply.status, reply.text);
    assert!(
        (400..500).contains(&reply.status),
        "{why}: {} {}",
        reply.status,
        reply.text
    );
    assert!(
        upstream.writes().is_empty(),
        "{why}: the registry was written to"
    );
}

#[tokio::test]
async fn attack_12_bytes_swapped_after_the_approval() {
    let upstream = Upstream::start().await;
    let small = start(&upstream).await;
    let good = left("1.4.2");
    let (job, credential) = approved(&small, &[good.item("latest").unwrap()]).await;
    let endpoint = small.endpoint().unwrap();
    let put = async |document: Vec<u8>| {
        endpoint
            .put(&good.name, &credential, document)
            .await
            .unwrap()
    };

    let len = good.tgz.len();
    let mut swapped = Vec::new();
    // Every bit of the last byte; of the head's time and system, which unpack to the very same files; of the middle.
    for (byte, why) in [
        (len - 1, "last"),
        (len - 5, "checksum"),
        (len / 2, "middle"),
        (4, "time"),
        (9, "system"),
    ] {
        for bit in 0..8 {
            let mut bytes = good.tgz.clone();
            bytes[byte] ^= 1 << bit;
            swapped.push((format!("bit {bit} of the {why} byte"), bytes));
        }
    }
    swapped.push(("a byte less".into(), good.tgz[..len - 1].to_vec()));
    swapped.push(("a byte more".into(), [&good.tgz[..], b"\0"].concat()));
    swapped.push(("nothing".into(), Vec::new()));
    let evil = json!({"description": "x"});
    let evil = Packed::with("@acme/left", "1.4.2", &evil).unwrap();
    swapped.push(("another archive of the same name".into(), evil.tgz.clone()));
    for (why, bytes) in &swapped {
        // Consistent in itself: only the approval speaks against it.
        let document = publish_document("@acme/left", "1.4.2", bytes, "latest").unwrap();
        refused(&upstream, &put(document).await, why);
    }
    let document = evil.document("latest").unwrap();
    assert_eq!(put(document).await.code(), Some(Code::BytesDiffer));
    let document = publish_document("@acme/left", "1.4.2", &swapped[24].1, "latest").unwrap();
    assert_eq!(
        put(document).await.code(),
        Some(Code::BytesDiffer),
        "{}",
        swapped[24].0
    );

    // The approved digests stand in the document, beside other bytes.
    let mut lie = good.json("latest").unwrap();
    lie["_attachments"]["@acme/left-1.4.2.tgz"]["data"] = json!(STANDARD.encode(&evil.tgz));
    refused(
        &upstream,
        &put(lie.to_string().into_bytes()).await,
        "digests of others",
    );
    lie["_attachments"]["@acme/left-1.4.2.tgz"]["length"] = json!(evil.tgz.len());
    refused(
        &upstream,
        &put(lie.to_string().into_bytes()).await,
        "digests of others, right length",
    );
    let cut = good.document("latest").unwrap();
    refused(
        &upstream,
        &put(cut[..cut.len() - 1].to_vec()).await,
        "a document that breaks off",
    );
    assert_eq!(job.state().await.unwrap(), "releasing");

    // The control: the approved bytes go through, once, and unchanged.
    let reply = put(good.document("latest").unwrap()).await;
    assert!(reply.good(), "{}", reply.text);
    let again = put(good.document("latest").unwrap()).await;
    assert!(
        again.good(),
        "the same bytes get the recorded outcome: {}",
        again.text
    );
    let writes = upstream.writes();
    assert_eq!(writes.len(), 1);
    assert!(writes[0].token && writes[0].method == "PUT");
    let sent: Value = serde_json::from_slice(&writes[0].body).unwrap();
    let data = sent["_attachments"]["@acme/left-1.4.2.tgz"]["data"]
        .as_str()
        .unwrap();
    assert_eq!(STANDARD.decode(data).unwrap(), good.tgz);
    let late = put(evil.document("latest").unwrap()).await;
    assert_eq!(late.code(), Some(Code::BytesDiffer), "{}", late.text);
    assert_eq!(upstream.writes().len(), 1);
}

#[tokio::test]
async fn attack_13_the_archive_is_another_package_than_the_request_says() {
    let upstream = Upstream::start().await;
    let small = start(&upstream).await;
    let endpoint = small.endpoint().unwrap();
    for (i, (name, version)) in [
        ("@acme/evil", "2.0.0"),
        ("@acme/left", "9.9.9"),
        ("@acme/evil", "1.0.1"),
    ]
    .into_iter()
    .enumerate()
    {
        let evil = Packed::new(name, version).unwrap();
        let wanted = format!("1.0.{i}");
        // People approve the digest of these bytes, under another name.
        let item = api::item("npm", "@acme/left", &wanted, "latest", &evil.tgz).unwrap();
        let (_, credential) = approved(&small, &[item]).await;
        let as_asked = publish_document("@acme/left", &wanted, &evil.tgz, "latest").unwrap();
        let reply = endpoint
            .put("@acme/left", &credential, as_asked)
            .await
            .unwrap();
        assert_eq!(reply.code(), Some(Code::UploadRefused), "{}", reply.text);
        refused(&upstream, &reply, "the manifest says what was asked");
        for path in ["@acme/left", name] {
            let document = evil.document("latest").unwrap();
            let reply = endpoint.put(path, &credential, document).await.unwrap();
            refused(&upstream, &reply, "the manifest says what the archive says");
        }
    }
}

/// Texts that two parsers would read differently, each made of the honest document.
fn twisted(good: &Value) -> Vec<(&'static str, String)> {
    let text = good.to_string();
    let member = |name: &str, value: &Value| format!("{{\"{name}\":{value},");
    let key = "@acme/left-1.4.2.tgz";
    let mut out = vec![
        (
            "name twice",
            text.replacen('{', &member("name", &json!("@acme/evil")), 1),
        ),
        (
            "name twice, the same",
            text.replacen('{', &member("name", &json!("@acme/left")), 1),
        ),
        (
            "name twice, escaped",
            text.replacen('{', &member("n\\u0061me", &json!("@acme/evil")), 1),
        ),
        (
            "versions twice",
            text.replacen('{', &member("versions", &good["versions"]), 1),
        ),
        (
            "tags twice",
            text.replacen('{', &member("dist-tags", &json!({"latest": "0.0.1"})), 1),
        ),
        (
            "attachments twice",
            text.replacen('{', &member("_attachments", &good["_attachments"]), 1),
        ),
        ("trailing text", format!("{text}{{}}")),
        ("a comment", format!("/**/{text}")),
        ("a byte order mark", format!("\u{feff}{text}")),
        ("a list", format!("[{text}]")),
    ];
    let inside = |from: &str, more: String| text.replacen(from, &format!("{from}{more}"), 1);
    out.push((
        "version twice",
        inside(
            "\"versions\":{",
            format!("\"1.4.2\":{},", good["versions"]["1.4.2"]),
        ),
    ));
    out.push((
        "tag twice",
        inside("\"dist-tags\":{", "\"latest\":\"0.0.1\",".into()),
    ));
    out.push((
        "archive twice",
        inside(
            "\"_attachments\":{",
            format!("\"{key}\":{},", good["_attachments"][key]),
        ),
    ));
    out.push((
        "integrity twice",
        inside("\"dist\":{", "\"integrity\":\"sha512-AA==\",".into()),
    ));
    out.push((
        "manifest name twice",
        inside("\"1.4.2\":{", "\"name\":\"@acme/evil\",".into()),
    ));
    out.push((
        "scripts twice",
        inside(
            "\"1.4.2\":{",
            "\"scripts\":{},\"scripts\":{\"install\":\"evil\"},".into(),
        ),
    ));
    for (why, from) in out.iter().map(|(w, t)| (*w, t)) {
        assert_ne!(from, &text, "{why} changes nothing");
    }
    out
}

#[tokio::test]
async fn attack_14_documents_that_parsers_read_differently() {
    let upstream = Upstream::start().await;
    let small = start(&upstream).await;
    let endpoint = small.endpoint().unwrap();
    let good = left("1.4.2");
    let (_, credential) = approved(&small, &[good.item("latest").unwrap()]).await;
    let document = good.json("latest").unwrap();
    for (why, text) in twisted(&document) {
        let reply = endpoint
            .put(&good.name, &credential, text.into_bytes())
            .await
            .unwrap();
        assert_eq!(
            reply.code(),
            Some(Code::UploadRefused),
            "{why}: {}",
            reply.text
        );
        refused(&upstream, &reply, why);
    }
    // The manifest that registries answer installs from, against the archive that is installed.
    for (why, at, value) in [
        ("a script", "scripts", json!({"postinstall": "evil"})),
        ("a dependency", "dependencies", json!({"evil": "*"})),
        ("a program", "bin", json!({"left": "evil.js"})),
        (
            "an optional dependency",
            "optionalDependencies",
            json!({"evil": "*"}),
        ),
        ("another version", "version", json!("1.4.3")),
        ("another name", "name", json!("@acme/evil")),
    ] {
        let mut document = document.clone();
        document["versions"]["1.4.2"][at] = value;
        let body = document.to_string().into_bytes();
        let reply = endpoint.put(&good.name, &credential, body).await.unwrap();
        assert_eq!(
            reply.code(),
            Some(Code::UploadRefused),
            "{why}: {}",
            reply.text
        );
        refused(&upstream, &reply, why);
    }
    let headers = [("authorization", format!("Bearer {credential}"))];
    let headers = [("authorization", headers[0].1.as_str())];
    for path in [
        "/@Acme%2fleft",
        "/@acme%2fLeft",
        "/@acme%252fleft",
        "/@acme%5cleft",
        "/@acme%2fleft%2f",
        "/@acme%2fleft%00",
        "/@acme%2f%2e%2e%2fleft",
        "/@acme/left/left",
        "/left",
        "//@acme/left",
    ] {
        let body = good.document("latest").unwrap();
        let reply = endpoint.call("PUT", path, &headers, body).await.unwrap();
        refused(&upstream, &reply, path);
    }
    // Archives with a choice of files, or files elsewhere. Their very bytes are approved.
    let json = br#"{"name":"@acme/left","version":"VERSION"}"#;
    let long = format!("package/{}", "a".repeat(90));
    for (i, (why, entries)) in [
        (
            "package.json twice",
            vec!["package/package.json", "package/package.json"],
        ),
        (
            "escapes",
            vec!["package/package.json", "package/../../evil"],
        ),
        ("absolute", vec!["package/package.json", "/etc/passwd"]),
        (
            "a dot between",
            vec!["package/package.json", "package/./package.json"],
        ),
        (
            "other case",
            vec!["package/package.json", "package/PACKAGE.json"],
        ),
        (
            "two roots",
            vec!["package/package.json", "other/package.json"],
        ),
        ("none", vec![long.as_str()]),
    ]
    .into_iter()
    .enumerate()
    {
        let version = format!("2.0.{i}");
        let inner = String::from_utf8_lossy(json).replace("VERSION", &version);
        let entries: Vec<_> = entries.iter().map(|n| (*n, inner.as_bytes())).collect();
        let tgz = tarball(&entries).unwrap();
        let item = api::item("npm", "@acme/left", &version, "latest", &tgz).unwrap();
        let (_, credential) = approved(&small, &[item]).await;
        let document = publish_document("@acme/left", &version, &tgz, "latest").unwrap();
        let reply = endpoint
            .put("@acme/left", &credential, document)
            .await
            .unwrap();
        assert_eq!(
            reply.code(),
            Some(Code::UploadRefused),
            "{why}: {}",
            reply.text
        );
        refused(&upstream, &reply, why);
    }
    // The control: npm, pnpm and a plain slash spell the same package.
    let body = good.document("latest").unwrap();
    let reply = endpoint
        .call("PUT", "/@acme%2Fleft", &headers, body)
        .await
        .unwrap();
    assert!(reply.good(), "{}", reply.text);
}

#[tokio::test]
async fn attack_15_an_approval_used_for_another_package_tag_or_registry() {
    let upstream = Upstream::start().await;
    let small = start(&upstream).await;
    let endpoint = small.endpoint().unwrap();
    let (a, b) = (left("1.4.2"), Packed::new("@acme/right", "1.4.2").unwrap());
    let (_, for_latest) = approved(&small, &[a.item("latest").unwrap()]).await;
    let (_, for_next) = approved(&small, &[b.item("next").unwrap()]).await;
    let mut two_tags = a.json("latest").unwrap();
    two_tags["dist-tags"]["next"] = json!("1.4.2");
    let mut old_tag = a.json("latest").unwrap();
    old_tag["dist-tags"] = json!({"latest": "1.0.0"});
    let bytes = |v: &Value| v.to_string().into_bytes();
    for (why, package, credential, document) in [
        ("another tag", &a, &for_latest, a.document("next").unwrap()),
        (
            "the default tag",
            &b,
            &for_next,
            b.document("latest").unwrap(),
        ),
        (
            "a tag of nobody",
            &a,
            &for_latest,
            a.document("beta").unwrap(),
        ),
        ("two tags", &a, &for_latest, bytes(&two_tags)),
        ("a tag on another version", &a, &for_latest, bytes(&old_tag)),
        (
            "the other's credential",
            &a,
            &for_next,
            a.document("latest").unwrap(),
        ),
        (
            "the other way round",
            &b,
            &for_latest,
            b.document("next").unwrap(),
        ),
        (
            "the other's path",
            &b,
            &for_latest,
            a.document("latest").unwrap(),
        ),
        (
            "the other's document",
            &a,
            &for_latest,
            b.document("next").unwrap(),
        ),
    ] {
        let reply = endpoint
            .put(&package.name, credential, document)
            .await
            .unwrap();
        refused(&upstream, &reply, why);
    }
    // The credential is of no use at the API, nor the ticket's rights with it.
    let api = Api::of(&small.daemon).unwrap();
    let other = small
        .open(&[left("1.5.0").item("latest").unwrap()])
        .await
        .unwrap();
    for path in ["", "/collect", "/cancel"] {
        let method = if path.is_empty() { "GET" } else { "POST" };
        let reply = api
            .bearer(method, &other.path(path), &for_latest, &json!({}))
            .await
            .unwrap();
        assert_eq!(reply.status, 401, "{path}: {}", reply.text);
    }
    // A tag that the policy does not have is refused before anybody is asked.
    let token = small.id_token().await.unwrap();
    let reply = small
        .open_raw(&token, &[a.item("beta").unwrap()])
        .await
        .unwrap();
    assert_eq!(reply.code(), Some(Code::PolicyDenied), "{}", reply.text);
    for (package, credential, tag) in [(&a, &for_latest, "latest"), (&b, &for_next, "next")] {
        let document = package.document(tag).unwrap();
        let reply = endpoint
            .put(&package.name, credential, document)
            .await
            .unwrap();
        assert!(reply.good(), "{}", reply.text);
    }
}

#[tokio::test]
async fn attack_16_a_file_added_to_an_approved_release() {
    let upstream = Upstream::start().await;
    let small = start(&upstream).await;
    let endpoint = small.endpoint().unwrap();
    let good = left("1.4.2");
    let (_, credential) = approved(&small, &[good.item("latest").unwrap()]).await;
    // Right in itself, so that nothing but its being there speaks against it.
    let evil = left("1.4.3").tgz;
    let more = |name: &str, kind: &str| {
        let mut document = good.json("latest").unwrap();
        let data = STANDARD.encode(&evil);
        document["_attachments"][name] =
            json!({"content_type": kind, "data": data, "length": evil.len()});
        document
    };
    let mut version = good.json("latest").unwrap();
    version["versions"]["1.4.3"] =
        left("1.4.3").json("latest").unwrap()["versions"]["1.4.3"].clone();
    let member = |name: &str, value: Value| {
        let mut document = good.json("latest").unwrap();
        document[name] = value;
        document
    };
    for (why, document) in [
        (
            "a second archive",
            more("@acme/left-1.4.3.tgz", "application/octet-stream"),
        ),
        (
            "one before it",
            more("@acme/aaaa-1.4.2.tgz", "application/octet-stream"),
        ),
        ("another kind", more("evil.txt", "text/plain")),
        (
            "a bundle about nothing",
            more(
                "@acme/left-1.4.2.sigstore",
                "application/vnd.dev.sigstore.bundle+json;version=0.3",
            ),
        ),
        ("a second version", version),
        ("owners", member("maintainers", json!([{"name": "evil"}]))),
        ("users", member("users", json!({}))),
        ("a revision", member("_rev", json!("1-x"))),
        ("times", member("time", json!({}))),
        ("access", member("access", json!("everybody"))),
    ] {
        let body = document.to_string().into_bytes();
        let reply = endpoint.put(&good.name, &credential, body).await.unwrap();
        assert_eq!(
            reply.code(),
            Some(Code::UploadRefused),
            "{why}: {}",
            reply.text
        );
        refused(&upstream, &reply, why);
    }
    let reply = endpoint
        .put(&good.name, &credential, good.document("latest").unwrap())
        .await
        .unwrap();
    assert!(reply.good(), "{}", reply.text);
    // And after the release: nothing more with the same credential.
    for (name, next) in [
        ("@acme/left", left("1.4.3")),
        ("@acme/right", Packed::new("@acme/right", "1.0.0").unwrap()),
    ] {
        let reply = endpoint
            .put(name, &credential, next.document("latest").unwrap())
            .await
            .unwrap();
        assert!(!reply.good(), "{}", reply.text);
    }
    assert_eq!(upstream.writes().len(), 1);
}

#[tokio::test]
async fn attack_17_an_item_slipped_into_a_batch() {
    let upstream = Upstream::start().await;
    let small = start(&upstream).await;
    let endpoint = small.endpoint().unwrap();
    let packed =
        ["@acme/left", "@acme/right", "@acme/evil"].map(|n| Packed::new(n, "1.4.2").unwrap());
    let items = packed.each_ref().map(|p| p.item("latest").unwrap());
    let token = small.id_token().await.unwrap();
    let job = Job::open(&small.daemon, &token, &items[..2], "batch")
        .await
        .unwrap();

    // The same key with one item more is not the same request.
    let (mut body, _) = api::asking(&items, "batch");
    body["job_key"] = json!(job.identity.to_public().to_string());
    for token in [token, small.id_token().await.unwrap()] {
        let reply = job
            .api
            .bearer("POST", "/v1/requests", &token, &body)
            .await
            .unwrap();
        assert_eq!(
            reply.code(),
            Some(Code::IdempotencyMismatch),
            "{}",
            reply.text
        );
    }
    // What people are shown is what was asked, and the digest covers all of it.
    let question: Value = small.alice.question(job.id).await.unwrap().ok().unwrap();
    assert_eq!(question["facts"]["items"].as_array().unwrap().len(), 2);
    assert_eq!(job.facts.digest(), job.digest);
    let mut other = job.facts.clone();
    other.items.push(items[2].clone());
    assert_ne!(other.digest(), job.digest);
    let mut answer = small
        .alice
        .answering(&job, Decision::Approve, &job.match_code, None)
        .unwrap();
    answer.statement.request_digest = other.digest();
    answer.signature = proto::digest::hex(&small.alice.key.sign(&answer.statement.canonical()));
    let answer = serde_json::to_value(&answer).unwrap();
    let reply = small
        .alice
        .call("POST", &job.path("/answer"), &answer)
        .await
        .unwrap();
    assert_eq!(reply.code(), Some(Code::BadRequest), "{}", reply.text);

    assert!(small.alice.approve(&job).await.unwrap().good());
    let credential = job.credential().await.unwrap();
    let evil = packed[2].document("latest").unwrap();
    let reply = endpoint.put("@acme/evil", &credential, evil).await.unwrap();
    refused(&upstream, &reply, "a third package");
    let newer = left("1.4.3").document("latest").unwrap();
    let reply = endpoint
        .put("@acme/left", &credential, newer)
        .await
        .unwrap();
    refused(&upstream, &reply, "another version");
    for (i, p) in packed[..2].iter().enumerate() {
        let document = p.document("latest").unwrap();
        let reply = endpoint.put(&p.name, &credential, document).await.unwrap();
        assert!(reply.good(), "{}", reply.text);
        assert_eq!(upstream.writes().len(), i + 1);
    }
    let evil = packed[2].document("latest").unwrap();
    let reply = endpoint.put("@acme/evil", &credential, evil).await.unwrap();
    assert!(!reply.good(), "{}", reply.text);
    assert_eq!(upstream.writes().len(), 2);
}

#[tokio::test]
async fn attack_18_older_repeated_and_rival_versions() {
    let upstream = Upstream::start().await;
    let small = start(&upstream).await;
    let endpoint = small.endpoint().unwrap();
    upstream.has("@acme/left", "2.0.0");
    let ask = async |version: &str| {
        let token = small.id_token().await.unwrap();
        small
            .open_raw(&token, &[left(version).item("latest").unwrap()])
            .await
            .unwrap()
    };
    for old in [
        "1.9.9",
        "0.0.1",
        "2.0.0",
        "2.0.0+evil",
        "3.0.0-rc.1",
        "v3.0.0",
        "3.0",
        "03.0.0",
    ] {
        let reply = ask(old).await;
        let known = [Code::PolicyDenied, Code::BadRequest, Code::VersionTaken];
        assert!(
            reply.code().is_some_and(|c| known.contains(&c)),
            "{old}: {}",
            reply.text
        );
    }

    // Two live requests for one version: both are shown, approving one ends the other.
    let wish = [left("3.0.0").item("latest").unwrap()];
    let (real, rival) = (
        small.open(&wish).await.unwrap(),
        small.open(&wish).await.unwrap(),
    );
    let question: Value = small.alice.question(real.id).await.unwrap().ok().unwrap();
    assert_eq!(question["rivals"], json!([rival.id.to_string()]));
    assert!(small.alice.approve(&real).await.unwrap().good());
    assert_eq!(rival.state().await.unwrap(), "denied");
    for person in [&small.alice, &small.bob] {
        let reply = person.approve(&rival).await.unwrap();
        assert!(!reply.good(), "{}", reply.text);
    }
    assert!(!rival.collect_raw().await.unwrap().good());
    let late = small.open(&wish).await.unwrap();
    let reply = small.alice.approve(&late).await.unwrap();
    assert_eq!(reply.code(), Some(Code::VersionTaken), "{}", reply.text);

    // Both approved at the same moment: one.
    let wish = [left("3.1.0").item("latest").unwrap()];
    let (a, b) = (
        small.open(&wish).await.unwrap(),
        small.open(&wish).await.unwrap(),
    );
    let (x, y) = tokio::join!(small.alice.approve(&a), small.bob.approve(&b));
    let (x, y) = (x.unwrap(), y.unwrap());
    assert_eq!(
        u8::from(x.good()) + u8::from(y.good()),
        1,
        "{} {}",
        x.text,
        y.text
    );

    // Approved, and overtaken before the bytes come: nothing is sent.
    let packed = left("3.2.0");
    let (_, credential) = approved(&small, &[packed.item("latest").unwrap()]).await;
    upstream.has("@acme/left", "3.3.0");
    let document = packed.document("latest").unwrap();
    let reply = endpoint
        .put("@acme/left", &credential, document)
        .await
        .unwrap();
    assert_eq!(reply.code(), Some(Code::PolicyDenied), "{}", reply.text);
    refused(&upstream, &reply, "overtaken");

    // The same version once more, after it was published.
    let packed = left("4.0.0");
    let (_, credential) = approved(&small, &[packed.item("latest").unwrap()]).await;
    let document = packed.document("latest").unwrap();
    assert!(
        endpoint
            .put("@acme/left", &credential, document)
            .await
            .unwrap()
            .good()
    );
    assert!(!ask("4.0.0").await.good());
    assert_eq!(upstream.writes().len(), 1);
}
