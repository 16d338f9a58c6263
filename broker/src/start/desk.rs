//! The desk, as the configuration tells it.

use super::unseal::identity_path;
use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use broker::{
    admin::client_keys,
    audit::tree::Tree,
    caller::Issuers,
    challenge::passkey::Passkeys,
    config::{Config, RegistryEntry},
    desk::{
        Desk, Place, Registry,
        backups::Backups,
        bells::Bells,
        factors::Factors,
        guests::Guests,
        in_hand::InHand,
        inspections::Inspections,
        inventory::Known,
        offered::Offered,
        people::Roster,
        pushes::Pushes,
        ration::{Ration, Tries},
        turns::Turns,
        uploads::Uploads,
        waiters::Waiters,
        witnesses::{Witness, Witnesses},
    },
    notify::egress::Egress,
    policy::Policy,
    registry::{Address, Timeouts, client},
    store::{
        Store,
        redb::{OpenError, Options, Redb},
    },
    telemetry::Metrics,
    vault::Vault,
    world::World,
};
use std::{collections::BTreeMap, sync::Arc};

/// Page cache of the live store, in bytes.
pub(super) const LIVE_CACHE: usize = 8 << 20;
/// Page cache of the history, in bytes.
pub(super) const HISTORY_CACHE: usize = 2 << 20;
/// Uploads that are read at once.
const READS_AT_ONCE: usize = 4;
/// Packages that jobs with an approval may look up in a minute: a large monorepo asks some times for each.
const LOOKUPS_PER_MINUTE: u32 = 1200;

/// Opens the store and puts everything on the desk. The vault is sealed.
pub(super) fn desk(config: &Config, policy: Policy, world: World) -> Result<Desk> {
    let fatal = || {
        Box::new(|why: &str| {
            // What the disk holds is known after opening it again, and not before.
            eprintln!("countersignd: the store failed, stopping: {why}");
            std::process::exit(1);
        })
    };
    let open = |name: &str, options: Options| -> Result<Arc<dyn Store>> {
        let path = config.data.join(name);
        match Redb::open(&path, options.on_fatal(fatal())) {
            Ok(store) => Ok(Arc::new(store)),
            Err(OpenError::Absent(path)) => bail!(
                "{}: there is no broker; make one (countersignd init), or restore one (countersignd restore)",
                path.display()
            ),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
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
    let known = Arc::new(Known::new(Arc::clone(&live), Arc::clone(&vault)));
    let keys = client_keys::Registered::new(Arc::clone(&known), Arc::clone(&vault));
    let issuers = Issuers::new(issuers, public_url.clone())?.with_client_keys(Arc::new(keys));
    let mut registries = BTreeMap::new();
    for entry in &config.registries {
        registries.insert(entry.name.get_ref().clone(), registry(entry)?);
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
        policy: ArcSwap::from_pointee(Policy::nothing()),
        given: ArcSwap::from_pointee(policy),
        policing: tokio::sync::Mutex::default(),
        registries,
        tree,
        roster: Roster::default(),
        known,
        waiters: Waiters::default(),
        uploads: Uploads::default(),
        pushes: Pushes::default(),
        reading: Arc::new(tokio::sync::Semaphore::new(READS_AT_ONCE)),
        guests: Guests::default(),
        in_hand: InHand::default(),
        turns: Turns::default(),
        inspections: Arc::new(Inspections::default()),
        factors: Factors::default(),
        refusals: Ration::default(),
        lookups: Ration::of(LOOKUPS_PER_MINUTE),
        unsealing: tokio::sync::Semaphore::new(1),
        offered: Offered::default(),
        first_tries: Tries::default(),
        watching: tokio::sync::Mutex::default(),
        passkeys: Passkeys::at(config.public_url.get_ref()),
        bells: bells(config, &public_url)?,
        backups: Backups::new(config.backup.plan(&config.path, &config.policy)),
        witnesses: witnesses(config)?,
        metrics: Metrics::default(),
        place: Place {
            public_url,
            origin,
            spool: config.data.join("spool"),
            data: config.data.clone(),
            anchor: config
                .anchor
                .clone()
                .unwrap_or_else(|| config.data.join("anchor")),
            identity: identity_path(config).ok(),
            plugin: config.unseal.plugin.clone(),
            token_max_age_days: config.token_max_age_days,
            web: web(config),
            weakening_wait: config.weakening_wait,
            watch_every: config.watch.every,
        },
    })
}

/// A registry as the configuration tells it.
fn registry(entry: &RegistryEntry) -> Result<Registry> {
    Ok(
        match (entry.kind.row().connect, &entry.url, &entry.public_url) {
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
        },
    )
}

fn bells(config: &Config, public_url: &str) -> Result<Bells> {
    let push = &config.push;
    let hosts = push.patterns().map_err(|(_, why)| anyhow::anyhow!(why))?;
    let origins: Vec<_> = push.origins.iter().map(|u| u.get_ref().clone()).collect();
    let contact = push.contact.as_ref();
    let contact = contact.map_or_else(|| public_url.to_owned(), |c| c.get_ref().to_string());
    Ok(Bells::new(Egress::new(hosts, &origins)?, contact))
}

fn witnesses(config: &Config) -> Result<Witnesses> {
    let mut all = Vec::new();
    for entry in &config.witnesses {
        let key = entry.key().map_err(|(_, why)| anyhow::anyhow!(why))?;
        let place = entry.place();
        let client = client(&place, Timeouts::default())?;
        all.push(Witness::new(key, place, client));
    }
    Ok(Witnesses::new(all))
}

fn web(config: &Config) -> BTreeMap<proto::ids::RegistryId, url::Url> {
    let entries = config.registries.iter();
    entries
        .filter_map(|e| Some((e.name.get_ref().clone(), e.web.as_ref()?.get_ref().clone())))
        .collect()
}
