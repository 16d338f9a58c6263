//! `admin acts`, `confirm` and `veto`: what one admin asks for and another one agrees to.

use super::{
    custody,
    token::{self, places},
    yank,
};
use crate::{
    commands::devices::Code,
    context::{Context, Device},
    fail::Failure,
    witness,
};
use proto::{
    act::{Act, ActLine, Acted, Acts, AnswerAct, AskAct, Direction},
    api::SecondFactor,
    text::harmless,
};
use serde_json::json;
use zeroize::Zeroizing;

const ACTS: &str = "/v1/acts";

/// Agree to what another admin asked for. It is done at once then; a policy that allows more waits a day longer.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin acts                        # what waits
  countersign admin confirm 3f9c2a17b0de        # asks for a code of your authenticator")]
pub(crate) struct ConfirmArgs {
    /// Its id, as `countersign admin acts` shows it
    id: String,
    #[command(flatten)]
    code: Code,
}

/// Object to what waits, or take back what you asked for. Objecting needs a code, taking back does not.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  countersign admin veto 3f9c2a17b0de

Everybody who is enrolled may object to a policy that allows more. Who is to lose the own role ends the two weeks by \
it; another admin may still agree.")]
pub(crate) struct VetoArgs {
    /// Its id, as `countersign admin acts` shows it
    id: String,
    #[command(flatten)]
    code: Code,
}

/// Asks for an act; for a code only where the broker wants one. Says what waits, where it waits.
pub(super) async fn ask(
    device: &Device,
    act: Act,
    token: Option<Zeroizing<String>>,
    code: &Code,
) -> Result<Acted, Failure> {
    let mut asked = AskAct {
        act,
        token: token.map(|t| t.as_str().to_owned()),
        factor: None,
    };
    let path = "/v1/admin/acts";
    let done = code.proving(async |factor| {
        asked.factor = factor;
        device.broker.post(path, &asked, device.proof()).await
    });
    let acted: Acted = done.await?;
    if acted.act.as_ref().is_some_and(|line| line.act != asked.act) {
        return Err(strange());
    }
    Ok(acted)
}

fn strange() -> Failure {
    Failure::refused(
        "The broker's reply is about something else.",
        "Look at what waits (countersign admin acts), and tell the broker's admin.",
    )
}

/// What is done, or that it waits.
pub(super) fn told(
    context: &Context,
    acted: &Acted,
    value: &serde_json::Value,
    done: &str,
) -> Result<(), Failure> {
    match &acted.act {
        None if !acted.done => Err(strange()),
        Some(act) if !acted.done => {
            let mut value = value.clone();
            if let Some(object) = value.as_object_mut() {
                object.insert("waits".to_owned(), json!(act));
            }
            let text = format!(
                "asked for: {}\n{}",
                harmless(&act.act.object()),
                waiting(act)
            );
            context.out.result(&value, &text)
        }
        _ => context.out.result(value, done),
    }
}

/// `countersign admin acts`
pub(super) async fn list(context: &Context) -> Result<(), Failure> {
    let acts = now(&context.device()?).await?;
    if context.out.json {
        return context.out.json(&acts);
    }
    if acts.acts.is_empty() {
        context.out.line("nothing waits")?;
    }
    for act in &acts.acts {
        show(context, act)?;
    }
    context
        .out
        .line(&format!("policy in force: {}", acts.policy))
}

/// `countersign admin confirm`
pub(super) async fn confirm(context: &Context, args: ConfirmArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let id = named(&args.id)?;
    // To agree is to approve: not at a broker whose log is not the one that this device saw (attack 45).
    witness::follow(context, &device).await?;
    let act = one(&device, id).await?;
    context.out.note("You agree to this:");
    note(context, &act);
    let answer = AnswerAct {
        factor: args.code.factor()?,
    };
    let path = format!("/v1/admin/acts/{id}/confirm");
    let acted: Acted = device.broker.post(&path, &answer, device.proof()).await?;
    let value = json!({
        "id": id, "done": acted.done, "act": act.act, "invited": acted.invited, "token": acted.token,
    });
    let mut text = format!("done: {}", harmless(&act.act.object()));
    if let Some(invited) = &acted.invited {
        text = format!(
            "{text}\nthe invite, shown once, works until {}; hand it over on a way that you trust:\n{}\n{}",
            invited.expires.rfc3339(),
            harmless(&invited.invite),
            harmless(&invited.link)
        );
    }
    if let (true, Act::Withdraw(what)) = (acted.done, &act.act) {
        return yank::settled(context, &device, what).await;
    }
    if let Some(kept) = acted.token.as_ref().and_then(token::kept) {
        text = format!("{text}\n{kept}");
    }
    for line in acted.token.iter().flat_map(|t| places::after(t, None)) {
        text = format!("{text}\n{line}");
    }
    told(context, &acted, &value, &text)?;
    if acted.done && act.act.about().is_some() {
        custody::told_after_removal(context, &device).await;
    }
    Ok(())
}

