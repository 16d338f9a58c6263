//! `admin audit`: the log searched, and exported: as JSON lines with the signed checkpoint over them, or for programs
//! that collect events.

use crate::{
    context::{Context, Device},
    fail::Failure,
};
use proto::{api::LogLine, log::find::Entry, problem::Code};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

pub(super) mod find;
mod ocsf;

/// Entries in one page.
const PAGE: u64 = 1000;

/// What is done with the log.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Look for entries: about a package, by a person, of a type, in a time
    Find(find::Args),
    /// Write the log to a file that `countersign verify` checks offline
    #[command(after_help = "\
Examples:
  countersign admin audit export --out log.jsonl
  countersign verify log.jsonl --key 'broker.example.org+1a2b3c4d+AQ…'
  countersign admin audit export --out log.jsonl --cosigned 1   # up to where a witness cosigned it
  countersign admin audit export --format ocsf --from 1000 --out new.jsonl --json   # says `next`

An export with --from is a continuation: append it to what you have, in place of the old \
checkpoint. Events of the OCSF have none: what proves them is the log itself.")]
    Export {
        /// How: jsonl (entries, verifiable) or ocsf (events of the Open Cybersecurity Schema Framework)
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
        /// First entry
        #[arg(long, default_value_t = 0, value_name = "N")]
        from: u64,
        /// Up to the newest checkpoint that so many witnesses cosigned, for `verify --witness`
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        cosigned: u64,
        /// Where to write it
        #[arg(long)]
        out: PathBuf,
    },
}

/// How an export is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// As it is, with the checkpoint.
    Jsonl,
    /// As events.
    Ocsf,
}

/// Runs it.
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Find(args) => find::run(context, args).await,
        Command::Export {
            format,
            from,
            cosigned,
            out,
        } => export(context, format, from, cosigned, &out).await,
    }
}

async fn export(
    context: &Context,
    format: Format,
    from: u64,
    cosigned: u64,
    out: &Path,
) -> Result<(), Failure> {
    let device = context.device()?;
    // The checkpoint first: entries that come after it are left to the next export, so that file and
    // checkpoint always agree.
    let note = checkpoint(&device, cosigned).await?;
    let size = size_of(&note).ok_or_else(not_understood)?;
    if size < from && cosigned > 0 {
        return Err(Failure::failed(
            format!(
                "The witnesses cosigned {size} entries, fewer than the {from} that were exported before."
            ),
            "Try again a little later, or without --cosigned; `countersign admin status` says how the witnesses do.",
        ));
    }
    if size < from {
        return Err(Failure::refused(
            format!("The log has {size} entries, fewer than the {from} that were exported before."),
            "Look whether it was rolled back: `countersign log`. Ask the admins whether a backup was restored.",
        ));
    }
    let log = note.lines().next().unwrap_or_default();
    let fail = |e: &std::io::Error| Failure::file(out, e);
    let mut file = tempfile::NamedTempFile::new_in(match out.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    })
    .map_err(|e| fail(&e))?;
    let mut next = from;
    while next < size {
        let page = page(&device, next, PAGE.min(size - next)).await?;
        let bytes = match format {
            Format::Jsonl => page.bytes,
            Format::Ocsf => as_events(log, &page.bytes)?,
        };
        file.write_all(&bytes).map_err(|e| fail(&e))?;
        next = page.next;
    }
    if format == Format::Jsonl {
        let last = serde_json::json!({"checkpoint": note});
        writeln!(file, "{last}").map_err(|e| fail(&e))?;
    }
    file.as_file().sync_all().map_err(|e| fail(&e))?;
    file.persist(out).map_err(|e| fail(&e.error))?;
    let count = size.saturating_sub(from);
    let value = serde_json::json!({"file": out, "entries": count, "next": size});
    context.out.result(
        &value,
        &format!("{count} entries in {}, next --from {size}", out.display()),
    )
}

/// The newest checkpoint, or the newest that so many witnesses cosigned.
async fn checkpoint(device: &Device, cosigned: u64) -> Result<String, Failure> {
    let path = if cosigned == 0 {
        "/v1/log/checkpoint".to_owned()
    } else {
        format!("/v1/log/checkpoint?cosigned={cosigned}")
    };
    let note = device.broker.get_raw(&path, device.proof()).await;
    let note = note.map_err(|failure| {
        if cosigned == 0 || failure.code != Some(Code::NotFound) {
            return failure;
        }
        Failure::failed(
            format!("The log has no checkpoint that {cosigned} witnesses cosigned."),
            "`countersign admin status` says how the witnesses do; they are named in [[witness]] of the configuration.",
        )
    })?;
    String::from_utf8(note).map_err(|_| not_understood())
}

/// The same entries as events.
fn as_events(log: &str, page: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    for line in page.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let line: LogLine = serde_json::from_slice(line).map_err(|_| not_understood())?;
        let entry = Entry::read(&line.leaf).ok_or_else(not_understood)?;
        let event = ocsf::event(log, line.index, &line.leaf, &entry);
        bytes.extend(event.to_string().into_bytes());
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// Whole lines, as the broker wrote them: the leaf is hashed over exact bytes.
struct Page {
    bytes: Vec<u8>,
    next: u64,
}

async fn page(device: &Device, from: u64, limit: u64) -> Result<Page, Failure> {
    let path = format!("/v1/log/export?from={from}&limit={limit}");
    let bytes = device.broker.get_raw(&path, device.proof()).await?;
    check_page(bytes, from, limit)
}

/// Whether the entries are genuine is for `verify` to find; here a page must be the entries that were asked for.
fn check_page(mut bytes: Vec<u8>, from: u64, limit: u64) -> Result<Page, Failure> {
    let mut next = from;
    for line in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let entry: LogLine = serde_json::from_slice(line).map_err(|_| not_understood())?;
        if entry.index != next {
            return Err(Failure::refused(
                format!("The log has entry {} where {next} belongs.", entry.index),
                "Tell the broker's admin: the log may have been changed.",
            ));
        }
        next += 1;
    }
    if next == from || next > from + limit {
        return Err(Failure::refused(
            format!("The log ends at entry {from}, before its own checkpoint."),
            "Tell the broker's admin: the log may have been cut.",
        ));
    }
    if bytes.last() != Some(&b'\n') {
        bytes.push(b'\n');
    }
    Ok(Page { bytes, next })
}

/// The second line of a checkpoint (C2SP tlog-checkpoint) is the number of entries.
fn size_of(note: &str) -> Option<u64> {
    note.lines().nth(1)?.parse().ok()
}

fn not_understood() -> Failure {
    Failure::failed(
        "The broker's log is not understood.",
        "Check that client and broker have the same version: `countersign status`.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_whole_and_in_order() {
        let line = |n: u64| format!("{{\"index\":{n},\"leaf\":\"x\"}}\n");
        let page = check_page((line(3) + &line(4)).into_bytes(), 3, 2).unwrap();
        assert_eq!(page.next, 5);
        let cut = (line(3) + line(4).trim_end()).into_bytes();
        assert_eq!(check_page(cut, 3, 2).unwrap().bytes.last(), Some(&b'\n'));
        for bad in [
            String::new(),
            line(4),
            line(3) + &line(5),
            line(3) + &line(4) + &line(5),
            "x\n".into(),
        ] {
            assert!(check_page(bad.into_bytes(), 3, 2).is_err());
        }
        assert_eq!(size_of("broker\n17\nroot=\n\n— broker sig\n"), Some(17));
        assert_eq!(size_of("x"), None);
    }
}
