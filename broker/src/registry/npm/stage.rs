//! npm's staged publishing and npm's own second factor: `/-/stage/…`, `authUrl` and `doneUrl`.

use super::upstream::{FULL, Npm, authorised, judged, said};
use crate::{
    registry::{
        BoxFuture, FactorAsk, FactorSaid, Inspected, Publish, ReadError, SecondFactor, Sent,
        StageId, Staged, Staging, factor,
        upstream::{failed, limited, short_reply},
    },
    secret::Secret,
};
use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use proto::{
    digest::{Algorithm, Hasher, hex},
    ids::PackageName,
    text,
};
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT, HeaderMap, HeaderValue, RETRY_AFTER},
};
use serde::Deserialize;
use std::time::Duration;

/// Stages on one page of the list; the registry's own limit.
const PER_PAGE: usize = 100;
/// Pages of the list that are read.
const PAGES_MAX: usize = 20;
/// Longest page of the list, in bytes.
const PAGE_BYTES: usize = 1 << 20;
/// Longest text of a stage that is kept, in characters.
const TEXT_MAX: usize = 214;
/// Longest download of a stage's archive.
const DOWNLOAD: Duration = Duration::from_mins(2);

/// How a publish reaches an npm registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// By a `PUT` that publishes at once.
    #[default]
    Publish,
    /// By a stage, which an account holder approves with the registry's own second factor.
    Stage,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    auth_url: String,
    done_url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    stage_id: StageId,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<View>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct View {
    id: StageId,
    package_name: String,
    version: String,
    #[serde(default)]
    tag: Option<String>,
    #[serde(default)]
    actor: Option<String>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    shasum: Option<String>,
}

impl View {
    fn staged(&self) -> Staged {
        let short = |words: &str| text::harmless(&words.chars().take(TEXT_MAX).collect::<String>());
        let maybe = |words: &Option<String>| short(words.as_deref().unwrap_or_default());
        Staged {
            id: self.id.clone(),
            package: short(&self.package_name),
            version: short(&self.version),
            tag: maybe(&self.tag),
            actor: maybe(&self.actor),
            created: maybe(&self.created_at),
        }
    }
}

impl Npm {
    /// Tells the registry that its second factor may be asked for on a page: then it names one.
    pub(super) fn asking(
        request: reqwest::RequestBuilder,
        command: &'static str,
        factor: Option<&Secret<String>>,
    ) -> Option<reqwest::RequestBuilder> {
        let request = request
            .header("npm-auth-type", "web")
            .header("npm-command", command);
        let Some(factor) = factor else {
            return Some(request);
        };
        let mut value = HeaderValue::from_str(factor.expose()).ok()?;
        value.set_sensitive(true);
        Some(request.header("npm-otp", value))
    }

    /// What a 401 asks for: the second factor, or nothing that a person could give.
    pub(super) async fn challenged(&self, reply: Response, token: &Secret<String>) -> Sent {
        let status = reply.status().as_u16();
        let bytes = short_reply(reply).await.unwrap_or_default();
        let Ok(asked) = serde_json::from_slice::<Asked>(&bytes) else {
            let said = said(&bytes, token);
            return Sent::Refused { status, said };
        };
        match FactorAsk::from_words(
            &asked.auth_url,
            &asked.done_url,
            &self.base,
            &self.factor_origins,
        ) {
            Ok(ask) => Sent::NeedsFactor(ask),
            Err(why) => Sent::Refused {
                status,
                said: why.to_string(),
            },
        }
    }

    /// The stage that a 201 names.
    pub(super) async fn staged(reply: Response) -> Sent {
        let bytes = short_reply(reply).await.unwrap_or_default();
        // Without an id the registry is asked for its list, as after a reply that was lost.
        serde_json::from_slice::<Made>(&bytes)
            .map_or(Sent::Unclear, |made| Sent::Staged(made.stage_id))
    }

    fn stage_address(&self, rest: &str) -> Result<Url, ReadError> {
        self.base
            .join(&format!("-/stage{rest}"))
            .map_err(|_| ReadError::NotUnderstood)
    }

    async fn get(&self, address: Url, token: &Secret<String>) -> Result<Response, ReadError> {
        let request = self
            .client
            .get(address)
            .header(ACCEPT, FULL)
            .header("npm-command", "stage")
            .timeout(DOWNLOAD);
        authorised(request, Some(token))
            .ok_or(ReadError::NotUnderstood)?
            .send()
            .await
            .map_err(|e| failed(&e))
    }

