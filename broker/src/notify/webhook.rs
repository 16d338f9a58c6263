//! Webhooks: a signed POST as in the Standard Webhooks specification (1.0), whose JSON has a `text` as Slack and
//! its likes show it.
//!
//! `webhook-id` is the message's id and the same when it is sent again, `webhook-timestamp` the second of sending,
//! `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body` under the bytes behind
//! `whsec_`. A receiver that acts on the message checks all three; one that shows it need not.

use super::{Channel, Pen, Row, Unusable, egress::Post};
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, header};
use proto::notify::ChannelKind;
use serde::Serialize;

/// The table's row.
pub(super) const ROW: Row = Row {
    kind: ChannelKind::Webhook,
    judge: |_| Ok(()),
    post,
};

const PREFIX: &str = "whsec_";

/// A new channel's secret.
pub(super) fn secret(random: &[u8; 32]) -> String {
    format!("{PREFIX}{}", STANDARD.encode(random))
}

#[derive(Serialize)]
struct Body<'a> {
    text: String,
    #[serde(flatten)]
    payload: super::note::Payload<'a>,
}

fn post(channel: &Channel, pen: &Pen<'_>) -> Result<Post, Unusable> {
    let broken = || Unusable::new("its secret is damaged; remove it and add it again");
    let secret = channel
        .secret
        .as_deref()
        .and_then(|s| s.strip_prefix(PREFIX));
    let secret = secret.and_then(|s| STANDARD.decode(s).ok());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.ok_or_else(broken)?);
    let body = Body {
        text: format!("{} {}", pen.note.about.text(), pen.note.page),
        payload: pen.note.payload(),
    };
    let body = serde_json::to_vec(&body).map_err(|_| broken())?;
    let (id, time) = (pen.note.message.to_string(), pen.now.0.to_string());
    let mut signed = format!("{id}.{time}.").into_bytes();
    signed.extend_from_slice(&body);
    let signature = format!("v1,{}", STANDARD.encode(hmac::sign(&key, &signed)));
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    for (name, value) in [
        ("webhook-id", id),
        ("webhook-timestamp", time),
        ("webhook-signature", signature),
    ] {
        let value = HeaderValue::from_str(&value).map_err(|_| broken())?;
        headers.insert(name, value);
    }
    Ok(Post {
        url: channel.address()?,
        headers,
        body,
    })
}
