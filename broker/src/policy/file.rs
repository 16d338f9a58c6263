//! `policy.toml`: what it may say, and nothing else.

use super::{
    callers::{CallerEntry, Match},
    case::Person,
    hours::Hours,
    keys::{self, Scan, Unsolicited, VersionForm},
    pattern::{Closeness, PackagePattern},
    read::{PolicyError, Source, Table, Value},
    reason::Reason,
};
use proto::{
    answer::Factor,
    api::Mode,
    card::FindingKind,
    digest::{Algorithm, Digest},
    ids::{GroupName, PackageName, RegistryId, VersionText},
    request::CallerFacts,
};

const KEYS: [&str; 18] = [
    "match",
    "callers",
    "approvers",
    "quorum",
    "factors",
    "requester_may_approve",
    "version",
    "tags",
    "mode",
    "mint_life",
    "answers",
    "intent",
    "veto",
    "hours",
    "unsolicited",
    "scan",
    "require_unchanged",
    "risky_factors",
];
/// Keys that are designed but not built: better refused than believed to work.
const LATER: [&str; 2] = ["require", "totp_digits"];

/// The policy in force.
#[derive(Debug)]
pub struct Policy {
    digest: Digest,
    document: String,
    entries: Vec<Entry>,
}

/// One `[[package]]` table.
#[derive(Debug)]
pub struct Entry {
    /// What it is about.
    pub matches: Vec<PackagePattern>,
    /// Who may ask.
    pub callers: Vec<CallerEntry>,
    /// Groups whose members may approve.
    pub approvers: Vec<GroupName>,
    /// How many distinct people must approve.
    pub quorum: u32,
    /// Accepted proofs.
    pub factors: Vec<Factor>,
    /// Whether the person behind the CI actor counts.
    pub requester_may_approve: bool,
    /// What versions may look like.
    pub version: VersionForm,
    /// Allowed tags; none when the key is absent.
    pub tags: Vec<VersionText>,
    /// How a permit is spent.
    pub mode: Mode,
    /// How long a minted token lives, in seconds.
    pub mint_seconds: u64,
    /// How long answers are taken, in seconds.
    pub answers_seconds: u64,
    /// Whether an intent that names the commit, and no digests, counts as an approval.
    pub commit_counts: bool,
    /// Seconds after the approval in which anybody who approves may still deny.
    pub veto_seconds: u64,
    /// When it may be let out; absent: always.
    pub hours: Option<Hours>,
    /// What becomes of a request that nobody announced.
    pub unsolicited: Unsolicited,
    /// What becomes of secrets in the files.
    pub scan: Scan,
    /// What must be as in the version before.
    pub unchanged: Vec<FindingKind>,
    /// Proofs that are accepted where the bytes are a risk; `None`: all of `factors`.
    pub risky_factors: Option<Vec<Factor>>,
}

impl Entry {
    /// Whether this person may approve what the entry is about, asked for by this CI account.
    pub fn may_be_approved_by(&self, person: &Person, actor: Option<&str>) -> bool {
        let in_group = person.groups.iter().any(|g| self.approvers.contains(g));
        let is_requester = actor.is_some_and(|actor| person.actors.iter().any(|a| a == actor));
        in_group && (self.requester_may_approve || !is_requester)
    }

    /// Whether anybody wants to see what is in the files.
    pub fn wants_cards(&self) -> bool {
        self.scan != Scan::Off || self.looks_at_cards()
    }

    /// Whether any of its rules looks at cards.
    pub fn looks_at_cards(&self) -> bool {
        let scans = matches!(self.scan, Scan::IfSeen | Scan::Block);
        scans || !self.unchanged.is_empty() || self.risky_factors.is_some()
    }

    /// Whether one of its callers is this one, in all that the entry says of it.
    pub fn names(&self, caller: &CallerFacts) -> Result<(), Reason> {
        let mut other = None;
        for known in &self.callers {
            match known.matches(caller) {
                Match::Yes => return Ok(()),
                Match::NotThis(key) => other = other.or(Some(key)),
                Match::Stranger => {}
            }
        }
        Err(other.map_or(Reason::Stranger, |key| Reason::OtherJob { key }))
    }
}

