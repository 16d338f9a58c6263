//! `admin incident`: what was published in a time, by whose wish and word, and what is to be rotated.

use super::{audit::find, checklist};
use crate::{
    context::{Context, Device},
    edge,
    fail::Failure,
    out::size,
};
use proto::{
    api::{Found, StateName, TokenLine},
    log::find::Entry,
    stop::{GivenKind, GivenLine, PublishedLine, PublishedPage, RegistryLine},
    text::harmless,
    time::UnixTime,
};
use serde_json::{Value, json};

/// What tells of versions that the broker did not publish.
const BY_OTHERS: [&str; 3] = ["version-unknown", "version-changed", "artifact-differs"];
/// Requests that are listed.
const REQUESTS_MAX: usize = 2_000;
/// Entries of the log that are listed of one kind.
const ENTRIES_MAX: usize = 500;

/// What was published in a time.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin incident
  countersign admin incident --since 2026-11-01 --json

It only looks. `countersign admin panic` stops everything first.")]
pub(crate) struct IncidentArgs {
    /// Since: a day, a moment, or so long ago (2026-11-01, 7d, 12h)
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = find::since)]
    since: UnixTime,
}

/// What is known of a time.
pub(super) struct Incident {
    since: UnixTime,
    published: Vec<PublishedLine>,
    given: Vec<GivenLine>,
    /// Whether there was more than is listed.
    cut: bool,
    others: Vec<Value>,
    tokens: Vec<TokenLine>,
    registries: Vec<RegistryLine>,
}

/// `countersign admin incident`
pub(super) async fn run(context: &Context, args: &IncidentArgs) -> Result<(), Failure> {
    let incident = read(&context.device()?, args.since).await?;
    if context.out.json {
        return context.out.json(&incident.json());
    }
    incident.show(context)
}

/// Asks the broker.
pub(super) async fn read(device: &Device, since: UnixTime) -> Result<Incident, Failure> {
    let (page, cut) = published(device, since).await?;
    let mut others = Vec::new();
    for event in BY_OTHERS {
        others.extend(entries(device, event, since).await?);
    }
    let broker = &device.broker;
    Ok(Incident {
        since,
        published: page.requests,
        given: page.given,
        cut,
        others,
        tokens: broker.get("/v1/admin/tokens", device.proof()).await?,
        registries: broker.get("/v1/admin/registries", device.proof()).await?,
    })
}

async fn published(device: &Device, since: UnixTime) -> Result<(PublishedPage, bool), Failure> {
    let mut all = PublishedPage::default();
    let mut after = String::new();
    loop {
        let path = format!("/v1/admin/published?since={}{after}", since.0);
        let page: PublishedPage = device.broker.get(&path, device.proof()).await?;
        all.requests.extend(page.requests);
        all.given.extend(page.given);
        let Some(next) = page.next else {
            return Ok((all, false));
        };
        let known = after.ends_with(&next);
        // A broker that turns in a circle would keep us for ever; its word goes into an address.
        let many = all.requests.len().max(all.given.len()) >= REQUESTS_MAX;
        if many || known || !next.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok((all, true));
        }
        after = format!("&after={next}");
    }
}

async fn entries(device: &Device, event: &str, since: UnixTime) -> Result<Vec<Value>, Failure> {
    let (mut found, mut from) = (Vec::new(), 0);
    while found.len() < ENTRIES_MAX {
        let path = format!("/v1/log/find?event={event}&since={}&from={from}", since.0);
        let page: Found = device.broker.get(&path, device.proof()).await?;
        let read = page.entries.iter().filter_map(|line| {
            let entry = Entry::read(&line.leaf).filter(|e| e.time >= since)?;
            Some(json!({"index": line.index, "time": entry.time, "event": entry.event}))
        });
        found.extend(read);
        match page.next {
            Some(next) if next > from => from = next,
            _ => break,
        }
    }
    Ok(found)
}

impl Incident {
    pub(super) fn json(&self) -> Value {
        json!({
            "since": self.since,
            "published": self.published,
            "given": self.given,
            "more": self.cut,
            "by_others": self.others,
            "tokens": self.tokens,
            "checklist": checklist::all(&self.registries, &self.tokens),
        })
    }

