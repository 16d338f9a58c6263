//! What opens the vault when the broker starts.

use anyhow::{Context as _, Result};
use broker::{
    admin::custody,
    config::Config,
    desk::Desk,
    publish::Refusal,
    secret::Secret,
    vault::{Unseal, key_file},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Opens the vault at the start, where the configuration says how; else an admin does.
pub(super) async fn unseal(config: &Config, desk: &Arc<Desk>) -> Result<()> {
    let u = &config.unseal;
    let secret = if let Some(path) = &u.passphrase_file {
        Unseal::Passphrase(Secret::new(read_secret(path)?))
    } else if u.identity_file.is_some() || u.credential.is_some() {
        Unseal::Identity(Secret::new(read_secret(&identity_path(config)?)?))
    } else {
        tracing::warn!(
            "the vault is sealed; an admin unseals it: countersign admin unseal (before anybody is enrolled: the first admin's countersign enroll asks for the passphrase)"
        );
        return Ok(());
    };
    let method = match &secret {
        Unseal::Passphrase(_) => "passphrase",
        _ => "identity",
    };
    let file = custody::file::read(desk).await.context("the key file")?;
    let methods = key_file::methods(file.expose()).context("the key file")?;
    // An admin changed what opens the vault. Sealed is the safer side, and a daemon that ends could be opened by nobody.
    if !methods.contains(&method) {
        tracing::warn!(
            "the vault is sealed: [unseal] names a {method}, and the key file is opened by: {}; take [unseal] out, and: countersign admin unseal",
            methods.join(", ")
        );
        return Ok(());
    }
    match custody::unseal(desk, secret, &[], desk.world.now()).await {
        // Another passphrase or identity since: as above.
        Err(Refusal::NotAllowed(why)) => {
            tracing::error!(
                why,
                "the vault is sealed: what [unseal] names does not open it; mend it, and start again, or: countersign admin unseal"
            );
            Ok(())
        }
        done => done.context("the vault cannot be unsealed"),
    }
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
