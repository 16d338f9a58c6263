//! Attacks on answers from a browser: passkeys, sessions, enrolment.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use proto::{
    answer::Decision,
    api::{PasskeyReply, SecondFactor},
    bearer::{Bearer, Kind},
    device::{DeviceKey, enrolment_bytes},
    digest::{Algorithm, Digest, hex},
    factors::{TotpOffer, change},
    intent::{IntendedFile, IntendedItem, IntentRequest, IntentStatement},
    passkey::change_digest,
    request::RequestDigest,
    time::UnixTime,
};
use reqwest::Method;
use serde_json::{Value, json};
use stand::{
    bells::Hook,
    browser::Browser,
    daemon::Daemon,
    http, now,
    passkey::Authenticator,
    people::{Device, Job, Office, Reply, phone_policy, random},
};
use totp_rs::Totp;

async fn office() -> Office {
    let policy = phone_policy(1, r#"["passkey"]"#);
    Office::of_phones(&policy).await.unwrap()
}

/// A browser with a passkey, played by the test.
struct Phone {
    device: Device,
    passkey: Authenticator,
}

impl Phone {
    async fn hire(office: &Office, name: &str) -> Self {
        let invite = office.invite(name, &["release"], false, &[]).await.unwrap();
        let url = &office.daemon.url;
        let key = DeviceKey::from_seed(random().unwrap()).unwrap();
        let bearer = Bearer::parse(Kind::Invite, &invite).unwrap();
        let mut asked = json!({
            "invite": invite, "public_key": key.public(), "device_name": "phone", "kind": "browser",
            "signature": hex(&key.sign(&enrolment_bytes(&bearer.hash().0, "phone"))),
        });
        let client = http().unwrap();
        let path = format!("{url}/v1/enroll");
        let first = client.post(&path).json(&asked).send().await.unwrap();
        let first: Value = first.json().await.unwrap();
        let passkey = Authenticator::new(url).unwrap();
        asked["passkey"] = passkey.register(&first["passkey"]).unwrap();
        let done = client.post(&path).json(&asked).send().await.unwrap();
        assert!(done.status().is_success(), "{}", done.text().await.unwrap());
        let device = Device::of(key, first["otpauth"].as_str().unwrap(), url).unwrap();
        Self { device, passkey }
    }

    async fn challenge(&self, act: &str, digest: &RequestDigest) -> Value {
        let asked = json!({"act": act, "digest": digest});
        let reply = self.device.post("/v1/challenges", asked).await.unwrap();
        reply.ok().unwrap()
    }

    /// The factor for one act about one digest.
    async fn factor(&mut self, act: &str, digest: &RequestDigest) -> SecondFactor {
        let challenge = self.challenge(act, digest).await;
        self.reply(&challenge)
    }

    fn reply(&mut self, challenge: &Value) -> SecondFactor {
        SecondFactor {
            totp: None,
            passkey: Some(PasskeyReply {
                nonce: challenge["nonce"].as_str().unwrap().to_owned(),
                credential: self.passkey.assert(&challenge["options"]).unwrap(),
            }),
        }
    }

    /// The proof of a change of devices and factors.
    async fn change(&mut self, what: &str, object: &str) -> Value {
        let digest = RequestDigest(change_digest(what, object));
        serde_json::to_value(self.factor("change-factors", &digest).await).unwrap()
    }

    async fn send(&self, job: &Job, decision: Decision, factor: SecondFactor) -> Reply {
        let opened = &job.opened;
        let code = &opened.match_code;
        let mut answer = self
            .device
            .answer(decision, opened.request_digest, code, None)
            .unwrap();
        answer.factor = factor;
        let id = opened.id.to_string();
        self.device.send(&id, &answer).await.unwrap()
    }
}

#[tokio::test]
async fn attack_30_a_passkey_answers_one_question_once_for_one_person_at_one_site() {
    let office = office().await;
    let mut alice = Phone::hire(&office, "alice").await;
    let mut bob = Phone::hire(&office, "bob").await;
    let job = office.open("@acme/left", "1.0.0", b"a").await.unwrap();
    let other = office.open("@acme/right", "1.0.0", b"b").await.unwrap();
    let (digest, others) = (job.opened.request_digest, other.opened.request_digest);
    let mut refused = Vec::new();
    let yes = Decision::Approve;

    // No credential at all; a challenge for another request, for another decision, of another person; made up.
    refused.push(("none", alice.send(&job, yes, SecondFactor::default()).await));
    for (what, act, about) in [
        ("other request", "approve", &others),
        ("other decision", "deny", &digest),
        ("freeze", "deny-and-freeze", &digest),
        ("another act", "intend", &digest),
        ("a change", "change-factors", &digest),
    ] {
        let factor = alice.factor(act, about).await;
        refused.push((what, alice.send(&job, yes, factor).await));
    }
    let of_bob = bob.factor("approve", &digest).await;
    refused.push(("bob's", alice.send(&job, yes, of_bob).await));
    let challenge = alice.challenge("approve", &digest).await;
    let by_bob = bob.reply(&challenge);
    refused.push(("bob's passkey", alice.send(&job, yes, by_bob).await));
    let mut made_up = challenge.clone();
    made_up["nonce"] = json!("00".repeat(32));
    let factor = alice.reply(&made_up);
    refused.push(("a nonce of his own", alice.send(&job, yes, factor).await));
    let mut zero = challenge.clone();
    zero["options"]["challenge"] = json!("AAAA");
    let factor = alice.reply(&zero);
    refused.push(("another challenge", alice.send(&job, yes, factor).await));

    // Another site, and nobody who was asked.
    let origin = alice.passkey.origin.clone();
    for evil in [
        "https://evil.example",
        "http://localhost",
        "https://localhost",
    ] {
        evil.clone_into(&mut alice.passkey.origin);
        let factor = alice.factor("approve", &digest).await;
        refused.push(("origin", alice.send(&job, yes, factor).await));
    }
    alice.passkey.origin = origin;
    let site = std::mem::replace(&mut alice.passkey.site, "evil.example".to_owned());
    let factor = alice.factor("approve", &digest).await;
    refused.push(("site", alice.send(&job, yes, factor).await));
    alice.passkey.site = site;
    alice.passkey.verifies = false;
    let factor = alice.factor("approve", &digest).await;
    refused.push(("unverified", alice.send(&job, yes, factor).await));
    alice.passkey.verifies = true;

    for (what, reply) in &refused {
        assert!(
            ["factor-wrong", "factor-missing", "not-allowed"].contains(&reply.code()),
            "{what}: {} {}",
            reply.status,
            reply.body
        );
    }
    assert_eq!(job.state().await.unwrap(), "pending");

    // The right one counts, and the very same reply is worth nothing again: not here, not elsewhere.
    let factor = alice.factor("approve", &digest).await;
    let again = factor.clone();
    assert!(alice.send(&job, yes, factor).await.success());
    assert_eq!(job.state().await.unwrap(), "approved");
    let reply = alice.send(&other, yes, again).await;
    assert_eq!(reply.code(), "not-allowed", "{}", reply.body);
    assert_eq!(other.state().await.unwrap(), "pending");
    assert!(job.collect().await.unwrap().success());
}

#[tokio::test]
async fn attack_30_a_reply_works_once_and_a_counter_never_goes_back() {
    let office = office().await;
    let mut alice = Phone::hire(&office, "alice").await;
    let job = office.open("@acme/left", "1.0.0", b"a").await.unwrap();
    let digest = job.opened.request_digest;
    // 20 copies of one denial at once: the nonce is spent by one commit, the others change nothing.
    let factor = alice.factor("deny", &digest).await;
    let copies = (0..20).map(|_| alice.send(&job, Decision::Deny, factor.clone()));
    let replies = futures_util::future::join_all(copies).await;
    assert!(replies.iter().any(Reply::success));
    let events = office.events().await.unwrap();
    let denied = events.iter().filter(|e| e["type"] == "request-denied");
    assert_eq!(denied.count(), 1);

    // Many authenticators count nothing: the same reply about the same act is refused all the same.
    let proof = alice.change(change::ADD_DEVICE, "alice").await;
    for first in [true, false] {
        let asked = proof.clone();
        let reply = alice.device.post("/v1/devices/invite", asked).await;
        let reply = reply.unwrap();
        assert_eq!(reply.success(), first, "{}", reply.body);
    }

    // A cloned authenticator that counts behind the real one.
    let job = office.open("@acme/left", "1.0.1", b"a").await.unwrap();
    let digest = job.opened.request_digest;
    alice.passkey.counter = 10;
    let factor = alice.factor("approve", &digest).await;
    assert!(alice.send(&job, Decision::Approve, factor).await.success());
    let job = office.open("@acme/left", "1.0.2", b"a").await.unwrap();
    let digest = job.opened.request_digest;
    // It counts on before it signs: 6 and 11 are not beyond 11, 12 is.
    for (before, refused) in [(5, true), (10, true), (11, false)] {
        alice.passkey.counter = before;
        let factor = alice.factor("approve", &digest).await;
        let reply = alice.send(&job, Decision::Approve, factor).await;
        assert_eq!(reply.code() == "factor-wrong", refused, "{}", reply.body);
    }
}

/// Enrols a further device, of this name and kind, with the invite of somebody who has one.
async fn further(
    office: &Office,
    invite: &str,
    key: &DeviceKey,
    (name, kind): (&str, &str),
) -> reqwest::Response {
    let bearer = Bearer::parse(Kind::Invite, invite).unwrap();
    let asked = json!({
        "invite": invite, "public_key": key.public(), "device_name": name, "kind": kind,
        "signature": hex(&key.sign(&enrolment_bytes(&bearer.hash().0, name))),
    });
    let url = format!("{}/v1/enroll", office.daemon.url);
    let call = http().unwrap().post(url).json(&asked);
    call.send().await.unwrap()
}

/// An announcement of a release with these very bytes, as this phone's device signs it.
fn announcing(phone: &Phone, job_of: &[u8], version: &str) -> IntentStatement {
    let time = UnixTime(now().unwrap());
    IntentStatement {
        items: vec![IntendedItem {
            registry: "npm".parse().unwrap(),
            package: "@acme/left".parse().unwrap(),
            version: version.parse().unwrap(),
            tag: None,
            files: vec![IntendedFile {
                name: "package.tgz".into(),
                digest: Digest::of(Algorithm::Sha512, job_of),
            }],
        }],
        commit: None,
        expires: time.after(600),
        device: phone.device.key.public().id(),
        time,
        nonce: hex(&random::<16>().unwrap()),
    }
}

#[tokio::test]
async fn attack_30_a_passkey_announces_one_release_and_no_other() {
    let office = office().await;
    let mut alice = Phone::hire(&office, "alice").await;
    let mut bob = Phone::hire(&office, "bob").await;
    let digest_of = |statement: &IntentStatement| {
        let digest = Digest::of(Algorithm::Sha256, &statement.canonical());
        let bytes: [u8; 32] = digest.as_bytes().try_into().unwrap();
        RequestDigest(bytes)
    };
    let body = |phone: &Phone, statement: &IntentStatement, factor: &SecondFactor| {
        let signature = hex(&phone.device.key.sign(&statement.canonical()));
        json!({"statement": statement, "signature": signature, "passkey": factor.passkey})
    };
    let meant = announcing(&alice, b"meant", "1.0.0");
    let evil = announcing(&alice, b"evil", "1.0.0");
    let mut tries = Vec::new();
    tries.push(("none", SecondFactor::default()));
    for (what, act, about) in [
        ("another release", "intend", digest_of(&meant)),
        ("another act", "approve", digest_of(&evil)),
        ("a change", "change-factors", digest_of(&evil)),
    ] {
        tries.push((what, alice.factor(act, &about).await));
    }
    let of_bob = bob.factor("intend", &digest_of(&evil)).await;
    tries.push(("bob's", of_bob));
    for (what, factor) in &tries {
        let asked = body(&alice, &evil, factor);
        let reply = alice.device.post("/v1/intents", asked).await.unwrap();
        assert!(
            ["factor-wrong", "factor-missing", "not-allowed"].contains(&reply.code()),
            "{what}: {} {}",
            reply.status,
            reply.body
        );
    }
    // Nothing of it was announced; the right one is, once.
    let job = office.open("@acme/left", "1.0.0", b"evil").await.unwrap();
    assert_eq!(job.state().await.unwrap(), "pending");
    assert!(job.cancel().await.unwrap().success());
    let factor = alice.factor("intend", &digest_of(&meant)).await;
    let asked = body(&alice, &meant, &factor);
    let reply = alice.device.post("/v1/intents", asked).await.unwrap();
    assert!(reply.success(), "{} {}", reply.status, reply.body);
    let again = announcing(&alice, b"meant", "1.0.1");
    let asked = body(&alice, &again, &factor);
    let reply = alice.device.post("/v1/intents", asked).await.unwrap();
    assert!(!reply.success(), "{}", reply.body);
    let job = office.open("@acme/left", "1.0.0", b"meant").await.unwrap();
    assert_eq!(job.state().await.unwrap(), "approved");
    let job = office.open("@acme/left", "1.0.1", b"meant").await.unwrap();
    assert_eq!(job.state().await.unwrap(), "pending");
}

#[tokio::test]
async fn attack_32_a_stolen_session_shows_and_answers_nothing() {
    let office = office().await;
    let browser = Browser::start().await.unwrap();
    let phone = office.phone(&browser, "alice", &["release"]).await.unwrap();
    let job = office.open("@acme/left", "1.4.2", b"bytes").await.unwrap();
    phone.goto(&job.opened.page).await.unwrap();
    phone.sees("Publish exactly this?").await.unwrap();
    // Whoever took the page over signs what he likes with the device's key, in the page's own words. The person's
    // finger is not his.
    let code = &job.opened.match_code;
    let takeover = format!(
        r#"(async () => {{
          const base = document.querySelector("script[type=module]").src.replace("main.js", "");
          const [api, device, canonical] = await Promise.all(["api.js", "device.js", "canonical.js"].map((n) => import(base + n)));
          const own = await device.known();
          const exported = await crypto.subtle.exportKey("pkcs8", own.key).then(() => "the key left", () => "kept");
          const question = await api.signed("GET", "/v1/requests/{id}/question");
          const tried = {{ exported, sees: question.request_digest }};
          for (const decision of ["approve", "deny", "deny-and-freeze"]) {{
            const statement = {{ decision, request_digest: question.request_digest, device: own.id, time: device.now(), nonce: canonical.hex(canonical.random(16)) }};
            const signature = await device.sign(own, canonical.statementBytes(statement));
            const body = {{ statement, signature, match_code: "{code}" }};
            tried[decision] = await api.signed("POST", "/v1/requests/{id}/answer", body).then(() => "done", (why) => why.code);
          }}
          for (const [path, body] of [
            ["/v1/devices/invite", {{}}],
            ["/v1/devices/remove", {{ device: own.id }}],
            ["/v1/recoveries/ask", {{ person: "robin" }}],
            ["/v1/admin/acts", {{ act: {{ kind: "invite", person: "mallory" }} }}],
            ["/v1/admin/freeze", {{ package: "npm:@acme/left" }}],
          ]) tried[path] = await api.signed("POST", path, body).then(() => "done", (why) => why.code);
          return tried;
        }})()"#,
        id = job.opened.id
    );
    // The virtual authenticator would say yes to whatever asks; this one has no user.
    let unverified = json!({"is": false});
    phone.step("verified", unverified).await.unwrap();
    let tried = phone.run(&takeover).await.unwrap();
    assert_eq!(tried["exported"], "kept");
    assert_eq!(tried["sees"], json!(job.opened.request_digest));
    for (what, code) in tried.as_object().unwrap() {
        if !["exported", "sees"].contains(&what.as_str()) {
            let code = code.as_str().unwrap();
            assert!(
                ["factor-missing", "bad-request", "not-allowed", "not-found"].contains(&code),
                "{what}: {code}"
            );
        }
    }
    phone.fill("Match code", code).await.unwrap();
    phone.click("Approve with passkey").await.unwrap();
    phone.sees("The passkey was not used").await.unwrap();
    assert_eq!(job.state().await.unwrap(), "pending");
    // An admin's browser looks and does nothing either.
    let invite = office.invite("ada", &["release"], true, &[]).await.unwrap();
    let admin = browser.phone("ada").await.unwrap();
    admin
        .enroll(&format!("{}/enroll#{invite}", office.daemon.url))
        .await
        .unwrap();
    let acts = r#"(async () => {
      const base = document.querySelector("script[type=module]").src.replace("main.js", "");
      const api = await import(base + "api.js");
      const tried = {};
      tried.looks = await api.signed("GET", "/v1/admin/people").then((all) => all.length, (why) => why.code);
      for (const [method, path, body] of [
        ["POST", "/v1/admin/acts", { act: { kind: "invite", person: "mallory", admin: true } }],
        ["POST", "/v1/admin/acts", { act: { kind: "remove-person", person: "alice" } }],
        ["POST", "/v1/admin/acts/00/confirm", {}],
        ["POST", "/v1/admin/freeze", { package: "npm:@acme/left" }],
        ["POST", "/v1/admin/thaw", { package: "npm:@acme/left" }],
        ["POST", "/v1/admin/seal", {}],
        ["POST", "/v1/admin/clock", {}],
      ]) tried[method + path] = await api.signed(method, path, body).then(() => "done", (why) => why.code);
      return tried;
    })()"#;
    let tried = admin.run(acts).await.unwrap();
    assert_eq!(tried["looks"], 3);
    for (what, code) in tried.as_object().unwrap() {
        assert!(what == "looks" || code == "not-allowed", "{what}: {code}");
    }
}

