//! The API spoken directly, with keys in memory: for tests that make thousands of calls, or many at once.

use crate::{daemon::Daemon, now, packages};
use age::x25519::Identity;
use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    act::{Act, Acted, AskAct, TokenPlace},
    answer::{Decision, Statement},
    api::{
        AnswerRequest, Answered, ClientKeyRequest, Collected, EnrollRequest, Enrolled,
        FreezeRequest, FreezeStatus, InviteRequest, LogLine, OpenRequest, Opened, SealedRelease,
        SecondFactor, Status, ThawRequest,
    },
    bearer::{Bearer, Kind},
    device::{Call, DeviceKey, enrolment_bytes},
    digest::{Algorithm, Digest, hex},
    ids::{PersonId, RequestId},
    problem::{Code, Problem},
    request::{File, Item, RequestDigest},
    time::UnixTime,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

/// The one client key of these tests.
pub const CLIENT_KEY: &str = "old-ci";
/// How long one call may take: longer than the broker waits for a registry's lag.
const CALL: Duration = Duration::from_mins(1);
/// The broker closes connections that idle for 10 s, perhaps just when one is used again.
const IDLE: Duration = Duration::from_secs(5);

/// Why a call brought no reply of its kind.
#[derive(Debug)]
pub enum Fail {
    /// No reply at all: whether it had an effect is unknown.
    Away,
    /// The broker said no.
    Problem(Box<Problem>),
    /// A reply that is not the broker's.
    Strange(String),
}

impl Fail {
    /// The problem's code, if the broker said no.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Problem(p) => Some(p.code),
            _ => None,
        }
    }
}

impl std::fmt::Display for Fail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Away => f.write_str("no reply"),
            Self::Problem(p) => write!(f, "{}: {} {}", p.code.text(), p.title, p.detail),
            Self::Strange(text) => write!(f, "not the broker's: {text}"),
        }
    }
}

impl std::error::Error for Fail {}

/// A person's device.
pub struct Device {
    /// Whose.
    pub person: PersonId,
    key: DeviceKey,
    otpauth: Mutex<String>,
    spent: AtomicU64,
}

/// A broker with an admin, two maintainers (one of them an admin too) and a client key.
pub struct Direct {
    /// People, API.
    pub url: String,
    /// Where uploads go.
    pub registry_url: String,
    /// The admin.
    pub robin: Device,
    /// A maintainer, an admin too.
    pub alice: Device,
    /// A maintainer.
    pub bob: Device,
    ci: DeviceKey,
    http: reqwest::Client,
    nonce: Mutex<String>,
}

/// A package's version with its bytes.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// The archive's digest.
    pub digest: Digest,
    /// The document that a client uploads.
    pub document: Vec<u8>,
    size: u64,
}

impl Packed {
    /// Packs a small package; another `salt` makes other bytes.
    pub fn new(name: &str, version: &str, salt: &str) -> anyhow::Result<Self> {
        let inside = json!({"name": name, "version": version, "license": "MIT"});
        let code = format!("module.exports = {};\n", json!(salt));
        let archive = packages::tarball(&[
            ("package/package.json", inside.to_string().as_bytes()),
            ("package/index.js", code.as_bytes()),
        ])?;
        let digest = Digest::of(Algorithm::Sha512, &archive);
        let shasum =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &archive);
        let file = format!("{name}-{version}.tgz");
        let document = json!({
            "_id": name, "name": name, "dist-tags": {"latest": version},
            "versions": {version: {
                "name": name, "version": version, "license": "MIT", "_id": format!("{name}@{version}"),
                "dist": {
                    "integrity": digest.sri(), "shasum": hex(shasum.as_ref()),
                    "tarball": format!("http://127.0.0.1/{name}/-/{file}"),
                },
            }},
            "access": null,
            "_attachments": {file: {
                "content_type": "application/octet-stream",
                "data": STANDARD.encode(&archive), "length": archive.len(),
            }},
        });
        Ok(Self {
            name: name.into(),
            version: version.into(),
            digest,
            document: serde_json::to_vec(&document)?,
            size: archive.len() as u64,
        })
    }

    /// As a request names it.
    pub fn item(&self) -> anyhow::Result<Item> {
        Ok(Item {
            registry: "npm".parse()?,
            package: self.name.parse()?,
            version: self.version.parse()?,
            tag: Some("latest".parse()?),
            files: vec![File {
                name: "package.tgz".into(),
                size: self.size,
                digest: self.digest.clone(),
            }],
        })
    }
}

