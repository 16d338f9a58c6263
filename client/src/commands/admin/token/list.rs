//! `admin token list`, `left`: the stored tokens and what is to be done about them, however many there are.

use super::word;
use crate::{
    context::{Context, Device},
    edge,
    fail::Failure,
};
use proto::{
    api::{LeftToken, ProofOutcome, Rotation, TokenLine, TokenProof},
    ids::RegistryId,
    text::harmless,
    time::UnixTime,
};

/// Lines that are shown without `--all`; what is to be rotated is shown whatever it is.
const SHOWN: usize = 40;
/// Warnings that a glance has room for.
const WARNINGS: usize = 10;
/// Columns of the table.
const COLUMNS: usize = 9;

/// List tokens.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin token list
  countersign admin token list --due                 # only what is to be rotated, or not settled
  countersign admin token list --not-emptied         # of which nobody said that they are nowhere else
  countersign admin token list --registry npm '@acme/*'
  countersign admin token list --registry npm @acme/left   # the tokens that may publish it, the first one does
  countersign admin token list --all --json

What is to be rotated comes first. Of many tokens with nothing to be done 40 are shown; --all shows the rest, and --json \
is always whole.")]
pub(crate) struct ListArgs {
    /// A package, or the beginning of scopes with a `*` behind
    scope: Option<String>,
    /// Only this registry's
    #[arg(long)]
    registry: Option<RegistryId>,
    /// Only those that are to be rotated
    #[arg(long)]
    due: bool,
    /// Only those of which nobody said that they are nowhere else
    #[arg(long)]
    not_emptied: bool,
    /// However many there are
    #[arg(long)]
    all: bool,
}

pub(super) async fn tokens(device: &Device) -> Result<Vec<TokenLine>, Failure> {
    device.broker.get("/v1/admin/tokens", device.proof()).await
}

/// What is to be revoked at registries.
pub(crate) async fn left(device: &Device) -> Result<Vec<LeftToken>, Failure> {
    let path = "/v1/admin/tokens/left";
    device.broker.get(path, device.proof()).await
}

/// `countersign admin token list`
pub(super) async fn run(context: &Context, args: &ListArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let stored = tokens(&device).await?;
    let all = stored.len();
    let tokens = chosen(stored, args);
    if context.out.json {
        return context.out.json(&tokens);
    }
    let left = left(&device).await?;
    let now = edge::now();
    let shown = if args.all {
        tokens.len()
    } else {
        first(&tokens)
    };
    for line in table(tokens.get(..shown).unwrap_or_default(), now) {
        context.out.line(&line)?;
    }
    if shown < tokens.len() {
        context.out.line(&format!(
            "… and {} more with nothing to be done soon: --all, --registry, or a package",
            tokens.len() - shown
        ))?;
    }
    if let Some(text) = to_revoke(left.len()) {
        context.out.line(&context.out.warning(&text))?;
    }
    context.out.line(&summary(&tokens, all))
}

/// `countersign admin token left`
pub(super) async fn run_left(context: &Context) -> Result<(), Failure> {
    let left = left(&context.device()?).await?;
    if context.out.json {
        return context.out.json(&left);
    }
    let rows: Vec<[String; 5]> = left
        .iter()
        .map(|l| {
            [
                name(&l.registry, &l.scope),
                l.version.to_string(),
                harmless(&l.fingerprint),
                day(l.since),
                l.expires.map_or("-".to_owned(), day),
            ]
        })
        .collect();
    if left.is_empty() {
        return context.out.line("no old token is left to revoke");
    }
    let head = ["TOKEN", "VERSION", "PRINT", "DESTROYED", "EXPIRES"].map(str::to_owned);
    for line in columns(head, rows) {
        context.out.line(&line)?;
    }
    context.out.line(
        "These were destroyed here and may still be good: revoke each at its registry, then say so:\n  \
         countersign admin token revoked PRINT",
    )
}

/// What is to be done comes first, however many there are.
fn chosen(mut tokens: Vec<TokenLine>, args: &ListArgs) -> Vec<TokenLine> {
    tokens.retain(|t| {
        args.registry.as_ref().is_none_or(|r| *r == t.registry)
            && (args.scope.as_deref()).is_none_or(|wanted| is_about(&t.scope, wanted))
            && (!args.due || is_due(t))
            && (!args.not_emptied || is_full(t))
    });
    tokens.sort_by(|a, b| {
        let name = |t: &TokenLine| (t.registry.to_string(), t.scope.clone(), t.version);
        (b.rotation.cmp(&a.rotation))
            .then_with(|| is_due(b).cmp(&is_due(a)))
            .then_with(|| b.is_present().cmp(&a.is_present()))
            .then_with(|| name(a).cmp(&name(b)))
    });
    tokens
}

/// Whether a token of this scope is meant: by the beginning of scopes, or by a package that it covers.
fn is_about(scope: &str, wanted: &str) -> bool {
    if scope == wanted {
        return true;
    }
    match (wanted.strip_suffix('*'), scope.strip_suffix('*')) {
        (Some(start), _) => scope.starts_with(start),
        (None, Some(start)) => wanted.starts_with(start),
        (None, None) => false,
    }
}

