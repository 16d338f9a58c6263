//! `publish` and `request`: from a file to an approved publish.

use crate::{
    context::Context,
    fail::Failure,
    http::Broker,
    job::{
        bypass::{self, Setting},
        crates, distribution, idtoken,
        open::{self, Shown},
        python,
        session::Session,
        settle,
        signals::Signals,
        tarball::{self, Tarball},
        tool::{Plan, Target, Tool},
    },
};
use proto::{
    api::{Minted, Mode, StateName},
    digest::Digest,
    ids::RegistryId,
    request::Item,
    text::harmless,
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use url::Url;

/// Most bytes of a note.
const NOTE_MAX: usize = 500;

/// What is to be published.
#[derive(clap::Args)]
pub(crate) struct What {
    /// The registry, as the broker's configuration names it
    registry: RegistryId,
    /// A tarball made by `npm pack`, or a package's folder; wheels and source archives, or the folder
    /// that holds them; a .crate, or the folder of a crate or a cargo workspace; several are one request
    #[arg(required = true, value_name = "FILE|FOLDER")]
    paths: Vec<PathBuf>,
    /// The dist-tag [default: publishConfig.tag, else latest]
    #[arg(long)]
    tag: Option<String>,
    /// Words for the approver, shown as unverified
    #[arg(long)]
    note: Option<String>,
    /// Pack crates without building what was packed
    #[arg(long)]
    no_verify: bool,
}

/// Ask for approval of exactly these bytes, print the match code, wait, and publish them through the
/// broker. Exits 0 only when the broker has read the approved bytes back from the registry.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign publish npm ./left-1.4.2.tgz
  countersign publish npm . --tag next --note 'fixes the release of Monday'
  countersign publish npm . -- pnpm publish --no-git-checks
  countersign publish npm . -- yarn npm publish
  countersign publish pypi dist/
  countersign publish pypi dist/* -- uv publish
  countersign publish crates .
  countersign publish crates left-1.4.2.crate
  countersign publish crates . -- cargo publish

Who asks: in GitHub Actions `permissions: id-token: write` is enough; elsewhere COUNTERSIGN_ID_TOKEN
(an OIDC token for the broker's URL) or COUNTERSIGN_CLIENT_KEY (a file by `admin client-key new`).
The command gets the credential in its environment (for npm also in a temporary settings file). It
gets no COUNTERSIGN_* variable, and no ACTIONS_ID_TOKEN_* one unless it is told to make a provenance
statement:
  countersign publish npm . -- npm publish --provenance")]
pub(crate) struct Args {
    #[command(flatten)]
    what: What,
    /// Stop waiting after this many seconds (the request stays open)
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Write the signed receipt to this file
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// The registry's client [default: npm publish; twine upload or uv publish; none for crates]
    #[arg(last = true)]
    command: Vec<String>,
}

/// Ask for approval and return at once. The file that is written holds secrets; `wait`, `collect` and
/// `cancel` take it.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  countersign request npm . --out request.json
  countersign wait --ticket-file request.json && countersign collect --ticket-file request.json

Deposit: hand the files over, end the job, look later from anywhere:
  countersign request npm . --hand-over --out request.json
  countersign wait --published --ticket-file request.json")]
pub(crate) struct RequestArgs {
    #[command(flatten)]
    what: What,
    /// Where to write the request (mode 0600)
    #[arg(long)]
    out: PathBuf,
    /// Hand the files over too, where the policy's mode is `deposit`: the broker publishes them itself
    /// when they are approved, and this job may end
    #[arg(long)]
    hand_over: bool,
    /// With --hand-over: the registry's client [default: npm publish]
    #[arg(last = true, requires = "hand_over")]
    command: Vec<String>,
}

/// What was read from disk.
struct Ready {
    items: Vec<Item>,
    /// Their files, in the same order.
    paths: Vec<PathBuf>,
    settings: Vec<Setting>,
    /// The folder that the command runs in, where one was given.
    folder: Option<PathBuf>,
    /// Holds packed tarballs.
    packed: TempDir,
}

/// `countersign publish`
pub(crate) async fn publish(context: &Context, args: &Args) -> Result<(), Failure> {
    let mut signals = Signals::new();
    let broker = context.broker()?;
    let ready = prepare(context, &args.what, &args.command).await?;
    let (session, shown) = open(context, &broker, &args.what, &ready).await?;
    if let Err(f) = agree(&ready, &session) {
        let _ = session.cancel(&broker).await;
        return Err(f);
    }
    session.show(context, &shown)?;
    let folder = ready.folder.as_deref();
    if session.deposit.is_some() {
        hand_over(
            context,
            &broker,
            &session,
            &args.command,
            folder,
            &mut signals,
        )
        .await?;
    }
    session
        .wait_or_cancel(context, &broker, args.timeout, &mut signals)
        .await?;
    release(
        context,
        &broker,
        &session,
        &args.command,
        folder,
        &mut signals,
    )
    .await?;
    match &args.receipt {
        Some(path) => super::verify::fetch_receipt(&broker, &session, path).await,
        None => Ok(()),
    }
}

/// `countersign request`
pub(crate) async fn request(context: &Context, args: &RequestArgs) -> Result<(), Failure> {
    let broker = context.broker()?;
    let ready = prepare(context, &args.what, &args.command).await?;
    let (mut session, shown) = open(context, &broker, &args.what, &ready).await?;
    if args.hand_over && session.deposit.is_none() {
        let _ = session.cancel(&broker).await;
        return Err(Failure::refused(
            "The policy's mode for this package is not `deposit`; the request is cancelled.",
            "Publish with `countersign publish`, or ask an admin of the broker.",
        ));
    }
    // The packed tarballs must outlive this command.
    let folder = args.out.parent().unwrap_or(Path::new("")).to_owned();
    for path in &mut session.paths {
        if path.starts_with(ready.packed.path()) {
            let name = path.file_name().map_or(Path::new("package.tgz"), Path::new);
            let kept =
                std::path::absolute(folder.join(name)).map_err(|e| Failure::file(name, &e))?;
            std::fs::copy(&*path, &kept).map_err(|e| Failure::file(&kept, &e))?;
            *path = kept;
        }
    }
    super::ticket::store(&session, &args.out)?;
    session.show(context, &shown)?;
    if args.hand_over {
        let mut signals = Signals::new();
        let folder = ready.folder.as_deref();
        hand_over(
            context,
            &broker,
            &session,
            &args.command,
            folder,
            &mut signals,
        )
        .await?;
    }
    Ok(())
}

/// Packs folders, reads tarballs, and looks for settings that publish past the broker.
async fn prepare(context: &Context, what: &What, command: &[String]) -> Result<Ready, Failure> {
    if let Some(note) = &what.note {
        proto::text::check(note, NOTE_MAX)
            .map_err(|e| Failure::usage(format!("The note {e}."), "Shorten or clean it."))?;
    }
    let tool = Tool::of(command);
    let packed = tempfile::Builder::new()
        .prefix("countersign-pack-")
        .tempdir()
        .map_err(|e| Failure::file(&std::env::temp_dir(), &e))?;
    let mut ready = Ready {
        items: Vec::new(),
        paths: Vec::new(),
        settings: Vec::new(),
        folder: None,
        packed,
    };
    let python = what
        .paths
        .iter()
        .filter(|p| distribution::is_python(p))
        .count();
    if python > 0 {
        if python < what.paths.len() || what.tag.is_some() {
            return Err(Failure::usage(
                "Python distributions are published without a tag and by themselves.",
                "Leave out --tag, and publish other packages with another command.",
            ));
        }
        for (item, paths) in distribution::releases(&what.paths, &what.registry)? {
            ready.items.push(item);
            ready.paths.extend(paths);
        }
        if let [folder] = what.paths.as_slice()
            && folder.join("pyproject.toml").exists()
        {
            // hatch and flit publish from the project's folder.
            ready.folder = Some(folder.clone());
        }
        return Ok(ready);
    }
    let cargo = what.paths.iter().filter(|p| crates::is_crate(p)).count();
    if cargo > 0 {
        if cargo < what.paths.len() || what.tag.is_some() {
            return Err(Failure::usage(
                "Crates are published without a tag and by themselves.",
                "Leave out --tag, and publish other packages with another command.",
            ));
        }
        return with_crates(what, ready).await;
    }
    for (n, path) in what.paths.iter().enumerate() {
        let is_folder = path.is_dir();
        let file = if is_folder {
            // Reads it first: packing may take minutes.
            tarball::folder_manifest(path)?;
            pack(
                context,
                command,
                path,
                &ready.packed.path().join(n.to_string()),
            )
            .await?
        } else {
            path.clone()
        };
        let tarball = Tarball::read(&file, &what.registry, what.tag.as_deref())?;
        let place = if is_folder {
            path.clone()
        } else {
            PathBuf::from(".")
        };
        let place = std::path::absolute(&place).map_err(|e| Failure::file(&place, &e))?;
        let found = bypass::find(tool, &place, &tarball.manifest, tarball.scope());
        ready.settings.extend(found);
        if is_folder && what.paths.len() == 1 {
            ready.folder = Some(path.clone());
        }
        ready.items.push(tarball.item);
        ready.paths.push(tarball.path);
    }
    let broker = context.broker()?;
    let url =
        Url::parse(broker.base()).map_err(|e| Failure::usage(e.to_string(), "Check --broker."))?;
    bypass::refuse_elsewhere(&ready.settings, &url)?;
    Ok(ready)
}

/// Packs folders with cargo, and reads the `.crate` files.
async fn with_crates(what: &What, mut ready: Ready) -> Result<Ready, Failure> {
    for (n, path) in what.paths.iter().enumerate() {
        let files = if crates::is_file(path) {
            vec![path.clone()]
        } else {
            let into = ready.packed.path().join(n.to_string());
            crates::pack(path, &into, !what.no_verify).await?
        };
        for file in files {
            let (item, file) = crates::read(&file, &what.registry)?;
            ready.items.push(item);
            ready.paths.push(file);
        }
    }
    if let [folder] = what.paths.as_slice()
        && folder.is_dir()
    {
        ready.folder = Some(folder.clone());
    }
    Ok(ready)
}

async fn pack(
    context: &Context,
    command: &[String],
    folder: &Path,
    into: &Path,
) -> Result<PathBuf, Failure> {
    std::fs::create_dir(into).map_err(|e| Failure::file(into, &e))?;
    let status = Plan::pack(command, folder, into, &context.env)?
        .run(true)
        .await?;
    if !status.success() {
        return Err(Failure::failed(
            format!("{} could not be packed ({status}).", folder.display()),
            "Read the packing tool's output above.",
        ));
    }
    let mut files = std::fs::read_dir(into)
        .map_err(|e| Failure::file(into, &e))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "tgz"));
    match (files.next(), files.next()) {
        (Some(file), None) => Ok(file),
        _ => Err(Failure::failed(
            format!(
                "Packing {} did not make exactly one tarball.",
                folder.display()
            ),
            "Pack it yourself and give the .tgz file.",
        )),
    }
}

async fn open(
    context: &Context,
    broker: &Broker,
    what: &What,
    ready: &Ready,
) -> Result<(Session, Shown), Failure> {
    let token = idtoken::obtain(&context.env, broker).await?;
    let items = ready.items.clone();
    let (mut session, shown) =
        open::open(&context.env, broker, &token, items, what.note.clone()).await?;
    session.paths.clone_from(&ready.paths);
    Ok((session, shown))
}

/// Now that the broker named its registry endpoint: settings must name exactly that one.
fn agree(ready: &Ready, session: &Session) -> Result<(), Failure> {
    session
        .registry_url
        .values()
        .try_for_each(|url| bypass::refuse_other(&ready.settings, url))
}

/// Collects an approved request, runs the registry's client, and reports what the registry shows.
pub(crate) async fn release(
    context: &Context,
    broker: &Broker,
    session: &Session,
    command: &[String],
    folder: Option<&Path>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let status = session.poll(broker, None, 0).await?;
    // What was handed over is published by the broker itself.
    if status.state == StateName::Published || session.deposit.is_some() {
        return settle::settle(context, broker, session, None).await;
    }
    let (mode, mut release) = session.collect(broker).await?;
    if let (Mode::Mint, Some(minted)) = (mode, release.minted.take()) {
        return with_minted(context, broker, session, command, folder, minted, signals).await;
    }
    let credential = match (mode, release.credential.take()) {
        (Mode::Forward, Some(credential)) => zeroize::Zeroizing::new(credential),
        _ => {
            return Err(Failure::refused(
                "The broker gave no credential for a publish.",
                "Ask an admin which mode the policy has for this package.",
            ));
        }
    };
    let failed = run_all(
        context,
        Some(broker),
        session,
        command,
        folder,
        &credential,
        signals,
    )
    .await?;
    settle::settle(context, broker, session, failed).await
}

/// Uploads past the broker, with a token of the registry's own. What the registry shows decides, as ever.
async fn with_minted(
    context: &Context,
    broker: &Broker,
    session: &Session,
    command: &[String],
    folder: Option<&Path>,
    minted: Minted,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let token = zeroize::Zeroizing::new(minted.token);
    context.out.note(&format!(
        "  The broker minted a token of the registry for this one project, until {}. This job uploads to\n  \
         {} itself; until then the token uploads whatever this job likes to the project.",
        minted.expires.rfc3339(),
        harmless(&minted.upload_url)
    ));
    if command.is_empty() {
        let files = session.items.iter().flat_map(|i| &i.files);
        session
            .paths
            .iter()
            .zip(files)
            .try_for_each(|(path, file)| unchanged(path, &file.digest))?;
    }
    let there = python::There {
        url: minted.upload_url,
        user: minted.user,
        credential: &token,
    };
    let plan = python::plan_there(command, folder, &session.paths, &there, &context.env)?;
    let status = tokio::select! {
        status = plan.run(context.out.json) => status?,
        stopped = signals.stopped() => return Err(stopped),
    };
    let failed = (!status.success())
        .then(|| format!("`{}` failed ({status})", named(command, "the upload")));
    settle::settle(context, broker, session, failed).await
}

/// Runs the registry's client now: the broker keeps what it uploads until people have approved. The
/// client says that it published; nothing is published yet.
async fn hand_over(
    context: &Context,
    broker: &Broker,
    session: &Session,
    command: &[String],
    folder: Option<&Path>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let credential = session.deposit.as_deref().unwrap_or_default();
    let failed = run_all(context, None, session, command, folder, credential, signals).await?;
    if let Some(what) = failed {
        let _ = session.cancel(broker).await;
        return Err(Failure::failed(
            format!("{what}; the files were not handed over, and the request is cancelled."),
            "Read the command's output above.",
        ));
    }
    context
        .out
        .note("  handed over: the broker publishes the files when they are approved. Nothing is published yet.");
    Ok(())
}

/// Runs the client for every item, or the user's command once. Says which one failed, if any.
async fn run_all(
    context: &Context,
    broker: Option<&Broker>,
    session: &Session,
    command: &[String],
    folder: Option<&Path>,
    credential: &str,
    signals: &mut Signals,
) -> Result<Option<String>, Failure> {
    let mut plans = Vec::new();
    let mut paths = session.paths.as_slice();
    for item in &session.items {
        let (own, rest) = paths.split_at_checked(item.files.len()).ok_or_else(|| {
            Failure::failed(
                "The request's files are not known here.",
                "Open a new request.",
            )
        })?;
        paths = rest;
        let registry = session
            .registry_url
            .get(&item.registry)
            .map_or("", String::as_str);
        let is_python = own.iter().any(|p| distribution::is_distribution(p));
        if command.is_empty() {
            // What is published is what was approved, or nothing: the broker would refuse it anyway.
            own.iter()
                .zip(&item.files)
                .try_for_each(|(path, file)| unchanged(path, &file.digest))?;
        } else if !plans.is_empty() {
            break;
        }
        if own.iter().any(|p| crates::is_file(p)) {
            match own {
                [path] if command.is_empty() => {
                    let ca = context.env.get("COUNTERSIGN_CA").map(Path::new);
                    // Each is read back before the next: a crate needs those that it depends on.
                    let failed = tokio::select! {
                        failed = crates::upload(path, registry, credential, ca) => failed?,
                        stopped = signals.stopped() => Some(stopped.what.trim_end_matches('.').to_owned()),
                    };
                    if failed.is_some() {
                        return Ok(failed);
                    }
                }
                _ => {
                    let plan = crates::plan(command, folder, registry, credential, &context.env)?;
                    plans.push((named(command, "the upload"), plan));
                }
            }
            continue;
        }
        if is_python {
            let files = if command.is_empty() {
                own
            } else {
                &session.paths
            };
            let plan = python::plan(command, folder, files, registry, credential, &context.env)?;
            plans.push((named(command, "the upload"), plan));
            continue;
        }
        let names = session.items.iter().map(|i| i.package.as_str());
        let mut target = Target {
            registry,
            credential,
            packages: vec![item.package.as_str()],
            tag: item.tag.as_ref().map_or("latest", |t| t.as_str()),
        };
        let plan = match own.first() {
            Some(tarball) if command.is_empty() => Plan::npm(tarball, &target, &context.env)?,
            _ => {
                target.packages = names.collect();
                Plan::command(command, folder, &target, &context.env)?
            }
        };
        plans.push((named(command, "npm publish"), plan));
    }
    for (name, plan) in &plans {
        // A stopped job waits for its child, which gets the same signal: its files must be removed.
        let status = tokio::select! {
            status = plan.run(context.out.json) => status?,
            stopped = signals.stopped() => return Ok(Some(stopped.what.trim_end_matches('.').to_owned())),
        };
        if status.success() {
            continue;
        }
        // Clients lose patience while people give the registry's second factor; the broker does not.
        let confirmed = match broker {
            Some(broker) => settle::confirmed(context, broker, session).await?,
            None => false,
        };
        if !confirmed {
            return Ok(Some(format!("`{name}` failed ({status})")));
        }
    }
    Ok(None)
}

/// What a command is called in a message.
fn named(command: &[String], default: &str) -> String {
    if command.is_empty() {
        return default.to_owned();
    }
    let words = command.iter().take(2).map(|w| harmless(w));
    words.collect::<Vec<_>>().join(" ")
}

fn unchanged(path: &Path, want: &Digest) -> Result<(), Failure> {
    let (_, now) = tarball::digest_of(path, want.algorithm())?;
    if now == *want {
        Ok(())
    } else {
        Err(Failure::failed(
            format!("{} changed after it was approved.", path.display()),
            "Publish the approved file, or ask for approval of the new one.",
        ))
    }
}

#[cfg(test)]
mod tests;
