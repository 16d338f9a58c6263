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
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    ids::RequestId,
    log::cosignature::{self, WitnessKey},
    problem::Exit,
    text::harmless,
};
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

mod offline;

/// Most bytes of a receipt.
const RECEIPT_MAX: u64 = 8 << 20;
/// Looks at a receipt that is not cosigned yet.
const LOOKS: u32 = 31;
/// Between two of them.
const PAUSE: Duration = Duration::from_secs(2);
/// Most bytes of a list of witnesses.
const LIST_MAX: u64 = 64 << 10;

/// Verify a receipt or an exported log. Needs no network and no profile.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign verify receipt.json --key 'broker.example.org+1a2b3c4d+AQ…'
  countersign verify log.jsonl --key-file log.vkey
  countersign verify receipt.json --key-file log.vkey --witness 'witness.example.net/w1+5e6f7a8b+BA…'
  countersign verify receipt.json --key-file log.vkey --witness A --witness B --witness C --witnesses 2

With --witness the checkpoint must be cosigned by that witness of the log, so that the log which it is proved \
against is the one that everybody else sees. Take a witness's key from its operator, not from the broker. \
Without a key the file is only shown to agree with itself: whoever made it may have made all of it. \
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
    /// A witness that must have cosigned the checkpoint (vkey); may be given several times
    #[arg(long = "witness", value_name = "VKEY")]
    witnesses: Vec<WitnessKey>,
    /// A file with more of them, one in a line
    #[arg(long, value_name = "FILE")]
    witness_file: Option<PathBuf>,
    /// How many of all these must have; each, if not given
    #[arg(long = "witnesses", value_name = "N")]
    needed: Option<usize>,
}

impl Args {
    /// The witnesses that are demanded.
    fn demanded(&self) -> Result<Demanded, Failure> {
        let mut witnesses = self.witnesses.clone();
        if let Some(path) = &self.witness_file {
            witnesses.extend(listed(path)?);
        }
        let count = witnesses.len();
        cosignature::distinct(&witnesses).map_err(|_| {
            Failure::usage(
                "Two of the witnesses have the same name or the same key.",
                "Name each witness once: one would count as two.",
            )
        })?;
        let needed = self.needed.unwrap_or(count);
        let none =
            needed == 0 && (count > 0 || self.needed.is_some() || self.witness_file.is_some());
        if needed > count || none {
            return Err(Failure::usage(
                format!("{needed} of {count} witnesses are demanded."),
                "Name witnesses with --witness or --witness-file, and with --witnesses one of them or more.",
            ));
        }
        Ok(Demanded { witnesses, needed })
    }
}

/// The witnesses of a file. What is no key is an error: a line that is lost must not demand less.
fn listed(path: &Path) -> Result<Vec<WitnessKey>, Failure> {
    let bytes = edge::read_capped(path, LIST_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim);
    let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| {
        line.parse().map_err(|why| {
            Failure::usage(
                format!("{}: '{}' {why}.", path.display(), harmless(line)),
                "Write one witness's key in a line; # begins a remark.",
            )
        })
    };
    keys.map(read).collect()
}

/// Witnesses, of whom so many must have cosigned.
pub(crate) struct Demanded {
    /// The reader's choice.
    pub(crate) witnesses: Vec<WitnessKey>,
    /// How many of them.
    pub(crate) needed: usize,
}

/// Fetch the signed receipt of a publish.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  countersign receipt 0197… --out receipt.json && countersign verify receipt.json --key …
  countersign receipt 0197… --out receipt.json --cosigned 2   # for verify --witness A --witness B")]
