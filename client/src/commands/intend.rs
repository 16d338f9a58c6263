//! `intend`: what is about to be released, announced before its job asks.

use crate::{
    context::{Context, Device},
    edge,
    fail::Failure,
    job::prepare::{self, What},
    out::span,
    profile::ask_secret,
    witness,
};
use proto::{
    api::SecondFactor,
    digest::hex,
    ids::{IntentId, PackageName, RegistryId, VersionText},
    intent::{
        IntendedFile, IntendedItem, IntentLine, IntentRequest, IntentState, IntentStatement,
        Intents, LIFE_MAX, LIFE_MIN, Names, is_commit,
    },
    problem::Code,
    request::Item,
    text::harmless,
    time::UnixTime,
};
use std::{fmt::Write as _, path::PathBuf};

/// Announce a release, before its job asks. A request must fit all that is named here.
///
/// With the files, it counts as your approval at once: you have approved these very bytes. With a commit, it
/// counts where the policy says intent = "commit". With neither, it lets the request ring, whatever else rings.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign intend npm:@acme/left@1.4.2 --file acme-left-1.4.2.tgz --for 30m
  countersign intend pypi:acme-tools@2.0 --file dist/acme_tools-2.0.tar.gz --file dist/acme_tools-2.0-py3-none-any.whl
  countersign intend npm:@acme/left@1.4.2 npm:@acme/right@1.4.2 --commit \"$(git rev-parse v1.4.2)\"
  countersign intend --list
  countersign intend --withdraw 0197…

Name all packages of the release, and all files of each: another one beside them is not what was announced. \
The files are named by their digests, so build them as CI will.")]
pub(crate) struct Args {
    /// What will be published, like npm:@acme/left@1.4.2
    #[arg(
        value_name = "REGISTRY:PACKAGE@VERSION",
        required_unless_present_any = ["list", "withdraw"]
    )]
    what: Vec<String>,
    /// The commit that it is built from, in full
    #[arg(long, value_name = "HASH", requires = "what")]
    commit: Option<String>,
    /// A file that will be published, or a package's folder, which is packed; all of them
    #[arg(long = "file", value_name = "FILE", requires = "what")]
    files: Vec<PathBuf>,
    /// The dist-tag [default: latest, where the registry has tags]
    #[arg(long, requires = "what")]
    tag: Option<String>,
    /// How long it is good: 1m to 24h
    #[arg(long = "for", value_name = "TIME", default_value = "30m", value_parser = life)]
    life: u64,
    /// The code that your authenticator shows (asked for when the policy needs it)
    #[arg(
        long,
        value_name = "DIGITS",
        env = "COUNTERSIGN_TOTP",
        hide_env_values = true
    )]
    totp: Option<String>,
    /// Show what was announced, newest first
    #[arg(long, conflicts_with_all = ["what", "withdraw"])]
    list: bool,
    /// Take one back
    #[arg(long, value_name = "ID", conflicts_with = "what")]
    withdraw: Option<IntentId>,
}

/// `30m`, `2h`, in seconds.
fn life(text: &str) -> Result<u64, String> {
    let number = |digits: &str, unit: u64| digits.parse::<u64>().ok()?.checked_mul(unit);
    let minutes = text.strip_suffix('m').and_then(|n| number(n, 60));
    minutes
        .or_else(|| text.strip_suffix('h').and_then(|n| number(n, 3600)))
        .filter(|s| (LIFE_MIN..=LIFE_MAX).contains(s))
        .ok_or_else(|| "give 1m to 24h, like 30m".to_owned())
}

