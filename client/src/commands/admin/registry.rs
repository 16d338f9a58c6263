//! `admin registry add`: the configuration's block for a registry.
//!
//! No registry's address is built in: the client that is already installed is asked, or the admin
//! names one. The block goes to standard output or to the end of `countersign.toml`, on the broker's
//! machine; the daemon reads it at its next start. No call to the broker is made: who may write that
//! file decides where tokens go, and that is not a call's business.

use crate::{
    context::Context,
    fail::Failure,
    http::{is_loopback, web_address},
};
use proto::{ids::RegistryId, text::harmless};
use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use url::Url;

/// How long an installed client may think about its own settings.
const ASK_TIME: Duration = Duration::from_secs(30);

/// What is done with registries.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Print the configuration's block for a registry, or add it to the configuration
    Add(AddArgs),
}

/// A registry's protocol.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// npm's protocol
    Npm,
    /// Secrets that jobs are shown themselves; without an address
    Generic,
}

/// Print the configuration's block for a registry.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin registry add npm --listen 127.0.0.1:8441 --public-url https://npm.broker.example.org
  countersign admin registry add work --scope @acme --listen 127.0.0.1:8443 \\
      --public-url https://work.broker.example.org --config /etc/countersign/countersign.toml
  countersign admin registry add secrets --kind generic

Without --url the installed npm is asked (`npm config get registry`, or the scope's own registry). Run \
`countersignd check` and start the daemon again afterwards; then `countersign admin token add`.")]
pub(crate) struct AddArgs {
    /// Its name in requests, as in npm:@acme/left
    name: RegistryId,
    /// Its protocol
    #[arg(long, value_enum, default_value = "npm")]
    kind: Kind,
    /// Its address; else the installed client is asked
    #[arg(long)]
    url: Option<String>,
    /// Ask the installed client for this scope's registry
    #[arg(long, value_name = "@SCOPE", conflicts_with = "url")]
    scope: Option<String>,
    /// Where the broker's endpoint for it listens: an address and port of its own
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// What jobs call that endpoint: scheme, host and port
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Add the block to the end of this configuration instead of printing it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs it.
pub(crate) async fn run(context: &Context, command: &Command) -> Result<(), Failure> {
    let Command::Add(args) = command;
    let block = match args.kind {
        Kind::Generic => generic(args)?,
        Kind::Npm => npm(args).await?,
    };
    let Some(path) = &args.config else {
        let value = serde_json::json!({"registry": args.name, "block": block});
        return context.out.result(&value, block.trim_end());
    };
    append(path, &args.name, &block)?;
    context.out.note(
        "Next: `countersignd check --config FILE`, start the daemon again, `countersign admin token add`.",
    );
    let value = serde_json::json!({"registry": args.name, "block": block, "file": path});
    let text = format!("registry {} added to {}", args.name, path.display());
    context.out.result(&value, &text)
}

fn generic(args: &AddArgs) -> Result<String, Failure> {
    let npms = args.url.is_some() || args.scope.is_some();
    if npms || args.listen.is_some() || args.public_url.is_some() {
        return Err(Failure::usage(
            "A generic registry has no address.",
            "Leave out --url, --scope, --listen and --public-url.",
        ));
    }
    Ok(format!(
        "[[registry]]\nname = \"{}\"\nkind = \"generic\"\n",
        args.name
    ))
}

async fn npm(args: &AddArgs) -> Result<String, Failure> {
    let (Some(listen), Some(public)) = (args.listen, &args.public_url) else {
        return Err(Failure::usage(
            "A registry of kind npm needs an origin of its own at the broker.",
            "Give --listen ADDRESS:PORT and --public-url URL, other ones than the broker's.",
        ));
    };
    let public = web_address(public, "public URL")?;
    if public.path() != "/" || public.query().is_some() || public.fragment().is_some() {
        return Err(Failure::usage(
            "The public URL is more than scheme, host and port.",
            "Registry clients derive addresses from the host's root: give it a host name of its own.",
        ));
    }
    let text = match &args.url {
        Some(text) => text.clone(),
        None => ask_npm(args.scope.as_deref()).await?,
    };
    let url = web_address(&text, "registry's address")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Failure::usage(
            "The registry's address has a query or a fragment.",
            "Give it as the registry's own manual does.",
        ));
    }
    if is_own(&url, &public) {
        return Err(Failure::usage(
            "The registry's address is the broker's own endpoint.",
            "This machine's npm points at the broker: give the real registry with --url.",
        ));
    }
    // Parsed addresses and names hold no quote, no backslash and no control character.
    Ok(format!(
        "[[registry]]\nname       = \"{}\"\nkind       = \"npm\"\nurl        = \"{}\"\n\
         listen     = \"{listen}\"\npublic_url = \"{}\"\n",
        args.name,
        url.as_str().trim_end_matches('/'),
        public.as_str().trim_end_matches('/'),
    ))
}

