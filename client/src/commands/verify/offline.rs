//! The one place that connects `verify` with the library that proves receipts and exports.

use super::{Demanded, Verdict};
use crate::{edge, fail::Failure};
use proto::{
    log::{
        checkpoint::{Checkpoint, LogKey},
        cosignature::{self, CosignError, Cosigned},
        export::{Known, verify_export},
        receipt::verify_receipt,
    },
    problem::Exit,
    request::Item,
    text::harmless,
};
use std::{fmt::Display, io::BufRead};

/// Seconds by which a witness's clock may be wrong.
const CLOCK_SECONDS: u64 = 24 * 3600;

/// Verifies a receipt (a DSSE envelope).
pub(crate) fn receipt(
    bytes: &[u8],
    key: Option<&str>,
    demanded: &Demanded,
) -> Result<Verdict, Failure> {
    let report = verify_receipt(bytes, key).map_err(|e| invalid("receipt", &e))?;
    let cosigned = cosigned("receipt", &report.checkpoint, demanded)?;
    let early = |one: &&Cosigned| report.published.since(one.time) > CLOCK_SECONDS;
    if let Some(one) = cosigned.iter().find(early) {
        return Err(wrong_clock("receipt", one));
    }
    let mut lines = vec!["valid receipt".to_owned()];
    let mut add = |label: &str, what: &str| lines.push(format!("  {label:<10} {what}"));
    for name in report.facts.items.iter().map(Item::name) {
        add("published", &harmless(&name));
    }
    for file in report.facts.items.iter().flat_map(|i| &i.files) {
        add("", &file.digest.to_string());
    }
    for a in &report.approvers {
        add(
            "approved",
            &format!("{} by {} at {}", a.person, a.device, a.time.rfc3339()),
        );
    }
    add("recorded", &report.published.rfc3339());
    add(
        "entry",
        &format!("{} of {}", report.index, report.tree_size),
    );
    add("log key", &harmless(&report.log_key));
    for one in &cosigned {
        add("cosigned", &said(one));
    }
    Ok(Verdict {
        pinned: report.pinned,
        value: value("receipt", &report, &cosigned)?,
        text: lines.join("\n"),
    })
}

/// Verifies an exported log.
pub(crate) fn export(
    reader: impl BufRead,
    key: Option<&str>,
    seen: Option<&Checkpoint>,
    demanded: &Demanded,
) -> Result<Verdict, Failure> {
    let key = key.map(str::parse::<LogKey>).transpose().map_err(|e| {
        Failure::usage(
            format!("The key {e}."),
            "Copy it from `countersign status`.",
        )
    })?;
    let known = Known {
        key: key.as_ref(),
        seen,
    };
    let report = verify_export(reader, known).map_err(|e| invalid("export", &e))?;
    let cosigned = cosigned("export", &report.checkpoint, demanded)?;
    let origin = harmless(&report.origin);
    let mut lines = vec![
        format!("valid log of {origin}"),
        format!("  {:<10} {}", "entries", report.size),
    ];
    let cosigned_by = |one| format!("  {:<10} {}", "cosigned", said(one));
    lines.extend(cosigned.iter().map(cosigned_by));
    Ok(Verdict {
        pinned: report.pinned,
        value: value("export", &report, &cosigned)?,
        text: lines.join("\n"),
    })
}

/// The cosignatures that were demanded.
fn cosigned(what: &str, note: &str, demanded: &Demanded) -> Result<Vec<Cosigned>, Failure> {
    let found = cosignature::demand(note, &demanded.witnesses, demanded.needed);
    let found = found.map_err(|why| {
        let next = match why {
            CosignError::TooFew { .. } => {
                "Fetch it again a little later: a witness cosigns some seconds after the fact (an export with --cosigned). If it stays so, ask the broker's admin and the witness's operator what became of it; until then nothing shows that this log is the one that others see."
            }
            _ => {
                "Do not trust it. Compare the witness's key with its operator's own; if that is right, tell the broker's admin: somebody forged it."
            }
        };
        let why = harmless(&why.to_string());
        Failure::new(
            Exit::Failed,
            format!("The checkpoint of this {what} is not cosigned as demanded: {why}."),
            next,
        )
    })?;
    let now = edge::now();
    let late = |one: &&Cosigned| one.time.since(now) > CLOCK_SECONDS;
    match found.iter().find(late) {
        Some(one) => Err(wrong_clock(what, one)),
        None => Ok(found),
    }
}

/// Who says that it was cosigned tomorrow, or before it was published, says nothing by his time.
fn wrong_clock(what: &str, one: &Cosigned) -> Failure {
    Failure::new(
        Exit::Failed,
        format!(
            "The checkpoint of this {what} is not cosigned as demanded: the clock of {} was wrong by more than a day.",
            harmless(&one.witness)
        ),
        "Ask the witness's operator; if your own clock is wrong, set it and try again.",
    )
}

fn said(one: &Cosigned) -> String {
    format!("{} at {}", harmless(&one.witness), one.time.rfc3339())
}

fn value(
    kind: &str,
    report: &impl serde::Serialize,
    cosigned: &[Cosigned],
) -> Result<serde_json::Value, Failure> {
    let whole = |report| serde_json::json!({"valid": true, "kind": kind, "report": report, "cosigned": cosigned});
    serde_json::to_value(report)
        .map(whole)
        .map_err(|e| Failure::failed(format!("The report is no JSON: {e}."), "Report this."))
}

fn invalid(what: &str, why: &impl Display) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("The {what} is not valid: {}.", harmless(&why.to_string())),
        "Do not trust it. Fetch it again; if it stays invalid, tell the broker's admin.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{
        api::LogLine,
        device::DeviceKey,
        log::{
            export::CheckpointLine,
            merkle::{leaf_hash, root},
        },
    };

    const NOBODY: &Demanded = &Demanded {
        witnesses: Vec::new(),
        needed: 0,
    };

    #[test]
    fn an_export_is_valid_and_one_changed_letter_is_found() {
        let key = DeviceKey::from_seed([7; 32]).unwrap();
        let vkey = LogKey::new("broker.example", key.public())
            .unwrap()
            .to_string();
        let note = Checkpoint {
            origin: "broker.example".into(),
            size: 1,
            root: root(&[leaf_hash(b"entry")]),
        }
        .sign(&key)
        .unwrap();
        let line = LogLine {
            index: 0,
            leaf: "entry".into(),
        };
        let last = CheckpointLine { checkpoint: note };
        let text = format!(
            "{}\n{}\n",
            serde_json::to_string(&line).unwrap(),
            serde_json::to_string(&last).unwrap()
        );
        let verdict = export(text.as_bytes(), Some(&vkey), None, NOBODY).unwrap();
        assert!(verdict.pinned && verdict.text.contains("entries    1"));
        assert!(!export(text.as_bytes(), None, None, NOBODY).unwrap().pinned);
        let edited = text.replace("entry", "entrx");
        assert_eq!(
            export(edited.as_bytes(), Some(&vkey), None, NOBODY)
                .err()
                .unwrap()
                .exit as u8,
            1
        );
        assert_eq!(
            export(text.as_bytes(), Some("x"), None, NOBODY)
                .err()
                .unwrap()
                .exit as u8,
            2
        );
        assert_eq!(receipt(b"{}", None, NOBODY).err().unwrap().exit as u8, 1);
    }
}
