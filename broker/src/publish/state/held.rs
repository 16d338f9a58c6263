//! Held back: the registry wants its own second factor before it publishes.

use super::{FACTOR_SECONDS, FileAt, Hold, NotFrom, Progress, Record, State, Step};
use crate::{audit::event::Event, registry::StageId};
use proto::time::UnixTime;

impl Record {
    /// The registry keeps the bytes in a stage, or wants its second factor before it takes them. The time
    /// for it begins once: asking again does not make it longer. The credential lives as long, so that a
    /// client that repeats its upload gets the recorded outcome.
    pub fn hold(
        mut self,
        at: FileAt,
        stage: Option<StageId>,
        now: UnixTime,
    ) -> Result<Step, NotFrom> {
        let is_staged = stage.is_some();
        let (hold, new) = match self.open_file(at) {
            Some(
                p @ (Progress::Waiting { attempt: 1.., .. }
                | Progress::Sending { .. }
                | Progress::Settling { .. }),
            ) => {
                let (attempt, before) = (p.attempt(), p.hold().cloned());
                let new =
                    is_staged && before.as_ref().and_then(|h| h.stage.as_ref()) != stage.as_ref();
                let kept = before.as_ref().and_then(|h| h.stage.clone());
                let hold = Hold {
                    until: before.map_or_else(|| now.after(FACTOR_SECONDS), |h| h.until),
                    stage: stage.or(kept),
                };
                *p = Progress::Held {
                    attempt,
                    hold: hold.clone(),
                };
                (hold, new)
            }
            _ => return Err(self.not_from()),
        };
        if let State::Releasing { until, .. } = &mut self.state {
            *until = (*until).max(hold.until);
        }
        if !is_staged {
            // Nothing of the attempt was taken, and whoever is asked for the second factor may publish by himself.
            self = self.with_token(at, None);
        }
        let (item, file) = at.numbers();
        let request = self.facts.id;
        let event = match hold.stage {
            Some(stage) if new => Event::Staged {
                request,
                item,
                file,
                stage: stage.to_string(),
            },
            _ => Event::FactorAsked {
                request,
                item,
                file,
            },
        };
        Ok(self.step(vec![event]))
    }

    /// What the registry kept back is gone, or is not for us: the registry's words, or ours, say why.
    /// Nothing was published.
    pub fn unheld(mut self, at: FileAt, said: String) -> Result<Step, NotFrom> {
        match self.open_file(at) {
            Some(
                p @ (Progress::Waiting { .. }
                | Progress::Sending { .. }
                | Progress::Settling { .. }
                | Progress::Held { .. }),
            ) => {
                *p = Progress::Waiting {
                    attempt: p.attempt(),
                    said: Some(said),
                    hold: None,
                };
            }
            _ => return Err(self.not_from()),
        }
        let event = self.settling(at);
        Ok(self.with_token(at, None).step(vec![event]))
    }

    /// Whether the registry keeps everything back that was sent: nothing is published or on its way, so
    /// people may still say no.
    pub fn withheld(&self) -> bool {
        let State::Releasing { progress, .. } = &self.state else {
            return false;
        };
        let mut files = progress.iter().flatten();
        files.clone().any(|p| matches!(p, Progress::Held { .. }))
            && files.all(|p| {
                matches!(
                    p,
                    Progress::Held { .. } | Progress::Waiting { attempt: 0, .. }
                )
            })
    }

    /// What is held back: the files and their stages, where there are any.
    pub fn held(&self) -> Vec<(FileAt, Hold)> {
        let open = |at| match self.progress(at) {
            Some(Progress::Held { hold, .. }) => Some((at, hold.clone())),
            _ => None,
        };
        self.files().filter_map(open).collect()
    }
}

impl Progress {
    /// What the registry keeps back.
    pub const fn hold(&self) -> Option<&Hold> {
        match self {
            Self::Waiting { hold, .. }
            | Self::Sending { hold, .. }
            | Self::Settling { hold, .. } => hold.as_ref(),
            Self::Held { hold, .. } => Some(hold),
            Self::Published { .. } | Self::Conflict { .. } => None,
        }
    }
}