/// `countersign intend`
pub(crate) async fn intend(context: &Context, args: &Args) -> Result<(), Failure> {
    if args.list {
        return list(context).await;
    }
    if let Some(id) = args.withdraw {
        return withdraw(context, id).await;
    }
    if args.commit.as_deref().is_some_and(|c| !is_commit(c)) {
        return Err(Failure::usage(
            "The commit is not a full hash.",
            "Give it as `git rev-parse` prints it: 40 (or 64) lower-case hex digits.",
        ));
    }
    let mut items = args
        .what
        .iter()
        .map(|text| named(text))
        .collect::<Result<Vec<_>, _>>()?;
    let tag = args.tag.as_deref().map(str::parse::<VersionText>);
    let tag = tag
        .transpose()
        .map_err(|e| Failure::usage(format!("The tag: {e}."), "Correct --tag."))?;
    for item in &mut items {
        item.tag.clone_from(&tag);
    }
    if !args.files.is_empty() {
        with_files(context, args, &mut items).await?;
    }
    let device = context.device()?;
    // An announcement can count as an approval: the same holds for it (attacks 45, 46).
    witness::follow(context, &device).await?;
    let done = announce(&device, args, items).await?;
    witness::warn(context, &device).await;
    let now = edge::now();
    context.out.result(&done, &drawn(&done, now))
}

/// Signs and sends. Whether a code is needed is the policy's business: without one, nothing is tried.
async fn announce(
    device: &Device,
    args: &Args,
    items: Vec<IntendedItem>,
) -> Result<IntentLine, Failure> {
    let now = edge::now();
    let statement = IntentStatement {
        items,
        commit: args.commit.clone(),
        expires: now.after(args.life),
        device: device.profile.device.clone(),
        time: now,
        nonce: edge::random_id()?,
    };
    statement
        .check()
        .map_err(|e| Failure::usage(format!("This cannot be announced: {e}."), "Correct it."))?;
    let mut request = IntentRequest {
        signature: hex(&device.key.sign(&statement.canonical())),
        statement,
        factor: SecondFactor {
            totp: args.totp.as_ref().map(|code| code.trim().to_owned()),
            passkey: None,
        },
    };
    let sent = send(device, &request).await;
    match sent {
        Err(failure)
            if failure.code == Some(Code::FactorMissing) && request.factor.totp.is_none() =>
        {
            let next = "Give --totp or set COUNTERSIGN_TOTP.";
            let code = ask_secret("Code of your authenticator", false, next)?;
            request.factor.totp = Some(code.trim().to_owned());
            send(device, &request).await
        }
        other => other,
    }
}

/// What the broker says that it took must be what was signed (attack 35).
async fn send(device: &Device, request: &IntentRequest) -> Result<IntentLine, Failure> {
    let proof = device.proof();
    let done: IntentLine = device.broker.post("/v1/intents", request, proof).await?;
    let signed = &request.statement;
    let same = done.items == signed.items
        && done.commit == signed.commit
        && done.expires == signed.expires
        && done.state == IntentState::Live;
    if same {
        return Ok(done);
    }
    Err(Failure::refused(
        "The broker recorded something else than what was signed.",
        "Tell the broker's admin at once.",
    ))
}

/// `npm:@acme/left@1.4.2`
fn named(text: &str) -> Result<IntendedItem, Failure> {
    let bad = |why: String| {
        Failure::usage(
            format!("\"{}\" {why}.", harmless(text)),
            "Write registry:package@version, like npm:@acme/left@1.4.2.",
        )
    };
    let parts = text
        .split_once(':')
        .and_then(|(registry, rest)| Some((registry, rest.rsplit_once('@')?)))
        .filter(|(_, (package, _))| !package.is_empty());
    let Some((registry, (package, version))) = parts else {
        return Err(bad("is not registry:package@version".to_owned()));
    };
    Ok(IntendedItem {
        registry: registry
            .parse::<RegistryId>()
            .map_err(|e| bad(format!("has no registry name: {e}")))?,
        package: package
            .parse::<PackageName>()
            .map_err(|e| bad(format!("has no package name: {e}")))?,
        version: version
            .parse::<VersionText>()
            .map_err(|e| bad(format!("has no version: {e}")))?,
        tag: None,
        files: Vec::new(),
    })
}

