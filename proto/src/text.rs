//! Text that comes from outside and is shown to the person who decides.

use thiserror::Error;

/// Why a text may not be shown.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TextError {
    /// Nothing but white space.
    #[error("is empty")]
    Empty,
    /// Longer than the place it is shown in.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// A character that hides, reorders or repaints what stands beside it.
    #[error("contains the character U+{0:04X}, which can mislead a reader")]
    Misleading(u32),
}

/// Accepts a text of at most `max` bytes without characters that mislead (attack 10).
///
/// Refused are control characters (ANSI escapes start with one), bidirectional marks, zero-width
/// and other invisible characters.
pub fn check(text: &str, max: usize) -> Result<(), TextError> {
    if text.trim().is_empty() {
        return Err(TextError::Empty);
    }
    if text.len() > max {
        return Err(TextError::TooLong(max));
    }
    match text.chars().find(|c| misleads(*c)) {
        Some(c) => Err(TextError::Misleading(u32::from(c))),
        None => Ok(()),
    }
}

/// Whether a character hides, reorders or repaints what stands beside it.
pub fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0x00AD | 0x034F | 0x061C | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F
            | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0x3164 | 0xFE00..=0xFE0F
            | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A
            | 0xE0000..=0xE0FFF)
}

/// The same text with every misleading character replaced by U+FFFD, for a terminal.
pub fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if misleads(c) { '\u{FFFD}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_10_text_that_misleads_the_approver_is_refused() {
        for bad in [
            "a\u{202E}b",
            "a\u{200B}b",
            "\u{1b}[2J",
            "a\nb",
            "a\0b",
            "\u{E0041}x",
            "a\u{FEFF}",
        ] {
            assert!(check(bad, 100).is_err(), "{bad:?}");
        }
        assert_eq!(
            check(&"x".repeat(10_000), 200),
            Err(TextError::TooLong(200))
        );
        assert!(check("Release 1.2.3 — grüße", 100).is_ok());
    }
}
