//! What a publish shows of a token that nobody could prove when it took another one's place. What the registry shows
//! afterwards counts, and not what it answers: a front that says yes to everything would end the one that is kept, and a
//! version that is there already is refused to good tokens, too. Reads show nothing: which packages are read a job
//! chooses. A yes ends the time of the one that is kept; a no is told to the admins, who may go back.
//!
//! What if an attacker writes here? With which token a file left stands in the request's row, which he may change: he makes
//! a yes that nothing showed, and so ends a way back. Which token serves he does not change by it.

use super::{
    stages,
    state::{FileAt, Record, SentWith},
};
use crate::{
    audit::event::Event,
    desk::{Desk, Fault},
    registry::StageId,
    store::Batch,
    vault::tokens::{self, StoredToken, TokenRecord},
};
use proto::{
    api::{ProofOutcome, TokenProof},
    ids::RequestId,
    request::Item,
};

/// How often it is written again, where other uses of the token come between.
const TRIES: u32 = 8;

/// The token that a file is about to be sent with, where that shows something.
pub(super) fn of(desk: &Desk, at: FileAt, used: &TokenRecord) -> Result<Option<SentWith>, Fault> {
    let sent = SentWith {
        file: at.numbers(),
        registry: used.registry.clone(),
        scope: used.scope.clone(),
        version: used.version,
    };
    Ok(unaccepted(desk, &sent)?.map(|_| sent))
}

/// The stored token, while its registry has not accepted it.
fn unaccepted(desk: &Desk, sent: &SentWith) -> Result<Option<StoredToken>, Fault> {
    let place = (&sent.registry, &sent.scope);
    Ok(tokens::unaccepted(
        &desk.vault,
        &*desk.live,
        place,
        sent.version,
    )?)
}

/// The registry shows what was sent with the token, at once or later. The publish has happened whatever becomes of this:
/// where it cannot be written the old version is kept, and the next publish shows it again.
pub(super) async fn taken(desk: &Desk, of: (RequestId, &Item), used: &SentWith) {
    let detail = format!("it took {}", of.1.name());
    write(desk, of, used, ProofOutcome::Proved, detail).await;
}

/// The registry says that it staged what was sent: it counts when the stage holds it.
pub(super) async fn staged(
    desk: &Desk,
    (record, at): (&Record, FileAt),
    stage: &StageId,
    (item, used): (&Item, &SentWith),
) {
    match stages::holds_what_was_approved(desk, record, at, stage).await {
        Ok(true) => taken(desk, (record.facts.id, item), used).await,
        Ok(false) => {}
        Err(why) => tracing::warn!(%stage, %why, "a stage was not read; the old token is kept"),
    }
}

/// The registry refuses the token, and shows nothing of what was to be sent with it.
pub(super) async fn refused(desk: &Desk, of: (RequestId, &Item), used: &SentWith, said: &str) {
    let detail = format!("it answers {said}");
    write(desk, of, used, ProofOutcome::Refused, detail).await;
}

async fn write(
    desk: &Desk,
    (request, item): (RequestId, &Item),
    used: &SentWith,
    outcome: ProofOutcome,
    detail: String,
) {
    let proof = TokenProof {
        outcome,
        account: None,
        detail,
        package: Some(item.name()),
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
    request: RequestId,
    used: &SentWith,
    proof: &TokenProof,
) -> Result<(), Fault> {
    let Some(stored) = unaccepted(desk, used)? else {
        return Ok(());
    };
    // A yes since, to another publish, counts more than this no.
    let known = stored.record.proof.as_ref().map(|proof| proof.outcome);
    if known == Some(ProofOutcome::Proved) || known == Some(proof.outcome) {
        return Ok(());
    }
    let scope = stored.record.scope.as_str().to_owned();
    if proof.outcome == ProofOutcome::Refused {
        tracing::warn!(registry = %used.registry, scope, version = used.version,
            "the registry refuses the new token; the old one is kept: countersign admin token list");
    }
    let event = Event::TokenTried {
        request,
        registry: used.registry.clone(),
        scope,
        version: used.version,
        proof: proof.outcome,
    };
    let batch = tokens::note_proof(
        &desk.vault,
        &*desk.live,
        Batch::new(),
        stored,
        proof.clone(),
    )?;
    desk.commit(batch, &[event], proof.at).await.map(drop)
}
