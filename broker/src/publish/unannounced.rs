//! A publish that nobody announced: npm, pnpm, Yarn, uv or pdm as they are, with the broker as their
//! registry.
//!
//! The client exchanges its id token and uploads. The first run opens a request for exactly these
//! bytes and is told no, with the address of the question. After the approval the same run, run
//! again, uploads the same bytes, and they are published. An approval belongs to the run that asked.
//! Where a release is several files, [`files`] finds or opens their common request.

mod files;

use super::{
    Refusal, deposit, forward, intent,
    ledger::{self, BY_PACKAGE_ASKER, Held},
    open::{self, Door, Terms},
    release,
    state::{Record, State},
};
use crate::{
    audit::{event::Event, reason::RefusalReason},
    caller::{Burn, Caller},
    desk::{
        Desk, Fault,
        guests::{Entered, GUEST_SECONDS, Guest},
        uploads::Slot,
    },
    policy::{self, Reason},
    registry::{Head, Publish},
    store::Batch,
    vault::{
        Domain,
        match_code::{match_code, ticket},
    },
};
use proto::{
    api::{Mode, OpenRequest, StateName},
    bearer::{Bearer, Kind},
    canonical::Canonical,
    digest::hex,
    ids::{PackageName, RegistryId, RequestId, VersionText},
    request::{File, Item},
    time::UnixTime,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, atomic::AtomicBool},
};
use tempfile::SpooledTempFile;

/// Most bytes of an upload that nobody announced, as the client encodes it.
pub const UPLOAD_MAX: u64 = 140 * 1024 * 1024;
/// Seconds that an upload of a guest may take.
const UPLOAD_SECONDS: u64 = 15 * 60;
/// Questions of one run for the same bytes: an earlier one may have expired.
const ATTEMPTS_MAX: u32 = 20;
/// Seconds before an id token's end: before it was made.
const HOUR: u64 = 3600;
/// Open requests looked at for one upload; the quotas allow no more.
const LOOK_MAX: usize = 100;
/// The claim that tells one run of a workflow from another, where the issuer has one.
const RUN: &str = "run_id";

/// Lets a caller upload one package for a while, or at registries whose exchange names none, whatever he
/// may ask for. Policy is asked first: whoever may not ask gets nothing (attack 53).
pub async fn exchange(
    desk: &Desk,
    registry: &RegistryId,
    package: Option<PackageName>,
    caller: Caller,
    now: UnixTime,
) -> Result<(Bearer, UnixTime), Refusal> {
    let policy = desk.policy.load();
    let (may, item) = match &package {
        Some(package) => (
            policy.may_ask(registry, package, caller.facts()),
            Some(format!("{registry}:{package}")),
        ),
        None => (policy.may_ask_there(registry, caller.facts()), None),
    };
    if let Err(reason) = may {
        return Err(refuse(desk, item, reason, now).await?);
    }
    // Derived: the same id token makes one guest of a package, however often it is exchanged.
    let burn = caller.burn();
    let own = Canonical::new("countersign/guest/v1")
        .bytes(&burn.key)
        .text(registry.as_str());
    let own = match &package {
        Some(package) => own.text(package.as_str()),
        None => own,
    };
    // The same time for each exchange, and before the first: it stays what it was while the vault is re-keyed.
    let exchanged = UnixTime(burn.keep_until.0.saturating_sub(HOUR));
    let entropy = desk
        .vault
        .mac_of(Domain::Guest, exchanged, &own.finish())
        .map_err(Fault::from)?;
    let token = Bearer::from_entropy(Kind::Guest, entropy);
    // Counted from the id token's end, so that it is the same for each exchange.
    let until = burn.keep_until.after(GUEST_SECONDS);
    let burn = Burn {
        keep_until: until.after(UPLOAD_SECONDS),
        ..burn
    };
    let guest = Guest {
        slot: Slot::of(&caller),
        caller,
        registry: registry.clone(),
        package,
        until,
        burn,
        request: OnceLock::new(),
        over: AtomicBool::new(false),
    };
    let place = (registry, guest.package.as_ref());
    let announced = intent::about(desk, place, guest.caller.facts(), now)?;
    match desk.guests.enter(token.hash(), guest, announced, now) {
        Entered::Yes => Ok((token, until)),
        Entered::Full => Err(Refusal::Busy),
        Entered::Over => Err(Refusal::TokenReplayed),
    }
}

