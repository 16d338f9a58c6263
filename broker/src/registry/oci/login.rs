//! How the broker shows who it is: by HTTP Basic, or by a short token that a server of the registry's gives for
//! user and password.
//!
//! Registries name that server in their challenge. The password goes there only if the configuration names the
//! same address (attack 39): whoever could answer in the registry's place once would have it otherwise.

use crate::{
    registry::{
        ReadError,
        upstream::{failed, short_reply},
    },
    secret::Secret,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::ids::PackageName;
use reqwest::{
    Client, StatusCode,
    header::{HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

/// Who the broker is at a registry.
pub(super) struct Login {
    pub(super) user: String,
    /// The server of the registry's tokens, where it has one.
    pub(super) tokens: Option<Url>,
}

/// A value of `Authorization`, or none.
pub(super) type Shown = Option<HeaderValue>;

#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Login {
    /// For calls about one repository. `what` is `pull` or `pull,push`.
    pub(super) async fn for_repository(
        &self,
        client: &Client,
        root: &Url,
        package: &PackageName,
        what: &str,
        token: Option<&Secret<String>>,
        until: Instant,
    ) -> Result<Shown, ReadError> {
        let scope = format!("repository:{package}:{what}");
        self.shown(client, root, Some(&scope), token, until).await
    }

    /// For a scope; without one, for finding out whether the password is known.
    pub(super) async fn shown(
        &self,
        client: &Client,
        root: &Url,
        scope: Option<&str>,
        token: Option<&Secret<String>>,
        until: Instant,
    ) -> Result<Shown, ReadError> {
        let basic = token.map(|token| self.basic(token)).transpose()?;
        let Some(server) = &self.tokens else {
            return Ok(basic);
        };
        let service = challenge(client, root, server, until).await?;
        let mut address = server.clone();
        {
            let mut query = address.query_pairs_mut();
            if let Some(service) = &service {
                query.append_pair("service", service);
            }
            if let Some(scope) = scope {
                query.append_pair("scope", scope);
            }
        }
        let mut request = client.get(address).timeout(left(until));
        if let Some(basic) = basic {
            request = request.header(reqwest::header::AUTHORIZATION, basic);
        }
        let reply = request.send().await.map_err(|e| failed(&e))?;
        if reply.status() != StatusCode::OK {
            return Err(ReadError::Status(reply.status().as_u16()));
        }
        let body = Zeroizing::new(short_reply(reply).await?);
        let given: Given = serde_json::from_slice(&body).map_err(|_| ReadError::NotUnderstood)?;
        let (token, access) = (
            Zeroizing::new(given.token),
            Zeroizing::new(given.access_token),
        );
        let token = if token.is_empty() { access } else { token };
        if token.is_empty() {
            return Err(ReadError::NotUnderstood);
        }
        sensitive(&Zeroizing::new(format!("Bearer {}", token.as_str()))).map(Some)
    }

    fn basic(&self, token: &Secret<String>) -> Result<HeaderValue, ReadError> {
        let pair = Zeroizing::new(format!("{}:{}", self.user, token.expose()));
        sensitive(&Zeroizing::new(format!(
            "Basic {}",
            STANDARD.encode(pair.as_bytes())
        )))
    }
}

/// What is left of a time; with nothing left a call fails at once.
fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

fn sensitive(text: &str) -> Result<HeaderValue, ReadError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| ReadError::NotUnderstood)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Asks the registry, as nobody, where its tokens come from, and for which service they are.
async fn challenge(
    client: &Client,
    root: &Url,
    server: &Url,
    until: Instant,
) -> Result<Option<String>, ReadError> {
    let request = client.get(root.clone()).timeout(left(until));
    let reply = request.send().await;
    let reply = reply.map_err(|e| failed(&e))?;
    if reply.status() == StatusCode::OK {
        return Ok(None);
    }
    let header = reply.headers().get(WWW_AUTHENTICATE);
    let text = header.and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut named = parameters(text).ok_or(ReadError::NotUnderstood)?;
    let realm = named.remove("realm").and_then(|r| r.parse::<Url>().ok());
    if realm.as_ref() == Some(server) {
        Ok(named.remove("service"))
    } else {
        Err(ReadError::TokensElsewhere)
    }
}

/// The parameters of a `Bearer` challenge (RFC 9110 §11.6.1); each once.
fn parameters(text: &str) -> Option<BTreeMap<String, String>> {
    let (scheme, mut rest) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut out = BTreeMap::new();
    loop {
        let (name, behind) = rest.trim_start().split_once("=\"")?;
        let (value, behind) = behind.split_once('"')?;
        if value.contains('\\') {
            return None;
        }
        let old = out.insert(name.to_ascii_lowercase(), value.to_owned());
        if old.is_some() {
            return None;
        }
        match behind.trim_start().strip_prefix(',') {
            Some(more) => rest = more,
            None if behind.trim().is_empty() => return Some(out),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_read_in_one_way_or_not_at_all() {
        let good =
            r#"Bearer realm="https://auth.example/token",service="registry.example", scope="x""#;
        let named = parameters(good).unwrap();
        assert_eq!(named["realm"], "https://auth.example/token");
        assert_eq!(named["service"], "registry.example");
        for bad in [
            "",
            "Bearer",
            r#"Basic realm="x""#,
            r#"Bearer realm="a",realm="b""#,
            r#"Bearer realm="a" service="b""#,
            r#"Bearer realm="a\"b""#,
            "Bearer realm=a",
        ] {
            assert!(parameters(bad).is_none(), "{bad}");
        }
    }
}
