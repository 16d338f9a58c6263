//! Tokens over a real store.

use super::*;
use crate::{
    store::{redb::Redb, snapshot::Piece},
    vault::seal::fixtures::{commit, empty_store, open_vault, phrase},
};

const CANARY: &str = "npm_CANARYcanary0123456789";

struct Place {
    vault: Vault,
    dir: tempfile::TempDir,
    store: Redb,
}

impl Place {
    fn new() -> Self {
        let (dir, store) = empty_store();
        let vault = open_vault();
        Self { vault, dir, store }
    }

    fn put(
        &self,
        rotating: bool,
        at: &str,
        token: &str,
        now: u64,
    ) -> Result<TokenRecord, TokenError> {
        self.store(rotating, at, token, (now, false))
    }

    /// Rotated to one that nobody could prove.
    fn unproved(&self, token: &str, now: u64) -> TokenRecord {
        self.store(true, "*", token, (now, true)).unwrap()
    }

    fn store(
        &self,
        rotating: bool,
        at: &str,
        token: &str,
        (now, keeps_old): (u64, bool),
    ) -> Result<TokenRecord, TokenError> {
        let (registry, scope) = ("npm".parse().unwrap(), at.parse().unwrap());
        let wanted = NewToken {
            registry: &registry,
            scope: &scope,
            token: &phrase(token),
            expires: None,
            proof: None,
            emptied: false,
            keeps_old,
        };
        let verb = if rotating { rotate } else { add };
        let (batch, record) = verb(
            &self.vault,
            &self.store,
            Batch::new(),
            &wanted,
            UnixTime(now),
        )?;
        commit(&self.store, batch).unwrap();
        Ok(record)
    }

    /// Versions, whether they are old, and whether they are kept.
    fn shape(&self) -> Vec<(u64, bool, bool)> {
        let all = list(&self.vault, &self.store).unwrap();
        let one = |t: &StoredToken| (t.record.version, !t.record.is_present(), t.record.held);
        all.iter().map(one).collect()
    }

    fn back(&self, kept: u64, present: u64, now: u64) -> Result<TokenRecord, TokenError> {
        let (registry, scope) = ("npm".parse().unwrap(), "*".parse().unwrap());
        let wanted = Back {
            registry: &registry,
            scope: &scope,
            kept,
            present,
        };
        let back = back(
            &self.vault,
            &self.store,
            Batch::new(),
            &wanted,
            UnixTime(now),
        )?;
        commit(&self.store, back.0).unwrap();
        Ok(back.1)
    }

    /// A token's row as it lies in the file.
    fn row(&self, version: u64) -> (Vec<u8>, crate::store::Row) {
        let key = [&b"npm\0*\0"[..], &version.to_be_bytes()].concat();
        let row = self.store.get(TOKEN, &key).unwrap().unwrap();
        (key, row)
    }

    /// Somebody who writes the file puts a row back as it was.
    fn put_back(&self, (key, row): (Vec<u8>, crate::store::Row)) {
        let now = self.store.get(TOKEN, &key).unwrap();
        let batch = Batch::new().put(TOKEN, &key, now.map(|now| now.version), row.value);
        commit(&self.store, batch).unwrap();
    }

    fn found(&self, package: &str, now: u64) -> Option<String> {
        let (registry, package) = ("npm".parse().unwrap(), package.parse().unwrap());
        let token = find(&self.vault, &self.store, &registry, &package, UnixTime(now)).unwrap()?;
        Some(open(&self.vault, &token.record).unwrap().expose().clone())
    }
}

#[test]
fn the_narrowest_scope_serves() {
    let place = Place::new();
    for (scope, token) in [("*", "wide"), ("@acme/*", "group"), ("@acme/left", "one")] {
        place.put(false, scope, token, 1).unwrap();
    }
    for (package, token) in [
        ("@acme/left", "one"),
        ("@acme/leftpad", "group"),
        ("@acme2/left", "wide"),
        ("left", "wide"),
    ] {
        assert_eq!(place.found(package, 2).as_deref(), Some(token), "{package}");
    }
    for bad in [
        "", "**", "@acme/l*", "@*/x", "@/*", "a/*", ".*", "@a/b/*", "a\0",
    ] {
        assert!(bad.parse::<Scope>().is_err(), "{bad:?}");
    }
    assert!(matches!(
        place.put(false, "*", "x", 1),
        Err(TokenError::Exists(..))
    ));
    assert!(matches!(
        place.put(true, "x", "x", 1),
        Err(TokenError::Missing(..))
    ));
    for bad in ["", "a b", "a\r\nX: y", "é"] {
        assert!(matches!(
            place.put(false, "new", bad, 1),
            Err(TokenError::NotAToken)
        ));
    }
}

