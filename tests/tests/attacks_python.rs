//! Rows 12 to 16, 18 and 20 for Python packages: the index must see nothing but what was approved.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is missing fails the test, as it should"
)]

use proto::{problem::Code, request::Item};
use stand::{
    api::{Api, Job, Small},
    daemon::Daemon,
    index::{Dist, Index, TOKEN, form, post},
    parts::Issuer,
};

const POLICY: &str = r#"
[[package]]
match = ["pypi:acme-*"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 1
factors = ["device"]
version = "pep440"
"#;

/// One approval is enough here.
async fn start(index: &Index) -> Small {
    start_with(index, "").await
}

async fn start_with(index: &Index, more: &str) -> Small {
    let issuer = Issuer::start().await.unwrap();
    let keys = format!("upload_url = \"{}/legacy/\"\n{more}", index.url);
    let builder = Daemon::builder()
        .issuer("github", "github", &issuer.url, None)
        .registry_with("pypi", "pypi", &format!("{}/simple/", index.url), &keys)
        .policy(POLICY);
    Small::with_token(builder, issuer, ("pypi", TOKEN))
        .await
        .unwrap()
}

/// Opens, has it approved, collects.
async fn approved(small: &Small, items: &[Item]) -> (Job, String) {
    let job = small.open(items).await.unwrap();
    let answer = small.alice.approve(&job).await.unwrap();
    assert!(answer.good(), "{}", answer.text);
    let credential = job.credential().await.unwrap();
    (job, credential)
}

async fn send(small: &Small, credential: &str, body: Vec<u8>) -> (u16, String) {
    post(&small.daemon.registry_url, credential, body)
        .await
        .unwrap()
}

/// An upload that the index never hears of.
async fn refused(
    small: &Small,
    index: &Index,
    credential: &str,
    body: Vec<u8>,
    why: &str,
) -> String {
    let before = index.writes().len();
    let (status, text) = send(small, credential, body).await;
    assert!((400..500).contains(&status), "{why}: {status} {text}");
    assert_eq!(
        index.writes().len(),
        before,
        "{why}: the index was written to"
    );
    text
}

fn left() -> Dist {
    Dist::wheel("acme-left", "1.4.2")
}

#[tokio::test]
async fn attack_12_python_bytes_swapped_after_the_approval() {
    let index = Index::start().await.unwrap();
    let small = start(&index).await;
    let good = left();
    let (job, credential) = approved(&small, &[good.item(&[]).unwrap()]).await;
    let len = good.bytes.len();
    // One bit in the head, in the first file's data, in the directory, in the last byte.
    for at in [4, 50, len / 2, len - 30, len - 1] {
        let mut bytes = good.bytes.clone();
        bytes[at] ^= 1;
        let other = Dist {
            bytes,
            ..good.clone()
        };
        refused(
            &small,
            &index,
            &credential,
            other.form(),
            &format!("a bit of byte {at}"),
        )
        .await;
    }
    // A right archive with a right form, but not the approved one.
    let evil = Dist::named("acme-left", "1.4.2", "acme-left", "1.4.2", |files| {
        files[0].1 = b"evil".to_vec();
    });
    let text = refused(&small, &index, &credential, evil.form(), "another archive").await;
    assert!(text.contains("approved were"), "{text}");
    // The approved digest in the form, beside other bytes.
    let lie = form(&good.fields(), &[(&good.name, &evil.bytes)]);
    refused(&small, &index, &credential, lie, "the digest of others").await;
    let whole = good.form();
    refused(
        &small,
        &index,
        &credential,
        whole[..whole.len() - 20].to_vec(),
        "half an upload",
    )
    .await;
    assert_eq!(job.state().await.unwrap(), "releasing");

    // The control: the approved bytes go through, once, and unchanged; a repeat gets the recorded outcome.
    for _ in 0..2 {
        let (status, text) = send(&small, &credential, good.form()).await;
        assert_eq!(status, 200, "{text}");
    }
    assert_eq!(index.file(&good.name), Some(good.bytes.clone()));
    let writes = index.writes();
    assert_eq!(writes.len(), 1);
    assert!(writes[0].token && writes[0].path == "/legacy/");
    refused(
        &small,
        &index,
        &credential,
        evil.form(),
        "after it was published",
    )
    .await;
}

#[tokio::test]
async fn attack_13_python_a_wheel_of_another_project_or_version() {
    let index = Index::start().await.unwrap();
    let small = start(&index).await;
    for (i, (inner, version)) in [("acme-evil", "1.0"), ("acme-left", "9.9")]
        .into_iter()
        .enumerate()
    {
        // People approve the digest of these bytes under this name.
        let wanted = format!("1.{i}");
        let version = if version == "1.0" {
            wanted.clone()
        } else {
            version.to_owned()
        };
        let evil = Dist::named("acme-left", &wanted, inner, &version, |_| {});
        let (_, credential) = approved(&small, &[evil.item(&[]).unwrap()]).await;
        let text = refused(
            &small,
            &index,
            &credential,
            evil.form(),
            "the form says what was asked",
        )
        .await;
        assert!(text.contains("another project or version"), "{text}");
        let honest = Dist {
            project: inner.to_owned(),
            version,
            ..evil.clone()
        };
        refused(
            &small,
            &index,
            &credential,
            honest.form(),
            "the form says what the wheel says",
        )
        .await;
    }
    // The index is filled from the form: it may say nothing else than the file.
    let good = Dist::wheel("acme-left", "2.0");
    let (_, credential) = approved(&small, &[good.item(&[]).unwrap()]).await;
    for (field, value) in [
        ("name", "acme-evil"),
        ("version", "3.0"),
        ("requires_dist", "evil"),
        ("summary", "another"),
    ] {
        let mut fields = good.fields();
        fields
            .iter_mut()
            .filter(|f| f.0 == field)
            .for_each(|f| value.clone_into(&mut f.1));
        let body = form(&fields, &[(&good.name, &good.bytes)]);
        let text = refused(&small, &index, &credential, body, field).await;
        assert!(text.contains(field), "{text}");
    }
    assert_eq!(
        send(&small, &credential, good.form()).await.0,
        200,
        "the control"
    );
}

/// What is done to the bytes of a wheel.
type Twist = fn(&mut Vec<u8>);

#[tokio::test]
async fn attack_14_python_archives_and_forms_that_parsers_read_differently() {
    let index = Index::start().await.unwrap();
    let small = start(&index).await;
    let mut version = 0;
    let mut next = || {
        version += 1;
        format!("1.{version}")
    };
    let wheels: [(&str, Twist); 4] = [
        ("bytes before the archive", |b| b.insert(0, b'x')),
        ("bytes behind the archive", |b| b.push(b'x')),
        ("a local header that differs", |b| b[30] ^= 1),
        ("cut short", |b| b.truncate(b.len() - 1)),
    ];
    for (why, change) in wheels {
        let mut dist = Dist::wheel("acme-left", &next());
        change(&mut dist.bytes);
        let (_, credential) = approved(&small, &[dist.item(&[]).unwrap()]).await;
        refused(&small, &index, &credential, dist.form(), why).await;
    }
    let contents: [(&str, stand::index::Change); 4] = [
        ("a name that escapes", |f| {
            f.push(("../evil.py".into(), vec![]));
        }),
        ("one name twice", |f| {
            f.push(("acme_left/__INIT__.py".into(), vec![]));
        }),
        ("a second info folder", |f| {
            f.push(("evil-1.0.dist-info/METADATA".into(), vec![]));
        }),
        ("a name twice in METADATA", |f| {
            f[1].1.extend_from_slice(b"Name: acme-evil\n");
        }),
    ];
    for (why, change) in contents {
        let version = next();
        let dist = Dist::named("acme-left", &version, "acme-left", &version, change);
        let (_, credential) = approved(&small, &[dist.item(&[]).unwrap()]).await;
        refused(&small, &index, &credential, dist.form(), why).await;
    }
    let good = Dist::wheel("acme-left", &next());
    let (_, credential) = approved(&small, &[good.item(&[]).unwrap()]).await;
    let evil = Dist::wheel("acme-evil", "1.0");
    let file = (good.name.as_str(), good.bytes.as_slice());
    let mut twice = good.fields();
    twice.insert(0, ("name".into(), "acme-evil".into()));
    refused(
        &small,
        &index,
        &credential,
        form(&twice, &[file]),
        "a field twice",
    )
    .await;
    let two = form(&good.fields(), &[file, (&evil.name, &evil.bytes)]);
    refused(&small, &index, &credential, two, "two files").await;
    let before = [b"x\r\n", &good.form()[..]].concat();
    refused(&small, &index, &credential, before, "text before the form").await;
    let behind = [&good.form()[..], &evil.form()].concat();
    refused(&small, &index, &credential, behind, "a second form").await;
    assert_eq!(
        send(&small, &credential, good.form()).await.0,
        200,
        "the control"
    );
}

#[tokio::test]
async fn attack_15_python_an_approval_used_for_another_project_or_version() {
    let index = Index::start().await.unwrap();
    let small = start(&index).await;
    let good = left();
    let (_, credential) = approved(&small, &[good.item(&[]).unwrap()]).await;
    for other in [
        Dist::wheel("acme-right", "1.4.2"),
        Dist::wheel("acme-left", "1.4.3"),
    ] {
        let text = refused(&small, &index, &credential, other.form(), &other.name).await;
        assert!(text.contains("not what was approved"), "{text}");
    }
    // No other credential than this request's, in no other place.
    let body = good.form();
    for wrong in [
        "",
        "x",
        TOKEN,
        &credential[..credential.len() - 1],
        &credential.to_uppercase(),
    ] {
        refused(&small, &index, wrong, body.clone(), wrong).await;
    }
    let reply = stand::http()
        .unwrap()
        .post(format!("{}/legacy/", small.daemon.registry_url))
        .header("content-type", "multipart/form-data; boundary=a-boundary")
        .basic_auth("maint", Some(&credential))
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 403, "another user name");
    assert!(index.writes().is_empty());
}

