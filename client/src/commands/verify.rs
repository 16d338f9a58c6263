//! `verify` and `receipt`: what anybody can check without asking anybody.

use super::ticket;
use crate::{
    context::Context,
    edge,
    fail::Failure,
    http::{Broker, Proof},
    job::session::Session,
    witness,
};
use proto::ids::RequestId;
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

mod offline;

/// Most bytes of a receipt.
const RECEIPT_MAX: u64 = 8 << 20;

/// Verify a receipt or an exported log. Needs no network and no profile.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign verify receipt.json --key 'broker.example.org+1a2b3c4d+AQ…'
  countersign verify log.jsonl --key-file log.vkey

Without a key the file is only shown to agree with itself: whoever made it may have made all of it.
The key is in `countersign status`; take it from a source that you trust.")]
pub(crate) struct Args {
    /// A receipt (JSON) or an exported log (JSON lines)
    file: PathBuf,
    /// The log's verification key (vkey)
    #[arg(long, value_name = "VKEY")]
    key: Option<String>,
    /// A file with the log's verification key
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    key_file: Option<PathBuf>,
    /// Use the key that this enrolled device knows; an exported log must also begin with what the device saw of it
    #[arg(long, conflicts_with_all = ["key", "key_file"])]
    device: bool,
}

/// Fetch the signed receipt of a publish.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  countersign receipt 0197… --out receipt.json && countersign verify receipt.json --key …")]
pub(crate) struct ReceiptArgs {
    /// The request
    id: RequestId,
    /// Where to write it
    #[arg(long)]
    out: PathBuf,
    /// The file that `countersign request --out` wrote (else COUNTERSIGN_TICKET, else this device)
    #[arg(long, value_name = "FILE")]
    ticket_file: Option<PathBuf>,
}

/// What a file is.
#[derive(Debug, PartialEq, Eq)]
enum FileKind {
    Receipt,
    Export,
}

/// What a valid file proves.
pub(crate) struct Verdict {
    /// For people.
    pub(crate) text: String,
    /// For programs.
    pub(crate) value: serde_json::Value,
    /// Whether the signature was checked with a key that the reader named.
    pub(crate) pinned: bool,
}

/// `countersign verify`
pub(crate) fn verify(context: &Context, args: &Args) -> Result<(), Failure> {
    let (key, seen) = match (&args.key, &args.key_file) {
        (Some(key), _) => (Some(key.clone()), None),
        (None, Some(path)) => (Some(edge::read_secret(path)?.trim().to_owned()), None),
        (None, None) if args.device => {
            let (key, seen) = witness::kept(context)?;
            (Some(key.to_string()), seen)
        }
        (None, None) => (None, None),
    };
    let verdict = match kind(&args.file)? {
        FileKind::Receipt => {
            let bytes = edge::read_capped(&args.file, RECEIPT_MAX)?;
            offline::receipt(&bytes, key.as_deref())?
        }
        FileKind::Export => {
            let file =
                std::fs::File::open(&args.file).map_err(|e| Failure::file(&args.file, &e))?;
            offline::export(BufReader::new(file), key.as_deref(), seen.as_ref())?
        }
    };
    if !verdict.pinned {
        context
            .out
            .note("  No key was given: this shows only that the file agrees with itself.");
    }
    context.out.result(&verdict.value, &verdict.text)
}

/// A receipt is one JSON object with a `payload`; every line of an export has an `index` or is the checkpoint.
fn kind(path: &Path) -> Result<FileKind, Failure> {
    let file = std::fs::File::open(path).map_err(|e| Failure::file(path, &e))?;
    let mut head = Vec::new();
    let mut reader = BufReader::new(std::io::Read::take(file, RECEIPT_MAX));
    reader
        .read_until(b'\n', &mut head)
        .map_err(|e| Failure::file(path, &e))?;
    let head = String::from_utf8_lossy(&head);
    let first = head.trim_start();
    if first.starts_with("{\"index\"") || first.starts_with("{\"checkpoint\"") {
        Ok(FileKind::Export)
    } else if first.starts_with('{') {
        Ok(FileKind::Receipt)
    } else {
        Err(Failure::usage(
            format!(
                "{} is neither a receipt nor an exported log.",
                path.display()
            ),
            "Give a file by `countersign receipt` or `countersign admin audit export`.",
        ))
    }
}

/// `countersign receipt`
pub(crate) async fn receipt(context: &Context, args: &ReceiptArgs) -> Result<(), Failure> {
    let by_ticket = args.ticket_file.is_some() || context.env.get("COUNTERSIGN_TICKET").is_some();
    if by_ticket {
        let which = ticket::Args::new(args.id, args.ticket_file.clone());
        let (session, broker) = ticket::load(context, &which)?;
        fetch_receipt(&broker, &session, &args.out).await?;
    } else {
        let device = context.device()?;
        fetch(&device.broker, args.id, device.proof(), &args.out).await?;
    }
    let value = serde_json::json!({"id": args.id, "file": args.out});
    let text = format!("receipt of {} in {}", args.id, args.out.display());
    context.out.result(&value, &text)
}

/// Writes the receipt of a job's own request.
pub(crate) async fn fetch_receipt(
    broker: &Broker,
    session: &Session,
    out: &Path,
) -> Result<(), Failure> {
    let proof = Proof::Bearer(&session.secrets.ticket);
    fetch(broker, session.id, proof, out).await
}

async fn fetch(
    broker: &Broker,
    id: RequestId,
    proof: Proof<'_>,
    out: &Path,
) -> Result<(), Failure> {
    let path = format!("/v1/requests/{id}/receipt");
    let bytes = broker.get_raw(&path, proof).await?;
    // Whether it is genuine is for `verify` to find; here it must be an envelope, and no sign-in page.
    let envelope: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if !envelope
        .get("payload")
        .is_some_and(serde_json::Value::is_string)
    {
        return Err(Failure::failed(
            "What the broker sent is no receipt.",
            "Check the broker's address, and whether something stands in front of it.",
        ));
    }
    edge::write_private(out, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_by_what_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            kind(&path)
        };
        assert_eq!(
            of("{\"index\":0,\"leaf\":\"x\"}\n").unwrap(),
            FileKind::Export
        );
        assert_eq!(of("{\"checkpoint\":\"x\"}\n").unwrap(), FileKind::Export);
        assert_eq!(of("{\n \"payload\": 1}").unwrap(), FileKind::Receipt);
        assert_eq!(of("").unwrap_err().exit as u8, 2);
        assert_eq!(of("hello").unwrap_err().exit as u8, 2);
    }
}
