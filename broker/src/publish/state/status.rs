//! What a ticket holder is told.

use super::{FileAt, Progress, Record, State};
use crate::audit::reason::DenyCause;
use proto::{
    api::{FileStatus, ItemStatus, StateName, Status},
    digest::Digest,
    request::Item,
};

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
            approvals: u32::try_from(self.evidence().len()).unwrap_or(u32::MAX),
            quorum: self.quorum,
            expires: self.expires(),
            reason: self.reason(),
            items: items.collect(),
        }
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
            StateName::Published => 3,
            _ => 2,
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
            _ => (self.name(), None),
        }
    }

    fn reason(&self) -> Option<String> {
        match &self.state {
            State::Denied { by, reason, cause } => Some(match (by, reason, cause) {
                (Some(p), Some(r), _) => format!("denied by {p}: {r}"),
                (Some(p), None, _) => format!("denied by {p}"),
                (None, _, DenyCause::Frozen) => "the package was frozen".to_owned(),
                (None, _, _) => "another request for this version was approved".to_owned(),
            }),
            State::Expired { was, .. } => Some(
                match was {
                    StateName::Pending => "nobody approved in time",
                    StateName::Approved => "it was approved, but not collected in time",
                    _ => "the credential was not used in time",
                }
                .to_owned(),
            ),
            State::Releasing { progress, .. } => progress.iter().flatten().find_map(|p| match p {
                Progress::Waiting { said: Some(s), .. } => Some(format!("the registry said: {s}")),
                _ => None,
            }),
            State::Conflict { .. } => Some(
                "the registry shows other bytes than the approved ones; look into it now"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