pub(crate) struct ReceiptArgs {
    /// The request
    id: RequestId,
    /// Where to write it
    #[arg(long)]
    out: PathBuf,
    /// The file that `countersign request --out` wrote (else COUNTERSIGN_TICKET, else this device)
    #[arg(long, value_name = "FILE")]
    ticket_file: Option<PathBuf>,
    /// Wait until so many witnesses cosigned the log that it is proved against; a minute at most
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    cosigned: usize,
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
    let demanded = args.demanded()?;
    let (key, seen) = match (&args.key, &args.key_file) {
        (Some(key), _) => (Some(key.clone()), None),
        (None, Some(path)) => (Some(edge::read_secret(path)?.trim().to_owned()), None),
        (None, None) if args.device => {
            let (key, seen) = witness::kept(context)?;
            (Some(key.to_string()), seen)
        }
        (None, None) => (None, None),
    };
    if key.is_none() && !demanded.witnesses.is_empty() {
        return Err(Failure::usage(
            "Witnesses without the log's key show nothing: they cosign other people's logs, too.",
            "Name the key with --key, --key-file or --device.",
        ));
    }
    let verdict = match kind(&args.file)? {
        FileKind::Receipt => {
            let bytes = edge::read_capped(&args.file, RECEIPT_MAX)?;
            offline::receipt(&bytes, key.as_deref(), &demanded)?
        }
        FileKind::Export => {
            let file =
                std::fs::File::open(&args.file).map_err(|e| Failure::file(&args.file, &e))?;
            offline::export(
                BufReader::new(file),
                key.as_deref(),
                seen.as_ref(),
                &demanded,
            )?
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
        let proof = || Proof::Bearer(&session.secrets.ticket);
        fetch(&broker, args.id, proof, args.cosigned, &args.out).await?;
    } else {
        let device = context.device()?;
        let proof = || device.proof();
        fetch(&device.broker, args.id, proof, args.cosigned, &args.out).await?;
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
    let proof = || Proof::Bearer(&session.secrets.ticket);
    fetch(broker, session.id, proof, 0, out).await
}

async fn fetch<'a>(
    broker: &Broker,
    id: RequestId,
    proof: impl Fn() -> Proof<'a>,
    cosigned: usize,
    out: &Path,
) -> Result<(), Failure> {
    let path = format!("/v1/requests/{id}/receipt");
    let mut looks = 1;
    loop {
        let bytes = broker.get_raw(&path, proof()).await?;
        // Whether it is genuine is for `verify` to find; here it must be an envelope, and no sign-in page.
        let count = cosignatures(&bytes).ok_or_else(|| {
            Failure::failed(
                "What the broker sent is no receipt.",
                "Check the broker's address, and whether something stands in front of it.",
            )
        })?;
        if count >= cosigned {
            return edge::write_private(out, &bytes);
        }
        if looks == LOOKS {
            return Err(Failure::new(
                Exit::Expired,
                format!(
                    "{count} of {cosigned} witnesses have cosigned the log with this publish; no receipt was written."
                ),
                "Try again later, or without --cosigned; an admin sees with `countersign admin status` how the witnesses do.",
            ));
        }
        looks += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// How many lines stand under the checkpoint of what may be a receipt, beside the log's own.
fn cosignatures(bytes: &[u8]) -> Option<usize> {
    let envelope: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let payload = STANDARD.decode(envelope.get("payload")?.as_str()?).ok()?;
    let statement: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    let note = statement.pointer("/predicate/checkpoint")?.as_str()?;
    let lines = note.lines().filter(|line| line.starts_with('\u{2014}'));
    Some(lines.count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_under_a_receipts_checkpoint_are_counted() {
        let receipt = |note: &str| {
            let body = serde_json::json!({"predicate": {"checkpoint": note}}).to_string();
            serde_json::json!({"payload": STANDARD.encode(body)}).to_string()
        };
        let log = "broker\n7\nroot\n\n\u{2014} broker sig\n";
        let one = format!("{log}\u{2014} witness sig\n");
        assert_eq!(cosignatures(receipt(log).as_bytes()), Some(0));
        assert_eq!(cosignatures(receipt(&one).as_bytes()), Some(1));
        for bad in [
            "",
            "{}",
            "<html>",
            r#"{"payload":1}"#,
            r#"{"payload":"e30="}"#,
        ] {
            assert_eq!(cosignatures(bad.as_bytes()), None, "{bad}");
        }
    }

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
