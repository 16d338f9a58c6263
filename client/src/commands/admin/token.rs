//! `admin token`: a registry's tokens. The secret comes from a file, standard input or a prompt.

pub(super) mod list;
pub(super) mod places;

use super::{acts, secret};
use crate::{commands::devices::Code, context::Context, fail::Failure};
use proto::{
    act::{Act, TokenPlace, TokenReturn},
    api::{LeftToken, ProofOutcome, TokenLine, TokenName, TokenProof, TokenRevoked},
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
    Rotate(RotateArgs),
    /// Go back to the old version that is kept, where the new one is of no use
    Back(BackArgs),
    /// Which tokens are stored, and how old they are; what is to be rotated comes first
    List(list::ListArgs),
    /// Which old tokens are to be revoked at their registries
    Left,
    /// Say that an old token is revoked at its registry
    Revoked(RevokedArgs),
    /// Say that a stored token is nowhere else any more
    Emptied(places::EmptiedArgs),
    /// Ask the registry whether a token works, without publishing: proved, cannot be proved, or refused
    Check(NameArgs),
    /// Destroy a token
    Remove(RemoveArgs),
}

/// Store a token.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin token add npm '@acme/*' --token-file npm-token.txt --expires 2026-12-24
  pass show npm | countersign admin token rotate npm '@acme/*' --token-file -
  countersign admin token rotate npm '@acme/*' --token-file FILE --ends-old   # the old one was seen

The token is encrypted at the broker and never comes out again. Its registry is asked about it first, without publishing \
anything; one that it refuses is not stored, and what is stored stays. What takes a stored token's place needs a code, and \
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
    /// The token is nowhere else: you looked
    #[arg(long)]
    emptied: bool,
    #[command(flatten)]
    code: Code,
}

/// Store a token's next version.
#[derive(clap::Args)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    secret: SecretArgs,
    /// The old one was seen: it is not kept, whatever is known of the new one
    #[arg(long)]
    ends_old: bool,
}

/// Say that a token is revoked.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin token left                # which, with their prints
  countersign admin token revoked 3f9c2a17    # I revoked it at the registry

The broker has no such token any more and cannot look, so it takes your word and records it. One that is still kept here is \
kept no longer by it, and ends as old ones do: then there is no way back to it, so this asks for a code.")]
pub(crate) struct RevokedArgs {
    /// The token's print, as `countersign admin token left` shows it
    print: String,
    #[command(flatten)]
    code: Code,
}

/// Go back to the old version.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin token list --registry npm      # what is kept, and what is said of the new one
  countersign admin token back npm '@acme/*'

A version is kept where nobody could prove the one that took its place, until that one was accepted once by its registry. \
Look first: one package that is refused may be that package's own affair, and what the new one publishes elsewhere needs no \
way back. The registry is asked about the kept one. It needs a code, and a second admin where there is one. The kept token \
gets the next number; the new one is old from then on, and ends as old ones do.")]
pub(crate) struct BackArgs {
    #[command(flatten)]
    name: NameArgs,
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
        Command::Add(args) => put(context, &args, Stored::First).await,
        Command::Rotate(args) => {
            let done = Stored::Next {
                ends_old: args.ends_old,
            };
            put(context, &args.secret, done).await
        }
        Command::Back(args) => back(context, args).await,
        Command::List(args) => list::run(context, &args).await,
        Command::Left => list::run_left(context).await,
        Command::Revoked(args) => revoked(context, args).await,
        Command::Emptied(args) => places::emptied(context, args).await,
        Command::Check(args) => check(context, args).await,
        Command::Remove(args) => remove(context, args).await,
    }
}

/// What is done with the token that is given.
#[derive(Clone, Copy)]
enum Stored {
    First,
    Next { ends_old: bool },
}

async fn put(context: &Context, args: &SecretArgs, how: Stored) -> Result<(), Failure> {
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
        emptied: args.emptied,
        ends_old: matches!(how, Stored::Next { ends_old: true }),
    };
    let (act, done) = match how {
        Stored::First => (Act::AddToken(place), "stored"),
        Stored::Next { .. } => (Act::RotateToken(place), "rotated"),
    };
    let acted = acts::ask(&device, act, Some(token), &args.code).await?;
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
    let kept = acted.token.as_ref().and_then(kept);
    if let Some(kept) = &kept {
        text = format!("{text}\n{kept}");
    } else if let Stored::Next { ends_old } = how {
        text = format!("{text}\n{}", ending(ends_old));
    }
    for line in acted
        .token
        .iter()
        .flat_map(|stored| places::after(stored, args.token_file.as_deref()))
    {
        text = format!("{text}\n{line}");
    }
    acts::told(context, &acted, &value, &text)
}

