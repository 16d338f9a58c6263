use super::*;
use crate::registry::npm::samples::{archive, bundle, document, entry, tgz};
use serde_json::json;

fn read_text(text: &str) -> Result<Publish, DocumentError> {
    let package = "@acme/left".parse().unwrap();
    read(text.as_bytes(), &package, &std::env::temp_dir())
}

fn changed(change: impl FnOnce(&mut Value)) -> Result<Publish, DocumentError> {
    let mut document = document(&archive());
    change(&mut document);
    read_text(&document.to_string())
}

const TGZ: &str = "@acme/left-1.0.0.tgz";
const SIGSTORE: &str = "@acme/left-1.0.0.sigstore";

#[test]
fn a_publish_is_read() {
    let mut publish = changed(|_| {}).unwrap();
    let archive = archive();
    assert_eq!(publish.package().as_str(), "@acme/left");
    assert_eq!(publish.version().as_str(), "1.0.0");
    assert_eq!(publish.tag().unwrap().as_str(), "latest");
    assert_eq!(publish.digest(), &Digest::of(Algorithm::Sha512, &archive));
    assert_eq!(publish.size(), archive.len() as u64);
    assert_eq!(publish.contents().install_scripts, ["postinstall"]);
    let mut bytes = Vec::new();
    publish.file().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, archive);
}

#[test]
fn what_the_usual_clients_add_is_read() {
    assert!(changed(|d| d["access"] = json!("public")).is_ok());
    assert!(changed(|d| d["readme"] = json!("r")).is_ok());
    assert!(changed(|d| d["versions"]["1.0.0"]["gitHead"] = json!("abc")).is_ok());
    // Yarn's order: the attachments come before the versions.
    let d = document(&archive());
    let text = format!(
        r#"{{"_id":"@acme/left","_attachments":{},"name":"@acme/left","access":"public","dist-tags":{},"versions":{}}}"#,
        d["_attachments"], d["dist-tags"], d["versions"]
    );
    assert!(read_text(&text).is_ok());
}

#[test]
fn attack_13_the_archive_says_another_package_or_version() {
    for inner in [
        r#"{"name":"@acme/right","version":"1.0.0","bin":"./cli.js","scripts":{"postinstall":"node x"}}"#,
        r#"{"name":"@acme/left","version":"2.0.0","bin":"./cli.js","scripts":{"postinstall":"node x"}}"#,
        r#"{"name":"@acme/left","version":"1.0.0","bin":"./cli.js","scripts":{"postinstall":"evil"}}"#,
    ] {
        let archive = tgz(&[entry("package/package.json", b'0', inner.as_bytes())]);
        let read = read_text(&document(&archive).to_string());
        assert!(
            matches!(read, Err(DocumentError::Disagreement(_))),
            "{inner}"
        );
    }
    for (field, value) in [("_id", "@acme/right"), ("name", "@acme/right")] {
        let read = changed(|d| d[field] = json!(value));
        assert!(matches!(read, Err(DocumentError::Differs(_))), "{field}");
    }
    for (field, value) in [
        ("name", "@acme/right"),
        ("version", "2.0.0"),
        ("_id", "@acme/left@2.0.0"),
    ] {
        let read = changed(|d| d["versions"]["1.0.0"][field] = json!(value));
        assert!(matches!(read, Err(DocumentError::Differs(_))), "{field}");
    }
    assert!(changed(|d| d["dist-tags"] = json!({"latest": "2.0.0"})).is_err());
    let other = "@acme/right".parse().unwrap();
    let text = document(&archive()).to_string();
    assert!(read(text.as_bytes(), &other, &std::env::temp_dir()).is_err());
}

#[test]
fn attack_12_and_14_digests_and_lengths_must_be_those_of_the_bytes() {
    let dist =
        |field: &str, value: Value| changed(|d| d["versions"]["1.0.0"]["dist"][field] = value);
    let other = Digest::of(Algorithm::Sha512, b"x").sri();
    assert!(dist("integrity", json!(other)).is_err());
    assert!(dist("integrity", Value::Null).is_err());
    assert!(dist("shasum", json!("0".repeat(40))).is_err());
    assert!(dist("signatures", json!([])).is_err());
    let attachment = |field: &str, value: Value| changed(|d| d["_attachments"][TGZ][field] = value);
    for length in [json!(1), json!("5"), json!(-1), Value::Null, json!(1.5)] {
        assert!(attachment("length", length).is_err());
    }
    assert!(attachment("content_type", json!("text/plain")).is_err());
    assert!(attachment("extra", json!(1)).is_err());
    for data in ["", "AAAA AAAA", "AAA", "AB==CD==", "!!!!"] {
        assert!(attachment("data", json!(data)).is_err(), "{data}");
    }
}

