//! A thousand rows, and each of them tried in the place of each other.

use super::{
    envelope::Binding,
    rows::{authentic, check_authentic},
    seal::{Vault, fixtures::open_vault},
};
use crate::store::Table;
use std::thread;

/// Rows.
const ROWS: usize = 1000;
/// Versions of one secret.
const VERSIONS: usize = 100;
const PERSON: Table = Table("person");

/// Tries all pairs, on as many threads as there are cores; `fits(i, j)` says whether row `j` holds in place `i`.
fn pairs(rows: usize, fits: impl Fn(usize, usize) -> bool + Sync) {
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let fits = &fits;
    thread::scope(|scope| {
        for own in 0..threads {
            scope.spawn(move || {
                for i in (own..rows).step_by(threads) {
                    for j in 0..rows {
                        assert_eq!(fits(i, j), i == j, "row {j} in place {i}");
                    }
                }
            });
        }
    });
}

fn at(key: &[u8]) -> Binding<'_> {
    Binding {
        table: "token",
        record: key,
        purpose: "registry token",
        registry: Some("npm"),
        scope: Some("@acme/*"),
        version: 1,
    }
}

/// Sealed rows, authentic ones, and older versions of the same secret replayed over newer ones.
#[test]
fn attack_44_no_two_rows_of_a_thousand_change_places() {
    let vault: &Vault = &open_vault();
    let keys: Vec<Vec<u8>> = (0..ROWS).map(|i| format!("{i:04}").into_bytes()).collect();
    let sealed: Vec<_> = (keys.iter())
        .map(|key| vault.seal_row(&at(key), key).unwrap())
        .collect();
    pairs(ROWS, |i, j| {
        let opened = vault.open_row(&at(&keys[i]), &sealed[j]);
        opened.is_ok_and(|plain| *plain.expose() == keys[j])
    });
    let plain: Vec<_> = (keys.iter())
        .map(|key| authentic(vault, PERSON, key, b"{\"admin\":true}").unwrap())
        .collect();
    pairs(ROWS, |i, j| {
        check_authentic(vault, PERSON, &keys[i], &plain[j]).is_ok()
    });
    let version = |n: usize| Binding {
        version: n as u64,
        ..at(b"one")
    };
    let versions: Vec<_> = (0..VERSIONS)
        .map(|n| vault.seal_row(&version(n), b"the same secret").unwrap())
        .collect();
    pairs(VERSIONS, |i, j| {
        vault.open_row(&version(i), &versions[j]).is_ok()
    });
}
