//! How a package is usually released: from which workflow, branch, event, runner and environment, and started by
//! whom. What is done for the first time is told.
//!
//! If an attacker writes here: the row is authenticated, so he cannot make his own ways usual. Without the row nothing
//! is told, as before a package's first release; a damaged row is told.

use super::{inspect::source, judge::is_as_opened, state::Record, trace};
use crate::{
    desk::{Desk, Fault},
    store::{Batch, Table},
};
use proto::{
    card::shown,
    request::{CallerFacts, Item},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// `registry:package`: how it was released; authenticated.
const HABITS: Table = Table("habit");
/// Ways of one kind that are remembered, and workflows; further ones are told as new each time.
const WAYS_MAX: usize = 50;
/// Attempts while others of the same package end.
const RACES_MAX: usize = 5;

/// A verified claim that says how.
struct Claim {
    name: &'static str,
    /// What its value is called for people.
    with: &'static str,
    /// What is said where there is none.
    without: &'static str,
}

/// The gravest first.
const CLAIMS: [Claim; 7] = [
    Claim {
        name: "workflow",
        with: "from the workflow",
        without: "by a job that names no workflow",
    },
    Claim {
        name: "entry_workflow",
        with: "by a job that was called from the workflow",
        without: "by a workflow that no other one called",
    },
    Claim {
        name: "environment",
        with: "in the environment",
        without: "without an environment",
    },
    Claim {
        name: "ref",
        with: "from",
        without: "from no branch and no tag",
    },
    Claim {
        name: "event",
        with: "by the event",
        without: "by a job that names no event",
    },
    Claim {
        name: "runner",
        with: "on a runner of the kind",
        without: "by a job that names no kind of runner",
    },
    Claim {
        name: "actor",
        with: "by a job that was started by",
        without: "by a job that names nobody who started it",
    },
];

/// How a package was released.
#[derive(Default, PartialEq, Eq, Clone, Serialize, Deserialize)]
struct Habits {
    /// Values by claim, of all releases; nothing stands for a release without the claim.
    ways: BTreeMap<String, BTreeSet<Option<String>>>,
    /// By name: each file that released it, as it was when it was last seen.
    #[serde(default)]
    workflows: BTreeMap<String, Steps>,
}

/// The file with a job's steps.
struct Workflow {
    /// Its name, as the caller's facts have it.
    name: String,
    steps: Steps,
}

/// What is known of a workflow's file.
#[derive(Default, PartialEq, Eq, Clone, Serialize, Deserialize)]
struct Steps {
    /// The commit that it ran at, where it lies in another repository: in the job's own each release has another.
    commit: Option<String>,
    /// Its digest in the source, if the job handed that in.
    digest: Option<String>,
}

impl Workflow {
    fn of(caller: &CallerFacts, in_source: Option<String>) -> Option<Self> {
        let name = caller.claims.get("workflow")?;
        let own = name.starts_with('.');
        let commit = caller.claims.get("job_workflow_sha").filter(|_| !own);
        let steps = Steps {
            commit: commit.cloned(),
            digest: in_source.filter(|_| own),
        };
        let name = name.clone();
        Some(Self { name, steps })
    }

    /// What of it is not as it was when it was last seen. A file of another name is told as a first time.
    fn unlike(&self, habits: &Habits) -> Option<String> {
        let last = habits.workflows.get(&self.name)?;
        let name = shown(&self.name);
        if let Some(before) = &last.commit {
            return match &self.steps.commit {
                Some(now) if now == before => None,
                Some(now) => Some(format!(
                    "the workflow {name} ran at another commit than in its last release: {now}"
                )),
                None => Some(format!(
                    "whether the workflow {name} changed is not known: this job does not say at which commit it ran"
                )),
            };
        }
        // Where nothing was known of it, nothing is lost.
        let before = last.digest.as_ref()?;
        match &self.steps.digest {
            Some(now) if now == before => None,
            Some(_) => Some(format!(
                "the workflow {name} changed since its last release with a source, by the source as the job handed it in"
            )),
            None => Some(format!(
                "whether the workflow {name} changed is not known: it was in the source of a release before, and is \
                 in none that this job handed in"
            )),
        }
    }
}

impl Habits {
    /// Takes in one more release. Again changes nothing, and what is not known this time is not forgotten.
    fn learn(&mut self, caller: &CallerFacts, workflow: Option<&Workflow>) {
        for (claim, value) in ways(caller) {
            let all = self.ways.entry(claim.name.to_owned()).or_default();
            if all.len() < WAYS_MAX {
                all.insert(value);
            }
        }
        let Some(Workflow { name, steps }) = workflow else {
            return;
        };
        if self.workflows.len() < WAYS_MAX || self.workflows.contains_key(name) {
            let last = self.workflows.entry(name.clone()).or_default();
            last.commit = steps.commit.clone().or_else(|| last.commit.take());
            last.digest = steps.digest.clone().or_else(|| last.digest.take());
        }
    }

    /// Whether a release had such a value, or none. A claim that was in no release was absent from all.
    fn knows(&self, claim: &Claim, value: Option<&String>) -> bool {
        match self.ways.get(claim.name) {
            None => value.is_none(),
            Some(all) => all.iter().any(|known| known.as_ref() == value),
        }
    }
}

/// What of a request was never so in a release of its packages before; nothing where none is known.
pub(super) fn firsts(desk: &Desk, record: &Record) -> Result<Vec<String>, Fault> {
    let workflow = workflow(desk, record)?;
    let mut all = Vec::new();
    let mut damaged = Vec::new();
    let packages = packages(record);
    for package in &packages {
        match desk.authentic_row::<Habits>(HABITS, package.as_bytes()) {
            Ok(Some(row)) => all.push((package.as_str(), row.value)),
            Ok(None) => {}
            Err(Fault::Damaged(_)) => damaged.push(package.as_str()),
            Err(other) => return Err(other),
        }
    }
    let mut lines = unusual(&all, &record.facts.caller, workflow.as_ref());
    if !damaged.is_empty() {
        let names = first_of(&damaged);
        let line = format!("how {names} is usually released is not known: its row is damaged");
        lines.insert(0, line);
    }
    Ok(lines)
}

/// One line for each thing that is not as usual, for all packages of a batch that it is true of; the gravest first.
fn unusual(
    all: &[(&str, Habits)],
    caller: &CallerFacts,
    workflow: Option<&Workflow>,
) -> Vec<String> {
    let changed = all
        .iter()
        .filter_map(|(_, habits)| workflow?.unlike(habits));
    // A line for what changed, and one for what is not known: of each file's name there is one.
    let changed: BTreeSet<String> = changed.collect();
    let mut lines: Vec<_> = changed.into_iter().collect();
    for (claim, value) in ways(caller) {
        let new = all.iter().filter(|(_, h)| !h.knows(claim, value.as_ref()));
        let packages: Vec<_> = new.map(|(package, _)| *package).collect();
        if packages.is_empty() {
            continue;
        }
        let how = match value {
            Some(value) => format!("{} {}", claim.with, shown(&value)),
            None => claim.without.to_owned(),
        };
        lines.push(format!(
            "the first release of {} {how}",
            first_of(&packages)
        ));
    }
    lines
}

/// The first of some packages, and how many more there are.
fn first_of(packages: &[&str]) -> String {
    match packages {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first, more @ ..] => format!("{first} and of {} more", more.len()),
    }
}

