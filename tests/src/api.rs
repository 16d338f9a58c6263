//! The broker's API, spoken directly: what a job, a device and a hostile program can say, without our own client between.
//!
//! [`Small`] is an organisation whose people live in memory: it starts in two seconds, and the code of any moment can
//! be computed.

#![allow(
    clippy::indexing_slicing,
    reason = "a JSON value's absent member is null, not a panic"
)]

use crate::{
    daemon::Daemon,
    now,
    parts::{Issuer, Verdaccio, github_claims},
};
use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use proto::{
    act::Acted,
    answer::{Decision, Statement},
    api::{AnswerRequest, Collected, EnrollRequest, Enrolled, Opened, Question, SealedRelease},
    bearer::{Bearer, Kind},
    device::{Call, DeviceKey, enrolment_bytes},
    digest::{Algorithm, Digest, hex},
    ids::RequestId,
    problem::{Code, Problem},
    request::{File, Item, RequestDigest, RequestFacts},
    time::UnixTime,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    fs,
    io::Read as _,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};
use totp_rs::Totp;

/// Longer than the broker holds a poll or an upload.
const CALL: Duration = Duration::from_secs(150);
/// Seconds of one TOTP step.
pub const STEP: u64 = 30;

/// Two people answer with their devices; a code is taken too. No test waits for the next step.
pub const POLICY: &str = r#"
[[package]]
match = ["npm:@acme/*"]
callers = [
    { issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" },
    { issuer = "client-key", client_key = "old-ci" },
]
approvers = ["release"]
quorum = 2
factors = ["device", "totp"]
version = "semver-release"
tags = ["latest", "next"]

[[package]]
match = ["secrets:deploy-key"]
callers = [{ issuer = "github", repository_id = 123, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }]
approvers = ["release"]
quorum = 1
factors = ["device", "totp"]
version = "any"
mode = "reveal"
"#;

/// [`POLICY`] with one approval.
pub fn policy_of_one() -> String {
    POLICY.replace("quorum = 2", "quorum = 1")
}

/// A reply, whatever it was.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub text: String,
    /// `DPoP-Nonce`, if the broker sent one.
    pub nonce: Option<String>,
    /// `Location`, if there was one.
    pub location: Option<String>,
}

impl Reply {
    /// Takes a response apart.
    pub async fn of(response: reqwest::Response) -> anyhow::Result<Self> {
        let header = |name| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        Ok(Self {
            status: response.status().as_u16(),
            nonce: header("dpop-nonce"),
            location: header("location"),
            text: response.text().await?,
        })
    }

    /// Whether the status is 2xx.
    pub fn good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The body of a success.
    pub fn ok<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        if !self.good() {
            bail!("refused with {}: {}", self.status, self.text);
        }
        serde_json::from_str(&self.text).with_context(|| format!("not understood: {}", self.text))
    }

    /// Nothing, of a success.
    pub fn ok_status(&self) -> anyhow::Result<()> {
        if self.good() {
            return Ok(());
        }
        bail!("refused with {}: {}", self.status, self.text)
    }

    /// The code of a problem, from either origin; `None` for a success.
    pub fn code(&self) -> Option<Code> {
        if self.good() {
            return None;
        }
        let of_registry = serde_json::from_value(self.json()["code"].clone()).ok();
        serde_json::from_str::<Problem>(&self.text)
            .map(|p| p.code)
            .ok()
            .or(of_registry)
    }
}

/// One origin of a broker.
#[derive(Clone, Debug)]
pub struct Api {
    http: reqwest::Client,
    base: String,
}

impl Api {
    /// The API of a broker.
    pub fn of(daemon: &Daemon) -> anyhow::Result<Self> {
        Self::at(&daemon.url)
    }

    /// Any origin: the registry endpoint, say.
    pub fn at(base: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            // All is plain HTTP on loopback: to load the system's certificates would take longer than a call.
            .tls_certs_only([])
            .redirect(reqwest::redirect::Policy::none())
            .timeout(CALL)
            .build()?;
        let base = base.to_owned();
        Ok(Self { http, base })
    }

