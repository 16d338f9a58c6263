//! From an approval to a publish: collects the credential, and runs the registry's client for every item.

use super::{
    crates, distribution, files, gem, oci, python,
    session::Session,
    settle,
    signals::Signals,
    tarball,
    tool::{Plan, Target},
};
use crate::{context::Context, fail::Failure, http::Broker};
use proto::{
    api::{ItemStatus, Minted, Mode, StateName},
    digest::Digest,
    request::Item,
    text::harmless,
};
use std::path::{Path, PathBuf};

/// What the runs of one release have in common.
struct Run<'a> {
    context: &'a Context,
    broker: &'a Broker,
    session: &'a Session,
    /// The user's command; empty: the registry's own client.
    command: &'a [String],
    folder: Option<&'a Path>,
    credential: &'a str,
}

impl Run<'_> {
    fn registry(&self, item: &Item) -> &str {
        let url = self.session.registry_url.get(&item.registry);
        url.map_or("", String::as_str)
    }

    fn target<'t>(&'t self, items: &'t [Item]) -> Target<'t> {
        let tag = |i: &'t Item| i.tag.as_ref().map_or("latest", |t| t.as_str());
        let first = items.first().map(tag);
        Target {
            registry: items.first().map_or("", |i| self.registry(i)),
            credential: self.credential,
            packages: items.iter().map(|i| i.package.as_str()).collect(),
            // Packages with different tags have them in their own settings.
            tag: first.filter(|first| items.iter().all(|i| tag(i) == *first)),
        }
    }

    /// The user's command, once for all items.
    fn command(&self) -> Result<Plan, Failure> {
        let (paths, env) = (&self.session.paths, &self.context.env);
        let target = self.target(&self.session.items);
        let (words, folder) = (self.command, self.folder);
        let first = self.session.items.first();
        if let Some(item) = first.filter(|_| self.session.plain) {
            return files::plan(words, item, target.registry, self.credential, env);
        }
        if let Some(item) = first.filter(|i| oci::is_image(i)) {
            let own = (item, paths.get(..item.files.len()).unwrap_or_default());
            return oci::plan(words, folder, own, target.registry, self.credential, env);
        }
        if paths.iter().any(|p| crates::is_file(p)) {
            crates::plan(words, folder, target.registry, self.credential, env)
        } else if paths.iter().any(|p| gem::is_gem(p)) {
            gem::plan(words, folder, target.registry, self.credential, env)
        } else if paths.iter().any(|p| distribution::is_distribution(p)) {
            python::plan(words, folder, paths, target.registry, self.credential, env)
        } else {
            Plan::command(words, folder, &target, env)
        }
    }
}

/// Collects an approved request, runs the registry's client, and reports what the registry shows. Of a request
/// that was half published before, only the rest is published.
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
    let run = Run {
        context,
        broker,
        session,
        command,
        folder,
        credential: &credential,
    };
    let failed = run_all(&run, &status.items, signals).await?;
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
        url: minted.upload_url.clone(),
        user: minted.user.clone(),
        credential: &minted.token,
    };
    let plan = python::plan_there(command, folder, &session.paths, &there, &context.env)?;
    let status = tokio::select! {
        status = plan.run(context.out.json) => status?,
        stopped = signals.stopped() => return Err(stopped),
    };
    let name = if command.is_empty() {
        "the upload".to_owned()
    } else {
        named(command)
    };
    let failed = (!status.success()).then(|| format!("`{name}` failed ({status})"));
    settle::settle(context, broker, session, failed).await
}

