//! People and jobs that speak the API themselves: for attacks that no honest client would make.

#![allow(
    clippy::indexing_slicing,
    reason = "indexing a JSON value gives null where nothing is"
)]

use crate::{
    browser::{Browser, Page},
    command::Output,
    daemon::{Builder, Daemon},
    http, now,
    parts::{Issuer, github_claims},
};
use anyhow::{Context as _, bail};
use proto::{
    answer::{Decision, Statement},
    api::{AnswerRequest, EnrollRequest, Opened, Question, SealedRelease},
    bearer::{Bearer, Kind},
    device::{Call, DeviceKey, enrolment_bytes},
    digest::{Algorithm, Digest, hex},
    request::RequestDigest,
    time::UnixTime,
};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::{
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};
use totp_rs::Totp;

/// Seconds of a TOTP step.
pub const STEP: u64 = 30;
/// One command of a person's.
const COMMAND: Duration = Duration::from_mins(1);

/// Random bytes.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no randomness"))?;
    Ok(bytes)
}

/// A reply, whatever it was.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The JSON body; a text when it is none.
    pub body: Value,
}

impl Reply {
    async fn of(response: reqwest::Response) -> anyhow::Result<Self> {
        let status = response.status().as_u16();
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Self { status, body })
    }

    /// The problem's code; empty when it is none.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Whether it is a yes.
    pub fn success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body of a yes.
    pub fn ok<T: serde::de::DeserializeOwned>(self) -> anyhow::Result<T> {
        if !self.success() {
            bail!("{} {}", self.status, self.body);
        }
        Ok(serde_json::from_value(self.body)?)
    }
}

/// A person's device.
pub struct Device {
    /// Its key.
    pub key: DeviceKey,
    /// The person's second factor.
    pub totp: Totp,
    /// The otpauth address, a secret.
    pub otpauth: String,
    /// The broker.
    pub url: String,
    client: Client,
    nonce: Mutex<String>,
    spent: AtomicU64,
}

impl Device {
    /// Enrols a new device. The code of the step before is spent, so that the current one is still good.
    pub async fn enroll(url: &str, invite: &str) -> anyhow::Result<Self> {
        Self::enroll_with(url, invite, DeviceKey::from_seed(random()?)?).await
    }

    /// The same with a key of the test's own.
    pub async fn enroll_with(url: &str, invite: &str, key: DeviceKey) -> anyhow::Result<Self> {
        let bearer = Bearer::parse(Kind::Invite, invite.trim())?;
        let signature = hex(&key.sign(&enrolment_bytes(&bearer.hash().0, "test")));
        let client = http()?;
        let mut asked = EnrollRequest {
            invite: bearer.expose(),
            public_key: key.public(),
            signature,
            device_name: "test".into(),
            totp: None,
            kind: proto::device::DeviceKind::Terminal,
            passkey: None,
        };
        let path = format!("{url}/v1/enroll");
        let first = Reply::of(client.post(&path).json(&asked).send().await?).await?;
        let first: proto::api::Enrolled = first.ok()?;
        let otpauth = first.otpauth.context("a second factor")?;
        let totp = Totp::from_url(&otpauth).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let device = Self {
            key,
            totp,
            otpauth,
            url: url.into(),
            client,
            nonce: Mutex::default(),
            spent: AtomicU64::default(),
        };
        for _ in 0..2 {
            asked.totp = Some(device.code(1)?);
            let done = Reply::of(device.client.post(&path).json(&asked).send().await?).await?;
            if done.code() != "factor-wrong" {
                done.ok::<Value>()?;
                break;
            }
        }
        Ok(device)
    }

