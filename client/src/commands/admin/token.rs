//! `admin token`: a registry's tokens. The secret comes from a file, standard input or a prompt.

use super::{acts, secret};
use crate::{
    commands::devices::Code,
    context::{Context, Device},
    edge,
    fail::Failure,
};
use proto::{
    act::{Act, TokenPlace},
    api::{ProofOutcome, Rotation, TokenLine, TokenName, TokenProof},
    ids::RegistryId,
    problem::Exit,
    text::harmless,
    time::UnixTime,
};
use std::path::PathBuf;

/// What is done with tokens.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Store a new token
    Add(SecretArgs),
    /// Store the next version of a token beside the old one
    Rotate(SecretArgs),
    /// Which tokens are stored, and how old they are; what is to be rotated comes first
    List(ListArgs),
    /// Ask the registry whether a token works, without publishing: proved, cannot be proved, or refused
    Check(NameArgs),
    /// Destroy a token
    Remove(RemoveArgs),
}

/// List tokens.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin token list
  countersign admin token list --due     # only what is to be rotated soon or now
  countersign admin token list --json")]
pub(crate) struct ListArgs {
    /// Only those that are to be rotated
    #[arg(long)]
    due: bool,
}

/// Store a token.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin token add npm '@acme/*' --token-file npm-token.txt --expires 2026-12-24
  pass show npm | countersign admin token rotate npm '@acme/*' --token-file -

The token is encrypted at the broker and never comes out again. Its registry is asked about it first, without publishing
anything; one that it refuses is not stored, and what is stored stays. What takes a stored token's place needs a code, and
a second admin where there is one: countersign admin confirm.")]
pub(crate) struct SecretArgs {
    /// The registry, as the broker's configuration names it
    registry: RegistryId,
    /// What it covers: a package name, or a pattern like @acme/* or *
    scope: String,
    /// A file with the token (`-` is standard input); asked for when absent
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// When the registry lets it expire: 2026-12-24 or 2026-12-24T10:00:00Z
    #[arg(long, value_name = "DATE", value_parser = date)]
    expires: Option<UnixTime>,
    #[command(flatten)]
    code: Code,
}

/// Destroy a token.
#[derive(clap::Args)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    code: Code,
}

/// Name a token.
#[derive(clap::Args)]
pub(crate) struct NameArgs {
    /// The registry
    registry: RegistryId,
    /// What it covers
    scope: String,
}

/// Runs it.
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Add(args) => put(context, &args, Act::AddToken, "stored").await,
        Command::Rotate(args) => put(context, &args, Act::RotateToken, "rotated").await,
        Command::List(args) => list(context, &args).await,
        Command::Check(args) => check(context, args).await,
        Command::Remove(args) => remove(context, args).await,
    }
}

async fn put(
    context: &Context,
    args: &SecretArgs,
    act: fn(TokenPlace) -> Act,
    done: &str,
) -> Result<(), Failure> {
    let token = secret(
        args.token_file.as_deref(),
        "The registry's token",
        "--token-file",
    )?;
    if token.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Failure::usage(
            "The token holds white space.",
            "Give the token alone, on one line.",
        ));
    }
    let device = context.device()?;
    let place = TokenPlace {
        registry: args.registry.clone(),
        scope: args.scope.clone(),
        expires: args.expires,
    };
    let acted = acts::ask(&device, act(place), Some(token), &args.code).await?;
    let word = if acted.done { done } else { "asked" };
    let proof = acted.token.as_ref().and_then(|t| t.proof.as_ref());
    let value = serde_json::json!({
        "registry": args.registry, "scope": args.scope, "done": word, "proof": proof,
    });
    let mut text = format!(
        "{done} the token of {}:{}",
        args.registry,
        harmless(&args.scope)
    );
    if let Some(proof) = proof {
        text = format!("{text}\n{}", said(proof));
    }
    acts::told(context, &acted, &value, &text)
}

async fn tokens(device: &Device) -> Result<Vec<TokenLine>, Failure> {
    device.broker.get("/v1/admin/tokens", device.proof()).await
}

async fn list(context: &Context, args: &ListArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let mut tokens = tokens(&device).await?;
    // What is to be done comes first, however many there are.
    tokens.sort_by(|a, b| {
        let name = |t: &TokenLine| (t.registry.to_string(), t.scope.clone(), t.version);
        (b.rotation.cmp(&a.rotation)).then_with(|| name(a).cmp(&name(b)))
    });
    let all = tokens.len();
    let of = |rotation| tokens.iter().filter(|t| t.rotation == rotation).count();
    let (now, soon) = (of(Rotation::Now), of(Rotation::Soon));
    if args.due {
        tokens.retain(|t| t.rotation != Rotation::Later);
    }
    if context.out.json {
        return context.out.json(&tokens);
    }
    for line in table(&tokens) {
        context.out.line(&line)?;
    }
    for t in &tokens {
        warnings(context, t)?;
    }
    let summary = match all {
        0 => "no token is stored".to_owned(),
        all => format!("{all} stored; to rotate: {now} now, {soon} soon"),
    };
    context.out.line(&summary)
}