/// The file with the steps of a request's job. Where the row about its source is damaged, nothing is known of that.
fn workflow(desk: &Desk, record: &Record) -> Result<Option<Workflow>, Fault> {
    let id = record.facts.id;
    let in_source = match source::workflow(desk, id) {
        Err(Fault::Damaged(what)) => {
            tracing::error!(%id, what, "ALARM: what a request's source was is not believed");
            None
        }
        other => other?,
    };
    Ok(Workflow::of(&record.facts.caller, in_source))
}

fn packages(record: &Record) -> BTreeSet<String> {
    record.facts.items.iter().map(Item::package_key).collect()
}

/// Remembers how a release was made, once it is out. Again changes nothing, so a crash loses nothing. The row alone does
/// not say that it is out: whoever writes it could make a request of his own one that was published.
pub(super) async fn learn(desk: &Desk, record: &Record, now: UnixTime) -> Result<(), Fault> {
    if !is_as_opened(desk, record)? {
        tracing::error!(id = %record.facts.id, "ALARM: a request is not as it was opened; nothing is learnt from it");
        return Ok(());
    }
    if !trace::any_left(desk, &record.facts.items)? {
        tracing::info!(id = %record.facts.id, "nothing of this request left here: nothing is learnt from it");
        return Ok(());
    }
    let workflow = workflow(desk, record)?;
    for package in packages(record) {
        for _ in 0..RACES_MAX {
            match learn_one(desk, &package, &record.facts.caller, workflow.as_ref(), now).await {
                Err(Fault::Conflict(..)) => {}
                // Nobody's publish waits for a row that somebody else has written.
                Err(Fault::Damaged(what)) => {
                    tracing::error!(%package, what, "ALARM: how it is released is not believed");
                    break;
                }
                other => {
                    other?;
                    break;
                }
            }
        }
    }
    Ok(())
}

async fn learn_one(
    desk: &Desk,
    package: &str,
    caller: &CallerFacts,
    workflow: Option<&Workflow>,
    now: UnixTime,
) -> Result<(), Fault> {
    let key = package.as_bytes();
    let row = desk.authentic_row::<Habits>(HABITS, key)?;
    let version = row.as_ref().map(|r| r.version);
    let known = row.map(|r| r.value).unwrap_or_default();
    let mut habits = known.clone();
    habits.learn(caller, workflow);
    if habits == known {
        return Ok(());
    }
    let value = desk.authentic(HABITS, key, &habits)?;
    let batch = Batch::new().put(HABITS, key, version, value);
    desk.commit(batch, &[], now).await.map(drop)
}

/// How a job releases: each claim, and its value if it has one. Each release has a tag of its own, so all tags are
/// one; and a workflow that started itself was called from none.
fn ways(caller: &CallerFacts) -> impl Iterator<Item = (&'static Claim, Option<String>)> + '_ {
    let workflow = caller.claims.get("workflow");
    CLAIMS.iter().map(move |claim| {
        let value = caller.claims.get(claim.name);
        let value = match claim.name {
            "ref" if value.is_some_and(|v| v.starts_with("refs/tags/")) => Some("a tag".to_owned()),
            "entry_workflow" if value == workflow => None,
            _ => value.cloned(),
        };
        (claim, value)
    })
}

#[cfg(test)]
#[path = "habits_tests.rs"]
mod tests;
