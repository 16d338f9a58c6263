//! What a publish shows of a token that nobody could prove when it took another one's place. What the registry shows
//! afterwards counts, and not what it answers: a front that says yes to everything would end the one that is kept, and a
//! version that is there already is refused to good tokens, too. Reads show nothing: which packages are read a job
//! chooses. A yes ends the time of the one that is kept; a no is told to the admins, who may go back.

use super::{
    stages,
    state::{FileAt, Record},
};
use crate::{
    audit::event::Event,
    desk::{Desk, Fault},
    registry::StageId,
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

/// The registry shows what was sent with the token. The publish has happened whatever becomes of this: where it cannot be
/// written the old version is kept, and the next publish shows it again.
pub(super) async fn taken(desk: &Desk, request: RequestId, item: &Item, used: &TokenRecord) {
    let detail = format!("it took {}", item.name());
    write(desk, (request, item), used, ProofOutcome::Proved, detail).await;
}

/// The registry says that it staged what was sent: it counts when the stage holds it. It is read here only where an old
/// version is kept.
pub(super) async fn staged(
    desk: &Desk,
    (record, at): (&Record, FileAt),
    stage: &StageId,
    (item, used): (&Item, &TokenRecord),
) {
    if !matches!(
        tokens::unaccepted(&desk.vault, &*desk.live, used),
        Ok(Some(_))
    ) {
        return;
    }
    match stages::holds_what_was_approved(desk, record, at, stage).await {
        Ok(true) => taken(desk, record.facts.id, item, used).await,
        Ok(false) => {}
        Err(why) => tracing::warn!(%stage, %why, "a stage was not read; the old token is kept"),
    }
}

/// The registry refuses the token, and shows nothing of what was to be sent with it.
pub(super) async fn refused(
    desk: &Desk,
    request: RequestId,
    item: &Item,
    used: &TokenRecord,
    said: &str,
) {
    let detail = format!("it answers {said}");
    write(desk, (request, item), used, ProofOutcome::Refused, detail).await;
}

async fn write(
    desk: &Desk,
    (request, item): (RequestId, &Item),
    used: &TokenRecord,
    outcome: ProofOutcome,
    detail: String,
) {
    let known = used.proof.as_ref().map(|proof| proof.outcome);
    if known == Some(ProofOutcome::Proved) || known == Some(outcome) {
        return;
    }
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
            "the registry refuses the new token; the old one is kept: countersign admin token list");
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
