//! What a device that saw the log earlier makes of what it is shown now (design: devices are witnesses).

use super::{
    checkpoint::{Checkpoint, LogKey, NoteError},
    merkle::verify_consistency,
};
use crate::api::LogProof;
use thiserror::Error;

/// Why what is shown does not continue what was seen. Two checkpoints of one key that cannot both be true are a
/// proof of that by themselves: keep them.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Fork {
    /// Not signed by the key that the device knows.
    #[error("the log's checkpoint does not hold: {0}")]
    Checkpoint(#[from] NoteError),
    /// The log was longer.
    #[error("the log has {shown} entries, but had {seen} when this device saw it last")]
    Shorter {
        /// Entries then.
        seen: u64,
        /// Entries now.
        shown: u64,
    },
    /// It does not begin with what was seen, or nothing shows that it does.
    #[error(
        "the log of {shown} entries is not shown to begin with the {seen} entries that this device saw"
    )]
    Rewritten {
        /// Entries then.
        seen: u64,
        /// Entries now.
        shown: u64,
    },
}

/// Checks what is shown: signed by the known key, and a continuation of what was seen, if anything was. Returns what
/// the device is to keep from now on.
pub fn follow(
    seen: Option<&Checkpoint>,
    shown: &LogProof,
    key: &LogKey,
) -> Result<Checkpoint, Fork> {
    let now = Checkpoint::open(&shown.checkpoint, key)?;
    let Some(seen) = seen else { return Ok(now) };
    let sizes = (seen.size, now.size);
    if now.size < seen.size {
        return Err(Fork::Shorter {
            seen: sizes.0,
            shown: sizes.1,
        });
    }
    let (older, newer) = ((seen.size, &seen.root), (now.size, &now.root));
    if !verify_consistency(older, newer, &shown.proof) {
        return Err(Fork::Rewritten {
            seen: sizes.0,
            shown: sizes.1,
        });
    }
    Ok(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::DeviceKey,
        log::merkle::{TreeHash, consistency_plan, leaf_hash, prove, root},
    };
    use std::convert::Infallible;

    const ORIGIN: &str = "broker.example/log";

    fn signer(seed: u8) -> DeviceKey {
        DeviceKey::from_seed([seed; 32]).unwrap()
    }

    fn key() -> LogKey {
        LogKey::new(ORIGIN, signer(1).public()).unwrap()
    }

    fn log(name: &str, size: usize) -> Vec<TreeHash> {
        (0..size)
            .map(|i| leaf_hash(format!("{name}{i}").as_bytes()))
            .collect()
    }

    fn point(log: &[TreeHash]) -> Checkpoint {
        Checkpoint {
            origin: ORIGIN.into(),
            size: log.len() as u64,
            root: root(log),
        }
    }

    /// What a broker with this log answers to a device that saw `from` entries.
    fn shown(log: &[TreeHash], from: usize, by: &DeviceKey) -> LogProof {
        let plan = consistency_plan(from as u64, log.len() as u64).unwrap_or_default();
        let node = |n: crate::log::merkle::Node| {
            let start = usize::try_from(n.index << n.level).unwrap();
            Ok(root(&log[start..start + (1 << n.level)]))
        };
        LogProof {
            checkpoint: point(log).sign(by).unwrap(),
            proof: prove::<Infallible>(&plan, node).unwrap(),
        }
    }

    #[test]
    fn a_log_that_grows_is_followed() {
        for size in 0..20 {
            let log = log("a", size);
            let first = follow(None, &shown(&log, 0, &signer(1)), &key());
            assert_eq!(first, Ok(point(&log)));
            for from in 0..=size {
                let seen = point(&log[..from]);
                let next = follow(Some(&seen), &shown(&log, from, &signer(1)), &key());
                assert_eq!(next, Ok(point(&log)), "{from} to {size}");
            }
        }
    }

    #[test]
    fn attack_45_46_a_device_follows_no_log_that_is_shorter_other_unproved_or_anothers() {
        let (own, by) = (log("a", 13), signer(1));
        let seen = point(&own[..9]);
        let see = |shown: &LogProof| follow(Some(&seen), shown, &key());
        for size in 0..9 {
            let (seen, shown_now) = (9, size as u64);
            let shorter = Fork::Shorter {
                seen,
                shown: shown_now,
            };
            assert_eq!(see(&shown(&own[..size], 0, &by)), Err(shorter));
        }
        for size in 9..13 {
            let rewritten = Err(Fork::Rewritten {
                seen: 9,
                shown: size as u64,
            });
            let mut other = own[..size].to_vec();
            other[4] = leaf_hash(b"edited");
            assert_eq!(see(&shown(&other, 9, &by)), rewritten);
            let mut moved = own[..size].to_vec();
            moved.swap(2, 3);
            assert_eq!(see(&shown(&moved, 9, &by)), rewritten);
            // The right log, and no proof, a part of one, or that of another size.
            let mut bare = shown(&own[..size], 9, &by);
            if bare.proof.pop().is_some() {
                assert_eq!(see(&bare), rewritten);
                bare.proof.clear();
                assert_eq!(see(&bare), rewritten);
                assert_eq!(see(&shown(&own[..size], 8, &by)), rewritten);
            }
        }
        let foreign = see(&shown(&own, 9, &signer(2)));
        assert_eq!(foreign, Err(Fork::Checkpoint(NoteError::Unsigned)));
        let garbled = LogProof {
            checkpoint: "x".into(),
            proof: Vec::new(),
        };
        assert_eq!(see(&garbled), Err(Fork::Checkpoint(NoteError::Form)));
        assert!(see(&shown(&own, 9, &by)).is_ok());
    }
}
