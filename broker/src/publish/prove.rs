//! Second factors, checked for one act: a TOTP code or a passkey's assertion. What is spent by it (a code's
//! step, a challenge's nonce) goes into the commit of the act itself.

use super::Refusal;
use crate::{
    audit::{event::Event, reason::AnswerRefusal},
    challenge::{
        passkey::NotTaken,
        totp::{self, NoCode},
    },
    desk::{
        Desk, Fault,
        people::{PASSKEYS, PasskeyUse, Person},
    },
    store::{Batch, Table},
    vault::Domain,
};
use proto::{
    answer::Factor,
    api::{Challenge, ChallengeRequest, PasskeyReply, SecondFactor},
    device::DeviceKind,
    digest::{hex, unhex},
    ids::DeviceId,
    passkey::{self, Act, Assertion, NONCE_BYTES},
    request::RequestDigest,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// Challenges that were handed out: person NUL nonce. Authenticated, single use.
pub const CHALLENGES: Table = Table("challenge");
/// Seconds that a challenge works.
const CHALLENGE_SECONDS: u64 = 5 * 60;
/// Open challenges of one device; the oldest goes first. A stolen session pushes out none of the person's others.
const CHALLENGES_MAX: usize = 20;
/// Rows of one person that are looked at for it: those of all devices, and some more.
const LOOK_MAX: usize = 12 * CHALLENGES_MAX;
/// Attempts to charge a wrong code when others are charged at the same moment.
const RACES_MAX: usize = 100;

#[derive(Serialize, Deserialize)]
struct HandedOut {
    device: DeviceId,
    act: Act,
    digest: RequestDigest,
    expires: UnixTime,
}

/// What was shown.
pub struct Proved {
    /// Which kind.
    pub factor: Factor,
    /// The TOTP step that matched.
    pub step: Option<u64>,
    /// The passkey's assertion.
    pub assertion: Option<Assertion>,
    /// What it spends: belongs into the act's commit.
    pub spent: Batch,
}

/// Why nothing was shown.
pub enum Unproved {
    /// A wrong code. The batch charges it, and is committed before anybody learns that it was wrong.
    WrongCode(Batch),
    /// The budget is used up.
    Exhausted,
    /// The passkey's reply does not hold.
    Passkey(NotTaken),
    /// Anything else.
    Refused(Refusal),
}

impl From<Refusal> for Unproved {
    fn from(why: Refusal) -> Self {
        Self::Refused(why)
    }
}

impl From<Fault> for Unproved {
    fn from(why: Fault) -> Self {
        Self::Refused(why.into())
    }
}

/// What somebody is proving.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// What for.
    pub act: Act,
    /// About what.
    pub digest: &'a [u8; 32],
    /// The device that signed the call.
    pub device: &'a DeviceId,
    /// Wrong codes that this person gave for it already.
    pub wrong: u8,
}

/// Hands out a challenge for one act of one device.
pub async fn challenge(
    desk: &Desk,
    person: &Person,
    device: &DeviceId,
    asked: &ChallengeRequest,
    now: UnixTime,
) -> Result<Challenge, Refusal> {
    let passkeys = desk.passkeys.as_ref().ok_or(Refusal::FactorMissing)?;
    if person.passkeys.is_empty() {
        return Err(Refusal::NotAllowed(
            "no passkey is enrolled for you".to_owned(),
        ));
    }
    let nonce: [u8; NONCE_BYTES] = desk.world.random().map_err(Fault::from)?;
    let known = person.registered();
    let wanted = passkey::challenge(asked.act, &asked.digest.0, &nonce);
    let options = passkeys
        .options(&known, &wanted)
        .map_err(|why| damaged(&why))?;
    let row = HandedOut {
        device: device.clone(),
        act: asked.act,
        digest: asked.digest,
        expires: now.after(CHALLENGE_SECONDS),
    };
    let key = challenge_key(person, &nonce);
    let mut batch = Batch::new().create(
        CHALLENGES,
        key.as_slice(),
        desk.authentic(CHALLENGES, &key, &row)?,
    );
    for (key, version) in to_forget(desk, person, device, now)? {
        batch = batch.delete(CHALLENGES, key, version);
    }
    desk.commit(batch, &[], now).await?;
    Ok(Challenge {
        nonce: hex(&nonce),
        options,
    })
}

