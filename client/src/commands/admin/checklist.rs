//! What is to be rotated after an incident, and where: the steps of each kind of registry. No call revokes anything
//! here: registries let only a person at their own website do that, who is not this broker.

use crate::{edge, out::span};
use proto::{
    api::{Rotation, TokenLine},
    stop::RegistryLine,
    text::harmless,
};
use serde::Serialize;

/// What is to be done at one registry.
#[derive(Serialize)]
pub(super) struct Part {
    /// The registry, its kind and its web pages.
    pub(super) title: String,
    /// What to do, in order.
    pub(super) steps: Vec<String>,
}

/// The steps at a registry of each kind: what a person does there, and what cannot be undone.
const KINDS: [(&str, &[&str]); 7] = [
    (
        "npm",
        &[
            "npm's website, Access Tokens: delete every token but the new one; `npm token list` and `npm token revoke` need your own login and a code",
            "npm's website, the package's Settings: no trusted publisher but your own, `Require two-factor authentication and disallow tokens` where you stage",
            "npm's website, the package's maintainers, and your own two-factor and recovery codes",
            "a bad version: countersign admin yank REGISTRY PACKAGE VERSION --message TEXT (npm deprecate); `npm unpublish` is for 72 hours and your own login; its number is never free again",
        ],
    ),
    (
        "pypi",
        &[
            "PyPI's website, Account settings, API tokens: remove every token; that ends the short ones that were made of it as well",
            "PyPI's website, the project's Publishing and Collaborators pages: no publisher and nobody whom you do not know",
            "a bad release: PyPI's website, the project's Releases page, Options, Yank. No program can; a deleted file's name is never free again",
        ],
    ),
    (
        "crates",
        &[
            "the registry's website, Account Settings, API Tokens: revoke every token",
            "the registry's website, the crate's Settings: owners (teams are the forge's, and whoever takes the forge takes them), trusted publishing",
            "a bad version: countersign admin yank REGISTRY CRATE VERSION, if the stored token may yank; its number is never free again",
        ],
    ),
    (
        "rubygems",
        &[
            "RubyGems' website, Settings, API Keys: delete every key; your own multi-factor device and recovery codes",
            "RubyGems' website, the gem's owners and trusted publishers",
            "a bad version: countersign admin yank REGISTRY GEM VERSION, if the stored key may yank; the registry takes it for versions of 30 days at most",
        ],
    ),
    (
        "oci",
        &[
            "the server's own users and tokens: this protocol has no call that lists or revokes them",
            "a bad image: push the good one under the tag again, by a request; whoever pulled by digest still has the bad one",
        ],
    ),
    (
        "http",
        &[
            "the server's own users and tokens: this protocol has no call for them, nor one that takes a file back",
        ],
    ),
    (
        "generic",
        &["whatever the secret opens: change it there first, then here"],
    ),
];

/// Of all registries.
pub(super) fn all(registries: &[RegistryLine], tokens: &[TokenLine]) -> Vec<Part> {
    let mut parts: Vec<_> = registries.iter().map(|r| part(r, tokens)).collect();
    parts.push(Part {
        title: "the forge, and everything else".to_owned(),
        steps: [
            "the forge: personal access tokens, deploy keys, apps, repository and organisation secrets that hold a registry token",
            "keys of CI without OIDC: countersign admin client-key list, and client-key remove",
            "people and devices that are not yours: countersign admin people; countersign devices",
            "what admins asked for meanwhile: countersign admin acts; countersign admin veto ID",
            "other ways to publish: countersign admin doctor; countersign admin watch --now",
        ]
        .map(str::to_owned)
        .to_vec(),
    });
    parts
}

fn part(registry: &RegistryLine, tokens: &[TokenLine]) -> Part {
    let name = &registry.registry;
    let web = registry.web.as_deref().map(harmless);
    let web = web.map_or_else(String::new, |web| format!(", {web}"));
    let kind = harmless(&registry.kind);
    let own: Vec<_> = tokens.iter().filter(|t| t.registry == *name).collect();
    let mut steps = Vec::new();
    if own.is_empty() {
        steps.push("no token of it is stored here".to_owned());
    }
    for token in own {
        steps.push(stored(token));
        if token.is_present() {
            let (name, scope) = (token.registry.as_str(), harmless(&token.scope));
            steps.push(format!("make a new one there, then: countersign admin token rotate {name} '{scope}' --token-file FILE"));
        }
    }
    let known = KINDS.iter().find(|(of, _)| *of == kind);
    steps.extend(
        known
            .into_iter()
            .flat_map(|(_, steps)| steps.iter().map(|s| (*s).to_owned())),
    );
    Part {
        title: format!("{name} ({kind}{web})"),
        steps,
    }
}

/// `stored: '@acme/*' version 2, 40 d 3 h old, used 2 h 0 min ago`
fn stored(token: &TokenLine) -> String {
    let now = edge::now();
    let age = span(now.since(token.stored));
    let used = token.used.map_or_else(
        || "never used".to_owned(),
        |used| format!("used {} ago", span(now.since(used))),
    );
    let why = match (token.exposed, token.overlap_until, token.rotation) {
        (true, Some(_), _) => ", AN OLD ONE, AND A JOB HAS SEEN IT: revoke it",
        (true, ..) => ", A JOB HAS SEEN IT",
        _ if token.held => ", an old one, kept until the new one was accepted once",
        (_, Some(_), _) => ", an old one on its way out: revoke it",
        (_, _, Rotation::Now) => ", overdue",
        _ => "",
    };
    format!(
        "stored: '{}' version {}, {age} old, {used}{why}",
        harmless(&token.scope),
        token.version
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_steps() {
        for kind in [
            "npm", "pypi", "crates", "rubygems", "oci", "http", "generic",
        ] {
            let registry = RegistryLine {
                registry: "one".parse().unwrap(),
                kind: kind.to_owned(),
                web: None,
            };
            let parts = all(&[registry], &[]);
            assert_eq!(parts.len(), 2, "{kind}");
            assert!(parts[0].steps.len() >= 2, "{kind}");
        }
    }
}
