//! Time-based one-time codes (RFC 6238): the weakest second factor, and therefore the most rationed.

use crate::secret::Secret;
use proto::time::UnixTime;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use totp_rs::{Algorithm, Builder, Totp};

/// Seconds a step lasts.
pub const STEP: u64 = 30;
/// Digits of a code.
pub const DIGITS: u8 = 6;
/// Bytes of a secret: 160 bits, as RFC 4226 §4 recommends.
pub const SECRET_BYTES: usize = 20;
/// Wrong codes that one request takes from one person.
pub const WRONG_PER_REQUEST: u8 = 3;
/// Wrong codes in an hour, a day, and a rolling 90 days. Success does not clear them.
pub const BUDGETS: [(u64, usize); 3] = [(3600, 5), (86_400, 10), (90 * 86_400, 20)];

/// A person's durable state: the last step used, and when wrong codes were tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotpState {
    /// Strictly increasing, so that no code works twice (RFC 6238 §5.2).
    pub last_step: u64,
    /// Times of wrong codes within the longest budget.
    pub wrong: Vec<UnixTime>,
}

/// Why a code did not count.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NoCode {
    /// Not exactly six ASCII digits: not an attempt, nothing is charged.
    #[error("a code has exactly {DIGITS} digits")]
    Malformed,
    /// A budget is used up; nothing was compared.
    #[error("too many wrong codes; use another factor or wait")]
    Exhausted,
    /// Wrong, or used before. The state to store has been charged.
    #[error("the code is wrong or was used before")]
    Wrong(TotpState),
    /// The stored secret cannot be used.
    #[error("the stored secret is damaged")]
    Damaged,
}

/// A code that held: the state to store in the very commit that accepts it.
#[derive(Debug, PartialEq, Eq)]
pub struct GoodCode {
    /// To be stored.
    pub state: TotpState,
    /// The step that matched.
    pub step: u64,
}

/// Judges a code. The charge comes before the comparison: whoever commits a [`NoCode::Wrong`]
/// or a [`GoodCode`] only after this returned has no way to compare without paying (attacks 21, 22).
pub fn judge(
    secret: &Secret<Vec<u8>>,
    code: &str,
    state: &TotpState,
    wrong_in_request: u8,
    now: UnixTime,
) -> Result<GoodCode, NoCode> {
    // One spelling only: a code with a space, a sign or full-width digits is no attempt at all.
    if code.len() != usize::from(DIGITS) || !code.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NoCode::Malformed);
    }
    let longest = BUDGETS
        .iter()
        .map(|(seconds, _)| *seconds)
        .max()
        .unwrap_or(0);
    let mut charged = state.clone();
    charged.wrong.retain(|t| now.since(*t) < longest);
    let over = |(seconds, max): &(u64, usize)| {
        charged
            .wrong
            .iter()
            .filter(|t| now.since(**t) < *seconds)
            .count()
            >= *max
    };
    if wrong_in_request >= WRONG_PER_REQUEST || BUDGETS.iter().any(over) {
        return Err(NoCode::Exhausted);
    }
    charged.wrong.push(now);

    let totp = generator(secret.expose(), None).ok_or(NoCode::Damaged)?;
    // Current and previous step; both are always computed, so time does not tell which matched.
    let current = totp.check(code, now.0).map(|_| now.0 / STEP);
    let previous = totp
        .check(code, now.before(STEP).0)
        .map(|_| now.before(STEP).0 / STEP);
    match current.or(previous) {
        Some(step) if step > state.last_step => {
            // The charge of a right code is taken back; those of earlier wrong ones stay.
            charged.wrong.pop();
            charged.last_step = step;
            Ok(GoodCode {
                state: charged,
                step,
            })
        }
        _ => Err(NoCode::Wrong(charged)),
    }
}

/// The `otpauth://` URL of a secret, for a QR code. A secret itself.
pub fn otpauth(secret: &Secret<Vec<u8>>, account: &str) -> Option<String> {
    generator(secret.expose(), Some(account))?.to_url().ok()
}

