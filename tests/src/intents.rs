//! Announcing releases, by the API and by the command line.

use crate::{
    api::{Device, Reply, random},
    command::Output,
    now,
    team::{Person, Team},
};
use proto::{
    api::SecondFactor,
    digest::hex,
    ids::IntentId,
    intent::{IntendedFile, IntendedItem, IntentLine, IntentRequest, IntentStatement, Intents},
    request::Item,
    time::UnixTime,
};
use serde_json::Value;
use std::time::{Duration, Instant};

/// A life of half an hour.
pub const LIFE: u64 = 1800;

/// What an item is announced as, with its files.
pub fn with_files(item: &Item) -> IntendedItem {
    let files = item.files.iter().map(|f| IntendedFile {
        name: f.name.clone(),
        digest: f.digest.clone(),
    });
    IntendedItem {
        files: files.collect(),
        ..version_only(item)
    }
}

/// What an item is announced as, without its files.
pub fn version_only(item: &Item) -> IntendedItem {
    IntendedItem {
        registry: item.registry.clone(),
        package: item.package.clone(),
        version: item.version.clone(),
        tag: item.tag.clone(),
        files: Vec::new(),
    }
}

impl Device {
    /// A signed announcement.
    pub fn intending(
        &self,
        items: Vec<IntendedItem>,
        commit: Option<&str>,
        totp: Option<&str>,
    ) -> anyhow::Result<IntentRequest> {
        let time = UnixTime(now()?);
        let statement = IntentStatement {
            items,
            commit: commit.map(str::to_owned),
            expires: time.after(LIFE),
            device: self.key.public().id(),
            time,
            nonce: hex(&random::<16>()?),
        };
        Ok(IntentRequest {
            signature: hex(&self.key.sign(&statement.canonical())),
            statement,
            factor: SecondFactor {
                totp: totp.map(str::to_owned),
                passkey: None,
            },
        })
    }

    /// Announces; the raw reply.
    pub async fn announce(&self, request: &IntentRequest) -> anyhow::Result<Reply> {
        self.call("POST", "/v1/intents", &serde_json::to_value(request)?)
            .await
    }

    /// Announces with this device, and no code.
    pub async fn intend(
        &self,
        items: Vec<IntendedItem>,
        commit: Option<&str>,
    ) -> anyhow::Result<IntentLine> {
        let request = self.intending(items, commit, None)?;
        self.announce(&request).await?.ok()
    }

    /// What was announced, as this person sees it.
    pub async fn intents(&self) -> anyhow::Result<Vec<IntentLine>> {
        let all: Intents = self.call("GET", "/v1/intents", &Value::Null).await?.ok()?;
        Ok(all.intents)
    }

    /// Takes one back.
    pub async fn withdraw(&self, id: IntentId) -> anyhow::Result<Reply> {
        self.call("DELETE", &format!("/v1/intents/{id}"), &Value::Null)
            .await
    }
}

impl<R> Team<R> {
    /// A person announces, with a TOTP code.
    pub async fn intend(&self, person: &Person, args: &[&str]) -> anyhow::Result<Output> {
        let limit = Instant::now();
        loop {
            let code = self.code(person).await?;
            let all = [&["--json", "intend"], args, &["--totp", &code]].concat();
            let out = self.run(person, &all, &[]).await?;
            // The code of this half minute was used before (at enrolment, say): wait for the next.
            if out.success()
                || !out.stderr.contains("factor-wrong")
                || limit.elapsed() > Duration::from_secs(70)
            {
                return Ok(out);
            }
            tokio::time::sleep(Duration::from_secs(31)).await;
        }
    }
}