    /// One call exactly as given.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> anyhow::Result<Reply> {
        let mut request = self
            .http
            .request(method.parse()?, format!("{}{path}", self.base))
            .body(body);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Reply::of(request.send().await?).await
    }

    /// A call with a bearer secret or an id token.
    pub async fn bearer(
        &self,
        method: &str,
        path: &str,
        bearer: &str,
        body: &Value,
    ) -> anyhow::Result<Reply> {
        let value = format!("Bearer {bearer}");
        let body = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body)?
        };
        self.call(method, path, &[("authorization", &value)], body)
            .await
    }

    /// `PUT` of a publish document with a credential, as npm 11 sends it.
    pub async fn put(
        &self,
        package: &str,
        credential: &str,
        document: Vec<u8>,
    ) -> anyhow::Result<Reply> {
        let authorization = format!("Bearer {credential}");
        let headers = [
            ("authorization", authorization.as_str()),
            ("npm-command", "publish"),
            ("npm-auth-type", "web"),
        ];
        self.call("PUT", &path_of(package), &headers, document)
            .await
    }
}

/// `/@acme%2fleft`
pub fn path_of(package: &str) -> String {
    format!("/{}", package.replace('/', "%2f"))
}

/// `PUT` at a registry endpoint.
pub async fn put(
    registry_url: &str,
    credential: &str,
    package: &str,
    document: Vec<u8>,
) -> anyhow::Result<Reply> {
    Api::at(registry_url)?
        .put(package, credential, document)
        .await
}

/// An open request, from the job's side.
pub struct Job {
    /// The broker.
    pub api: Api,
    /// The request.
    pub id: RequestId,
    /// Waits and collects.
    pub ticket: String,
    /// Hands files over, where the package is published by deposit.
    pub deposit: Option<String>,
    /// What the job's output shows.
    pub match_code: String,
    /// What people approve.
    pub facts: RequestFacts,
    /// Its digest, as the broker says.
    pub digest: RequestDigest,
    /// The ephemeral key.
    pub identity: age::x25519::Identity,
}

/// The body of an open, and the key that will open what is collected.
pub fn asking(items: &[Item], idempotency_key: &str) -> (Value, age::x25519::Identity) {
    let identity = age::x25519::Identity::generate();
    let body = json!({
        "items": items,
        "job_key": identity.to_public().to_string(),
        "idempotency_key": idempotency_key,
    });
    (body, identity)
}

impl Job {
    /// Opens a request.
    pub async fn open(
        daemon: &Daemon,
        id_token: &str,
        items: &[Item],
        idempotency_key: &str,
    ) -> anyhow::Result<Self> {
        let api = Api::of(daemon)?;
        let (body, identity) = asking(items, idempotency_key);
        let reply = api.bearer("POST", "/v1/requests", id_token, &body).await?;
        Self::opened(api, &reply, identity)
    }

    /// From the reply to an open.
    pub fn opened(
        api: Api,
        reply: &Reply,
        identity: age::x25519::Identity,
    ) -> anyhow::Result<Self> {
        let opened: Opened = reply.ok()?;
        Ok(Self {
            api,
            id: opened.id,
            ticket: opened.ticket,
            deposit: opened.deposit,
            match_code: opened.match_code,
            facts: opened.facts,
            digest: opened.request_digest,
            identity,
        })
    }

    /// A job that our own client runs, as people see it: its ticket and its key are the client's.
    pub async fn seen_by(device: &Device, id: &str, match_code: &str) -> anyhow::Result<Self> {
        let id = id.parse().context("an id")?;
        let question: Question = device.question(id).await?.ok()?;
        Ok(Self {
            api: device.api.clone(),
            id,
            ticket: String::new(),
            deposit: None,
            match_code: match_code.to_owned(),
            digest: question.facts.digest(),
            facts: question.facts,
            identity: age::x25519::Identity::generate(),
        })
    }

