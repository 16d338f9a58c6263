//! A request from the job's side: wait for it, collect it, take it back.

use super::{open::Shown, signals::Signals};
use crate::{
    context::Context,
    edge,
    fail::Failure,
    http::{Broker, Proof},
    out::span,
};
use proto::{
    api::{Collected, Mode, SealedRelease, StateName, Status},
    digest::Digest,
    ids::{RegistryId, RequestId},
    problem::Exit,
    request::Item,
    text::harmless,
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// How long the broker may hold one poll, in seconds.
const HOLD: u64 = 25;
/// How often a progress line is printed where lines are not overwritten, in seconds.
const PROGRESS: u64 = 60;
/// Longest pause while the broker is away, in seconds.
const AWAY_PAUSE: u64 = 15;
/// Packages of a request that are named in one line.
const NAMED_IN_A_LINE: usize = 3;
/// How long past the expiry the broker is still asked, in seconds.
const GRACE: u64 = 60;

/// An open request. Written to a file by `request --out`; holds secrets.
#[allow(
    clippy::unsafe_derive_deserialize,
    reason = "the unsafe code is in tokio's select!"
)]
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Session {
    /// The broker's URL.
    pub(crate) broker: String,
    /// The request.
    pub(crate) id: RequestId,
    /// Ticket and job key.
    pub(crate) secrets: Secrets,
    /// What is published.
    pub(crate) items: Vec<Item>,
    /// Where the items' files lie, in the items' and their files' order; empty for a secret that is revealed.
    pub(crate) paths: Vec<PathBuf>,
    /// Whether the files are handed over as they are, whatever their names look like.
    #[serde(default)]
    pub(crate) plain: bool,
    /// Deposit: the credential by which the files are handed over before the approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deposit: Option<String>,
    /// Files that the broker would like to look into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) inspect: Vec<Digest>,
    /// The registry endpoint of each registry.
    pub(crate) registry_url: BTreeMap<RegistryId, String>,
    /// Answers are taken until.
    pub(crate) expires: UnixTime,
    /// Where this is kept on disk, if it is.
    #[serde(skip)]
    pub(crate) kept: Option<PathBuf>,
}

/// A session's secrets.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secrets {
    /// Waits and collects.
    pub(crate) ticket: String,
    /// The ephemeral age identity.
    pub(crate) job_key: String,
}

impl Session {
    /// Prints what a maintainer needs: the match code, the page, the digest.
    pub(crate) fn show(&self, context: &Context, shown: &Shown) -> Result<(), Failure> {
        let out = &context.out;
        if out.json {
            return out.json(shown);
        }
        let code = shown
            .match_code
            .chars()
            .map(String::from)
            .collect::<Vec<_>>()
            .join(" ");
        out.note("");
        match shown.items.as_slice() {
            items if items.len() > NAMED_IN_A_LINE => {
                out.note(&format!(
                    "  Approval is needed for {} packages:",
                    items.len()
                ));
                for item in items {
                    out.note(&format!("    {item}"));
                }
            }
            items => out.note(&format!("  Approval is needed for {}", items.join(", "))),
        }
        out.note("");
        out.note("    +---------------------------+");
        out.note(&format!("    |  match code  {}  |", out.bold_note(&code)));
        out.note("    +---------------------------+");
        out.note("");
        out.note(&format!("  approve  countersign approve {}", shown.id));
        out.note(&format!("  page     {}", shown.page));
        out.note(&format!("  digest   {}", shown.request_digest));
        for item in &self.items {
            for file in &item.files {
                out.note(&format!(
                    "  file     {}  {}",
                    harmless(&file.name),
                    file.digest
                ));
            }
        }
        out.note(&format!("  until    {}", shown.expires.rfc3339()));
        out.note("");
        Ok(())
    }

    /// Waits until the request is approved (or further); what ends it otherwise is a failure.
    pub(crate) async fn wait(
        &self,
        context: &Context,
        broker: &Broker,
        timeout: Option<u64>,
    ) -> Result<Status, Failure> {
        let started = edge::now();
        let mut until = self.expires.after(GRACE);
        let (mut since, mut said, mut away) = (None, started, 1);
        loop {
            let now = edge::now();
            let left = timeout.map_or(HOLD, |t| t.saturating_sub(now.since(started)));
            if left == 0 {
                return Err(Failure::new(
                    Exit::Expired,
                    format!("Nobody answered within {}.", span(now.since(started))),
                    "The request stays open: `countersign wait` goes on waiting.",
                ));
            }
            let status = match self.poll(broker, since, left.min(HOLD)).await {
                Ok(status) => status,
                // A broker that restarts must not end a job: reading the state again is harmless.
                Err(f) if f.is_away() && now < until => {
                    context.out.progress("the broker is away; waiting for it");
                    tokio::time::sleep(Duration::from_secs(away)).await;
                    away = (away * 2).min(AWAY_PAUSE);
                    continue;
                }
                Err(f) => return Err(f),
            };
            away = 1;
            until = status.expires.after(GRACE);
            let changed = since != Some(status.revision);
            if changed && context.out.json {
                context.out.json(&Event {
                    event: "state",
                    status: &status,
                })?;
            }
            // Approved, and held back for a veto or by the policy's hours: it is waited for as before.
            let held_back = status.state == StateName::Approved && status.not_before.is_some();
            if status.state != StateName::Pending && !held_back {
                if context.out.rewrites() {
                    context.out.progress("");
                }
                return ended(status);
            }
            let now = edge::now();
            let line = progress(&status, now);
            if context.out.rewrites() {
                context.out.progress(&line);
            } else if since.is_none() || changed || now.since(said) >= PROGRESS {
                context.out.note(&line);
                said = now;
            }
            since = Some(status.revision);
        }
    }