/// `countersign admin veto`
pub(super) async fn veto(context: &Context, args: VetoArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let id = named(&args.id)?;
    let act = one(&device, id).await?;
    let factor = if act.by.as_ref() == Some(&device.profile.person) {
        SecondFactor::default()
    } else {
        args.code.factor()?
    };
    let answer = AnswerAct { factor };
    let path = format!("{ACTS}/{id}/veto");
    let _: Acts = device.broker.post(&path, &answer, device.proof()).await?;
    let value = json!({"id": id, "vetoed": act.act});
    let text = format!("stopped: {}", harmless(&act.act.object()));
    context.out.result(&value, &text)
}

/// What waits.
pub(super) async fn now(device: &Device) -> Result<Acts, Failure> {
    device.broker.get(ACTS, device.proof()).await
}

/// What an admin should act on.
pub(super) fn warnings(acts: &Acts) -> Vec<String> {
    let line = |act: &ActLine| {
        let what = harmless(&act.act.object());
        format!("! waits for admins: {what} (countersign admin acts)")
    };
    acts.acts.iter().map(line).collect()
}

async fn one(device: &Device, id: &str) -> Result<ActLine, Failure> {
    let acts = now(device).await?.acts;
    acts.into_iter().find(|a| a.id == id).ok_or_else(|| {
        Failure::usage(
            format!("Nothing of the id {id} waits."),
            "Look: countersign admin acts. What nobody agrees to is forgotten after three days.",
        )
    })
}

/// An id goes into an address: it is one word.
fn named(id: &str) -> Result<&str, Failure> {
    let good = !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit());
    good.then_some(id).ok_or_else(|| {
        Failure::usage(
            format!("'{}' is no id.", harmless(id)),
            "Copy it from `countersign admin acts`.",
        )
    })
}

fn show(context: &Context, act: &ActLine) -> Result<(), Failure> {
    for line in lines(act) {
        let weaker = line.trim_start().starts_with("weaker");
        let line = if weaker {
            context.out.warning(&line)
        } else {
            line
        };
        context.out.line(&line)?;
    }
    Ok(())
}

fn note(context: &Context, act: &ActLine) {
    for line in lines(act) {
        context.out.note(&line);
    }
}

fn lines(act: &ActLine) -> Vec<String> {
    let by = match &act.by {
        Some(by) => format!("asked for by {by}"),
        None => "read from the policy file".to_owned(),
    };
    let mut lines = vec![
        format!("{}  {}", harmless(&act.id), harmless(&act.act.object())),
        format!("    {by}, {}", act.asked.rfc3339()),
    ];
    for change in &act.changes {
        let word = change.direction.text();
        lines.push(format!("    {word:<8} {}", harmless(&change.words)));
    }
    let weaker = act.changes.iter().any(|c| c.direction == Direction::Weaker);
    if matches!(act.act, Act::Policy { .. }) && !weaker {
        lines.push("    allows nothing more than the policy in force".to_owned());
    }
    if !act.confirmed.is_empty() {
        let names: Vec<_> = act.confirmed.iter().map(ToString::to_string).collect();
        lines.push(format!("    confirmed by {}", names.join(", ")));
    }
    lines.push(format!("    {}", waiting(act)));
    lines
}

/// `waits for another admin (countersign admin confirm …), until …`
fn waiting(act: &ActLine) -> String {
    let id = harmless(&act.id);
    let admins = match act.missing {
        1 if act.by.is_none() => Some("one admin".to_owned()),
        1 => Some("another admin".to_owned()),
        0 => None,
        n => Some(format!("{n} admins")),
    };
    let time = act.ready.map(|ready| {
        format!(
            "holds from {} on, if nobody objects (countersign admin veto {id})",
            ready.rfc3339()
        )
    });
    match (admins, time) {
        (None, Some(time)) => time,
        (None, None) => "holds within a moment".to_owned(),
        (Some(who), None) => format!(
            "waits for {who}: countersign admin confirm {id}, until {}",
            act.expires.rfc3339()
        ),
        (Some(who), Some(time)) => {
            format!("waits for {who}: countersign admin confirm {id}; without that it {time}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_word() {
        assert!(named("3f9c2a17b0de").is_ok());
        for bad in ["", "../x", "a/b", "x y", "\u{1b}[2J"] {
            assert_eq!(named(bad).unwrap_err().exit as u8, 2, "{bad:?}");
        }
    }
}