    /// `/v1/requests/{id}` with something behind.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/requests/{}{rest}", self.id)
    }

    /// The state right now.
    pub async fn status(&self) -> anyhow::Result<Reply> {
        self.wait(0, None).await
    }

    /// One poll.
    pub async fn wait(&self, seconds: u64, since: Option<u64>) -> anyhow::Result<Reply> {
        let since = since.map_or(String::new(), |n| format!("&since={n}"));
        let path = self.path(&format!("?wait={seconds}{since}"));
        self.api
            .bearer("GET", &path, &self.ticket, &Value::Null)
            .await
    }

    /// The state's name.
    pub async fn state(&self) -> anyhow::Result<String> {
        let status: Value = self.status().await?.ok()?;
        Ok(status["state"].as_str().unwrap_or_default().to_owned())
    }

    /// Collects; the raw reply.
    pub async fn collect_raw(&self) -> anyhow::Result<Reply> {
        let path = self.path("/collect");
        self.api
            .bearer("POST", &path, &self.ticket, &json!({}))
            .await
    }

    /// Collects, and opens what was sealed.
    pub async fn collect(&self) -> anyhow::Result<SealedRelease> {
        let collected: Collected = self.collect_raw().await?.ok()?;
        let plain = age::decrypt(&self.identity, collected.sealed.as_bytes())?;
        Ok(serde_json::from_slice(&plain)?)
    }

    /// Collects the one-shot credential.
    pub async fn credential(&self) -> anyhow::Result<String> {
        self.collect()
            .await?
            .credential
            .take()
            .context("a credential")
    }

    /// Takes it back.
    pub async fn cancel(&self) -> anyhow::Result<Reply> {
        let path = self.path("/cancel");
        self.api
            .bearer("POST", &path, &self.ticket, &json!({}))
            .await
    }
}

/// A person's device, in memory.
pub struct Device {
    /// The broker.
    pub api: Api,
    /// Who.
    pub person: String,
    /// The key.
    pub key: DeviceKey,
    /// `otpauth://…`, the second factor.
    pub otpauth: String,
    nonce: Mutex<String>,
    spent: AtomicU64,
}

impl Device {
    /// A new key; nobody's device yet.
    pub fn fresh(daemon: &Daemon) -> anyhow::Result<Self> {
        Ok(Self {
            api: Api::of(daemon)?,
            person: String::new(),
            key: DeviceKey::from_seed(random()?)?,
            otpauth: String::new(),
            nonce: Mutex::default(),
            spent: AtomicU64::default(),
        })
    }

    /// Enrols, with the code of the step before this one: the codes of this step stay unused.
    pub async fn enroll(daemon: &Daemon, invite: &str) -> anyhow::Result<Self> {
        let mut device = Self::fresh(daemon)?;
        let hash = Bearer::parse(Kind::Invite, invite)?.hash().0;
        let mut asked = EnrollRequest {
            invite: invite.to_owned(),
            public_key: device.key.public(),
            signature: hex(&device.key.sign(&enrolment_bytes(&hash, "test"))),
            device_name: "test".to_owned(),
            totp: None,
            kind: proto::device::DeviceKind::Terminal,
            passkey: None,
        };
        let first: Enrolled = device.enroll_raw(&asked).await?.ok()?;
        device.person = first.person.to_string();
        device.otpauth = first.otpauth.context("a second factor")?;
        asked.totp = Some(device.code_at(now()? - STEP)?);
        let last: Enrolled = device.enroll_raw(&asked).await?.ok()?;
        if !last.done {
            bail!("{} is not enrolled", device.person);
        }
        Ok(device)
    }

    /// One call of an enrolment.
    pub async fn enroll_raw(&self, asked: &EnrollRequest) -> anyhow::Result<Reply> {
        let body = serde_json::to_vec(asked)?;
        self.api.call("POST", "/v1/enroll", &[], body).await
    }

    /// The code of a moment.
    pub fn code_at(&self, seconds: u64) -> anyhow::Result<String> {
        let totp = Totp::from_url(&self.otpauth).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        Ok(totp.generate(seconds).to_string())
    }

    /// The code of this moment.
    pub fn code(&self) -> anyhow::Result<String> {
        self.code_at(now()?)
    }

