//! Starting, serving and stopping.

mod desk;
mod init;
mod restore;
mod rounds;
mod unseal;

use anyhow::{Context as _, Result, bail};
use broker::{
    admin::{
        anchor, clock,
        gate::{self, policy::Settled},
    },
    audit::event::Event,
    challenge::passkey::Passkeys,
    config::{self, Config},
    desk::Desk,
    http::{auth::Signatures, listen, operations, registry as origin, routes},
    policy::{self, Policy},
    publish::deposit,
    store::Batch,
    world::World,
};
pub(crate) use init::init;
use proto::answer::Factor;
pub(crate) use restore::{DrillArgs, RestoreArgs, drill, look, restore};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
pub(crate) use unseal::look_at_plugin;

/// The policy file, parsed.
pub(crate) fn policy(config: &Config) -> Result<Policy> {
    let shown = config.policy.display();
    let text = std::fs::read_to_string(&config.policy).with_context(|| {
        format!("{shown}: the policy cannot be read; write one after deploy/examples/policy.toml")
    })?;
    let policy = Policy::parse(&text, &shown.to_string()).map_err(|e| anyhow::anyhow!("{e}"))?;
    let passkeys_alone = |e: &policy::file::Entry| e.factors == [Factor::Passkey];
    if Passkeys::at(config.public_url.get_ref()).is_none()
        && let Some(entry) = policy.entries().iter().find(|e| passkeys_alone(e))
    {
        bail!(
            "{shown}: {} takes passkeys alone, which browsers have only at an https address with a host name; `public_url` is {}",
            entry.matches.first().map_or("a package", |m| m.as_str()),
            config.public_url.get_ref()
        );
    }
    Ok(policy)
}

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn serve(config: Config, path: PathBuf) -> Result<()> {
    // One provider for everything; a second one in the tree would be ambiguous.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let policy = policy(&config)?;
    let desk = Arc::new(desk::desk(&config, policy, World::system())?);
    clock::start(&desk)?;
    desk.tree.check(&*desk.live, &*desk.history)?;
    // Before the vault opens: from then on what was approved before could be released.
    anchor::check(&desk, desk.world.now()).await?;
    let certificate = match &config.tls {
        None => None,
        Some(tls) => Some(
            listen::Certificate::load(&tls.certificate, &tls.key).map_err(anyhow::Error::msg)?,
        ),
    };
    unseal::unseal(&config, &desk).await?;
    if desk.restored()?.is_some() {
        tracing::error!(
            "THE DATABASE IS AN OLDER COPY: nothing is approved or released until its admins have agreed to it: countersign admin restored"
        );
    }
    let now = desk.world.now();
    desk.commit(Batch::new(), &[Event::BrokerStarted], now)
        .await?;

    deposit::remove_strays(&desk)?;

    let (stop, stopping) = watch::channel(false);
    let mut tasks = tokio::task::JoinSet::new();
    let signatures = Arc::new(Signatures::new(&desk)?);
    let mut listeners = vec![
        (
            *config.listen.get_ref(),
            true,
            routes::router(&desk, &signatures),
        ),
        (config.operations.listen, false, operations::router(&desk)),
    ];
    for entry in &config.registries {
        let router = origin::router(&desk, entry.name.get_ref().clone());
        if let (Some(address), Some(router)) = (&entry.listen, router) {
            listeners.push((*address.get_ref(), true, router));
        }
    }
    for (address, public, router) in listeners {
        let socket = TcpListener::bind(address)
            .await
            .with_context(|| format!("{address}: cannot be bound"))?;
        let listener = listen::Listener {
            socket,
            certificate: certificate.clone().filter(|_| public),
            only_from: config.behind_proxy.filter(|_| public),
            router,
        };
        tasks.spawn(listen::serve(listener, stopping.clone()));
    }
    tasks.spawn(rounds::keep_house(Arc::clone(&desk), stopping.clone()));
    tasks.spawn(rounds::keep_tokens(Arc::clone(&desk), stopping.clone()));
    tasks.spawn(rounds::keep_settling(Arc::clone(&desk), stopping.clone()));
    tasks.spawn(rounds::keep_fetching(Arc::clone(&desk), stopping.clone()));
    tasks.spawn(rounds::keep_ringing(Arc::clone(&desk), stopping.clone()));
    tasks.spawn(rounds::keep_backups(Arc::clone(&desk), stopping.clone()));
    tasks.spawn(rounds::keep_witnessed(Arc::clone(&desk), stopping.clone()));
    tasks.spawn(rounds::keep_rekeying(Arc::clone(&desk), stopping.clone()));
    tasks.spawn(rounds::keep_watching(Arc::clone(&desk), stopping.clone()));
    tasks.spawn(rounds::keep_withdrawing(
        Arc::clone(&desk),
        stopping.clone(),
    ));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(listen = %config.listen.get_ref(), sealed = desk.vault.is_sealed(), "serving");

    let mut reload = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = reload.recv() => reload_all(&desk, &path, certificate.as_deref()).await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("draining");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let _ = stop.send(true);
    desk.vault.end_plugins();
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// A broken file changes nothing: the old policy and certificate stay in force.
async fn reload_all(desk: &Arc<Desk>, path: &Path, certificate: Option<&listen::Certificate>) {
    match certificate.map(listen::Certificate::reload) {
        None => {}
        Some(Ok(())) => tracing::info!("certificate reloaded"),
        Some(Err(why)) => {
            tracing::error!(%why, "the certificate was not reloaded; the old one stays");
        }
    }
    let fresh = config::load(path)
        .map_err(anyhow::Error::msg)
        .and_then(|c| policy(&c));
    match fresh {
        Err(why) => tracing::error!(%why, "the policy was not reloaded"),
        Ok(fresh) => {
            desk.given.store(Arc::new(fresh));
            if desk.vault.is_sealed() {
                tracing::info!("the policy was read; it is looked at when the vault is open");
                return;
            }
            match gate::policy::settle(desk, desk.world.now()).await {
                Ok(Settled::InForce) => tracing::info!("policy reloaded"),
                Ok(Settled::Waits) => {}
                Err(why) => tracing::error!(%why, "the policy was not reloaded"),
            }
        }
    }
}