fn generator(secret: &[u8], account: Option<&str>) -> Option<Totp> {
    let builder = Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(DIGITS)
        .with_skew(0)
        .with_step_duration(STEP)
        .with_secret(secret.to_vec());
    match account {
        Some(a) => builder
            .with_account_name(a.to_owned())
            .with_issuer(Some("Countersign")),
        None => builder,
    }
    .build()
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret<Vec<u8>> {
        Secret::new(b"12345678901234567890".to_vec())
    }

    fn code(at: u64) -> String {
        generator(secret().expose(), None)
            .unwrap()
            .generate(at)
            .to_string()
    }

    #[test]
    fn rfc_6238_vector() {
        // RFC 6238 appendix B, last six of the eight digits.
        assert_eq!(code(59), "287082");
        assert_eq!(code(1_111_111_109), "081804");
    }

    #[test]
    fn attack_22_a_code_counts_once() {
        let now = UnixTime(1_111_111_109);
        let good = judge(&secret(), &code(now.0), &TotpState::default(), 0, now).unwrap();
        assert!(matches!(
            judge(&secret(), &code(now.0), &good.state, 0, now),
            Err(NoCode::Wrong(_))
        ));
        // The step before an accepted one is spent as well.
        let before = code(now.0 - STEP);
        assert!(matches!(
            judge(&secret(), &before, &good.state, 0, now),
            Err(NoCode::Wrong(_))
        ));
        assert!(
            judge(
                &secret(),
                &code(now.0 + STEP),
                &good.state,
                0,
                now.after(STEP)
            )
            .is_ok()
        );
    }

    #[test]
    fn attack_21_other_spellings_are_no_attempt() {
        let now = UnixTime(59);
        for bad in [
            "287 082",
            " 287082",
            "287082 ",
            "+28708",
            "２８７０８２",
            "28708",
            "2870820",
            "28708\0",
            "",
        ] {
            assert_eq!(
                judge(&secret(), bad, &TotpState::default(), 0, now),
                Err(NoCode::Malformed),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn attack_21_guessing_is_rationed_and_success_does_not_clear_it() {
        let mut state = TotpState::default();
        let mut evaluated = 0u32;
        let start = UnixTime(2_000_000_000);
        // A guess a minute for 90 days.
        for minute in 0..90 * 24 * 60 {
            let now = start.after(minute * 60);
            match judge(&secret(), "000000", &state, 0, now) {
                Err(NoCode::Wrong(s)) => {
                    evaluated += 1;
                    state = s;
                }
                Ok(g) => state = g.state,
                Err(NoCode::Exhausted) => {
                    // Not even the right code is compared any more.
                    assert_eq!(
                        judge(&secret(), &code(now.0), &state, 0, now),
                        Err(NoCode::Exhausted)
                    );
                }
                Err(other) => panic!("{other:?}"),
            }
            match minute {
                59 => assert_eq!(evaluated, 5, "in an hour"),
                1439 => assert_eq!(evaluated, 10, "in a day"),
                _ => {}
            }
        }
        assert!(evaluated <= 20, "{evaluated}");
        // A right code takes none of the wrong ones back.
        let mut state = TotpState::default();
        for _ in 0..4 {
            match judge(&secret(), "000000", &state, 0, start) {
                Err(NoCode::Wrong(s)) => state = s,
                other => panic!("{other:?}"),
            }
        }
        let good = judge(&secret(), &code(start.0), &state, 0, start).unwrap();
        assert_eq!(good.state.wrong, state.wrong);
        assert_eq!(
            judge(
                &secret(),
                "000000",
                &TotpState::default(),
                WRONG_PER_REQUEST,
                start
            ),
            Err(NoCode::Exhausted)
        );
    }

    #[test]
    fn a_clock_that_jumped_ahead_does_not_poison_the_last_step() {
        let far = UnixTime(4_000_000_000);
        let good = judge(&secret(), &code(far.0), &TotpState::default(), 0, far).unwrap();
        assert_eq!(good.state.last_step, far.0 / STEP);
        assert!(good.state.last_step <= far.0 / STEP);
    }
}
