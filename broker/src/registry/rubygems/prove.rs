//! Whether a gem registry takes a key: by a push of bytes that are no gem.

use super::{factor::WANTED, upstream::RubyGems, upstream::keyed};
use crate::{
    registry::{
        Proof, ReadError,
        proof::{Answer, NAME, invented},
        upstream::failed,
    },
    secret::Secret,
};
use reqwest::header::CONTENT_TYPE;

/// Asks.
pub(super) async fn ask(registry: &RubyGems, key: &Secret<String>) -> Result<Proof, ReadError> {
    let answer = push(registry, key).await?;
    if answer.status == 401 && answer.said.starts_with(WANTED) {
        return Ok(Proof::proved(
            "it knows the key, and wants its second factor for a push",
        ));
    }
    if let Some(proof) = answer.judged() {
        return proof;
    }
    Ok(push(registry, &invented()?).await?.beside())
}

async fn push(registry: &RubyGems, key: &Secret<String>) -> Result<Answer, ReadError> {
    let address = registry.base.join("api/v1/gems");
    let address = address.map_err(|_| ReadError::NotUnderstood)?;
    let request = registry.client.post(address).timeout(registry.read);
    let request = request
        .header(CONTENT_TYPE, "application/octet-stream")
        .body(NAME);
    let request = keyed(request, key).ok_or(ReadError::NotUnderstood)?;
    let reply = request.send().await.map_err(|e| failed(&e))?;
    Ok(Answer::of(reply, key).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Address, Timeouts, Trial, Upstream as _, fake::answering};
    use proto::api::ProofOutcome;

    const KEY: &str = "the-key";

    async fn asked(good: (u16, &str), other: (u16, &str)) -> Option<(ProofOutcome, usize)> {
        let (url, log) = answering(&[(KEY, good), ("", other)]).await;
        let registry = RubyGems::new(Address::at(url), Timeouts::default()).unwrap();
        let key = Secret::new(KEY.to_owned());
        let proof = registry.prove(&key, Trial::default()).await.ok()?;
        assert!(!proof.detail.contains(KEY), "{proof:?}");
        let seen = log.lock().unwrap();
        assert!(seen.iter().all(|s| s.body == NAME.as_bytes()));
        Some((proof.outcome, seen.len()))
    }

    #[tokio::test]
    async fn a_push_of_no_gem_tells_a_known_key_from_others() {
        use ProofOutcome::{Proved, Refused, Unproved};
        let no = (401, "Access Denied");
        let gem = (422, "cannot process this gem");
        let said = "no, the-key is none";
        let factor = format!("{WANTED} but no OTP code provided.");
        assert_eq!(asked(gem, no).await, Some((Proved, 2)));
        assert_eq!(asked((401, &factor), no).await, Some((Proved, 1)));
        assert_eq!(asked((401, said), no).await, Some((Refused, 1)));
        assert_eq!(asked((403, "scope"), no).await, Some((Refused, 1)));
        assert_eq!(asked(gem, gem).await, Some((Unproved, 2)));
        assert_eq!(asked((200, "ok"), no).await, Some((Unproved, 1)));
        assert_eq!(asked((503, "later"), no).await, None);
    }
}
