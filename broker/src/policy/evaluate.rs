//! The decision about a whole request. A leaf: only what stands in this file can make a [`Permit`].

use super::{
    case::{Admitted, Case, Now, Stage},
    file::Policy,
    reason::Reason,
    rules::{Finding, Later, Missing, RULES},
};
use proto::{
    api::Mode,
    ids::RequestId,
    request::{ITEMS_MAX, Item, RequestDigest, RequestFacts},
};
use std::{collections::BTreeSet, fmt};

/// What the vault demands before it hands out anything. Private fields, no `Clone`, no
/// `Deserialize`: it is made by [`evaluate`], of one request, and spent once.
///
/// ```compile_fail
/// fn forge(id: proto::ids::RequestId, digest: proto::request::RequestDigest) {
///     let mode = proto::api::Mode::Forward;
///     let permit = broker::policy::evaluate::Permit { id, digest, items: vec![], mode };
/// }
/// ```
/// ```compile_fail
/// fn twice(p: &broker::policy::evaluate::Permit) -> broker::policy::evaluate::Permit { p.clone() }
/// ```
#[derive(Debug)]
pub struct Permit {
    id: RequestId,
    digest: RequestDigest,
    items: Vec<String>,
    mode: Mode,
    mint_seconds: u64,
}

impl Permit {
    /// The request.
    pub const fn id(&self) -> RequestId {
        self.id
    }

    /// What was approved.
    pub const fn digest(&self) -> &RequestDigest {
        &self.digest
    }

    /// The items, like `npm:@acme/left@1.4.2`, in the request's order.
    pub fn items(&self) -> &[String] {
        &self.items
    }

    /// How it is to be spent.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Longest life of what is minted for it, in seconds.
    pub const fn mint_seconds(&self) -> u64 {
        self.mint_seconds
    }
}

/// The decision at release.
#[derive(Debug)]
pub enum Verdict {
    /// Everything holds.
    Permit(Permit),
    /// Not enough people yet.
    Wait(Missing),
    /// Enough people, but not at this time.
    Later(Later),
    /// No.
    Deny(Refusal),
}

/// Why not, and because of which item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `npm:@acme/left@1.4.2`; `None` when it is the request as a whole.
    pub item: Option<String>,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(item) = &self.item {
            write!(f, "{item}: ")?;
        }
        self.reason.fmt(f)
    }
}

impl std::error::Error for Refusal {}

/// Whether people may be asked at all, and what they must answer: taken before anybody is rung.
pub fn admissible(
    request: &RequestFacts,
    policy: &Policy,
    around: &Now<'_>,
) -> Result<Admitted, Refusal> {
    judge(Stage::Open, request, policy, None, around).map(|(admitted, ..)| admitted)
}

/// Whether it may be released: taken when an answer comes in, and again when it is collected,
/// against the policy, people, freezes and clock of that moment. `at_open` is what [`admissible`]
/// returned when the request was opened. Deny wins over wait, wait over later, later over permit.
///
/// Take it before the first item leaves: an item that is out is a version that exists.
pub fn evaluate(
    request: &RequestFacts,
    policy: &Policy,
    at_open: &Admitted,
    around: &Now<'_>,
) -> Verdict {
    match judge(Stage::Release, request, policy, Some(at_open), around) {
        Err(refusal) => Verdict::Deny(refusal),
        Ok((_, Some(missing), _)) => Verdict::Wait(missing),
        Ok((_, None, Some(later))) => Verdict::Later(later),
        Ok((admitted, None, None)) => Verdict::Permit(Permit {
            id: request.id,
            digest: request.digest(),
            items: request.items.iter().map(Item::name).collect(),
            mode: admitted.mode,
            mint_seconds: admitted.mint_seconds,
        }),
    }
}

/// What all rules found: what was admitted, the largest gap, and the latest time.
type Judged = (Admitted, Option<Missing>, Option<Later>);

