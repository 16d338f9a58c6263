//! Where connections are cut.

use stand::proxy::Fault;
use std::collections::BTreeSet;

/// Which connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Between broker and registry.
    Registry,
    /// Between client and broker.
    Client,
}

/// One cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) side: Side,
    pub(crate) fault: Fault,
}

/// Bytes of one whole upload on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    pub(crate) head: u64,
    pub(crate) up: u64,
    pub(crate) down: u64,
}

/// Every `every`-th byte, and always the first and last of request, head and reply.
pub(crate) fn every(side: Side, length: Length, every: u64) -> Vec<Point> {
    let Length { head, up, down } = length;
    let step = usize::try_from(every.max(1)).unwrap_or(usize::MAX);
    let mut ups: BTreeSet<u64> = (0..=up).step_by(step).collect();
    ups.extend([0, 1, head - 1, head, head + 1, up - 1, up]);
    let mut downs: BTreeSet<u64> = (0..=down).step_by(step).collect();
    downs.extend([0, 1, 12, down - 1, down]);
    of(side, &ups, &downs)
}

/// So many bytes chosen by chance, most of them in the request.
pub(crate) fn sample(side: Side, length: Length, count: u64, seed: u64) -> Vec<Point> {
    let mut state = seed;
    let mut below = |n: u64| {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    };
    let (mut ups, mut downs) = (BTreeSet::new(), BTreeSet::new());
    for n in 0..count {
        if n % 8 == 7 {
            downs.insert(below(length.down + 1));
        } else {
            ups.insert(below(length.up + 1));
        }
    }
    of(side, &ups, &downs)
}

fn of(side: Side, ups: &BTreeSet<u64>, downs: &BTreeSet<u64>) -> Vec<Point> {
    let ups = ups.iter().map(|k| Fault::CutUp(*k));
    let cuts = downs.iter().map(|k| Fault::CutDown(*k));
    let resets = downs.iter().map(|k| Fault::ResetDown(*k));
    let faults = ups.chain(cuts).chain(resets);
    faults.map(|fault| Point { side, fault }).collect()
}
