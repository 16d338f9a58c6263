//! `admin`: tokens, people, what needs a second admin, client keys, registries, freezes, the seal, the log. Every call is signed by the
//! admin's own device.

use crate::{
    commands::devices::Code, context::Context, edge, fail::Failure, http::Proof, out::span,
    profile::ask_secret,
};
use proto::{
    act::Act,
    api::{
        BrokerStatus, FreezeRequest, FreezeStatus, InviteRequest, PersonLine, ThawRequest,
        TokenLine,
    },
    ids::{GroupName, PersonId},
    stop::EVERYTHING,
    text::harmless,
};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

mod acts;
mod audit;
mod backup;
mod checklist;
mod client_key;
mod custody;
mod doctor;
mod incident;
mod panic;
mod registry;
mod rekey;
mod report;
mod restored;
mod stages;
mod token;
mod watch;
mod witnesses;
mod yank;

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
    /// Give a person other groups, or another role
    ChangePerson(ChangeArgs),
    /// Remove a person and all devices
    RemovePerson(RemoveArgs),
    /// What waits for another admin's word, and policies that allow more
    #[command(after_help = "\
Examples:
  countersign admin acts
  countersign admin acts --json

What changes who may do what needs a second admin, where there is one: countersign admin confirm ID.")]
    Acts,
    /// Agree to what another admin asked for
    Confirm(acts::ConfirmArgs),
    /// Object to what waits, or take back what you asked for
    Veto(acts::VetoArgs),
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
    /// Ask to thaw a package, or everything; two admins must
    Thaw(ThawArgs),
    /// Stop everything at once: freeze all, end all that is open, list what was published, say what to rotate
    Panic(panic::PanicArgs),
    /// Mark a version at its registry as one that nobody should choose, by two admins: deprecate, yank
    Yank(yank::YankArgs),
    /// What was published in a time, by whose wish and word, and what to rotate where; stops nothing
    Incident(incident::IncidentArgs),
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
    /// Give the vault a fresh data key, and write everything anew under it
    Rekey(rekey::RekeyArgs),
    /// Take a backup of the whole broker, encrypted to the recipients of its configuration
    Backup(backup::BackupArgs),
    /// An older database was put back: what was lost, and who agreed to go on with it
    Restored(restored::RestoredArgs),
    /// Trust the broker's clock again after it jumped; your own clock must agree with it
    TrustClock,
    /// The audit log
    #[command(subcommand)]
    Audit(audit::Command),
    /// An access review: who can approve what, tokens, people who do nothing, changes and publishes
    Report(report::Args),
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
    #[command(flatten)]
    code: Code,
}

/// Give a person other groups, or another role. What is given is all that the person has afterwards.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin change-person bob --group release --group docs
  countersign admin change-person bob --group release --admin
  countersign admin change-person bob             # no group, no admin: nothing can be approved by bob")]
pub(crate) struct ChangeArgs {
    /// Who
    person: PersonId,
    /// A group of the person; may be given again
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<GroupName>,
    /// An admin
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    code: Code,
}

/// Remove a person.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  countersign admin remove-person bob

Where there is another admin, that one must agree (countersign admin confirm). An admin whom nobody else can speak \
for is removed after 14 days, if he does not object.")]
pub(crate) struct RemoveArgs {
    /// Who
    person: PersonId,
    #[command(flatten)]
    code: Code,
}

/// Thaw.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin thaw npm:@acme/left
  countersign admin thaw --all                  # after `countersign admin panic`

Two admins ask, each with a code; who was enrolled after the freeze does not count.")]
pub(crate) struct ThawArgs {
    /// REGISTRY:PACKAGE
    #[arg(required_unless_present = "all")]
    package: Option<String>,
    /// Everything that `countersign admin panic` froze; packages that were frozen by themselves stay so
    #[arg(long, conflicts_with = "package")]
    all: bool,
    #[command(flatten)]
    code: Code,
}

/// Freeze.
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
        Command::ChangePerson(args) => change_person(context, args).await,
        Command::RemovePerson(args) => remove_person(context, args).await,
        Command::Acts => acts::list(context).await,
        Command::Confirm(args) => acts::confirm(context, args).await,
        Command::Veto(args) => acts::veto(context, args).await,
        Command::ClientKey(command) => client_key::run(context, command).await,
        Command::Registry(command) => registry::run(context, &command).await,
        Command::Stages => stages::run(context).await,
        Command::Freeze(args) => freeze(context, args).await,
        Command::Thaw(args) => thaw(context, args).await,
        Command::Panic(args) => panic::run(context, args).await,
        Command::Yank(args) => yank::run(context, args).await,
        Command::Incident(args) => incident::run(context, &args).await,
        Command::Watch(args) => watch::run(context, args).await,
        Command::Doctor(args) => doctor::run(context, args).await,
        Command::Seal => seal(context).await,
        Command::Unseal(args) => custody::unseal(context, &args).await,
        Command::ShareKey(args) => custody::share_key(context, &args).await,
        Command::UnsealMethod(args) => custody::method(context, args).await,
        Command::Rekey(args) => rekey::run(context, &args).await,
        Command::Backup(args) => backup::run(context, &args).await,
        Command::Restored(args) => restored::run(context, args).await,
        Command::TrustClock => trust_clock(context).await,
        Command::Audit(command) => audit::run(context, command).await,
        Command::Report(args) => report::run(context, args).await,
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
    let acted = acts::ask(&device, Act::Invite(request), None, &args.code).await?;
    let Some(invited) = &acted.invited else {
        let value = serde_json::json!({"person": args.person});
        return acts::told(context, &acted, &value, "asked for");
    };
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
    context.out.result(invited, &text)
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

