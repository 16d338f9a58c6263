use super::*;
use crate::registry::{
    Address, Timeouts, Upstream as _,
    fake::{Seen, fake_with},
};
use proto::api::ProofOutcome::{self, Proved, Refused, Unproved};

const OLD: &str = "cio-old";
const NEW: &str = "cio-new";

/// What a registry answers: to a yank, and to an upload, by old, new and invented token.
type Answers = [[u16; 3]; 2];

async fn asked(answers: Answers, old: bool) -> (Option<ProofOutcome>, Vec<Seen>) {
    let (url, log) = fake_with(move |seen: &Seen| {
        let [yank, upload] = answers;
        let of = if seen.method == "PUT" { upload } else { yank };
        let shown = seen.headers["authorization"].to_str().unwrap();
        let at = [OLD, NEW].iter().position(|t| *t == shown).unwrap_or(2);
        (of[at], r#"{"errors":[{"detail":"words"}]}"#.to_owned())
    })
    .await;
    let address = Address {
        upload: Some(url.clone()),
        endpoint: "https://broker.example".parse().unwrap(),
        ..Address::at(url)
    };
    let registry = Crates::new(address, Timeouts::default()).unwrap();
    let package = "acme-left".parse().unwrap();
    let present = Secret::new(OLD.to_owned());
    let trial = Trial {
        package: Some(&package),
        present: old.then_some(&present),
    };
    let token = Secret::new(NEW.to_owned());
    let proof = registry.prove(&token, trial).await.ok();
    let seen = log.lock().unwrap().clone();
    (proof.map(|p| p.outcome), seen)
}

#[tokio::test]
async fn a_yank_of_nothing_or_an_archive_that_is_too_long_tell_a_known_token_from_others() {
    // May publish, and no more.
    let narrow = [403, 403, 403];
    for (answers, old, want) in [
        // The public registry: the token is looked at before the length.
        ([narrow, [413, 413, 403]], true, Some(Proved)),
        ([narrow, [413, 403, 403]], true, Some(Refused)),
        ([narrow, [413, 413, 413]], false, Some(Unproved)),
        ([narrow, [503, 503, 503]], false, None),
        ([[200, 200, 200], [413, 413, 403]], false, Some(Proved)),
        // The stored one may yank too, which the broker does not need.
        ([[404, 403, 403], [413, 413, 403]], true, Some(Proved)),
        ([[404, 403, 403], [413, 403, 403]], true, Some(Refused)),
        // One that looks at the length first.
        ([[404, 404, 401], [400, 400, 400]], true, Some(Proved)),
        ([[404, 403, 401], [400, 400, 400]], true, Some(Refused)),
        // Whether tokens are usually good for a yank nobody shows.
        ([[404, 403, 401], [400, 400, 400]], false, Some(Unproved)),
        ([[404, 404, 404], [400, 400, 400]], true, Some(Unproved)),
    ] {
        let (outcome, seen) = asked(answers, old).await;
        assert_eq!(outcome, want, "{answers:?} {old}");
        for upload in seen.iter().filter(|s| s.method == "PUT") {
            // An archive is announced, and not one byte of it follows.
            let (length, rest) = upload.body.split_first_chunk::<4>().unwrap();
            let at = u32::from_le_bytes(*length) as usize;
            assert_eq!(rest[at..], LENGTH.to_le_bytes());
        }
    }
}

#[tokio::test]
async fn a_token_is_ended_where_the_registry_does_not_know_it_afterwards() {
    for (answers, want) in [
        ([204, 403], true),
        ([204, 401], true),
        // It says yes to anything.
        ([204, 204], false),
        ([200, 200], false),
        // A token with scopes; a registry without the call.
        ([403, 403], false),
        ([404, 404], false),
    ] {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (url, log) = fake_with(move |_: &Seen| {
            let at = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            (answers[at.min(1)], String::new())
        })
        .await;
        let address = Address {
            upload: Some(url.clone()),
            endpoint: "https://broker.example".parse().unwrap(),
            ..Address::at(url)
        };
        let registry = Crates::new(address, Timeouts::default()).unwrap();
        let token = Secret::new(NEW.to_owned());
        assert_eq!(registry.revoke(&token).await.unwrap(), want, "{answers:?}");
        let seen = log.lock().unwrap();
        assert!(seen.iter().all(|s| s.method == "DELETE"
            && s.path == "/r/api/v1/tokens/current"
            && s.headers["authorization"] == NEW));
    }
}

#[tokio::test]
async fn without_a_crate_nothing_is_asked() {
    let (url, log) = fake_with(|_: &Seen| (200, String::new())).await;
    let address = Address {
        upload: Some(url.clone()),
        endpoint: "https://broker.example".parse().unwrap(),
        ..Address::at(url)
    };
    let registry = Crates::new(address, Timeouts::default()).unwrap();
    let token = Secret::new(NEW.to_owned());
    let proof = registry.prove(&token, Trial::default()).await.unwrap();
    assert_eq!(proof.outcome, Unproved);
    assert!(log.lock().unwrap().is_empty());
}