    /// The `DPoP` header of a call, with the nonce that the broker gave last.
    pub fn proof(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<String> {
        let nonce = self.nonce.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.key.sign_call(&Call {
            method,
            url: &format!("{}{path}", self.api.base),
            body,
            now: UnixTime(now()?),
            jti: &hex(&random::<16>()?),
            nonce: &nonce,
        }))
    }

    /// A signed call; signs again when the broker hands out a nonce.
    pub async fn call(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Reply> {
        let body = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body)?
        };
        let mut reply = self.call_once(method, path, &body).await?;
        if reply.code() == Some(Code::UseNonce) {
            reply = self.call_once(method, path, &body).await?;
        }
        Ok(reply)
    }

    async fn call_once(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Reply> {
        let proof = self.proof(method, path, body)?;
        let headers = [("dpop", proof.as_str())];
        let reply = self.api.call(method, path, &headers, body.to_vec()).await?;
        if let Some(nonce) = &reply.nonce {
            let mut mine = self.nonce.lock().unwrap_or_else(PoisonError::into_inner);
            nonce.clone_into(&mut mine);
        }
        Ok(reply)
    }

    /// What waits.
    pub async fn inbox(&self) -> anyhow::Result<Reply> {
        self.call("GET", "/v1/inbox", &Value::Null).await
    }

    /// What would be approved.
    pub async fn question(&self, id: RequestId) -> anyhow::Result<Reply> {
        let path = format!("/v1/requests/{id}/question");
        self.call("GET", &path, &Value::Null).await
    }

    /// A signed statement about a request.
    pub fn statement(
        &self,
        decision: Decision,
        digest: RequestDigest,
    ) -> anyhow::Result<Statement> {
        Ok(Statement {
            decision,
            request_digest: digest,
            device: self.key.public().id(),
            time: UnixTime(now()?),
            nonce: hex(&random::<16>()?),
        })
    }

    /// The body of an answer.
    pub fn answering(
        &self,
        job: &Job,
        decision: Decision,
        match_code: &str,
        totp: Option<&str>,
    ) -> anyhow::Result<AnswerRequest> {
        let statement = self.statement(decision, job.digest)?;
        Ok(AnswerRequest {
            signature: hex(&self.key.sign(&statement.canonical())),
            statement,
            match_code: match_code.to_owned(),
            factor: proto::api::SecondFactor {
                totp: totp.map(str::to_owned),
                passkey: None,
            },
            reason: None,
        })
    }

    /// Answers.
    pub async fn answer(
        &self,
        job: &Job,
        decision: Decision,
        match_code: &str,
        totp: Option<&str>,
    ) -> anyhow::Result<Reply> {
        let answer = self.answering(job, decision, match_code, totp)?;
        self.call("POST", &job.path("/answer"), &serde_json::to_value(answer)?)
            .await
    }

    /// Approves with this device and the right match code.
    pub async fn approve(&self, job: &Job) -> anyhow::Result<Reply> {
        self.answer(job, Decision::Approve, &job.match_code, None)
            .await
    }

    /// Denies.
    pub async fn deny(&self, job: &Job) -> anyhow::Result<Reply> {
        self.answer(job, Decision::Deny, &job.match_code, None)
            .await
    }

    /// As an admin: an invite.
    pub async fn invite(
        &self,
        person: &str,
        groups: &[&str],
        admin: bool,
        actors: &[&str],
    ) -> anyhow::Result<String> {
        let act = json!({
            "kind": "invite", "person": person, "groups": groups, "admin": admin, "actors": actors,
        });
        let acted: Acted = self.act(act, None).await?.ok()?;
        Ok(acted.invited.context("an invite")?.invite)
    }

    /// As an admin: removes a person.
    pub async fn remove_person(&self, person: &str) -> anyhow::Result<Reply> {
        self.act(json!({"kind": "remove-person", "person": person}), None)
            .await
    }

    /// As an admin: stores a token.
    pub async fn add_token(
        &self,
        registry: &str,
        scope: &str,
        token: &str,
    ) -> anyhow::Result<Reply> {
        let act = json!({"kind": "add-token", "registry": registry, "scope": scope});
        self.act(act, Some(token)).await
    }

    /// As an admin: registers a client key.
    pub async fn add_client_key(
        &self,
        name: &str,
        key: &DeviceKey,
        packages: &[&str],
    ) -> anyhow::Result<Reply> {
        let asked = json!({"name": name, "public_key": key.public(), "packages": packages});
        self.call("POST", "/v1/admin/client-keys", &asked).await
    }

    /// As an admin: removes a client key.
    pub async fn remove_client_key(&self, name: &str) -> anyhow::Result<Reply> {
        let path = format!("/v1/admin/client-keys/{name}");
        self.call("DELETE", &path, &Value::Null).await
    }

    /// As an admin: `freeze` or `thaw`.
    pub async fn freezer(&self, what: &str, package: &str) -> anyhow::Result<Reply> {
        let path = format!("/v1/admin/{what}");
        self.with_code(&path, json!({"package": package})).await
    }

    /// As an admin: asks for an act.
    pub async fn act(&self, act: Value, token: Option<&str>) -> anyhow::Result<Reply> {
        self.with_code("/v1/admin/acts", json!({"act": act, "token": token}))
            .await
    }

    /// As an admin: agrees to another one's act.
    pub async fn confirm(&self, id: &str) -> anyhow::Result<Reply> {
        let path = format!("/v1/admin/acts/{id}/confirm");
        self.with_code(&path, json!({})).await
    }

    /// A call with a code where the broker wants one.
    pub async fn with_code(&self, path: &str, body: Value) -> anyhow::Result<Reply> {
        let totp = Totp::from_url(&self.otpauth).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let wants =
            |reply: &Reply| matches!(reply.code(), Some(Code::FactorMissing | Code::FactorWrong));
        crate::with_code(&totp, &self.spent, wants, async |code| {
            let mut body = body.clone();
            if let Some(code) = code {
                if path.ends_with("/acts") {
                    body["factor"] = json!({"totp": code});
                } else {
                    body["totp"] = json!(code);
                }
            }
            self.call("POST", path, &body).await
        })
        .await
    }
}

