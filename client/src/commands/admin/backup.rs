//! `admin backup`: the whole broker, encrypted, into a file of the admin's machine.

use crate::{
    context::{Context, Device},
    edge,
    fail::Failure,
    out::span,
};
use proto::restored::BackupState;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Seconds over its interval after which a backup counts as overdue.
const OVERDUE: u64 = 3600;
/// Seconds by which the clocks of two machines may differ.
const AHEAD: u64 = 300;

/// Take a backup of the whole broker while it serves. It is encrypted to `recipients` of `[backup]` in the
/// broker's configuration, and what opens it does not open the vault inside.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin backup --out countersign.backup
  countersignd drill --from countersign.backup --identity backup.age     # tries it out, on any machine
  countersignd restore --from countersign.backup --identity backup.age --data /var/lib/countersign")]
pub(crate) struct BackupArgs {
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// `countersign admin backup`
pub(crate) async fn run(context: &Context, args: &BackupArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let out = &args.out;
    let fail = |e: &std::io::Error| Failure::file(out, e);
    let folder = match out.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    // It has its name when it is whole and durable, and not before.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|e| fail(&e))?;
    let path = "/v1/admin/backup";
    let bytes = device.broker.download(path, device.proof(), &mut file);
    let bytes = bytes.await?;
    file.as_file().sync_all().map_err(|e| fail(&e))?;
    file.persist(out).map_err(|e| fail(&e.error))?;
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|e| fail(&e))?;
    let value = json!({"file": out, "bytes": bytes});
    context.out.result(
        &value,
        &format!(
            "{bytes} bytes in {}; try it out: countersignd drill",
            out.display()
        ),
    )
}

/// What the broker knows of backups.
pub(super) async fn known(device: &Device) -> Result<BackupState, Failure> {
    let path = "/v1/admin/backups";
    device.broker.get(path, device.proof()).await
}

/// The line of `admin status`.
pub(super) fn line(context: &Context, known: &BackupState) -> Result<(), Failure> {
    let (warn, text) = told(known, edge::now().0);
    if warn {
        return context.out.line(&context.out.warning(&format!("! {text}")));
    }
    context.out.line(&format!("  backup    {text}"))
}

/// Whether it is a warning, and the words.
fn told(known: &BackupState, now: u64) -> (bool, String) {
    if known.recipients == 0 {
        let text = "there are no backups: name `recipients` of [backup] in the configuration";
        return (true, text.to_owned());
    }
    let Some(taken) = known.taken else {
        let text = "no backup is known since the start: countersign admin backup --out FILE";
        return (true, text.to_owned());
    };
    if taken.0 > now.saturating_add(AHEAD) {
        let text = format!(
            "the last backup is dated {}, which has not come: set the clocks, and take one",
            taken.rfc3339()
        );
        return (true, text);
    }
    let age = now.saturating_sub(taken.0);
    let last = format!("the last backup is {} old", span(age));
    match known.every {
        _ if known.failed => (
            true,
            format!("{last}, and the broker's own last try failed"),
        ),
        Some(every) if age > every + OVERDUE => (true, format!("{last}: one was due")),
        _ => (
            false,
            format!("{last} ({} bytes)", known.bytes.unwrap_or_default()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::time::UnixTime;

    #[test]
    fn a_missing_late_or_failed_backup_is_a_warning() {
        let good = BackupState {
            recipients: 1,
            every: Some(86_400),
            taken: Some(UnixTime(1_000_000)),
            bytes: Some(5),
            failed: false,
        };
        assert!(!told(&good, 1_080_000).0);
        assert!(told(&good, 1_100_000).0, "late");
        assert!(told(&good, 900_000).0, "of the future");
        assert!(!told(&good, 999_990).0, "another machine's clock");
        let failed = BackupState {
            failed: true,
            ..good.clone()
        };
        assert!(told(&failed, 1_000_001).0);
        let never = BackupState {
            taken: None,
            ..good
        };
        assert!(told(&never, 1_000_001).0);
        assert!(told(&BackupState::default(), 1).0);
    }
}
