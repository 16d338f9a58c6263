//! One whole cycle: a job opens, a person answers, the job collects, unseals and publishes.

use super::{broker::Broker, http::Connection, sink::Issuer};
use age::x25519::Identity;
use anyhow::{Context as _, anyhow, bail};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    answer::{Decision, Statement},
    api::{Collected, Enrolled, Opened, SealedRelease},
    bearer::{Bearer, Kind},
    device::{Call, DeviceKey, enrolment_bytes},
    digest::{Algorithm, Digest, hex},
    time::UnixTime,
};
use serde_json::{Value, json};
use stand::packages::tarball;
use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Projects that ask; each has its own quota.
const PROJECTS: usize = 32;
/// Life of an id token, in seconds.
const TOKEN_LIFE: u64 = 800;

/// The policy: one person's device is enough. A TOTP code works once in 30 s, so that no run with
/// codes could be faster than that.
pub(crate) fn policy() -> String {
    let mut callers = String::new();
    for project in 0..PROJECTS {
        let _ = writeln!(
            callers,
            r#"    {{ issuer = "github", repository_id = {}, owner_id = 45, workflow = ".github/workflows/release.yml", ref = "refs/tags/v*", event = ["push"], environment = "release" }},"#,
            1000 + project
        );
    }
    format!(
        r#"[[package]]
match = ["npm:@acme/*"]
callers = [
{callers}]
approvers = ["release"]
quorum = 1
factors = ["device"]
version = "semver-release"
tags = ["latest"]
"#
    )
}

/// A person with an enrolled device, its key in memory.
pub(crate) struct Person {
    key: DeviceKey,
    serial: AtomicU64,
    nonce: std::sync::Mutex<String>,
    url: String,
}

impl Person {
    /// Enrols with an invite.
    pub(crate) async fn enroll(url: &str, invite: &str, seed: u8) -> anyhow::Result<Self> {
        let key = DeviceKey::from_seed([seed; 32])?;
        let bearer = Bearer::parse(Kind::Invite, invite)?;
        let mut order = json!({
            "invite": invite,
            "public_key": key.public(),
            "signature": hex(&key.sign(&enrolment_bytes(&bearer.hash().0, "bench"))),
            "device_name": "bench",
        });
        let mut connection = Connection::open(url).await?;
        let mut stage = async |order: &Value| -> anyhow::Result<Enrolled> {
            let reply = connection
                .call("POST", "/v1/enroll", &[], order.to_string().as_bytes())
                .await?;
            Ok(serde_json::from_slice(&reply.ok()?)?)
        };
        let first = stage(&order).await?;
        let totp = totp_rs::Totp::from_url(first.otpauth.context("a second factor")?)
            .map_err(|e| anyhow!("{e}"))?;
        order["totp"] = json!(totp.generate(stand::now()?).to_string());
        if !stage(&order).await?.done {
            bail!("the enrolment did not finish");
        }
        Ok(Self {
            key,
            serial: AtomicU64::new(0),
            nonce: std::sync::Mutex::default(),
            url: url.to_owned(),
        })
    }

    /// Forgets the nonce: the broker was started again.
    pub(crate) fn forget_nonce(&self) {
        self.set_nonce(String::new());
    }

    fn set_nonce(&self, nonce: String) {
        *self
            .nonce
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = nonce;
    }

    /// A signed call.
    pub(crate) async fn call(
        &self,
        connection: &mut Connection,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> anyhow::Result<Vec<u8>> {
        loop {
            let nonce = self
                .nonce
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .clone();
            let serial = self.serial.fetch_add(1, Ordering::Relaxed);
            let proof = self.key.sign_call(&Call {
                method,
                url: &format!("{}{path}", self.url),
                body,
                now: UnixTime(stand::now()?),
                jti: &format!("{}-{serial}", self.key.public().id()),
                nonce: &nonce,
            });
            let reply = connection
                .call(method, path, &[("dpop", &proof)], body)
                .await?;
            match reply.nonce {
                Some(fresh) if reply.status == 401 => self.set_nonce(fresh),
                _ => return reply.ok(),
            }
        }
    }

    /// Approves an open request.
    pub(crate) async fn approve(
        &self,
        connection: &mut Connection,
        opened: &Opened,
    ) -> anyhow::Result<()> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let statement = Statement {
            decision: Decision::Approve,
            request_digest: opened.request_digest,
            device: self.key.public().id(),
            time: UnixTime(stand::now()?),
            nonce: format!("{serial:032x}"),
        };
        let body = json!({
            "signature": hex(&self.key.sign(&statement.canonical())),
            "statement": statement,
            "match_code": opened.match_code,
        });
        let path = format!("/v1/requests/{}/answer", opened.id);
        let reply = self
            .call(connection, "POST", &path, body.to_string().as_bytes())
            .await?;
        let reply: Value = serde_json::from_slice(&reply)?;
        if reply["state"] != "approved" {
            bail!("after the answer: {reply}");
        }
        Ok(())
    }
}