#[tokio::test]
async fn attack_33_no_device_and_no_factor_comes_without_the_strongest_one() {
    let office = office().await;
    let mut alice = Phone::hire(&office, "alice").await;
    let id = alice.device.key.public().id();
    // Nothing, a code, or a passkey's word about something else.
    for factor in [json!({}), json!({"totp": "123456"})] {
        for (path, body) in [
            ("/v1/devices/invite", json!({})),
            ("/v1/passkeys/remove", json!({"id": alice_passkey(&alice)})),
        ] {
            let mut body = body;
            body.as_object_mut()
                .unwrap()
                .extend(factor.as_object().unwrap().clone());
            let reply = alice.device.post(path, body).await.unwrap();
            assert!(
                ["factor-missing", "bad-request"].contains(&reply.code()),
                "{path}: {}",
                reply.body
            );
        }
    }
    for (what, object) in [
        (change::REMOVE_DEVICE, "alice"),
        (change::ADD_DEVICE, "bob"),
        (change::RECOVER, "alice"),
    ] {
        let proof = alice.change(what, object).await;
        let reply = alice
            .device
            .post("/v1/devices/invite", proof)
            .await
            .unwrap();
        assert_eq!(reply.code(), "not-allowed", "{what}: {}", reply.body);
    }
    // Her own yes makes an invite: for one device of hers, once.
    let proof = alice.change(change::ADD_DEVICE, "alice").await;
    let reply = alice
        .device
        .post("/v1/devices/invite", proof)
        .await
        .unwrap();
    let invited: Value = reply.ok().unwrap();
    let invite = invited["invite"].as_str().unwrap();
    let enrol = async |key: &DeviceKey| further(&office, invite, key, ("laptop", "terminal")).await;
    let laptop = DeviceKey::from_seed(random().unwrap()).unwrap();
    let laptop_id = laptop.public().id();
    let done: Value = enrol(&laptop).await.json().await.unwrap();
    assert_eq!(done["person"], "alice");
    assert_eq!(done["done"], true);
    let late = enrol(&DeviceKey::from_seed(random().unwrap()).unwrap()).await;
    assert_eq!(late.status(), 403);
    let listed: Value = alice.device.get("/v1/devices").await.unwrap().ok().unwrap();
    assert_eq!(listed["devices"].as_array().unwrap().len(), 2);
    // It goes the same way; not the one that asks.
    let mut proof = alice.change(change::REMOVE_DEVICE, id.as_str()).await;
    proof["device"] = json!(id);
    let reply = alice
        .device
        .post("/v1/devices/remove", proof)
        .await
        .unwrap();
    assert_eq!(reply.code(), "bad-request", "{}", reply.body);
    let mut proof = alice
        .change(change::REMOVE_DEVICE, laptop_id.as_str())
        .await;
    proof["device"] = json!(laptop_id);
    let reply = alice
        .device
        .post("/v1/devices/remove", proof)
        .await
        .unwrap();
    assert!(reply.success(), "{}", reply.body);
    let listed: Value = alice.device.get("/v1/devices").await.unwrap().ok().unwrap();
    assert_eq!(listed["devices"].as_array().unwrap().len(), 1);
    // Nobody is enrolled twice by an ordinary invite.
    let act = json!({"kind": "invite", "person": "alice", "groups": ["release"]});
    let reply = office.admin.act(act, None).await.unwrap();
    assert_eq!(reply.code(), "bad-request", "{}", reply.body);
}

