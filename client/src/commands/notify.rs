//! `notify`: how a person is told that something waits.

use crate::{
    context::{Context, Device},
    edge,
    fail::Failure,
};
use proto::{
    notify::{AddChannel, ChannelAdded, ChannelLine, Quiet, Settings},
    text::harmless,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a test's outcome is waited for, in half seconds.
const LOOKS: u32 = 30;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// What is done with notifications.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Your channels, and how they did
    List,
    /// Add a channel
    #[command(subcommand)]
    Add(Add),
    /// Remove a channel
    Remove {
        /// Its id, as `notify list` shows it; enough of it to tell it from others
        id: String,
    },
    /// Send a test to all your channels, and say what came of it
    Test,
    /// Set hours in which nothing rings that nobody announced
    #[command(after_help = "\
Examples:
  countersign notify quiet \"22:00-07:00 Europe/Berlin\"
  countersign notify quiet off")]
    Quiet {
        /// HH:MM-HH:MM and a zone of the IANA list, or off
        hours: String,
    },
}

/// The kinds of channels that a terminal can add. (A browser adds itself, in the web app.)
#[derive(clap::Subcommand)]
pub(crate) enum Add {
    /// A topic of an ntfy server: its app on the phone rings
    #[command(after_help = "\
Example:
  countersign notify add ntfy https://ntfy.example.org/releases --token-file ntfy.token")]
    Ntfy {
        /// The topic's address, or - to read it from standard input
        url: String,
        /// An access token that may write to the topic (- for standard input)
        #[arg(long)]
        token_file: Option<PathBuf>,
        /// What you call it
        #[arg(long, default_value = "ntfy")]
        name: String,
    },
    /// A signed POST with a `text`, as Slack and its likes take it
    #[command(after_help = "\
Example:
  countersign notify add webhook - --name team <webhook.url

Prints the key that signatures are checked with, this once.")]
    Webhook {
        /// Where to post to, or - to read it from standard input
        url: String,
        /// What you call it
        #[arg(long, default_value = "webhook")]
        name: String,
    },
}

/// Runs it.
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::List => list(context).await,
        Command::Add(given) => add(context, given).await,
        Command::Remove { id } => remove(context, &id).await,
        Command::Test => test(context).await,
        Command::Quiet { hours } => quiet(context, &hours).await,
    }
}

async fn settings(device: &Device) -> Result<Settings, Failure> {
    device.broker.get("/v1/notify", device.proof()).await
}

async fn list(context: &Context) -> Result<(), Failure> {
    let device = context.device()?;
    let settings = settings(&device).await?;
    if context.out.json {
        return context.out.json(&settings);
    }
    if settings.channels.is_empty() {
        context.out.line("no channel: nobody rings you")?;
    }
    for c in &settings.channels {
        context.out.line(&format!("{}  {}", c.id, line(c)))?;
    }
    if let Some(hours) = &settings.quiet {
        context.out.line(&format!("quiet: {}", harmless(hours)))?;
    }
    context.out.line(&format!(
        "rung unannounced in the last day: {} of {}",
        settings.rings, settings.rings_most
    ))?;
    let allowed = settings.allowed.join(", ");
    let allowed = if allowed.is_empty() {
        "none".to_owned()
    } else {
        harmless(&allowed)
    };
    context
        .out
        .note(&format!("Servers that the broker allows: {allowed}"));
    Ok(())
}

fn line(c: &ChannelLine) -> String {
    let how = match (&c.failed, c.delivered) {
        (Some(f), _) => format!("FAILED {}: {}", f.at.rfc3339(), harmless(&f.why)),
        (None, Some(at)) => format!("delivered {}", at.rfc3339()),
        (None, None) => "not used yet".to_owned(),
    };
    format!(
        "{}  {} ({})  {how}",
        harmless(&c.name),
        c.kind.text(),
        harmless(&c.host)
    )
}

async fn add(context: &Context, given: Add) -> Result<(), Failure> {
    let given = match given {
        Add::Ntfy {
            url,
            token_file,
            name,
        } => {
            let token = token_file.map(|p| edge::read_secret(&p)).transpose()?;
            AddChannel::Ntfy {
                url: address(url)?,
                token: token.map(|t| t.as_str().to_owned()),
                name,
            }
        }
        Add::Webhook { url, name } => AddChannel::Webhook {
            url: address(url)?,
            name,
        },
    };
    let device = context.device()?;
    let added: ChannelAdded = device
        .broker
        .post("/v1/notify/channels", &given, device.proof())
        .await?;
    if context.out.json {
        return context.out.json(&added);
    }
    context
        .out
        .line(&format!("added {}", harmless(&added.id)))?;
    if let Some(key) = &added.secret {
        context
            .out
            .line(&format!("signatures are checked with {}", harmless(key)))?;
    }
    context.out.note("Try it: `countersign notify test`.");
    Ok(())
}

/// An address may be a secret itself: it need not stand in the arguments, which every process could read.
fn address(given: String) -> Result<String, Failure> {
    if given == "-" {
        return Ok(edge::read_secret(Path::new("-"))?.as_str().to_owned());
    }
    Ok(given)
}

async fn remove(context: &Context, start: &str) -> Result<(), Failure> {
    let device = context.device()?;
    let all = settings(&device).await?.channels;
    let mut fits = all.iter().filter(|c| c.id.starts_with(start));
    let (Some(channel), None) = (fits.next(), fits.next()) else {
        return Err(Failure::usage(
            "No channel, or more than one, has an id that starts so.",
            "`countersign notify list` shows them.",
        ));
    };
    if !channel.id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Failure::failed(
            "The broker's reply is not understood (a channel's id).",
            "Check that client and broker have the same version: `countersign status`.",
        ));
    }
    let path = format!("/v1/notify/channels/{}", channel.id);
    device.broker.delete(&path, device.proof()).await?;
    let value = serde_json::json!({"removed": channel.id});
    context
        .out
        .result(&value, &format!("removed {}", channel.id))
}

async fn test(context: &Context) -> Result<(), Failure> {
    let device = context.device()?;
    let before = settings(&device).await?.channels;
    let nothing = None::<&()>;
    device
        .broker
        .post_only("/v1/notify/test", nothing, device.proof())
        .await?;
    // The broker sends beside the call; what came of it stands in the settings.
    let state = |c: &ChannelLine| (c.delivered, c.failed.clone());
    let mut now = before.clone();
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK).await;
        now = settings(&device).await?.channels;
        let same = |c: &ChannelLine| before.iter().any(|b| b.id == c.id && state(b) == state(c));
        if !now.iter().any(same) {
            break;
        }
    }
    if context.out.json {
        context.out.json(&now)?;
    } else {
        now.iter().try_for_each(|c| context.out.line(&line(c)))?;
    }
    let arrived = |c: &ChannelLine| c.failed.is_none() && c.delivered.is_some();
    if now.len() == before.len() && now.iter().all(arrived) {
        return Ok(());
    }
    Err(Failure::failed(
        "Not every channel took the test.",
        "Mend or remove the ones that failed; `countersign notify list` shows them.",
    ))
}

async fn quiet(context: &Context, hours: &str) -> Result<(), Failure> {
    let device = context.device()?;
    let given = Quiet {
        hours: (hours != "off").then(|| hours.to_owned()),
        ..Quiet::default()
    };
    device
        .broker
        .put("/v1/notify/quiet", &given, device.proof())
        .await?;
    let text = given
        .hours
        .as_deref()
        .map_or("no quiet hours".to_owned(), |h| {
            format!("quiet from now on: {h}")
        });
    context.out.result(&given, &text)
}
