//! Building the desk from the configuration, and running it.

use age::secrecy::ExposeSecret as _;
use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use broker::{
    admin::{client_keys, clock, custody, enroll, tokens},
    audit::{event::Event, tree::Tree},
    caller::Issuers,
    challenge::passkey::Passkeys,
    config::{self, Config},
    desk::{
        Desk, Place, Registry,
        bells::Bells,
        factors::Factors,
        guests::Guests,
        in_hand::InHand,
        inspections::Inspections,
        people::Roster,
        pushes::Pushes,
        ration::{Ration, Tries},
        uploads::Uploads,
        waiters::Waiters,
    },
    http::{auth::Signatures, listen, operations, registry as origin, routes},
    notify::egress::Egress,
    policy::{self, Policy},
    publish::{archive, close, confirm, deposit, fetch, outbox, pushes, ring, settle, unseen},
    registry::{Address, Timeouts},
    secret::Secret,
    store::{
        Batch, Store,
        redb::{Options, Redb},
    },
    telemetry::Metrics,
    vault::{Unseal, UnsealMethod, Vault, key_file},
    watch::round,
    world::World,
};
use proto::{
    answer::Factor,
    api::InviteRequest,
    ids::{GroupName, PersonId},
};
use std::{
    collections::BTreeMap,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Page cache of the live store, in bytes.
const LIVE_CACHE: usize = 8 << 20;
/// Page cache of the history, in bytes.
const HISTORY_CACHE: usize = 2 << 20;
/// Pause between two sweeps.
const SWEEP: Duration = Duration::from_secs(1);
/// Uploads that are read at once.
const READS_AT_ONCE: usize = 4;
/// Packages that jobs with an approval may look up in a minute: a large monorepo asks some times for each.
const LOOKUPS_PER_MINUTE: u32 = 1200;
/// Pause between two looks at what is unclear.
const SETTLE: Duration = Duration::from_secs(10);
/// A passphrase that the daemon makes itself has this many random bytes (128 bits).
const PASSPHRASE_BYTES: usize = 16;

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

/// Makes data, keys and the first admin's invite.
pub(crate) async fn init(
    config: &Config,
    admin: PersonId,
    groups: Vec<GroupName>,
    invite_file: Option<&Path>,
) -> Result<()> {
    let policy = policy(config)?;
    let data = &config.data;
    if data.join("live.redb").exists() || data.join(custody::KEY_FILE).exists() {
        bail!(
            "{}: there is a broker already; init never touches one",
            data.display()
        );
    }
    for folder in ["spool", "deposits"] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data.join(folder))
            .with_context(|| format!("{}: cannot be created", data.display()))?;
    }
    let world = World::system();
    let (method, unseal, told) = first_secret(config, &world)?;
    let key_file = Vault::init(&world, &[method])?;
    new_file(&data.join(custody::KEY_FILE), &key_file)?;
    drop(Redb::create(data.join("live.redb"), LIVE_CACHE)?);
    drop(Redb::create(
        data.join("history.redb"),
        Options::new(HISTORY_CACHE).quick_repair(),
    )?);

    let desk = desk(config, policy, world)?;
    desk.vault.unseal(&key_file, &unseal)?;
    desk.make_log_key().await?;
    let now = desk.world.now();
    let asked = InviteRequest {
        person: admin.clone(),
        groups,
        admin: true,
        actors: Vec::new(),
    };
    let invited = enroll::invite(&desk, asked, None, now).await?;
    if let Some(passphrase) = told {
        println!(
            "The vault's passphrase (shown once; without it nothing can be released):\n\n  {passphrase}\n"
        );
    }
    match invite_file {
        Some(path) => {
            new_file(path, invited.invite.as_bytes())?;
            println!(
                "The invite of {admin} is in {}; it works once, until {}.",
                path.display(),
                invited.expires.rfc3339()
            );
        }
        None => println!(
            "Invite of {admin} (works once, until {}):\n\n  {}\n\nStart the broker, then on that person's machine:\n\n  COUNTERSIGN_BROKER={} countersign enroll",
            invited.expires.rfc3339(),
            invited.invite,
            desk.place.public_url
        ),
    }
    Ok(())
}

