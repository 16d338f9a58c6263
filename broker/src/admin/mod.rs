//! What admins do, a file per verb's family. Every act here is a signed call of an enrolled admin
//! device, and leaves an event in the same commit.

pub mod anchor;
pub mod authenticator;
pub mod channels;
pub mod client_keys;
pub mod clock;
pub mod custody;
pub mod doctor;
pub mod enroll;
pub mod find;
pub mod freeze;
pub mod gate;
pub mod incident;
pub mod invites;
pub mod log;
pub mod own;
pub mod panic;
pub mod people;
mod qr;
pub mod recovery;
pub mod reminders;
pub mod restored;
pub mod signed;
pub mod tokens;
pub mod withdraw;
pub mod witnesses;
