//! Freezes: of one package, and of everything.
//!
//! If an attacker writes here: see [`freeze`]; who deletes a row thaws, and no row thaws more than its own name.

use crate::{
    audit::reason::FreezeCause,
    desk::{Desk, Fault},
    store::{Batch, Table},
    vault::rows,
};
use proto::{ids::PersonId, request::RequestFacts, stop::EVERYTHING, time::UnixTime};
use serde::{Deserialize, Serialize};

/// Frozen packages, and [`EVERYTHING`], which is no package's name.
pub const FROZEN: Table = Table("frozen");

/// A package's freeze.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Freeze {
    /// Who asked for the freeze; nobody where the broker itself froze it.
    pub by: Option<PersonId>,
    /// When.
    pub since: UnixTime,
    /// People who asked for the thaw; two are needed.
    pub thawing: Vec<PersonId>,
    /// What the broker saw at the registry, where that is a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    /// When an admin stopped everything last, where this is the freeze of [`EVERYTHING`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Whether its row cannot be read. It freezes all the same.
    #[serde(skip)]
    pub damaged: bool,
}

/// An admin stopped everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stop {
    /// When. What was open then ends, and nothing that came later.
    pub at: UnixTime,
    /// Words of the admin, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Freeze {
    /// From now on, by this person, or by the broker itself.
    pub const fn new(by: Option<PersonId>, since: UnixTime) -> Self {
        Self {
            by,
            since,
            thawing: Vec::new(),
            seen: None,
            stop: None,
            damaged: false,
        }
    }

    /// For people.
    pub fn stopped_words(&self) -> String {
        let by = self.by.as_ref().map_or("somebody", |by| by.as_str());
        let since = self.since.rfc3339();
        let why = self.stop.as_ref().and_then(|s| s.reason.as_ref());
        let why = why.map_or_else(String::new, |why| format!(" ({why})"));
        format!(
            "EVERYTHING IS FROZEN since {since}, by {by}{why}; two admins thaw it: countersign admin thaw --all"
        )
    }
}

/// What the broker saw at a registry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Of which kind.
    pub cause: FreezeCause,
    /// About what: `npm:@acme/left@1.4.2`.
    pub name: String,
}

impl Seen {
    /// For people.
    pub fn words(&self) -> String {
        format!("{}: {}", self.name, self.cause.text())
    }
}

/// The mark of a freeze that was written while the vault was sealed, in place of a MAC.
const SEALED_MARK: [u8; 32] = [0; 32];

/// The bytes of a freeze. It must be possible while the vault is sealed, when nothing can be
/// authenticated: such a row freezes, and no thaw that it claims counts.
pub fn freeze_row(desk: &Desk, package: &str, freeze: &Freeze) -> Result<Vec<u8>, Fault> {
    match desk.authentic(FROZEN, package.as_bytes(), freeze) {
        Err(Fault::Sealed) => {
            let json = serde_json::to_vec(freeze).map_err(|_| Fault::Damaged("a freeze"))?;
            Ok([&SEALED_MARK[..], &json].concat())
        }
        other => other,
    }
}

/// Whether a freeze was written while the vault was sealed, and can prove nothing.
pub(crate) fn is_frozen_while_sealed(stored: &[u8]) -> bool {
    stored.starts_with(&SEALED_MARK)
}

/// A package's freeze and its row version, if it is frozen. Absence alone is a thaw: a row that the
/// broker did not write, or that is damaged, still freezes, keeps nobody from the others, and names nobody of
/// those who ask for a thaw (attack 50 by whoever writes the database).
pub fn freeze(desk: &Desk, package: &str) -> Result<Option<(u64, Freeze)>, Fault> {
    let Some(row) = desk.live.get(FROZEN, package.as_bytes())? else {
        return Ok(None);
    };
    let read = rows::unauthenticated(&row.value).and_then(|json| serde_json::from_slice(json).ok());
    let Some(mut freeze): Option<Freeze> = read else {
        tracing::error!(
            package,
            "ALARM: a freeze's row cannot be read; the package stays frozen"
        );
        let freeze = Freeze {
            damaged: true,
            ..Freeze::new(None, desk.world.now())
        };
        return Ok(Some((row.version, freeze)));
    };
    if rows::check_authentic(&desk.vault, FROZEN, package.as_bytes(), &row.value).is_err() {
        freeze.thawing.clear();
    }
    Ok(Some((row.version, freeze)))
}

/// Whether nothing of a package is released: it is frozen, or everything is.
pub fn is_frozen(desk: &Desk, package: &str) -> Result<bool, Fault> {
    Ok(above(desk, package)?.is_some())
}

/// What freezes a package: its own freeze, or that of everything.
pub fn above(desk: &Desk, package: &str) -> Result<Option<Freeze>, Fault> {
    let own = freeze(desk, package)?;
    let found = own.map_or_else(|| freeze(desk, EVERYTHING), |own| Ok(Some(own)))?;
    Ok(found.map(|(_, freeze)| freeze))
}

/// Makes a commit fail when this package, or everything, gets frozen before it.
pub fn unless_package_frozen(batch: Batch, package: String) -> Batch {
    let batch = batch.require_absent(FROZEN, EVERYTHING.as_bytes());
    batch.require_absent(FROZEN, package.into_bytes())
}

/// Makes a commit fail when one of the packages, or everything, gets frozen before it: a freeze beats an approved
/// request (attack 52).
pub fn unless_frozen(mut batch: Batch, facts: &RequestFacts) -> Batch {
    batch = batch.require_absent(FROZEN, EVERYTHING.as_bytes());
    for item in &facts.items {
        batch = batch.require_absent(FROZEN, item.package_key().into_bytes());
    }
    batch
}