/// A job's wish with the key that only the job has.
pub struct Wish {
    /// The body of the open.
    pub asked: OpenRequest,
    identity: Identity,
}

impl Wish {
    /// Of one package.
    pub fn new(packed: &Packed) -> anyhow::Result<Self> {
        Self::of(vec![packed.item()?])
    }

    /// Of these items.
    pub fn of(items: Vec<Item>) -> anyhow::Result<Self> {
        let identity = Identity::generate();
        let asked = OpenRequest {
            leave_out_published: false,
            items,
            job_key: identity.to_public().to_string(),
            idempotency_key: random_hex()?,
            note: None,
        };
        Ok(Self { asked, identity })
    }

    /// The credential in a collected blob.
    pub fn credential(&self, collected: &Collected) -> anyhow::Result<String> {
        let plain = age::decrypt(&self.identity, collected.sealed.as_bytes())?;
        let mut release: SealedRelease = serde_json::from_slice(&plain)?;
        release.credential.take().context("a credential")
    }
}

/// Policy entries for all versions of packages under a scope, answered by devices.
pub fn policy(scopes: &[(&str, u32)]) -> String {
    let entry = |(scope, quorum): &(&str, u32)| {
        format!(
            r#"[[package]]
match = ["npm:{scope}/*"]
callers = [{{ issuer = "client-key", client_key = "{CLIENT_KEY}" }}]
approvers = ["release"]
quorum = {quorum}
factors = ["device"]
version = "any"
tags = ["latest"]
"#
        )
    };
    let entries: Vec<_> = scopes.iter().map(entry).collect();
    entries.join("\n")
}

impl Direct {
    /// Enrols everybody and stores the registry's token. `names` is what the client key may ask for.
    pub async fn set_up(daemon: &Daemon, token: &str, names: &[String]) -> anyhow::Result<Self> {
        let direct = Self::with_people(daemon).await?;
        let packages: Vec<_> = names.iter().map(|n| format!("npm:{n}")).collect();
        direct.add_client_key(CLIENT_KEY, &packages).await?;
        direct.add_token("npm", token).await?;
        Ok(direct)
    }

    /// Enrols everybody; no client key and no token yet.
    pub async fn with_people(daemon: &Daemon) -> anyhow::Result<Self> {
        let device = |person: &str, seed: [u8; 32]| -> anyhow::Result<Device> {
            Ok(Device {
                person: person.parse()?,
                key: DeviceKey::from_seed(seed)?,
                otpauth: Mutex::default(),
                spent: AtomicU64::default(),
            })
        };
        let direct = Self {
            url: daemon.url.clone(),
            registry_url: daemon.registry_url.clone(),
            robin: device("robin", random()?)?,
            alice: device("alice", random()?)?,
            bob: device("bob", random()?)?,
            ci: DeviceKey::from_seed(random()?)?,
            http: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(CALL)
                .pool_idle_timeout(IDLE)
                .build()?,
            nonce: Mutex::default(),
        };
        let invite = std::fs::read_to_string(daemon.invite_path())?;
        direct.enroll(&direct.robin, invite.trim()).await?;
        let mut invites = Vec::new();
        // Both are invited first: as soon as there is a second admin, that one must agree.
        for (device, admin) in [(&direct.alice, true), (&direct.bob, false)] {
            let asked = InviteRequest {
                person: device.person.clone(),
                groups: vec!["release".parse()?],
                admin,
                actors: Vec::new(),
            };
            let acted = direct.act(Act::Invite(asked), None).await?;
            invites.push((device, acted.invited.context("an invite")?.invite));
        }
        for (device, invite) in invites {
            direct.enroll(device, &invite).await?;
        }
        Ok(direct)
    }

