//! `admin`: tokens, people, client keys, registries, freezes, the seal, the log. Every call is signed by the
//! admin's own device.

use crate::{context::Context, edge, fail::Failure, http::Proof, out::span, profile::ask_secret};
use proto::{
    api::{
        BrokerStatus, FreezeRequest, FreezeStatus, InviteRequest, Invited, PersonLine, TokenLine,
    },
    ids::{GroupName, PersonId},
    text::harmless,
};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

mod audit;
mod client_key;
mod custody;
mod doctor;
mod registry;
mod stages;
mod token;
mod watch;

/// What an admin does.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Registry tokens: they go in and never come out
    #[command(subcommand)]
    Token(token::Command),
    /// Invite a person; prints the invite once
    Invite(InviteArgs),
    /// Who is enrolled
    People,
    /// Remove a person and all devices
    RemovePerson {
        /// Who
        person: PersonId,
    },
    /// Keys for CI without OIDC
    #[command(subcommand)]
    ClientKey(client_key::Command),
    /// Registries: where packages go
    #[command(subcommand)]
    Registry(registry::Command),
    /// What registries keep aside, unpublished; foreign stages are marked
    #[command(after_help = "\
Examples:
  countersign admin stages
  countersign admin stages --json   # `request` is absent where this broker did not make it

Your own login at the registry rejects one: npm stage reject <STAGE>.")]
    Stages,
    /// Stop every release of a package at once
    Freeze(FreezeArgs),
    /// Ask to thaw a package; two admins must
    Thaw(FreezeArgs),
    /// What registries serve, against what was published through the broker
    Watch(watch::WatchArgs),
    /// Other ways to publish a package than through the broker
    Doctor(doctor::DoctorArgs),
    /// Seal the vault: nothing can be released until it is unsealed
    Seal,
    /// Unseal the vault: with its passphrase, or hand in your share
    Unseal(custody::UnsealArgs),
    /// Make the key that your shares of the vault are encrypted to
    ShareKey(custody::ShareKeyArgs),
    /// What opens the vault: look at it, change it, confirm a change
    UnsealMethod(custody::MethodArgs),
    /// Trust the broker's clock again after it jumped; your own clock must agree with it
    TrustClock,
    /// The audit log
    #[command(subcommand)]
    Audit(audit::Command),
    /// The broker, its tokens and people at a glance
    Status,
}

/// Invite a person.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  countersign admin invite alice --group release --actor github:12345

Hand the invite over on a way that you trust; it works once, for 24 hours.")]
pub(crate) struct InviteArgs {
    /// Who: lower-case letters, digits and hyphens
    person: PersonId,
    /// A group that the person joins; may be given again
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<GroupName>,
    /// Make the person an admin
    #[arg(long)]
    admin: bool,
    /// The person's account at a CI issuer, like github:12345 (numeric id): who asks may not approve
    #[arg(long = "actor", value_name = "ISSUER:ID")]
    actors: Vec<String>,
    /// Write the invite to this file (mode 0600) instead of printing it
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Freeze or thaw.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  countersign admin freeze npm:@acme/left --reason 'token leak, see the incident'")]
pub(crate) struct FreezeArgs {
    /// REGISTRY:PACKAGE
    package: String,
    /// Why
    #[arg(long, default_value = "")]
    reason: String,
}

/// Runs an admin command.
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Token(command) => token::run(context, command).await,
        Command::Invite(args) => invite(context, args).await,
        Command::People => people(context).await,
        Command::RemovePerson { person } => remove_person(context, &person).await,
        Command::ClientKey(command) => client_key::run(context, command).await,
        Command::Registry(command) => registry::run(context, &command).await,
        Command::Stages => stages::run(context).await,
        Command::Freeze(args) => freeze(context, args, "/v1/admin/freeze").await,
        Command::Thaw(args) => freeze(context, args, "/v1/admin/thaw").await,
        Command::Watch(args) => watch::run(context, args).await,
        Command::Doctor(args) => doctor::run(context, args).await,
        Command::Seal => seal(context).await,
        Command::Unseal(args) => custody::unseal(context, &args).await,
        Command::ShareKey(args) => custody::share_key(context, &args).await,
        Command::UnsealMethod(args) => custody::method(context, args).await,
        Command::TrustClock => trust_clock(context).await,
        Command::Audit(command) => audit::run(context, command).await,
        Command::Status => status(context).await,
    }
}

