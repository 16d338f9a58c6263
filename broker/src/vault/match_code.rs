//! What is derived for one request instead of stored: the match code that CI shows and a person
//! types, and the ticket. Deriving it gives a retried open the same answer while the store has
//! nothing but the ticket's hash.

use super::seal::{Domain, Sealed, Vault};
use aws_lc_rs::constant_time;
use proto::{
    bearer::{Bearer, Kind},
    ids::RequestId,
    time::UnixTime,
};

/// Digits in a match code.
pub const MATCH_CODE_DIGITS: usize = 6;
const CODES: u64 = 1_000_000;

/// The request's match code: 6 ASCII digits.
pub fn match_code(vault: &Vault, id: RequestId) -> Result<String, Sealed> {
    let mac = derived(vault, Domain::MatchCode, id)?;
    // 64 bits modulo a million prefers some codes by less than one in 10^13.
    let number = mac
        .first_chunk::<8>()
        .map_or(0, |head| u64::from_be_bytes(*head));
    Ok(format!("{:06}", number % CODES))
}

/// By the request's own time, so that it stays the same while the vault is re-keyed.
fn derived(vault: &Vault, domain: Domain, id: RequestId) -> Result<[u8; 32], Sealed> {
    let made = id.0.get_timestamp().map(|at| UnixTime(at.to_unix().0));
    vault.mac_of(domain, made.unwrap_or(UnixTime(u64::MAX)), id.0.as_bytes())
}

/// Whether this is the request's match code: exactly 6 ASCII digits, compared in constant time. The
/// caller has charged the attempt before he asks.
pub fn match_code_holds(vault: &Vault, id: RequestId, typed: &str) -> Result<bool, Sealed> {
    let right = match_code(vault, id)?;
    Ok(typed.len() == MATCH_CODE_DIGITS
        && constant_time::verify_slices_are_equal(right.as_bytes(), typed.as_bytes()).is_ok())
}

/// The request's ticket. Only whoever proves that he opened the request may be given it.
pub fn ticket(vault: &Vault, id: RequestId) -> Result<Bearer, Sealed> {
    let entropy = derived(vault, Domain::Ticket, id)?;
    Ok(Bearer::from_entropy(Kind::Ticket, entropy))
}

/// The credential by which the job of a deposit hands its files over, before anybody has approved.
pub fn deposit_credential(vault: &Vault, id: RequestId) -> Result<Bearer, Sealed> {
    let entropy = derived(vault, Domain::Deposit, id)?;
    Ok(Bearer::from_entropy(Kind::Credential, entropy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::seal::fixtures::open_vault;

    fn id(n: u128) -> RequestId {
        RequestId(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn a_code_is_six_digits_and_of_its_request_alone() {
        let vault = open_vault();
        let codes: std::collections::BTreeSet<String> = (0..500)
            .map(|n| match_code(&vault, id(n)).unwrap())
            .collect();
        assert!(codes.len() > 490);
        let code = match_code(&vault, id(1)).unwrap();
        assert!(code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit()));
        assert_eq!(match_code_holds(&vault, id(1), &code), Ok(true));
        let other = match_code(&open_vault(), id(1)).unwrap();
        let wrong = [
            format!(" {code}"),
            format!("{code}\0"),
            code[..5].to_owned(),
            String::new(),
        ];
        for typed in wrong.iter().chain([&other]).filter(|t| **t != code) {
            assert_eq!(
                match_code_holds(&vault, id(1), typed),
                Ok(false),
                "{typed:?}"
            );
        }
    }

    #[test]
    fn attack_23_the_code_of_another_request_does_not_match() {
        let vault = open_vault();
        let code = match_code(&vault, id(1)).unwrap();
        let holds = (2..200).filter(|n| match_code_holds(&vault, id(*n), &code) == Ok(true));
        assert_eq!(holds.count(), 0);
    }

    #[test]
    fn a_retry_gets_the_same_ticket_and_another_request_another() {
        let vault = open_vault();
        let one = ticket(&vault, id(1)).unwrap();
        assert!(one.hash() == ticket(&vault, id(1)).unwrap().hash());
        assert!(one.hash() != ticket(&vault, id(2)).unwrap().hash());
        assert!(one.hash() != ticket(&open_vault(), id(1)).unwrap().hash());
    }
}
