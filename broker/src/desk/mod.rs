//! The parts that the verbs work with. Whatever a test replaces comes in through here; the daemon
//! has no global and no test door.

pub mod backups;
pub mod bells;
pub mod factors;
pub mod guests;
pub mod in_hand;
pub mod inspections;
pub mod inventory;
pub mod offered;
pub mod people;
pub mod pushes;
pub mod ration;
pub mod restored;
pub mod turns;
pub mod uploads;
pub mod waiters;
pub mod witnesses;

use crate::{
    audit::{
        event::{Event, leaf},
        tree::Tree,
    },
    caller::Issuers,
    challenge::passkey::Passkeys,
    policy::Policy,
    registry::{Kind, Upstream},
    secret::Secret,
    store::{Batch, CommitError, Committed, Store, StoreError, Table},
    telemetry::Metrics,
    vault::{
        Binding, Sealed, Vault,
        envelope::{OpenRowError, SealRowError},
        rows::RowError,
        tokens::TokenError,
    },
    world::{NoEntropy, World},
};
use arc_swap::ArcSwap;
use proto::{
    device::DeviceKey,
    ids::{PackageName, RegistryId},
    time::UnixTime,
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use thiserror::Error;

/// Everything a verb needs.
pub struct Desk {
    /// Live rows.
    pub live: Arc<dyn Store>,
    /// Finished requests and old leaves.
    pub history: Arc<dyn Store>,
    /// Keys.
    pub vault: Arc<Vault>,
    /// Time and entropy.
    pub world: World,
    /// Who may ask.
    pub issuers: Issuers,
    /// What is allowed: nothing until the vault was open once.
    pub policy: ArcSwap<Policy>,
    /// What the policy file says, as it was read last.
    pub given: ArcSwap<Policy>,
    /// Held while the policy in force changes.
    pub policing: tokio::sync::Mutex<()>,
    /// Where packages go.
    pub registries: BTreeMap<RegistryId, Registry>,
    /// The log's tree.
    pub tree: Tree,
    /// People's rows that were authenticated before.
    pub roster: people::Roster,
    /// Reads listed rows.
    pub known: Arc<inventory::Known>,
    /// Who waits.
    pub waiters: waiters::Waiters,
    /// Uploads on their way.
    pub uploads: uploads::Uploads,
    /// Blobs that come in pieces.
    pub pushes: pushes::Pushes,
    /// Uploads that are being read at once.
    pub reading: Arc<tokio::sync::Semaphore>,
    /// Clients that announced nothing.
    pub guests: guests::Guests,
    /// Deposits that are being published.
    pub in_hand: in_hand::InHand,
    /// Whose turn it is at a package.
    pub turns: turns::Turns,
    /// Files that are being looked into.
    pub inspections: Arc<inspections::Inspections>,
    /// Registries' own second factors that are asked for.
    pub factors: factors::Factors,
    /// Refusals that are recorded one by one.
    pub refusals: ration::Ration,
    /// Packages that jobs with an approval may look up in a minute.
    pub lookups: ration::Ration,
    /// One unseal at a time: it takes a second and 256 MB.
    pub unsealing: tokio::sync::Semaphore,
    /// Shares that were handed in to unseal.
    pub offered: offered::Offered,
    /// Passphrases tried by the first admin's enrolment.
    pub first_tries: ration::Tries,
    /// One round of the watch at a time; with the package of each registry that was asked for last.
    pub watching: tokio::sync::Mutex<BTreeMap<RegistryId, PackageName>>,
    /// Passkeys, where browsers have them at the broker's address.
    pub passkeys: Option<Passkeys>,
    /// What people are rung with.
    pub bells: bells::Bells,
    /// Where backups go.
    pub backups: backups::Backups,
    /// Who cosigns the log.
    pub witnesses: witnesses::Witnesses,
    /// What is counted.
    pub metrics: Metrics,
    /// Addresses and folders.
    pub place: Place,
}

/// A configured registry.
pub enum Registry {
    /// One that the broker publishes to.
    Forward {
        /// The protocol that it speaks.
        kind: Kind,
        /// The real registry.
        upstream: Arc<dyn Upstream>,
        /// The broker's endpoint for it, as jobs see it.
        endpoint: url::Url,
        /// The registry under whose name another token is stored, which approves its stages.
        approve_token: Option<RegistryId>,
    },
    /// Stored secrets without an endpoint.
    Secrets,
}

impl Desk {
    /// The adapter of a registry that the broker publishes to.
    pub fn upstream(&self, registry: &RegistryId) -> Option<&dyn Upstream> {
        self.registries.get(registry)?.upstream()
    }

    /// Under which registry's name the token is stored that approves this one's stages.
    pub fn approve_token<'a>(&'a self, registry: &'a RegistryId) -> &'a RegistryId {
        match self.registries.get(registry) {
            Some(Registry::Forward {
                approve_token: Some(other),
                ..
            }) => other,
            _ => registry,
        }
    }
}

impl Registry {
    /// The protocol that it speaks.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Forward { kind, .. } => *kind,
            Self::Secrets => Kind::Generic,
        }
    }

    /// The real registry, where the broker publishes to it.
    pub fn upstream(&self) -> Option<&dyn Upstream> {
        match self {
            Self::Forward { upstream, .. } => Some(&**upstream),
            Self::Secrets => None,
        }
    }
}