    /// One that was enrolled in another way.
    pub fn of(key: DeviceKey, otpauth: &str, url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            key,
            totp: Totp::from_url(otpauth).map_err(|e| anyhow::anyhow!("{e:?}"))?,
            otpauth: otpauth.to_owned(),
            url: url.into(),
            client: http()?,
            nonce: Mutex::default(),
            spent: AtomicU64::default(),
        })
    }

    /// The code of now or of so many steps ago.
    pub fn code(&self, steps_ago: u64) -> anyhow::Result<String> {
        Ok(self.totp.generate(now()? - steps_ago * STEP).to_string())
    }

    /// Six digits that are none of the codes around now.
    pub fn wrong_code(&self) -> anyhow::Result<String> {
        let at = now()?;
        let near: Vec<String> = (0..6)
            .map(|n| self.totp.generate(at + 2 * STEP - n * STEP).to_string())
            .collect();
        (0..1000)
            .map(|n| format!("{n:06}"))
            .find(|code| !near.contains(code))
            .context("a code")
    }

    /// A signed call; signs again once with the nonce that the broker hands out.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Reply> {
        self.call_as(&self.key, method, path, body).await
    }

    /// The same with another key.
    pub async fn call_as(
        &self,
        key: &DeviceKey,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Reply> {
        let reply = Reply::of(self.raw(key, method, path, body).await?).await?;
        if reply.code() == "use-dpop-nonce" {
            bail!("the broker asks for another nonce again and again");
        }
        Ok(reply)
    }

    /// The same, with the reply as it comes.
    pub async fn raw(
        &self,
        key: &DeviceKey,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<reqwest::Response> {
        let url = format!("{}{path}", self.url);
        let bytes = body
            .map(serde_json::to_vec)
            .transpose()?
            .unwrap_or_default();
        let mut again = true;
        loop {
            let response = self.sent(key, &method, &url, &bytes).await?;
            let fresh = response.headers().get("DPoP-Nonce").cloned();
            match fresh.as_ref().and_then(|f| f.to_str().ok()) {
                Some(fresh) if again && response.status() == 401 => {
                    fresh
                        .clone_into(&mut self.nonce.lock().unwrap_or_else(PoisonError::into_inner));
                    again = false;
                }
                _ => return Ok(response),
            }
        }
    }

    async fn sent(
        &self,
        key: &DeviceKey,
        method: &Method,
        url: &str,
        bytes: &[u8],
    ) -> anyhow::Result<reqwest::Response> {
        let nonce = self
            .nonce
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let proof = key.sign_call(&Call {
            method: method.as_str(),
            url,
            body: bytes,
            now: UnixTime(now()?),
            jti: &hex(&random::<16>()?),
            nonce: &nonce,
        });
        let call = self.client.request(method.clone(), url);
        let call = call
            .header("DPoP", proof)
            .header("content-type", "application/json")
            .body(bytes.to_vec());
        Ok(call.send().await?)
    }

    /// A `GET` whose reply is bytes: status and bytes.
    pub async fn bytes(&self, path: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        let reply = self.raw(&self.key, Method::GET, path, None).await?;
        let status = reply.status().as_u16();
        Ok((status, reply.bytes().await?.to_vec()))
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> anyhow::Result<Reply> {
        self.call(Method::GET, path, None).await
    }

    /// `POST`.
    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Reply> {
        self.call(Method::POST, path, Some(&body)).await
    }

    /// Asks for an admin's act, with a code where the broker wants one.
    pub async fn act(&self, act: Value, token: Option<&str>) -> anyhow::Result<Reply> {
        self.with_code("/v1/admin/acts", json!({"act": act, "token": token}))
            .await
    }

    /// Agrees to another admin's act.
    pub async fn confirm(&self, id: &str) -> anyhow::Result<Reply> {
        let path = format!("/v1/admin/acts/{id}/confirm");
        self.with_code(&path, json!({})).await
    }

    /// Objects to an admin's act, or takes the own one back.
    pub async fn veto(&self, id: &str) -> anyhow::Result<Reply> {
        let path = format!("/v1/acts/{id}/veto");
        self.with_code(&path, json!({})).await
    }

    /// Asks for a thaw.
    pub async fn thaw(&self, package: &str) -> anyhow::Result<Reply> {
        self.with_code("/v1/admin/thaw", json!({"package": package}))
            .await
    }

    /// A call with a code where the broker wants one.
    pub async fn with_code(&self, path: &str, body: Value) -> anyhow::Result<Reply> {
        let wants = |reply: &Reply| matches!(reply.code(), "factor-missing" | "factor-wrong");
        crate::with_code(&self.totp, &self.spent, wants, async |code| {
            let mut body = body.clone();
            if let Some(code) = code {
                if path.ends_with("/acts") {
                    body["factor"] = json!({"totp": code});
                } else {
                    body["totp"] = json!(code);
                }
            }
            self.post(path, body).await
        })
        .await
    }

    /// The question, as this person sees it.
    pub async fn question(&self, id: &str) -> anyhow::Result<Question> {
        self.get(&format!("/v1/requests/{id}/question")).await?.ok()
    }

    /// A signed answer, not yet sent.
    pub fn answer(
        &self,
        decision: Decision,
        digest: RequestDigest,
        match_code: &str,
        totp: Option<&str>,
    ) -> anyhow::Result<AnswerRequest> {
        let statement = Statement {
            decision,
            request_digest: digest,
            device: self.key.public().id(),
            time: UnixTime(now()?),
            nonce: hex(&random::<16>()?),
        };
        Ok(AnswerRequest {
            signature: hex(&self.key.sign(&statement.canonical())),
            statement,
            match_code: match_code.into(),
            factor: proto::api::SecondFactor {
                totp: totp.map(str::to_owned),
                passkey: None,
            },
            reason: None,
        })
    }

    /// Sends an answer.
    pub async fn send(&self, id: &str, answer: &AnswerRequest) -> anyhow::Result<Reply> {
        let path = format!("/v1/requests/{id}/answer");
        self.post(&path, serde_json::to_value(answer)?).await
    }

    /// Approves what a job opened.
    pub async fn approve(&self, job: &Job, totp: Option<&str>) -> anyhow::Result<Reply> {
        let o = &job.opened;
        let answer = self.answer(Decision::Approve, o.request_digest, &o.match_code, totp)?;
        self.send(&o.id.to_string(), &answer).await
    }

    /// Says no.
    pub async fn deny(&self, job: &Job, freeze: bool) -> anyhow::Result<Reply> {
        let decision = if freeze {
            Decision::DenyAndFreeze
        } else {
            Decision::Deny
        };
        let answer = self.answer(decision, job.opened.request_digest, "", None)?;
        self.send(&job.opened.id.to_string(), &answer).await
    }
}

/// A job that opened a request.
pub struct Job {
    /// What the broker said.
    pub opened: Opened,
    /// The job's own key.
    pub key: age::x25519::Identity,
    url: String,
    client: Client,
}

impl Job {
    /// Calls a route of the request with a bearer.
    pub async fn with(&self, method: Method, route: &str, bearer: &str) -> anyhow::Result<Reply> {
        let url = format!("{}/v1/requests/{}{route}", self.url, self.opened.id);
        let call = self.client.request(method, url).bearer_auth(bearer);
        Reply::of(call.send().await?).await
    }

    /// Collects.
    pub async fn collect(&self) -> anyhow::Result<Reply> {
        self.with(Method::POST, "/collect", &self.opened.ticket)
            .await
    }

    /// Takes it back.
    pub async fn cancel(&self) -> anyhow::Result<Reply> {
        self.with(Method::POST, "/cancel", &self.opened.ticket)
            .await
    }

    /// Hands the first file over, to be looked into.
    pub async fn hand_in(&self, bytes: &[u8]) -> anyhow::Result<Reply> {
        let item = self.opened.facts.items.first().context("an item")?;
        let digest = &item.files.first().context("a file")?.digest;
        let url = format!("{}/v1/requests/{}/files/{digest}", self.url, self.opened.id);
        let call = self.client.put(url).bearer_auth(&self.opened.ticket);
        Reply::of(call.body(bytes.to_vec()).send().await?).await
    }

    /// The state in one word.
    pub async fn state(&self) -> anyhow::Result<String> {
        let reply = self.with(Method::GET, "", &self.opened.ticket).await?;
        let status: Value = reply.ok()?;
        Ok(status["state"].as_str().unwrap_or_default().to_owned())
    }

    /// The credential in a collected blob.
    pub fn open(&self, collected: &Reply) -> anyhow::Result<String> {
        let sealed = collected.body["sealed"].as_str().context("a blob")?;
        let plain = age::decrypt(&self.key, sealed.as_bytes())?;
        let mut release: SealedRelease = serde_json::from_slice(&plain)?;
        release.credential.take().context("a credential")
    }

    /// Publishes an archive at the broker's registry endpoint, as a registry's client would.
    pub async fn put(&self, credential: &str, archive: &[u8]) -> anyhow::Result<Reply> {
        let item = self.opened.facts.items.first().context("an item")?;
        let registry = self
            .opened
            .registry_url
            .get(&item.registry)
            .context("an endpoint")?;
        let name = item.package.as_str();
        let url = format!(
            "{}/{}",
            registry.trim_end_matches('/'),
            name.replace('/', "%2f")
        );
        let call = self.client.put(url).bearer_auth(credential);
        let document = publish_document(name, item.version.as_str(), registry, archive);
        Reply::of(call.json(&document).send().await?).await
    }
}

/// The document that npm sends.
pub fn publish_document(name: &str, version: &str, registry: &str, archive: &[u8]) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let sha1 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, archive);
    let sha512 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, archive);
    let file = format!("{name}-{version}.tgz");
    let registry = registry.trim_end_matches('/');
    let mut versions = serde_json::Map::new();
    versions.insert(
        version.to_owned(),
        json!({
            "_id": format!("{name}@{version}"),
            "name": name,
            "version": version,
            "dist": {
                "integrity": format!("sha512-{}", STANDARD.encode(sha512.as_ref())),
                "shasum": hex(sha1.as_ref()),
                "tarball": format!("{registry}/{name}/-/{file}"),
            },
        }),
    );
    let mut attachments = serde_json::Map::new();
    attachments.insert(
        file,
        json!({
            "content_type": "application/octet-stream",
            "data": STANDARD.encode(archive),
            "length": archive.len(),
        }),
    );
    json!({
        "_id": name,
        "name": name,
        "dist-tags": { "latest": version },
        "versions": versions,
        "access": null,
        "_attachments": attachments,
    })
}