/// What makes room: challenges of this person that are over, and the oldest ones of too many of this device.
fn to_forget(
    desk: &Desk,
    person: &Person,
    device: &DeviceId,
    now: UnixTime,
) -> Result<Vec<(Vec<u8>, u64)>, Refusal> {
    let prefix = challenge_key(person, &[]);
    let rows = desk
        .live
        .range(CHALLENGES, &prefix, None, LOOK_MAX)
        .map_err(Fault::from)?;
    let mut open = Vec::new();
    let mut over = Vec::new();
    for (key, row) in rows {
        let held = desk.authentic_row::<HandedOut>(CHALLENGES, &key);
        match held {
            Ok(Some(held)) if now < held.value.expires => {
                if held.value.device == *device {
                    open.push((held.value.expires, key, row.version));
                }
            }
            _ => over.push((key, row.version)),
        }
    }
    open.sort_unstable();
    let surplus = (open.len() + 1).saturating_sub(CHALLENGES_MAX);
    over.extend(open.into_iter().take(surplus).map(|(_, k, v)| (k, v)));
    Ok(over)
}

fn challenge_key(person: &Person, nonce: &[u8]) -> Vec<u8> {
    let mut key = person.id.as_str().as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(nonce);
    key
}

/// Which kind was given. Asked before it is checked: what is not accepted must not tell whether it was right.
pub fn kind_of(given: &SecondFactor) -> Factor {
    match (&given.passkey, &given.totp) {
        (Some(_), _) => Factor::Passkey,
        (None, Some(_)) => Factor::Totp,
        (None, None) => Factor::Device,
    }
}

/// Checks what was given. Nothing given is [`Factor::Device`], which only a terminal's key is worth.
pub fn prove(
    desk: &Desk,
    person: &Person,
    about: About<'_>,
    given: &SecondFactor,
    now: UnixTime,
) -> Result<Proved, Unproved> {
    match (&given.passkey, &given.totp) {
        (Some(_), Some(_)) => {
            Err(Refusal::BadRequest("give a TOTP code or a passkey, not both".to_owned()).into())
        }
        (Some(reply), None) => by_passkey(desk, person, about, reply, now),
        (None, Some(code)) => by_code(desk, person, about, code, now),
        (None, None) => {
            let device = person.device(about.device);
            if device.is_none_or(|d| d.kind == DeviceKind::Browser) {
                return Err(Refusal::FactorMissing.into());
            }
            Ok(Proved {
                factor: Factor::Device,
                step: None,
                assertion: None,
                spent: Batch::new(),
            })
        }
    }
}

fn by_code(
    desk: &Desk,
    person: &Person,
    about: About<'_>,
    code: &str,
    now: UnixTime,
) -> Result<Proved, Unproved> {
    // By a wrong clock, old codes would be good, and a far step would lock the person out.
    if desk.world.clock_suspect() {
        return Err(Refusal::ClockSuspect.into());
    }
    if person.totp.is_empty() {
        return Err(
            Refusal::NotAllowed("no authenticator app is set up for you".to_owned()).into(),
        );
    }
    let secret = desk.open_totp(&person.id, &person.totp)?;
    let known = desk.totp_state(&person.id)?;
    let store = |state| desk.store_totp(Batch::new(), &person.id, Some(known.version), state);
    match totp::judge(&secret, code, &known.value, about.wrong, now) {
        // The step is spent in the commit that uses it (attack 22).
        Ok(good) => Ok(Proved {
            factor: Factor::Totp,
            step: Some(good.step),
            assertion: None,
            spent: store(&good.state)?,
        }),
        Err(NoCode::Wrong(charged)) => Err(Unproved::WrongCode(store(&charged)?)),
        Err(NoCode::Malformed) => {
            Err(Refusal::BadRequest("a code has exactly six digits".to_owned()).into())
        }
        Err(NoCode::Exhausted) => Err(Unproved::Exhausted),
        Err(NoCode::Damaged) => Err(Fault::Damaged("a TOTP secret").into()),
    }
}

