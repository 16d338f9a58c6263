//! The stored RegistryTokens. Adding, rotating and removing are operations for a batch, so that they
//! are one commit with their audit event.
//!
//! There is no call that exports a token: the only reader is [`open`], which is for `release` (that
//! takes a Permit by value) and for the check with the registry when a token is stored.

pub mod left;
mod rotation;
mod scope;

pub use rotation::{Back, back, newest, note_proof, rotate, unaccepted, unheld, would_keep};
pub use scope::{Scope, ScopeError};

use super::{
    envelope::{Binding, OpenRowError, SealRowError},
    rows::{RowError, authentic, check_authentic},
    seal::{Domain, Sealed, Vault},
};
use crate::{
    secret::Secret,
    store::{Batch, Store, StoreError, Table},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    api::{ProofOutcome, TokenProof},
    canonical::Canonical,
    ids::{PackageName, RegistryId},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// "registry NUL scope NUL" + version (8 bytes, big-endian) → an authentic [`TokenRecord`].
pub const TOKEN: Table = Table("token");
/// "registry NUL scope NUL" → the last version given out. It outlives the token, so that no version
/// comes twice and the sealed row of a removed token never fits a later one (attack 44).
pub const TOKEN_VERSION: Table = Table("token-version");

/// How long a rotated token serves the requests in flight.
pub const OVERLAP_SECONDS: u64 = 60 * 60;
/// Bytes of a token at most (a PyPI macaroon is about 200).
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Rows per read while listing.
const PAGE: usize = 256;

/// A stored token. Everything but `sealed` may be shown to an admin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// The registry.
    pub registry: RegistryId,
    /// The packages that it is for.
    pub scope: Scope,
    /// 1 for the first token of this registry and scope; never used twice.
    pub version: u64,
    /// 8 hexadecimal digits by which people tell tokens apart; made with a key.
    pub fingerprint: String,
    /// When it was stored.
    pub stored: UnixTime,
    /// When the registry lets it expire, if that is known.
    pub expires: Option<UnixTime>,
    /// When it was last used.
    pub used: Option<UnixTime>,
    /// Rotated: an old one, destroyed from then on.
    pub overlap_until: Option<UnixTime>,
    /// Rotated, and kept beyond that time until the version in its place was accepted once by its registry.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// It was revealed, so it must be rotated.
    pub exposed: bool,
    /// What its registry said of it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<TokenProof>,
    /// When an admin said that it is nowhere else any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emptied: Option<UnixTime>,
    /// The token, sealed, in base64.
    sealed: String,
}

/// A record and its row's version in the store, for compare and swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    /// The record.
    pub record: TokenRecord,
    row_version: u64,
}

/// Why nothing was read or prepared.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault is sealed.
    #[error(transparent)]
    Sealed(#[from] Sealed),
    /// A row was not written by this broker.
    #[error(transparent)]
    Row(#[from] RowError),
    /// It could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealRowError),
    /// There is one already.
    #[error("there is a token for {0} {1} already; rotate it instead")]
    Exists(RegistryId, Scope),
    /// There is none.
    #[error("there is no token for {0} {1}; add one first")]
    Missing(RegistryId, Scope),
    /// Not a token.
    #[error("a token has 1 to {MAX_TOKEN_BYTES} bytes and no spaces or line ends")]
    NotAToken,
    /// The same one again.
    #[error("this is the token that is stored already; make a new one at the registry")]
    Same,
    /// The old one that is kept.
    #[error(
        "this is the old version that is kept: go back to it (countersign admin token back {0} '{1}')"
    )]
    Kept(RegistryId, Scope),
    /// No old one is kept.
    #[error("no old version of {0} {1} is kept: make a new token, and rotate")]
    NoneKept(RegistryId, Scope),
    /// Other versions than those that were named.
    #[error(
        "another version is kept, or the present one, by now: countersign admin token list, and ask again"
    )]
    Moved,
    /// What is stored cannot be read.
    #[error("a token's row cannot be read; restore the database from a backup")]
    Unreadable,
}

/// Adds the first token of a registry and scope.
pub fn add(
    vault: &Vault,
    store: &dyn Store,
    batch: Batch,
    wanted: &NewToken<'_>,
    now: UnixTime,
) -> Result<(Batch, TokenRecord), TokenError> {
    if !versions(vault, store, wanted.registry, wanted.scope)?.is_empty() {
        return Err(wanted.refuse(TokenError::Exists));
    }
    put(vault, store, batch, wanted, now)
}