#[test]
fn attack_14_a_key_that_stands_twice_is_refused() {
    let text = document(&archive()).to_string();
    for (what, with) in [
        (r#""_id":"#, r#""\u005fid":"@acme/right","_id":"#),
        (
            r#""_id":"@acme/left","#,
            r#""_id":"@acme/left","_id":"@acme/left","#,
        ),
        (r#""versions":{"#, r#""versions":{"1.0.0":{"name":"x"},"#),
        (r#""dist-tags":{"#, r#""dist-tags":{"latest":"1.0.0","#),
        (r#""integrity":"#, r#""integrity":"sha512-x","integrity":"#),
        (
            r#""_attachments":{"#,
            r#""_attachments":{},"\u005fattachments":{"#,
        ),
        (r#""length":"#, r#""length":1,"length":"#),
        (r#""data":"#, r#""data":"","data":"#),
    ] {
        assert!(text.contains(what), "{what}");
        assert!(read_text(&text.replacen(what, with, 1)).is_err(), "{with}");
    }
    assert!(read_text(&format!("{text}{text}")).is_err());
}

#[test]
fn attack_14_one_version_one_tag_one_archive() {
    assert!(changed(|d| d["versions"]["2.0.0"] = json!({})).is_err());
    assert!(changed(|d| d["dist-tags"]["next"] = json!("1.0.0")).is_err());
    for empty in ["versions", "dist-tags"] {
        assert!(changed(|d| d[empty] = json!({})).is_err(), "{empty}");
        assert!(changed(|d| d[empty] = json!([])).is_err(), "{empty}");
    }
    for key in [
        "@acme/left-2.0.0.tgz",
        "a.tgz",
        "left-1.0.0.tgz",
        "x.zip",
        "x",
    ] {
        let second = changed(|d| d["_attachments"][key] = d["_attachments"][TGZ].clone());
        assert!(second.is_err(), "{key}");
        let renamed = changed(|d| {
            let archive = d["_attachments"][TGZ].take();
            d["_attachments"] = json!({key: archive});
        });
        assert!(renamed.is_err(), "{key}");
    }
    for tag in ["1.0.0", "v2", "^1", "1", "*", "x", "-x", "a b", "", ">=1"] {
        assert!(
            changed(|d| d["dist-tags"] = json!({tag: "1.0.0"})).is_err(),
            "{tag}"
        );
    }
}

#[test]
fn attack_20_only_a_publish_is_read() {
    let none = changed(|d| {
        d.as_object_mut().unwrap().remove("_attachments");
    });
    assert!(matches!(none, Err(DocumentError::NotAPublish)));
    assert!(matches!(
        changed(|d| d["_attachments"] = json!({})),
        Err(DocumentError::NotAPublish)
    ));
    assert!(changed(|d| d["_attachments"] = Value::Null).is_err());
    for extra in [
        "maintainers",
        "time",
        "_rev",
        "users",
        "_deleted",
        "owner",
        "Versions",
    ] {
        let read = changed(|d| d[extra] = json!([]));
        assert!(matches!(read, Err(DocumentError::Extra(_))), "{extra}");
    }
    for access in [json!("private"), json!(true), json!({})] {
        assert!(changed(|d| d["access"] = access).is_err());
    }
}

#[test]
fn attack_19_a_provenance_bundle_is_about_these_bytes() {
    let purl = "pkg:npm/%40acme/left@1.0.0";
    let with = |text: String, key: &str, kind: &str| {
        changed(|d| {
            d["_attachments"][key] =
                json!({"content_type": kind, "length": text.len(), "data": text});
        })
    };
    let kind = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let good = bundle(&archive(), purl);
    let read = with(good.clone(), SIGSTORE, kind).unwrap();
    let Envelope::Npm(envelope) = read.envelope else {
        panic!("not npm's");
    };
    assert_eq!(envelope.attestation.unwrap().text, good);
    assert!(with(bundle(b"other", purl), SIGSTORE, kind).is_err());
    assert!(
        with(
            bundle(&archive(), "pkg:npm/%40acme/left@2.0.0"),
            SIGSTORE,
            kind
        )
        .is_err()
    );
    assert!(with(good.clone(), "@acme/left-2.0.0.sigstore", kind).is_err());
    assert!(with(good.clone(), SIGSTORE, "text/html").is_err());
    assert!(with("{}".to_owned(), SIGSTORE, kind).is_err());
    let twice = good.replacen("{ \"mediaType\"", "{ \"mediaType\":1,\"mediaType\"", 1);
    assert!(with(twice, SIGSTORE, kind).is_err());
    let long = format!("{good}{}", " ".repeat(300_000));
    assert!(with(long, SIGSTORE, kind).is_err());
}

#[test]
fn metadata_is_limited_and_the_archive_is_not_part_of_it() {
    assert!(changed(|d| d["description"] = json!("x".repeat(2 << 20))).is_err());
    let mut noise = vec![0; 3 << 20];
    aws_lc_rs::rand::fill(&mut noise).unwrap();
    let inner = entry(
        "package/package.json",
        b'0',
        super::super::samples::PACKAGE_JSON.as_bytes(),
    );
    let large = tgz(&[inner, entry("package/noise", b'0', &noise)]);
    assert!(read_text(&document(&large).to_string()).is_ok());
}

#[test]
fn a_document_that_is_cut_anywhere_is_refused() {
    let text = document(&archive()).to_string();
    for end in (0..text.len()).step_by(7) {
        assert!(read_text(&text[..end]).is_err(), "{end}");
    }
}