/// How many lines are shown: all that are to be rotated, and others as far as there is room.
fn first(tokens: &[TokenLine]) -> usize {
    let due = tokens.partition_point(is_due);
    due.max(SHOWN.min(tokens.len()))
}

/// It is to be rotated, or it is not settled whether it stays or the one before.
fn is_due(t: &TokenLine) -> bool {
    t.rotation != Rotation::Later || t.held || t.fallback.is_some()
}

/// Nobody said that it is nowhere else.
fn is_full(t: &TokenLine) -> bool {
    t.emptied.is_none() && t.is_present()
}

fn summary(tokens: &[TokenLine], all: usize) -> String {
    let of = |rotation| tokens.iter().filter(|t| t.rotation == rotation).count();
    let (now, soon) = (of(Rotation::Now), of(Rotation::Soon));
    let full = tokens.iter().filter(|t| is_full(t)).count();
    let chosen = match (all, tokens.len()) {
        (0, _) => return "no token is stored".to_owned(),
        (all, chosen) if all == chosen => format!("{all} stored"),
        (all, chosen) => format!("{chosen} of {all} stored"),
    };
    format!("{chosen}; to rotate: {now} now, {soon} soon; {full} may still lie elsewhere too")
}

/// The tokens, a line each, in columns; nothing where there are none.
fn table(tokens: &[TokenLine], now: UnixTime) -> Vec<String> {
    let head = [
        "TOKEN", "VERSION", "PRINT", "STORED", "AGE", "EXPIRES", "USED", "REGISTRY", "TO DO",
    ]
    .map(str::to_owned);
    let row = |t: &TokenLine| {
        let version = match t.overlap_until {
            Some(_) => format!("{} (old)", t.version),
            None => t.version.to_string(),
        };
        [
            name(&t.registry, &t.scope),
            version,
            harmless(&t.fingerprint),
            day(t.stored),
            format!("{} %", t.age_percent),
            t.expires.map_or("-".to_owned(), day),
            t.used.map_or("never".to_owned(), day),
            t.proof.as_ref().map_or("-", |p| word(p.outcome)).to_owned(),
            to_do(t, now),
        ]
    };
    if tokens.is_empty() {
        return Vec::new();
    }
    columns::<COLUMNS>(head, tokens.iter().map(row).collect())
}

fn columns<const N: usize>(head: [String; N], rows: Vec<[String; N]>) -> Vec<String> {
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|r| r.get(at));
        cells.map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// What is to be done about a token, in a few words.
fn to_do(t: &TokenLine, now: UnixTime) -> String {
    if let Some(at) = t.overlap_until {
        let ends = if t.held {
            "kept until the new one was accepted once".to_owned()
        } else {
            format!("destroyed {}", at.rfc3339())
        };
        return if t.exposed {
            format!("was seen by a job: revoke it at the registry; {ends}")
        } else {
            ends
        };
    }
    let mut all = due(t, now);
    if is_full(t) {
        all.push("empty the old places".to_owned());
    }
    all.join("; ")
}

/// What an admin should do about tokens, in as many lines as a glance has room for.
pub(crate) fn warnings(
    context: &Context,
    tokens: &[TokenLine],
    left: usize,
) -> Result<(), Failure> {
    let now = edge::now();
    let warn = |text: &str| context.out.line(&context.out.warning(text));
    let mut all = Vec::new();
    for t in tokens.iter().filter(|t| t.is_present()) {
        let of = name(&t.registry, &t.scope);
        all.extend(due(t, now).iter().map(|what| format!("! {of} {what}")));
    }
    for line in all.iter().take(WARNINGS) {
        warn(line)?;
    }
    if let Some(more) = all.len().checked_sub(WARNINGS).filter(|more| *more > 0) {
        warn(&format!(
            "! … and {more} more: countersign admin token list --due"
        ))?;
    }
    let full = tokens.iter().filter(|t| is_full(t)).count();
    if full > 0 {
        let count = counted(full, "token");
        warn(&format!(
            "! {count} may still lie elsewhere too: countersign admin token list --not-emptied"
        ))?;
    }
    to_revoke(left).map_or(Ok(()), |text| warn(&text))
}

fn to_revoke(left: usize) -> Option<String> {
    let count = counted(left, "old token");
    let text = format!("! {count} may still be good at the registry: countersign admin token left");
    (left > 0).then_some(text)
}

fn counted(n: usize, what: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {what}{s}")
}