/// Everything about one publish that can be made before the clock runs.
pub(crate) struct Job {
    package: String,
    token: String,
    open: Vec<u8>,
    upload: Vec<u8>,
}

/// Makes jobs.
pub(crate) struct Jobs {
    issuer: Issuer,
    audience: String,
    recipient: String,
    serial: AtomicU64,
}

impl Jobs {
    /// For a broker at `audience`.
    pub(crate) fn new(issuer: Issuer, job_key: &Identity, audience: &str) -> Self {
        Self {
            issuer,
            audience: audience.to_owned(),
            recipient: job_key.to_public().to_string(),
            serial: AtomicU64::new(1),
        }
    }

    /// The issuer.
    pub(crate) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The next job of a client, with `size` random bytes in its package.
    pub(crate) fn next(&self, client: usize, size: usize) -> anyhow::Result<Job> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let package = format!("@acme/p{client}");
        let version = format!("1.0.{serial}");
        let archive = archive(&package, &version, size)?;
        let digest512 = Digest::of(Algorithm::Sha512, &archive);
        let upload = json!({
            "_id": package,
            "name": package,
            "dist-tags": {"latest": version},
            "versions": {&version: {
                "name": package, "version": version, "_id": format!("{package}@{version}"),
                "dist": {
                    "integrity": digest512.sri(),
                    "shasum": hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &archive).as_ref()),
                    "tarball": format!("http://localhost/{package}/-/{package}-{version}.tgz"),
                },
            }},
            "access": null,
            "_attachments": {format!("{package}-{version}.tgz"): {
                "content_type": "application/octet-stream",
                "data": STANDARD.encode(&archive),
                "length": archive.len(),
            }},
        });
        let open = json!({
            "items": [{
                "registry": "npm", "package": package, "version": version, "tag": "latest",
                "files": [{
                    "name": format!("{client}-{version}.tgz"),
                    "size": archive.len(),
                    "digest": digest512.to_string(),
                }],
            }],
            "job_key": self.recipient,
            "idempotency_key": format!("bench-{serial}"),
        });
        let token = self.issuer.sign(&self.claims(client, serial)?)?;
        Ok(Job {
            package,
            token,
            open: open.to_string().into_bytes(),
            upload: upload.to_string().into_bytes(),
        })
    }

    fn claims(&self, client: usize, serial: u64) -> anyhow::Result<Value> {
        let mut claims = stand::parts::github_claims(&self.audience);
        let now = stand::now()?;
        claims["iss"] = json!(self.issuer.url);
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + TOKEN_LIFE);
        claims["jti"] = json!(format!("bench-{serial}"));
        claims["repository_id"] = json!((1000 + client % PROJECTS).to_string());
        Ok(claims)
    }
}

fn archive(package: &str, version: &str, size: usize) -> anyhow::Result<Vec<u8>> {
    let manifest = json!({"name": package, "version": version}).to_string();
    // What does not compress, so that the archive is as large as its contents.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut filler = Vec::with_capacity(size + 8);
    while filler.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        filler.extend_from_slice(&state.to_le_bytes());
    }
    tarball(&[
        ("package/package.json", manifest.as_bytes()),
        ("package/index.js", &filler),
    ])
}

/// How long the steps of one cycle took.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    /// Open, answer, collect, forward.
    pub(crate) steps: [Duration; 4],
    /// All, with the unsealing between them.
    pub(crate) all: Duration,
}

/// One client: its connections and its job key.
pub(crate) struct Client {
    api: Connection,
    registry: Connection,
    person: Arc<Person>,
    job_key: Arc<Identity>,
}

