//! Collecting: the decision is taken again, and the credential (or the secret) goes out sealed to
//! the job's own key. In one commit: state, burn, blob, event. Then the reply.

use super::{
    Refusal, frozen, judge,
    ledger::{self, CREDENTIALS, Held},
    state::{Record, State},
    trace, veto,
};
use crate::{
    audit::event::{Event, leaf},
    desk::{Desk, Fault},
    policy::{self, Later, Permit, Reason, Verdict, Why},
    registry::Life,
    store::Batch,
    vault::{
        match_code::deposit_credential,
        release as vault, spent,
        tokens::{self, StoredToken, TokenRecord},
    },
};
use proto::{
    api::{Collected, Minted, Mode, SealedRelease},
    bearer::{Bearer, Kind},
    ids::RequestId,
    request::Item,
    time::UnixTime,
};
use zeroize::Zeroizing;

/// Bytes of what is sealed to a job, written out: a token has 16 kB at most.
const SEALED_MAX: usize = 40 << 10;
/// How far a registry's clock may be behind ours, in seconds: a minted token is good from before now.
const CLOCKS_DIFFER: u64 = 60;

/// Collects. Fetched again, it gives the same blob: a lost reply strands nobody, and nobody but the
/// holder of the job's key can open it (attacks 36, 37).
pub async fn collect(
    desk: &Desk,
    id: RequestId,
    ticket: &Bearer,
    now: UnixTime,
) -> Result<Collected, Refusal> {
    judge::serves(desk)?;
    for _ in 0..100 {
        let Some(held) = ledger::live(desk, id)? else {
            let record = super::close::status(desk, id, ticket)?;
            return already(desk, &record, now)?
                .ok_or_else(|| Refusal::State(record.name(), record.status().reason));
        };
        if !ledger::ticket_fits(&held.record, ticket) {
            return Err(Refusal::NotFound);
        }
        if let Some(collected) = already(desk, &held.record, now)? {
            return Ok(collected);
        }
        match once(desk, held, now).await {
            Err(Refusal::Fault(Fault::Conflict(table, _))) if table != ledger::FROZEN => {}
            other => return other,
        }
    }
    Err(Refusal::Busy)
}

/// What was collected before. A secret is the one thing that does not end by itself: it is given again only
/// while its time runs and its package is not frozen (attack 28).
fn already(desk: &Desk, record: &Record, now: UnixTime) -> Result<Option<Collected>, Refusal> {
    let (State::Releasing { sealed, .. } | State::Published { sealed, .. }) = &record.state else {
        return Ok(None);
    };
    let expires = record.told_again_until();
    if record.mode == Mode::Reveal && now >= expires {
        return Err(Refusal::State(proto::api::StateName::Expired, None));
    }
    // Nor is a token of the registry's own given again.
    if matches!(record.mode, Mode::Reveal | Mode::Mint) {
        for item in &record.facts.items {
            if ledger::is_frozen(desk, &item.package_key())? {
                return Err(Refusal::Policy(policy::Refusal {
                    item: Some(item.package_key()),
                    reason: Reason::Frozen,
                }));
            }
        }
    }
    Ok(Some(Collected {
        sealed: sealed.clone(),
        mode: record.mode,
        expires,
    }))
}

async fn once(desk: &Desk, held: Held, now: UnixTime) -> Result<Collected, Refusal> {
    let record = &held.record;
    if record.overdue(now) {
        return Err(Refusal::State(proto::api::StateName::Expired, None));
    }
    match &record.state {
        State::Approved { .. } => {}
        State::Pending { evidence, .. } => {
            return Err(Refusal::NotApproved(format!(
                "{} of {} people have approved",
                evidence.len(),
                record.quorum
            )));
        }
        _ => return Err(Refusal::State(record.name(), record.status().reason)),
    }
    let unknown = vec![None; record.facts.items.len()];
    let permit = match judge::judge(desk, record, record.evidence(), &unknown, now)? {
        Verdict::Permit(permit) => permit,
        Verdict::Wait(missing) => return Err(Refusal::NotApproved(missing.to_string())),
        Verdict::Later(later) => return Err(Refusal::NotYet(later)),
        Verdict::Deny(reason) => return Err(Refusal::Policy(reason)),
    };
    // Who may deny it had the time to: it does not begin anew, so no commit has to ask again.
    if let Some(until) = veto::until(desk, record, now)? {
        let why = Why::Veto;
        return Err(Refusal::NotYet(Later { until, why }));
    }
    match record.mode {
        Mode::Forward | Mode::Deposit => forward(desk, held, now).await,
        Mode::Mint => mint(desk, held, permit, now).await,
        Mode::Reveal => reveal(desk, held, permit, now).await,
    }
}

async fn forward(desk: &Desk, held: Held, now: UnixTime) -> Result<Collected, Refusal> {
    let id = held.record.facts.id;
    // The job of a deposit has held its credential from the beginning: it stays the same.
    let deposit = held.record.mode == Mode::Deposit;
    let credential = if deposit {
        deposit_credential(&desk.vault, id).map_err(Fault::from)?
    } else {
        Bearer::from_entropy(Kind::Credential, desk.world.random().map_err(Fault::from)?)
    };
    let sealed = seal(
        &held.record.facts.job_key,
        &SealedRelease {
            credential: Some(credential.expose()),
            secret: None,
            minted: None,
        },
    )?;
    let mut batch = frozen::unless_frozen(Batch::new(), &held.record.facts);
    if !deposit {
        let hash = credential.hash();
        batch = batch.create(CREDENTIALS, hash.0.as_slice(), id.0.as_bytes());
    }
    let mode = held.record.mode;
    let step = held
        .record
        .collect(credential.hash(), sealed.clone(), now)?;
    let record = ledger::persist(desk, held.version, step, batch, now).await?;
    Ok(Collected {
        sealed,
        mode,
        expires: record.expires(),
    })
}

