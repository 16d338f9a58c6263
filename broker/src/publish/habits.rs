//! How a package is usually released: from which workflow, branch, event, runner and environment, and started by
//! whom. What is done for the first time is told.
//!
//! If an attacker writes here: the row is authenticated, so he cannot make his own ways usual. Without the row nothing
//! is told, as before a package's first release.

use super::{inspect::source, state::Record};
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
/// Ways of one kind that are remembered; further ones are told as new each time.
const WAYS_MAX: usize = 50;
/// Lines about one request.
const LINES_MAX: usize = 12;
/// Attempts while others of the same package end.
const RACES_MAX: usize = 5;

/// Verified claims that say how, and what they are called for people.
const CLAIMS: [(&str, &str); 6] = [
    ("workflow", "from the workflow"),
    ("ref", "from"),
    ("event", "by the event"),
    ("runner", "on a runner of the kind"),
    ("environment", "in the environment"),
    ("actor", "by a job that was started by"),
];

/// How a package was released.
#[derive(Default, PartialEq, Eq, Clone, Serialize, Deserialize)]
struct Habits {
    /// Values by claim, of all releases.
    ways: BTreeMap<String, BTreeSet<String>>,
    /// The file that released it last.
    #[serde(default)]
    workflow: Option<Workflow>,
}

/// The file with a job's steps.
#[derive(PartialEq, Eq, Clone, Serialize, Deserialize)]
struct Workflow {
    /// Its name, as the caller's facts have it.
    name: String,
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
        Some(Self {
            name: name.clone(),
            commit: commit.cloned(),
            digest: in_source.filter(|_| own),
        })
    }

    /// What of it is not as it was at the last release. A file of another name is told as a first time.
    fn unlike(&self, last: &Self) -> Option<String> {
        if self.name != last.name || self == last {
            return None;
        }
        let name = shown(&self.name);
        match (&self.commit, &self.digest) {
            (Some(commit), _) => Some(format!(
                "the workflow {name} ran at another commit than in the last release: {commit}"
            )),
            (None, Some(_)) if last.digest.is_some() => Some(format!(
                "the workflow {name} changed since the last release, by the source as the job handed it in"
            )),
            // Nothing was known of it, and nothing is lost.
            (None, Some(_)) => None,
            (None, None) => Some(format!(
                "whether the workflow {name} changed is not known: it was in the source of the last release, \
                 and is in none that this job handed in"
            )),
        }
    }
}

/// What of a request was never so in a release of its packages before; nothing where none is known.
pub(super) fn firsts(desk: &Desk, record: &Record) -> Result<Vec<String>, Fault> {
    let workflow = source::workflow(desk, record.facts.id)?;
    let workflow = Workflow::of(&record.facts.caller, workflow);
    // One line for all packages of a batch that it is true of.
    let mut lines = BTreeMap::<String, usize>::new();
    let packages = packages(record);
    for package in &packages {
        let Some(row) = desk.authentic_row::<Habits>(HABITS, package.as_bytes())? else {
            continue;
        };
        let habits = row.value;
        for (claim, words, value) in ways(&record.facts.caller) {
            let known = habits.ways.get(claim);
            if !known.is_some_and(|all| all.contains(&value)) {
                let line = format!("the first release of {package} {words} {}", shown(&value));
                *lines.entry(line).or_default() += 1;
            }
        }
        let both = workflow.as_ref().zip(habits.workflow.as_ref());
        if let Some(line) = both.and_then(|(now, last)| now.unlike(last)) {
            *lines.entry(line).or_default() += 1;
        }
    }
    let more = lines.len().saturating_sub(LINES_MAX);
    let mut out: Vec<_> = lines.into_keys().take(LINES_MAX).collect();
    if more > 0 {
        out.push(format!("and {more} more that were never so before"));
    }
    Ok(out)
}

fn packages(record: &Record) -> BTreeSet<String> {
    record.facts.items.iter().map(Item::package_key).collect()
}

/// Remembers how a release was made, once it is out. Again changes nothing, so a crash loses nothing.
pub(super) async fn learn(desk: &Desk, record: &Record, now: UnixTime) -> Result<(), Fault> {
    if desk.vault.is_sealed() {
        return Ok(());
    }
    let workflow = source::workflow(desk, record.facts.id)?;
    let workflow = Workflow::of(&record.facts.caller, workflow);
    for package in packages(record) {
        for _ in 0..RACES_MAX {
            match learn_one(desk, &package, &record.facts.caller, workflow.as_ref(), now).await {
                Err(Fault::Conflict(..)) => {}
                // Nobody's publish waits for a row that somebody else has written.
                Err(Fault::Damaged(what)) => {
                    tracing::error!(%package, what, "how it is released is not believed");
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
    for (claim, _, value) in ways(caller) {
        let all = habits.ways.entry(claim.to_owned()).or_default();
        if all.len() < WAYS_MAX {
            all.insert(value);
        }
    }
    habits.workflow = workflow.cloned();
    if habits == known {
        return Ok(());
    }
    let value = desk.authentic(HABITS, key, &habits)?;
    let batch = match version {
        None => Batch::new().create(HABITS, key, value),
        Some(version) => Batch::new().replace(HABITS, key, version, value),
    };
    desk.commit(batch, &[], now).await.map(drop)
}

/// How a job releases. Each release has a tag of its own, so all tags are one.
fn ways(caller: &CallerFacts) -> impl Iterator<Item = (&'static str, &'static str, String)> + '_ {
    CLAIMS.into_iter().filter_map(|(claim, words)| {
        let value = caller.claims.get(claim)?;
        let tag = claim == "ref" && value.starts_with("refs/tags/");
        let value = if tag {
            "a tag".to_owned()
        } else {
            value.clone()
        };
        Some((claim, words, value))
    })
}
