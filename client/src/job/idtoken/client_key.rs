//! A token of our own, for CI that gives its jobs none: signed by a key that an admin registered.

use crate::{edge, fail::Failure};
use proto::{
    device::DeviceKey,
    digest::{hex, unhex},
    ids::ClientKeyId,
};
use serde::{Deserialize, Serialize};
use std::path::Path;
use zeroize::Zeroizing;

/// How long a token by a client key lives, in seconds.
const LIFE: u64 = 300;

/// A client key's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    name: ClientKeyId,
    seed: String,
}

/// The claims of a token by a client key.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: String,
}

/// A token signed by a client key: the file's path, or its text itself.
pub(super) fn token(source: &str, audience: &str) -> Result<Zeroizing<String>, Failure> {
    let (name, key) = read_key(source)?;
    let now = edge::now();
    let claims = Claims {
        iss: "client-key",
        sub: name.as_str(),
        aud: audience,
        iat: now.0,
        exp: now.after(LIFE).0,
        jti: edge::random_id()?,
    };
    Ok(Zeroizing::new(key.sign_jwt(
        "countersign-client+jwt",
        name.as_str(),
        &claims,
    )))
}

fn read_key(source: &str) -> Result<(ClientKeyId, DeviceKey), Failure> {
    let text = if source.contains("seed") && source.contains('=') {
        Zeroizing::new(source.to_owned())
    } else {
        edge::read_secret(Path::new(source))?
    };
    let file: Option<KeyFile> = toml::from_str(&text).ok();
    let bad = || {
        Failure::usage(
            "COUNTERSIGN_CLIENT_KEY is no client key.",
            "Make one with `countersign admin client-key new ci --out ci.key`.",
        )
    };
    let file = file.ok_or_else(bad)?;
    let seed = Zeroizing::new(file.seed);
    let raw = Zeroizing::new(unhex(&seed).unwrap_or_default());
    let seed = <[u8; 32]>::try_from(raw.as_slice()).map_err(|_| bad())?;
    let key = DeviceKey::from_seed(seed).map_err(|_| bad())?;
    Ok((file.name, key))
}

/// Makes a client key and writes its file; returns the public key.
pub(crate) fn new_key(name: &ClientKeyId, path: &Path) -> Result<String, Failure> {
    if path.exists() {
        return Err(Failure::usage(
            format!("{} exists already.", path.display()),
            "Choose another name: a key is never overwritten.",
        ));
    }
    let key = DeviceKey::from_seed(edge::random()?)
        .map_err(|e| Failure::failed(format!("The new key {e}."), "Run the command again."))?;
    let file = KeyFile {
        name: name.clone(),
        seed: hex(key.expose_seed()),
    };
    let text = toml::to_string(&file)
        .map(Zeroizing::new)
        .map_err(|e| Failure::failed(format!("The key file is no TOML: {e}."), "Report this."))?;
    edge::write_private(path, text.as_bytes())?;
    Ok(key.public().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    #[test]
    fn a_client_key_signs_a_short_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ci.key");
        let name = "ci".parse().unwrap();
        let public = new_key(&name, &path).unwrap();
        assert!(new_key(&name, &path).is_err());
        let jwt = token(path.to_str().unwrap(), "https://b.example").unwrap();
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let public = proto::device::DevicePublic::try_from(public).unwrap();
        assert!(public.verify(
            signed.as_bytes(),
            &URL_SAFE_NO_PAD.decode(signature).unwrap()
        ));
        let (head, body) = signed.split_once('.').unwrap();
        let json = |part| -> serde_json::Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!(json(head)["typ"], "countersign-client+jwt");
        assert_eq!(json(head)["kid"], "ci");
        assert_eq!(json(body)["iss"], "client-key");
        assert_eq!(
            json(body)["exp"].as_u64().unwrap() - json(body)["iat"].as_u64().unwrap(),
            300
        );
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(token(&text, "https://b.example").is_ok());
        assert!(token("/does/not/exist", "x").is_err());
    }
}
