//! `admin watch`: what registries serve, against what the broker published.

use super::check_package;
use crate::{context::Context, edge, fail::Failure, out::span};
use proto::{
    ids::VersionText,
    text::harmless,
    watch::{WatchLine, WatchReport, WatchRequest},
};

/// Versions of a list that are shown.
const SHOWN: usize = 20;

/// What registries serve.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin watch
  countersign admin watch npm:@acme/left --now
  countersign admin watch --json

Watched are the packages that the policy names exactly and those that were published through the \
broker. It exits 1 while an alarm stands: find out who published, then two admins thaw the package.")]
pub(crate) struct WatchArgs {
    /// Only this package (REGISTRY:PACKAGE)
    package: Option<String>,
    /// Look now, and do not wait for the next round
    #[arg(long)]
    now: bool,
}

/// `countersign admin watch`
pub(crate) async fn run(context: &Context, args: WatchArgs) -> Result<(), Failure> {
    args.package.iter().try_for_each(|p| check_package(p))?;
    let device = context.device()?;
    let path = "/v1/admin/watch";
    let mut report: WatchReport = if args.now {
        let request = WatchRequest {
            package: args.package.clone(),
        };
        device.broker.post(path, &request, device.proof()).await?
    } else {
        device.broker.get(path, device.proof()).await?
    };
    if let Some(only) = &args.package {
        report.packages.retain(|line| line.package == *only);
        if report.packages.is_empty() {
            return Err(Failure::failed(
                format!("{} is not watched.", harmless(only)),
                "Name it exactly in the policy; a package under a pattern is watched once it was published here.",
            ));
        }
    }
    if context.out.json {
        context.out.json(&report)?;
    } else {
        show(context, &report)?;
    }
    match alarms(&report).len() {
        0 => Ok(()),
        n => Err(Failure::failed(
            format!("{n} package(s) are frozen for what their registry shows."),
            "Find out who published, revoke that access, then `countersign admin thaw` by two admins.",
        )),
    }
}

/// What `admin status` says, too.
pub(crate) fn alarms(report: &WatchReport) -> Vec<String> {
    let found = report
        .packages
        .iter()
        .filter_map(|line| line.alarm.as_ref());
    found.map(|words| harmless(words)).collect()
}

/// Whether an admin stopped everything.
pub(crate) fn standstill(context: &Context, report: &WatchReport) -> Result<(), Failure> {
    let Some(stopped) = &report.stopped else {
        return Ok(());
    };
    let by = stopped.by.as_ref().map_or("somebody", |by| by.as_str());
    let why = stopped.reason.as_deref().map(harmless);
    let why = why.map_or_else(String::new, |why| format!(" ({why})"));
    let asked = match stopped.thawing.len() {
        0 => String::new(),
        n => format!("; {n} of 2 people asked for the thaw"),
    };
    let text = format!(
        "! EVERYTHING IS FROZEN since {}, by {by}{why}{asked}: countersign admin thaw --all",
        stopped.since.rfc3339()
    );
    context.out.line(&context.out.warning(&text))
}

fn show(context: &Context, report: &WatchReport) -> Result<(), Failure> {
    let every = report.every.map_or_else(
        || "the watch is off ([watch] of the broker's configuration)".to_owned(),
        |seconds| format!("every {}", span(seconds)),
    );
    context.out.line(&every)?;
    standstill(context, report)?;
    if report.packages.is_empty() {
        return context.out.line(
            "nothing is watched yet: a package that the policy names exactly, or that was published here, would be",
        );
    }
    let now = edge::now();
    report.packages.iter().try_for_each(|line| {
        let looked = line.looked.map_or_else(
            || "not looked at yet".to_owned(),
            |at| format!("looked {} ago", span(now.since(at))),
        );
        let frozen = if line.frozen { ", frozen" } else { "" };
        context.out.line(&format!(
            "{}  {looked}; {} from before, {} published here{frozen}",
            context.out.bold(&harmless(&line.package)),
            line.before,
            line.published
        ))?;
        details(context, line)
    })
}

fn details(context: &Context, line: &WatchLine) -> Result<(), Failure> {
    if let Some(alarm) = &line.alarm {
        let text = format!("! {}", harmless(alarm));
        context.out.line(&context.out.warning(&text))?;
    }
    if let (Some(why), Some(since)) = (&line.problem, line.problem_since) {
        let text = format!("! not seen since {}: {}", since.rfc3339(), harmless(why));
        context.out.line(&context.out.warning(&text))?;
    }
    let lists = [
        ("published past the broker", &line.others),
        ("gone", &line.gone),
        ("yanked", &line.withdrawn),
        (
            "there before it was watched (shown once)",
            &line.first_shown,
        ),
    ];
    for (what, versions) in lists {
        if !versions.is_empty() {
            context
                .out
                .line(&format!("    {what}: {}", some(versions)))?;
        }
    }
    Ok(())
}

fn some(versions: &[VersionText]) -> String {
    let shown: Vec<_> = versions
        .iter()
        .take(SHOWN)
        .map(|v| harmless(v.as_str()))
        .collect();
    match versions.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
