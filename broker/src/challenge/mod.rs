//! Who answers, and how it is proved.
//!
//! The root of trust is a device key that a person enrolled; a bare code is never enough.

pub mod approval;
pub mod passkey;
pub mod totp;