/// Whether such a token could be stored there: what [`add`] and [`rotate`] would say.
pub fn fits(
    vault: &Vault,
    store: &dyn Store,
    (registry, scope): (&RegistryId, &Scope),
    token: &Secret<String>,
    rotates: bool,
) -> Result<(), TokenError> {
    is_token(token)?;
    let held = versions(vault, store, registry, scope)?;
    let print = fingerprint(vault, registry, token)?;
    let refuse = |why: fn(RegistryId, Scope) -> TokenError| why(registry.clone(), scope.clone());
    match (rotates, held.is_empty()) {
        (true, true) => Err(refuse(TokenError::Missing)),
        (false, false) => Err(refuse(TokenError::Exists)),
        _ => is_another(&held, &print),
    }
}

/// Whether a token is none of those that are stored in its place.
fn is_another(stored: &[StoredToken], print: &str) -> Result<(), TokenError> {
    match stored.iter().find(|t| t.record.fingerprint == print) {
        None => Ok(()),
        Some(StoredToken { record, .. }) if record.is_kept() => {
            let (registry, scope) = (record.registry.clone(), record.scope.clone());
            Err(TokenError::Kept(registry, scope))
        }
        Some(_) => Err(TokenError::Same),
    }
}

fn is_token(token: &Secret<String>) -> Result<(), TokenError> {
    let token = token.expose();
    // A line end inside would become a header of its own at the registry (attack 40).
    let good = !token.is_empty()
        && token.len() <= MAX_TOKEN_BYTES
        && token.bytes().all(|b| b.is_ascii_graphic());
    good.then_some(()).ok_or(TokenError::NotAToken)
}

/// A token to store.
pub struct NewToken<'a> {
    /// The registry.
    pub registry: &'a RegistryId,
    /// The packages that it is for.
    pub scope: &'a Scope,
    /// The token.
    pub token: &'a Secret<String>,
    /// When the registry lets it expire, if known.
    pub expires: Option<UnixTime>,
    /// What the registry says of it, where it was asked.
    pub proof: Option<&'a TokenProof>,
    /// Whether whoever stores it says that it is nowhere else any more.
    pub emptied: bool,
    /// Whether the version before is kept until this one was accepted once by its registry: nobody could prove it.
    pub keeps_old: bool,
}

impl NewToken<'_> {
    fn refuse(&self, why: fn(RegistryId, Scope) -> TokenError) -> TokenError {
        why(self.registry.clone(), self.scope.clone())
    }
}

fn put(
    vault: &Vault,
    store: &dyn Store,
    batch: Batch,
    new: &NewToken<'_>,
    now: UnixTime,
) -> Result<(Batch, TokenRecord), TokenError> {
    is_token(new.token)?;
    let record = TokenRecord {
        registry: new.registry.clone(),
        scope: new.scope.clone(),
        version: 0,
        fingerprint: fingerprint(vault, new.registry, new.token)?,
        stored: now,
        expires: new.expires,
        used: None,
        overlap_until: None,
        held: false,
        exposed: false,
        proof: new.proof.cloned(),
        emptied: new.emptied.then_some(now),
        sealed: String::new(),
    };
    put_next(vault, store, batch, record, new.token)
}

/// Seals a token under the next version of its place.
fn put_next(
    vault: &Vault,
    store: &dyn Store,
    batch: Batch,
    mut record: TokenRecord,
    token: &Secret<String>,
) -> Result<(Batch, TokenRecord), TokenError> {
    let place = (&record.registry, &record.scope);
    let (batch, version) = next_version(vault, store, batch, place)?;
    record.version = version;
    let key = record.key();
    let sealed = vault.seal_row(&record.binding(&key), token.expose().as_bytes())?;
    record.sealed = STANDARD.encode(sealed);
    let row = authentic(vault, TOKEN, &key, &encode(&record)?)?;
    Ok((batch.create(TOKEN, &key, row), record))
}

/// Takes the next version in the batch. Two admins who add or rotate at once contend for this row,
/// so one of them ends as a conflict.
fn next_version(
    vault: &Vault,
    store: &dyn Store,
    batch: Batch,
    (registry, scope): (&RegistryId, &Scope),
) -> Result<(Batch, u64), TokenError> {
    let key = prefix(registry, scope);
    let row = store.get(TOKEN_VERSION, &key)?;
    let last = match &row {
        None => 0,
        Some(row) => check_authentic(vault, TOKEN_VERSION, &key, &row.value)?
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| TokenError::Unreadable)?,
    };
    let next = last.checked_add(1).ok_or(TokenError::Unreadable)?;
    let value = authentic(vault, TOKEN_VERSION, &key, &next.to_be_bytes())?;
    let version = row.map(|row| row.version);
    Ok((batch.put(TOKEN_VERSION, &key, version, value), next))
}

