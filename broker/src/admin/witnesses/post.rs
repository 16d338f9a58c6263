//! One checkpoint, posted to one witness (C2SP tlog-witness): what is sent, and what of the answer is believed.
//!
//! If the witness lies: it may say that the log is shorter than it was, or another, and is told to people by its name. It
//! can have nothing kept that is no cosignature of its own key over the very checkpoint, and nobody waits for it.

use crate::{
    desk::witnesses::Witness,
    registry::{ReadError, limited},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{StatusCode, header};
use proto::{
    log::{
        cosignature::{CosignError, REPLY_MAX},
        merkle::TreeHash,
    },
    time::UnixTime,
};
use reqwest::Response;
use std::{fmt::Write as _, time::Duration};
use thiserror::Error;

/// For a call and its answer.
const WHOLE: Duration = Duration::from_secs(10);
/// Most bytes of a number of entries.
const SIZE_MAX: usize = 64;
/// The type of an answer that tells how many entries the witness has seen.
const SIZE_TYPE: &str = "text/x.tlog.size";

/// What a witness answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Its cosignature, at this time of its clock.
    Cosigned(UnixTime, String),
    /// What it has seen is not what it was told that it has: so many entries, or other ones than as many.
    Has(Option<u64>),
    /// The log does not begin with what it has seen.
    Forked,
}

/// Why there is no answer that says anything.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum NotCosigned {
    /// No connection, or it broke.
    #[error("it could not be reached")]
    Unreachable,
    /// It took too long.
    #[error("it did not answer in time")]
    TimedOut,
    /// 404.
    #[error("it does not know this log: give its operator the log's key (countersign status)")]
    UnknownLog,
    /// 403.
    #[error(
        "it knows this log by another key: give its operator the log's key (countersign status)"
    )]
    OtherKey,
    /// Another status.
    #[error("it answered with status {0}")]
    Status(u16),
    /// Neither a cosignature nor a number.
    #[error("its answer was not understood")]
    NotUnderstood,
    /// No line of its own key.
    #[error("it answered without a cosignature by the key of the configuration")]
    OtherSigner,
    /// A line that does not hold.
    #[error("its cosignature does not hold: it is not by its key, or not over this checkpoint")]
    Forged,
    /// Our own.
    #[error("the log's tree is damaged: what the witness has seen cannot be proved to it")]
    Unproved,
    /// It has seen more than it was shown, and no more than there is.
    #[error("it has seen a newer checkpoint of this log")]
    Older,
}

/// Posts the checkpoint, with the proof that its log begins with the `old` entries that the witness has seen.
pub(super) async fn post(
    witness: &Witness,
    old: u64,
    proof: &[TreeHash],
    note: &str,
) -> Result<Reply, NotCosigned> {
    let call = witness.client.post(witness.place.clone());
    let call = call
        .timeout(WHOLE)
        .header(header::CONTENT_TYPE, "text/plain")
        .body(body(old, proof, note));
    let reply = call.send().await.map_err(|e| {
        if e.is_timeout() {
            NotCosigned::TimedOut
        } else {
            NotCosigned::Unreachable
        }
    })?;
    match reply.status() {
        StatusCode::OK => {
            let text = text(reply, REPLY_MAX).await?;
            let taken = witness.key.taken(note, &text);
            let (time, line) = taken.map_err(|why| match why {
                CosignError::Missing(_) => NotCosigned::OtherSigner,
                CosignError::Forged(_) => NotCosigned::Forged,
                _ => NotCosigned::NotUnderstood,
            })?;
            Ok(Reply::Cosigned(time, line))
        }
        StatusCode::CONFLICT => {
            let kind = reply.headers().get(header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            // Proxies add a `charset`.
            let kind = kind.split(';').next().unwrap_or_default().trim();
            let sized = kind.eq_ignore_ascii_case(SIZE_TYPE);
            let text = text(reply, SIZE_MAX).await?;
            Ok(Reply::Has(size(&text).filter(|_| sized)))
        }
        // An empty proof has nothing to fail by.
        StatusCode::UNPROCESSABLE_ENTITY if old > 0 => Ok(Reply::Forked),
        StatusCode::NOT_FOUND => Err(NotCosigned::UnknownLog),
        StatusCode::FORBIDDEN => Err(NotCosigned::OtherKey),
        status => Err(NotCosigned::Status(status.as_u16())),
    }
}

fn body(old: u64, proof: &[TreeHash], note: &str) -> String {
    let mut body = format!("old {old}\n");
    for hash in proof {
        // Writing into a string does not fail.
        let _ = writeln!(body, "{}", STANDARD.encode(hash.0));
    }
    body.push('\n');
    body.push_str(note);
    body
}

async fn text(reply: Response, most: usize) -> Result<String, NotCosigned> {
    let bytes = limited(reply, most).await.map_err(|why| match why {
        ReadError::TooLarge => NotCosigned::NotUnderstood,
        ReadError::TimedOut => NotCosigned::TimedOut,
        _ => NotCosigned::Unreachable,
    })?;
    String::from_utf8(bytes).map_err(|_| NotCosigned::NotUnderstood)
}

/// A number in its one spelling, and a line feed.
fn size(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('\n')?;
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_old_size_the_proof_an_empty_line_and_the_checkpoint() {
        let proof = [TreeHash([0; 32]), TreeHash([1; 32])];
        let zero = STANDARD.encode([0; 32]);
        let one = STANDARD.encode([1; 32]);
        let sent = body(7, &proof, "log\n9\nroot\n\n\u{2014} log sig\n");
        let wanted = format!("old 7\n{zero}\n{one}\n\nlog\n9\nroot\n\n\u{2014} log sig\n");
        assert_eq!(sent, wanted);
        assert_eq!(body(0, &[], "n\n"), "old 0\n\nn\n");
    }

    #[test]
    fn a_size_has_one_spelling() {
        assert_eq!(size("12\n"), Some(12));
        assert_eq!(size("0\n"), Some(0));
        for bad in [
            "12",
            "+12\n",
            "012\n",
            "12\n\n",
            "1 2\n",
            "-1\n",
            "",
            "\n",
            "99999999999999999999\n",
        ] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
    }
}