/// Every rule over every item. What it returns beside [`Admitted`] is the largest gap, and the latest time, if any.
fn judge(
    stage: Stage,
    request: &RequestFacts,
    policy: &Policy,
    at_open: Option<&Admitted>,
    around: &Now<'_>,
) -> Result<Judged, Refusal> {
    whole(request, around).map_err(|reason| Refusal { item: None, reason })?;
    let mut all: Option<Admitted> = None;
    let mut gap: Option<Missing> = None;
    let mut latest: Option<Later> = None;
    for (item, here) in request.items.iter().zip(around.items) {
        let refuse = |reason| Refusal {
            item: Some(item.name()),
            reason,
        };
        let entry = policy
            .entry(&item.registry, &item.package)
            .map_err(refuse)?;
        let case = Case {
            stage,
            item,
            caller: &request.caller,
            entry,
            at_open,
            policy_now: policy.digest(),
            policy_of_request: &request.policy,
            around,
            here,
        };
        for (_, rule) in RULES {
            match rule(&case) {
                Finding::Pass => {}
                Finding::Wait(missing) => gap = Some(wider(gap, missing)),
                Finding::Later(later) if latest.is_some_and(|l| l.until >= later.until) => {}
                Finding::Later(later) => latest = Some(later),
                Finding::Deny(reason) => return Err(refuse(reason)),
            }
        }
        all = Some(join(all, &case).map_err(refuse)?);
    }
    // No item, no permit: absence is a no.
    all.map(|admitted| (admitted, gap, latest)).ok_or(Refusal {
        item: None,
        reason: Reason::Empty,
    })
}

/// What must hold before any item is looked at.
fn whole(request: &RequestFacts, around: &Now<'_>) -> Result<(), Reason> {
    if request.items.is_empty() {
        return Err(Reason::Empty);
    }
    if request.items.len() > ITEMS_MAX {
        return Err(Reason::TooMany);
    }
    // `zip` would stop at the shorter list, and the items behind it would be judged by nobody.
    if request.items.len() != around.items.len() {
        return Err(Reason::Facts);
    }
    let distinct: BTreeSet<String> = request.items.iter().map(Item::name).collect();
    if distinct.len() != request.items.len() {
        return Err(Reason::Twice);
    }
    // An approval of another request is worth nothing here, whoever handed it in (attack 15).
    let digest = request.digest();
    if around.approvals.iter().any(|a| *a.digest() != digest) {
        return Err(Reason::Facts);
    }
    Ok(())
}

/// The widest gap of one item, with the sum of all.
fn wider(a: Option<Missing>, b: Missing) -> Missing {
    let of_item = |m: &Missing| m.quorum.saturating_sub(m.approvals);
    let Some(a) = a else { return b };
    let gap = a.gap.saturating_add(b.gap);
    if of_item(&a) >= of_item(&b) {
        Missing { gap, ..a }
    } else {
        Missing { gap, ..b }
    }
}

/// The strictest of what the items ask for.
fn join(all: Option<Admitted>, case: &Case<'_>) -> Result<Admitted, Reason> {
    let entry = case.entry;
    let Some(all) = all else {
        return Ok(Admitted {
            quorum: case.quorum(),
            factors: entry
                .factors
                .iter()
                .copied()
                .filter(|f| case.accepts(*f))
                .collect(),
            answers_seconds: entry.answers_seconds,
            mode: entry.mode,
            mint_seconds: case.mint_seconds(),
            terms: case.terms(),
        });
    };
    if all.mode != entry.mode {
        return Err(Reason::Modes);
    }
    let factors: Vec<_> = all
        .factors
        .into_iter()
        .filter(|f| case.accepts(*f))
        .collect();
    if factors.is_empty() {
        return Err(Reason::NoFactor);
    }
    Ok(Admitted {
        quorum: all.quorum.max(case.quorum()),
        factors,
        answers_seconds: all.answers_seconds.min(entry.answers_seconds),
        mode: all.mode,
        mint_seconds: all.mint_seconds.min(case.mint_seconds()),
        terms: all.terms.and(case.terms()),
    })
}