impl Client {
    /// Connects.
    pub(crate) async fn connect(
        broker: &Broker,
        person: &Arc<Person>,
        job_key: &Arc<Identity>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            api: Connection::open(&broker.url).await?,
            registry: Connection::open(&broker.registry_url).await?,
            person: Arc::clone(person),
            job_key: Arc::clone(job_key),
        })
    }

    /// Opens a request.
    pub(crate) async fn open(&mut self, job: &Job) -> anyhow::Result<Opened> {
        let bearer = format!("Bearer {}", job.token);
        let headers = [("authorization", bearer.as_str())];
        let reply = self
            .api
            .call("POST", "/v1/requests", &headers, &job.open)
            .await?;
        Ok(serde_json::from_slice(&reply.ok().context("open")?)?)
    }

    /// Approves it.
    pub(crate) async fn approve(&mut self, opened: &Opened) -> anyhow::Result<()> {
        self.person
            .approve(&mut self.api, opened)
            .await
            .context("answer")
    }

    /// A whole cycle.
    pub(crate) async fn cycle(&mut self, job: &Job) -> anyhow::Result<Steps> {
        let start = Instant::now();
        let opened = self.open(job).await?;
        let open = start.elapsed();
        let at = Instant::now();
        self.approve(&opened).await?;
        let answer = at.elapsed();
        let at = Instant::now();
        let path = format!("/v1/requests/{}/collect", opened.id);
        let bearer = format!("Bearer {}", opened.ticket);
        let headers = [("authorization", bearer.as_str())];
        let reply = self.api.call("POST", &path, &headers, b"").await?;
        let collected: Collected = serde_json::from_slice(&reply.ok().context("collect")?)?;
        let collect = at.elapsed();
        let credential = self.unseal(&collected)?;
        let at = Instant::now();
        self.publish(job, &credential).await?;
        Ok(Steps {
            steps: [open, answer, collect, at.elapsed()],
            all: start.elapsed(),
        })
    }

    fn unseal(&self, collected: &Collected) -> anyhow::Result<String> {
        let plain = age::decrypt(&*self.job_key, collected.sealed.as_bytes())?;
        let mut release: SealedRelease = serde_json::from_slice(&plain)?;
        release.credential.take().context("a credential")
    }

    async fn publish(&mut self, job: &Job, credential: &str) -> anyhow::Result<()> {
        let path = format!("/{}", job.package.replace('/', "%2f"));
        let bearer = format!("Bearer {credential}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let reply = self
            .registry
            .call("PUT", &path, &headers, &job.upload)
            .await?;
        reply.ok().context("forward").map(drop)
    }

    /// Waits until the request changes.
    pub(crate) async fn wait(&mut self, opened: &Opened) -> anyhow::Result<Value> {
        let path = format!("/v1/requests/{}?wait=60", opened.id);
        let bearer = format!("Bearer {}", opened.ticket);
        let headers = [("authorization", bearer.as_str())];
        let reply = self.api.call("GET", &path, &headers, b"").await?;
        Ok(serde_json::from_slice(&reply.ok()?)?)
    }
}

/// Sets a broker up: its admin, one maintainer, the registry's token.
pub(crate) async fn team(broker: &Broker) -> anyhow::Result<Arc<Person>> {
    let admin = Person::enroll(&broker.url, &broker.invite()?, 1).await?;
    let mut connection = Connection::open(&broker.url).await?;
    let invite = json!({"kind": "invite", "person": "alice", "groups": ["release"]});
    let invite = json!({"act": invite}).to_string();
    let invited = admin
        .call(&mut connection, "POST", "/v1/admin/acts", invite.as_bytes())
        .await?;
    let invited: Value = serde_json::from_slice(&invited)?;
    let alice = invited["invited"]["invite"].as_str().context("an invite")?;
    let alice = Person::enroll(&broker.url, alice, 2).await?;
    let token = json!({"kind": "add-token", "registry": "npm", "scope": "*"});
    let token = json!({"act": token, "token": "null-registry-token"});
    admin
        .call(
            &mut connection,
            "POST",
            "/v1/admin/acts",
            token.to_string().as_bytes(),
        )
        .await?;
    Ok(Arc::new(alice))
}