/// Runs the registry's client now: the broker keeps what it uploads until people have approved. The
/// client says that it published; nothing is published yet.
pub(crate) async fn hand_over(
    context: &Context,
    broker: &Broker,
    session: &Session,
    command: &[String],
    folder: Option<&Path>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let run = Run {
        context,
        broker,
        session,
        command,
        folder,
        credential: session.deposit.as_deref().unwrap_or_default(),
    };
    let failed = run_all(&run, &[], signals).await?;
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

/// Runs the client for every item that is not published yet, or the user's command once. Says what failed,
/// if anything did.
async fn run_all(
    run: &Run<'_>,
    published: &[ItemStatus],
    signals: &mut Signals,
) -> Result<Option<String>, Failure> {
    let session = run.session;
    if !run.command.is_empty() {
        let plan = run.command()?;
        return one(run, &named(run.command), &plan, signals).await;
    }
    let mut paths = session.paths.as_slice();
    for (n, item) in session.items.iter().enumerate() {
        let (own, rest) = paths.split_at_checked(item.files.len()).ok_or_else(|| {
            Failure::failed(
                "The request's files are not known here.",
                "Open a new request.",
            )
        })?;
        paths = rest;
        if session.items.len() > 1 {
            let is_done = is_published(published, item);
            let act = if is_done { "already out" } else { "publishing" };
            run.context.out.note(&format!(
                "  {act} {} of {}: {}",
                n + 1,
                session.items.len(),
                harmless(&item.name())
            ));
            if is_done {
                continue;
            }
        }
        // What is published is what was approved, or nothing: the broker would refuse it anyway.
        own.iter()
            .zip(&item.files)
            .try_for_each(|(path, file)| unchanged(path, &file.digest))?;
        let Some(failed) = item_out(run, item, own, signals).await? else {
            continue;
        };
        // Its publish may have gone through all the same; the broker's word decides.
        let now = settle::confirmed(run.context, run.broker, session).await;
        if !now.is_ok_and(|status| is_published(&status.items, item)) {
            return Ok(Some(failed));
        }
    }
    Ok(None)
}

/// Whether the broker has read an item back.
fn is_published(items: &[ItemStatus], item: &Item) -> bool {
    let name = item.name();
    let shown = items.iter().find(|i| i.name == name);
    shown.is_some_and(|i| i.state == StateName::Published)
}

/// Publishes one item with the registry's own client. Each is read back before the next: a package may need
/// those before it.
async fn item_out(
    run: &Run<'_>,
    item: &Item,
    files: &[PathBuf],
    signals: &mut Signals,
) -> Result<Option<String>, Failure> {
    let env = &run.context.env;
    let registry = run.registry(item);
    if run.session.plain {
        return files_out(run, item, files, signals).await;
    }
    if oci::is_image(item) {
        let own = (item, files);
        let plan = oci::plan(&[], None, own, registry, run.credential, env)?;
        return one(run, "skopeo copy", &plan, signals).await;
    }
    match files {
        [path] if crates::is_file(path) => {
            let ca = env.get("COUNTERSIGN_CA").map(Path::new);
            tokio::select! {
                failed = crates::upload(path, registry, run.credential, ca) => failed,
                stopped = signals.stopped() => Ok(Some(stopped_by(&stopped))),
            }
        }
        files if files.iter().any(|p| gem::is_gem(p)) => {
            let ca = env.get("COUNTERSIGN_CA").map(Path::new);
            for path in files {
                let failed = tokio::select! {
                    failed = gem::upload(path, registry, run.credential, ca) => failed?,
                    stopped = signals.stopped() => Some(stopped_by(&stopped)),
                };
                if failed.is_some() {
                    return Ok(failed);
                }
            }
            Ok(None)
        }
        files if files.iter().any(|p| distribution::is_distribution(p)) => {
            let plan = python::plan(&[], None, files, registry, run.credential, env)?;
            one(run, "the upload", &plan, signals).await
        }
        [tarball] => {
            let target = run.target(std::slice::from_ref(item));
            one(
                run,
                "npm publish",
                &Plan::npm(tarball, &target, env)?,
                signals,
            )
            .await
        }
        _ => Err(Failure::usage(
            "The request's files are no package.",
            "Open a new request.",
        )),
    }
}

/// Hands over the files of an item as they are, one after the other.
async fn files_out(
    run: &Run<'_>,
    item: &Item,
    paths: &[PathBuf],
    signals: &mut Signals,
) -> Result<Option<String>, Failure> {
    let ca = run.context.env.get("COUNTERSIGN_CA").map(Path::new);
    let registry = run.registry(item);
    for (file, path) in item.files.iter().zip(paths) {
        let failed = tokio::select! {
            failed = files::upload((item, file, path), registry, run.credential, ca) => failed?,
            stopped = signals.stopped() => Some(stopped_by(&stopped)),
        };
        if failed.is_some() {
            return Ok(failed);
        }
    }
    Ok(None)
}

/// Runs one program. A stopped job waits for its child, which gets the same signal: its files must be removed.
async fn one(
    run: &Run<'_>,
    name: &str,
    plan: &Plan,
    signals: &mut Signals,
) -> Result<Option<String>, Failure> {
    let status = tokio::select! {
        status = plan.run(run.context.out.json) => status?,
        stopped = signals.stopped() => return Ok(Some(stopped_by(&stopped))),
    };
    Ok((!status.success()).then(|| format!("`{name}` failed ({status})")))
}

fn stopped_by(stopped: &Failure) -> String {
    stopped.what.trim_end_matches('.').to_owned()
}

/// What a command is called in a message.
fn named(command: &[String]) -> String {
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
