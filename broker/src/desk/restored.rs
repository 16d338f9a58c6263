//! Whether this database was put back from an older copy, and the admins have not agreed to go on with it.
//!
//! An old copy knows nothing of what was decided after it: a removed device is enrolled in it, a spent approval
//! unspent, a freeze not made (attack 45). So a copy that was restored carries a mark, in the database itself and
//! before it can be served; and while the mark stands nothing is approved and nothing is released. Denying,
//! freezing, sealing and looking work. `admin/restored.rs` takes it away.
//!
//! If an attacker writes here: who can take the mark away can also put an old database into the place of this
//! one. The devices notice that, which keep the log's checkpoint. Who plants a mark stops the broker.

use super::{Desk, Fault};
use crate::store::{Store, StoreError, Table, snapshot};
use proto::time::UnixTime;
use serde::{Deserialize, Serialize};

/// The mark, in one row. Not authenticated: it is written where there is no key, and it only ever stops.
const RESTORED: Table = Table("restored");
const MARK: &[u8] = b"mark";

/// How an older copy came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It was restored from a backup.
    Restored,
    /// The broker found its log shorter than it had been.
    RolledBack,
}

/// What is known of the copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Names this one restore: who agreed to another has not agreed to this.
    pub id: String,
    /// How it came here.
    pub cause: Cause,
    /// When the copy was taken: what happened later is unknown.
    pub taken: UnixTime,
    /// When it was restored, or found.
    pub restored: UnixTime,
    /// Entries of the log that came with it.
    pub entries: u64,
    /// The log's key that the backup names, as a vkey, and was signed with; none where nobody restored it.
    #[serde(default)]
    pub log_key: Option<String>,
}

/// The mark with its row's version, for compare and swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The store's version.
    pub version: u64,
    /// What it says; none where it cannot be read. It stops all the same.
    pub mark: Option<Mark>,
}

impl Desk {
    /// The mark, while it stands.
    pub fn restored(&self) -> Result<Option<Marked>, Fault> {
        Ok(read(&*self.live)?)
    }
}

/// The mark of a store.
pub fn read(live: &dyn Store) -> Result<Option<Marked>, StoreError> {
    let row = live.get(RESTORED, MARK)?;
    Ok(row.map(|row| Marked {
        version: row.version,
        mark: serde_json::from_slice(&row.value).ok(),
    }))
}

/// Where the mark stands: table and key.
pub const fn row() -> (Table, &'static [u8]) {
    (RESTORED, MARK)
}

/// The same as one place of a copied store.
pub fn place() -> Vec<u8> {
    snapshot::place(RESTORED, MARK)
}

/// The bytes of a mark.
pub fn bytes(mark: &Mark) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(mark).map_err(|_| Fault::Damaged("the mark of a restore"))
}
