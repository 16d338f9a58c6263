//! The doctor: other ways to publish a package than through this broker. It asks the registry what can be
//! asked, and leaves the rest to a person as a list.

use crate::{
    desk::{Desk, Fault},
    publish::{Refusal, ledger},
    registry::{Account, Door, Doors, Upstream},
    secret::Secret,
    vault::release as vault,
};
use proto::{
    doctor::{Check, Checkup, DoctorReport, Finding},
    ids::{PackageName, RegistryId},
};
use std::time::Duration;
use url::Url;

/// Packages in one call.
const PACKAGES_MAX: usize = 50;
/// Time for all questions about one package.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks at these packages.
pub async fn doctor(
    desk: &Desk,
    packages: &[(RegistryId, PackageName)],
) -> Result<DoctorReport, Refusal> {
    let looked = packages.iter().take(PACKAGES_MAX);
    let all = looked.map(|(registry, package)| checkup(desk, registry, package));
    let all = futures_util::future::join_all(all).await;
    Ok(DoctorReport {
        packages: all.into_iter().collect::<Result<_, _>>()?,
        left_out: packages.len().saturating_sub(PACKAGES_MAX),
    })
}

async fn checkup(
    desk: &Desk,
    registry: &RegistryId,
    package: &PackageName,
) -> Result<Checkup, Refusal> {
    let name = format!("{registry}:{package}");
    let upstream = desk.upstream(registry).ok_or(Refusal::NotFound)?;
    let now = desk.world.now();
    let token = vault::for_reading(&desk.vault, &*desk.live, registry, package, now)
        .map_err(Fault::from)?;
    let asking = async {
        let doors = upstream.doors(package, token.as_ref()).await;
        (doors, account(upstream, token.as_ref()).await)
    };
    let answers = tokio::time::timeout(PATIENCE, asking).await;
    let (doors, own) = answers.unwrap_or_else(|_| {
        let why = "the registry did not answer in time".to_owned();
        let none = Doors {
            unasked: vec![("everything", why)],
            ..Doors::default()
        };
        (none, None)
    });
    let mut findings = own_house(desk, &name, token.is_some())?;
    findings.extend(
        doors
            .found
            .iter()
            .filter_map(|d| finding(d, own.as_deref())),
    );
    let unasked = |(what, why): &(&'static str, String)| format!("{what}: {why}");
    Ok(Checkup {
        package: name,
        findings,
        asked: doors.asked.iter().map(|q| (*q).to_owned()).collect(),
        unasked: doors.unasked.iter().map(unasked).collect(),
        checklist: checklist(upstream, package, desk.place.web.get(registry)),
    })
}

/// Whose the broker's token is, where the registry says so.
async fn account(upstream: &dyn Upstream, token: Option<&Secret<String>>) -> Option<String> {
    match upstream.whoami(token?).await {
        Ok(Account::Named(name)) => Some(name),
        _ => None,
    }
}

/// What is wrong on the broker's own side.
fn own_house(desk: &Desk, package: &str, has_token: bool) -> Result<Vec<Finding>, Refusal> {
    let mut out = Vec::new();
    let mut say = |what: String, next: &str| {
        out.push(Finding {
            what,
            next: next.to_owned(),
        });
    };
    if !has_token {
        say(
            format!(
                "The broker has no token for {package}: whoever publishes it does so elsewhere."
            ),
            "Store one: countersign admin token add.",
        );
    }
    if desk.place.watch_every.is_none() {
        say(
            "The watch is off: nobody notices what is published past the broker.".to_owned(),
            "Set `every` in [watch] of countersign.toml.",
        );
    }
    if let Some(seen) = ledger::freeze(desk, package)?.and_then(|(_, freeze)| freeze.seen) {
        say(
            format!("The package is frozen: {}.", seen.words()),
            "Find out who published, revoke that access, then thaw it (countersign admin thaw).",
        );
    }
    Ok(out)
}

fn finding(door: &Door, own: Option<&str>) -> Option<Finding> {
    let (what, next) = match door {
        Door::TrustedPublisher(who) => (
            format!(
                "The registry trusts {who} to publish: whoever rules that repository publishes past the broker."
            ),
            "Remove the trusted publisher in the package's settings at the registry.",
        ),
        Door::PublishedByForge(who) => (
            format!(
                "The newest release came in by the identity of {who}, and not by a token: a trusted publisher may still be set."
            ),
            "Remove the trusted publisher in the package's settings at the registry, and publish through the broker.",
        ),
        Door::Owners(all) => {
            let others: Vec<_> = all
                .iter()
                .filter(|o| own != Some(o.as_str()))
                .cloned()
                .collect();
            // One account is the broker's own, even where the registry does not say which.
            if others.is_empty() || (own.is_none() && all.len() == 1) {
                return None;
            }
            (
                format!(
                    "These accounts can publish past the broker: {}.",
                    others.join(", ")
                ),
                "Remove every owner that is not needed, and the publishing tokens of those who stay.",
            )
        }
        Door::Team(team) => (
            format!(
                "The team {team} can publish: whoever rules that organisation adds himself to it."
            ),
            "Remove the team from the owners.",
        ),
        Door::TokensShut => (
            "The registry takes trusted publishers alone, no token: the broker cannot publish."
                .to_owned(),
            "Allow tokens in the package's settings, and remove the trusted publishers.",
        ),
    };
    Some(Finding {
        what,
        next: next.to_owned(),
    })
}

/// What only a person can see, with links where the configuration knows the registry's web pages.
fn checklist(upstream: &dyn Upstream, package: &PackageName, web: Option<&Url>) -> Vec<Check> {
    let pages = upstream.pages().iter().map(|(what, path)| Check {
        what: (*what).to_owned(),
        link: web
            .and_then(|web| web.join(&path.replace("{name}", package.as_str())).ok())
            .map(String::from),
    });
    let words = [
        "No secret of the forge (organisation, repository, environment) holds a token of this registry: delete it there and revoke it at the registry.",
        "No maintainer's machine or other CI has a token that may publish this package.",
    ];
    let words = words.iter().map(|what| Check {
        what: (*what).to_owned(),
        link: None,
    });
    pages.chain(words).collect()
}
