//! `countersignd`: init, serve, check, restore, drill.

mod start;

use anyhow::Result;
use broker::{
    backup::{drill::DrillError, restore::RestoreError},
    config,
    store::redb::OpenError,
    telemetry,
};
use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode, time::Duration};

/// Longest time for work on other threads that nobody waits for, at the end.
const LAST_WORK: Duration = Duration::from_secs(5);
/// The exit code where a newer program wrote what is there.
const NEWER: u8 = 5;

/// The Countersign broker: holds registry tokens, asks people first, publishes what they approved.
#[derive(Parser)]
#[command(
    name = "countersignd",
    version,
    about,
    after_help = "\
Examples:
  countersignd check --config countersign.toml
  countersignd init  --config countersign.toml --admin alice
  countersignd serve --config countersign.toml
  countersignd drill   --from FILE --identity backup.age
  countersignd restore --from FILE --identity backup.age --data /var/lib/countersign

Configuration and policy: deploy/examples/. SIGHUP reloads policy and certificate, SIGTERM drains."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a new broker: data, keys, the first admin's invite. Refuses when there is one.
    Init {
        /// The configuration file.
        #[arg(long, default_value = "countersign.toml")]
        config: PathBuf,
        /// The first admin's name.
        #[arg(long, default_value = "admin")]
        admin: String,
        /// Groups that the first admin joins.
        #[arg(long = "group")]
        groups: Vec<String>,
        /// Write the invite to this new file (0600) instead of printing it.
        #[arg(long)]
        invite_file: Option<PathBuf>,
    },
    /// Serve until told to stop.
    Serve {
        /// The configuration file.
        #[arg(long, default_value = "countersign.toml")]
        config: PathBuf,
    },
    /// What the daemon starts to look into archives; of no use by hand.
    #[command(hide = true)]
    Inspect,
    /// Put a backup back into an empty data folder.
    Restore(start::RestoreArgs),
    /// Try a backup out: restore it elsewhere, check all of it, remove it again.
    Drill(start::DrillArgs),
    /// Check configuration, policy and the database's schema; binds nothing, changes nothing.
    Check {
        /// The configuration file.
        #[arg(long, default_value = "countersign.toml")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if matches!(arguments.command, Command::Inspect) {
        return broker::card::child::run();
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("countersignd: {error:#}");
            code(&error)
        }
    }
}

/// 5 where a newer program wrote what is there: started again, it would be refused again.
fn code(error: &anyhow::Error) -> ExitCode {
    let newer = error.chain().any(|cause| {
        let database = cause.downcast_ref::<OpenError>();
        matches!(database, Some(OpenError::Newer { .. }))
            || cause.downcast_ref().is_some_and(RestoreError::is_newer)
            || cause.downcast_ref().is_some_and(DrillError::is_newer)
    });
    if newer {
        return ExitCode::from(NEWER);
    }
    ExitCode::FAILURE
}

fn run(arguments: Arguments) -> Result<()> {
    // Before any thread starts: no core dumps, no ptrace by other processes of the same user.
    let hardening = broker::vault::harden::harden_process();
    match arguments.command {
        Command::Inspect => Ok(()),
        Command::Check { config } => {
            let config = config::load(&config).map_err(anyhow::Error::msg)?;
            let policy = start::policy(&config)?;
            start::look(&config)?;
            start::look_at_plugin(&config)?;
            println!(
                "configuration and policy are good: {} issuers, {} registries, {} package entries",
                config.issuers.len(),
                config.registries.len(),
                policy.entries().len()
            );
            Ok(())
        }
        Command::Restore(args) => start::restore(&args),
        Command::Drill(args) => start::drill(&args),
        Command::Init {
            config,
            admin,
            groups,
            invite_file,
        } => {
            let config = config::load(&config).map_err(anyhow::Error::msg)?;
            let admin = admin.parse()?;
            let groups = groups.iter().map(|g| g.parse()).collect::<Result<_, _>>()?;
            runtime()?.block_on(start::init(&config, admin, groups, invite_file.as_deref()))
        }
        Command::Serve { config: path } => {
            let config = config::load(&path).map_err(anyhow::Error::msg)?;
            telemetry::start_logging(config.log.format);
            tracing::info!(?hardening, "process hardened");
            let runtime = runtime()?;
            let served = runtime.block_on(start::serve(config, path));
            // What still waits for an age plugin holds nobody up.
            runtime.shutdown_timeout(LAST_WORK);
            served
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}