async fn change_person(context: &Context, args: ChangeArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let act = Act::ChangePerson {
        person: args.person.clone(),
        groups: args.groups,
        admin: args.admin,
    };
    let done = format!("done: {}", act.object());
    let value = serde_json::json!({"person": args.person});
    let acted = acts::ask(&device, act, None, &args.code).await?;
    acts::told(context, &acted, &value, &done)
}

async fn remove_person(context: &Context, args: RemoveArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let person = args.person;
    let act = Act::RemovePerson {
        person: person.clone(),
    };
    let acted = acts::ask(&device, act, None, &args.code).await?;
    let word = if acted.done { "removed" } else { "to-remove" };
    let value = serde_json::json!({word: person});
    let done = format!("removed {person} and all devices");
    acts::told(context, &acted, &value, &done)?;
    if acted.done {
        custody::told_after_removal(context, &device).await;
    }
    Ok(())
}

async fn thaw(context: &Context, args: ThawArgs) -> Result<(), Failure> {
    let package = match args.package {
        Some(package) => {
            check_package(&package)?;
            package
        }
        None => EVERYTHING.to_owned(),
    };
    let device = context.device()?;
    let request = ThawRequest {
        package,
        factor: args.code.factor()?,
    };
    let path = "/v1/admin/thaw";
    let status: FreezeStatus = device.broker.post(path, &request, device.proof()).await?;
    frozen(context, &status)
}

async fn freeze(context: &Context, args: FreezeArgs) -> Result<(), Failure> {
    check_package(&args.package)?;
    let device = context.device()?;
    let request = FreezeRequest {
        package: args.package,
        reason: args.reason,
    };
    let path = "/v1/admin/freeze";
    let status: FreezeStatus = device.broker.post(path, &request, device.proof()).await?;
    if !status.frozen || status.package != request.package {
        return Err(Failure::refused(
            format!("The broker did not freeze {}.", harmless(&request.package)),
            "Run the command again, and tell the broker's admin.",
        ));
    }
    frozen(context, &status)
}

fn frozen(context: &Context, status: &FreezeStatus) -> Result<(), Failure> {
    let package = match status.package.as_str() {
        EVERYTHING => "everything".to_owned(),
        package => harmless(package),
    };
    let text = match (status.frozen, status.thawing.len()) {
        (false, _) => format!("{package} is not frozen"),
        (true, 0) => format!("{package} is frozen"),
        (true, n) => format!("{package} is frozen; {n} of 2 people asked for the thaw"),
    };
    context.out.result(status, &text)
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
    let left = token::list::left(&device).await?;
    let people: Vec<PersonLine> = device
        .broker
        .get("/v1/admin/people", device.proof())
        .await?;
    let watch: proto::watch::WatchReport =
        device.broker.get("/v1/admin/watch", device.proof()).await?;
    let alarms = watch::alarms(&watch);
    let held = custody::now(&device).await?;
    let waiting = acts::now(&device).await?;
    let backups = backup::known(&device).await?;
    let witnesses = witnesses::known(&device).await?;
    let clock = edge::now().0.abs_diff(status.time.0);
    if context.out.json {
        let value = serde_json::json!({
            "broker": status, "backups": backups, "tokens": tokens, "tokens_to_revoke": left,
            "people": people, "clock_difference": clock,
            "alarms": alarms, "stopped": watch.stopped, "custody": custody::told(&held), "acts": waiting, "witnesses": witnesses,
        });
        return context.out.json(&value);
    }
    context
        .out
        .line(&super::status::describe(device.broker.base(), &status))?;
    watch::standstill(context, &watch)?;
    for alarm in &alarms {
        let text = format!("! ALARM, frozen: {alarm} (countersign admin watch)");
        context.out.line(&context.out.warning(&text))?;
    }
    for warning in custody::warnings(&held)
        .into_iter()
        .chain(acts::warnings(&waiting))
    {
        context.out.line(&context.out.warning(&warning))?;
    }
    backup::line(context, &backups)?;
    witnesses::lines(context, &witnesses)?;
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
    token::list::warnings(context, &tokens, left.len())
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
             works now:  status, admin status, admin freeze, admin panic, admin seal, admin unseal\n\
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