#[tokio::test]
async fn attack_32_a_stolen_session_pushes_out_no_challenge_of_another_device() {
    let office = office().await;
    let mut alice = Phone::hire(&office, "alice").await;
    let proof = alice.change(change::ADD_DEVICE, "alice").await;
    let reply = alice
        .device
        .post("/v1/devices/invite", proof)
        .await
        .unwrap();
    let invited: Value = reply.ok().unwrap();
    let invite = invited["invite"].as_str().unwrap();
    let key = DeviceKey::from_seed(random().unwrap()).unwrap();
    let url = &office.daemon.url;
    let done = further(&office, invite, &key, ("desk", "browser")).await;
    assert!(done.status().is_success());
    let stolen = Device::of(key, &alice.device.otpauth, url).unwrap();

    let job = office.open("@acme/left", "1.0.0", b"a").await.unwrap();
    let digest = job.opened.request_digest;
    let challenge = alice.challenge("approve", &digest).await;
    for _ in 0..60 {
        let asked = json!({"act": "approve", "digest": digest});
        let reply = stolen.post("/v1/challenges", asked).await.unwrap();
        assert!(reply.success(), "{}", reply.body);
    }
    let factor = alice.reply(&challenge);
    let reply = alice.send(&job, Decision::Approve, factor).await;
    assert!(reply.success(), "{}", reply.body);
}