/// The policy's no, on the record.
async fn refuse(
    desk: &Desk,
    item: Option<String>,
    reason: Reason,
    now: UnixTime,
) -> Result<Refusal, Fault> {
    desk.metrics.refused.inc();
    if desk.refusals.take(now) {
        let event = Event::RequestRefused {
            reason: RefusalReason::Policy,
        };
        desk.commit(Batch::new(), &[event], now).await?;
    }
    Ok(Refusal::Policy(policy::Refusal { item, reason }))
}

/// The guest who may upload here: the package that he named, or whatever he may ask for.
pub fn admit(
    desk: &Desk,
    registry: &RegistryId,
    token: &Bearer,
    package: Option<&PackageName>,
) -> Result<Arc<Guest>, Refusal> {
    let guest = desk.guests.find(token.hash(), desk.world.now());
    guest
        .filter(|g| g.registry == *registry && g.package.as_ref() == package)
        .ok_or(Refusal::NotFound)
}

/// An upload that arrived.
pub struct Arrived {
    /// As its adapter read it.
    pub upload: Publish,
    /// As it came.
    pub body: SpooledTempFile,
    /// What its head said.
    pub head: Head,
    /// What people are shown as the file's name, where the upload has none.
    pub name: String,
}

/// Publishes what was approved, or asks; where the package is published by deposit, what was uploaded
/// is kept, and the job has nothing left to do.
pub async fn publish(desk: Arc<Desk>, guest: Arc<Guest>, arrived: Arrived) -> Result<(), Refusal> {
    let item = Item {
        registry: guest.registry.clone(),
        package: arrived.upload.package().clone(),
        version: arrived.upload.version().clone(),
        tag: arrived.upload.tag().cloned(),
        files: vec![File {
            name: arrived
                .upload
                .name()
                .map_or_else(|| arrived.name.clone(), str::to_owned),
            size: arrived.upload.size(),
            digest: arrived.upload.digest().clone(),
        }],
    };
    if arrived.upload.name().is_some() {
        return match files::request_of(&desk, &guest, item).await? {
            // What is out is out: the same bytes get the recorded outcome.
            None => Ok(()),
            Some(id) => go_on(desk, &guest, id, arrived).await,
        };
    }
    let id = match asked_before(&desk, &guest, &item)? {
        Ok(id) => id,
        Err(key) => ask(&desk, &guest, item, key, None).await?,
    };
    // Two uploads of one guest at once: the first one's request is his.
    let id = *guest.request.get_or_init(|| id);
    go_on(desk, &guest, id, arrived).await
}

/// Does with an upload what its request allows now.
async fn go_on(
    desk: Arc<Desk>,
    guest: &Guest,
    id: RequestId,
    arrived: Arrived,
) -> Result<(), Refusal> {
    let Arrived {
        upload, body, head, ..
    } = arrived;
    let registry = guest.registry.clone();
    let record = ledger::find(&desk, id)?.ok_or(Refusal::NotFound)?;
    let page = format!("{}/r/{id}", desk.place.public_url);
    let match_code = match_code(&desk.vault, id).map_err(Fault::from)?;
    match &record.state {
        _ if deposit::takes(&record) => {
            deposit::hand_over(desk, id, registry, upload, body, head).await?;
            // Never a 2xx: the client would tell its user that it is published.
            Err(Refusal::HandedOver {
                id,
                page,
                match_code,
            })
        }
        State::Pending { .. } => Err(Refusal::Asked {
            id,
            page,
            match_code,
        }),
        State::Approved { .. } if through_us(record.mode) => {
            // The credential is sealed to a key that nobody holds: it is these bytes, uploaded by
            // this run, that spend the approval.
            let ticket = ticket(&desk.vault, id).map_err(Fault::from)?;
            release::collect(&desk, id, &ticket, desk.world.now()).await?;
            forward::forward(desk, id, registry, upload).await
        }
        State::Releasing { .. } | State::Published { .. } if through_us(record.mode) => {
            forward::forward(desk, id, registry, upload).await
        }
        _ => Err(Refusal::State(record.name(), record.status().reason)),
    }
}

/// Whether the broker itself publishes.
const fn through_us(mode: Mode) -> bool {
    matches!(mode, Mode::Forward | Mode::Deposit)
}

/// Which run of its workflow a caller is, where the issuer says.
fn run(claims: &BTreeMap<String, String>) -> Option<&str> {
    claims.get(RUN).map(String::as_str)
}