async fn mint(
    desk: &Desk,
    held: Held,
    permit: Permit,
    now: UnixTime,
) -> Result<Collected, Refusal> {
    let [item] = held.record.facts.items.as_slice() else {
        return Err(one_at_a_time());
    };
    let upstream = desk.upstream(&item.registry).ok_or(Refusal::NotFound)?;
    let life = Life {
        from: UnixTime(now.0.saturating_sub(CLOCKS_DIFFER)),
        until: now.after(permit.mint_seconds()),
    };
    let wish = (item, &item.registry);
    let (token, stored) = vault::release(&desk.vault, &*desk.live, permit, wish, Mode::Mint, now)
        .map_err(Fault::from)?
        .ok_or_else(|| Refusal::NoToken(item.package_key()))?;
    let narrowed = upstream.mint(&token, &item.package, life);
    drop(token);
    let narrowed = narrowed
        .ok_or(Refusal::NotFound)?
        .map_err(Refusal::RegistryRefused)?;
    let sealed = seal(
        &held.record.facts.job_key,
        &SealedRelease {
            credential: None,
            secret: None,
            minted: Some(Minted {
                token: narrowed.token.expose().clone(),
                user: narrowed.user,
                upload_url: narrowed.upload.to_string(),
                expires: life.until,
            }),
        },
    )?;
    // As with a reveal: whatever the request's row says, a second token would not be made.
    let used = token_used(held.record.facts.id, &stored.record);
    let batch = frozen::unless_frozen(Batch::new(), &held.record.facts).append(leaf(&used, now));
    let batch = spent::spend(batch, held.record.facts.id, 0, now);
    let batch = tokens::note_use(&desk.vault, batch, stored, false, now).map_err(Fault::from)?;
    let batch = trace::all_leave(desk, batch, item, now)?;
    let step = held.record.mint(sealed.clone(), life.until, now)?;
    let record = ledger::persist(desk, held.version, step, batch, now).await?;
    Ok(Collected {
        sealed,
        mode: Mode::Mint,
        expires: record.expires(),
    })
}

/// What goes to the job itself is for one package: a second one is a second question.
pub fn one_at_a_time() -> Refusal {
    Refusal::BadRequest(
        "one package is minted for, and one secret is revealed, at a time".to_owned(),
    )
}

/// A secret that is stored for more than its package is none that a job gets.
pub fn none_to_reveal(item: &Item) -> Refusal {
    Refusal::NoToken(format!(
        "exactly {}, and one for more is never revealed",
        item.package_key()
    ))
}

async fn reveal(
    desk: &Desk,
    held: Held,
    permit: Permit,
    now: UnixTime,
) -> Result<Collected, Refusal> {
    let [item] = held.record.facts.items.as_slice() else {
        return Err(one_at_a_time());
    };
    let wish = (item, &item.registry);
    let (secret, stored) =
        vault::release(&desk.vault, &*desk.live, permit, wish, Mode::Reveal, now)
            .map_err(Fault::from)?
            .ok_or_else(|| none_to_reveal(item))?;
    let sealed = seal(
        &held.record.facts.job_key,
        &SealedRelease {
            credential: None,
            secret: Some(secret.expose().clone()),
            minted: None,
        },
    )?;
    // The ledger of spent secrets is the vault's own: even if the request's row came back from an
    // old copy, the secret would not go out twice.
    let used = token_used(held.record.facts.id, &stored.record);
    let batch = frozen::unless_frozen(Batch::new(), &held.record.facts).append(leaf(&used, now));
    let batch = spent::spend(batch, held.record.facts.id, 0, now);
    // Marked exposed in the same commit: it must be rotated.
    let batch = tokens::note_use(&desk.vault, batch, stored, true, now).map_err(Fault::from)?;
    let batch = trace::all_leave(desk, batch, item, now)?;
    let step = held.record.reveal(sealed.clone(), now)?;
    let record = ledger::persist(desk, held.version, step, batch, now).await?;
    Ok(Collected {
        sealed,
        mode: Mode::Reveal,
        expires: record.told_again_until(),
    })
}

/// The event of a token's use.
pub fn token_used(request: RequestId, record: &TokenRecord) -> Event {
    Event::TokenUsed {
        request,
        registry: record.registry.clone(),
        scope: record.scope.as_str().to_owned(),
        version: record.version,
    }
}

/// Remembers when a token was last used, to the minute: the log has every use, and a row that every
/// publish had to replace would make them wait for each other.
pub async fn note_use(desk: &Desk, stored: StoredToken, exposed: bool, now: UnixTime) {
    if stored.record.used.is_some_and(|used| now.since(used) < 60) {
        return;
    }
    if let Ok(batch) = tokens::note_use(&desk.vault, Batch::new(), stored, exposed, now) {
        // Somebody else has just noted his.
        let _ = desk.commit(batch, &[], now).await;
    }
}

/// Seals to the job's ephemeral key: an armored age file.
fn seal(job_key: &str, release: &SealedRelease) -> Result<String, Refusal> {
    let recipient: age::x25519::Recipient =
        job_key.parse().map_err(|_| Fault::Damaged("a job key"))?;
    // Large enough from the beginning: a buffer that grows leaves a copy behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(SEALED_MAX));
    serde_json::to_writer(&mut *plain, release).map_err(|_| Fault::Damaged("a release"))?;
    let sealed = age::encrypt_and_armor(&recipient, &plain);
    sealed.map_err(|_| Fault::Damaged("a sealed release").into())
}
