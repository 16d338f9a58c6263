//! What a CI job does: [`prepare`] packs and reads what is to be published ([`workspace`], [`tarball`], [`distribution`], [`crates`]), [`bypass`] finds settings that would
//! publish past the broker, [`idtoken`] says who asks, [`open`] asks, [`session`] waits and collects, [`release`]
//! runs the registry's own client ([`tool`]), [`settle`] reports what the registry shows. [`cargo_protocol`] is the other
//! way round: there cargo runs us.

pub(crate) mod bypass;
pub(crate) mod cargo_protocol;
pub(crate) mod crates;
pub(crate) mod distribution;
pub(crate) mod files;
pub(crate) mod gem;
pub(crate) mod idtoken;
pub(crate) mod inspect;
pub(crate) mod oci;
pub(crate) mod open;
pub(crate) mod order;
pub(crate) mod prepare;
pub(crate) mod python;
pub(crate) mod release;
pub(crate) mod session;
pub(crate) mod settle;
pub(crate) mod signals;
pub(crate) mod tarball;
pub(crate) mod tool;
pub(crate) mod workspace;