/// An archive of a package whose manifest says just its name and version.
pub fn archive(name: &str, version: &str) -> anyhow::Result<Vec<u8>> {
    let manifest = json!({"name": name, "version": version}).to_string();
    crate::packages::tarball(&[("package/package.json", manifest.as_bytes())])
}

/// A port that nothing listens on: for tests that stop before anything is sent.
pub const NO_REGISTRY: &str = "http://127.0.0.1:1";

/// A policy for answers from phones: so many people of `release`, by `factors` (a list of TOML).
pub fn phone_policy(quorum: u32, factors: &str) -> String {
    format!(
        r#"
[[package]]
match = ["npm:@acme/*"]
callers = [{{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }}]
approvers = ["release"]
quorum = {quorum}
factors = {factors}
version = "semver-release"
tags = ["latest"]
answers = "30m"
"#
    )
}

/// An organisation whose people are devices of the test itself.
pub struct Office {
    /// The CI's issuer.
    pub issuer: Issuer,
    /// The broker.
    pub daemon: Daemon,
    /// The admin.
    pub admin: Device,
    /// Admins that were hired since: one of them must agree to the next invite.
    pub seconds: Mutex<Vec<Device>>,
}

impl Office {
    /// Sets one up; `registry` is the npm registry's address (a closed port will often do).
    pub async fn start(policy: &str, registry: &str) -> anyhow::Result<Self> {
        Self::start_as(Daemon::builder(), policy, registry).await
    }

