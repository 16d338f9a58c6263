//! Who is calling: a device's signed call, a ticket, or a caller's token.

use super::reply::Failed;
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
    device::{CALL_WINDOW, CallClaims, body_hash},
    ids::DeviceId,
    problem::Code,
    time::UnixTime,
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Remembered ids of signed calls; beyond it the oldest window is dropped by time anyway.
const SEEN_MAX: usize = 100_000;

/// Checks signed calls. One per process: its nonce dies with it, so a call recorded before a
/// restart is worth nothing after it (RFC 9449 §8).
pub struct Signatures {
    nonce: String,
    seen: Mutex<HashMap<String, UnixTime>>,
}

/// A person who signed this call.
pub struct Signer {
    /// Who.
    pub person: Person,
    /// With which device.
    pub device: DeviceId,
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
        let nonce = URL_SAFE_NO_PAD.encode(desk.world.random::<16>()?);
        Ok(Self {
            nonce,
            seen: Mutex::default(),
        })
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
        if now.since(UnixTime(claims.iat)) > CALL_WINDOW
            || UnixTime(claims.iat).since(now) > CALL_WINDOW
        {
            return Err(Failed::new(
                Code::ClockWrong,
                "the clocks of device and broker are more than a minute apart",
                "Set the clock; the broker's is in `countersign status`.",
            ));
        }
        if claims.nonce != self.nonce {
            let mut failed = Failed::new(
                Code::UseNonce,
                "sign again with the nonce of this reply",
                "",
            );
            failed.1 = Some(self.nonce.clone());
            return Err(failed);
        }
        if !self.first_use(claims.jti, now) {
            return Err(bad("This very call was made before."));
        }
        Ok(Signer {
            person,
            device: header.kid,
        })
    }

    fn first_use(&self, jti: String, now: UnixTime) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= SEEN_MAX {
            seen.retain(|_, at| now.since(*at) <= 2 * CALL_WINDOW);
        }
        // Full within one window: fail closed.
        seen.len() < SEEN_MAX
            && !jti.is_empty()
            && jti.len() <= 64
            && seen.insert(jti, now).is_none()
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
    let verified = desk.issuers.verify(text, now).await;
    verified.map_err(|why| refused(&why))
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