impl Policy {
    /// Reads a document; `file` is its name in errors.
    pub fn parse(text: &str, file: &str) -> Result<Self, PolicyError> {
        let source = Source { file, text };
        let document = source.parse()?;
        let root = source.table(document.get_ref(), document.span().start);
        for value in root.values() {
            if value.key != "package" {
                return Err(value.key_error("is unknown; a policy is made of [[package]] tables"));
            }
        }
        let mut entries: Vec<Entry> = Vec::new();
        for package in root.required("package")?.list()? {
            let table = package.table()?;
            let entry = Entry::read(table)?;
            // The same pattern in two entries could never be decided.
            let twice = entry.matches.iter().find(|new| {
                entries
                    .iter()
                    .flat_map(|e| &e.matches)
                    .any(|old| old.as_str() == new.as_str())
            });
            if let Some(pattern) = twice {
                let why = format!(
                    "\"{}\" stands in an earlier [[package]] too",
                    pattern.as_str()
                );
                return Err(table.required("match")?.error(why));
            }
            entries.push(entry);
        }
        Ok(Self {
            digest: Digest::of(Algorithm::Sha256, text.as_bytes()),
            document: text.to_owned(),
            entries,
        })
    }

    /// The policy that allows nothing.
    pub fn nothing() -> Self {
        Self {
            digest: Digest::of(Algorithm::Sha256, b""),
            document: String::new(),
            entries: Vec::new(),
        }
    }

    /// The document's exact text.
    pub fn document(&self) -> &str {
        &self.document
    }

    /// SHA-256 of the document's exact text.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Whether this caller may ask for the package at all. Taken before a body is taken from him; all
    /// the rules are asked when the request is opened.
    pub fn may_ask(
        &self,
        registry: &RegistryId,
        package: &PackageName,
        caller: &CallerFacts,
    ) -> Result<(), Reason> {
        self.entry(registry, package)?.names(caller)
    }

    /// Whether this caller may ask for anything at this registry: taken where he has not said yet for what.
    pub fn may_ask_there(&self, registry: &RegistryId, caller: &CallerFacts) -> Result<(), Reason> {
        let here = |entry: &&Entry| entry.matches.iter().any(|p| p.registry() == registry);
        let mut refused = Reason::NoMatch;
        for entry in self.entries.iter().filter(here) {
            match entry.names(caller) {
                Ok(()) => return Ok(()),
                // The nearest miss is told.
                Err(reason @ Reason::OtherJob { .. }) => refused = reason,
                Err(reason) if refused == Reason::NoMatch => refused = reason,
                Err(_) => {}
            }
        }
        Err(refused)
    }

    /// The entry that decides about a package: the closest match. Two equally close ones are a no,
    /// since whichever was meant to be strict must not be the one that loses.
    pub fn entry(&self, registry: &RegistryId, package: &PackageName) -> Result<&Entry, Reason> {
        let mut best: Option<(Closeness, &Entry)> = None;
        let mut tied = false;
        for entry in &self.entries {
            let close = entry
                .matches
                .iter()
                .filter_map(|p| p.matches(registry, package))
                .max();
            let Some(close) = close else { continue };
            match &best {
                Some((other, _)) if *other > close => {}
                Some((other, _)) if *other == close => tied = true,
                _ => {
                    best = Some((close, entry));
                    tied = false;
                }
            }
        }
        match best {
            Some(_) if tied => Err(Reason::Ambiguous),
            Some((_, entry)) => Ok(entry),
            None => Err(Reason::NoMatch),
        }
    }