#[test]
fn a_rotated_token_overlaps_and_is_destroyed() {
    let place = Place::new();
    place.put(false, "*", "old", 100).unwrap();
    assert!(matches!(
        place.put(true, "*", "old", 100),
        Err(TokenError::Same)
    ));
    let new = place.put(true, "*", "new", 200).unwrap();
    assert_eq!(new.version, 2);
    assert_eq!(place.found("left", 201).as_deref(), Some("new"));
    let sweep = |now| {
        let mut over = list(&place.vault, &place.store).unwrap();
        over.retain(|t| !t.record.serves(UnixTime(now)));
        let batch = over.iter().fold(Batch::new(), destroy);
        commit(&place.store, batch).unwrap();
        over.iter().map(|t| t.record.version).collect::<Vec<_>>()
    };
    assert!(sweep(200 + OVERLAP_SECONDS - 1).is_empty());
    assert_eq!(sweep(200 + OVERLAP_SECONDS), [1]);
    assert_eq!(list(&place.vault, &place.store).unwrap().len(), 1);
}

#[test]
fn a_token_row_that_was_put_back_does_not_serve() {
    let place = Place::new();
    place.put(false, "*", "one", 100).unwrap();
    let one = place.row(1);
    place.unproved("two", 200);
    place.put_back(one);
    assert_eq!(place.found("left", 201).as_deref(), Some("two"));
    // An old one serves nobody, whoever took the present one away: absence is a no.
    let place = Place::new();
    place.put(false, "*", "one", 100).unwrap();
    let one = place.row(1);
    place.unproved("two", 200);
    let gone = place.row(2);
    let batch = Batch::new().delete(TOKEN, &gone.0, gone.1.version);
    commit(&place.store, batch).unwrap();
    assert_eq!(place.found("left", 201), None);
    place.put_back(gone);
    let two = place.row(2);
    // After a way back the one that was refused is not the newest any more.
    let record = place.back(1, 2, 300).unwrap();
    assert_eq!((record.version, record.stored), (3, UnixTime(100)));
    assert_eq!(place.shape(), [(2, true, false), (3, false, false)]);
    assert_eq!(place.found("left", 301).as_deref(), Some("one"));
    place.put_back(two);
    place.put_back(one);
    assert_eq!(place.found("left", 301).as_deref(), Some("one"));
    let all = list(&place.vault, &place.store).unwrap();
    assert_eq!(newest(&all).unwrap().record.version, 3);
}

#[test]
fn a_token_that_was_seen_is_never_kept_and_only_the_versions_that_were_read_go_back() {
    let place = Place::new();
    place.put(false, "*", "one", 100).unwrap();
    assert!(matches!(
        place.back(1, 1, 100),
        Err(TokenError::NoneKept(..))
    ));
    place.unproved("two", 200);
    assert_eq!(place.shape(), [(1, true, true), (2, false, false)]);
    for (kept, present) in [(2, 1), (1, 1), (2, 2), (1, 3)] {
        let other = place.back(kept, present, 201);
        assert!(matches!(other, Err(TokenError::Moved)), "{kept} {present}");
    }
    // Seen, the kept one is kept no longer, and the present one is not kept by the next rotation.
    for version in [1, 2] {
        let mut all = list(&place.vault, &place.store).unwrap();
        all.retain(|t| t.record.version == version);
        let batch = note_use(
            &place.vault,
            Batch::new(),
            all.remove(0),
            true,
            UnixTime(300),
        );
        commit(&place.store, batch.unwrap()).unwrap();
    }
    assert_eq!(place.shape(), [(1, true, false), (2, false, false)]);
    assert!(matches!(
        place.back(1, 2, 301),
        Err(TokenError::NoneKept(..))
    ));
    place.unproved("three", 400);
    let shape = [(1, true, false), (2, true, false), (3, false, false)];
    assert_eq!(place.shape(), shape);
}

#[test]
fn the_version_that_may_be_good_is_kept_before_one_that_is_over() {
    let refused = |place: &Place, version: u64| {
        let all = list(&place.vault, &place.store).unwrap();
        let token = all.into_iter().find(|t| t.record.version == version);
        let proof = TokenProof {
            outcome: ProofOutcome::Refused,
            account: None,
            detail: String::new(),
            package: None,
            at: UnixTime(150),
        };
        let (vault, store) = (&place.vault, &place.store);
        let batch = note_proof(vault, store, Batch::new(), token.unwrap(), proof);
        commit(&place.store, batch.unwrap()).unwrap();
    };
    // The first was refused before it was rotated; of the second nobody knows anything.
    let place = Place::new();
    place.put(false, "*", "one", 100).unwrap();
    refused(&place, 1);
    place.unproved("two", 200);
    assert_eq!(place.shape(), [(1, true, true), (2, false, false)]);
    place.unproved("three", 300);
    let second = [(1, true, false), (2, true, true), (3, false, false)];
    assert_eq!(place.shape(), second);
    // Where both are, the one that worked once stays.
    let place = Place::new();
    place.put(false, "*", "one", 100).unwrap();
    refused(&place, 1);
    place.unproved("two", 200);
    refused(&place, 2);
    place.unproved("three", 300);
    let first = [(1, true, true), (2, true, false), (3, false, false)];
    assert_eq!(place.shape(), first);
}

