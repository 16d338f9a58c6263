//! What opens the vault when the broker starts.

use anyhow::{Context as _, Result};
use broker::{
    admin::custody,
    config::Config,
    desk::Desk,
    publish::Refusal,
    secret::Secret,
    vault::{
        Unseal,
        key_file::{self, Plugin},
    },
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How long the start waits for an age plugin, before it goes on sealed.
const PLUGIN_FIRST: Duration = Duration::from_secs(5);

/// Opens the vault at the start, where the configuration says how; else an admin does.
pub(super) async fn unseal(config: &Config, desk: &Arc<Desk>) -> Result<()> {
    let u = &config.unseal;
    let path = match &u.passphrase_file {
        Some(path) => path.clone(),
        None if u.identity_file.is_some() || u.credential.is_some() => identity_path(config)?,
        None => {
            tracing::warn!(
                "the vault is sealed; an admin unseals it: countersign admin unseal (before anybody is enrolled: the first admin's countersign enroll asks for the passphrase)"
            );
            return Ok(());
        }
    };
    let text = Secret::new(read_secret(&path)?);
    let file = custody::file::read(desk).await.context("the key file")?;
    let methods = key_file::methods(file.expose()).context("the key file")?;
    // While an identity gives way to a plugin, the file may have lines for both.
    let before = methods.contains(&"identity") && !methods.contains(&"plugin");
    let method = match (&u.passphrase_file, &u.plugin) {
        (Some(_), _) => "passphrase",
        (None, Some(_)) if !before => "plugin",
        _ => "identity",
    };
    // An admin changed what opens the vault. Sealed is the safer side, and a daemon that ends could be opened by nobody.
    if !methods.contains(&method) {
        tracing::warn!(
            "the vault is sealed: [unseal] names a {method}, and the key file is opened by: {}; name that there and start again, or take [unseal] out, and: countersign admin unseal",
            methods.join(", ")
        );
        return Ok(());
    }
    let secret = match &u.plugin {
        _ if method == "passphrase" => Unseal::Passphrase(text),
        Some(program) if method == "plugin" => match Plugin::new(program, &text) {
            Ok(plugin) => Unseal::Plugin(plugin),
            Err(why) => {
                tracing::error!(%why, "the vault is sealed: what [unseal] names does not open it; mend it, and start again");
                return Ok(());
            }
        },
        _ => Unseal::Identity(text),
    };
    if method != "plugin" {
        return opened(desk, secret).await;
    }
    // Somebody may have to touch a key. Meanwhile people can look, and stop things.
    let own = Arc::clone(desk);
    let mut opening = tokio::spawn(async move {
        let done = opened(&own, secret).await;
        if let Err(why) = &done {
            tracing::error!(?why, "the vault is sealed");
        }
        done
    });
    if let Ok(done) = tokio::time::timeout(PLUGIN_FIRST, &mut opening).await {
        return done.context("the vault cannot be unsealed")?;
    }
    tracing::warn!(
        "the vault is sealed: the age plugin has not answered yet; touch its key where it wants that"
    );
    Ok(())
}

async fn opened(desk: &Arc<Desk>, secret: Unseal) -> Result<()> {
    match custody::unseal(desk, secret, &[], desk.world.now()).await {
        // Another passphrase or identity since: sealed, as where another method is named.
        Err(Refusal::NotAllowed(why)) => {
            tracing::error!(
                why,
                "the vault is sealed: what [unseal] names does not open it; mend it, and start again, or: countersign admin unseal"
            );
            Ok(())
        }
        done => {
            done.context("the vault cannot be unsealed")?;
            tracing::info!("the vault is open");
            Ok(())
        }
    }
}

/// What `check` says of the plugin's program. It is not run.
pub(crate) fn look_at_plugin(config: &Config) -> Result<()> {
    if let Some(program) = &config.unseal.plugin {
        Plugin::check(program)?;
    }
    Ok(())
}

/// Where the age identity lies that opens the vault.
pub(super) fn identity_path(config: &Config) -> Result<PathBuf> {
    if let Some(path) = &config.unseal.identity_file {
        return Ok(path.clone());
    }
    let name = config.unseal.credential.as_deref().unwrap_or_default();
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY")
        .context("[unseal] credential: $CREDENTIALS_DIRECTORY is not set; systemd sets it for LoadCredential=")?;
    Ok(PathBuf::from(folder).join(name))
}

/// A file with a secret in one line.
pub(super) fn read_secret(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: cannot be read", path.display()))?;
    Ok(text.trim_end_matches('\n').to_owned())
}