/// Reads the files as `publish` does: what they say that they are must be what is announced.
async fn with_files(
    context: &Context,
    args: &Args,
    items: &mut [IntendedItem],
) -> Result<(), Failure> {
    let Some(registry) = items.first().map(|i| i.registry.clone()) else {
        return Ok(());
    };
    if items.iter().any(|i| i.registry != registry) {
        return Err(Failure::usage(
            "Files of several registries cannot be announced together.",
            "Announce one registry after the other.",
        ));
    }
    let what = What::files(registry, args.files.clone(), args.tag.clone());
    let ready = prepare::prepare(context, &what, &[]).await?;
    let read = ready.items();
    if let Some(other) = read
        .iter()
        .find(|r| !items.iter().any(|i| i.name() == r.name()))
    {
        return Err(Failure::usage(
            format!(
                "The files are of {}, which is not named.",
                harmless(&other.name())
            ),
            "Name the packages and versions that the files are of.",
        ));
    }
    for item in items {
        let Some(found) = read.iter().find(|r| r.name() == item.name()) else {
            return Err(Failure::usage(
                format!("No file is of {}.", harmless(&item.name())),
                "Give the files of every package that you name, or of none.",
            ));
        };
        fill(item, found);
    }
    Ok(())
}

fn fill(item: &mut IntendedItem, found: &Item) {
    item.tag.clone_from(&found.tag);
    let files = found.files.iter();
    item.files = files
        .map(|f| IntendedFile {
            name: f.name.clone(),
            digest: f.digest.clone(),
        })
        .collect();
}

async fn list(context: &Context) -> Result<(), Failure> {
    let device = context.device()?;
    let all: Intents = device.broker.get("/v1/intents", device.proof()).await?;
    if context.out.json {
        return context.out.json(&all);
    }
    if all.intents.is_empty() {
        return context
            .out
            .line("nothing was announced in the last 30 days");
    }
    let now = edge::now();
    for line in &all.intents {
        context.out.line(&drawn(line, now))?;
    }
    Ok(())
}

async fn withdraw(context: &Context, id: IntentId) -> Result<(), Failure> {
    let device = context.device()?;
    let path = format!("/v1/intents/{id}");
    device.broker.delete(&path, device.proof()).await?;
    let done = serde_json::json!({"id": id, "state": IntentState::Withdrawn.text()});
    context.out.result(&done, &format!("withdrawn {id}"))
}

/// One intent for people: everything passes `harmless` (attack 10).
fn drawn(line: &IntentLine, now: UnixTime) -> String {
    let mut s = String::new();
    let state = match line.state {
        IntentState::Live => format!("live, {} left", span(line.expires.since(now))),
        other => other.text().to_owned(),
    };
    let by = match (&line.ended_by, &line.request) {
        (Some(person), _) => format!(" by {person}"),
        (None, Some(request)) => format!(" for request {request}"),
        (None, None) => String::new(),
    };
    let _ = write!(s, "{}  {state}{by}", line.id);
    let _ = write!(
        s,
        "\n    by {}, {} ago: {}",
        line.person,
        span(now.since(line.made)),
        match line.names {
            Names::Versions => "version only; it rings, and counts as no approval",
            Names::Commit => "commit; an approval where the policy says intent = \"commit\"",
            Names::Bytes => "files; an approval of exactly these bytes",
        }
    );
    for item in &line.items {
        let tag = item
            .tag
            .as_ref()
            .map(|t| format!(" as {}", harmless(t.as_str())));
        let _ = write!(
            s,
            "\n    {}{}",
            harmless(&item.name()),
            tag.unwrap_or_default()
        );
        for file in &item.files {
            let _ = write!(s, "\n      {}  {}", harmless(&file.name), file.digest);
        }
    }
    if let Some(commit) = &line.commit {
        let _ = write!(s, "\n    commit {}", harmless(commit));
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_read_in_one_way() {
        let item = named("npm:@acme/left@1.4.2").unwrap();
        assert_eq!(item.name(), "npm:@acme/left@1.4.2");
        assert_eq!(item.package.as_str(), "@acme/left");
        for bad in [
            "npm:left",
            "npm:@acme/left",
            "left@1",
            "npm:@1.0",
            "NPM:left@1",
            "npm:left@",
            "",
        ] {
            assert!(named(bad).is_err(), "{bad}");
        }
        assert_eq!(life("30m"), Ok(1800));
        assert_eq!(life("24h"), Ok(86400));
        for bad in ["0m", "25h", "30", "m", "-1m", "30s"] {
            assert!(life(bad).is_err(), "{bad}");
        }
    }
}
