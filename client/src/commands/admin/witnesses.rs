//! How the log's witnesses do, in `admin status`.

use crate::{
    context::{Context, Device},
    edge,
    fail::Failure,
    out::span,
};
use proto::{api::WitnessState, text::harmless};

/// Seconds without a cosignature after which that is a warning.
const SILENT: u64 = 3_600;

/// What the broker knows of them.
pub(super) async fn known(device: &Device) -> Result<Vec<WitnessState>, Failure> {
    let path = "/v1/admin/witnesses";
    device.broker.get(path, device.proof()).await
}

/// Their lines; none where the log has no witness.
pub(super) fn lines(context: &Context, known: &[WitnessState]) -> Result<(), Failure> {
    for one in known {
        let (warn, text) = told(one, edge::now().0);
        if warn {
            let text = format!("! {text}");
            context.out.line(&context.out.warning(&text))?;
        } else {
            context.out.line(&format!("  witness   {text}"))?;
        }
    }
    Ok(())
}

/// Whether it is a warning, and the words.
fn told(one: &WitnessState, now: u64) -> (bool, String) {
    let name = one.witness.split('+').next().unwrap_or_default();
    let name = harmless(name);
    if let Some(refused) = &one.refused {
        let (seen, entries) = (refused.seen, refused.entries);
        let what = if refused.forked {
            format!("its {entries} entries do not begin with the {seen} that the witness has seen")
        } else {
            format!("it has {entries} entries, and the witness has seen {seen}")
        };
        let text = format!(
            "ALARM: the witness {name} refuses the log: {what}. It was rolled back or rewritten, or the witness lies (docs/LOG.md)"
        );
        return (true, text);
    }
    let last = match (one.entries, one.cosigned) {
        (Some(entries), Some(at)) => {
            let age = span(now.saturating_sub(at.0));
            format!("{name} cosigned {entries} entries {age} ago")
        }
        _ => format!("{name} has cosigned nothing yet"),
    };
    match &one.failing {
        Some((since, why)) => {
            let long = now.saturating_sub(since.0) >= SILENT;
            (long, format!("{last}; since then: {}", harmless(why)))
        }
        None => (false, last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{api::WitnessRefusal, time::UnixTime};

    #[test]
    fn a_witness_that_refuses_is_an_alarm_and_one_that_is_away_a_warning_after_an_hour() {
        let mut one = WitnessState {
            witness: "w.example/1+00c0ffee+BA".into(),
            entries: Some(57),
            cosigned: Some(UnixTime(1_000)),
            failing: None,
            refused: None,
        };
        let (warn, text) = told(&one, 1_003);
        assert!(
            !warn && text.starts_with("w.example/1 cosigned 57 entries"),
            "{text}"
        );
        one.failing = Some((UnixTime(1_000), "it did not answer in time".into()));
        assert!(!told(&one, 4_599).0);
        let (warn, text) = told(&one, 4_600);
        assert!(
            warn && text.ends_with("it did not answer in time"),
            "{text}"
        );
        one.refused = Some(WitnessRefusal {
            since: UnixTime(1_000),
            entries: 40,
            seen: 57,
            forked: false,
        });
        let (warn, text) = told(&one, 1_003);
        assert!(
            warn && text.contains("it has 40 entries, and the witness has seen 57"),
            "{text}"
        );
        one.entries = None;
        one.refused = None;
        assert!(told(&one, 1_003).1.contains("nothing yet"));
    }
}
