//! `admin stages`: what registries keep aside, unpublished, until one of their own people approves it.

use crate::{context::Context, fail::Failure};
use proto::{api::Stages, text::harmless};

/// `countersign admin stages`
pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let device = context.device()?;
    let seen: Stages = device
        .broker
        .get("/v1/admin/stages", device.proof())
        .await?;
    if context.out.json {
        return context.out.json(&seen);
    }
    if seen.stages.is_empty() && seen.unknown.is_empty() {
        return context.out.line("nothing is staged");
    }
    for s in &seen.stages {
        let name = format!("{}:{}@{}", s.registry, s.package, s.version);
        context.out.line(&format!(
            "{}  as {}  stage {}",
            context.out.bold(&harmless(&name)),
            harmless(&s.tag),
            harmless(&s.stage)
        ))?;
        let by = format!("by {}, {}", harmless(&s.actor), harmless(&s.created));
        let line = s.request.map_or_else(
            || {
                let foreign =
                    "! this broker did not make it: look into it, and reject it at the registry";
                format!("    {by}\n    {}", context.out.warning(foreign))
            },
            |request| format!("    {by}, for the request {request}"),
        );
        context.out.line(&line)?;
    }
    for what in &seen.unknown {
        context.out.note(&format!("not known: {}", harmless(what)));
    }
    Ok(())
}