#[tokio::test]
async fn attack_32_a_stolen_session_makes_nobody_deaf_and_takes_no_announcement_back() {
    let hook = Hook::start().await.unwrap();
    let push = format!("[push]\norigins = [\"{}\"]\n", hook.origin);
    let builder = Daemon::builder().named().extra(&push);
    let policy = phone_policy(1, r#"["passkey"]"#);
    let office = Office::start_as(builder, &policy, "http://127.0.0.1:9").await;
    let office = office.unwrap();
    let mut alice = Phone::hire(&office, "alice").await;
    let given = json!({"kind": "webhook", "url": hook.at("alice"), "name": "team"});
    let added = alice.device.post("/v1/notify/channels", given).await;
    let added: Value = added.unwrap().ok().unwrap();
    let channel = added["id"].as_str().unwrap().to_owned();
    // She announces, with her passkey.
    let now = UnixTime(now().unwrap());
    let statement = IntentStatement {
        items: vec![IntendedItem {
            registry: "npm".parse().unwrap(),
            package: "@acme/left".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            tag: None,
            files: Vec::new(),
        }],
        commit: None,
        expires: now.after(600),
        device: alice.device.key.public().id(),
        time: now,
        nonce: hex(&random::<16>().unwrap()),
    };
    let factor = alice.factor("intend", &statement.digest()).await;
    let request = IntentRequest {
        signature: hex(&alice.device.key.sign(&statement.canonical())),
        statement,
        factor,
    };
    let request = serde_json::to_value(request).unwrap();
    let made = alice.device.post("/v1/intents", request).await.unwrap();
    let made: Value = made.ok().unwrap();
    let intent = made["id"].as_str().unwrap().to_owned();

    let quiet = "00:00-23:59 UTC";
    let acts = [
        (
            Method::DELETE,
            format!("/v1/notify/channels/{channel}"),
            change::REMOVE_CHANNEL,
            channel.as_str(),
        ),
        (
            Method::PUT,
            "/v1/notify/quiet".to_owned(),
            change::QUIET_HOURS,
            quiet,
        ),
        (
            Method::DELETE,
            format!("/v1/intents/{intent}"),
            change::WITHDRAW_INTENT,
            intent.as_str(),
        ),
    ];
    let body = |what: &str, factor: Value| {
        let mut body = factor;
        if what == change::QUIET_HOURS {
            body["hours"] = json!(quiet);
        }
        body
    };
    // Nothing, a guess, and her passkey's word about something else.
    for (method, path, what, object) in &acts {
        let other = alice.change(change::ADD_DEVICE, object).await;
        for factor in [json!({}), json!({"totp": "123456"}), other] {
            let given = body(what, factor);
            let reply = alice.device.call(method.clone(), path, Some(&given)).await;
            let reply = reply.unwrap();
            assert!(!reply.success(), "{path}: {}", reply.body);
        }
        if *method == Method::DELETE {
            let reply = alice.device.call(method.clone(), path, None).await.unwrap();
            assert_eq!(reply.code(), "factor-missing", "{path}: {}", reply.body);
        }
    }
    let settings = async |alice: &Phone| -> Value {
        alice.device.get("/v1/notify").await.unwrap().ok().unwrap()
    };
    let told = settings(&alice).await;
    assert_eq!(told["channels"].as_array().unwrap().len(), 1);
    assert_eq!(told.get("quiet"), None);
    assert!(hook.so_far().is_empty());
    // Her own word does each of them.
    for (method, path, what, object) in &acts {
        let given = body(what, alice.change(what, object).await);
        let reply = alice.device.call(method.clone(), path, Some(&given)).await;
        let reply = reply.unwrap();
        assert!(reply.success(), "{path}: {}", reply.body);
    }
    let told = settings(&alice).await;
    assert_eq!(
        (&told["channels"], &told["quiet"]),
        (&json!([]), &json!(quiet))
    );
    let intents: Value = alice.device.get("/v1/intents").await.unwrap().ok().unwrap();
    assert_eq!(intents["intents"][0]["state"], "withdrawn");
    assert_eq!(hook.got(1).await.unwrap()[0].json()["about"], "settings");
}

#[tokio::test]
async fn attack_33_an_authenticator_app_is_set_up_with_the_strongest_factor_and_no_other() {
    let office = office().await;
    let mut alice = Phone::hire(&office, "alice").await;
    let mut bob = Phone::hire(&office, "bob").await;
    let offer = async |device: &Device| -> TotpOffer {
        let reply = device.post("/v1/totp/offer", json!({})).await.unwrap();
        reply.ok().unwrap()
    };
    let has = async |device: &Device| {
        let me: Value = device.get("/v1/devices").await.unwrap().ok().unwrap();
        me["totp"].as_bool().unwrap()
    };
    let code = |offer: &TotpOffer| {
        let app = Totp::from_url(&offer.otpauth).unwrap();
        app.generate(now().unwrap()).to_string()
    };
    let add = async |device: &Device, offer: &TotpOffer, code: &str, proof: Value| {
        let mut given = proof;
        given["setup"] = json!(offer.setup);
        given["code"] = json!(code);
        device.post("/v1/totp", given).await.unwrap()
    };
    let before = offer(&alice.device).await;
    let theirs = offer(&bob.device).await;
    let mine = offer(&alice.device).await;
    // No proof, a code of the very app, a passkey's word about another change, another setup or by somebody else.
    let about = [
        (change::ADD_PASSKEY, &mine.setup),
        (change::ADD_TOTP, &before.setup),
        (change::ADD_TOTP, &theirs.setup),
    ];
    let mut proofs = vec![json!({}), json!({"totp": code(&mine)})];
    for (what, object) in about {
        proofs.push(alice.change(what, object).await);
    }
    proofs.push(bob.change(change::ADD_TOTP, &mine.setup).await);
    for proof in proofs {
        let reply = add(&alice.device, &mine, &code(&mine), proof).await;
        assert!(!reply.success(), "{}", reply.body);
    }
    // Her own word about a setup that is over, or is another's.
    for other in [&before, &theirs] {
        let proof = alice.change(change::ADD_TOTP, &other.setup).await;
        let reply = add(&alice.device, other, &code(other), proof).await;
        assert_eq!(reply.code(), "not-allowed", "{}", reply.body);
    }
    assert!(!has(&alice.device).await);

    // The app must have it: a wrong code sets nothing up, and five end the setup.
    let proof = alice.change(change::ADD_TOTP, &mine.setup).await;
    for n in 0..6 {
        let reply = add(&alice.device, &mine, &code(&theirs), proof.clone()).await;
        let told = if n < 5 { "factor-wrong" } else { "not-allowed" };
        assert_eq!(reply.code(), told, "{}", reply.body);
    }
    let mine = offer(&alice.device).await;
    let proof = alice.change(change::ADD_TOTP, &mine.setup).await;
    let first = code(&mine);
    let reply = add(&alice.device, &mine, &first, proof.clone()).await;
    assert!(reply.success(), "{}", reply.body);
    assert!(has(&alice.device).await);
    assert!(!add(&alice.device, &mine, &first, proof).await.success());
    // That code is spent.
    let quiet = json!({"hours": "22:00-07:00 UTC", "totp": first});
    let reply = alice
        .device
        .call(Method::PUT, "/v1/notify/quiet", Some(&quiet));
    let reply = reply.await.unwrap();
    assert_eq!(reply.code(), "factor-wrong", "{}", reply.body);
    let events = office.events().await.unwrap();
    let set: Vec<_> = events.iter().filter(|e| e["type"] == "totp-set").collect();
    assert_eq!((set.len(), &set[0]["person"]), (1, &json!("alice")));
    // A guess at any of these doors stands in the log, with its device.
    let id = alice.device.key.public().id();
    let refused = json!({"type": "change-refused", "person": "alice", "device": id, "reason": "factor-wrong"});
    assert_eq!(events.iter().filter(|e| **e == refused).count(), 1);
}

fn alice_passkey(phone: &Phone) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode(&phone.passkey.id)
}