/// Warnings at 75 % and 90 % of the allowed age, before and after the expiry, after a reveal and a refusal, and while an
/// old one is kept.
fn due(t: &TokenLine, now: UnixTime) -> Vec<String> {
    const WEEK: u64 = 7 * 86_400;
    let mut out = Vec::new();
    if t.exposed {
        out.push("was seen by a job: rotate it".to_owned());
    }
    if let Some(proof) = t.proof.as_ref().filter(|_| is_refused(t)) {
        let day = day(proof.at);
        let package = proof.package.as_deref().map(harmless);
        let package = package.map_or_else(String::new, |p| format!(" at {p}"));
        let back = t.fallback.map_or_else(String::new, |version| {
            let name = format!("{} '{}'", t.registry, harmless(&t.scope));
            format!(
                "look why (countersign admin token check {name}); then go back to version {version} \
                 (countersign admin token back {name}), or "
            )
        });
        out.push(format!(
            "was refused by the registry {day}{package}: {back}rotate it"
        ));
    } else if let Some(version) = t.fallback {
        out.push(format!("is not accepted yet; version {version} is kept"));
    }
    match t.expires {
        Some(at) if at <= now => out.push("has expired: rotate it".to_owned()),
        Some(at) if at.since(now) < WEEK => {
            out.push(format!("expires {}: rotate it", day(at)));
        }
        _ => {}
    }
    match t.age_percent {
        0..75 => {}
        75..90 => out.push(format!("has {} % of its allowed age", t.age_percent)),
        _ => out.push(format!(
            "has {} % of its allowed age: rotate it",
            t.age_percent
        )),
    }
    out
}

fn is_refused(t: &TokenLine) -> bool {
    let refused = |p: &TokenProof| p.outcome == ProofOutcome::Refused;
    t.proof.as_ref().is_some_and(refused)
}

fn name(registry: &RegistryId, scope: &str) -> String {
    format!("{registry}:{}", harmless(scope))
}

fn day(at: UnixTime) -> String {
    at.rfc3339().chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(age_percent: u64, exposed: bool, expires: Option<UnixTime>) -> TokenLine {
        let mut line = TokenLine {
            registry: "npm".parse().unwrap(),
            scope: "*".into(),
            version: 1,
            fingerprint: "0".into(),
            stored: UnixTime(0),
            expires,
            used: None,
            overlap_until: None,
            held: false,
            fallback: None,
            age_percent,
            exposed,
            rotation: Rotation::default(),
            proof: None,
            emptied: Some(UnixTime(0)),
        };
        line.rotation = line.rotation(UnixTime(1000));
        line
    }

    fn args() -> ListArgs {
        ListArgs {
            scope: None,
            registry: None,
            due: false,
            not_emptied: false,
            all: false,
        }
    }

    #[test]
    fn columns_and_warnings() {
        let now = UnixTime(1000);
        let shown = table(
            &[
                line(74, false, None),
                line(100, false, Some(UnixTime(86_400))),
            ],
            now,
        );
        let starts = |text: &str| shown.iter().map(|l| l.find(text)).collect::<Vec<_>>();
        assert_eq!(starts("1970-01-01")[1], starts("1970-01-01")[2]);
        assert!(shown[2].contains("1970-01-02") && shown[0].starts_with("TOKEN"));
        assert!(table(&[], now).is_empty());
        assert!(due(&line(74, false, None), now).is_empty());
        assert_eq!(due(&line(75, false, None), now).len(), 1);
        assert_eq!(due(&line(95, true, Some(UnixTime(999))), now).len(), 3);
    }

    #[test]
    fn of_three_hundred_tokens_what_is_to_be_done_is_seen_and_the_rest_is_counted() {
        let many = |n: usize| {
            let mut all: Vec<_> = (0..n).map(|_| line(10, false, None)).collect();
            for (at, t) in all.iter_mut().enumerate() {
                t.scope = format!("@acme/package-with-a-name-{at:03}");
            }
            all
        };
        let mut tokens = many(300);
        for at in (0..300).step_by(50) {
            tokens[at].age_percent = 95;
            tokens[at].rotation = Rotation::Now;
        }
        tokens[7].emptied = None;
        let all = chosen(tokens.clone(), &args());
        assert!(all[..6].iter().all(|t| t.rotation == Rotation::Now));
        assert_eq!(first(&all), SHOWN);
        let lines = table(&all[..SHOWN], UnixTime(1000));
        assert_eq!(lines.len(), SHOWN + 1);
        assert!(lines.iter().all(|l| l.chars().count() < 150), "{lines:#?}");
        assert_eq!(
            summary(&all, 300),
            "300 stored; to rotate: 6 now, 0 soon; 1 may still lie elsewhere too"
        );
        // Everything that is to be rotated is shown, whatever it is.
        for t in &mut tokens {
            t.rotation = Rotation::Soon;
        }
        assert_eq!(first(&chosen(tokens.clone(), &args())), 300);
        assert_eq!(first(&chosen(many(3), &args())), 3);
        let wanted = |scope: &str| {
            let args = ListArgs {
                scope: Some(scope.to_owned()),
                ..args()
            };
            chosen(tokens.clone(), &args).len()
        };
        assert_eq!(wanted("@acme/package-with-a-name-007"), 1);
        assert_eq!(wanted("@acme/package-with-a-name-00*"), 10);
        assert_eq!(wanted("@acme/other"), 0);
        let args = ListArgs {
            not_emptied: true,
            ..args()
        };
        assert_eq!(chosen(tokens.clone(), &args).len(), 1);
        tokens.push(line(0, false, None));
        assert!(is_about("*", "left") && is_about("@acme/*", "@acme/left"));
        assert!(!is_about("@acme/*", "@other/left") && !is_about("@acme/left", "@acme/left2"));
    }
}