    /// One poll. A broker that does not hold it is not asked more than once a second.
    pub(crate) async fn poll(
        &self,
        broker: &Broker,
        since: Option<u64>,
        hold: u64,
    ) -> Result<Status, Failure> {
        let path = match since {
            Some(n) => format!("/v1/requests/{}?wait={hold}&since={n}", self.id),
            None => format!("/v1/requests/{}", self.id),
        };
        let started = tokio::time::Instant::now();
        let proof = Proof::Bearer(&self.secrets.ticket);
        let status: Status = broker.long_poll(&path, proof, hold).await?;
        if status.id != self.id {
            return Err(Failure::refused(
                "The broker answers about another request.",
                "Check the broker's address, and tell its admin.",
            ));
        }
        let early = started.elapsed() < Duration::from_secs(1);
        if since == Some(status.revision) && early {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(status)
    }

    /// Collects what was approved, and opens it with the job's key.
    pub(crate) async fn collect(&self, broker: &Broker) -> Result<(Mode, SealedRelease), Failure> {
        let path = format!("/v1/requests/{}/collect", self.id);
        let empty = serde_json::json!({});
        let proof = Proof::Bearer(&self.secrets.ticket);
        // The same blob comes back on every fetch, so a lost reply may be fetched again.
        let collected: Collected = broker.post_again(&path, &empty, proof).await?;
        let bad = |why: &str| {
            Failure::refused(
                format!("What the broker sealed cannot be opened: {why}."),
                "Tell the broker's admin; the credential is of no use to anybody else.",
            )
        };
        let identity: age::x25519::Identity = self
            .secrets
            .job_key
            .parse()
            .map_err(|_| bad("the job's key is damaged"))?;
        let plain = age::decrypt(&identity, collected.sealed.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| bad("it is not sealed to this job's key"))?;
        let release = serde_json::from_slice(&plain).map_err(|_| bad("it is not understood"))?;
        Ok((collected.mode, release))
    }

    /// Takes the request back.
    pub(crate) async fn cancel(&self, broker: &Broker) -> Result<(), Failure> {
        let path = format!("/v1/requests/{}/cancel", self.id);
        let empty = serde_json::json!({});
        let status: Status = broker
            .post(&path, &empty, Proof::Bearer(&self.secrets.ticket))
            .await?;
        if status.id == self.id && status.state == StateName::Cancelled {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Conflict,
            format!("The request is {}, not cancelled.", status.state.text()),
            "Look at it with `countersign wait`.",
        ))
    }

    /// Waits; a job that is stopped meanwhile takes its request back.
    pub(crate) async fn wait_or_cancel(
        &self,
        context: &Context,
        broker: &Broker,
        timeout: Option<u64>,
        signals: &mut Signals,
    ) -> Result<Status, Failure> {
        tokio::select! {
            waited = self.wait(context, broker, timeout) => waited,
            stopped = signals.stopped() => {
                let _ = tokio::time::timeout(Duration::from_secs(3), self.cancel(broker)).await;
                Err(stopped)
            }
        }
    }
}

/// A state as a JSON line.
#[derive(Serialize)]
pub(crate) struct Event<'a> {
    /// `state` or `done`.
    pub(crate) event: &'static str,
    /// The state.
    #[serde(flatten)]
    pub(crate) status: &'a Status,
}

fn progress(status: &Status, now: UnixTime) -> String {
    if let Some(from) = status.not_before {
        let why = status.reason.as_deref().map(harmless).unwrap_or_default();
        return format!("waiting, {} left: {why}", span(from.since(now)));
    }
    format!(
        "waiting: {} of {} approvals, {} left",
        status.approvals,
        status.quorum,
        span(status.expires.since(now))
    )
}

/// A request that went on is fine; one that ended otherwise is a failure with its exit code.
pub(crate) fn ended(status: Status) -> Result<Status, Failure> {
    let reason = status.reason.as_deref().map(harmless).unwrap_or_default();
    let (exit, what, next) = match status.state {
        StateName::Pending
        | StateName::Approved
        | StateName::Releasing
        | StateName::Settling
        | StateName::Confirming
        | StateName::Published => return Ok(status),
        StateName::Denied => (
            Exit::Denied,
            "The request was denied",
            "Talk to whoever denied it before you ask again.",
        ),
        StateName::Expired => (
            Exit::Expired,
            "The request expired",
            "Run the job again when a maintainer can answer.",
        ),
        StateName::Cancelled => (
            Exit::Expired,
            "The request was cancelled",
            "Run the job again.",
        ),
        StateName::Conflict => (
            Exit::Conflict,
            "The registry shows other bytes than the approved ones",
            "Do not use this version: find out who published it.",
        ),
    };
    let what = if reason.is_empty() {
        format!("{what}.")
    } else {
        format!("{what}: {reason}")
    };
    Err(Failure::new(exit, what, next))
}

#[cfg(test)]
mod tests;