#[tokio::test]
async fn attack_33_lost_factors_need_two_others_and_a_day() {
    let office = office().await;
    let alice = Phone::hire(&office, "alice").await;
    let mut bob = Phone::hire(&office, "bob").await;
    let mut carol = Phone::hire(&office, "carol").await;
    let recover = async |who: &Device, verb: &str, mut proof: Value| {
        proof["person"] = json!("alice");
        let path = format!("/v1/recoveries/{verb}");
        who.post(&path, proof).await.unwrap()
    };
    // Bob asks twice, and is one.
    for _ in 0..2 {
        let proof = bob.change(change::RECOVER, "alice").await;
        let reply = recover(&bob.device, "ask", proof).await;
        let all: Value = reply.ok().unwrap();
        assert_eq!(all["recoveries"][0]["asked_by"], json!(["bob"]));
        assert_eq!(all["recoveries"][0]["ready"], Value::Null);
    }
    // Two of them without an admin are not enough; nor is Alice herself.
    let proof = carol.change(change::RECOVER, "alice").await;
    let reply = recover(&carol.device, "ask", proof).await;
    assert_eq!(reply.code(), "not-allowed", "{}", reply.body);
    let proof = bob.change(change::INVITE_RECOVERED, "alice").await;
    let reply = recover(&bob.device, "invite", proof).await;
    assert_eq!(reply.code(), "not-allowed", "{}", reply.body);
    // The admin is the second; everybody sees it, and there is a day.
    let proof = json!({"totp": office.admin.code(0).unwrap()});
    let reply = recover(&office.admin, "ask", proof).await;
    let all: Value = reply.ok().unwrap();
    let ready = all["recoveries"][0]["ready"].as_u64().unwrap();
    assert!(ready >= now().unwrap() + 24 * 3600 - 60);
    let seen: Value = carol
        .device
        .get("/v1/recoveries")
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(seen["recoveries"][0]["asked_by"], json!(["bob", "robin"]));
    let proof = bob.change(change::INVITE_RECOVERED, "alice").await;
    let reply = recover(&bob.device, "invite", proof).await;
    assert_eq!(reply.code(), "not-allowed", "{}", reply.body);
    // Nor does anybody else ever make the invite: a third one could enrol as her.
    let proof = carol.change(change::INVITE_RECOVERED, "alice").await;
    let reply = recover(&carol.device, "invite", proof).await;
    assert_eq!(reply.code(), "not-allowed", "{}", reply.body);
    assert!(
        reply.body["title"]
            .as_str()
            .unwrap()
            .contains("only those who asked"),
        "{}",
        reply.body
    );
    // Alice has her phone after all, and ends it.
    let mut alice = alice;
    let proof = alice.change(change::CANCEL_RECOVERY, "alice").await;
    let reply = recover(&alice.device, "cancel", proof).await;
    let all: Value = reply.ok().unwrap();
    assert_eq!(all["recoveries"], json!([]));
    let kinds: Vec<_> = office.events().await.unwrap();
    let kinds: Vec<_> = kinds.iter().filter_map(|e| e["type"].as_str()).collect();
    for kind in ["recovery-asked", "recovery-cancelled"] {
        assert!(kinds.contains(&kind), "{kind}");
    }
}

