//! Who may ask: one entry of `callers`, and how it is matched.

use super::{
    pattern::ClaimPattern,
    read::{PolicyError, Table, Value},
};
use crate::caller::RISKY_EVENTS;
use proto::request::CallerFacts;

/// The issuer name of jobs that sign with a client key.
pub const CLIENT_KEY_ISSUER: &str = "client-key";

/// Ids that cannot be registered again by somebody else after a rename or deletion (attack 6), and
/// the keys that an entry with that id must state as well: to leave one out would mean "any".
const IDENTITIES: [(&str, &[&str]); 7] = [
    // GitHub.
    (
        "repository_id",
        &["owner_id", "workflow", "ref", "event", "environment"],
    ),
    // GitLab.
    (
        "project_id",
        &["namespace_id", "workflow", "ref", "event", "environment"],
    ),
    // CircleCI. The origin tells a fork's build from the project's own.
    (
        "circleci_project_id",
        &["org_id", "pipeline_definition_id", "origin", "ref"],
    ),
    // Buildkite.
    ("pipeline_id", &["organization_id", "ref", "event", "step"]),
    // Kubernetes. The UID is of one service account in one namespace: nothing narrows it further.
    ("service_account_uid", &[]),
    ("subject", &[]),
    ("client_key", &[]),
];

/// Claims that have another name in some tokens.
const OTHER_NAMES: [(&str, &str); 2] =
    [("owner_id", "repository_owner_id"), ("event", "event_name")];

/// Who owns what the id names; a part of the identity.
const OWNERS: [&str; 4] = ["owner_id", "namespace_id", "org_id", "organization_id"];

/// Claims that say which commit or ref of the job's workflow file ran.
const PINS: [&str; 2] = ["job_workflow_sha", "job_workflow_ref"];

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
                "a caller needs one of `repository_id`, `project_id`, `circleci_project_id`, \
                 `pipeline_id`, `service_account_uid`, `subject` or `client_key`: names can be \
                 registered again by somebody else",
            ));
        }
        if let Some(workflow) = table.optional("workflow") {
            let pinned = PINS.iter().any(|key| has(key));
            for one in workflow.list_or_one()? {
                // Whoever calls a file of another repository chooses its commit, and the commits of
                // every fork can be chosen: without a pin its steps could be anybody's (attack 7).
                let foreign = one.text_or_number()?.contains("/.github/workflows/");
                if foreign && !pinned {
                    return Err(one.error(
                        "is another repository's file; pin it with `job_workflow_sha` or \
                         `job_workflow_ref`",
                    ));
                }
            }
        }
        let claims = table
            .values()
            .filter(|v| v.key != "issuer")
            .map(|v| Ok((v.key.to_owned(), patterns(v)?)))
            .collect::<Result<_, PolicyError>>()?;
        Ok(Self { issuer, claims })
    }

    /// In words: the issuer, and what must hold.
    pub fn words(&self) -> String {
        let claims = self.claims.iter().map(|(key, patterns)| {
            let all: Vec<_> = patterns.iter().map(ClaimPattern::as_str).collect();
            format!("{key} {}", all.join(" or "))
        });
        let claims: Vec<_> = claims.collect();
        format!("{} ({})", self.issuer, claims.join(", "))
    }

    /// Whether everybody whom this entry admits is admitted by the other one too. A yes is certain, a no is not.
    pub fn within(&self, other: &Self) -> bool {
        let of = |entry: &Self, key: &str| {
            let found = entry.claims.iter().find(|(k, _)| k == key);
            found.map(|(_, patterns)| patterns.clone())
        };
        let narrower = |key: &str, theirs: &[ClaimPattern]| {
            let own = of(self, key);
            own.is_some_and(|own| own.iter().all(|o| theirs.iter().any(|t| t.covers(o))))
        };
        // To name these admits more than not to name them.
        let widening = ["event", "entry_workflow"];
        let named = widening
            .iter()
            .all(|key| of(self, key).is_some() == of(other, key).is_some());
        let claims = other.claims.iter();
        self.issuer == other.issuer && named && claims.clone().all(|(k, p)| narrower(k, p))
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
        let (ids, others): (Vec<_>, Vec<_>) = self.claims.iter().partition(|(key, _)| {
            OWNERS.contains(&key.as_str()) || IDENTITIES.iter().any(|(id, _)| id == key)
        });
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
            "environment" | "step" if text.is_empty() => Ok(ClaimPattern::absent()),
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

#[cfg(test)]
mod tests {
    use crate::policy::file::Policy;

    const EXAMPLE: &str = include_str!("../../../deploy/examples/callers.toml");

    #[test]
    fn attack_49_each_key_of_each_cis_example_is_demanded() {
        assert!(Policy::parse(EXAMPLE, "p").is_ok());
        // What only narrows further, what a UID says already, and what matches nothing when it is gone.
        let may_go = [
            "runner",
            "ref_protected",
            "context",
            "namespace",
            "entry_workflow",
        ];
        let entries: Vec<&str> = EXAMPLE.lines().filter(|l| l.contains("{ issuer")).collect();
        assert_eq!(entries.len(), 6);
        for entry in entries {
            let inner = entry
                .trim()
                .trim_start_matches("{ ")
                .trim_end_matches(" },");
            let keys: Vec<&str> = inner.split(", ").collect();
            for key in &keys {
                let name = key.split(" = ").next().unwrap();
                if may_go.contains(&name) {
                    continue;
                }
                let less: Vec<&str> = keys.iter().copied().filter(|k| k != key).collect();
                let document = EXAMPLE.replace(inner, &less.join(", "));
                assert_ne!(document, EXAMPLE);
                assert!(
                    Policy::parse(&document, "p").is_err(),
                    "{entry} without {name}"
                );
            }
        }
    }

    #[test]
    fn attack_07_another_repositorys_file_must_be_pinned() {
        let pin = r#", job_workflow_sha = "6c1f7b0cf1c4f2a79f6b3a3d2f8e7d1a0b9c8d7e""#;
        let without = EXAMPLE.replace(pin, "");
        assert_ne!(without, EXAMPLE);
        let why = Policy::parse(&without, "p").unwrap_err();
        assert_eq!(why.key(), Some("workflow"));
        let by_ref = EXAMPLE.replace(
            pin,
            r#", job_workflow_ref = "acme/ci/.github/workflows/publish.yml@refs/tags/v1""#,
        );
        assert!(Policy::parse(&by_ref, "p").is_ok());
        // One foreign file among local ones is enough.
        let mixed = without.replace(
            r#"workflow = "acme/ci"#,
            r#"workflow = [".github/workflows/release.yml", "acme/ci"#,
        );
        let mixed = mixed.replace(r#"/publish.yml", entry"#, r#"/publish.yml"], entry"#);
        assert_eq!(
            Policy::parse(&mixed, "p").unwrap_err().key(),
            Some("workflow")
        );
    }
}