/// What is said of an old version that is not kept.
const fn ending(was_seen: bool) -> &'static str {
    if was_seen {
        "The old one was seen: revoke it at the registry now. Here it is destroyed in an hour: countersign admin token left"
    } else {
        "The old one serves what is on its way for an hour and is destroyed then. Revoke it at the registry after that; if it \
         was seen, now;\nwhere the registry lets the broker do it, it is done: countersign admin token left"
    }
}

/// What is said of a new version that nobody could prove.
pub(super) fn kept(new: &TokenLine) -> Option<String> {
    let version = new.fallback?;
    let name = format!("{} '{}'", new.registry, harmless(&new.scope));
    Some(format!(
        "Nobody could prove it, so version {version} is kept, sealed, until this one was accepted once: by a publish, or\n  \
         countersign admin token check {name}\nIf the registry refuses it, look why; then: countersign admin token back \
         {name}\nDo not revoke the kept one at the registry before that. If somebody saw it, revoke it now, and say so:\n  \
         countersign admin token list; countersign admin token revoked PRINT"
    ))
}

pub(crate) const fn word(outcome: ProofOutcome) -> &'static str {
    match outcome {
        ProofOutcome::Proved => "proved",
        ProofOutcome::Unproved => "unproved",
        ProofOutcome::Refused => "refused",
    }
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
            "Make a new one there, then `countersign admin token rotate`. Where the old one is still kept (`countersign admin \
             token list`): `countersign admin token back`.",
        )),
    }
}

/// What the registry said of a token, in a line.
fn said(proof: &TokenProof) -> String {
    let account = proof.account.as_deref();
    let account = account.map_or(String::new(), |a| format!(" ({})", harmless(a)));
    let detail = harmless(&proof.detail);
    match proof.outcome {
        ProofOutcome::Proved => format!("proved by the registry{account}: {detail}"),
        ProofOutcome::Unproved => {
            format!("cannot be proved without publishing{account}: {detail}")
        }
        ProofOutcome::Refused => format!("refused by the registry{account}: {detail}"),
    }
}

async fn back(context: &Context, args: BackArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let NameArgs { registry, scope } = args.name;
    let named = format!("{registry}:{}", harmless(&scope));
    let stored = list::tokens(&device).await?;
    let own = |t: &&TokenLine| t.registry == registry && t.scope == scope && t.is_present();
    let present = stored.iter().rfind(own);
    let Some((present, kept)) = present.and_then(|t| Some((t.version, t.fallback?))) else {
        return Err(Failure::new(
            Exit::Failed,
            format!("No old version of {named} is kept."),
            "Make a new token at the registry, then `countersign admin token rotate`.",
        ));
    };
    let act = Act::TokenBack(TokenReturn {
        registry: registry.clone(),
        scope: scope.clone(),
        kept,
        present,
    });
    let acted = acts::ask(&device, act, None, &args.code).await?;
    let version = acted.token.as_ref().map(|t| t.version);
    let number = version.map_or_else(String::new, |v| format!(", as version {v}"));
    let text = format!(
        "the token of version {kept} of {named} is the present one again{number}; version {present} is destroyed in an hour"
    );
    let value = serde_json::json!({
        "registry": registry, "scope": scope, "version": version, "kept": kept, "ended": present,
    });
    acts::told(context, &acted, &value, &text)
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
        "removed the token of {}:{}; revoke it at the registry too (countersign admin token left)",
        name.registry,
        harmless(&name.scope)
    );
    acts::told(context, &acted, &serde_json::json!(name), &text)
}

async fn revoked(context: &Context, args: RevokedArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let path = "/v1/admin/tokens/revoked";
    // The broker wants a code where it is one that is kept.
    let told = args.code.proving(async |factor| {
        let of = TokenRevoked {
            fingerprint: args.print.clone(),
            factor: factor.unwrap_or_default(),
        };
        device.broker.post(path, &of, device.proof()).await
    });
    let all: Vec<LeftToken> = told.await?;
    let names: Vec<_> = all
        .iter()
        .map(|l| {
            format!(
                "{}:{} version {}",
                l.registry,
                harmless(&l.scope),
                l.version
            )
        })
        .collect();
    let text = format!("recorded: {} is revoked at the registry", names.join(", "));
    context.out.result(&serde_json::json!(all), &text)
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
    fn dates() {
        assert_eq!(date("1970-01-02").unwrap(), UnixTime(2 * 86_400 - 1));
        assert_eq!(date("1970-01-01T00:01:00Z").unwrap(), UnixTime(60));
        assert!(date("tomorrow").is_err());
    }
}