/// No cookie, no password, no form: nothing that another site could make a browser send says who somebody is.
#[tokio::test]
async fn attack_31_no_other_site_calls_in_somebodys_name_or_frames_the_page() {
    let office = office().await;
    let client = http().unwrap();
    let url = &office.daemon.url;
    let page = client
        .get(url)
        .header("accept", "text/html")
        .send()
        .await
        .unwrap();
    let head = page.headers().clone();
    assert!(head.get("set-cookie").is_none());
    assert!(head.get("access-control-allow-origin").is_none());
    assert_eq!(head["x-frame-options"], "DENY");
    let policy = head["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    let id = "0198c0de-0000-7000-8000-000000000001";
    for (method, path) in [
        (Method::GET, "/v1/inbox".to_owned()),
        (Method::POST, format!("/v1/requests/{id}/answer")),
        (Method::POST, "/v1/devices/invite".to_owned()),
        (Method::POST, "/v1/challenges".to_owned()),
    ] {
        let call = client
            .request(method, format!("{url}{path}"))
            .header("origin", "https://evil.example")
            .header("cookie", "session=1")
            .header("content-type", "text/plain")
            .body("{}");
        let reply = call.send().await.unwrap();
        assert_eq!(reply.status(), 401, "{path}");
        assert!(reply.headers().get("access-control-allow-origin").is_none());
    }
    // What comes behind the address leads nowhere else.
    for path in [
        "//evil.example",
        "/r/..%2f..%2fevil",
        "/r/https:%2f%2fevil.example",
        "/enroll?next=https://evil.example",
    ] {
        let reply = client.get(format!("{url}{path}")).send().await.unwrap();
        assert!(!reply.status().is_redirection(), "{path}");
        assert!(reply.headers().get("location").is_none(), "{path}");
    }
}
