//! What has ended, newest first: two indexes that are written in the commit that ends a request, and move with it to
//! the history. Nothing walks all old requests.
//!
//! If an attacker writes here: the rows name requests, which are read and checked as ever. They are for people to
//! look at, and decide nothing.

use super::{ledger, state::Record};
use crate::{
    desk::{Desk, Fault},
    store::Table,
};
use proto::{api::StateName, ids::RequestId, request::Item, time::UnixTime};
use std::collections::BTreeSet;

/// Seconds until the end of time (big-endian) and id: every request that ended.
const ENDED: Table = Table("ended");
/// `registry:package` NUL, then as above: requests by which it was published.
const PUBLISHED: Table = Table("published-of");

/// The index rows of a request that ended then.
pub fn rows(record: &Record, at: UnixTime) -> Vec<(Table, Vec<u8>)> {
    let key = newest(at, record.facts.id);
    let mut rows = vec![(ENDED, key.clone())];
    if record.name() == StateName::Published {
        let packages: BTreeSet<_> = record.facts.items.iter().map(Item::package_key).collect();
        let of = |package: String| {
            (
                PUBLISHED,
                [ledger::prefix(&[&package]), key.clone()].concat(),
            )
        };
        rows.extend(packages.into_iter().map(of));
    }
    rows
}

/// What ended last, behind a key of this index: keys with their times and requests.
pub fn all(desk: &Desk, after: Option<&[u8]>, limit: usize) -> Result<Vec<Ended>, Fault> {
    read(desk, ENDED, b"", after, limit)
}

/// By which requests a package was published last.
pub fn published(desk: &Desk, package: &str, limit: usize) -> Result<Vec<Ended>, Fault> {
    read(desk, PUBLISHED, &ledger::prefix(&[package]), None, limit)
}

/// The first package behind this name of which something was published.
pub fn package_after(desk: &Desk, name: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let past = [name, &[0], &[0xff; KEY + 1]].concat();
    let mut found: Vec<Vec<u8>> = Vec::new();
    for store in [&desk.live, &desk.history] {
        for (key, _) in store.range(PUBLISHED, b"", Some(&past), 1)? {
            found.extend(key.split(|b| *b == 0).next().map(<[u8]>::to_vec));
        }
    }
    Ok(found.into_iter().min())
}

/// One that ended.
pub struct Ended {
    /// Its key in the index of all.
    pub key: Vec<u8>,
    /// When it ended.
    pub at: UnixTime,
    /// The request.
    pub id: RequestId,
}

/// Bytes of a key: time and id.
const KEY: usize = 24;

/// Whether this may be a key of the index of all.
pub fn key(key: &[u8]) -> Option<(UnixTime, RequestId)> {
    let (time, id) = key.split_first_chunk::<8>()?;
    let at = UnixTime(u64::MAX.wrapping_sub(u64::from_be_bytes(*time)));
    Some((at, ledger::id_of(id)?))
}

fn newest(at: UnixTime, id: RequestId) -> Vec<u8> {
    let left = u64::MAX.wrapping_sub(at.0);
    [&left.to_be_bytes()[..], id.0.as_bytes()].concat()
}

fn read(
    desk: &Desk,
    table: Table,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Ended>, Fault> {
    // Live first: what is missing there was already in the history when we looked.
    let mut keys = BTreeSet::new();
    for store in [&desk.live, &desk.history] {
        let rows = store.range(table, prefix, after, limit)?;
        keys.extend(rows.into_iter().map(|(key, _)| key));
    }
    let ended = |whole: Vec<u8>| {
        let bare = whole.get(prefix.len()..)?.to_vec();
        let (at, id) = key(&bare)?;
        Some(Ended { key: bare, at, id })
    };
    Ok(keys.into_iter().take(limit).filter_map(ended).collect())
}
