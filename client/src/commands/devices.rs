//! `devices` and `recover`: own devices, and somebody else's lost factors.

use super::enroll;
use crate::{
    context::{Context, Device},
    edge,
    fail::Failure,
    profile::{ask_line, ask_secret},
};
use proto::{
    api::{Devices, Invited, SecondFactor},
    device::DeviceKind,
    factors::{AddTotp, InviteDevice, Recover, Recoveries, RemoveDevice, TotpOffer},
    ids::{DeviceId, PersonId},
    problem,
    text::harmless,
};
use serde_json::json;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Your devices and passkeys. Passkeys are made, named and removed in the web app.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign devices
  countersign devices add                # an invite for your phone or another machine, for 15 minutes
  countersign devices remove dev_…
  countersign devices totp               # another authenticator app, proved by the one before

Changes need the strongest factor that you have: with a passkey, use the Devices page of the web app.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Change>,
}

#[derive(clap::Subcommand)]
enum Change {
    /// Print an invite for a further device of yours
    Add(Code),
    /// Remove a device; what it signed counts no more, from this moment on
    Remove {
        /// Its id (`countersign devices`)
        device: DeviceId,
        #[command(flatten)]
        code: Code,
    },
    /// Set up an authenticator app, in place of the one that you have
    Totp {
        /// Write the new app's otpauth address to this file (mode 0600) instead of drawing it.
        /// That keeps both factors on one machine: whoever takes over this machine has both
        #[arg(long, value_name = "FILE")]
        totp_file: Option<PathBuf>,
        #[command(flatten)]
        code: Code,
    },
}

/// Help a person who lost all devices and factors: two people ask, everybody is told, and after 24 hours one of
/// them makes an invite by which the person enrols anew.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign recover                    # who is about to enrol anew, and who asked for it
  countersign recover ask alice          # two people, one of them an admin
  countersign recover cancel alice       # alice, an admin, or one who asked
  countersign recover invite alice       # 24 hours after the second one asked")]
pub(crate) struct RecoverArgs {
    #[command(subcommand)]
    command: Option<Recovery>,
}

#[derive(clap::Subcommand)]
enum Recovery {
    /// Ask that a person may enrol anew
    Ask(For),
    /// Call it off
    Cancel(For),
    /// Make the invite at its end
    Invite(For),
}

#[derive(clap::Args)]
struct For {
    /// Who lost the factors
    person: PersonId,
    #[command(flatten)]
    code: Code,
}

/// The second factor of a change.
#[derive(clap::Args)]
pub(super) struct Code {
    /// The code that your authenticator shows (asked for when absent)
    #[arg(
        long,
        value_name = "DIGITS",
        env = "COUNTERSIGN_TOTP",
        hide_env_values = true
    )]
    totp: Option<String>,
}

impl Code {
    /// Whether one was given, so that nobody is asked.
    pub(super) const fn given(&self) -> bool {
        self.totp.is_some()
    }