async fn invite(context: &Context, args: InviteArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let request = InviteRequest {
        person: args.person.clone(),
        groups: args.groups,
        admin: args.admin,
        actors: args.actors,
    };
    let invited: Invited = device
        .broker
        .post("/v1/admin/invites", &request, device.proof())
        .await?;
    let until = invited.expires.rfc3339();
    if let Some(path) = &args.out {
        edge::write_private(path, format!("{}\n", invited.invite).as_bytes())?;
        let value =
            serde_json::json!({"person": args.person, "file": path, "expires": invited.expires});
        let text = format!(
            "invite for {} in {}, works until {until}",
            args.person,
            path.display()
        );
        return context.out.result(&value, &text);
    }
    context.out.note(&format!(
        "invite for {}, shown once, works until {until}:",
        args.person
    ));
    let text = format!("{}\n{}", harmless(&invited.invite), harmless(&invited.link));
    context.out.result(&invited, &text)
}

async fn people(context: &Context) -> Result<(), Failure> {
    let device = context.device()?;
    let people: Vec<PersonLine> = device
        .broker
        .get("/v1/admin/people", device.proof())
        .await?;
    if context.out.json {
        return context.out.json(&people);
    }
    people.iter().try_for_each(|p| {
        let groups = p
            .groups
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",");
        let admin = if p.admin { "  admin" } else { "" };
        let actors = harmless(&p.actors.join(","));
        let line = format!(
            "{:<20} {} device(s)  [{groups}]{admin}  {actors}",
            p.person, p.devices
        );
        context.out.line(line.trim_end())
    })
}

async fn remove_person(context: &Context, person: &PersonId) -> Result<(), Failure> {
    let device = context.device()?;
    let path = format!("/v1/admin/people/{person}");
    device.broker.delete(&path, device.proof()).await?;
    let value = serde_json::json!({"removed": person});
    context
        .out
        .result(&value, &format!("removed {person} and all devices"))?;
    // Whoever went may have held a share of the vault. That the person is gone is true all the same.
    match custody::now(&device).await {
        Ok(held) => custody::warnings(&held)
            .iter()
            .for_each(|warning| context.out.note(warning)),
        Err(_) => context.out.note(
            "Whether enough people can still open the vault could not be asked: countersign admin unseal-method",
        ),
    }
    Ok(())
}

async fn freeze(context: &Context, args: FreezeArgs, path: &str) -> Result<(), Failure> {
    check_package(&args.package)?;
    let device = context.device()?;
    let request = FreezeRequest {
        package: args.package,
        reason: args.reason,
    };
    let status: FreezeStatus = device.broker.post(path, &request, device.proof()).await?;
    let package = harmless(&status.package);
    if path.ends_with("/freeze") && (!status.frozen || status.package != request.package) {
        return Err(Failure::refused(
            format!("The broker did not freeze {}.", harmless(&request.package)),
            "Run the command again, and tell the broker's admin.",
        ));
    }
    let text = match (status.frozen, status.thawing.len()) {
        (false, _) => format!("{package} is not frozen"),
        (true, 0) => format!("{package} is frozen"),
        (true, n) => format!("{package} is frozen; {n} of 2 people asked for the thaw"),
    };
    context.out.result(&status, &text)
}

/// `npm:@acme/left`
fn check_package(text: &str) -> Result<(), Failure> {
    let good = text.split_once(':').is_some_and(|(registry, name)| {
        registry.parse::<proto::ids::RegistryId>().is_ok()
            && name.parse::<proto::ids::PackageName>().is_ok()
    });
    if good {
        Ok(())
    } else {
        Err(Failure::usage(
            format!("'{}' is not REGISTRY:PACKAGE.", harmless(text)),
            "Write it like npm:@acme/left.",
        ))
    }
}