    /// Registers the job's key under one more name, for these packages (`npm:@acme/left`): each name has quotas of its own.
    pub async fn add_client_key(&self, name: &str, packages: &[String]) -> anyhow::Result<()> {
        let asked = ClientKeyRequest {
            name: name.parse()?,
            public_key: self.ci.public(),
            packages: packages.to_vec(),
        };
        let path = "/v1/admin/client-keys";
        let _: Value = self.signed(&self.robin, "POST", path, Some(&asked)).await?;
        Ok(())
    }

    /// Stores a registry's token for all of its packages.
    pub async fn add_token(&self, registry: &str, token: &str) -> anyhow::Result<()> {
        let place = TokenPlace {
            registry: registry.parse()?,
            scope: "*".into(),
            expires: None,
            emptied: false,
            ends_old: false,
        };
        self.act(Act::AddToken(place), Some(token)).await?;
        Ok(())
    }

    /// What the admin does without a code: while the broker is set up.
    async fn act(&self, act: Act, token: Option<&str>) -> anyhow::Result<Acted> {
        let asked = AskAct {
            act,
            token: token.map(str::to_owned),
            factor: None,
        };
        let path = "/v1/admin/acts";
        Ok(self.signed(&self.robin, "POST", path, Some(&asked)).await?)
    }

    async fn enroll(&self, device: &Device, invite: &str) -> anyhow::Result<()> {
        let name = "memory";
        let hash = Bearer::parse(Kind::Invite, invite)?.hash();
        let mut asked = EnrollRequest {
            invite: invite.into(),
            public_key: device.key.public(),
            signature: hex(&device.key.sign(&enrolment_bytes(&hash.0, name))),
            device_name: name.into(),
            totp: None,
            kind: proto::device::DeviceKind::Terminal,
            passkey: None,
        };
        let first: Enrolled = self.post("/v1/enroll", None, &asked).await?;
        let otpauth = first.otpauth.context("an otpauth address")?;
        let totp = totp_rs::Totp::from_url(&otpauth).ok();
        // The code of the step before, so that the one of now stays good.
        let before = now()? - crate::STEP;
        asked.totp = totp.map(|t| t.generate(before).to_string());
        *device
            .otpauth
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = otpauth;
        let last: Enrolled = self.post("/v1/enroll", None, &asked).await?;
        if !last.done {
            bail!("{} is not enrolled", device.person);
        }
        Ok(())
    }

    /// A fresh token of the job.
    pub fn id_token(&self) -> anyhow::Result<String> {
        self.id_token_of(CLIENT_KEY)
    }

    /// A fresh token of the job under another of its names.
    pub fn id_token_of(&self, name: &str) -> anyhow::Result<String> {
        let now = now()?;
        let claims = json!({
            "iss": "client-key", "sub": name, "aud": self.url,
            "iat": now, "exp": now + 300, "jti": random_hex()?,
        });
        Ok(self.ci.sign_jwt("countersign-client+jwt", name, &claims))
    }

    /// Opens a request.
    pub async fn open(&self, token: &str, asked: &OpenRequest) -> Result<Opened, Fail> {
        self.post("/v1/requests", Some(token), asked).await
    }

    /// A request's status.
    pub async fn status(&self, id: RequestId, ticket: &str) -> Result<Status, Fail> {
        let url = format!("{}/v1/requests/{id}", self.url);
        reply(self.http.get(url).bearer_auth(ticket)).await
    }