/// The unseal method of the configuration: an existing secret file is used, a missing one is made.
fn first_secret(config: &Config, world: &World) -> Result<(UnsealMethod, Unseal, Option<String>)> {
    let u = &config.unseal;
    if let Some(path) = &u.passphrase_file {
        let passphrase = if path.exists() {
            read_secret(path)?
        } else {
            make_passphrase(world, Some(path))?
        };
        return Ok((
            by_passphrase(passphrase.clone()),
            Unseal::Passphrase(Secret::new(passphrase)),
            None,
        ));
    }
    if u.identity_file.is_some() || u.credential.is_some() {
        let path = identity_path(config)?;
        if !path.exists() {
            if u.credential.is_some() {
                bail!(
                    "{}: the systemd credential is not there; make it with age-keygen and systemd-creds",
                    path.display()
                );
            }
            let identity = age::x25519::Identity::generate();
            new_file(
                &path,
                format!("{}\n", identity.to_string().expose_secret()).as_bytes(),
            )?;
        }
        let text = read_secret(&path)?;
        let recipients = text
            .lines()
            .filter(|l| !l.starts_with('#') && !l.trim().is_empty())
            .map(|l| {
                l.trim()
                    .parse::<age::x25519::Identity>()
                    .map(|i| i.to_public().to_string())
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
        return Ok((
            UnsealMethod::Identity { recipients },
            Unseal::Identity(Secret::new(text)),
            None,
        ));
    }
    let passphrase = make_passphrase(world, None)?;
    Ok((
        by_passphrase(passphrase.clone()),
        Unseal::Passphrase(Secret::new(passphrase.clone())),
        Some(passphrase),
    ))
}

fn by_passphrase(passphrase: String) -> UnsealMethod {
    UnsealMethod::Passphrase {
        passphrase: Secret::new(passphrase),
        work_factor: key_file::WORK_FACTOR,
    }
}

/// 128 random bits: a person types them when the broker starts, a thief guesses them never.
fn make_passphrase(world: &World, path: Option<&Path>) -> Result<String> {
    let random = proto::digest::hex(&world.random::<PASSPHRASE_BYTES>()?);
    let groups: Vec<_> = random
        .as_bytes()
        .chunks(4)
        .map(String::from_utf8_lossy)
        .collect();
    let passphrase = groups.join("-");
    if let Some(path) = path {
        new_file(path, passphrase.as_bytes())?;
    }
    Ok(passphrase)
}

fn identity_path(config: &Config) -> Result<PathBuf> {
    if let Some(path) = &config.unseal.identity_file {
        return Ok(path.clone());
    }
    let name = config.unseal.credential.as_deref().unwrap_or_default();
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY")
        .context("[unseal] credential: $CREDENTIALS_DIRECTORY is not set; systemd sets it for LoadCredential=")?;
    Ok(PathBuf::from(folder).join(name))
}

fn read_secret(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: cannot be read", path.display()))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

fn new_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("{}: cannot be made", path.display()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(())
}

/// Opens the store and puts everything on the desk. The vault is sealed.
fn desk(config: &Config, policy: Policy, world: World) -> Result<Desk> {
    let fatal = || {
        Box::new(|why: &str| {
            // What the disk holds is known after opening it again, and not before.
            eprintln!("countersignd: the store failed, stopping: {why}");
            std::process::exit(1);
        })
    };
    let open = |name: &str, options: Options| -> Result<Arc<dyn Store>> {
        let path = config.data.join(name);
        let store = Redb::open(&path, options.on_fatal(fatal())).with_context(|| {
            format!("{}: make a broker first: countersignd init", path.display())
        })?;
        Ok(Arc::new(store))
    };
    let live = open("live.redb", Options::new(LIVE_CACHE))?;
    let history = open("history.redb", Options::new(HISTORY_CACHE).quick_repair())?;
    let vault = Arc::new(Vault::new(world.clone()));
    let public_url = config
        .public_url
        .get_ref()
        .as_str()
        .trim_end_matches('/')
        .to_owned();
    let issuers = config.issuers.iter().map(|i| i.get_ref().clone()).collect();
    let keys = client_keys::Registered::new(Arc::clone(&live), Arc::clone(&vault));
    let issuers = Issuers::new(issuers, public_url.clone())?.with_client_keys(Arc::new(keys));
    let mut registries = BTreeMap::new();
    for entry in &config.registries {
        let registry = match (entry.kind.row().connect, &entry.url, &entry.public_url) {
            (Some(connect), Some(url), Some(endpoint)) => {
                let address = Address {
                    url: url.get_ref().clone(),
                    endpoint: endpoint.get_ref().clone(),
                    upload: entry.upload_url.as_ref().map(|u| u.get_ref().clone()),
                    user: entry.user.as_ref().map(|u| u.get_ref().clone()),
                    narrow: entry.narrow_token.as_ref().is_some_and(|n| *n.get_ref()),
                    project_ids: entry.project_ids.as_ref().map(|p| p.get_ref().clone()),
                    attestations: entry
                        .attestations
                        .as_ref()
                        .map(|a| *a.get_ref())
                        .unwrap_or_default(),
                    downloads: entry
                        .downloads
                        .iter()
                        .map(|u| u.get_ref().clone())
                        .collect(),
                    via: entry.via.as_ref().map(|v| *v.get_ref()).unwrap_or_default(),
                    factor_origins: entry
                        .factor_origins
                        .as_ref()
                        .map(|o| o.get_ref().clone())
                        .unwrap_or_default(),
                    http: entry.shape().map_err(|(_, why)| anyhow::anyhow!(why))?,
                    tokens: entry.token_url.as_ref().map(|u| u.get_ref().clone()),
                };
                Registry::Forward {
                    kind: entry.kind,
                    upstream: connect(address, Timeouts::default())?,
                    endpoint: endpoint.get_ref().clone(),
                    approve_token: entry.approve_token.as_ref().map(|r| r.get_ref().clone()),
                }
            }
            (None, ..) => Registry::Secrets,
            (Some(_), ..) => bail!(
                "a registry of kind {} needs url and public_url",
                entry.kind.name()
            ),
        };
        registries.insert(entry.name.get_ref().clone(), registry);
    }
    let tree = Tree::load(&*history)?;
    let origin = config
        .public_url
        .get_ref()
        .host_str()
        .unwrap_or("countersign")
        .to_owned();
    Ok(Desk {
        live,
        history,
        vault,
        world,
        issuers,
        policy: ArcSwap::from_pointee(policy),
        registries,
        tree,
        roster: Roster::default(),
        waiters: Waiters::default(),
        uploads: Uploads::default(),
        pushes: Pushes::default(),
        reading: Arc::new(tokio::sync::Semaphore::new(READS_AT_ONCE)),
        guests: Guests::default(),
        in_hand: InHand::default(),
        inspections: Arc::new(Inspections::default()),
        factors: Factors::default(),
        refusals: Ration::default(),
        lookups: Ration::of(LOOKUPS_PER_MINUTE),
        unsealing: tokio::sync::Semaphore::new(1),
        first_tries: Tries::default(),
        watching: tokio::sync::Mutex::default(),
        passkeys: Passkeys::at(config.public_url.get_ref()),
        bells: bells(config, &public_url)?,
        metrics: Metrics::default(),
        place: Place {
            public_url,
            origin,
            spool: config.data.join("spool"),
            data: config.data.clone(),
            token_max_age_days: config.token_max_age_days,
            web: web(config),
            watch_every: config.watch.every,
        },
    })
}

fn bells(config: &Config, public_url: &str) -> Result<Bells> {
    let push = &config.push;
    let hosts = push.patterns().map_err(|(_, why)| anyhow::anyhow!(why))?;
    let origins: Vec<_> = push.origins.iter().map(|u| u.get_ref().clone()).collect();
    let contact = push.contact.as_ref();
    let contact = contact.map_or_else(|| public_url.to_owned(), |c| c.get_ref().to_string());
    Ok(Bells::new(Egress::new(hosts, &origins)?, contact))
}

fn web(config: &Config) -> BTreeMap<proto::ids::RegistryId, url::Url> {
    let entries = config.registries.iter();
    entries
        .filter_map(|e| Some((e.name.get_ref().clone(), e.web.as_ref()?.get_ref().clone())))
        .collect()
}

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn serve(config: Config, path: PathBuf) -> Result<()> {
    // One provider for everything; a second one in the tree would be ambiguous.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let policy = policy(&config)?;
    let desk = Arc::new(desk(&config, policy, World::system())?);
    clock::start(&desk)?;
    let certificate = match &config.tls {
        None => None,
        Some(tls) => Some(
            listen::Certificate::load(&tls.certificate, &tls.key).map_err(anyhow::Error::msg)?,
        ),
    };
    unseal(&config, &desk).await?;
    let now = desk.world.now();
    let loaded = Event::PolicyLoaded {
        digest: desk.policy.load().digest().clone(),
    };
    desk.commit(Batch::new(), &[Event::BrokerStarted, loaded], now)
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
    tasks.spawn(keep_house(Arc::clone(&desk), stopping.clone()));
    tasks.spawn(keep_settling(Arc::clone(&desk), stopping.clone()));
    tasks.spawn(keep_fetching(Arc::clone(&desk), stopping.clone()));
    tasks.spawn(keep_ringing(Arc::clone(&desk), stopping.clone()));
    tasks.spawn(keep_watching(Arc::clone(&desk), stopping.clone()));
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
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn unseal(config: &Config, desk: &Arc<Desk>) -> Result<()> {
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
    custody::unseal(desk, secret, desk.world.now())
        .await
        .context("the vault cannot be unsealed")
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
            let event = Event::PolicyLoaded {
                digest: fresh.digest().clone(),
            };
            if desk
                .commit(Batch::new(), &[event], desk.world.now())
                .await
                .is_ok()
            {
                desk.policy.store(Arc::new(fresh));
                tracing::info!("policy reloaded");
            }
        }
    }
}

/// Reads back what was on its way, first of all what a crash left; a registry that hangs stalls
/// nothing else.
async fn keep_settling(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let mut first = true;
    loop {
        let pause = if desk.vault.is_sealed() {
            Duration::from_secs(1)
        } else {
            if let Err(why) = settle::resume(&desk, first).await {
                tracing::error!(%why, "settling failed");
            }
            first = false;
            SETTLE
        };
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Downloads and hashes what was published. It may take minutes, so it stops at once when told to.
async fn keep_fetching(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let work = async {
        loop {
            if let Err(why) = fetch::sweep(&desk, desk.world.now()).await {
                tracing::error!(%why, "fetching artifacts failed");
            }
            tokio::time::sleep(SWEEP).await;
        }
    };
    tokio::select! {
        _ = stop.changed() => {}
        () = work => {}
    }
}

/// Decides who is rung, and delivers it: beside each other, so that a slow server keeps nobody from being rung.
async fn keep_ringing(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let deciding = async {
        loop {
            match ring::decide(&desk, desk.world.now()).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(why) => tracing::error!(%why, "nobody is rung"),
            }
            let _ = tokio::time::timeout(SWEEP, desk.bells.asked()).await;
        }
    };
    let delivering = async {
        loop {
            if let Err(why) = outbox::deliver(&desk, desk.world.now()).await {
                tracing::error!(%why, "notifications are not delivered");
            }
            let _ = tokio::time::timeout(SWEEP, desk.bells.queued()).await;
        }
    };
    tokio::select! {
        _ = stop.changed() => {}
        () = deciding => {}
        () = delivering => {}
    }
}

/// Compares what registries serve with what was published here; first one interval after the start.
async fn keep_watching(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let Some(every) = desk.place.watch_every else {
        tracing::warn!("the watch is off: versions that others publish are not noticed");
        return;
    };
    let work = async {
        loop {
            tokio::time::sleep(Duration::from_secs(every)).await;
            if desk.vault.is_sealed() {
                continue;
            }
            if let Err(why) = round::round(&desk, None).await {
                tracing::error!(%why, "a round of the watch failed");
            }
        }
    };
    tokio::select! {
        _ = stop.changed() => {}
        () = work => {}
    }
}

/// Expires, archives, follows the log: everything that nobody waits for.
async fn keep_house(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let mut suspect = false;
    loop {
        let watched = clock::watch(&desk, &mut suspect).await;
        let now = desk.world.now();
        let swept = close::sweep(&desk, now).await;
        let forgotten = close::forget_burnt(&desk, now).await;
        let destroyed = tokens::destroy_expired(&desk, now).await;
        let archived = archive::archive(&desk, now).await;
        let told = unseen::sweep(&desk, now).await;
        let deposited = deposit::sweep(&desk).await;
        let confirmed = confirm::sweep(&desk).await;
        let pushed = pushes::sweep(&desk);
        for why in [
            swept.err(),
            forgotten.err(),
            destroyed.err(),
            archived.err(),
            told.err(),
            watched.err(),
            deposited.err(),
            confirmed.err(),
            pushed.err(),
        ]
        .into_iter()
        .flatten()
        {
            tracing::error!(%why, "keeping house failed");
        }
        if let Err(why) = desk.tree.catch_up_into(&*desk.live, &*desk.history).await {
            tracing::error!(%why, "the log's tree cannot follow");
        }
        desk.waiters.sweep();
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}
