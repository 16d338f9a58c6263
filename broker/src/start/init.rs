//! The first start: data, keys, and the first admin's invite.

use super::{
    desk::{HISTORY_CACHE, LIVE_CACHE, desk},
    policy,
    unseal::{identity_path, read_secret},
};
use age::secrecy::ExposeSecret as _;
use anyhow::{Context as _, Result, bail};
use broker::{
    admin::{custody, gate, invites},
    backup::restore::DRAFT,
    config::Config,
    secret::Secret,
    store::{
        Batch,
        redb::{Options, Redb},
    },
    vault::{
        Unseal, UnsealMethod, Vault,
        key_file::{self, Plugin},
    },
    world::World,
};
use proto::{
    api::InviteRequest,
    ids::{GroupName, PersonId},
};
use std::{
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

/// A passphrase that the daemon makes itself has this many random bytes (128 bits).
const PASSPHRASE_BYTES: usize = 16;

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
    if data.join(DRAFT).exists() {
        bail!(
            "{}: a restore broke off here: run countersignd restore again, or remove {DRAFT} in it",
            data.display()
        );
    }
    let anchor = config.anchor.as_ref().filter(|anchor| anchor.exists());
    if let Some(anchor) = anchor {
        bail!(
            "{}: `anchor` holds the log of another broker; name another file, or remove it",
            anchor.display()
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
    if config.unseal.plugin.is_some() {
        eprintln!("Asking the age plugin, twice; touch its key where it wants that.");
    }
    let key_file = Vault::init(&world, &[method])?;
    // Before anything is written that a second try would trip over.
    let opened = Vault::new(world.clone()).open(&key_file, &unseal)?;
    new_file(&data.join(custody::KEY_FILE), &key_file)?;
    drop(Redb::create(data.join("live.redb"), LIVE_CACHE)?);
    drop(Redb::create(
        data.join("history.redb"),
        Options::new(HISTORY_CACHE).quick_repair(),
    )?);

    let desk = desk(config, policy, world)?;
    desk.vault.enter(opened)?;
    desk.make_log_key().await?;
    desk.make_inventory().await?;
    let now = desk.world.now();
    let asked = InviteRequest {
        person: admin.clone(),
        groups,
        admin: true,
        actors: Vec::new(),
    };
    let made = invites::invite(&desk, asked, None, Batch::new(), now)?;
    let given = desk.given.load_full();
    let batch = gate::policy::first(&desk, made.batch, &given, now)?;
    desk.commit(batch, &[made.event], now).await?;
    let invited = made.invited;
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
        if let Some(program) = &u.plugin {
            if !path.exists() {
                bail!(
                    "{}: the plugin's identity is not there; its own program makes one",
                    path.display()
                );
            }
            let plugin = Plugin::new(program, &Secret::new(read_secret(&path)?))?;
            let unseal = Unseal::Plugin(plugin.clone());
            return Ok((UnsealMethod::Plugin(plugin), unseal, None));
        }
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
