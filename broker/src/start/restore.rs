//! Putting a backup back, and trying one out.

use super::unseal::read_secret;
use anyhow::{Context as _, Result, bail};
use broker::{
    backup::{
        drill::{self, Report},
        restore::{REFERENCE, STORES, Wish, restore as put_back},
    },
    config::Config,
    secret::Secret,
    store::redb::{OpenError, Redb},
    vault::{Unseal, key_file::Plugin},
    world::World,
};
use proto::log::checkpoint::LogKey;
use std::path::PathBuf;

/// Put a backup back into an empty data folder. No broker may be there, and none is made to run.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  countersignd restore --from countersign-001790000000.backup --identity backup.age \\
    --data /var/lib/countersign --log-key 'broker.example.org+1a2b3c4d+AQ…'

Broken off, it is done again. A broker that was restored approves and releases nothing until its \
admins have agreed to it: countersign admin restored.")]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    source: Source,
    /// The data folder: empty, or not there yet
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
}

/// Try a backup out: restore it into a folder that goes away again, check all of it, and say how long it took.
/// The broker that runs is not touched.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersignd drill --from FILE --identity backup.age
  countersignd drill --from FILE --identity backup.age --vault-identity-file unseal.age --json

Without what opens the vault, the log is checked and rows are only read. It exits 1 if anything is wrong.")]
pub(crate) struct DrillArgs {
    #[command(flatten)]
    source: Source,
    /// Where the folder is made
    #[arg(long, value_name = "FOLDER", default_value = "/var/tmp")]
    folder: PathBuf,
    /// A file with the vault's passphrase
    #[arg(long, value_name = "FILE", conflicts_with = "vault_identity_file")]
    vault_passphrase_file: Option<PathBuf>,
    /// A file with an age identity that opens the vault
    #[arg(long, value_name = "FILE")]
    vault_identity_file: Option<PathBuf>,
    /// The program of the age plugin whose identity that is
    #[arg(long, value_name = "PROGRAM", requires = "vault_identity_file")]
    vault_plugin: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Source {
    /// The backup
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// A file with an age identity that the backup was encrypted to
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// The log's key, as you wrote it down: a backup of another log is refused
    #[arg(long, value_name = "VKEY")]
    log_key: Option<LogKey>,
}

/// Restores.
pub(crate) fn restore(args: &RestoreArgs) -> Result<()> {
    let world = World::system();
    let identity = Secret::new(read_secret(&args.source.identity)?);
    let wish = args.source.wish(&identity, &args.data);
    let done = put_back(&wish, &world, world.now())?;
    let (data, head) = (args.data.display(), &done.head);
    println!(
        "restored {} rows and {} log entries into {data}, as they were at {} ({})",
        done.rows,
        head.live.log_len,
        head.taken.rfc3339(),
        head.public_url
    );
    println!("  log key  {}", head.log_key);
    if args.source.log_key.is_none() {
        println!("           compare it with what you wrote down; --log-key does");
    }
    println!(
        "\nNext:\n\
         \x20 1. The old broker must never run again: two that hold the same tokens know nothing of each other.\n\
         \x20 2. {data}/{REFERENCE} has the configuration and policy of that time; `data` is {data}.\n\
         \x20    Give the folder to the daemon's user, then: countersignd check\n\
         \x20 3. Start it, and unseal it as ever: countersign admin unseal\n\
         \x20 4. Nothing is approved or released until the admins have agreed: countersign admin restored"
    );
    Ok(())
}

/// Tries a backup out.
pub(crate) fn drill(args: &DrillArgs) -> Result<()> {
    let world = World::system();
    let identity = Secret::new(read_secret(&args.source.identity)?);
    let unseal = match (&args.vault_passphrase_file, &args.vault_identity_file) {
        (Some(path), _) => Some(Unseal::Passphrase(Secret::new(read_secret(path)?))),
        (None, Some(path)) => {
            let text = Secret::new(read_secret(path)?);
            Some(match &args.vault_plugin {
                None => Unseal::Identity(text),
                Some(program) => Unseal::Plugin(Plugin::new(program, &text)?),
            })
        }
        (None, None) => None,
    };
    if args.vault_plugin.is_some() {
        eprintln!("The age plugin will be asked; touch its key where it wants that.");
    }
    let wish = args.source.wish(&identity, &args.folder);
    let report = drill::drill(&wish, &args.folder, unseal.as_ref(), &world, world.now())?;
    if args.json {
        let json = serde_json::to_string_pretty(&report).context("the report")?;
        println!("{json}");
    } else {
        println!("{}", told(&report));
    }
    match report.findings_count {
        0 => Ok(()),
        n => bail!("{n} things are wrong with this backup: take another one"),
    }
}

/// A report for people.
fn told(report: &Report) -> String {
    let vault = match report.unseal_ms {
        Some(ms) => format!(
            "opened in {ms} ms; {} rows proved, {} tokens opened",
            report.rows_proved, report.tokens
        ),
        None => {
            "not opened, rows not checked: name --vault-identity-file or --vault-passphrase-file"
                .to_owned()
        }
    };
    let mut lines = vec![
        format!(
            "backup of {} by version {}, {} bytes",
            report.taken.rfc3339(),
            report.made_by,
            report.bytes
        ),
        format!("  log key   {}", report.log_key),
        format!(
            "  restored  in {} ms: {} rows",
            report.restore_ms, report.rows
        ),
        format!("  log       {} entries hashed anew", report.log_entries),
        format!("  vault     {vault}"),
        format!("  checked   in {} ms", report.check_ms),
    ];
    lines.extend(report.findings.iter().map(|finding| format!("! {finding}")));
    lines.join("\n")
}

/// What `check` says of the database, where there is one that nobody uses. Nothing is written.
pub(crate) fn look(config: &Config) -> Result<()> {
    for name in [STORES.0, STORES.1] {
        let path = config.data.join(name);
        match Redb::look(&path) {
            // Not made yet, or in use by the very daemon whose configuration this is.
            Ok(_) | Err(OpenError::Absent(_) | OpenError::InUse(_)) => {}
            // After a crash it has to be repaired, which the daemon does when it starts.
            Err(OpenError::Storage(why)) => {
                println!("note: {} cannot be looked at: {why}", path.display());
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
    Ok(())
}

impl Source {
    fn wish<'a>(&'a self, identity: &'a Secret<String>, data: &'a std::path::Path) -> Wish<'a> {
        Wish {
            from: &self.from,
            identity,
            data,
            log_key: self.log_key.as_ref(),
        }
    }
}