/// Addresses and folders.
pub struct Place {
    /// The broker's public URL, without a slash at the end.
    pub public_url: String,
    /// The log's name in checkpoints.
    pub origin: String,
    /// Where uploads are spooled.
    pub spool: PathBuf,
    /// The data folder.
    pub data: PathBuf,
    /// Where the log's last checkpoint is kept outside the database.
    pub anchor: PathBuf,
    /// The identity that the configuration names to open the vault at the start.
    pub identity: Option<PathBuf>,
    /// The program of the age plugin whose identity that is.
    pub plugin: Option<PathBuf>,
    /// Days that a token may live.
    pub token_max_age_days: u64,
    /// Registries' web pages, where people look.
    pub web: BTreeMap<RegistryId, url::Url>,
    /// Seconds that a policy which allows more waits for objections.
    pub weakening_wait: u64,
    /// Seconds between two rounds of the watch; absent: there are none.
    pub watch_every: Option<u64>,
}

/// What can fail below every verb.
#[derive(Debug, Error)]
pub enum Fault {
    /// Somebody else was faster; read again.
    #[error("another act was faster")]
    Conflict(Table, Vec<u8>),
    /// The store failed; the daemon stops.
    #[error("the store failed: {0}")]
    Store(String),
    /// The vault is sealed.
    #[error("the vault is sealed")]
    Sealed,
    /// A row that should be ours is not.
    #[error("{0} is damaged or was not written by this broker")]
    Damaged(&'static str),
    /// No entropy.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
}

/// Whoever was faster did it, or it is looked at in the next round.
pub fn passable<T>(done: Result<T, Fault>) -> Result<(), Fault> {
    match done {
        Ok(_) | Err(Fault::Conflict(..)) => Ok(()),
        Err(fault) => Err(fault),
    }
}

impl From<StoreError> for Fault {
    fn from(e: StoreError) -> Self {
        Self::Store(e.to_string())
    }
}

impl From<CommitError> for Fault {
    fn from(e: CommitError) -> Self {
        match e {
            CommitError::Conflict { table, key } => Self::Conflict(table, key),
            CommitError::Unavailable(why) => Self::Store(why),
        }
    }
}

impl From<Sealed> for Fault {
    fn from(_: Sealed) -> Self {
        Self::Sealed
    }
}

impl From<SealRowError> for Fault {
    fn from(e: SealRowError) -> Self {
        match e {
            SealRowError::Sealed(_) => Self::Sealed,
            SealRowError::NoEntropy(e) => Self::NoEntropy(e),
            SealRowError::Refused => Self::Damaged("a secret"),
        }
    }
}

impl From<OpenRowError> for Fault {
    fn from(e: OpenRowError) -> Self {
        match e {
            OpenRowError::Sealed(_) => Self::Sealed,
            _ => Self::Damaged("a sealed row"),
        }
    }
}

impl From<TokenError> for Fault {
    fn from(e: TokenError) -> Self {
        match e {
            TokenError::Store(e) => e.into(),
            TokenError::Sealed(e) => e.into(),
            TokenError::Row(e) => e.into(),
            TokenError::Seal(e) => e.into(),
            _ => Self::Damaged("a token's row"),
        }
    }
}

impl From<RowError> for Fault {
    fn from(e: RowError) -> Self {
        match e {
            RowError::Sealed(_) => Self::Sealed,
            RowError::NotAuthentic(_) => Self::Damaged("an authenticated row"),
        }
    }
}

/// Keys of the broker's own.
const KEYS: Table = Table("key");

impl Desk {
    /// Commits a batch with its events: a change without its record, or the other way round, does
    /// not exist.
    pub async fn commit(
        &self,
        mut batch: Batch,
        events: &[Event],
        now: UnixTime,
    ) -> Result<Committed, Fault> {
        for event in events {
            batch = batch.append(leaf(event, now));
        }
        if inventory::changes(&batch) {
            // In a box: every act waits for a commit, and few of them change the inventory.
            return Box::pin(self.commit_listed(batch)).await;
        }
        Ok(self.live.commit(batch).await?)
    }

    /// The log's signing key.
    pub fn log_key(&self) -> Result<DeviceKey, Fault> {
        let row = self
            .live
            .get(KEYS, b"log")?
            .ok_or(Fault::Damaged("the log key"))?;
        let seed = self.vault.open_row(&log_binding(), &row.value)?;
        key_from(&seed)
    }

    /// Makes the log's signing key; once, when the broker is created.
    pub async fn make_log_key(&self) -> Result<(), Fault> {
        let seed = Secret::new(self.world.random::<32>()?);
        let sealed = self.vault.seal_row(&log_binding(), seed.expose())?;
        self.live
            .commit(Batch::new().create(KEYS, b"log", sealed))
            .await?;
        Ok(())
    }

    /// A signed checkpoint over all leaves there are, with its size: a proof that goes with it must be
    /// for this very size, and the tree may have grown by the time it is made.
    pub async fn checkpoint(&self) -> Result<(u64, String), Fault> {
        self.tree
            .catch_up_into(&*self.live, &*self.history)
            .await
            .map_err(|e| Fault::Store(e.to_string()))?;
        let snapshot = self.tree.snapshot(&self.place.origin);
        let signed = snapshot
            .sign(&self.log_key()?)
            .map_err(|_| Fault::Damaged("the log key"))?;
        Ok((snapshot.size, signed))
    }
}

pub(crate) fn log_binding() -> Binding<'static> {
    Binding {
        table: "key",
        record: b"log",
        purpose: "log signing key",
        registry: None,
        scope: None,
        version: 0,
    }
}

fn key_from(seed: &Secret<Vec<u8>>) -> Result<DeviceKey, Fault> {
    let mut bytes = [0; 32];
    if seed.expose().len() != 32 {
        return Err(Fault::Damaged("the log key"));
    }
    bytes.copy_from_slice(seed.expose());
    DeviceKey::from_seed(bytes).map_err(|_| Fault::Damaged("the log key"))
}
