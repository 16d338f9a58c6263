//! `admin unseal`, `share-key` and `unseal-method`: who opens the vault.

use super::{rekey, secret};
use crate::{
    commands::devices::Code,
    context::{Context, Device},
    edge,
    fail::Failure,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    api::SecondFactor,
    custody::{
        Change, ChangeMethod, ConfirmMethod, Custody, Method, ShareKey, ShareRound, UnsealRequest,
        Unsealing,
    },
    ids::PersonId,
    text::harmless,
};
use serde_json::json;
use std::path::PathBuf;
use zeroize::Zeroizing;

const METHOD: &str = "/v1/admin/unseal-method";
/// Random bytes of a passphrase that is made here.
const PASSPHRASE_BYTES: usize = 16;

/// Unseal.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin unseal           # hands in your share, where shares open the vault; else asks for the passphrase
  countersign admin unseal --passphrase-file /run/secrets/vault")]
pub(crate) struct UnsealArgs {
    /// A file with the vault's passphrase (`-` is standard input); asked for when absent
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Make the key that your shares of the vault are encrypted to. It is made here, lies beside the device's key and
/// never leaves this machine; the broker keeps its public half. Run again, it registers the same key again.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  countersign admin share-key --totp 123456")]
pub(crate) struct ShareKeyArgs {
    #[command(flatten)]
    code: Code,
}

/// What opens the vault. A change is made by one admin and confirmed: by each who gets a share, and by a second
/// admin in any case, where there is one. What opened the vault before opens it until then, and not after.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin unseal-method                                        # what opens the vault now
  countersign admin unseal-method shares --threshold 2 alice bob carol   # any two of the three
  countersign admin unseal-method passphrase                             # a new passphrase, made and shown once
  countersign admin unseal-method identity                               # what [unseal] of the configuration names
  countersign admin unseal-method plugin                                 # the same, where that is an age plugin
  countersign admin unseal-method confirm 3f9c2a17b0de                   # what another admin asked for
  countersign admin unseal-method cancel")]
pub(crate) struct MethodArgs {
    #[command(subcommand)]
    command: Option<MethodCommand>,
}

#[derive(clap::Subcommand)]
enum MethodCommand {
    /// So many of these admins together; each ran `countersign admin share-key` before
    Shares {
        /// How many of them are needed
        #[arg(long, value_name = "M")]
        threshold: usize,
        /// Who gets a share
        #[arg(required = true)]
        admins: Vec<PersonId>,
        #[command(flatten)]
        code: Code,
    },
    /// A passphrase
    Passphrase {
        /// A file with it (`-` is standard input); absent: one is made, and shown once
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        code: Code,
    },
    /// The identity file or credential that the daemon's configuration names
    Identity {
        #[command(flatten)]
        code: Code,
    },
    /// The age plugin that the daemon's configuration names, with its identity
    Plugin {
        #[command(flatten)]
        code: Code,
    },
    /// Confirm what another admin asked for; opens your share of it where you get one
    Confirm {
        /// The change, as `countersign admin unseal-method` names it
        change: String,
        #[command(flatten)]
        code: Code,
    },
    /// Take a change back that was not confirmed yet
    Cancel,
}

/// `countersign admin unseal`
pub(crate) async fn unseal(context: &Context, args: &UnsealArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let before: Unsealing = device
        .broker
        .get("/v1/admin/unseal", device.proof())
        .await?;
    let mut request = UnsealRequest::default();
    match before.shares.filter(|_| args.passphrase_file.is_none()) {
        Some(_) if !before.sealed => {
            return context
                .out
                .result(&json!({"sealed": false}), "the vault is open");
        }
        Some(round) => {
            let share = open_share(context, &device, round.own.as_deref())?;
            request.share = Some(STANDARD.encode(&*share));
        }
        None => {
            let typed = before.methods.iter().any(|method| method == "passphrase");
            if before.sealed && !typed && args.passphrase_file.is_none() {
                return Err(Failure::usage(
                    "Nothing that you could type opens this vault: its daemon's configuration names what does.",
                    "Start countersignd again; it says why where the vault stays sealed. What opens it: countersign admin status.",
                ));
            }
            let passphrase = secret(
                args.passphrase_file.as_deref(),
                "Passphrase of the vault",
                "--passphrase-file",
            )?;
            request.passphrase = Some(passphrase.as_str().to_owned());
        }
    }
    let call = device
        .broker
        .post("/v1/admin/unseal", &request, device.proof());
    let after: Unsealing = call.await?;
    let text = match &after.shares {
        Some(round) if after.sealed => waiting(round),
        _ => "unsealed".to_owned(),
    };
    let value = json!({"sealed": after.sealed, "shares": after.shares.map(without_own)});
    context.out.result(&value, &text)
}

/// `2 of 3 shares are in; bob or carol hands in the next one`
fn waiting(round: &ShareRound) -> String {
    let rest = round.holders.iter().filter(|h| !round.given.contains(h));
    let rest: Vec<_> = rest.map(ToString::to_string).collect();
    format!(
        "{} of {} shares are in, for 15 minutes; still sealed. The next one: {} (countersign admin unseal)",
        round.given.len(),
        round.needed,
        rest.join(" or ")
    )
}

fn without_own(round: ShareRound) -> ShareRound {
    ShareRound { own: None, ..round }
}

/// Opens the own share with the own key.
fn open_share(
    context: &Context,
    device: &Device,
    share: Option<&str>,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let share = share.ok_or_else(|| {
        Failure::usage(
            "You have no share of this vault.",
            "Ask those who have one: countersign admin unseal --json names them.",
        )
    })?;
    let key = context.home()?.share_key(&device.key)?.ok_or_else(|| {
        Failure::usage(
            "Your share key is not on this machine.",
            "Use the machine where you ran `countersign admin share-key`.",
        )
    })?;
    let file = STANDARD.decode(share).ok();
    let open = file.and_then(|file| age::decrypt(&key, &file).ok());
    open.map(Zeroizing::new).ok_or_else(|| {
        Failure::refused(
            "Your share was made for another share key than this machine's.",
            "Use the machine whose key it was; the other holders can unseal, and then deal anew (countersign admin unseal-method).",
        )
    })
}

/// `countersign admin share-key`
pub(crate) async fn share_key(context: &Context, args: &ShareKeyArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let home = context.home()?;
    // The same one again, where the broker may not have heard of it.
    let key = match home.share_key(&device.key)? {
        Some(key) => key,
        None => home.make_share_key(&device.key)?,
    };
    let recipient = key.to_public().to_string();
    let asked = ShareKey {
        recipient: recipient.clone(),
        factor: args.code.factor()?,
    };
    let done = device
        .broker
        .post("/v1/admin/share-key", &asked, device.proof());
    let _: serde_json::Value = done.await?;
    let text =
        format!("registered {recipient}; shares that are dealt from now on are encrypted to it");
    context
        .out
        .result(&json!({ "recipient": recipient }), &text)
}

/// `countersign admin unseal-method`
pub(crate) async fn method(context: &Context, args: MethodArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let broker = &device.broker;
    let mut passphrase = None;
    let (to, code) = match args.command {
        None => {
            return show(context, &now(&device).await?);
        }
        Some(MethodCommand::Cancel) => {
            broker.delete(METHOD, device.proof()).await?;
            return context.out.result(&json!({"change": null}), "taken back");
        }
        Some(MethodCommand::Confirm { change, code }) => {
            let under_way = now(&device).await?.change.filter(|c| c.id == change);
            let change = under_way.ok_or_else(|| {
                Failure::usage(
                    "No such change is under way.",
                    "Look: countersign admin unseal-method.",
                )
            })?;
            let by_me = change.by == device.profile.person;
            context
                .out
                .note(&format!("confirming: {}", asked_for(&change)));
            let factor = if by_me {
                SecondFactor::default()
            } else {
                code.factor()?
            };
            return confirm(context, &device, &change, factor).await;
        }
        Some(MethodCommand::Shares {
            threshold,
            admins,
            code,
        }) => {
            let shares = Method::Shares {
                needed: threshold,
                holders: admins,
            };
            (shares, code)
        }
        Some(MethodCommand::Identity { code }) => (Method::Identity, code),
        Some(MethodCommand::Plugin { code }) => (Method::Plugin, code),
        Some(MethodCommand::Passphrase {
            passphrase_file,
            code,
        }) => {
            passphrase = Some(match passphrase_file {
                Some(path) => edge::read_secret(&path)?,
                None => made(context)?,
            });
            (Method::Passphrase, code)
        }
    };
    let touch = to == Method::Plugin;
    let asked = ChangeMethod {
        to,
        passphrase: passphrase.map(|p| p.as_str().to_owned()),
        factor: code.factor()?,
    };
    let custody: Custody = if touch {
        context
            .out
            .note("the broker asks its age plugin, twice: touch its key where it wants that");
        broker
            .post_and_touch(METHOD, &asked, device.proof())
            .await?
    } else {
        broker.post(METHOD, &asked, device.proof()).await?
    };
    // Who asks and gets a share shows at once that it opens.
    let own = custody.change.as_ref().filter(|c| c.own.is_some());
    match own.filter(|c| c.by == device.profile.person) {
        Some(change) => confirm(context, &device, change, SecondFactor::default()).await,
        None => show(context, &custody),
    }
}

async fn confirm(
    context: &Context,
    device: &Device,
    change: &Change,
    factor: SecondFactor,
) -> Result<(), Failure> {
    let share = match change.own.as_deref() {
        None => None,
        own => Some(STANDARD.encode(&*open_share(context, device, own)?)),
    };
    let asked = ConfirmMethod {
        change: change.id.clone(),
        share,
        factor,
    };
    let path = format!("{METHOD}/confirm");
    let custody: Custody = device.broker.post(&path, &asked, device.proof()).await?;
    show(context, &custody)
}

/// What opens the vault, and is about to.
pub(super) async fn now(device: &Device) -> Result<Custody, Failure> {
    device.broker.get(METHOD, device.proof()).await
}

/// The same without the own share, which is nobody's to print.
pub(super) fn told(custody: &Custody) -> Custody {
    let mut custody = custody.clone();
    if let Some(change) = &mut custody.change {
        change.own = None;
    }
    custody
}

/// Whoever went may have held a share of the vault. That the person is gone is true all the same.
pub(super) async fn told_after_removal(context: &Context, device: &Device) {
    match now(device).await {
        Ok(held) => warnings(&held)
            .iter()
            .for_each(|warning| context.out.note(warning)),
        Err(_) => context.out.note(
            "Whether enough people can still open the vault could not be asked: countersign admin unseal-method",
        ),
    }
}

/// What an admin should act on.
pub(super) fn warnings(custody: &Custody) -> Vec<String> {
    let mut all = Vec::new();
    if !custody.stale.is_empty() {
        let able = custody.holders.len() - custody.stale.len();
        let lost = custody.needed.is_some_and(|needed| able < needed);
        let then = if lost {
            "; ONCE IT IS SEALED OR STARTED AGAIN, NOBODY COULD OPEN IT"
        } else {
            ""
        };
        all.push(format!(
            "! {} cannot open a share of the vault any more{then}: deal anew (countersign admin unseal-method)",
            names(&custody.stale)
        ));
    }
    if let Some(change) = &custody.change {
        all.push(format!(
            "! what opens the vault is to change: {} (countersign admin unseal-method)",
            asked_for(change)
        ));
    }
    all
}

fn show(context: &Context, custody: &Custody) -> Result<(), Failure> {
    if context.out.json {
        return context.out.json(&told(custody));
    }
    let methods: Vec<_> = custody.methods.iter().map(|m| harmless(m)).collect();
    let now = match custody.needed {
        Some(needed) => format!("any {needed} of {}", names(&custody.holders)),
        None => methods.join(" or "),
    };
    context
        .out
        .line(&format!("the vault is opened by: {now}"))?;
    if let Some(line) = rekey::line(&custody.data_key) {
        context.out.line(&line)?;
    }
    for warning in warnings(custody) {
        context.out.line(&context.out.warning(&warning))?;
    }
    let Some(change) = &custody.change else {
        return Ok(());
    };
    let mut rest = Vec::new();
    if !change.waits_for.is_empty() {
        rest.push(names(&change.waits_for));
    }
    if change.second_admin && change.waits_for.is_empty() {
        rest.push("a second admin".to_owned());
    }
    let text = format!(
        "  waits for: {} (countersign admin unseal-method confirm {}), until {}",
        rest.join(" and "),
        harmless(&change.id),
        change.expires.rfc3339()
    );
    context.out.line(&text)
}

fn asked_for(change: &Change) -> String {
    let what = match &change.to {
        Method::Shares { needed, holders } => format!("any {needed} of {}", names(holders)),
        other => other.name().to_owned(),
    };
    format!("{what}, by {}", change.by)
}

fn names(people: &[PersonId]) -> String {
    let names: Vec<_> = people.iter().map(PersonId::as_str).collect();
    names.join(", ")
}

/// 128 random bits, in groups.
fn made(context: &Context) -> Result<Zeroizing<String>, Failure> {
    let random: [u8; PASSPHRASE_BYTES] = edge::random()?;
    let hex = Zeroizing::new(proto::digest::hex(&random));
    let groups: Vec<_> = hex
        .as_bytes()
        .chunks(4)
        .map(String::from_utf8_lossy)
        .collect();
    let text = Zeroizing::new(groups.join("-"));
    context.out.note(
        "The vault's new passphrase (shown once; it counts from the last confirmation on):\n",
    );
    context.out.note(&format!("  {}\n", text.as_str()));
    Ok(text)
}
