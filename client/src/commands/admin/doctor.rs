//! `admin doctor`: other ways to publish a package than through the broker.

use super::check_package;
use crate::{context::Context, fail::Failure};
use proto::{
    doctor::{Checkup, DoctorReport, DoctorRequest},
    text::harmless,
};

/// Other ways to publish.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin doctor
  countersign admin doctor npm:@acme/left crates:acme-left
  countersign admin doctor --json

Without a package it looks at all that are watched. It exits 1 if there is something to mend.")]
pub(crate) struct DoctorArgs {
    /// REGISTRY:PACKAGE
    packages: Vec<String>,
}

/// `countersign admin doctor`
pub(crate) async fn run(context: &Context, args: DoctorArgs) -> Result<(), Failure> {
    args.packages.iter().try_for_each(|p| check_package(p))?;
    let request = DoctorRequest {
        packages: args.packages,
    };
    let device = context.device()?;
    let report: DoctorReport = device
        .broker
        .post("/v1/admin/doctor", &request, device.proof())
        .await?;
    // A broker that left out what it was asked for has not cleared it.
    let missing = |p: &&String| !report.packages.iter().any(|c| c.package == **p);
    if let Some(package) = request.packages.iter().find(missing) {
        return Err(Failure::failed(
            format!("{} was not looked at.", harmless(package)),
            "Ask about fewer packages at once.",
        ));
    }
    if context.out.json {
        context.out.json(&report)?;
    } else {
        report.packages.iter().try_for_each(|c| show(context, c))?;
        if report.left_out > 0 {
            let more = report.left_out;
            context
                .out
                .note(&format!("{more} more packages were left out: name them."));
        }
    }
    match report
        .packages
        .iter()
        .map(|c| c.findings.len())
        .sum::<usize>()
    {
        0 => Ok(()),
        n => Err(Failure::failed(
            format!("{n} finding(s): the broker is not the only way in."),
            "Mend each as it says, then run this again.",
        )),
    }
}

fn show(context: &Context, checkup: &Checkup) -> Result<(), Failure> {
    let out = &context.out;
    out.line(&out.bold(&harmless(&checkup.package)))?;
    for finding in &checkup.findings {
        out.line(&out.warning(&format!("! {}", harmless(&finding.what))))?;
        out.line(&format!("    {}", harmless(&finding.next)))?;
    }
    if !checkup.asked.is_empty() {
        let asked: Vec<_> = checkup.asked.iter().map(|a| harmless(a)).collect();
        out.line(&format!("  asked: {}", asked.join(", ")))?;
    }
    for unasked in &checkup.unasked {
        out.line(&format!("  could not be asked: {}", harmless(unasked)))?;
    }
    for check in &checkup.checklist {
        let link = check.link.as_deref().map(harmless);
        let link = link.map_or_else(String::new, |l| format!("\n      {l}"));
        out.line(&format!("  [ ] {}{link}", harmless(&check.what)))?;
    }
    Ok(())
}
