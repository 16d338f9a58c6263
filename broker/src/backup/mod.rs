//! Backups: everything that a broker is, out of it while it serves, and back on a bare machine.
//!
//! Read [`take`] (of a running broker), [`folder`] (by itself, into a folder), [`format`] (what is inside),
//! [`restore`] (back), [`drill`] (tried out, with [`contents`]: what each row must prove).
//!
//! What if an attacker has one? He needs an identity of the recipients to read names, times and ciphertext, and
//! what opens the vault for the rest (attack 44). What if he puts one back? Then nothing is approved until the
//! admins have agreed to it (attack 45), and every device that saw more than it holds refuses.

pub mod drill;
pub mod folder;
pub mod format;
pub mod restore;
pub mod take;

/// The key file's name inside.
pub(crate) const KEY_FILE: &str = "vault.json";
/// Texts that are inside as they were, for whoever sets the machine up again.
pub const TEXTS: [&str; 2] = ["countersign.toml", "policy.toml"];
