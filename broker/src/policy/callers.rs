//! Who may ask: one entry of `callers`, and how it is matched.

use super::{
    pattern::ClaimPattern,
    read::{PolicyError, Table, Value},
};
use proto::request::CallerFacts;

/// The issuer name of jobs that sign with a client key.
pub const CLIENT_KEY_ISSUER: &str = "client-key";

/// Events in which a stranger's code or timing starts a job that runs with the repository's rights.
/// They are refused unless an entry names them.
const RISKY_EVENTS: [&str; 2] = ["pull_request_target", "workflow_run"];

/// Ids that cannot be registered again by somebody else after a rename or deletion (attack 6), and
/// the keys that an entry with that id must state as well: to leave one out would mean "any".
const IDENTITIES: [(&str, &[&str]); 4] = [
    (
        "repository_id",
        &["owner_id", "workflow", "ref", "event", "environment"],
    ),
    ("project_id", &["ref"]),
    ("subject", &[]),
    ("client_key", &[]),
];

/// Claims that have another name in some tokens.
const OTHER_NAMES: [(&str, &str); 2] =
    [("owner_id", "repository_owner_id"), ("event", "event_name")];

/// One entry of `callers`: the issuer, and claims that must all hold.
#[derive(Clone, Debug)]
pub struct CallerEntry {
    issuer: String,
    claims: Vec<(String, Vec<ClaimPattern>)>,
}

/// How far a caller got with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// All holds.
    Yes,
    /// It is the entry's repository, project, subject or key, but this key does not hold.
    NotThis(String),
    /// It is somebody else.
    Stranger,
}

impl CallerEntry {
    pub(super) fn read(table: Table<'_, '_>) -> Result<Self, PolicyError> {
        let issuer_value = table.required("issuer")?;
        let issuer = issuer_value.text()?.to_owned();
        if issuer.is_empty() || issuer.contains('*') {
            return Err(
                issuer_value.error("must be the exact name of an issuer in the configuration")
            );
        }
        let has = |key: &str| table.optional(key).is_some();
        if (issuer == CLIENT_KEY_ISSUER) != has("client_key") {
            return Err(issuer_value
                .error("`issuer = \"client-key\"` and `client_key = \"<name>\"` go together"));
        }
        let mut identified = false;
        for (identity, companions) in IDENTITIES {
            if has(identity) {
                identified = true;
                // Each key that narrows is demanded, so that a lost line is an error and never
                // a wider policy (attack 49).
                for key in companions {
                    table.optional(key).ok_or_else(|| {
                        table.error(
                            key,
                            format!("is missing; a caller with `{identity}` must name it"),
                        )
                    })?;
                }
            }
        }
        if !identified {
            return Err(issuer_value.key_error(
                "a caller needs one of `repository_id`, `project_id`, `subject` or `client_key`: \
                 names can be registered again by somebody else",
            ));
        }
        let claims = table
            .values()
            .filter(|v| v.key != "issuer")
            .map(|v| Ok((v.key.to_owned(), patterns(v)?)))
            .collect::<Result<_, PolicyError>>()?;
        Ok(Self { issuer, claims })
    }

    /// Whether this caller may ask.
    pub fn matches(&self, caller: &CallerFacts) -> Match {
        if self.issuer != caller.issuer {
            return Match::Stranger;
        }
        let holds = |key: &str, patterns: &[ClaimPattern]| {
            let claim = fact(caller, key);
            patterns.iter().any(|p| p.matches(claim))
        };
        let (ids, others): (Vec<_>, Vec<_>) = self
            .claims
            .iter()
            .partition(|(key, _)| key == "owner_id" || IDENTITIES.iter().any(|(id, _)| id == key));
        // An entry without an id never matches: the parser refuses it, and so does this.
        if ids.is_empty() || !ids.iter().all(|(key, patterns)| holds(key, patterns)) {
            return Match::Stranger;
        }
        if let Some((key, _)) = others.iter().find(|(key, patterns)| !holds(key, patterns)) {
            return Match::NotThis(key.clone());
        }
        // A file of the repository that is called by another workflow runs with that one's inputs and
        // triggers: unless the entry names who may call it, the job's file must have started the run.
        let started_by = caller.claims.get("entry_workflow");
        let names_starter = self.claims.iter().any(|(key, _)| key == "entry_workflow");
        let own_run = started_by.is_none() || started_by == caller.claims.get("workflow");
        if !own_run && !names_starter {
            return Match::NotThis("entry_workflow".to_owned());
        }
        let names_event = self.claims.iter().any(|(key, _)| key == "event");
        let risky = ["event", "event_name"]
            .iter()
            .filter_map(|key| caller.claims.get(*key))
            .any(|event| RISKY_EVENTS.contains(&event.as_str()));
        if risky && !names_event {
            return Match::NotThis("event".to_owned());
        }
        Match::Yes
    }
}

fn patterns(value: Value<'_, '_>) -> Result<Vec<ClaimPattern>, PolicyError> {
    let mut seen: Vec<String> = Vec::new();
    let mut all = Vec::new();
    for one in value.list_or_one()? {
        let text = one.text_or_number()?;
        let pattern = match value.key {
            "environment" if text.is_empty() => Ok(ClaimPattern::absent()),
            "environment" | "ref" => ClaimPattern::with_star(&text),
            _ => ClaimPattern::exact(&text),
        };
        all.push(pattern.map_err(|why| one.error(why))?);
        if seen.contains(&text) {
            return Err(one.error("stands here twice"));
        }
        seen.push(text);
    }
    Ok(all)
}

/// The verified fact that a key of the policy speaks of.
fn fact<'c>(caller: &'c CallerFacts, key: &str) -> Option<&'c str> {
    if key == "subject" || key == "client_key" {
        return Some(&caller.subject);
    }
    let other = OTHER_NAMES
        .iter()
        .find(|(name, _)| *name == key)
        .map(|(_, other)| *other);
    caller
        .claims
        .get(key)
        .or_else(|| caller.claims.get(other?))
        .map(String::as_str)
}