#[tokio::test]
async fn attack_16_python_a_file_added_to_an_approved_release() {
    let index = Index::start().await.unwrap();
    let small = start(&index).await;
    let one = left();
    let two = left().tagged("py2.py3");
    let evil = left().tagged("cp39");
    let (job, credential) = approved(&small, &[one.item(&[&two]).unwrap()]).await;
    let text = refused(&small, &index, &credential, evil.form(), "a third file").await;
    assert!(text.contains("not among the approved files"), "{text}");
    assert_eq!(send(&small, &credential, one.form()).await.0, 200);
    refused(
        &small,
        &index,
        &credential,
        evil.form(),
        "a third file, between the two",
    )
    .await;
    assert_eq!(job.state().await.unwrap(), "releasing", "one of two files");
    // The version exists now by our own first file, which must not stand in the way of the second.
    assert_eq!(send(&small, &credential, two.form()).await.0, 200);
    assert_eq!(job.state().await.unwrap(), "published");
    refused(&small, &index, &credential, evil.form(), "afterwards").await;
    // Nor does another request get it in.
    let token = small.id_token().await.unwrap();
    for item in [evil.item(&[]).unwrap(), evil.item(&[&one, &two]).unwrap()] {
        let reply = small.open_raw(&token, &[item]).await.unwrap();
        assert!(!reply.good(), "{}", reply.text);
    }
    let mut names: Vec<_> = [&one.name, &two.name]
        .iter()
        .map(|n| index.file(n).is_some())
        .collect();
    names.push(index.file(&evil.name).is_none());
    assert_eq!(names, [true; 3]);

    // Somebody else's file slips into the release while it is being published: nothing more of it is sent.
    let first = Dist::wheel("acme-other", "1.0");
    let second = first.clone().tagged("py2.py3");
    let (_, credential) = approved(&small, &[first.item(&[&second]).unwrap()]).await;
    assert_eq!(send(&small, &credential, first.form()).await.0, 200);
    index.has("acme_other-1.0-cp39-none-any.whl", b"evil");
    refused(
        &small,
        &index,
        &credential,
        second.form(),
        "a release that is not ours alone",
    )
    .await;
}