/// Whether a request is one of the guest's own run. Where no run is named, one with more in it than a single
/// file may be anybody's of this subject: what a thief put beside these bytes shall not ring in this job's
/// name (attack 17).
fn of_this_run(guest: &Guest, record: &Record) -> bool {
    let mine = run(&guest.caller.facts().claims);
    mine == run(&record.facts.caller.claims)
        && (mine.is_some()
            || record.name() != StateName::Pending
            || matches!(record.facts.items.as_slice(), [item] if item.files.len() == 1))
}

/// Whose questions follow each other: those of one run. Where no run is named, those of one exchange: what
/// people said no to another job's question says nothing of this one's (attack 54).
fn asker(guest: &Guest, name: &str) -> Canonical {
    let claims = &guest.caller.facts().claims;
    let own = Canonical::new(name).maybe(run(claims));
    match run(claims) {
        Some(_) => own,
        None => own.bytes(&guest.burn.key),
    }
}

/// What the same run asked for the same bytes: this guest's own request, an announced one, or an
/// earlier attempt's, also when that is published already. `Err` holds the key for a new one.
fn asked_before(
    desk: &Desk,
    guest: &Guest,
    item: &Item,
) -> Result<Result<RequestId, String>, Refusal> {
    let now = desk.world.now();
    let facts = guest.caller.facts();
    let same = |record: &Record| {
        record.facts.items.iter().any(|i| same_bytes(item, i)) && of_this_run(guest, record)
    };
    if let Some(id) = guest.request.get() {
        let record = ledger::find(desk, *id)?.ok_or(Refusal::NotFound)?;
        return if same(&record) {
            Ok(Ok(*id))
        } else {
            Err(Refusal::BytesDiffer(format!(
                "this run has asked for other bytes of {} already",
                item.package_key()
            )))
        };
    }
    let prefix = ledger::prefix(&[&item.package_key(), &facts.issuer, &facts.subject]);
    let rows = desk.live.range(BY_PACKAGE_ASKER, &prefix, None, LOOK_MAX);
    for (key, _) in rows.map_err(Fault::from)? {
        let id = key.get(prefix.len()..).and_then(ledger::id_of);
        let held: Option<Held> = id.map(|id| ledger::among(desk, id)).transpose()?.flatten();
        if let Some(held) = held.filter(|h| same(&h.record) && !h.record.overdue(now)) {
            return Ok(Ok(held.record.facts.id));
        }
    }
    let wish = asker(guest, "countersign/unannounced/v1")
        .text(&item.name())
        .maybe(item.tag.as_ref().map(VersionText::as_str));
    let wish = item
        .files
        .iter()
        .fold(wish, |w, f| w.text(&f.digest.to_string()).number(f.size));
    let wish = hex(&wish.sha256());
    for attempt in 0..ATTEMPTS_MAX {
        let key = format!("unannounced-{attempt}-{wish}");
        let Some(id) = open::remembered(desk, Door::Origin, &guest.caller, &key)? else {
            return Ok(Err(key));
        };
        let record = ledger::find(desk, id)?.ok_or(Refusal::NotFound)?;
        let over = record.overdue(now)
            || matches!(record.name(), StateName::Expired | StateName::Cancelled);
        if !over {
            return Ok(Ok(id));
        }
    }
    Err(Refusal::Busy)
}

/// Whether two items are one wish; a file's name is the client's own business where the registry's
/// upload does not carry it.
fn same_bytes(one: &Item, other: &Item) -> bool {
    let ([a], [b]) = (one.files.as_slice(), other.files.as_slice()) else {
        return false;
    };
    one.registry == other.registry
        && one.package == other.package
        && one.version == other.version
        && one.tag == other.tag
        && a.digest == b.digest
        && a.size == b.size
}

/// Opens a request, if need be in the place of another.
async fn ask(
    desk: &Desk,
    guest: &Guest,
    item: Item,
    key: String,
    instead_of: Option<Held>,
) -> Result<RequestId, Refusal> {
    let policy = desk.policy.load();
    let entry = policy.entry(&item.registry, &item.package);
    if entry.is_ok_and(|entry| !through_us(entry.mode)) {
        let why = "what the policy hands out for this package goes to our own client alone";
        return Err(Refusal::NotAllowed(why.to_owned()));
    }
    let asked = OpenRequest {
        leave_out_published: false,
        items: vec![item],
        // Nobody holds its identity.
        job_key: age::x25519::Identity::generate().to_public().to_string(),
        idempotency_key: key,
        note: None,
    };
    let terms = Terms {
        burn: guest.burn,
        instead_of,
    };
    let now = desk.world.now();
    let opened = open::open_as(desk, Door::Origin, &guest.caller, asked, terms, now).await?;
    Ok(opened.id)
}
