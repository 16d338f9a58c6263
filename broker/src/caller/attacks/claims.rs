//! Attacks 5, 6 and 10: every claim mistyped, times, other ids, misleading links.

use super::{bent, refused, with};
use crate::caller::{
    CallerRefused, Kind,
    samples::{SAMPLES, Sample},
    testkit::*,
};
use serde_json::{Value, json};

#[tokio::test]
async fn attack_05_every_claim_absent_null_mistyped_or_twice() {
    let server = Server::honest().await;
    let mut vectors = 0;
    for sample in &SAMPLES {
        let of_kind = every_claim_bent(&server, sample).await;
        assert!(of_kind >= 90, "{:?}: {of_kind}", sample.kind);
        vectors += of_kind;
    }
    assert!(vectors >= 1400, "{vectors}");
}

async fn every_claim_bent(server: &Server, sample: &Sample) -> usize {
    let issuers = server.issuers(sample.kind);
    let good = (sample.claims)();
    let with = |name: &str, value| bent(good.clone(), name, value);
    let what = |text: String| format!("{:?}: {text}", sample.kind);
    assert!(issuers.verify(&rs256(&good), NOW).await.is_ok());
    let names: Vec<String> = good.as_object().unwrap().keys().cloned().collect();
    let mut vectors = 0;
    for name in names.iter().map(String::as_str) {
        // A path beside an id is read for links and people, or not at all.
        if sample.unread.contains(&name) || ["namespace_path"].contains(&name) {
            continue;
        }
        for bad in [
            json!(null),
            json!(true),
            json!(-1),
            json!(1.5),
            json!([good[name]]),
            json!([]),
            json!({}),
            json!(""),
            json!({"a": good[name]}),
            json!("a\u{202E}b"),
            json!("\u{1b}[2J"),
            json!("x".repeat(2000)),
        ] {
            // `jti` and `sub` are hashed or unread, never shown: any text will do.
            if matches!(name, "jti" | "sub")
                && bad.as_str().is_some_and(|s| (1..9).contains(&s.len()))
                && (name == "jti"
                    || matches!(sample.kind, Kind::Github | Kind::Gitlab | Kind::Buildkite))
            {
                continue;
            }
            let absent = bad.is_null() || bad == "";
            let empty_list = bad == json!([]) && name.ends_with("/context-ids");
            // Where lists are written, a list of the one good audience is that one.
            let list_of_one = name == "aud" && sample.lists && bad == json!([AUDIENCE]);
            if (absent && sample.nullable.contains(&name)) || empty_list || list_of_one {
                assert!(issuers.verify(&rs256(&with(name, bad)), NOW).await.is_ok());
                continue;
            }
            let token = rs256(&with(name, bad.clone()));
            refused(&issuers, &token, &what(format!("{name} = {bad}"))).await;
            vectors += 1;
        }
        let other = match &good[name] {
            Value::Number(number) => json!(format!("0{number}")),
            _ => json!(7),
        };
        let token = rs256(&with(name, other));
        refused(&issuers, &token, &what(format!("{name} of the other type"))).await;
        let twice = good
            .to_string()
            .replacen('{', &format!("{{\"{name}\":{},", good[name]), 1);
        let token = rs256_raw(r#"{"alg":"RS256","kid":"rsa"}"#, &twice);
        refused(&issuers, &token, &what(format!("{name} twice"))).await;
        // The same name in another spelling of JSON is the same name.
        let code = u32::from(name.as_bytes()[0]);
        let spelt = format!("{{\"\\u{code:04x}{}\":{},", &name[1..], good[name]);
        let token = rs256_raw(
            r#"{"alg":"RS256","kid":"rsa"}"#,
            &good.to_string().replacen('{', &spelt, 1),
        );
        refused(
            &issuers,
            &token,
            &what(format!("{name} twice, once escaped")),
        )
        .await;
        vectors += 3;
        let mut without = good.clone();
        without.as_object_mut().unwrap().remove(name);
        let token = rs256(&without);
        if sample.optional.contains(&name) {
            assert!(issuers.verify(&token, NOW).await.is_ok(), "{name} absent");
        } else {
            refused(&issuers, &token, &what(format!("{name} absent"))).await;
            vectors += 1;
        }
    }
    vectors
}

#[tokio::test]
async fn attack_05_times_huge_negative_float_or_string() {
    let server = Server::honest().await;
    let issuers = server.issuers(Kind::Github);
    let now = NOW.0;
    for name in ["exp", "iat", "nbf"] {
        for bad in [
            "-1",
            "-0",
            "-9223372036854775808",
            "9223372036854775807",
            "18446744073709551615",
            "18446744073709551616",
            "1e99",
            "1.8e9",
            "1800000000.0",
            "1800000000.5",
            "\"1800000000\"",
            "[1800000000]",
            "null",
            "NaN",
            "0x6b49d200",
            "01800000000",
        ] {
            if name == "nbf" && bad == "null" {
                continue; // in the test above
            }
            let text = with(name, json!("@@")).to_string().replace("\"@@\"", bad);
            let token = rs256_raw(r#"{"alg":"RS256","kid":"rsa"}"#, &text);
            refused(&issuers, &token, &format!("{name} = {bad}")).await;
        }
    }
    let times = |iat: u64, exp: u64, nbf: u64| {
        let mut claims = github_claims();
        (claims["iat"], claims["exp"], claims["nbf"]) = (json!(iat), json!(exp), json!(nbf));
        rs256(&claims)
    };
    for (iat, exp, nbf, want) in [
        (now, now + 900, 0, None),
        (now, now + 901, 0, Some(CallerRefused::TooLong)),
        (0, now + 60, 0, Some(CallerRefused::TooLong)),
        (now - 300, now - 29, 0, None),
        (now - 300, now - 30, 0, Some(CallerRefused::Expired)),
        (now - 900, now - 31, 0, Some(CallerRefused::Expired)),
        (now + 30, now + 60, 0, None),
        (now + 31, now + 60, 0, Some(CallerRefused::NotYetValid)),
        (now, now + 60, now + 30, None),
        (now, now + 60, now + 31, Some(CallerRefused::NotYetValid)),
        (now + 60, now, 0, Some(CallerRefused::Expired)),
        (0, 0, 0, Some(CallerRefused::Expired)),
        (u64::MAX, u64::MAX, 0, Some(CallerRefused::NotYetValid)),
    ] {
        let got = issuers.verify(&times(iat, exp, nbf), NOW).await.err();
        assert_eq!(got, want, "iat {iat} exp {exp} nbf {nbf}");
    }
}

#[tokio::test]
async fn attack_06_same_name_other_id_is_somebody_else() {
    let server = Server::honest().await;
    let issuers = server.issuers(Kind::Github);
    let mut claims = with("repository_id", json!("124"));
    claims["repository_owner_id"] = json!("46");
    let caller = issuers.verify(&rs256(&claims), NOW).await.unwrap();
    assert_eq!(caller.facts().claims["repository"], "acme/left");
    assert_eq!(caller.facts().subject, "124");
    assert_eq!(caller.facts().claims["repository_owner_id"], "46");
    // Ids have no second spelling that a reader could take for the same.
    for bad in ["+123", " 123", "123 ", "0x7b", "１２３", "123.0", "12a"] {
        refused(&issuers, &rs256(&with("repository_id", json!(bad))), bad).await;
    }
}

#[tokio::test]
async fn attack_10_the_run_link_is_ours() {
    let server = Server::honest().await;
    let issuers = server.issuers(Kind::Github);
    for bad in [
        "acme/left/../../evil",
        "acme",
        "acme/left?x",
        "acme/..",
        "a@evil.example/x",
        "acme/left#",
    ] {
        refused(&issuers, &rs256(&with("repository", json!(bad))), bad).await;
    }
    for bad in ["../1", "1?x=1", "", "123456789012345678901"] {
        refused(&issuers, &rs256(&with("run_id", json!(bad))), bad).await;
    }
}
