//! What the keys of a `[[package]]` may say.

use super::{
    callers::CallerEntry,
    hours::Hours,
    pattern::PackagePattern,
    read::{PolicyError, Table, Value},
};
use proto::{answer::Factor, api::Mode, card::FindingKind};

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

pub(super) fn matches(value: Value<'_, '_>) -> Result<Vec<PackagePattern>, PolicyError> {
    value
        .distinct(|v| Ok(v.text()?.to_owned()))?
        .iter()
        .map(|text| {
            PackagePattern::parse(text)
                .map_err(|why| value.error(format!("\"{}\" {why}", proto::text::harmless(text))))
        })
        .collect()
}

pub(super) fn callers(value: Value<'_, '_>) -> Result<Vec<CallerEntry>, PolicyError> {
    value
        .list()?
        .into_iter()
        .map(|v| CallerEntry::read(v.table()?))
        .collect()
}

pub(super) fn quorum(value: Value<'_, '_>) -> Result<u32, PolicyError> {
    u32::try_from(value.number()?)
        .ok()
        .filter(|n| (1..=QUORUM_MAX).contains(n))
        .ok_or_else(|| value.error(format!("must be 1 to {QUORUM_MAX}")))
}

pub(super) fn factor(value: Value<'_, '_>) -> Result<Factor, PolicyError> {
    match value.text()? {
        "device" => Ok(Factor::Device),
        "totp" => Ok(Factor::Totp),
        "passkey" => Ok(Factor::Passkey),
        _ => Err(value.error("must be \"passkey\", \"device\" or \"totp\"")),
    }
}

pub(super) fn scan(value: Value<'_, '_>) -> Result<Scan, PolicyError> {
    match value.text()? {
        "block" => Ok(Scan::Block),
        "show" => Ok(Scan::Show),
        "off" => Ok(Scan::Off),
        _ => Err(value.error("must be \"block\", \"show\" or \"off\"")),
    }
}

/// A kind of finding that says what changed; a secret is a matter of `scan`.
pub(super) fn unchanged(value: Value<'_, '_>) -> Result<FindingKind, PolicyError> {
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
pub(super) fn risky_factors(table: Table<'_, '_>) -> Result<Option<Vec<Factor>>, PolicyError> {
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

pub(super) fn version(value: Value<'_, '_>) -> Result<VersionForm, PolicyError> {
    match value.text()? {
        "semver-release" => Ok(VersionForm::SemverRelease),
        "semver" => Ok(VersionForm::Semver),
        "any" => Ok(VersionForm::Any),
        "pep440" => Ok(VersionForm::Pep440),
        _ => Err(value.error("must be \"semver-release\", \"semver\", \"pep440\" or \"any\"")),
    }
}

pub(super) fn mode(value: Value<'_, '_>) -> Result<Mode, PolicyError> {
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

pub(super) fn together<'t, 'a>(
    table: Table<'t, 'a>,
    key: &str,
) -> Result<Option<Value<'t, 'a>>, PolicyError> {
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
pub(super) fn veto(value: Value<'_, '_>) -> Result<u64, PolicyError> {
    match value.text()? {
        "none" => Ok(0),
        text => seconds(text)
            .filter(|s| (VETO_MIN..=VETO_MAX).contains(s))
            .ok_or_else(|| value.error("must be \"1m\" to \"24h\", like \"10m\", or \"none\"")),
    }
}

/// One window, several, or `always`.
pub(super) fn hours(value: Value<'_, '_>) -> Result<Option<Hours>, PolicyError> {
    let windows = value.list_or_one()?;
    let windows = windows.into_iter().map(Value::text);
    match windows.collect::<Result<Vec<_>, _>>()?.as_slice() {
        ["always"] => Ok(None),
        windows => Hours::parse(windows)
            .map(Some)
            .map_err(|why| value.error(why)),
    }
}

pub(super) fn unsolicited(value: Value<'_, '_>) -> Result<Unsolicited, PolicyError> {
    match value.text()? {
        "ring" => Ok(Unsolicited::Ring),
        "queue" => Ok(Unsolicited::Queue),
        "refuse" => Ok(Unsolicited::Refuse),
        _ => Err(value.error("must be \"ring\", \"queue\" or \"refuse\"")),
    }
}

/// `commit`; absence asks for the files' digests.
pub(super) fn intent(value: Value<'_, '_>) -> Result<bool, PolicyError> {
    match value.text()? {
        "commit" => Ok(true),
        "files" => Ok(false),
        _ => Err(value.error("must be \"files\" (the default) or \"commit\"")),
    }
}

/// `30m` or `24h`.
pub(super) fn answers(value: Value<'_, '_>) -> Result<u64, PolicyError> {
    seconds(value.text()?)
        .filter(|s| (ANSWERS_MIN..=ANSWERS_MAX).contains(s))
        .ok_or_else(|| value.error("must be \"10m\" to \"24h\", like \"30m\""))
}

/// `5m`.
pub(super) fn mint_life(value: Value<'_, '_>) -> Result<u64, PolicyError> {
    seconds(value.text()?)
        .filter(|s| (MINT_MIN..=MINT_MAX).contains(s))
        .ok_or_else(|| value.error("must be \"2m\" to \"15m\", like \"5m\""))
}

pub(super) fn seconds(text: &str) -> Option<u64> {
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