/// The tokens, a line each, in columns; nothing where there are none.
fn table(tokens: &[TokenLine]) -> Vec<String> {
    let day = |at: UnixTime| at.rfc3339().chars().take(10).collect::<String>();
    let head = [
        "TOKEN", "VERSION", "PRINT", "STORED", "AGE", "EXPIRES", "USED", "REGISTRY",
    ]
    .map(str::to_owned);
    let row = |t: &TokenLine| {
        let version = match t.overlap_until {
            Some(_) => format!("{} (old)", t.version),
            None => t.version.to_string(),
        };
        [
            format!("{}:{}", t.registry, harmless(&t.scope)),
            version,
            harmless(&t.fingerprint),
            day(t.stored),
            format!("{} %", t.age_percent),
            t.expires.map_or("-".to_owned(), day),
            t.used.map_or("never".to_owned(), day),
            t.proof.as_ref().map_or("-", |p| word(p.outcome)).to_owned(),
        ]
    };
    if tokens.is_empty() {
        return Vec::new();
    }
    let rows: Vec<_> = std::iter::once(head)
        .chain(tokens.iter().map(row))
        .collect();
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|r| r.get(at));
        cells.map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..8).map(width).collect();
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

pub(crate) const fn word(outcome: ProofOutcome) -> &'static str {
    match outcome {
        ProofOutcome::Proved => "proved",
        ProofOutcome::Unproved => "unproved",
        ProofOutcome::Refused => "refused",
    }
}

/// What an admin should do about a token.
pub(crate) fn warnings(context: &Context, t: &TokenLine) -> Result<(), Failure> {
    due(t, edge::now()).iter().try_for_each(|what| {
        let line = format!("! {}:{} {what}", t.registry, harmless(&t.scope));
        context.out.line(&context.out.warning(&line))
    })
}

/// Warnings at 75 % and 90 % of the allowed age, before and after the expiry, and after a reveal.
fn due(t: &TokenLine, now: UnixTime) -> Vec<String> {
    const WEEK: u64 = 7 * 86_400;
    let mut out = Vec::new();
    if t.exposed {
        out.push("was seen by a job: rotate it".to_owned());
    }
    let refused = |p: &&TokenProof| p.outcome == ProofOutcome::Refused;
    if let Some(proof) = t.proof.as_ref().filter(refused) {
        let detail = harmless(&proof.detail);
        out.push(format!("was refused by the registry: {detail}; rotate it"));
    }
    match t.expires {
        Some(at) if at <= now => out.push("has expired: rotate it".to_owned()),
        Some(at) if at.since(now) < WEEK => {
            out.push(format!("expires {}: rotate it", at.rfc3339()));
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

async fn check(context: &Context, args: NameArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let name = TokenName {
        registry: args.registry,
        scope: args.scope,
    };
    let proof: TokenProof = device
        .broker
        .post("/v1/admin/tokens/check", &name, device.proof())
        .await?;
    context.out.result(&proof, &said(&proof))?;
    match proof.outcome {
        ProofOutcome::Proved => Ok(()),
        ProofOutcome::Unproved => Err(Failure::new(
            Exit::Conflict,
            "Whether the token works is not known.",
            "The next publish shows it; it can be rotated all the same.",
        )),
        ProofOutcome::Refused => Err(Failure::new(
            Exit::Failed,
            "The registry does not take the token.",
            "Make a new one there, then `countersign admin token rotate`.",
        )),
    }
}

/// What the registry said of a token, in a line.
fn said(proof: &TokenProof) -> String {
    let account = proof.account.as_deref();
    let account = account.map_or(String::new(), |a| format!(" ({})", harmless(a)));
    let detail = harmless(&proof.detail);
    match proof.outcome {
        ProofOutcome::Proved => format!("proved{account}: the registry: {detail}"),
        ProofOutcome::Unproved => {
            format!("cannot be proved without publishing{account}: the registry: {detail}")
        }
        ProofOutcome::Refused => format!("refused{account}: the registry: {detail}"),
    }
}

async fn remove(context: &Context, args: RemoveArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let name = TokenName {
        registry: args.name.registry,
        scope: args.name.scope,
    };
    let act = Act::RemoveToken(name.clone());
    let acted = acts::ask(&device, act, None, &args.code).await?;
    let text = format!(
        "removed the token of {}:{}; revoke it at the registry too",
        name.registry,
        harmless(&name.scope)
    );
    acts::told(context, &acted, &serde_json::json!(name), &text)
}

/// A day (its end, UTC) or a moment.
fn date(text: &str) -> Result<UnixTime, String> {
    let moment = if text.len() == 10 {
        format!("{text}T23:59:59Z")
    } else {
        text.to_owned()
    };
    let at: jiff::Timestamp = moment
        .parse()
        .map_err(|_| "is no date like 2026-12-24".to_owned())?;
    u64::try_from(at.as_second())
        .map(UnixTime)
        .map_err(|_| "is before 1970".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_warnings() {
        assert_eq!(date("1970-01-02").unwrap(), UnixTime(2 * 86_400 - 1));
        assert_eq!(date("1970-01-01T00:01:00Z").unwrap(), UnixTime(60));
        assert!(date("tomorrow").is_err());
        let line = |age_percent, exposed, expires| TokenLine {
            registry: "npm".parse().unwrap(),
            scope: "*".into(),
            version: 1,
            fingerprint: "0".into(),
            stored: UnixTime(0),
            expires,
            used: None,
            overlap_until: None,
            age_percent,
            exposed,
            rotation: Rotation::default(),
            proof: None,
        };
        let shown = table(&[
            line(74, false, None),
            line(100, false, Some(UnixTime(86_400))),
        ]);
        let starts = |text: &str| shown.iter().map(|l| l.find(text)).collect::<Vec<_>>();
        assert_eq!(starts("1970-01-01")[1], starts("1970-01-01")[2]);
        assert!(shown[2].contains("1970-01-02") && shown[0].starts_with("TOKEN"));
        assert!(table(&[]).is_empty());
        let now = UnixTime(1000);
        assert!(due(&line(74, false, None), now).is_empty());
        assert_eq!(due(&line(75, false, None), now).len(), 1);
        assert_eq!(due(&line(95, true, Some(UnixTime(999))), now).len(), 3);
    }
}
