//! The watch: does a registry serve anything that this broker did not publish?
//!
//! Whoever gets at a package by another door (an old token, a second owner, a trusted publisher) does not
//! come by here. So from time to time the broker compares what each registry shows with what left the
//! broker ([`crate::publish::trace`]) and with what was there before: [`crate::publish::known`] is what is remembered of a
//! package, [`compare`] decides, [`round`] asks and records, [`report`] is what admins are shown.
//!
//! Of registries that list tags without digests only our own tags are looked at (`tags`).
//!
//! Only a positive statement of the registry freezes a package. A registry that is silent, slow, empty or
//! talks nonsense is "not looked since", and an alarm when that lasts: else whoever disturbs the network
//! could lock the maintainers out.

pub mod compare;
pub mod report;
pub mod round;
mod tags;
