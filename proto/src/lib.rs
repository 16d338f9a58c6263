//! What broker and client both speak.
//!
//! Reading order: [`ids`] and [`digest`] name things, [`request`] fixes the bytes that people
//! approve, [`bearer`] and [`device`] are the two ways to show who is calling, [`answer`] and [`passkey`] are
//! what a maintainer signs, [`api`] is what travels, [`log`] is what can be verified afterwards.

pub mod act;
pub mod answer;
pub mod api;
pub mod bearer;
pub mod canonical;
pub mod card;
pub mod custody;
pub mod device;
pub mod digest;
pub mod distribution;
pub mod doctor;
pub mod factors;
pub mod gem;
pub mod ids;
pub mod intent;
pub mod log;
pub mod notify;
pub mod passkey;
pub mod policy;
pub mod problem;
pub mod request;
pub mod restored;
pub mod stop;
pub mod text;
pub mod time;
pub mod watch;