/// Whether two addresses are one place; a broker that asks itself would answer for the registry.
fn is_own(url: &Url, public: &Url) -> bool {
    let port = |u: &Url| u.port_or_known_default();
    let local = is_loopback(url) && is_loopback(public);
    port(url) == port(public) && (local || url.host_str() == public.host_str())
}

/// `npm config get registry`, in a folder without a project's settings.
async fn ask_npm(scope: Option<&str>) -> Result<String, Failure> {
    let key = match scope {
        None => "registry".to_owned(),
        Some(scope) => {
            let good = scope.strip_prefix('@').is_some_and(|name| {
                !name.is_empty()
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            });
            if !good {
                return Err(Failure::usage(
                    format!("'{}' is not a scope.", harmless(scope)),
                    "Write it like @acme.",
                ));
            }
            format!("{scope}:registry")
        }
    };
    let failed = |why: String| {
        Failure::failed(
            format!("The installed npm does not name its registry: {why}."),
            "Give the registry's address with --url.",
        )
    };
    let mut command = tokio::process::Command::new("npm");
    command
        .args(["config", "get", &key])
        .current_dir(std::env::temp_dir())
        .kill_on_drop(true);
    let output = tokio::time::timeout(ASK_TIME, command.output())
        .await
        .map_err(|_| failed("it did not answer".to_owned()))?
        .map_err(|e| failed(e.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || text.is_empty() || text == "undefined" {
        return Err(failed(format!("`npm config get {key}` gave nothing")));
    }
    Ok(text)
}

/// Adds the block to a configuration that has no registry of this name.
fn append(path: &Path, name: &RegistryId, block: &str) -> Result<(), Failure> {
    let fail = |e: &std::io::Error| Failure::file(path, e);
    let text = std::fs::read_to_string(path).map_err(|e| fail(&e))?;
    let table: toml::Table = toml::from_str(&text).map_err(|e| {
        Failure::failed(
            format!("{} is no configuration: {}.", path.display(), e.message()),
            "Mend it first: `countersignd check --config FILE`.",
        )
    })?;
    let known = table.get("registry").and_then(toml::Value::as_array);
    let same =
        |r: &toml::Value| r.get("name").and_then(toml::Value::as_str) == Some(&name.to_string());
    if known.is_some_and(|all| all.iter().any(same)) {
        return Err(Failure::usage(
            format!("{} has a registry '{name}' already.", path.display()),
            "Choose another name, or edit the file.",
        ));
    }
    let gap = if text.is_empty() || text.ends_with('\n') {
        "\n"
    } else {
        "\n\n"
    };
    // Appended in place: owner and mode of the file stay.
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(path)
        .map_err(|e| fail(&e))?;
    file.write_all(format!("{gap}{block}").as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|e| fail(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: &str) -> AddArgs {
        AddArgs {
            name: "npm".parse().unwrap(),
            kind: Kind::Npm,
            url: Some(url.into()),
            scope: None,
            listen: Some("127.0.0.1:8441".parse().unwrap()),
            public_url: Some("https://npm.broker.example".into()),
            config: None,
        }
    }

    fn block(args: &AddArgs) -> Result<String, Failure> {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(npm(args))
    }

    #[test]
    fn a_block_is_toml_and_says_what_was_given() {
        let text = block(&args("https://registry.example/npm/")).unwrap();
        let table: toml::Table = toml::from_str(&text).unwrap();
        let entry = &table["registry"][0];
        assert_eq!(entry["url"].as_str(), Some("https://registry.example/npm"));
        assert_eq!(entry["listen"].as_str(), Some("127.0.0.1:8441"));
        assert_eq!(
            entry["public_url"].as_str(),
            Some("https://npm.broker.example")
        );
    }

    #[test]
    fn an_address_that_would_leak_or_turn_in_a_circle_is_refused() {
        for bad in [
            "http://registry.example",
            "https://user:secret@registry.example",
            "https://npm.broker.example/",
            "https://registry.example/?a",
            "https://registry.example\"\nkind = \"generic",
        ] {
            let refused = block(&args(bad)).unwrap_err();
            assert_eq!(refused.exit as u8, 2, "{bad}");
            assert!(!refused.what.contains("secret"), "{}", refused.what);
        }
    }

    #[test]
    fn a_name_is_added_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("countersign.toml");
        std::fs::write(&path, "data = \"x\"\n[log]\nformat = \"json\"").unwrap();
        let name: RegistryId = "npm".parse().unwrap();
        let text = block(&args("https://registry.example")).unwrap();
        append(&path, &name, &text).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        let table: toml::Table = toml::from_str(&whole).unwrap();
        assert_eq!(table["registry"].as_array().unwrap().len(), 1);
        assert_eq!(table["log"]["format"].as_str(), Some("json"));
        assert_eq!(append(&path, &name, &text).unwrap_err().exit as u8, 2);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    }
}
