//! Where else a token may still lie: whoever reads it there publishes past the broker.

use crate::{context::Context, fail::Failure};
use proto::{
    api::{TokenLine, TokenName, TokenPrint},
    text::harmless,
};
use serde_json::json;
use std::path::Path;

/// What is looked through. The registry's kind is not asked for: a token of any may lie in any.
const PLACES: [&str; 7] = [
    "the forge: secrets of the repository, of each environment and of the organisation (gh secret list, gh secret list --env E, gh secret list --org O), \
     Dependabot's and Codespaces' too",
    "other CI: variables and contexts of GitLab, CircleCI, Buildkite, Jenkins",
    "clients' files on every maintainer's machine: ~/.npmrc and the project's .npmrc, ~/.yarnrc.yml, ~/.pypirc, ~/.config/pip, \
     ~/.cargo/credentials.toml, ~/.gem/credentials, ~/.docker/config.json",
    "environments: .env files, shell profiles, container images",
    "shell histories, password stores, chats and mails that it came by",
    "build servers and machines of people who left",
    "trusted publishers, which need no token: countersign admin doctor",
];

/// Names a token.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin token emptied 3f9c2a17    # I looked: it is nowhere but here

The broker cannot see other places, so it takes your word and records it. Until then the token is shown as perhaps \
elsewhere; nothing else depends on it.")]
pub(crate) struct EmptiedArgs {
    /// The token's print, as `countersign admin token list` shows it
    print: String,
}

/// `countersign admin token emptied`
pub(super) async fn emptied(context: &Context, args: EmptiedArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let of = TokenPrint {
        fingerprint: args.print,
    };
    let path = "/v1/admin/tokens/emptied";
    let names: Vec<TokenName> = device.broker.post(path, &of, device.proof()).await?;
    let all: Vec<_> = names
        .iter()
        .map(|n| format!("{}:{}", n.registry, harmless(&n.scope)))
        .collect();
    let text = format!("recorded: {} is nowhere but here", all.join(", "));
    context.out.result(&json!(names), &text)
}

/// What is to be done after a token was stored, in lines; nothing where whoever stored it said that it is done.
pub(crate) fn after(stored: &TokenLine, from: Option<&Path>) -> Vec<String> {
    if stored.emptied.is_some() {
        return Vec::new();
    }
    let mut out = vec![
        "Whoever reads it elsewhere publishes past the broker. Look, and delete it there:"
            .to_owned(),
    ];
    let file = from.filter(|path| *path != Path::new("-"));
    out.extend(file.map(|path| {
        format!(
            "  [ ] the file that it was just read from: {}",
            path.display()
        )
    }));
    out.extend(PLACES.iter().map(|place| format!("  [ ] {place}")));
    out.push(format!(
        "Then say so: countersign admin token emptied {}",
        harmless(&stored.fingerprint)
    ));
    out
}
