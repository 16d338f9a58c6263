//! `policy.toml`: what it may say, and nothing else.

use super::{
    callers::{CallerEntry, Match},
    case::Person,
    hours::Hours,
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

/// Most people that a policy may ask for.
pub const QUORUM_MAX: u32 = 20;
/// Shortest time for answers, in seconds: what one needs to look at a release and answer. It is also the
/// time where the policy says nothing, so that a lost line never gives more (attack 49).
pub const ANSWERS_MIN: u64 = 10 * 60;
/// Longest time for answers, in seconds.
const ANSWERS_MAX: u64 = 24 * 60 * 60;

/// Shortest life of a minted token, in seconds: what an upload needs. It is also its life where the policy
/// says nothing, so that a lost line never gives more (attack 49).
pub const MINT_MIN: u64 = 2 * 60;
/// Longest life of a minted token, in seconds.
const MINT_MAX: u64 = 15 * 60;

/// Shortest time for a veto, in seconds.
const VETO_MIN: u64 = 60;
/// Longest time for a veto, in seconds.
const VETO_MAX: u64 = 24 * 60 * 60;

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

/// What becomes of a request that nobody announced; the later, the stricter.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Unsolicited {
    /// People are rung for it.
    #[default]
    Ring,
    /// It waits silently until somebody looks.
    Queue,
    /// It is refused.
    Refuse,
}

/// What becomes of secrets in the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scan {
    /// A secret that was seen is a no; nothing waits until somebody has looked. It is so where the policy says
    /// nothing: a secret that is published cannot be taken back.
    #[default]
    IfSeen,
    /// A secret is a no, and so is a file that nobody could look into.
    Block,
    /// People are shown what was seen.
    Show,
    /// Nobody looks into the files for that.
    Off,
}

/// What versions may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionForm {
    /// Semantic versions; a pre-release only under a tag other than `latest`; newer than what is there.
    SemverRelease,
    /// Semantic versions; newer than what is there.
    Semver,
    /// Python versions (PEP 440); newer than what is there.
    Pep440,
    /// Any text that is not there yet.
    Any,
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
            entries,
        })
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
            matches: matches(table.required("match")?)?,
            callers: callers(table.required("callers")?)?,
            approvers: table.required("approvers")?.names()?,
            quorum: quorum(table.required("quorum")?)?,
            factors: table.required("factors")?.distinct(factor)?,
            requester_may_approve: table
                .optional("requester_may_approve")
                .map_or(Ok(false), Value::flag)?,
            version: version(table.required("version")?)?,
            tags: table
                .optional("tags")
                .map_or(Ok(Vec::new()), Value::names)?,
            mode: table.optional("mode").map_or(Ok(Mode::Forward), mode)?,
            mint_seconds: table
                .optional("mint_life")
                .map_or(Ok(MINT_MIN), mint_life)?,
            answers_seconds: table.optional("answers").map_or(Ok(ANSWERS_MIN), answers)?,
            commit_counts: table.optional("intent").map_or(Ok(false), intent)?,
            veto_seconds: together(table, "veto")?.map_or(Ok(0), veto)?,
            hours: together(table, "hours")?.map_or(Ok(None), hours)?,
            unsolicited: together(table, "unsolicited")?
                .map_or(Ok(Unsolicited::Ring), unsolicited)?,
            scan: together(table, "scan")?.map_or(Ok(Scan::IfSeen), scan)?,
            unchanged: together(table, "require_unchanged")?
                .filter(|v| !v.is("nothing"))
                .map_or(Ok(Vec::new()), |v| v.distinct(unchanged))?,
            risky_factors: risky_factors(table)?,
        })
    }
}

fn matches(value: Value<'_, '_>) -> Result<Vec<PackagePattern>, PolicyError> {
    value
        .distinct(|v| Ok(v.text()?.to_owned()))?
        .iter()
        .map(|text| {
            PackagePattern::parse(text)
                .map_err(|why| value.error(format!("\"{}\" {why}", proto::text::harmless(text))))
        })
        .collect()
}

fn callers(value: Value<'_, '_>) -> Result<Vec<CallerEntry>, PolicyError> {
    value
        .list()?
        .into_iter()
        .map(|v| CallerEntry::read(v.table()?))
        .collect()
}

fn quorum(value: Value<'_, '_>) -> Result<u32, PolicyError> {
    u32::try_from(value.number()?)
        .ok()
        .filter(|n| (1..=QUORUM_MAX).contains(n))
        .ok_or_else(|| value.error(format!("must be 1 to {QUORUM_MAX}")))
}

fn factor(value: Value<'_, '_>) -> Result<Factor, PolicyError> {
    match value.text()? {
        "device" => Ok(Factor::Device),
        "totp" => Ok(Factor::Totp),
        "passkey" => Ok(Factor::Passkey),
        _ => Err(value.error("must be \"passkey\", \"device\" or \"totp\"")),
    }
}

fn scan(value: Value<'_, '_>) -> Result<Scan, PolicyError> {
    match value.text()? {
        "block" => Ok(Scan::Block),
        "show" => Ok(Scan::Show),
        "off" => Ok(Scan::Off),
        _ => Err(value.error("must be \"block\", \"show\" or \"off\"")),
    }
}

/// A kind of finding that says what changed; a secret is a matter of `scan`.
fn unchanged(value: Value<'_, '_>) -> Result<FindingKind, PolicyError> {
    let kind = value.text()?.parse().ok();
    kind.filter(|k| *k != FindingKind::Secrets).ok_or_else(|| {
        let kinds = FindingKind::ALL
            .iter()
            .filter(|k| **k != FindingKind::Secrets);
        let names: Vec<_> = kinds.map(|k| format!("\"{k}\"")).collect();
        value.error(format!("must be one of {}", names.join(", ")))
    })
}