#[tokio::test]
async fn attack_18_python_older_and_repeated_versions() {
    let index = Index::start().await.unwrap();
    let small = start(&index).await;
    index.has("acme_left-2.0-py3-none-any.whl", b"x");
    for old in [
        "1.9",
        "2.0",
        "2.0.0",
        "2.0.dev1",
        "2.0rc1",
        "1.9.post1",
        "2.0+evil",
    ] {
        let token = small.id_token().await.unwrap();
        let dist = Dist::wheel("acme-left", old);
        let reply = small
            .open_raw(&token, &[dist.item(&[]).unwrap()])
            .await
            .unwrap();
        let known = [Code::PolicyDenied, Code::VersionTaken];
        if old == "2.0+evil" {
            // A local version is newer by PEP 440; whether there may be one is the index's to say.
            continue;
        }
        assert!(
            reply.code().is_some_and(|c| known.contains(&c)),
            "{old}: {}",
            reply.text
        );
    }
    for spelt in ["2.1-RC1", "v2.1", "2.01", "2.1.0-1", " 2.1"] {
        let token = small.id_token().await.unwrap();
        let mut item =
            serde_json::to_value(Dist::wheel("acme-left", "2.1").item(&[]).unwrap()).unwrap();
        item["version"] = spelt.into();
        let (mut body, _) = stand::api::asking(&[], spelt);
        body["items"] = serde_json::json!([item]);
        let api = Api::of(&small.daemon).unwrap();
        let reply = api
            .bearer("POST", "/v1/requests", &token, &body)
            .await
            .unwrap();
        assert!(!reply.good(), "{spelt}: {}", reply.text);
    }
    // Approved, and overtaken before the bytes come: nothing is sent.
    let good = Dist::wheel("acme-left", "2.1");
    let (_, credential) = approved(&small, &[good.item(&[]).unwrap()]).await;
    index.has("acme_left-2.2-py3-none-any.whl", b"x");
    refused(&small, &index, &credential, good.form(), "overtaken").await;
    let newer = Dist::wheel("acme-left", "2.2.post1");
    let (_, credential) = approved(&small, &[newer.item(&[]).unwrap()]).await;
    assert_eq!(
        send(&small, &credential, newer.form()).await.0,
        200,
        "the control"
    );
}