    async fn stages(
        &self,
        package: Option<&PackageName>,
        token: &Secret<String>,
    ) -> Result<Vec<Staged>, ReadError> {
        let mut all = Vec::new();
        for page in 0..PAGES_MAX {
            let mut address = self.stage_address("")?;
            address
                .query_pairs_mut()
                .append_pair("page", &page.to_string())
                .append_pair("perPage", &PER_PAGE.to_string());
            if let Some(package) = package {
                address
                    .query_pairs_mut()
                    .append_pair("package", package.as_str());
            }
            let reply = self.get(address, token).await?;
            match reply.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(all),
                status => return Err(ReadError::Status(status.as_u16())),
            }
            let bytes = limited(reply, PAGE_BYTES).await?;
            let read: Page =
                serde_json::from_slice(&bytes).map_err(|_| ReadError::NotUnderstood)?;
            let full = read.items.len() >= PER_PAGE;
            // A registry that does not know the filter lists every package's.
            let own = read
                .items
                .iter()
                .filter(|i| package.is_none_or(|p| i.package_name == p.as_str()));
            all.extend(own.map(View::staged));
            if !full {
                return Ok(all);
            }
        }
        Err(ReadError::TooLarge)
    }

    async fn look_into(
        &self,
        stage: &StageId,
        token: &Secret<String>,
        most: u64,
    ) -> Result<Option<Inspected>, ReadError> {
        let reply = self.get(self.stage_address(&format!("/{stage}"))?, token);
        let reply = reply.await?;
        match reply.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(ReadError::Status(status.as_u16())),
        }
        let bytes = short_reply(reply).await?;
        let view: View = serde_json::from_slice(&bytes).map_err(|_| ReadError::NotUnderstood)?;
        if view.id != *stage {
            return Err(ReadError::NotUnderstood);
        }
        let address = self.stage_address(&format!("/{stage}/tarball"))?;
        let mut reply = self.get(address, token).await?;
        if reply.status() != StatusCode::OK {
            return Err(ReadError::Status(reply.status().as_u16()));
        }
        let (mut sha512, mut sha1) = (
            Hasher::new(Algorithm::Sha512),
            Context::new(&SHA1_FOR_LEGACY_USE_ONLY),
        );
        let mut read = 0u64;
        while let Some(piece) = reply.chunk().await.map_err(|e| failed(&e))? {
            read = read.saturating_add(piece.len() as u64);
            // Longer than what was approved: other bytes, whatever follows.
            if read > most.saturating_add(1) {
                break;
            }
            sha512.update(&piece);
            sha1.update(&piece);
        }
        // What it will publish under this sum is what it let us download, or it is not believed; nor without a sum.
        let sum = hex(sha1.finish().as_ref());
        if read <= most && view.shasum.as_ref() != Some(&sum) {
            return Err(ReadError::NotUnderstood);
        }
        Ok(Some(Inspected {
            staged: view.staged(),
            digest: sha512.finish(),
        }))
    }

    async fn approve_stage(
        &self,
        stage: &StageId,
        token: &Secret<String>,
        factor: Option<&Secret<String>>,
        within: Duration,
    ) -> Sent {
        let Ok(address) = self.stage_address(&format!("/{stage}/approve")) else {
            return Sent::Unclear;
        };
        let request = self
            .client
            .post(address)
            .timeout(within)
            .header(ACCEPT, FULL);
        let request =
            Self::asking(request, "stage", factor).and_then(|r| authorised(r, Some(token)));
        let Some(request) = request else {
            return Sent::Unclear;
        };
        match request.send().await {
            Ok(reply) if reply.status() == StatusCode::UNAUTHORIZED => {
                self.challenged(reply, token).await
            }
            Ok(reply) => judged(reply, token).await,
            Err(_) => Sent::Unclear,
        }
    }

    async fn factor_outcome(&self, ask: &FactorAsk) -> Result<FactorSaid, ReadError> {
        // Without the token: the address itself is the secret, and it came from an answer.
        let request = self.client.get(ask.poll.clone()).header(ACCEPT, FULL);
        let reply = request.timeout(self.read).send().await;
        let reply = reply.map_err(|e| failed(&e))?;
        match reply.status() {
            StatusCode::ACCEPTED => Ok(FactorSaid::NotYet(retry_after(reply.headers()))),
            StatusCode::OK => {
                let bytes = zeroize::Zeroizing::new(short_reply(reply).await?);
                let json: serde_json::Value =
                    serde_json::from_slice(&bytes).map_err(|_| ReadError::NotUnderstood)?;
                let token = json.get("token").and_then(serde_json::Value::as_str);
                token
                    .and_then(factor::factor)
                    .map(FactorSaid::Given)
                    .ok_or(ReadError::NotUnderstood)
            }
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                Ok(FactorSaid::Over)
            }
            status => Err(ReadError::Status(status.as_u16())),
        }
    }
}

fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok());
    factor::pause(seconds.and_then(|s| s.parse().ok()))
}

impl SecondFactor for Npm {
    fn outcome<'a>(
        &'a self,
        ask: &'a FactorAsk,
        _token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<FactorSaid, ReadError>> {
        Box::pin(self.factor_outcome(ask))
    }

    fn publish_with<'a>(
        &'a self,
        publish: &'a mut Publish,
        token: &'a Secret<String>,
        factor: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Sent> {
        Box::pin(self.send(publish, token, Some(factor), within))
    }
}

impl Staging for Npm {
    fn list<'a>(
        &'a self,
        package: Option<&'a PackageName>,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<Vec<Staged>, ReadError>> {
        Box::pin(self.stages(package, token))
    }

    fn inspect<'a>(
        &'a self,
        stage: &'a StageId,
        token: &'a Secret<String>,
        most: u64,
    ) -> BoxFuture<'a, Result<Option<Inspected>, ReadError>> {
        Box::pin(self.look_into(stage, token, most))
    }

    fn approve<'a>(
        &'a self,
        stage: &'a StageId,
        token: &'a Secret<String>,
        factor: Option<&'a Secret<String>>,
        within: Duration,
    ) -> BoxFuture<'a, Sent> {
        Box::pin(self.approve_stage(stage, token, factor, within))
    }
}