    /// Makes a call with the code where one was given, and where the broker wants one.
    pub(super) async fn proving<T>(
        &self,
        mut call: impl AsyncFnMut(Option<SecondFactor>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.given() {
            return call(Some(self.factor()?)).await;
        }
        match call(None).await {
            Err(Failure {
                code: Some(problem::Code::FactorMissing),
                ..
            }) => call(Some(self.factor()?)).await,
            done => done,
        }
    }

    pub(super) fn factor(&self) -> Result<SecondFactor, Failure> {
        let code = match &self.totp {
            Some(code) => code.trim().to_owned(),
            None => ask_secret(
                "Code of your authenticator",
                false,
                "Give --totp or set COUNTERSIGN_TOTP; with a passkey, use the Devices page of the web app.",
            )?
            .trim()
            .to_owned(),
        };
        Ok(SecondFactor {
            totp: Some(code),
            passkey: None,
        })
    }
}

/// `countersign devices`
pub(crate) async fn devices(context: &Context, args: &Args) -> Result<(), Failure> {
    let device = context.device()?;
    match &args.command {
        None => list(context, &device).await,
        Some(Change::Add(code)) => {
            let asked = InviteDevice {
                factor: code.factor()?,
            };
            let broker = &device.broker;
            let invited = broker.post("/v1/devices/invite", &asked, device.proof());
            show(context, "your further device", &invited.await?)
        }
        Some(Change::Remove { device: gone, code }) => {
            let asked = RemoveDevice {
                device: gone.clone(),
                factor: code.factor()?,
            };
            let broker = &device.broker;
            let done = broker.post("/v1/devices/remove", &asked, device.proof());
            let _: serde_json::Value = done.await?;
            let text = format!("removed {gone}");
            context.out.result(&json!({ "removed": gone }), &text)
        }
        Some(Change::Totp { totp_file, code }) => {
            totp(context, &device, totp_file.as_deref(), code).await
        }
    }
}

/// The new app shows its first code, and the one before proves it.
async fn totp(
    context: &Context,
    device: &Device,
    file: Option<&Path>,
    code: &Code,
) -> Result<(), Failure> {
    let broker = &device.broker;
    let nothing = json!({});
    let offer: TotpOffer = broker
        .post("/v1/totp/offer", &nothing, device.proof())
        .await?;
    let otpauth = Zeroizing::new(offer.otpauth);
    let app = enroll::parse(&otpauth)?;
    let first = if let Some(path) = file {
        edge::write_private(path, format!("{}\n", otpauth.as_str()).as_bytes())?;
        enroll::code(&app).0
    } else {
        enroll::show(context, &otpauth)?;
        let how = "Use --totp-file where nobody can type.";
        ask_line("The code that the new app shows now", how)?
    };
    let asked = AddTotp {
        setup: offer.setup,
        code: first.trim().to_owned(),
        factor: code.factor()?,
    };
    let done = broker.post("/v1/totp", &asked, device.proof());
    let _: serde_json::Value = done.await?;
    let text = "set up; codes of the app before are worth nothing now";
    context.out.result(&json!({ "totp": true }), text)
}

async fn list(context: &Context, device: &Device) -> Result<(), Failure> {
    let list: Devices = device.broker.get("/v1/devices", device.proof()).await?;
    if context.out.json {
        return context.out.json(&list);
    }
    let groups: Vec<_> = list.groups.iter().map(ToString::to_string).collect();
    let admin = if list.admin { ", admin" } else { "" };
    context.out.line(&format!(
        "{}{admin}, groups: {}",
        context.out.bold(list.person.as_str()),
        groups.join(", ")
    ))?;
    for d in &list.devices {
        let this = if d.this { "  (this one)" } else { "" };
        let kind = match d.kind {
            DeviceKind::Terminal => "",
            DeviceKind::Browser => "  in a browser",
        };
        let line = format!(
            "  {}  {}{kind}  since {}{this}",
            d.id,
            harmless(&d.name),
            d.enrolled.rfc3339()
        );
        context.out.line(&line)?;
    }
    for p in &list.passkeys {
        let used = p.last_used.map_or_else(
            || "never used".to_owned(),
            |at| format!("used {}", at.rfc3339()),
        );
        let name = harmless(&p.name);
        let since = p.enrolled.rfc3339();
        let line = format!("  passkey  {name}  since {since}, {used}");
        context.out.line(&line)?;
    }
    if list.totp {
        context.out.line("  authenticator app")?;
    }
    Ok(())
}

/// `countersign recover`
pub(crate) async fn recover(context: &Context, args: &RecoverArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let (what, to) = match &args.command {
        None => {
            let all: Recoveries = device.broker.get("/v1/recoveries", device.proof()).await?;
            return under_way(context, &all);
        }
        Some(Recovery::Ask(to)) => ("ask", to),
        Some(Recovery::Cancel(to)) => ("cancel", to),
        Some(Recovery::Invite(to)) => {
            let asked = Recover {
                person: to.person.clone(),
                factor: to.code.factor()?,
            };
            let broker = &device.broker;
            let invited = broker.post("/v1/recoveries/invite", &asked, device.proof());
            return show(context, to.person.as_str(), &invited.await?);
        }
    };
    let asked = Recover {
        person: to.person.clone(),
        factor: to.code.factor()?,
    };
    let path = format!("/v1/recoveries/{what}");
    let all: Recoveries = device.broker.post(&path, &asked, device.proof()).await?;
    under_way(context, &all)
}

fn under_way(context: &Context, all: &Recoveries) -> Result<(), Failure> {
    if context.out.json {
        return context.out.json(all);
    }
    if all.recoveries.is_empty() {
        return context.out.line("nobody is about to enrol anew");
    }
    for line in &all.recoveries {
        let by: Vec<_> = line.asked_by.iter().map(ToString::to_string).collect();
        let when = line.ready.map_or_else(
            || "one more person must ask".to_owned(),
            |ready| format!("an invite can be made from {} on", ready.rfc3339()),
        );
        let text = format!("{}: asked by {}; {when}", line.person, by.join(" and "));
        context.out.line(&text)?;
    }
    Ok(())
}

fn show(context: &Context, whom: &str, invited: &Invited) -> Result<(), Failure> {
    context.out.note(&format!(
        "invite for {whom}, shown once, works until {}; open the link on a phone, or give the invite to `countersign enroll`:",
        invited.expires.rfc3339()
    ));
    let text = format!("{}\n{}", harmless(&invited.invite), harmless(&invited.link));
    context.out.result(invited, &text)
}