#[tokio::test]
async fn attack_19_python_attestations_are_refused_or_dropped_as_configured() {
    let index = Index::start().await.unwrap();
    let good = left();
    let mut fields = good.fields();
    fields.push(("attestations".into(), "[{\"version\": 1}]".into()));
    let body = form(&fields, &[(&good.name, &good.bytes)]);
    let small = start(&index).await;
    let (_, credential) = approved(&small, &[good.item(&[]).unwrap()]).await;
    let text = refused(
        &small,
        &index,
        &credential,
        body.clone(),
        "refused when nothing is configured",
    )
    .await;
    assert!(text.contains("attestations = \"drop\""), "{text}");

    let small = start_with(&index, "attestations = \"drop\"").await;
    let (_, credential) = approved(&small, &[good.item(&[]).unwrap()]).await;
    let (status, text) = send(&small, &credential, body).await;
    assert_eq!(status, 200, "{text}");
    let sent = String::from_utf8_lossy(&index.writes()[0].body).into_owned();
    assert!(!sent.contains("attestations"));
}

#[tokio::test]
async fn attack_20_python_another_call_through_the_endpoint() {
    let index = Index::start().await.unwrap();
    let small = start(&index).await;
    let good = left();
    let (_, credential) = approved(&small, &[good.item(&[]).unwrap()]).await;
    let endpoint = small.endpoint().unwrap();
    let basic = {
        use base64::Engine as _;
        let pair = format!("__token__:{credential}");
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(pair)
        )
    };
    let before = index.seen().len();
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/legacy/"),
        ("PUT", "/legacy/"),
        ("DELETE", "/legacy/"),
        ("POST", "/pypi"),
        ("POST", "/legacy"),
        ("POST", "/legacy/x"),
        ("POST", "/legacy/?:action=remove_pkg"),
        ("POST", "//legacy/"),
        ("POST", "/simple/acme-left/"),
        ("POST", "/danger-api/echo"),
        ("POST", "/manage/account/token/"),
        ("GET", "/simple/acme-left/"),
        ("GET", "/legacy/%2Bsimple/acme-left/"),
        ("GET", "/pypi/acme-left/json"),
        ("DELETE", "/simple/acme-left/1.4.2/"),
    ] {
        let headers = [("authorization", basic.as_str())];
        let reply = endpoint
            .call(method, path, &headers, good.form())
            .await
            .unwrap();
        assert!(
            (400..500).contains(&reply.status),
            "{method} {path}: {}",
            reply.status
        );
    }
    for action in [
        "submit",
        "submit_pkg_info",
        "doc_upload",
        "remove_pkg",
        "user",
        "verify",
    ] {
        let mut fields = good.fields();
        action.clone_into(&mut fields[0].1);
        let body = form(&fields, &[(&good.name, &good.bytes)]);
        refused(&small, &index, &credential, body, action).await;
    }
    assert_eq!(index.seen().len(), before, "the index was asked nothing");
    assert_eq!(
        send(&small, &credential, good.form()).await.0,
        200,
        "the control"
    );
}

