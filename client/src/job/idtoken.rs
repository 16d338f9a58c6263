//! The token that says which job asks. It identifies; it authorises nothing.

use crate::{
    edge::{self, Env},
    fail::Failure,
    http::{self, Broker, Proof},
};
use proto::{
    api::BrokerStatus,
    device::DeviceKey,
    digest::{hex, unhex},
    ids::ClientKeyId,
};
use serde::{Deserialize, Serialize};
use std::path::Path;
use url::Url;
use zeroize::Zeroizing;

/// How long a token by a client key lives, in seconds.
const LIFE: u64 = 300;
/// Most bytes of the CI service's reply.
const REPLY_MAX: usize = 64 * 1024;

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

#[derive(Deserialize)]
struct GithubReply {
    value: String,
}

/// Gets a token from what the environment offers, in this order: `COUNTERSIGN_ID_TOKEN`, a client key
/// in `COUNTERSIGN_CLIENT_KEY`, GitHub Actions.
pub(crate) async fn obtain(env: &Env, broker: &Broker) -> Result<Zeroizing<String>, Failure> {
    if let Some(token) = env.get("COUNTERSIGN_ID_TOKEN") {
        return Ok(Zeroizing::new(token.to_owned()));
    }
    let source = (
        env.get("COUNTERSIGN_CLIENT_KEY"),
        env.get("ACTIONS_ID_TOKEN_REQUEST_URL"),
        env.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
    );
    if matches!(source, (None, None, _) | (None, _, None)) {
        return Err(Failure::usage(
            "This job has no identity.",
            "In GitHub Actions set `permissions: id-token: write`; elsewhere set COUNTERSIGN_ID_TOKEN or COUNTERSIGN_CLIENT_KEY.",
        ));
    }
    let status: BrokerStatus = broker.get("/v1/status", Proof::Nobody).await?;
    let audience = own_audience(&status.audience, broker.base(), env)?;
    match source {
        (Some(key), ..) => client_key(key, &audience),
        (None, Some(url), Some(token)) => github(url, token, &audience).await,
        _ => Err(Failure::usage(
            "This job has no identity.",
            "Set COUNTERSIGN_ID_TOKEN.",
        )),
    }
}

/// Attack 35: a broker that names somebody else's audience would get a token that works there. So the
/// audience is the broker's own address, or the one that the job's environment names.
fn own_audience(audience: &str, base: &str, env: &Env) -> Result<String, Failure> {
    let origin = |t: &str| Url::parse(t).ok().map(|u| u.origin());
    let same = origin(audience).is_some_and(|o| o.is_tuple() && Some(o) == origin(base));
    if same || env.get("COUNTERSIGN_AUDIENCE") == Some(audience) {
        return Ok(audience.to_owned());
    }
    let audience = proto::text::harmless(audience);
    Err(Failure::refused(
        format!("The broker asks for a token for '{audience}', which is not its own address."),
        "Check --broker; if the audience is right, set COUNTERSIGN_AUDIENCE to it.",
    ))
}

async fn github(url: &str, token: &str, audience: &str) -> Result<Zeroizing<String>, Failure> {
    let mut url = http::web_address(url, "ACTIONS_ID_TOKEN_REQUEST_URL")?;
    url.query_pairs_mut().append_pair("audience", audience);
    let fail = |why: String| {
        Failure::failed(
            format!("The CI service gave no token: {why}."),
            "Check `permissions: id-token: write`, and run the job again.",
        )
    };
    let response = http::build(&url, None)?
        .get(url)
        .bearer_auth(token)
        .timeout(std::time::Duration::from_secs(20))
        .send()
        .await
        .map_err(|e| fail(http::cause(&e)))?;
    let status = response.status();
    let body = Zeroizing::new(http::read(response, REPLY_MAX).await?);
    if !status.is_success() {
        return Err(fail(format!("it answered {status}")));
    }
    serde_json::from_slice::<GithubReply>(&body)
        .map(|r| Zeroizing::new(r.value))
        .map_err(|_| fail("its reply is not understood".to_owned()))
}

/// A token signed by a client key: the file's path, or its text itself.
fn client_key(source: &str, audience: &str) -> Result<Zeroizing<String>, Failure> {
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
        let jwt = client_key(path.to_str().unwrap(), "https://b.example").unwrap();
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
        assert!(client_key(&text, "https://b.example").is_ok());
        assert!(client_key("/does/not/exist", "x").is_err());
    }

    #[test]
    fn attack_35_a_broker_cannot_ask_for_somebody_elses_token() {
        let env = Env::default();
        assert!(own_audience("https://b.example", "https://b.example", &env).is_ok());
        for bad in [
            "https://cloud.example",
            "sts.amazonaws.com",
            "http://b.example",
            "npm:b.example",
            "",
        ] {
            let f = own_audience(bad, "https://b.example", &env).unwrap_err();
            assert_eq!(f.exit as u8, 5, "{bad}");
        }
        let named = Env::from([("COUNTERSIGN_AUDIENCE", "countersign")]);
        assert!(own_audience("countersign", "https://b.example", &named).is_ok());
    }
}
