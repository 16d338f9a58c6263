//! What a publish shows of a token that nobody could prove when it took another one's place. A yes of its registry ends
//! the time of the one that is kept; a no is told to the admins, who may go back.

use crate::{
    audit::event::Event,
    desk::{Desk, Fault},
    registry::{ReadError, Sent},
    store::Batch,
    vault::tokens::{self, TokenRecord},
};
use proto::{
    api::{ProofOutcome, TokenProof},
    ids::RequestId,
    request::Item,
};

/// How often it is written again, where other uses of the token come between.
const TRIES: u32 = 8;

/// Notes what the registry's answer to a publish says of the token. The publish has happened, or not, whatever becomes of
/// this: where it cannot be written the old version is kept, and the next publish shows it again.
pub(super) async fn note(
    desk: &Desk,
    request: RequestId,
    item: &Item,
    used: &TokenRecord,
    sent: &Sent,
) {
    let (outcome, detail) = match sent {
        Sent::Accepted | Sent::Staged(_) => {
            (ProofOutcome::Proved, format!("it took {}", item.name()))
        }
        Sent::Refused {
            status: status @ (401 | 403),
            said,
        } => (
            ProofOutcome::Refused,
            format!("it answers {status} to {}: {said}", item.name()),
        ),
        _ => return,
    };
    write(desk, Some(request), used, (outcome, detail)).await;
}

/// Notes that the registry is not even read with the token: then no publish comes so far that it could refuse it.
pub(super) async fn note_unread(
    desk: &Desk,
    request: Option<RequestId>,
    item: &Item,
    why: &ReadError,
) {
    if !matches!(why, ReadError::Status(401 | 403)) {
        return;
    }
    let (vault, live, now) = (&desk.vault, &*desk.live, desk.world.now());
    let Ok(Some(used)) = tokens::find(vault, live, &item.registry, &item.package, now) else {
        return;
    };
    let said = (
        ProofOutcome::Refused,
        format!("it shows nothing of {}: {why}", item.package),
    );
    write(desk, request, &used.record, said).await;
}

async fn write(
    desk: &Desk,
    request: Option<RequestId>,
    used: &TokenRecord,
    (outcome, detail): (ProofOutcome, String),
) {
    let known = used.proof.as_ref().map(|proof| proof.outcome);
    if known == Some(ProofOutcome::Proved) || known == Some(outcome) {
        return;
    }
    let proof = TokenProof {
        outcome,
        account: None,
        detail,
        at: desk.world.now(),
    };
    for _ in 0..TRIES {
        match written(desk, request, used, &proof).await {
            Err(Fault::Conflict(..)) => {}
            Err(why) => {
                tracing::error!(registry = %used.registry, %why,
                    "what a publish showed of a new token is not written down");
                return;
            }
            Ok(()) => return,
        }
    }
}

/// Where an old version is kept for it, and nowhere else.
async fn written(
    desk: &Desk,
    request: Option<RequestId>,
    used: &TokenRecord,
    proof: &TokenProof,
) -> Result<(), Fault> {
    let (vault, live) = (&desk.vault, &*desk.live);
    let Some(stored) = tokens::unaccepted(vault, live, used)? else {
        return Ok(());
    };
    // A yes since, to another publish, counts more than this no.
    let known = stored.record.proof.as_ref().map(|proof| proof.outcome);
    if known == Some(ProofOutcome::Proved) {
        return Ok(());
    }
    let scope = stored.record.scope.as_str().to_owned();
    if proof.outcome == ProofOutcome::Refused {
        tracing::warn!(registry = %used.registry, scope, version = used.version,
            "the registry refuses the new token; the old one is kept: countersign admin token back");
    }
    let event = Event::TokenTried {
        request,
        registry: used.registry.clone(),
        scope,
        version: used.version,
        proof: proof.outcome,
    };
    let batch = tokens::note_proof(vault, live, Batch::new(), stored, proof.clone())?;
    desk.commit(batch, &[event], proof.at).await.map(drop)
}