    /// The same with more said about the broker.
    pub async fn start_as(builder: Builder, policy: &str, registry: &str) -> anyhow::Result<Self> {
        let issuer = Issuer::start().await?;
        let daemon = builder
            .issuer("github", "github", &issuer.url, None)
            .registry("npm", "npm", registry)
            .policy(policy)
            .start()
            .await?;
        let invite = std::fs::read_to_string(daemon.invite_path())?;
        let admin = Device::enroll(&daemon.url, &invite).await?;
        Ok(Self {
            issuer,
            daemon,
            admin,
            seconds: Mutex::default(),
        })
    }

    /// Where people have phones: at a name, since browsers have no passkeys at an address; nothing is published.
    pub async fn of_phones(policy: &str) -> anyhow::Result<Self> {
        Self::of_phones_as(Daemon::builder(), policy).await
    }

    /// The same with more said about the broker.
    pub async fn of_phones_as(builder: Builder, policy: &str) -> anyhow::Result<Self> {
        Self::start_as(builder.named(), policy, NO_REGISTRY).await
    }

    /// Runs `countersign` as a person of this office, in a folder of the broker's.
    pub async fn run(
        &self,
        person: &str,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> anyhow::Result<Output> {
        let folder = self.daemon.dir();
        let home = folder.join(person).display().to_string();
        let mut all = vec![
            ("COUNTERSIGN_HOME", home.as_str()),
            ("COUNTERSIGN_PASSPHRASE", "p"),
            ("COUNTERSIGN_BROKER", self.daemon.url.as_str()),
        ];
        all.extend_from_slice(env);
        self.daemon.countersign(args, &all, folder, COMMAND).await
    }

    /// Invites a person to `release` and enrols a terminal of his.
    pub async fn terminal(&self, person: &str, admin: bool) -> anyhow::Result<()> {
        let invite = self.invite(person, &["release"], admin, &[]).await?;
        let totp = self.daemon.dir().join(format!("{person}.totp"));
        let totp = totp.display().to_string();
        let args = ["enroll", "--totp-file", &totp];
        let env = [("COUNTERSIGN_INVITE", invite.as_str())];
        self.run(person, &args, &env).await?.ok().map(drop)
    }

    /// Stores the registry's token.
    pub async fn store(&self, token: &str) -> anyhow::Result<()> {
        self.add_token("npm", "@acme/*", token).await
    }

    /// Stores a token.
    pub async fn add_token(&self, registry: &str, scope: &str, token: &str) -> anyhow::Result<()> {
        let act = json!({"kind": "add-token", "registry": registry, "scope": scope});
        let stored = self.admin.act(act, Some(token)).await?;
        stored.ok::<Value>().map(drop)
    }

    /// Publishes an archive whole: a job asks, a person approves, the job uploads.
    pub async fn publish(
        &self,
        by: &Device,
        name: &str,
        version: &str,
        bytes: &[u8],
    ) -> anyhow::Result<()> {
        let job = self.open(name, version, bytes).await?;
        by.approve(&job, Some(&by.code(0)?)).await?.ok::<Value>()?;
        let credential = job.open(&job.collect().await?)?;
        job.put(&credential, bytes).await?.ok::<Value>().map(drop)
    }

    /// Invites and enrols a person.
    pub async fn hire(
        &self,
        name: &str,
        groups: &[&str],
        admin: bool,
        actors: &[&str],
    ) -> anyhow::Result<Device> {
        let invite = self.invite(name, groups, admin, actors).await?;
        let device = Device::enroll(&self.daemon.url, &invite).await?;
        if admin {
            let key = DeviceKey::from_seed(*device.key.expose_seed())?;
            let twin = Device::of(key, &device.otpauth, &device.url)?;
            let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
            seconds.push(twin);
        }
        Ok(device)
    }

    /// An invite.
    pub async fn invite(
        &self,
        name: &str,
        groups: &[&str],
        admin: bool,
        actors: &[&str],
    ) -> anyhow::Result<String> {
        let act = json!({
            "kind": "invite", "person": name, "groups": groups, "admin": admin, "actors": actors,
        });
        let mut acted: Value = self.admin.act(act, None).await?.ok()?;
        if let Some(id) = acted["act"]["id"].as_str() {
            let second = self
                .seconds
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop();
            let second = second.context("another admin")?;
            acted = second.confirm(id).await?.ok()?;
            self.seconds
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(second);
        }
        let invite = acted["invited"]["invite"].as_str();
        Ok(invite
            .with_context(|| format!("an invite: {acted}"))?
            .to_owned())
    }

    /// Invites a person and enrols a page of his with an authenticator app; gives the app.
    pub async fn phone_with_app(
        &self,
        page: Page<'_>,
        name: &str,
        groups: &[&str],
    ) -> anyhow::Result<Totp> {
        let invite = self.invite(name, groups, false, &[]).await?;
        page.enroll_with_app(&format!("{}/enroll#{invite}", self.daemon.url))
            .await
    }

    /// Invites a person and enrols a phone of his, with a passkey.
    pub async fn phone<'a>(
        &self,
        browser: &'a Browser,
        name: &'a str,
        groups: &[&str],
    ) -> anyhow::Result<Page<'a>> {
        let invite = self.invite(name, groups, false, &[]).await?;
        let page = browser.phone(name).await?;
        page.enroll(&format!("{}/enroll#{invite}", self.daemon.url))
            .await?;
        Ok(page)
    }

    /// A job asks to publish these bytes.
    pub async fn open(&self, name: &str, version: &str, bytes: &[u8]) -> anyhow::Result<Job> {
        let reply = self.ask(name, version, bytes).await?;
        let (reply, key, client) = reply;
        Ok(Job {
            opened: reply.ok()?,
            key,
            url: self.daemon.url.clone(),
            client,
        })
    }

    /// The same, whatever the broker says.
    pub async fn ask(
        &self,
        name: &str,
        version: &str,
        bytes: &[u8],
    ) -> anyhow::Result<(Reply, age::x25519::Identity, Client)> {
        let token = self.issuer.mint(github_claims(&self.daemon.url)).await?;
        let key = age::x25519::Identity::generate();
        let asked = json!({
            "items": [{
                "registry": "npm", "package": name, "version": version, "tag": "latest",
                "files": [{"name": "package.tgz", "size": bytes.len(),
                           "digest": Digest::of(Algorithm::Sha512, bytes)}],
            }],
            "job_key": key.to_public().to_string(),
            "idempotency_key": hex(&random::<16>()?),
        });
        let client = http()?;
        let call = client
            .post(format!("{}/v1/requests", self.daemon.url))
            .bearer_auth(token)
            .json(&asked);
        Ok((Reply::of(call.send().await?).await?, key, client))
    }

    /// The events of the log, in order.
    pub async fn events(&self) -> anyhow::Result<Vec<Value>> {
        let mut events = Vec::new();
        loop {
            let path = format!("/v1/log/export?from={}&limit=1000", events.len());
            let reply = self.admin.get(&path).await?;
            let text = match &reply.body {
                Value::String(text) => text.clone(),
                one => one.to_string(),
            };
            let before = events.len();
            for line in text.lines().filter(|l| !l.is_empty()) {
                let line: Value = serde_json::from_str(line)?;
                let leaf = line["leaf"].as_str().context("a leaf")?;
                let leaf: Value = serde_json::from_str(leaf)?;
                events.push(leaf["event"].clone());
            }
            if events.len() == before {
                return Ok(events);
            }
        }
    }
}

/// How many events of a type are about a request.
pub fn count(events: &[Value], kind: &str, id: &str) -> usize {
    events
        .iter()
        .filter(|e| e["type"] == kind && e["request"] == id)
        .count()
}
