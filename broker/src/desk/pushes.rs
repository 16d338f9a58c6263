//! Blobs on their way in pieces: spooled until their digest is named. They live in memory and in files without a
//! name, for some minutes: after a restart the client begins again.
//!
//! A push that is begun and never ended costs its client nothing. So pushes take no place of the uploads that
//! arrive whole: they have places of their own for each request, and their bytes are counted while they grow
//! (attacks 53 and 54).

use proto::{
    ids::{PackageName, RegistryId, RequestId},
    time::UnixTime,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};
use tempfile::SpooledTempFile;

/// Unfinished pushes of one request.
const PER_REQUEST: u32 = 16;
/// Seconds that a push may take.
const LIFE: u64 = 15 * 60;

/// What a push is for: its request, the registry, the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The request.
    pub id: RequestId,
    /// The registry.
    pub registry: RegistryId,
    /// The repository.
    pub package: PackageName,
}

/// Whose bytes they are, as deposits are counted: a project, and its CI account where the issuer names one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The project.
    pub subject: String,
    /// The account.
    pub actor: Option<String>,
}

/// How many bytes unfinished pushes may have together.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Those of the request.
    pub request: u64,
    /// Those of requests that nobody has approved: of the account, of its project, and of all.
    pub unapproved: Option<Unapproved>,
}

/// What is left beside the deposits that are kept.
#[derive(Clone, Copy, Debug)]
pub struct Unapproved {
    /// To one CI account.
    pub account: u64,
    /// To one project.
    pub project: u64,
    /// To everybody.
    pub all: u64,
}

/// The pushes of all registries.
#[derive(Default)]
pub struct Pushes {
    open: Mutex<HashMap<String, Push>>,
    counts: Counts,
}

/// One push.
pub struct Push {
    target: Target,
    until: UnixTime,
    /// What has come.
    pub file: SpooledTempFile,
    /// How long that is.
    pub size: u64,
    /// Its part of what is counted.
    pub share: Share,
}

type Counts = Arc<Mutex<HashMap<RequestId, Count>>>;

/// The unfinished pushes of one request.
struct Count {
    pushes: u32,
    bytes: u64,
    owner: Option<Owner>,
}

/// A place taken, and the bytes counted for it; both are given back when it is dropped.
pub struct Share {
    counts: Counts,
    id: RequestId,
    bytes: u64,
}

impl Pushes {
    /// Begins one under a number that nobody can guess; `None` when the request has too many. The bytes of a
    /// request that nobody has approved are its owner's.
    pub fn begin(
        &self,
        number: String,
        target: Target,
        owner: Option<Owner>,
        file: SpooledTempFile,
        now: UnixTime,
    ) -> Option<()> {
        let share = Share::of(&self.counts, target.id, owner)?;
        let push = Push {
            target,
            until: now.after(LIFE),
            file,
            size: 0,
            share,
        };
        self.put(number, push);
        Some(())
    }

    /// Takes one out, for what it was begun for; nobody else finds it meanwhile.
    pub fn take(&self, number: &str, target: &Target, now: UnixTime) -> Option<Push> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.get(number)?.target == *target;
        let push = own.then(|| open.remove(number)).flatten()?;
        (now < push.until).then_some(push)
    }

    /// Puts one back.
    pub fn put(&self, number: String, push: Push) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(number, push);
    }

    /// The requests with pushes that nobody has ended.
    pub fn requests(&self) -> BTreeSet<RequestId> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().map(|push| push.target.id).collect()
    }

    /// Destroys what has taken too long, and what belongs to these requests.
    pub fn end(&self, now: UnixTime, ended: &BTreeSet<RequestId>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, push| now < push.until && !ended.contains(&push.target.id));
    }

    /// Each owner's bytes in unfinished pushes.
    pub fn spooled(&self) -> Vec<(Owner, u64)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let owned = counts.values();
        owned
            .filter_map(|count| Some((count.owner.clone()?, count.bytes)))
            .collect()
    }
}

impl Share {
    fn of(counts: &Counts, id: RequestId, owner: Option<Owner>) -> Option<Self> {
        let mut map = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = map.entry(id).or_insert(Count {
            pushes: 0,
            bytes: 0,
            owner: None,
        });
        if count.pushes >= PER_REQUEST {
            return None;
        }
        count.pushes += 1;
        count.owner = owner;
        Some(Self {
            counts: Arc::clone(counts),
            id,
            bytes: 0,
        })
    }