async fn seal(context: &Context) -> Result<(), Failure> {
    let device = context.device()?;
    let empty = serde_json::json!({});
    device
        .broker
        .post_only("/v1/admin/seal", Some(&empty), device.proof())
        .await?;
    context
        .out
        .result(&serde_json::json!({"sealed": true}), "sealed")
}

async fn trust_clock(context: &Context) -> Result<(), Failure> {
    let device = context.device()?;
    let empty = serde_json::json!({});
    let call = device
        .broker
        .post_only("/v1/admin/clock", Some(&empty), device.proof());
    call.await?;
    let value = serde_json::json!({"clock": "trusted"});
    context
        .out
        .result(&value, "the broker trusts its clock again")
}

async fn status(context: &Context) -> Result<(), Failure> {
    let broker = context.broker()?;
    let status: BrokerStatus = broker.get("/v1/status", Proof::Nobody).await?;
    if status.sealed {
        return sealed(context, broker.base(), &status);
    }
    let device = context.device()?;
    let tokens: Vec<TokenLine> = device
        .broker
        .get("/v1/admin/tokens", device.proof())
        .await?;
    let people: Vec<PersonLine> = device
        .broker
        .get("/v1/admin/people", device.proof())
        .await?;
    let watch: proto::watch::WatchReport =
        device.broker.get("/v1/admin/watch", device.proof()).await?;
    let alarms = watch::alarms(&watch);
    let held = custody::now(&device).await?;
    let clock = edge::now().0.abs_diff(status.time.0);
    if context.out.json {
        let value = serde_json::json!({
            "broker": status, "tokens": tokens, "people": people, "clock_difference": clock,
            "alarms": alarms, "custody": custody::told(&held),
        });
        return context.out.json(&value);
    }
    context
        .out
        .line(&super::status::describe(device.broker.base(), &status))?;
    for alarm in &alarms {
        let text = format!("! ALARM, frozen: {alarm} (countersign admin watch)");
        context.out.line(&context.out.warning(&text))?;
    }
    for warning in custody::warnings(&held) {
        context.out.line(&context.out.warning(&warning))?;
    }
    let admins = people.iter().filter(|p| p.admin).count();
    context
        .out
        .line(&format!("  people    {} ({admins} admins)", people.len()))?;
    context.out.line(&format!("  tokens    {}", tokens.len()))?;
    if clock > 30 {
        let line = format!(
            "! this machine's clock and the broker's differ by {}",
            span(clock)
        );
        context.out.line(&context.out.warning(&line))?;
    }
    if admins < 2 {
        context.out.line(
            &context
                .out
                .warning("! one admin alone cannot thaw a package: invite a second one"),
        )?;
    }
    tokens.iter().try_for_each(|t| token::warnings(context, t))
}

/// People and tokens cannot be read while the vault is sealed. What is known is shown, and the exit
/// code is that of `countersign status`.
fn sealed(context: &Context, base: &str, status: &BrokerStatus) -> Result<(), Failure> {
    let clock = edge::now().0.abs_diff(status.time.0);
    if context.out.json {
        let value = serde_json::json!({"broker": status, "clock_difference": clock});
        context.out.json(&value)?;
    } else {
        let text = super::status::describe(base, status);
        context.out.line(&text)?;
        context.out.line(
            "  people    cannot be read while sealed\n  tokens    cannot be read while sealed\n\
             works now:  status, admin status, admin freeze, admin seal, admin unseal\n\
             stands still:  requests, answers, releases, and every other admin command; nothing is lost",
        )?;
    }
    Err(super::status::is_sealed())
}

/// A secret by file, standard input or prompt; never by argument, which every process could read.
fn secret(path: Option<&Path>, prompt: &str, flag: &str) -> Result<Zeroizing<String>, Failure> {
    match path {
        Some(path) => edge::read_secret(path),
        None => ask_secret(
            prompt,
            false,
            &format!("Give {flag} FILE, or {flag} - for standard input."),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_with_their_registry() {
        assert!(check_package("npm:@acme/left").is_ok());
        for bad in ["@acme/left", "NPM:left", "npm:", "npm:a b"] {
            assert_eq!(check_package(bad).unwrap_err().exit as u8, 2, "{bad}");
        }
    }
}