#[tokio::test]
async fn attack_42_python_an_unclear_answer_is_read_back_and_nothing_is_sent_twice() {
    let index = Index::start().await.unwrap();
    let small = start(&index).await;
    // It landed, and the answer said otherwise.
    for (i, status) in [500, 503, 400, 403, 302].into_iter().enumerate() {
        let good = Dist::wheel("acme-left", &format!("1.{i}"));
        let (job, credential) = approved(&small, &[good.item(&[]).unwrap()]).await;
        index.answers(status, true);
        let before = index.writes().len();
        let (got, text) = send(&small, &credential, good.form()).await;
        assert_eq!(got, 200, "{status}: {text}");
        assert_eq!(job.state().await.unwrap(), "published", "{status}");
        assert_eq!(index.writes().len(), before + 1, "{status}");
    }
    // It did not land, and the answer said so: the reason reaches the job, and the approval stays good.
    let good = Dist::wheel("acme-right", "1.0");
    let (job, credential) = approved(&small, &[good.item(&[]).unwrap()]).await;
    index.answers(403, false);
    let (status, text) = send(&small, &credential, good.form()).await;
    assert!(
        (400..500).contains(&status) && text.contains("stored token"),
        "{status} {text}"
    );
    assert_eq!(send(&small, &credential, good.form()).await.0, 200);
    assert_eq!(job.state().await.unwrap(), "published");
    // A release that takes no more files.
    index.closes("acme_old-1.0");
    let late = Dist::wheel("acme-old", "1.0");
    let (_, credential) = approved(&small, &[late.item(&[]).unwrap()]).await;
    let (status, text) = send(&small, &credential, late.form()).await;
    assert!(
        (400..500).contains(&status) && text.contains("older than 14 days"),
        "{status} {text}"
    );
    // Other bytes under the same name: a conflict, never a success.
    let rival = Dist::wheel("acme-rival", "1.0");
    let (job, credential) = approved(&small, &[rival.item(&[]).unwrap()]).await;
    index.has(&rival.name, b"other bytes");
    let (status, text) = send(&small, &credential, rival.form()).await;
    assert!(status >= 400, "{text}");
    assert_eq!(job.state().await.unwrap(), "conflict");
}