fn by_passkey(
    desk: &Desk,
    person: &Person,
    about: About<'_>,
    reply: &PasskeyReply,
    now: UnixTime,
) -> Result<Proved, Unproved> {
    let passkeys = desk.passkeys.as_ref().ok_or(Refusal::FactorMissing)?;
    let nonce: [u8; NONCE_BYTES] = unhex(&reply.nonce)
        .and_then(|n| n.try_into().ok())
        .ok_or(Unproved::Passkey(NotTaken::Malformed))?;
    let key = challenge_key(person, &nonce);
    let stale = || Refusal::NotAllowed("this challenge is unknown, used or expired".to_owned());
    let held = desk
        .authentic_row::<HandedOut>(CHALLENGES, &key)?
        .ok_or_else(stale)?;
    let row = &held.value;
    if now >= row.expires
        || row.device != *about.device
        || row.act != about.act
        || row.digest.0 != *about.digest
    {
        return Err(stale().into());
    }
    let mut known = Vec::new();
    let mut uses = Vec::new();
    for own in &person.passkeys {
        let id = own.registered.id.as_bytes();
        // A deleted row must not be a counter that begins anew.
        let used = desk
            .authentic_row::<PasskeyUse>(PASSKEYS, id)?
            .ok_or(Fault::Damaged("a passkey's counter"))?;
        known.push((own.registered.clone(), used.value.counter));
        uses.push(used.version);
    }
    let wanted = passkey::challenge(about.act, about.digest, &nonce);
    let asserted = passkeys
        .verify(&reply.credential, &known, &wanted, &nonce)
        .map_err(Unproved::Passkey)?;
    let id = &asserted.assertion.credential;
    let version = known
        .iter()
        .position(|(k, _)| k.id == *id)
        .and_then(|at| uses.get(at))
        .ok_or(Unproved::Passkey(NotTaken::Malformed))?;
    let used = PasskeyUse {
        counter: asserted.counter,
        last: Some(now),
    };
    let bytes = desk.authentic(PASSKEYS, id.as_bytes(), &used)?;
    // The nonce is spent in the commit that uses it: the library would take the same reply again.
    let spent = Batch::new().delete(CHALLENGES, key, held.version).replace(
        PASSKEYS,
        id.as_bytes(),
        *version,
        bytes,
    );
    Ok(Proved {
        factor: Factor::Passkey,
        step: None,
        assertion: Some(asserted.assertion),
        spent,
    })
}

/// The same for acts that are no answers to a request. What did not hold is recorded as `recorded` says, in the
/// commit that charges it.
pub async fn prove_now(
    desk: &Desk,
    person: &Person,
    about: About<'_>,
    given: &SecondFactor,
    recorded: impl Fn(AnswerRefusal) -> Event,
    now: UnixTime,
) -> Result<Proved, Refusal> {
    for _ in 0..RACES_MAX {
        let (reason, charged, told) = match prove(desk, person, about, given, now) {
            Ok(proved) => return Ok(proved),
            Err(Unproved::WrongCode(charged)) => {
                (AnswerRefusal::FactorWrong, charged, Refusal::FactorWrong)
            }
            Err(Unproved::Exhausted) => (
                AnswerRefusal::FactorExhausted,
                Batch::new(),
                Refusal::FactorExhausted,
            ),
            Err(Unproved::Passkey(why)) => {
                (AnswerRefusal::FactorWrong, Batch::new(), not_taken(&why))
            }
            Err(Unproved::Refused(refusal)) => return Err(refusal),
        };
        // What costs its author nothing must not fill the log.
        if charged.is_empty() && !desk.refusals.take(now) {
            return Err(told);
        }
        match desk.commit(charged, &[recorded(reason)], now).await {
            // Others were charged at this moment: a guess that costs nothing would be one too many (attack 21).
            Err(Fault::Conflict(..)) => {}
            done => return Err(done.map_or_else(Refusal::from, |_| told)),
        }
    }
    Err(Refusal::Busy)
}

