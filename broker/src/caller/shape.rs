//! The shapes of claims that several kinds share. Ids have one spelling; what becomes part of a link
//! cannot leave its place in it.

use super::{refused::CallerRefused, token::UnverifiedClaims};
use std::borrow::Cow;

/// Longest name: repository, event, environment, actor, in bytes.
pub(super) const NAME_MAX: usize = 255;
/// Longest ref and workflow ref, in bytes.
pub(super) const REF_MAX: usize = 512;
/// Most digits of an id; 64 bits have 20.
const ID_MAX: usize = 20;

/// A claim that has to have this shape.
pub(super) fn shaped(
    claims: &UnverifiedClaims,
    name: &'static str,
    max: usize,
    is: fn(&str) -> bool,
) -> Result<String, CallerRefused> {
    let text = claims.required(name, max)?;
    is(&text).then_some(text).ok_or_else(|| missing(name))
}

/// A claim of decimal digits in a string; a JSON number is refused.
pub(super) fn number(
    claims: &UnverifiedClaims,
    name: &'static str,
) -> Result<String, CallerRefused> {
    shaped(claims, name, ID_MAX, is_digits)
}

/// A claim that is a whole commit id.
pub(super) fn commit(
    claims: &UnverifiedClaims,
    name: &'static str,
) -> Result<String, CallerRefused> {
    shaped(claims, name, 64, is_commit)
}

/// A claim that is a UUID in lower case.
pub(super) fn uuid(claims: &UnverifiedClaims, name: &'static str) -> Result<String, CallerRefused> {
    shaped(claims, name, 36, is_uuid)
}

pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A whole commit id: SHA-1 or SHA-256, lower-case hex.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(is_hex)
}

/// 8-4-4-4-12 lower-case hex digits (RFC 9562 §4).
pub(super) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => is_hex(b),
        })
}

const fn is_hex(b: u8) -> bool {
    b.is_ascii_digit() || matches!(b, b'a'..=b'f')
}

/// One part of a path in a link: letters, digits, `.`, `_` and `-`, and neither `.` nor `..`.
pub(super) fn is_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// `group/project`, with any number of groups.
pub(super) fn is_path(text: &str) -> bool {
    text.contains('/') && text.split('/').all(is_segment)
}

pub(super) const fn missing(name: &'static str) -> CallerRefused {
    CallerRefused::ClaimMissing(Cow::Borrowed(name))
}
