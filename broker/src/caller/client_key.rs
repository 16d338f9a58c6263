//! CI without OIDC: a job signs a short JWT with an Ed25519 key that an admin registered.
//!
//! What if a client key is stolen? The thief may ask, for the key's own packages; he publishes
//! nothing. Removing the key takes effect at the next token, since nothing is cached.

use super::{refused::CallerRefused, token::UnverifiedToken};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proto::{device::DevicePublic, ids::ClientKeyId, request::CallerFacts};
use std::collections::BTreeMap;

/// `iss` of the tokens, and the issuer's name in the policy.
pub const ISSUER: &str = "client-key";
/// `typ` of the tokens. A device's signed call (`dpop+jwt`) or an ID token is never taken for one.
pub const TYPE: &str = "countersign-client+jwt";

/// Finds registered client keys.
pub trait ClientKeys: Send + Sync {
    /// The key as it is registered right now, and the packages that it may ask for; `None` when it
    /// was never registered, was removed, or could not be read.
    fn find(&self, key: &ClientKeyId) -> Option<(DevicePublic, Vec<String>)>;
}

impl<F> ClientKeys for F
where
    F: Fn(&ClientKeyId) -> Option<(DevicePublic, Vec<String>)> + Send + Sync,
{
    fn find(&self, key: &ClientKeyId) -> Option<(DevicePublic, Vec<String>)> {
        self(key)
    }
}

/// No client keys at all.
#[derive(Clone, Copy, Debug)]
pub struct NoClientKeys;

impl ClientKeys for NoClientKeys {
    fn find(&self, _: &ClientKeyId) -> Option<(DevicePublic, Vec<String>)> {
        None
    }
}

/// Checks key and signature; the claim rules common to all tokens were checked before. Returns the
/// facts and the packages.
pub(super) fn check(
    token: &UnverifiedToken<'_>,
    keys: &dyn ClientKeys,
) -> Result<(CallerFacts, Vec<String>), CallerRefused> {
    let name: ClientKeyId = token
        .header
        .kid
        .parse()
        .map_err(|_| CallerRefused::UnknownKey)?;
    // The key speaks for itself only: a subject other than the key that signed would be a lie.
    if token.claims.sub != name.as_str() {
        return Err(CallerRefused::ClaimMissing("sub".into()));
    }
    let (public, packages) = keys.find(&name).ok_or(CallerRefused::UnknownKey)?;
    let (signed, signature) = token.raw.rsplit_once('.').ok_or(CallerRefused::Signature)?;
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| CallerRefused::Signature)?;
    if !public.verify(signed.as_bytes(), &signature) {
        return Err(CallerRefused::Signature);
    }
    // Only the name: whatever else such a token says, the job says about itself.
    let facts = CallerFacts {
        issuer: ISSUER.to_owned(),
        subject: name.as_str().to_owned(),
        claims: BTreeMap::new(),
        run_url: None,
    };
    Ok((facts, packages))
}
