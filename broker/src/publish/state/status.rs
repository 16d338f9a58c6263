//! What a ticket holder is told.

use super::{FileAt, Hold, Progress, Record, State};
use crate::audit::reason::DenyCause;
use proto::{
    api::{FileStatus, ItemStatus, Mode, StateName, Status},
    digest::Digest,
    request::Item,
    time::UnixTime,
};

/// What a ticket holder is told while the registry holds a publish back. Not the page: that is for those
/// who approve, and a job's log is read by others (attack 34).
const HELD: &str =
    "the registry wants its own second factor: an approver gives it now (countersign inbox)";

impl Record {
    /// What a ticket holder is told.
    pub fn status(&self) -> Status {
        let state = self.name();
        let items = self
            .facts
            .items
            .iter()
            .enumerate()
            .map(|(i, item)| self.item_status(i, item));
        Status {
            id: self.facts.id,
            state,
            revision: self.revision,
            approvals: self.approvals(),
            quorum: self.quorum,
            expires: self.expires(),
            reason: self.reason(),
            not_before: match &self.state {
                State::Approved { later, .. } => later.map(|l| l.until),
                _ => None,
            },
            items: items.collect(),
        }
    }

    /// The same at a moment: what was not to be collected before it may be now.
    pub fn status_at(&self, now: UnixTime) -> Status {
        let mut status = self.status();
        if self.name() == StateName::Approved && self.later(now).is_none() {
            status.not_before = None;
            status.reason = None;
        }
        status
    }

    /// What nobody knows the outcome of, for people; nothing before the alarm was given.
    pub fn unseen(&self) -> Option<&'static str> {
        let told = self.told && !self.unclear.is_empty();
        told.then_some(match self.mode {
            Mode::Reveal => {
                "the token was handed out, and the registry never showed what the job announced; \
                 find out what it was used for, and rotate it"
            }
            _ => {
                "the registry took it, or may have taken it, and did not show it in time; look at the \
                 registry before the version is published again"
            }
        })
    }

    fn item_status(&self, index: usize, item: &Item) -> ItemStatus {
        let files = item.files.iter().enumerate().map(|(file, f)| {
            let (state, read_back) = self.file_state(FileAt { item: index, file });
            FileStatus {
                name: f.name.clone(),
                state,
                read_back,
            }
        });
        let files: Vec<_> = files.collect();
        // The least advanced file speaks for the item; a conflict speaks first.
        let rank = |s: StateName| match s {
            StateName::Conflict => 0,
            StateName::Settling => 1,
            StateName::Confirming => 2,
            StateName::Published => 4,
            _ => 3,
        };
        let state = files
            .iter()
            .map(|f| f.state)
            .min_by_key(|s| rank(*s))
            .unwrap_or_else(|| self.name());
        ItemStatus {
            name: item.name(),
            state,
            files,
        }
    }

    fn file_state(&self, at: FileAt) -> (StateName, Option<Digest>) {
        if let State::Published { read_back, .. } = &self.state {
            let shown = read_back.get(at.item).and_then(|f| f.get(at.file));
            return (StateName::Published, shown.cloned());
        }
        match self.progress(at) {
            Some(Progress::Published { read_back }) => {
                (StateName::Published, Some(read_back.clone()))
            }
            Some(Progress::Conflict { read_back }) => {
                (StateName::Conflict, Some(read_back.clone()))
            }
            Some(Progress::Settling { .. }) => (StateName::Settling, None),
            Some(Progress::Held { .. }) if !self.name().is_final() => (StateName::Confirming, None),
            _ => (self.name(), None),
        }
    }

    fn reason(&self) -> Option<String> {
        match &self.state {
            State::Denied { by, reason, cause } => Some(match (by, reason, cause) {
                (Some(p), Some(r), _) => format!("denied by {p}: {r}"),
                (Some(p), None, _) => format!("denied by {p}"),
                (None, _, DenyCause::Frozen) => "the package was frozen".to_owned(),
                (None, _, DenyCause::Stopped) => "an admin stopped everything".to_owned(),
                (None, _, DenyCause::Rejected) => {
                    "somebody rejected it at the registry, which held it back".to_owned()
                }
                (None, _, _) => "another request for this version was approved".to_owned(),
            }),
            State::Approved { later, .. } => later.map(|l| l.to_string()),
            State::Expired { .. } | State::Releasing { .. } if self.stopped.is_some() => Some(
                "an admin stopped everything: nothing more of it leaves, and what had left is \
                 read back"
                    .to_owned(),
            ),
            State::Expired { was, progress, .. } => Some(
                match was {
                    StateName::Pending => "nobody approved in time",
                    StateName::Approved => "it was approved, but not collected in time",
                    _ => match progress.iter().flatten().find_map(Progress::hold) {
                        None => self.unseen().unwrap_or("the credential was not used in time"),
                        Some(Hold { stage: None, .. }) => {
                            "nobody gave the registry's own second factor in time"
                        }
                        Some(Hold {
                            stage: Some(stage), ..
                        }) => {
                            return Some(format!(
                                "nobody gave the registry's own second factor in time; the stage {stage} still lies there: reject it (npm stage reject)"
                            ));
                        }
                    },
                }
                .to_owned(),
            ),
            State::Releasing { progress, .. } => {
                let mut files = progress.iter().flatten();
                let said = files.clone().find_map(|p| match p {
                    Progress::Waiting { said: Some(s), .. } => {
                        Some(format!("the registry said: {s}"))
                    }
                    _ => None,
                });
                let held = files.any(|p| matches!(p, Progress::Held { .. }));
                said.or_else(|| held.then(|| HELD.to_owned()))
                    .or_else(|| self.unseen().map(str::to_owned))
            }
            State::Conflict { .. } => Some(
                "the registry shows other bytes than the approved ones; look into it now"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
