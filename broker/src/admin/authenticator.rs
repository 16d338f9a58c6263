//! An authenticator app, set up after the enrolment or in place of an earlier one. It needs the strongest factor that
//! the person has, as every change of factors does; an earlier app's codes are worth nothing from then on.

use super::own::{Own, current, replaced};
use crate::{
    audit::event::Event,
    challenge::totp::{self, NoCode, TotpState},
    desk::{
        Desk, Fault,
        people::{Person, Versioned},
    },
    publish::{Refusal, prove::prove_change},
    secret::Secret,
    store::{Batch, Table},
};
use proto::{
    digest::hex,
    factors::{AddTotp, TotpOffer, change},
    ids::DeviceId,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};

/// Apps that are being set up, by person: the last one counts; authenticated.
const SETUPS: Table = Table("totp-setup");
/// Seconds that a setup may take.
const SETUP_SECONDS: u64 = 10 * 60;
/// Wrong first codes that a setup takes.
const FIRST_CODES_MAX: u8 = 5;

#[derive(Serialize, Deserialize)]
struct Setup {
    /// What the proof is about: a proof for one setup is none for another's secret.
    id: String,
    device: DeviceId,
    /// The secret, sealed.
    totp: Vec<u8>,
    wrong: u8,
    expires: UnixTime,
}

/// A fresh secret. It is worth nothing before [`add`].
pub async fn offer(desk: &Desk, own: Own<'_>, now: UnixTime) -> Result<TotpOffer, Refusal> {
    current(desk, own)?;
    let fresh: [u8; totp::SECRET_BYTES] = desk.world.random().map_err(Fault::from)?;
    let id: [u8; 16] = desk.world.random().map_err(Fault::from)?;
    let secret = Secret::new(fresh.to_vec());
    let setup = Setup {
        id: hex(&id),
        device: own.device.clone(),
        totp: desk.seal_totp(own.person, &secret)?,
        wrong: 0,
        expires: now.after(SETUP_SECONDS),
    };
    let key = own.person.as_str().as_bytes();
    let row = desk.authentic(SETUPS, key, &setup)?;
    let old = desk.live.get(SETUPS, key).map_err(Fault::from)?;
    let batch = Batch::new().put(SETUPS, key, old.map(|old| old.version), row);
    desk.commit(batch, &[], now).await?;
    let otpauth =
        totp::otpauth(&secret, own.person.as_str()).ok_or(Fault::Damaged("a TOTP secret"))?;
    Ok(TotpOffer {
        setup: setup.id,
        qr: super::qr::rows(&otpauth),
        otpauth,
    })
}

/// Takes the app whose first code is given.
pub async fn add(desk: &Desk, own: Own<'_>, given: &AddTotp, now: UnixTime) -> Result<(), Refusal> {
    let held = current(desk, own)?;
    let key = own.person.as_str().as_bytes();
    let setup = desk
        .authentic_row::<Setup>(SETUPS, key)?
        .filter(|s| now < s.value.expires)
        .filter(|s| s.value.device == *own.device && s.value.id == given.setup)
        .ok_or_else(|| Refusal::NotAllowed("this setup is unknown or expired".to_owned()))?;
    if desk.world.clock_suspect() {
        return Err(Refusal::ClockSuspect);
    }
    // Whoever asks has seen the secret: a wrong code says that the app has not, and guesses nothing.
    let secret = desk.open_totp(own.person, &setup.value.totp)?;
    let first = match totp::judge(&secret, &given.code, &TotpState::default(), 0, now) {
        Ok(good) => good.step,
        Err(NoCode::Malformed) => {
            return Err(Refusal::BadRequest(
                "a code has exactly six digits".to_owned(),
            ));
        }
        Err(_) => return wrong_first_code(desk, key, setup, now).await,
    };
    let about = (change::ADD_TOTP, given.setup.as_str());
    let proved = prove_change(desk, &held.value, own.device, about, &given.factor, now).await?;
    let known = desk.totp_state(own.person)?;
    // A code of the app before proves it once, and none of the two apps' codes works twice (attack 22).
    if proved
        .step
        .is_some_and(|step| step <= known.value.last_step)
    {
        return Err(Refusal::FactorWrong);
    }
    let mut state = known.value;
    state.last_step = state.last_step.max(first).max(proved.step.unwrap_or(0));
    let spent = match proved.step {
        // All that a code spends is the step, and that is stored below.
        Some(_) => Batch::new(),
        None => proved.spent,
    };
    let batch = desk.store_totp(spent, own.person, Some(known.version), &state)?;
    let mut person = Person::clone(&held.value);
    person.totp = setup.value.totp;
    let batch = replaced(desk, batch, held.version, &person)?.delete(SETUPS, key, setup.version);
    let event = Event::TotpSet {
        person: own.person.clone(),
        device: own.device.clone(),
    };
    desk.commit(batch, &[event], now).await?;
    Ok(())
}

async fn wrong_first_code(
    desk: &Desk,
    key: &[u8],
    mut setup: Versioned<Setup>,
    now: UnixTime,
) -> Result<(), Refusal> {
    setup.value.wrong += 1;
    let batch = if setup.value.wrong >= FIRST_CODES_MAX {
        Batch::new().delete(SETUPS, key, setup.version)
    } else {
        let row = desk.authentic(SETUPS, key, &setup.value)?;
        Batch::new().replace(SETUPS, key, setup.version, row)
    };
    desk.commit(batch, &[], now).await?;
    Err(Refusal::FactorWrong)
}
