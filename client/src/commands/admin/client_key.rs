//! `admin client-key`: keys for CI without OIDC. A stolen one lets somebody ask, never publish.

use super::check_package;
use crate::{context::Context, fail::Failure, job::idtoken};
use proto::{
    api::{ClientKeyLine, ClientKeyRequest},
    device::DevicePublic,
    ids::ClientKeyId,
    text::harmless,
};
use std::path::PathBuf;

/// What is done with client keys.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Make a key file here and print its public key; asks no broker
    #[command(after_help = "\
Example:
  countersign admin client-key new ci --out ci.key

Give the file to the CI job as COUNTERSIGN_CLIENT_KEY (its path, or its text), and register the \
public key with `countersign admin client-key add`.")]
    New {
        /// The key's name
        name: ClientKeyId,
        /// Where to write it (mode 0600)
        #[arg(long)]
        out: PathBuf,
    },
    /// Register a public key
    #[command(after_help = "\
Example:
  countersign admin client-key add ci 3b6a27bc… --package npm:@acme/left")]
    Add {
        /// The key's name, as in its file
        name: ClientKeyId,
        /// The public key: 64 hex digits
        #[arg(value_parser = |s: &str| DevicePublic::try_from(s.to_owned()))]
        public_key: DevicePublic,
        /// A package that it may ask for (REGISTRY:PACKAGE, exact); may be given again
        #[arg(long = "package", value_name = "PACKAGE", required = true)]
        packages: Vec<String>,
    },
    /// Which keys are registered
    List,
    /// Remove a key
    Remove {
        /// The key's name
        name: ClientKeyId,
    },
}

/// Runs it.
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::New { name, out } => {
            let public = idtoken::new_key(&name, &out)?;
            let value = serde_json::json!({"name": name, "public_key": public, "file": out});
            context.out.result(&value, &public)
        }
        Command::Add {
            name,
            public_key,
            packages,
        } => {
            packages.iter().try_for_each(|p| check_package(p))?;
            let device = context.device()?;
            let request = ClientKeyRequest {
                name,
                public_key,
                packages,
            };
            device
                .broker
                .post_only("/v1/admin/client-keys", Some(&request), device.proof())
                .await?;
            context
                .out
                .result(&request, &format!("registered {}", request.name))
        }
        Command::List => list(context).await,
        Command::Remove { name } => {
            let device = context.device()?;
            let path = format!("/v1/admin/client-keys/{name}");
            device.broker.delete(&path, device.proof()).await?;
            context.out.result(
                &serde_json::json!({"removed": name}),
                &format!("removed {name}"),
            )
        }
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let device = context.device()?;
    let keys: Vec<ClientKeyLine> = device
        .broker
        .get("/v1/admin/client-keys", device.proof())
        .await?;
    if context.out.json {
        return context.out.json(&keys);
    }
    keys.iter().try_for_each(|k| {
        let packages = harmless(&k.packages.join(", "));
        context.out.line(&format!(
            "{}  since {}  {packages}",
            k.name,
            k.added.rfc3339()
        ))
    })
}
