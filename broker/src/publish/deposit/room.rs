//! Whether there is room for one more kept upload: it must not fill the disk, nor take every place of its
//! project.

use crate::desk::pushes::{Owner, Unapproved};

/// Bytes that all kept uploads may have.
const ALL_MAX: u64 = 8 << 30;
/// Bytes that the kept uploads of one project may have.
const PER_SUBJECT_MAX: u64 = 1 << 30;
/// The same of one CI account: whoever stole it leaves room to its project's other people.
const PER_ACTOR_MAX: u64 = 768 << 20;
/// Kept uploads of one project.
const COUNT_PER_SUBJECT_MAX: u32 = 400;
/// The same of one CI account.
const COUNT_PER_ACTOR_MAX: u32 = 320;

/// What is kept beside one more upload, counted up.
pub(super) struct Room<'a> {
    subject: &'a str,
    actor: Option<&'a str>,
    all: u64,
    of_subject: (u64, u32),
    of_actor: (u64, u32),
}

impl<'a> Room<'a> {
    /// For an upload of `size` bytes.
    pub(super) fn of(owner: &'a Owner, size: u64) -> Self {
        Self {
            subject: &owner.subject,
            actor: owner.actor.as_deref(),
            all: size,
            of_subject: (size, 1),
            of_actor: (size, 1),
        }
    }

    /// Another upload is kept.
    pub(super) fn takes(&mut self, subject: &str, actor: Option<&str>, size: u64) {
        self.add(subject, actor, (size, 1));
    }

    /// Bytes that are on their way to another one.
    pub(super) fn grows(&mut self, subject: &str, actor: Option<&str>, size: u64) {
        self.add(subject, actor, (size, 0));
    }

    fn add(&mut self, subject: &str, actor: Option<&str>, (size, count): (u64, u32)) {
        let add = |sum: &mut (u64, u32)| *sum = (sum.0.saturating_add(size), sum.1 + count);
        self.all = self.all.saturating_add(size);
        if subject == self.subject {
            add(&mut self.of_subject);
            if self.actor.is_some() && actor == self.actor {
                add(&mut self.of_actor);
            }
        }
    }

    /// Whether there is room.
    pub(super) const fn is_left(&self) -> bool {
        self.all <= ALL_MAX
            && self.of_subject.0 <= PER_SUBJECT_MAX
            && self.of_subject.1 <= COUNT_PER_SUBJECT_MAX
            && self.of_actor.0 <= PER_ACTOR_MAX
            && self.of_actor.1 <= COUNT_PER_ACTOR_MAX
    }
}

impl Room<'_> {
    /// Bytes that there are left.
    pub(super) const fn left(&self) -> Unapproved {
        let project = PER_SUBJECT_MAX.saturating_sub(self.of_subject.0);
        Unapproved {
            account: match self.actor {
                Some(_) => PER_ACTOR_MAX.saturating_sub(self.of_actor.0),
                // An issuer that names no accounts: the project's share alone.
                None => project,
            },
            project,
            all: ALL_MAX.saturating_sub(self.all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    /// Uploads that are kept one after another until there is no room.
    fn kept(subject: &str, actor: Option<&str>, size: u64, before: &[(&str, &str, u64)]) -> u32 {
        for n in 0..=10_000 {
            let owner = Owner {
                subject: subject.to_owned(),
                actor: actor.map(str::to_owned),
            };
            let mut room = Room::of(&owner, size);
            for (subject, actor, size) in before {
                room.takes(subject, Some(actor), *size);
            }
            (0..n).for_each(|_| room.takes(subject, actor, size));
            if !room.is_left() {
                return n;
            }
        }
        panic!("there is always room");
    }

    #[test]
    fn attack_54_one_account_leaves_room_for_its_projects_others() {
        let thief = vec![("acme", "thief", 0); 320];
        assert_eq!(kept("acme", Some("thief"), 0, &[]), 320);
        assert_eq!(kept("acme", Some("thief"), 0, &thief), 0);
        assert_eq!(kept("acme", Some("sam"), 0, &thief), 80);
        // An issuer that names no accounts: the project's share alone.
        assert_eq!(kept("acme", None, 0, &[]), 400);
        assert_eq!(kept("other", Some("thief"), 0, &thief), 320);
        let thief = vec![("acme", "thief", 64 * MB); 12];
        assert_eq!(kept("acme", Some("thief"), 64 * MB, &[]), 12);
        assert_eq!(kept("acme", Some("sam"), 64 * MB, &thief), 4);
        assert_eq!(kept("acme", Some("sam"), 769 * MB, &[]), 0);
        // All projects together.
        let many: Vec<(&str, &str, u64)> = vec![("x", "y", 512 * MB); 15];
        assert_eq!(kept("acme", Some("sam"), 256 * MB, &many), 2);
    }
}