/// The token of a client key's job.
pub fn client_key_token(
    key: &DeviceKey,
    name: &str,
    audience: &str,
    more: &Value,
) -> anyhow::Result<String> {
    let now = now()?;
    let mut claims = json!({
        "iss": "client-key", "sub": name, "aud": audience,
        "iat": now, "exp": now + 300, "jti": hex(&random::<16>()?),
    });
    if let (Some(claims), Some(more)) = (claims.as_object_mut(), more.as_object()) {
        claims.extend(more.clone());
    }
    Ok(key.sign_jwt("countersign-client+jwt", name, &claims))
}

/// A packed package.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The archive.
    pub tgz: Vec<u8>,
}

impl Packed {
    /// An honest package.
    pub fn new(name: &str, version: &str) -> anyhow::Result<Self> {
        Self::with(name, version, &json!({}))
    }

    /// The same with more in its package.json.
    pub fn with(name: &str, version: &str, extra: &Value) -> anyhow::Result<Self> {
        let mut manifest = json!({"name": name, "version": version, "main": "index.js"});
        if let (Some(manifest), Some(extra)) = (manifest.as_object_mut(), extra.as_object()) {
            manifest.extend(extra.clone());
        }
        let index = format!("module.exports = {};\n", json!(format!("{name}@{version}")));
        let tgz = crate::packages::tarball(&[
            ("package/package.json", &serde_json::to_vec(&manifest)?),
            ("package/index.js", index.as_bytes()),
        ])?;
        Ok(Self {
            name: name.to_owned(),
            version: version.to_owned(),
            tgz,
        })
    }

    /// The item that asks for it.
    pub fn item(&self, tag: &str) -> anyhow::Result<Item> {
        item("npm", &self.name, &self.version, tag, &self.tgz)
    }

    /// The publish document.
    pub fn document(&self, tag: &str) -> anyhow::Result<Vec<u8>> {
        publish_document(&self.name, &self.version, &self.tgz, tag)
    }

    /// The same as JSON, to be spoiled.
    pub fn json(&self, tag: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.document(tag)?)?)
    }
}