/// Destroys every version of a registry and scope. Returns them.
pub fn remove(
    vault: &Vault,
    store: &dyn Store,
    batch: Batch,
    registry: &RegistryId,
    scope: &Scope,
) -> Result<(Batch, Vec<StoredToken>), TokenError> {
    let held = versions(vault, store, registry, scope)?;
    if held.is_empty() {
        return Err(TokenError::Missing(registry.clone(), scope.clone()));
    }
    Ok((held.iter().fold(batch, destroy), held))
}

/// Destroys one version.
pub fn destroy(batch: Batch, token: &StoredToken) -> Batch {
    batch.delete(TOKEN, token.record.key(), token.row_version)
}

/// Notes a use, and that the token was revealed if it was.
pub fn note_use(
    vault: &Vault,
    batch: Batch,
    mut token: StoredToken,
    exposed: bool,
    now: UnixTime,
) -> Result<Batch, TokenError> {
    token.record.used = Some(now);
    token.record.exposed |= exposed;
    // Nobody goes back to one that was seen.
    token.record.held &= !token.record.exposed;
    write(vault, batch, &token)
}

/// Notes that an admin says it is nowhere else any more.
pub fn note_emptied(
    vault: &Vault,
    batch: Batch,
    mut token: StoredToken,
    now: UnixTime,
) -> Result<Batch, TokenError> {
    token.record.emptied = Some(now);
    write(vault, batch, &token)
}

/// Every token, by registry, scope and version.
pub fn list(vault: &Vault, store: &dyn Store) -> Result<Vec<StoredToken>, TokenError> {
    read(vault, store, b"")
}

/// The same without the rows that cannot be believed; the log names them. For work on each token by itself.
pub fn believed(vault: &Vault, store: &dyn Store) -> Result<Vec<StoredToken>, TokenError> {
    let (read, bad) = split(vault, store, b"")?;
    for (key, why) in bad {
        let row = String::from_utf8_lossy(&key).replace('\0', " ");
        tracing::error!(row, %why, "ALARM: a token's row cannot be believed; it is passed over");
    }
    Ok(read)
}

/// The token for a package: the narrowest scope that has one, there the newest present version and no old one. A token
/// of a wider scope never stands in for a narrow one that is stored and does not serve.
pub fn find(
    vault: &Vault,
    store: &dyn Store,
    registry: &RegistryId,
    package: &PackageName,
    now: UnixTime,
) -> Result<Option<StoredToken>, TokenError> {
    for scope in Scope::candidates(package) {
        let all = versions(vault, store, registry, &scope)?;
        if all.iter().any(|t| t.record.serves(now)) {
            return Ok(newest(&all).cloned());
        }
    }
    Ok(None)
}

/// The token itself. Called by `release`, which takes a Permit by value, and by the check with the
/// registry when a token is stored; nothing else may, and nothing hands it to an admin (attack 50).
#[cfg_attr(not(test), allow(dead_code, reason = "release.rs is its caller"))]
pub(crate) fn open(vault: &Vault, record: &TokenRecord) -> Result<Secret<String>, OpenRowError> {
    let sealed = STANDARD
        .decode(&record.sealed)
        .map_err(|_| OpenRowError::NotAuthentic)?;
    let key = record.key();
    let plain = vault.open_row(&record.binding(&key), &sealed)?;
    std::str::from_utf8(plain.expose())
        .map(|text| Secret::new(text.to_owned()))
        .map_err(|_| OpenRowError::NotAuthentic)
}

/// The plain bytes of a row whose token is sealed with the current key; none where it is already.
pub(crate) fn sealed_anew(vault: &Vault, plain: &[u8]) -> Result<Option<Vec<u8>>, TokenError> {
    let unreadable = |_| TokenError::Unreadable;
    let mut record: TokenRecord =
        serde_json::from_slice(plain).map_err(|_| TokenError::Unreadable)?;
    let sealed = STANDARD
        .decode(&record.sealed)
        .map_err(|_| TokenError::Unreadable)?;
    if vault.seal_is_new(&sealed)? {
        return Ok(None);
    }
    let token = open(vault, &record).map_err(unreadable)?;
    let key = record.key();
    let sealed = vault.seal_row(&record.binding(&key), token.expose().as_bytes())?;
    record.sealed = STANDARD.encode(sealed);
    // It is made with a key, and people compare it with one that is made anew.
    record.fingerprint = fingerprint(vault, &record.registry, &token)?;
    encode(&record).map(Some)
}

impl TokenRecord {
    /// Whether new uploads take it. Others are old ones.
    pub const fn is_present(&self) -> bool {
        self.overlap_until.is_none()
    }

