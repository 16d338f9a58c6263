//! Stopped: an admin ended everything that was open.

use super::{NotFrom, Progress, Record, State, Step};
use crate::audit::{event::Event, reason::DenyCause};
use proto::{api::Mode, time::UnixTime};

impl Record {
    /// What nothing has left of ends. Of what has left in part nothing more leaves: its credential ends now, and what
    /// may be at the registry is read back as ever. What the job itself was given cannot be called back.
    pub fn stop(mut self, now: UnixTime) -> Result<Step, NotFrom> {
        let request = self.facts.id;
        let open = matches!(self.state, State::Pending { .. } | State::Approved { .. });
        if open || self.withheld() || self.is_unused() {
            self.state = State::Denied {
                by: None,
                reason: None,
                cause: DenyCause::Stopped,
            };
            let event = Event::RequestDenied {
                request,
                person: None,
                cause: DenyCause::Stopped,
            };
            return Ok(self.step(vec![event]));
        }
        let forwarded = matches!(self.mode, Mode::Forward | Mode::Deposit);
        match &mut self.state {
            State::Releasing {
                until, progress, ..
            } if forwarded && self.stopped.is_none() => {
                *until = now.min(*until);
                for p in progress.iter_mut().flatten() {
                    if let Progress::Held { hold, .. } = p {
                        hold.until = now.min(hold.until);
                    }
                }
                self.stopped = Some(now);
                Ok(self.step(vec![Event::CredentialEnded { request }]))
            }
            _ => Err(self.not_from()),
        }
    }

    /// Whether the credential is out and nothing was ever sent with it.
    fn is_unused(&self) -> bool {
        let State::Releasing { progress, .. } = &self.state else {
            return false;
        };
        let mut files = progress.iter().flatten();
        files.all(|p| matches!(p, Progress::Waiting { attempt: 0, .. }))
    }
}