    pub(super) fn show(&self, context: &Context) -> Result<(), Failure> {
        let since = self.since.rfc3339();
        let title = |text: &str| context.out.line(&format!("\n{}", context.out.bold(text)));
        title(&format!(
            "published since {since}: {} request(s)",
            self.published.len()
        ))?;
        self.published
            .iter()
            .try_for_each(|line| request(context, line))?;
        if self.cut {
            context
                .out
                .line("  … and more: take a shorter time, or countersign admin audit export")?;
        }
        title(&format!(
            "given to jobs in that time, and what became of it: {}",
            self.given.len()
        ))?;
        for line in &self.given {
            let text = given(line);
            let seen = line.kind == GivenKind::Secret;
            let text = if seen {
                context.out.warning(&text)
            } else {
                text
            };
            context.out.line(&text)?;
        }
        title(&format!(
            "published past this broker, as far as it watches: {}",
            self.others.len()
        ))?;
        for entry in &self.others {
            let event = entry.get("event");
            let text = |member: &str| {
                let text = event.and_then(|e| e.get(member)?.as_str());
                harmless(text.unwrap_or_default())
            };
            let line = format!("! {} {} {}", text("type"), text("name"), text("file"));
            context.out.line(&context.out.warning(line.trim_end()))?;
        }
        title("to be rotated, and where")?;
        for part in checklist::all(&self.registries, &self.tokens) {
            context
                .out
                .line(&format!("  {}", context.out.bold(&part.title)))?;
            for step in &part.steps {
                context.out.line(&format!("    [ ] {step}"))?;
            }
        }
        Ok(())
    }
}

/// `  npm:@acme/left@1.4.2: a credential, given …, ended …: nothing left with it (expired, request …)`
fn given(line: &GivenLine) -> String {
    let names: Vec<_> = line.names.iter().map(|name| harmless(name)).collect();
    let (at, state) = (line.at.rfc3339(), line.state.text());
    let over = line.until.filter(|until| *until <= edge::now());
    let until = match (line.until, over) {
        (None, _) => ", works until it is revoked".to_owned(),
        (Some(until), None) => format!(", works until {}", until.rfc3339()),
        (Some(until), Some(_)) => format!(", ended {}", until.rfc3339()),
    };
    let (what, done) = match (line.kind, line.left) {
        (GivenKind::Credential, 0) => ("a credential", "nothing left with it".to_owned()),
        (GivenKind::Credential, n) => ("a credential", format!("{n} file(s) left with it")),
        (GivenKind::Minted, 0) => (
            "a minted token",
            "the registry never showed the approved files".to_owned(),
        ),
        (GivenKind::Minted, n) => (
            "a minted token",
            format!(
                "{n} approved file(s) are at the registry, or may be; what else was sent the watch sees"
            ),
        ),
        (GivenKind::Secret, _) => (
            "the secret itself",
            "what it was used for nobody sees here: revoke it".to_owned(),
        ),
    };
    let mark = if line.kind == GivenKind::Secret {
        "!"
    } else {
        " "
    };
    format!(
        "{mark} {}: {what}, given {at}{until}: {done} ({state}, request {})",
        names.join(", "),
        line.request
    )
}

fn request(context: &Context, line: &PublishedLine) -> Result<(), Failure> {
    let when = line
        .ended
        .map_or_else(|| "open".to_owned(), UnixTime::rfc3339);
    for item in &line.items {
        let name = context.out.bold(&harmless(&item.name));
        context
            .out
            .line(&format!("  {name}  {} {when}", line.state.text()))?;
        for file in &item.files {
            let other = if file.state == line.state {
                String::new()
            } else {
                format!("  {}", file.state.text())
            };
            let file_name = harmless(&file.name);
            context.out.line(&format!(
                "      {file_name}  {}  {}{other}",
                file.digest,
                size(file.size)
            ))?;
        }
    }
    let people = line.approved_by.iter();
    let people: Vec<_> = people
        .map(|a| format!("{} ({})", a.person, a.factor.name()))
        .collect();
    let people = if people.is_empty() {
        "nobody".to_owned()
    } else {
        people.join(", ")
    };
    let actor = line.actor.as_deref().map(harmless);
    let actor = actor.map_or_else(String::new, |actor| format!(", started by {actor}"));
    context.out.line(&format!(
        "      asked by {}{actor}; approved by {people}",
        harmless(&line.asked_by)
    ))?;
    let receipt = if line.state == StateName::Published {
        format!("countersign receipt {}", line.request)
    } else {
        format!("request {}", line.request)
    };
    let run = line.run.as_deref().map(harmless);
    let run = run.map_or_else(String::new, |run| format!("; {run}"));
    context.out.line(&format!("      {receipt}{run}"))
}