    /// All entries, for `countersignd check`.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

impl Entry {
    fn read(table: Table<'_, '_>) -> Result<Self, PolicyError> {
        for value in table.values() {
            if LATER.contains(&value.key) {
                return Err(value.key_error("is not in this version; remove it"));
            }
            if !KEYS.contains(&value.key) {
                return Err(
                    value.key_error(format!("is unknown; the keys are {}", KEYS.join(", ")))
                );
            }
        }
        Ok(Self {
            matches: keys::matches(table.required("match")?)?,
            callers: keys::callers(table.required("callers")?)?,
            approvers: table.required("approvers")?.names()?,
            quorum: keys::quorum(table.required("quorum")?)?,
            factors: table.required("factors")?.distinct(keys::factor)?,
            requester_may_approve: table
                .optional("requester_may_approve")
                .map_or(Ok(false), Value::flag)?,
            version: keys::version(table.required("version")?)?,
            tags: table
                .optional("tags")
                .map_or(Ok(Vec::new()), Value::names)?,
            mode: table
                .optional("mode")
                .map_or(Ok(Mode::Forward), keys::mode)?,
            mint_seconds: table
                .optional("mint_life")
                .map_or(Ok(keys::MINT_MIN), keys::mint_life)?,
            answers_seconds: table
                .optional("answers")
                .map_or(Ok(keys::ANSWERS_MIN), keys::answers)?,
            commit_counts: table.optional("intent").map_or(Ok(false), keys::intent)?,
            veto_seconds: keys::together(table, "veto")?.map_or(Ok(0), keys::veto)?,
            hours: keys::together(table, "hours")?.map_or(Ok(None), keys::hours)?,
            unsolicited: keys::together(table, "unsolicited")?
                .map_or(Ok(Unsolicited::Ring), keys::unsolicited)?,
            scan: keys::together(table, "scan")?.map_or(Ok(Scan::IfSeen), keys::scan)?,
            unchanged: keys::together(table, "require_unchanged")?
                .filter(|v| !v.is("nothing"))
                .map_or(Ok(Vec::new()), |v| {
                    v.on_one_line()?.distinct(keys::unchanged)
                })?,
            risky_factors: keys::risky_factors(table)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::stage_set::EXAMPLE;

    fn error(from: &str, to: &str) -> PolicyError {
        let document = EXAMPLE.replacen(from, to, 1);
        assert_ne!(document, EXAMPLE, "{from}");
        Policy::parse(&document, "policy.toml").expect_err(to)
    }

    #[test]
    fn an_error_names_file_line_column_and_key() {
        let line = EXAMPLE.lines().position(|l| l == "quorum = 2").unwrap() + 1;
        assert_eq!(
            error("quorum = 2", "quorum = 0").to_string(),
            format!("policy.toml:{line}:10: key `quorum`: must be 1 to 20")
        );
        assert_eq!(error("quorum = 2", "quorum = ").line(), line);
        assert_eq!(error("quorum = 2", "quorom = 2").line(), line);
        for from in [
            "match = [\"npm",
            "callers = [\n",
            "approvers",
            "quorum",
            "factors",
            "version = ",
        ] {
            let key = from.split(' ').next().unwrap();
            let renamed = EXAMPLE.replacen(&format!("\n{from}"), &format!("\nx{from}"), 1);
            let unknown = Policy::parse(&renamed, "p").unwrap_err();
            assert_eq!(unknown.key(), Some(format!("x{key}").as_str()));
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (from, to, key) in [
            ("quorum = 2", "quorum = 21", "quorum"),
            ("quorum = 2", "quorum = -1", "quorum"),
            ("quorum = 2", "quorum = \"2\"", "quorum"),
            ("match = [\"npm:@acme/*\"]", "match = []", "match"),
            (
                "match = [\"npm:@acme/*\"]",
                "match = [\"npm:a\", \"npm:a\"]",
                "match",
            ),
            (
                "match = [\"npm:@acme/*\"]",
                "match = [\"pypi:acme-tools\"]",
                "match",
            ),
            (
                "match = [\"npm:@acme/*\"]",
                "match = [\"npm:^a$\"]",
                "match",
            ),
            ("approvers = [\"release\"]", "approvers = []", "approvers"),
            (
                "approvers = [\"release\"]",
                "approvers = [\"Release\"]",
                "approvers",
            ),
            ("factors = [\"totp\"]", "factors = [\"sms\"]", "factors"),
            (
                "factors = [\"totp\"]",
                "factors = [\"totp\", \"totp\"]",
                "factors",
            ),
            ("factors = [\"totp\"]", "factors = []", "factors"),
            ("\"semver-release\"\n", "\"calver\"\n", "version"),
            ("answers = \"1h\"", "answers = \"25h\"", "answers"),
            ("answers = \"1h\"", "answers = \"0m\"", "answers"),
            ("answers = \"1h\"", "answers = \"9m\"", "answers"),
            ("answers = \"1h\"", "answers = \"+5m\"", "answers"),
            ("veto = \"10m\"", "veto = \"30s\"", "veto"),
            ("veto = \"10m\"", "veto = \"25h\"", "veto"),
            ("veto = \"10m\"", "veto = \"0m\"", "veto"),
            ("veto = \"10m\"\n", "", "veto"),
            ("hours = \"Mon-Fri", "hours = \"Mo-Fr", "hours"),
            ("hours = \"Mon-Fri", "hours = [] #", "hours"),
            (
                "hours = \"Mon-Fri",
                "hours = [\"always\", \"always\"] #",
                "hours",
            ),
            ("hours = \"Mon-Fri", "xours = \"Mon-Fri", "xours"),
            ("unsolicited = \"ring\"\n", "", "unsolicited"),
            (
                "unsolicited = \"ring\"",
                "unsolicited = \"never\"",
                "unsolicited",
            ),
            ("intent = \"files\"", "intent = \"tag\"", "intent"),
            ("answers = \"1h\"", "scan = \"maybe\"", "scan"),
            (
                "answers = \"1h\"",
                "scan = \"show\"\nrequire_unchanged = [\"secrets\"]\nrisky_factors = \"any\"",
                "require_unchanged",
            ),
            (
                "answers = \"1h\"",
                "scan = \"show\"\nrequire_unchanged = \"nothing\"\nrisky_factors = [\"device\"]",
                "risky_factors",
            ),
            // Its elements demand something: the line of one could be lost (attack 49).
            (
                "answers = \"1h\"",
                "scan = \"show\"\nrequire_unchanged = [\n\"binaries\",\n\"install-scripts\",\n]\nrisky_factors = \"any\"",
                "require_unchanged",
            ),
            // A line lost of a group is an error, whichever it is (attack 49).
            (
                "answers = \"1h\"",
                "require_unchanged = \"nothing\"\nrisky_factors = \"any\"",
                "scan",
            ),
            (
                "answers = \"1h\"",
                "scan = \"block\"\nrisky_factors = \"any\"",
                "require_unchanged",
            ),
            (
                "answers = \"1h\"",
                "scan = \"block\"\nrequire_unchanged = \"nothing\"",
                "risky_factors",
            ),
            ("answers = \"1h\"", "mode = \"mintage\"", "mode"),
            ("answers = \"1h\"", "mint_life = \"16m\"", "mint_life"),
            ("answers = \"1h\"", "mint_life = \"1m\"", "mint_life"),
            ("tags = [\"latest\", \"next\"]", "tags = []", "tags"),
            ("repository_id = 123, ", "", "issuer"),
            ("owner_id = 45, ", "", "owner_id"),
            ("ref = \"refs/tags/v*\", ", "", "ref"),
            ("event = [\"push\"], ", "", "event"),
            ("event = [\"push\"]", "event = [\"pu*\"]", "event"),
            ("event = [\"push\"]", "event = []", "event"),
            (
                "repository_id = 123",
                "repository_id = \"*\"",
                "repository_id",
            ),
            ("issuer = \"github\"", "issuer = \"client-key\"", "issuer"),
        ] {
            assert_eq!(error(from, to).key(), Some(key), "{to}");
        }
        assert!(
            error("answers = \"1h\"", "require = \"x\"")
                .to_string()
                .contains("not in this version")
        );
        for (document, key) in [
            ("", "package"),
            ("x = 1", "x"),
            ("package = []", "package"),
            ("[[package]]\n", "match"),
        ] {
            assert_eq!(
                Policy::parse(document, "p").unwrap_err().key(),
                Some(key),
                "{document}"
            );
        }
        assert!(Policy::parse("[[package]]\nquorum = 1\nquorum = 2\n", "p").is_err());
    }

    #[test]
    fn the_digest_is_of_the_exact_text() {
        let a = Policy::parse(EXAMPLE, "p").unwrap();
        let b = Policy::parse(&format!("{EXAMPLE}\n"), "p").unwrap();
        assert_ne!(a.digest(), b.digest());
        assert_eq!(
            a.digest(),
            &Digest::of(Algorithm::Sha256, EXAMPLE.as_bytes())
        );
        assert_eq!(a.entries().len(), 3);
    }
}
