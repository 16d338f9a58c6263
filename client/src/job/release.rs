//! From an approval to a publish: collects the credential, and runs the registry's client for every item.

use super::{
    crates, distribution, python,
    session::Session,
    settle,
    signals::Signals,
    tarball,
    tool::{Plan, Target},
};
use crate::{context::Context, fail::Failure, http::Broker};
use proto::{
    api::{Mode, StateName},
    digest::Digest,
    text::harmless,
};
use std::path::Path;

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
    let credential = match (mode, release.credential.take()) {
        (Mode::Forward, Some(credential)) => zeroize::Zeroizing::new(credential),
        _ => {
            return Err(Failure::refused(
                "The broker gave no credential for a publish.",
                "Ask an admin which mode the policy has for this package.",
            ));
        }
    };
    let failed = run_all(context, session, command, folder, &credential, signals).await?;
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
    let credential = session.deposit.as_deref().unwrap_or_default();
    let failed = run_all(context, session, command, folder, credential, signals).await?;
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
        if !status.success() {
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