    /// Collects.
    pub async fn collect(&self, id: RequestId, ticket: &str) -> Result<Collected, Fail> {
        let path = format!("/v1/requests/{id}/collect");
        self.post(&path, Some(ticket), &json!({})).await
    }

    /// Cancels.
    pub async fn cancel(&self, id: RequestId, ticket: &str) -> Result<Status, Fail> {
        let path = format!("/v1/requests/{id}/cancel");
        self.post(&path, Some(ticket), &json!({})).await
    }

    /// Answers by the device's signature alone.
    pub async fn answer(
        &self,
        device: &Device,
        opened: (RequestId, RequestDigest, &str),
        decision: Decision,
    ) -> Result<Answered, Fail> {
        let (id, request_digest, match_code) = opened;
        let strange = |e: anyhow::Error| Fail::Strange(e.to_string());
        let statement = Statement {
            decision,
            request_digest,
            device: device.key.public().id(),
            time: UnixTime(now().map_err(strange)?),
            nonce: random_hex().map_err(strange)?,
        };
        let given = AnswerRequest {
            signature: hex(&device.key.sign(&statement.canonical())),
            statement,
            match_code: match_code.into(),
            factor: SecondFactor::default(),
            reason: None,
        };
        let path = format!("/v1/requests/{id}/answer");
        self.signed(device, "POST", &path, Some(&given)).await
    }

    /// Freezes (`freeze`) or asks for the thaw (`thaw`) of a package.
    pub async fn freezer(
        &self,
        device: &Device,
        act: &str,
        package: &str,
    ) -> Result<FreezeStatus, Fail> {
        let asked = FreezeRequest {
            package: package.into(),
            reason: String::new(),
        };
        if act == "thaw" {
            return self.thaw(device, package).await;
        }
        let path = format!("/v1/admin/{act}");
        self.signed(device, "POST", &path, Some(&asked)).await
    }

    async fn thaw(&self, device: &Device, package: &str) -> Result<FreezeStatus, Fail> {
        let otpauth = device
            .otpauth
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let totp =
            totp_rs::Totp::from_url(&otpauth).map_err(|e| Fail::Strange(format!("{e:?}")))?;
        let path = "/v1/admin/thaw";
        // Where nothing is frozen, no code is asked for.
        let bare = ThawRequest {
            package: package.into(),
            factor: SecondFactor::default(),
        };
        match self.signed(device, "POST", path, Some(&bare)).await {
            Err(why) if why.code() == Some(Code::FactorMissing) => {}
            done => return done,
        }
        let strange = |e: anyhow::Error| Fail::Strange(e.to_string());
        let code = crate::next_code(&totp, &device.spent).await;
        let asked = ThawRequest {
            package: package.into(),
            factor: SecondFactor {
                totp: Some(code.map_err(strange)?),
                passkey: None,
            },
        };
        self.signed(device, "POST", path, Some(&asked)).await
    }

    /// Uploads a package with a credential, as a registry's client does.
    pub async fn upload(&self, packed: &Packed, credential: &str) -> Result<Value, Fail> {
        let name = packed.name.replace('/', "%2f");
        let request = self
            .http
            .put(format!("{}/{name}", self.registry_url))
            .bearer_auth(credential)
            .header("content-type", "application/json")
            .header("npm-command", "publish")
            .body(packed.document.clone());
        reply(request).await
    }

    /// The whole log and a signed checkpoint over it.
    pub async fn export(&self) -> Result<(Vec<LogLine>, String), Fail> {
        let path = "/v1/log/checkpoint";
        let checkpoint = self
            .signed_text(&self.robin, "GET", path, Vec::new())
            .await?;
        let size = checkpoint.lines().nth(1).and_then(|l| l.parse().ok());
        let size: u64 = size.ok_or_else(|| Fail::Strange(checkpoint.clone()))?;
        let mut lines = Vec::new();
        while (lines.len() as u64) < size {
            let from = lines.len() as u64;
            let limit = (size - from).min(1000);
            let path = format!("/v1/log/export?from={from}&limit={limit}");
            let page = self
                .signed_text(&self.robin, "GET", &path, Vec::new())
                .await?;
            for line in page.lines() {
                lines.push(serde_json::from_str(line).map_err(|e| Fail::Strange(e.to_string()))?);
            }
            if lines.len() as u64 == from {
                return Err(Fail::Strange("the log ends before its checkpoint".into()));
            }
        }
        Ok((lines, checkpoint))
    }

