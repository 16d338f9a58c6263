//! `inbox`: what waits for this person.

use crate::{
    context::{Context, Device},
    edge,
    fail::Failure,
    out::span,
    witness,
};
use proto::{
    api::{Confirm, Inbox},
    text::harmless,
    time::UnixTime,
};

/// Lines that are shown before somebody asks for all.
const INBOX_LINES: usize = 200;

/// What waits for an answer, most urgent first.
#[derive(clap::Args)]
pub(crate) struct InboxArgs {
    /// Show all, not only the 200 most urgent
    #[arg(long)]
    all: bool,
}

/// `countersign inbox`
pub(crate) async fn inbox(context: &Context, args: &InboxArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let inbox = waiting(&device, args.all).await?;
    witness::warn(context, &device).await;
    if context.out.json {
        return context.out.json(&inbox);
    }
    for alarm in &inbox.alarms {
        let text = format!("! ALARM, frozen: {}", harmless(alarm));
        context.out.line(&context.out.warning(&text))?;
    }
    for unseen in &inbox.unseen {
        let text = format!("! ALARM: {}", harmless(unseen));
        context.out.line(&context.out.warning(&text))?;
    }
    if inbox.requests.is_empty() {
        return context.out.line("nothing waits");
    }
    let now = edge::now();
    for r in &inbox.requests {
        let more = if r.items > 1 {
            format!(" and {} more", r.items - 1)
        } else {
            String::new()
        };
        let mine = if r.answered { ", answered by you" } else { "" };
        let title = context.out.bold(&harmless(&r.title));
        context.out.line(&format!("{}  {title}{more}", r.id))?;
        for line in confirm_lines(&r.confirm, now) {
            context
                .out
                .line(&format!("    {}", context.out.warning(&line)))?;
        }
        if !r.intended_by.is_empty() {
            let by: Vec<_> = r.intended_by.iter().map(ToString::to_string).collect();
            context
                .out
                .line(&format!("    announced by {}", by.join(", ")))?;
        }
        if let Some(until) = r.not_before {
            context.out.line(&format!(
                "    approved, and held back for {}: it can still be denied",
                span(until.since(now))
            ))?;
        }
        context.out.line(&format!(
            "    asked by {}, {} of {} approvals{mine}, {} left",
            harmless(&r.caller),
            r.approvals.0,
            r.approvals.1,
            span(r.expires.since(now)),
        ))?;
    }
    if inbox.next.is_some() {
        context
            .out
            .note("These are the most urgent; all: `countersign inbox --all`.");
    }
    Ok(())
}

/// What a person does about a registry's own second factor. The page's address is the registry's text, on
/// an origin that the broker's configuration names: its host is said apart, so that it is looked at.
pub(crate) fn confirm_lines(confirm: &[Confirm], now: UnixTime) -> Vec<String> {
    let line = |c: &Confirm| {
        let item = harmless(&c.item);
        let left = span(c.until.since(now));
        match &c.page {
            Some(page) => {
                let page = harmless(page);
                let host = page.split('/').nth(2).unwrap_or_default();
                format!(
                    "! second half: the registry wants its own second factor for {item}, {left} left; at {host}: {page}"
                )
            }
            None => format!(
                "! second half: the registry wants its own second factor for {item}, {left} left; its page comes in a moment"
            ),
        }
    };
    confirm.iter().map(line).collect()
}

/// What waits, page by page: until there are enough lines, or all of it.
pub(crate) async fn waiting(device: &Device, all: bool) -> Result<Inbox, Failure> {
    let mut whole: Inbox = device.broker.get("/v1/inbox", device.proof()).await?;
    while let Some(next) = whole.next.take() {
        if !all && whole.requests.len() >= INBOX_LINES {
            whole.next = Some(next);
            break;
        }
        let path = format!("/v1/inbox?after={}", cursor(&next)?);
        let page: Inbox = device.broker.get(&path, device.proof()).await?;
        // A broker that turns in a circle would keep us for ever.
        if page.next.as_ref().is_some_and(|n| *n <= next) {
            return Err(Failure::failed(
                "The broker's inbox goes in a circle.",
                "Tell the broker's admin.",
            ));
        }
        whole.requests.extend(page.requests);
        whole.next = page.next;
    }
    Ok(whole)
}

/// A cursor goes into an address: it is hex, or it is not the broker's.
fn cursor(text: &str) -> Result<&str, Failure> {
    if text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(text);
    }
    Err(Failure::failed(
        "The broker's reply is not understood (the inbox's next page).",
        "Check that client and broker have the same version: `countersign status`.",
    ))
}