/// An item with one archive.
pub fn item(
    registry: &str,
    package: &str,
    version: &str,
    tag: &str,
    tgz: &[u8],
) -> anyhow::Result<Item> {
    Ok(Item {
        registry: registry.parse()?,
        package: package.parse()?,
        version: version.parse()?,
        tag: Some(tag.parse()?),
        files: vec![File {
            name: format!("{version}.tgz"),
            size: tgz.len().try_into()?,
            digest: Digest::of(Algorithm::Sha512, tgz),
        }],
    })
}

/// A secret that is revealed.
pub fn secret_item(name: &str) -> anyhow::Result<Item> {
    Ok(Item {
        registry: "secrets".parse()?,
        package: name.parse()?,
        version: "1".parse()?,
        tag: None,
        files: Vec::new(),
    })
}

/// The body of `PUT /{package}` as npm 11 makes it: the manifest is the archive's own package.json (or a bare one, if
/// the archive has none) with name and version as given.
pub fn publish_document(
    name: &str,
    version: &str,
    tgz: &[u8],
    tag: &str,
) -> anyhow::Result<Vec<u8>> {
    let file = format!("{name}-{version}.tgz");
    let mut manifest = package_json(tgz).unwrap_or_else(|_| json!({}));
    let sha512 = Digest::of(Algorithm::Sha512, tgz);
    let sha1 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, tgz);
    let own = json!({
        "name": name,
        "version": version,
        "_id": format!("{name}@{version}"),
        "_nodeVersion": "22.0.0",
        "_npmVersion": "11.0.0",
        "dist": {
            "integrity": sha512.sri(),
            "shasum": hex(sha1.as_ref()),
            "tarball": format!("http://127.0.0.1/{name}/-/{file}"),
        },
    });
    if let (Some(manifest), Some(own)) = (manifest.as_object_mut(), own.as_object()) {
        manifest.extend(own.clone());
    }
    Ok(serde_json::to_vec(&json!({
        "_id": name,
        "name": name,
        "description": "",
        "dist-tags": {tag: version},
        "versions": {version: manifest},
        "access": null,
        "_attachments": {file: {
            "content_type": "application/octet-stream",
            "data": STANDARD.encode(tgz),
            "length": tgz.len(),
        }},
    }))?)
}

fn package_json(tgz: &[u8]) -> anyhow::Result<Value> {
    let mut archive = tar::Archive::new(GzDecoder::new(tgz));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path_bytes().as_ref() == b"package/package.json" {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            return Ok(serde_json::from_str(&text)?);
        }
    }
    bail!("no package.json")
}

/// Random bytes.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut out = [0; N];
    aws_lc_rs::rand::fill(&mut out).map_err(|_| anyhow::anyhow!("no randomness"))?;
    Ok(out)
}

/// An organisation with people in memory.
pub struct Small {
    /// The real registry, unless a test has put its own address in place of it.
    pub registry: Option<Verdaccio>,
    /// The CI's issuer.
    pub issuer: Issuer,
    /// The issuer, for minting.
    mint: Api,
    /// The broker.
    pub daemon: Daemon,
    /// The broker's API.
    pub api: Api,
    /// An admin, who is in no group.
    pub robin: Device,
    /// Of the group `release`.
    pub alice: Device,
    /// Of the group `release`.
    pub bob: Device,
}

impl Small {
    /// A second admin, who is enrolled now.
    pub async fn dora(&self) -> anyhow::Result<Device> {
        let invite = self.robin.invite("dora", &[], true, &[]).await?;
        Device::enroll(&self.daemon, &invite).await
    }

    /// With a real registry.
    pub async fn start(policy: &str) -> anyhow::Result<Self> {
        let registry = Verdaccio::start().await?;
        let (url, token) = (registry.url.clone(), registry.token.clone());
        let mut small = Self::over(&url, &token, policy).await?;
        small.registry = Some(registry);
        Ok(small)
    }

    /// With a registry of the test's own.
    pub async fn over(registry: &str, token: &str, policy: &str) -> anyhow::Result<Self> {
        let issuer = Issuer::start().await?;
        let builder = Daemon::builder().issuer("github", "github", &issuer.url, None);
        let builder = builder
            .registry("npm", "npm", registry)
            .registry("secrets", "generic", "")
            .policy(policy);
        Self::with(builder, issuer, token).await
    }