/// Some of `factors`: people are asked by those, and some of them do not count.
fn risky_factors(table: Table<'_, '_>) -> Result<Option<Vec<Factor>>, PolicyError> {
    let value = together(table, "risky_factors")?.filter(|v| !v.is("any"));
    let Some(value) = value else {
        return Ok(None);
    };
    let all = table.required("factors")?.distinct(factor)?;
    let risky = value.distinct(factor)?;
    if risky.iter().all(|f| all.contains(f)) {
        Ok(Some(risky))
    } else {
        Err(value.error("must be some of `factors`"))
    }
}

fn version(value: Value<'_, '_>) -> Result<VersionForm, PolicyError> {
    match value.text()? {
        "semver-release" => Ok(VersionForm::SemverRelease),
        "semver" => Ok(VersionForm::Semver),
        "any" => Ok(VersionForm::Any),
        "pep440" => Ok(VersionForm::Pep440),
        _ => Err(value.error("must be \"semver-release\", \"semver\", \"pep440\" or \"any\"")),
    }
}

fn mode(value: Value<'_, '_>) -> Result<Mode, PolicyError> {
    match value.text()? {
        "forward" => Ok(Mode::Forward),
        "deposit" => Ok(Mode::Deposit),
        "reveal" => Ok(Mode::Reveal),
        "mint" => Ok(Mode::Mint),
        _ => Err(value.error("must be \"forward\", \"deposit\", \"mint\" or \"reveal\"")),
    }
}

/// Keys whose absence is the weaker choice: who writes one of a group writes all of it, so that a line that is
/// lost is an error and never a weaker policy (attack 49). Beside each what says that nothing is demanded.
const TOGETHER: [[(&str, &str); 3]; 2] = [
    [
        ("veto", "none"),
        ("hours", "always"),
        ("unsolicited", "ring"),
    ],
    [
        ("scan", "show"),
        ("require_unchanged", "nothing"),
        ("risky_factors", "any"),
    ],
];

fn together<'t, 'a>(table: Table<'t, 'a>, key: &str) -> Result<Option<Value<'t, 'a>>, PolicyError> {
    let value = table.optional(key);
    let own = |group: &&[(&str, &str); 3]| group.iter().any(|(k, _)| *k == key);
    let group = TOGETHER.iter().find(own).into_iter().flatten();
    let other = group.clone().find(|(k, _)| table.optional(k).is_some());
    if let (None, Some((other, _))) = (value, other) {
        let none = group.clone().find(|(k, _)| *k == key);
        let none = none.map_or("", |(_, none)| none);
        return Err(table.error(
            key,
            format!("is missing beside `{other}`; write {key} = \"{none}\" if that is meant"),
        ));
    }
    Ok(value)
}

/// `10m`, or `none`.
fn veto(value: Value<'_, '_>) -> Result<u64, PolicyError> {
    match value.text()? {
        "none" => Ok(0),
        text => seconds(text)
            .filter(|s| (VETO_MIN..=VETO_MAX).contains(s))
            .ok_or_else(|| value.error("must be \"1m\" to \"24h\", like \"10m\", or \"none\"")),
    }
}

/// One window, several, or `always`.
fn hours(value: Value<'_, '_>) -> Result<Option<Hours>, PolicyError> {
    let windows = value.list_or_one()?;
    let windows = windows.into_iter().map(Value::text);
    match windows.collect::<Result<Vec<_>, _>>()?.as_slice() {
        ["always"] => Ok(None),
        windows => Hours::parse(windows)
            .map(Some)
            .map_err(|why| value.error(why)),
    }
}

fn unsolicited(value: Value<'_, '_>) -> Result<Unsolicited, PolicyError> {
    match value.text()? {
        "ring" => Ok(Unsolicited::Ring),
        "queue" => Ok(Unsolicited::Queue),
        "refuse" => Ok(Unsolicited::Refuse),
        _ => Err(value.error("must be \"ring\", \"queue\" or \"refuse\"")),
    }
}

/// `commit`; absence asks for the files' digests.
fn intent(value: Value<'_, '_>) -> Result<bool, PolicyError> {
    match value.text()? {
        "commit" => Ok(true),
        "files" => Ok(false),
        _ => Err(value.error("must be \"files\" (the default) or \"commit\"")),
    }
}

/// `30m` or `24h`.
fn answers(value: Value<'_, '_>) -> Result<u64, PolicyError> {
    seconds(value.text()?)
        .filter(|s| (ANSWERS_MIN..=ANSWERS_MAX).contains(s))
        .ok_or_else(|| value.error("must be \"10m\" to \"24h\", like \"30m\""))
}

/// `5m`.
fn mint_life(value: Value<'_, '_>) -> Result<u64, PolicyError> {
    seconds(value.text()?)
        .filter(|s| (MINT_MIN..=MINT_MAX).contains(s))
        .ok_or_else(|| value.error("must be \"2m\" to \"15m\", like \"5m\""))
}

fn seconds(text: &str) -> Option<u64> {
    let number = |digits: &str, unit: u64| {
        let plain = digits.bytes().all(|b| b.is_ascii_digit());
        digits
            .parse::<u64>()
            .ok()
            .filter(|_| plain)?
            .checked_mul(unit)
    };
    text.strip_suffix('m')
        .and_then(|n| number(n, 60))
        .or_else(|| text.strip_suffix('h').and_then(|n| number(n, 3600)))
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