    /// The log's verification key.
    pub async fn log_key(&self) -> Result<String, Fail> {
        let status: proto::api::BrokerStatus =
            reply(self.http.get(format!("{}/v1/status", self.url))).await?;
        status
            .log_key
            .ok_or_else(|| Fail::Strange("no log key".into()))
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        bearer: Option<&str>,
        body: &impl Serialize,
    ) -> Result<T, Fail> {
        let mut request = self.http.post(format!("{}{path}", self.url)).json(body);
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        reply(request).await
    }

    async fn signed<T: DeserializeOwned>(
        &self,
        device: &Device,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Fail> {
        let strange = |e: serde_json::Error| Fail::Strange(e.to_string());
        let body = body.map(serde_json::to_vec).transpose().map_err(strange)?;
        let text = self
            .signed_text(device, method, path, body.unwrap_or_default())
            .await?;
        serde_json::from_str(&text).map_err(strange)
    }

    async fn signed_text(
        &self,
        device: &Device,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<String, Fail> {
        let strange = |e: anyhow::Error| Fail::Strange(e.to_string());
        let url = format!("{}{path}", self.url);
        // A broker that was just restarted hands out a new nonce; a third try would be for another restart.
        for _ in 0..3 {
            let nonce = self
                .nonce
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let proof = device.key.sign_call(&Call {
                method,
                url: &url,
                body: &body,
                now: UnixTime(now().map_err(strange)?),
                jti: &random_hex().map_err(strange)?,
                nonce: &nonce,
            });
            let verb = method.parse().unwrap_or(reqwest::Method::GET);
            let mut request = self.http.request(verb, &url).header("DPoP", proof);
            if !body.is_empty() {
                request = request
                    .header("content-type", "application/json")
                    .body(body.clone());
            }
            let response = request.send().await.map_err(|_| Fail::Away)?;
            let fresh = response.headers().get("dpop-nonce");
            if let Some(fresh) = fresh.and_then(|v| v.to_str().ok()) {
                fresh.clone_into(&mut self.nonce.lock().unwrap_or_else(PoisonError::into_inner));
            }
            match text(response).await {
                Err(f) if f.code() == Some(Code::UseNonce) => {}
                other => return other,
            }
        }
        Err(Fail::Away)
    }
}

async fn reply<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, Fail> {
    let text = text(request.send().await.map_err(|_| Fail::Away)?).await?;
    serde_json::from_str(&text).map_err(|e| Fail::Strange(format!("{e}: {text}")))
}

async fn text(response: reqwest::Response) -> Result<String, Fail> {
    let status = response.status();
    let text = response.text().await.map_err(|_| Fail::Away)?;
    if status.is_success() {
        return Ok(text);
    }
    if let Ok(problem) = serde_json::from_str(&text) {
        return Err(Fail::Problem(Box::new(problem)));
    }
    // The registry endpoint answers in npm's form.
    let npm: Value = serde_json::from_str(&text).unwrap_or_default();
    match (
        npm.get("code")
            .and_then(|c| serde_json::from_value(c.clone()).ok()),
        npm.get("error").and_then(Value::as_str),
    ) {
        (Some(code), Some(title)) => Err(Fail::Problem(Box::new(Problem::new(code, title, "")))),
        _ => Err(Fail::Strange(format!("{status}: {text}"))),
    }
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no randomness"))?;
    Ok(bytes)
}

fn random_hex() -> anyhow::Result<String> {
    Ok(hex(&random::<16>()?))
}
