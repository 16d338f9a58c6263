//! Who is calling: a device's signed call, a ticket, or a caller's token.

use super::{
    reply::Failed,
    seen::{Seen, Taken},
};
use crate::{
    caller::{Caller, CallerRefused},
    desk::{Desk, Fault, people::Person},
    publish::Refusal,
};
use axum::body::Bytes;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, Uri, header};
use proto::{
    bearer::{Bearer, Kind},
    device::{CALL_WINDOW, CallClaims, DeviceKind, body_hash},
    ids::DeviceId,
    problem::Code,
    time::UnixTime,
};
use serde::Deserialize;
use std::sync::Arc;

/// Checks signed calls. One per process: its nonces die with it, so a call recorded before a
/// restart is worth nothing after it (RFC 9449 §8).
pub struct Signatures {
    seen: Seen,
}

/// A person who signed this call.
pub struct Signer {
    /// Who.
    pub person: Arc<Person>,
    /// With which device.
    pub device: DeviceId,
    /// When, by the device's clock.
    pub at: UnixTime,
}

impl Signer {
    /// Whether the device is a browser, which asks nobody before it signs.
    pub fn in_browser(&self) -> bool {
        let device = self.person.device(&self.device);
        device.is_none_or(|d| d.kind == DeviceKind::Browser)
    }
}

/// One call as it arrived.
pub struct Arrived<'a> {
    /// Method.
    pub method: &'a Method,
    /// Path and query.
    pub uri: &'a Uri,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// Body.
    pub body: &'a Bytes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: DeviceId,
}

impl Signatures {
    /// With a fresh nonce.
    pub fn new(desk: &Desk) -> Result<Self, Fault> {
        Ok(Self {
            seen: Seen::new(&desk.world)?,
        })
    }

    /// The nonce that calls name now.
    pub fn nonce(&self, desk: &Desk) -> Result<String, Failed> {
        Ok(self.seen.nonce(&desk.world).map_err(Refusal::from)?)
    }

    /// The person who signed this call.
    pub fn signer(
        &self,
        desk: &Desk,
        call: &Arrived<'_>,
        while_sealed: bool,
        now: UnixTime,
    ) -> Result<Signer, Failed> {
        let bad = |why: &str| {
            Failed::new(
                Code::Unauthenticated,
                "this call is not signed by an enrolled device",
                why,
            )
        };
        let mut values = call.headers.get_all("dpop").iter();
        let (Some(proof), None) = (values.next(), values.next()) else {
            return Err(bad(
                "Send one DPoP header; enrol first: countersign enroll.",
            ));
        };
        let proof = proof
            .to_str()
            .map_err(|_| bad("The DPoP header is not ASCII."))?;
        let mut parts = proof.split('.');
        let (Some(h), Some(c), Some(s), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad("The DPoP header is not a compact JWS."));
        };
        let header: Header = decode(h).ok_or_else(|| bad("The DPoP header's head is not ours."))?;
        let claims: CallClaims =
            decode(c).ok_or_else(|| bad("The DPoP header's claims are not ours."))?;
        let signature = URL_SAFE_NO_PAD
            .decode(s)
            .map_err(|_| bad("The signature is not base64url."))?;
        if header.alg != "EdDSA" || header.typ != "dpop+jwt" {
            return Err(bad("Only EdDSA is taken."));
        }
        let person = if while_sealed && desk.vault.is_sealed() {
            desk.person_unauthenticated(&header.kid)
                .map(|p| p.map(Arc::new))
        } else {
            desk.person_of_device(&header.kid)
                .map(|p| p.map(|p| p.value))
        };
        let person = person
            .map_err(|f| Failed::from(Refusal::Fault(f)))?
            .ok_or_else(|| bad("This device is not enrolled here (any more)."))?;
        let signed = proof.rsplit_once('.').map_or("", |(signed, _)| signed);
        let key = person
            .key_of(&header.kid)
            .ok_or_else(|| bad("This device is not enrolled here."))?;
        if !key.verify(signed.as_bytes(), &signature) {
            return Err(bad("The signature does not hold."));
        }
        let target = call
            .uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        let url = format!("{}{target}", desk.place.public_url);
        if claims.htm != call.method.as_str()
            || claims.htu != url
            || claims.ath != body_hash(call.body)
        {
            return Err(bad(
                "The signature is about another call; is --broker the broker's public URL?",
            ));
        }
        if !desk.world.near(UnixTime(claims.iat), now, CALL_WINDOW) {
            return Err(Failed::new(
                Code::ClockWrong,
                "the clocks of device and broker are more than a minute apart",
                "Set the clock; the broker's is in `countersign status`.",
            ));
        }
        let taken = self
            .seen
            .take(&desk.world, &header.kid, &claims.nonce, &claims.jti)
            .map_err(Refusal::from)?;
        match taken {
            Taken::First => Ok(Signer {
                person,
                device: header.kid,
                at: UnixTime(claims.iat),
            }),
            Taken::Again => Err(bad("This very call was made before.")),
            Taken::TooMany => Err(Failed::new(
                Code::Busy,
                "this device makes too many calls",
                "Wait a minute.",
            )),
            Taken::Stale(nonce) => {
                let title = "sign again with the nonce of this reply";
                let mut failed = Failed::new(Code::UseNonce, title, "");
                failed.1 = Some(nonce);
                Err(failed)
            }
        }
    }
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    if part.len() > 4096 {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// The ticket in `Authorization: Bearer cst_…`.
pub fn ticket(headers: &HeaderMap) -> Result<Bearer, Failed> {
    let text = bearer(headers)?;
    Bearer::parse(Kind::Ticket, text).map_err(|e| {
        Failed::new(
            Code::Unauthenticated,
            format!("the ticket {e}"),
            "Send Authorization: Bearer cst_…",
        )
    })
}

/// The caller behind `Authorization: Bearer <IdToken>`.
pub async fn caller(desk: &Desk, headers: &HeaderMap, now: UnixTime) -> Result<Caller, Failed> {
    let text = bearer(headers)?;
    trusted_clock(desk)?;
    let verified = desk.issuers.verify(text, now).await;
    verified.map_err(|why| refused(&why))
}

/// Whoever verifies an id token asks this first: a clock that was set back would revive old ones
/// (attack 48).
pub fn trusted_clock(desk: &Desk) -> Result<(), Failed> {
    if desk.world.clock_suspect() {
        return Err(Refusal::ClockSuspect.into());
    }
    Ok(())
}

/// What a caller is told whose token does not hold.
pub fn refused(why: &CallerRefused) -> Failed {
    tracing::info!(reason = %why, "a caller was refused");
    let code = if matches!(why, CallerRefused::NotYetValid) {
        Code::ClockWrong
    } else {
        Code::Unauthenticated
    };
    Failed::new(code, why.to_string(), "")
}

fn bearer(headers: &HeaderMap) -> Result<&str, Failed> {
    let missing = || Failed::new(Code::Unauthenticated, "no Authorization: Bearer header", "");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(missing());
    };
    value
        .to_str()
        .ok()
        .and_then(|v| v.strip_prefix("Bearer "))
        .ok_or_else(missing)
}