/// What the row held is in no row any more. Whether the file still has the page that it stood on is the file's business:
/// redb writes new pages and frees old ones, and nobody wipes those.
#[test]
fn a_destroyed_tokens_ciphertext_is_in_no_row() {
    let place = Place::new();
    place.put(false, "*", "old", 100).unwrap();
    let old = list(&place.vault, &place.store).unwrap().remove(0);
    let sealed = old.record.sealed.clone();
    place.put(true, "*", "new", 200).unwrap();
    let old = list(&place.vault, &place.store).unwrap().remove(0);
    assert_eq!(old.record.sealed, sealed);
    let batch = left::leave(&place.vault, Batch::new(), &old.record, UnixTime(5000)).unwrap();
    commit(&place.store, destroy(batch, &old)).unwrap();
    let mut rows = 0;
    let walked = place.store.snapshot().unwrap().walk(&mut |piece| {
        if let Piece::Row { value, .. } = piece {
            rows += 1;
            let text = String::from_utf8_lossy(value);
            assert!(!text.contains(&sealed));
        }
        Ok(())
    });
    assert!(walked.is_ok());
    assert_eq!(
        rows, 3,
        "the new token, the last version, and what is left to do"
    );
    let left = left::all(&place.vault, &place.store).unwrap();
    assert_eq!((left.len(), left[0].left.version), (1, 1));
    commit(&place.store, left::settle(Batch::new(), &left[0])).unwrap();
    assert!(left::all(&place.vault, &place.store).unwrap().is_empty());
}

#[test]
fn a_removed_tokens_version_does_not_come_again() {
    let place = Place::new();
    place.put(false, "*", "one", 1).unwrap();
    let (registry, scope) = ("npm".parse().unwrap(), "*".parse().unwrap());
    let (batch, gone) =
        remove(&place.vault, &place.store, Batch::new(), &registry, &scope).unwrap();
    commit(&place.store, batch).unwrap();
    assert_eq!(gone.len(), 1);
    assert_eq!(place.found("left", 2), None);
    assert_eq!(place.put(false, "*", "two", 3).unwrap().version, 2);
}

#[test]
fn a_use_is_noted_and_exposure_stays() {
    let place = Place::new();
    place.put(false, "*", "one", 1).unwrap();
    for exposed in [true, false] {
        let token = list(&place.vault, &place.store).unwrap().remove(0);
        let batch = note_use(&place.vault, Batch::new(), token, exposed, UnixTime(9)).unwrap();
        commit(&place.store, batch).unwrap();
    }
    let record = list(&place.vault, &place.store).unwrap().remove(0).record;
    assert_eq!((record.used, record.exposed), (Some(UnixTime(9)), true));
}

#[test]
fn attack_44_data_directory_stolen() {
    let place = Place::new();
    place.put(false, "*", CANARY, 1).unwrap();
    place.put(true, "*", &format!("{CANARY}2"), 2).unwrap();
    let encoded = STANDARD.encode(CANARY);
    let mut files = 0;
    for entry in std::fs::read_dir(place.dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        files += 1;
        for needle in [CANARY.as_bytes(), &encoded.as_bytes()[..30]] {
            assert!(!bytes.windows(needle.len()).any(|w| w == needle));
        }
        // The search finds what is there.
        assert!(bytes.windows(11).any(|w| w == b"fingerprint"));
    }
    assert_eq!(files, 1);
    place.vault.seal();
    let sealed = list(&place.vault, &place.store);
    assert!(matches!(sealed, Err(TokenError::Sealed(Sealed))));
}

#[test]
fn attack_44_a_token_row_planted_under_another_scope_is_refused() {
    let place = Place::new();
    place.put(false, "@evil/*", CANARY, 1).unwrap();
    let (key, row) = place.store.range(TOKEN, b"", None, 1).unwrap().remove(0);
    let planted = [&b"npm\0left\0"[..], &1_u64.to_be_bytes()].concat();
    assert_ne!(key, planted);
    commit(
        &place.store,
        Batch::new().create(TOKEN, &planted, row.value),
    )
    .unwrap();
    let (registry, package) = ("npm".parse().unwrap(), "left".parse().unwrap());
    let found = find(&place.vault, &place.store, &registry, &package, UnixTime(2));
    assert!(matches!(found, Err(TokenError::Row(_))));
    // Not even with a valid record does another scope's ciphertext open.
    let mut record = list_one(&place);
    record.scope = "left".parse().unwrap();
    assert_eq!(
        open(&place.vault, &record).err(),
        Some(OpenRowError::NotAuthentic)
    );
}

fn list_one(place: &Place) -> TokenRecord {
    let rows = place.store.range(TOKEN, b"npm\0@evil", None, 1).unwrap();
    serde_json::from_slice(&rows[0].1.value[32..]).unwrap()
}