    /// Whether it is an old one to which admins may go back. One that was seen is never kept.
    pub const fn is_kept(&self) -> bool {
        self.held && !self.exposed
    }

    /// Whether its registry refuses it, or lets it expire by now, as far as that is known.
    pub fn is_over(&self, now: UnixTime) -> bool {
        let refused = |proof: &TokenProof| proof.outcome == ProofOutcome::Refused;
        self.proof.as_ref().is_some_and(refused) || self.expires.is_some_and(|at| at <= now)
    }

    /// Whether its time here is not over: it is the present one, in its last hour, or kept.
    pub fn serves(&self, now: UnixTime) -> bool {
        self.is_kept() || self.overlap_until.is_none_or(|end| now < end)
    }

    pub(crate) fn key(&self) -> Vec<u8> {
        let mut key = prefix(&self.registry, &self.scope);
        key.extend_from_slice(&self.version.to_be_bytes());
        key
    }

    fn binding<'a>(&'a self, key: &'a [u8]) -> Binding<'a> {
        Binding {
            table: TOKEN.0,
            record: key,
            purpose: "registry token",
            registry: Some(self.registry.as_str()),
            scope: Some(self.scope.as_str()),
            version: self.version,
        }
    }
}

fn prefix(registry: &RegistryId, scope: &Scope) -> Vec<u8> {
    format!("{registry}\0{scope}\0").into_bytes()
}

/// The 8 digits by which people tell tokens of a registry apart.
pub fn fingerprint(
    vault: &Vault,
    registry: &RegistryId,
    token: &Secret<String>,
) -> Result<String, Sealed> {
    let inner = Secret::new(
        Canonical::new("countersign/token-fingerprint/v1")
            .text(registry.as_str())
            .text(token.expose())
            .finish(),
    );
    let mac = vault.mac(Domain::TokenFingerprint, inner.expose())?;
    let head = mac
        .first_chunk::<4>()
        .map_or(0, |head| u32::from_be_bytes(*head));
    Ok(format!("{head:08x}"))
}

fn versions(
    vault: &Vault,
    store: &dyn Store,
    registry: &RegistryId,
    scope: &Scope,
) -> Result<Vec<StoredToken>, TokenError> {
    read(vault, store, &prefix(registry, scope))
}

fn read(vault: &Vault, store: &dyn Store, prefix: &[u8]) -> Result<Vec<StoredToken>, TokenError> {
    let (read, bad) = split(vault, store, prefix)?;
    match bad.into_iter().next() {
        Some((_, why)) => Err(why),
        None => Ok(read),
    }
}

/// Keys of rows that cannot be believed, with the reasons.
type Bad = Vec<(Vec<u8>, TokenError)>;

/// What can be believed, and what cannot.
fn split(
    vault: &Vault,
    store: &dyn Store,
    prefix: &[u8],
) -> Result<(Vec<StoredToken>, Bad), TokenError> {
    // Without a row nothing is authenticated; a sealed vault must still be noticed.
    if vault.is_sealed() {
        return Err(Sealed.into());
    }
    let (mut out, mut bad) = (Vec::new(), Vec::new());
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.range(TOKEN, prefix, after.as_deref(), PAGE)?;
        let last = page.len() < PAGE;
        after = page.last().map(|(key, _)| key.clone());
        for (key, row) in page {
            match record(vault, &key, &row.value) {
                Ok(record) => out.push(StoredToken {
                    record,
                    row_version: row.version,
                }),
                Err(why @ (TokenError::Sealed(_) | TokenError::Row(RowError::Sealed(_)))) => {
                    return Err(why);
                }
                Err(why) => bad.push((key, why)),
            }
        }
        if last {
            return Ok((out, bad));
        }
    }
}

fn record(vault: &Vault, key: &[u8], stored: &[u8]) -> Result<TokenRecord, TokenError> {
    let plain = check_authentic(vault, TOKEN, key, stored)?;
    let record: TokenRecord = serde_json::from_slice(plain).map_err(|_| TokenError::Unreadable)?;
    let own = record.key() == key;
    own.then_some(record).ok_or(TokenError::Unreadable)
}

fn write(vault: &Vault, batch: Batch, token: &StoredToken) -> Result<Batch, TokenError> {
    let key = token.record.key();
    let row = authentic(vault, TOKEN, &key, &encode(&token.record)?)?;
    Ok(batch.replace(TOKEN, &key, token.row_version, row))
}

fn encode(record: &TokenRecord) -> Result<Vec<u8>, TokenError> {
    serde_json::to_vec(record).map_err(|_| TokenError::Unreadable)
}

#[cfg(test)]
mod tests;