    /// Counts more bytes, if there is room for them.
    pub fn grow(&mut self, by: u64, budget: &Budget) -> bool {
        let mut map = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = map.get(&self.id) else {
            return false;
        };
        let fits = |bytes: u64, most: u64| bytes.saturating_add(by) <= most;
        if !fits(own.bytes, budget.request) {
            return false;
        }
        if let (Some(owner), Some(left)) = (&own.owner, &budget.unapproved) {
            let sum = |same: &dyn Fn(&Owner) -> bool| {
                let counts = map.values();
                let counts = counts.filter(|c| c.owner.as_ref().is_some_and(same));
                counts.fold(0_u64, |sum, c| sum.saturating_add(c.bytes))
            };
            let project = |other: &Owner| other.subject == owner.subject;
            let room = fits(sum(&|other| other == owner), left.account)
                && fits(sum(&project), left.project)
                && fits(sum(&|_| true), left.all);
            if !room {
                return false;
            }
        }
        if let Some(own) = map.get_mut(&self.id) {
            own.bytes += by;
            self.bytes += by;
        }
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut map = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = map.get_mut(&self.id) {
            count.pushes -= 1;
            count.bytes -= self.bytes;
            if count.pushes == 0 {
                map.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000);

    fn target(n: u8) -> Target {
        Target {
            id: RequestId(uuid::Uuid::from_bytes([n; 16])),
            registry: "oci".parse().unwrap(),
            package: "acme/app".parse().unwrap(),
        }
    }

    fn owner(actor: &str) -> Owner {
        Owner {
            subject: "acme".to_owned(),
            actor: Some(actor.to_owned()),
        }
    }

    fn begun(pushes: &Pushes, number: &str, n: u8, actor: &str) -> Option<()> {
        let file = SpooledTempFile::new(0);
        pushes.begin(number.to_owned(), target(n), Some(owner(actor)), file, NOW)
    }

    #[test]
    fn attack_53_unfinished_pushes_grow_within_their_request_their_account_and_their_project() {
        let pushes = Pushes::default();
        for (number, n, actor) in [("a", 1, "thief"), ("b", 2, "thief"), ("c", 3, "sam")] {
            begun(&pushes, number, n, actor).unwrap();
        }
        let budget = |request, account, project, all| Budget {
            request,
            unapproved: Some(Unapproved {
                account,
                project,
                all,
            }),
        };
        let mut a = pushes.take("a", &target(1), NOW).unwrap();
        let mut b = pushes.take("b", &target(2), NOW).unwrap();
        let mut c = pushes.take("c", &target(3), NOW).unwrap();
        assert!(a.share.grow(10, &budget(10, 100, 100, 100)));
        assert!(!a.share.grow(1, &budget(10, 100, 100, 100)));
        assert!(!b.share.grow(11, &budget(100, 20, 100, 100)));
        assert!(b.share.grow(10, &budget(100, 20, 100, 100)));
        // His colleague has what is left to the project.
        assert!(c.share.grow(10, &budget(100, 20, 30, 100)));
        assert!(!c.share.grow(1, &budget(100, 20, 30, 100)));
        assert!(!c.share.grow(1, &budget(100, 20, 100, 30)));
        let approved = Budget {
            request: 11,
            unapproved: None,
        };
        assert!(c.share.grow(1, &approved));
        drop((a, b));
        assert_eq!(pushes.spooled(), [(owner("sam"), 11)]);
    }

    #[test]
    fn attack_53_54_pushes_have_places_of_their_own_and_end() {
        let pushes = Pushes::default();
        for n in 0..16 {
            begun(&pushes, &format!("a{n}"), 1, "thief").unwrap();
        }
        assert!(begun(&pushes, "more", 1, "thief").is_none());
        begun(&pushes, "b", 2, "thief").unwrap();
        assert!(pushes.take("a0", &target(2), NOW).is_none());
        assert_eq!(pushes.requests().len(), 2);
        pushes.end(NOW, &[target(1).id].into());
        assert!(pushes.take("a0", &target(1), NOW).is_none());
        begun(&pushes, "more", 1, "thief").unwrap();
        let late = NOW.after(LIFE);
        assert!(pushes.take("b", &target(2), late).is_none());
        pushes.end(late, &BTreeSet::new());
        assert!(pushes.requests().is_empty());
        assert!(pushes.spooled().is_empty());
    }
}