    /// With a broker of the test's own.
    pub async fn with(
        builder: crate::daemon::Builder,
        issuer: Issuer,
        token: &str,
    ) -> anyhow::Result<Self> {
        Self::with_token(builder, issuer, ("npm", token)).await
    }

    /// With a broker of the test's own, and a token for the registry of this name.
    pub async fn with_token(
        builder: crate::daemon::Builder,
        issuer: Issuer,
        (registry, token): (&str, &str),
    ) -> anyhow::Result<Self> {
        let daemon = builder.start().await?;
        let invite = fs::read_to_string(daemon.invite_path())?;
        let robin = Device::enroll(&daemon, invite.trim()).await?;
        let invite = robin.invite("alice", &["release"], false, &[]).await?;
        let alice = Device::enroll(&daemon, &invite).await?;
        let invite = robin.invite("bob", &["release"], false, &[]).await?;
        let bob = Device::enroll(&daemon, &invite).await?;
        let _: Value = robin.add_token(registry, "*", token).await?.ok()?;
        Ok(Self {
            registry: None,
            mint: Api::at(&issuer.url)?,
            issuer,
            api: Api::of(&daemon)?,
            daemon,
            robin,
            alice,
            bob,
        })
    }

    /// What an honest release job's token claims.
    pub fn claims(&self) -> Value {
        github_claims(&self.daemon.url)
    }

    /// A fresh token of the release job.
    pub async fn id_token(&self) -> anyhow::Result<String> {
        self.mint(&json!({ "claims": self.claims() })).await
    }

    /// As [`Issuer::mint_with`], over a connection that is kept.
    pub async fn mint(&self, order: &Value) -> anyhow::Result<String> {
        let body = serde_json::to_vec(order)?;
        let minted = match self.mint.call("POST", "/mint", &[], body.clone()).await {
            // The issuer closes what was idle for some seconds, perhaps at this very moment.
            Err(_) => self.mint.call("POST", "/mint", &[], body).await?,
            Ok(minted) => minted,
        };
        let minted: Value = minted.ok()?;
        Ok(minted["token"].as_str().context("a token")?.to_owned())
    }

    /// A fresh token with other claims; null leaves one out.
    pub async fn token_with(&self, changes: &Value) -> anyhow::Result<String> {
        let mut claims = self.claims();
        if let (Some(claims), Some(changes)) = (claims.as_object_mut(), changes.as_object()) {
            claims.extend(changes.clone());
        }
        self.mint(&json!({ "claims": claims })).await
    }

    /// Opens with a fresh token and key.
    pub async fn open(&self, items: &[Item]) -> anyhow::Result<Job> {
        let key = hex(&random::<16>()?);
        Job::open(&self.daemon, &self.id_token().await?, items, &key).await
    }

    /// Opens with this token and a fresh key; the raw reply.
    pub async fn open_raw(&self, id_token: &str, items: &[Item]) -> anyhow::Result<Reply> {
        let (body, _) = asking(items, &hex(&random::<16>()?));
        self.api
            .bearer("POST", "/v1/requests", id_token, &body)
            .await
    }

    /// Both maintainers approve with their devices.
    pub async fn approve(&self, job: &Job) -> anyhow::Result<()> {
        for device in [&self.alice, &self.bob] {
            let _: Value = device.approve(job).await?.ok()?;
        }
        Ok(())
    }

    /// The registry endpoint.
    pub fn endpoint(&self) -> anyhow::Result<Api> {
        Api::at(&self.daemon.registry_url)
    }

    /// How many requests wait for alice.
    pub async fn waiting(&self) -> anyhow::Result<usize> {
        let inbox: Value = self.alice.inbox().await?.ok()?;
        Ok(inbox["requests"].as_array().map_or(0, Vec::len))
    }

    /// Waits until a job's request has a state.
    pub async fn until(&self, job: &Job, state: &str) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let now = job.state().await?;
            if now == state {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(30) {
                bail!("it is {now}, not {state}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