/// The record of an accepted TOTP step that stays as evidence: the step, and the MAC of bytes that hold it.
pub fn totp_record(desk: &Desk, bytes: &[u8], step: u64) -> Result<String, Fault> {
    Ok(format!("{step}.{}", hex(&desk.totp_mac(bytes)?)))
}

/// Whether such a record is this broker's, of the bytes that `bytes` makes of its step.
pub fn totp_record_holds(
    desk: &Desk,
    record: Option<&str>,
    bytes: impl FnOnce(u64) -> Vec<u8>,
) -> bool {
    let Some((step, mac)) = record.and_then(|m| m.split_once('.')) else {
        return false;
    };
    let (Ok(step), Some(mac)) = (step.parse::<u64>(), unhex(mac)) else {
        return false;
    };
    desk.vault
        .mac_holds(Domain::Totp, &bytes(step), &mac)
        .unwrap_or(false)
}

/// The proof of a change of devices and factors: always with the strongest factor that the person has. Else
/// whoever has the weaker one could make himself the stronger.
pub async fn prove_change(
    desk: &Desk,
    person: &Person,
    device: &DeviceId,
    what: (&str, &str),
    given: &SecondFactor,
    now: UnixTime,
) -> Result<Proved, Refusal> {
    let strongest = if desk.passkeys.is_some() && !person.passkeys.is_empty() {
        given.passkey.is_some()
    } else {
        given.totp.is_some()
    };
    if !strongest {
        return Err(Refusal::StrongestFactor);
    }
    prove_what(desk, person, device, what, given, now).await
}

/// The proof of what makes nobody stronger and can make people deaf, or an announcement void: any factor from a
/// browser, which signs whatever its page asks (attack 32), and none from a terminal, whose key was given by its
/// person just now. Returns what it spends.
pub async fn prove_in_browser(
    desk: &Desk,
    person: &Person,
    device: &DeviceId,
    what: (&str, &str),
    given: &SecondFactor,
    now: UnixTime,
) -> Result<Batch, Refusal> {
    let known = person.device(device);
    if known.is_some_and(|d| d.kind == DeviceKind::Terminal) {
        return Ok(Batch::new());
    }
    let proved = prove_what(desk, person, device, what, given, now).await?;
    Ok(proved.spent)
}

/// The proof of an admin's act in a terminal: a second factor beside the device's key. Any one of them, since a
/// terminal has no passkey, and nobody makes himself a factor by it. Returns what it spends.
pub async fn prove_in_terminal(
    desk: &Desk,
    person: &Person,
    device: &DeviceId,
    what: (&str, &str),
    given: &SecondFactor,
    now: UnixTime,
) -> Result<Batch, Refusal> {
    if given.totp.is_none() && given.passkey.is_none() {
        return Err(Refusal::FactorMissing);
    }
    let proved = prove_what(desk, person, device, what, given, now).await?;
    Ok(proved.spent)
}

/// The proof of a change that is named by what it does, and to what.
async fn prove_what(
    desk: &Desk,
    person: &Person,
    device: &DeviceId,
    (what, object): (&str, &str),
    given: &SecondFactor,
    now: UnixTime,
) -> Result<Proved, Refusal> {
    let about = About {
        act: Act::ChangeFactors,
        digest: &passkey::change_digest(what, object),
        device,
        wrong: 0,
    };
    let refused = |reason| Event::ChangeRefused {
        person: person.id.clone(),
        device: device.clone(),
        reason,
    };
    prove_now(desk, person, about, given, refused, now).await
}

/// What a person is told whose passkey's reply does not hold.
pub fn not_taken(why: &NotTaken) -> Refusal {
    if matches!(why, NotTaken::Shape) {
        return damaged(why);
    }
    tracing::info!(%why, "a passkey's reply was refused");
    Refusal::PasskeyRefused
}

fn damaged(why: &NotTaken) -> Refusal {
    tracing::error!(%why, "passkeys cannot be used");
    Fault::Damaged("a passkey").into()
}
