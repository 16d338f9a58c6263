//! Rows 20, 25, 26 and 54: routes that answer whom they should not, and floods.

use super::upstream::{Seen, TOKEN, Upstream};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use broker::http::routes::{self, Who};
use proto::{
    bearer::{Bearer, Kind},
    device::DeviceKey,
    ids::RequestId,
    problem::Code,
    request::Item,
};
use serde_json::{Value, json};
use stand::api::{self, Api, Device, Job, Packed, Reply, Small};

fn item(name: &str) -> Item {
    Packed::new(name, "1.4.2").unwrap().item("latest").unwrap()
}

#[tokio::test]
async fn attack_20_every_other_call_with_a_live_credential() {
    let upstream = Upstream::start().await;
    let policy = api::policy_of_one();
    let small = Small::over(&upstream.url, TOKEN, &policy).await.unwrap();
    let endpoint = small.endpoint().unwrap();
    let left = Packed::new("@acme/left", "1.4.2").unwrap();
    let job = small.open(&[left.item("latest").unwrap()]).await.unwrap();
    assert!(small.alice.approve(&job).await.unwrap().good());
    let credential = job.credential().await.unwrap();
    let bearer = format!("Bearer {credential}");
    let headers = [("authorization", bearer.as_str())];
    let before = upstream.seen().len();

    let mut metadata = left.json("latest").unwrap();
    metadata["versions"]["1.4.2"]["deprecated"] = json!("use @acme/evil");
    let deprecate = {
        let mut document = metadata.clone();
        document.as_object_mut().unwrap().remove("_attachments");
        document
    };
    let mut empty = metadata.clone();
    empty["_attachments"] = json!({});
    let owners = json!({"_id": "@acme/left", "_rev": "1-x", "maintainers": [{"name": "evil", "email": "e@x.example"}]});
    let token = json!({"password": "x", "name": "x", "packages_all": true});
    let good = left.json("latest").unwrap();
    for (method, path, body) in [
        ("PUT", "/@acme%2fleft", deprecate.clone()),
        ("PUT", "/@acme%2fleft", empty),
        ("PUT", "/@acme%2fleft", owners.clone()),
        ("PUT", "/@acme%2fleft", json!({})),
        ("PUT", "/@acme%2fleft?write=true", deprecate.clone()),
        ("PUT", "/@acme%2fleft/-rev/1-x", owners),
        ("PUT", "/@acme%2fleft/-rev/1-x", good.clone()),
        ("DELETE", "/@acme%2fleft/-rev/1-x", json!(null)),
        (
            "DELETE",
            "/@acme%2fleft/-/left-1.4.2.tgz/-rev/1-x",
            json!(null),
        ),
        ("DELETE", "/@acme%2fleft", json!(null)),
        ("POST", "/@acme%2fleft", good.clone()),
        ("PATCH", "/@acme%2fleft", good.clone()),
        (
            "PUT",
            "/-/package/@acme%2fleft/dist-tags/latest",
            json!("1.0.0"),
        ),
        (
            "POST",
            "/-/package/@acme%2fleft/dist-tags",
            json!({"latest": "1.0.0"}),
        ),
        (
            "DELETE",
            "/-/package/@acme%2fleft/dist-tags/next",
            json!(null),
        ),
        ("GET", "/-/package/@acme%2fleft/dist-tags", json!(null)),
        (
            "POST",
            "/-/package/@acme%2fleft/access",
            json!({"access": "public"}),
        ),
        ("POST", "/-/package/@acme%2fleft/trust", json!([{}])),
        (
            "PUT",
            "/-/package/@acme%2fleft/collaborators",
            json!({"user": "evil"}),
        ),
        ("POST", "/-/npm/v1/tokens", token.clone()),
        ("GET", "/-/npm/v1/tokens", json!(null)),
        ("DELETE", "/-/npm/v1/tokens/token/x", json!(null)),
        ("GET", "/-/npm/v1/user", json!(null)),
        ("POST", "/-/npm/v1/user", json!({"tfa": null})),
        ("POST", "/-/npm/v1/security/audits", json!({})),
        ("GET", "/-/v1/search?text=acme", json!(null)),
        ("POST", "/-/v1/login", json!({})),
        (
            "PUT",
            "/-/user/org.couchdb.user:maint",
            json!({"name": "maint", "password": "x"}),
        ),
        (
            "PUT",
            "/-/org/acme/user",
            json!({"user": "evil", "role": "owner"}),
        ),
        (
            "PUT",
            "/-/team/acme/devs/package",
            json!({"package": "@acme/left"}),
        ),
        ("GET", "/-/all", json!(null)),
        ("POST", "/-/stage/package/@acme%2fleft", good.clone()),
        (
            "POST",
            "/-/stage/00000000-0000-7000-8000-000000000000/approve",
            json!({}),
        ),
        (
            "PUT",
            "/-/pnpr/v0/publish",
            json!({"packages": [good.clone()]}),
        ),
        (
            "PUT",
            "/-/pnpm/v1/publish",
            json!({"packages": [good.clone()]}),
        ),
        ("PUT", "//-/npm/v1/tokens", token.clone()),
        ("POST", "/%2d/npm/v1/tokens", token.clone()),
        ("PUT", "/%2d/user/org.couchdb.user:maint", token),
        ("PUT", "/@acme%2fleft%3fwrite=true", good.clone()),
        ("PUT", "/@acme%2fleft%23", good.clone()),
        ("PUT", "/https:%2f%2fevil.example%2fleft", good.clone()),
        ("PUT", "/", good),
    ] {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let reply = endpoint.call(method, path, &headers, body).await.unwrap();
        assert!(
            (400..500).contains(&reply.status),
            "{method} {path}: {} {}",
            reply.status,
            reply.text
        );
    }
    // What clients ask besides a publish is answered here.
    for (method, path, status) in [
        ("GET", "/-/whoami", 200),
        ("GET", "/-/ping", 200),
        ("GET", "/-/package/@acme%2fleft/visibility", 200),
        ("GET", "/@acme%2fleft", 404),
        ("GET", "/npm", 404),
        ("HEAD", "/@acme%2fleft", 404),
        ("GET", "/@acme%2fleft/-/left-1.4.2.tgz", 404),
    ] {
        let reply = endpoint.call(method, path, &headers, "").await.unwrap();
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text);
        assert!(!reply.text.contains(TOKEN));
    }
    let whoami = endpoint
        .call("GET", "/-/whoami", &headers, "")
        .await
        .unwrap();
    assert_eq!(whoami.json()["username"], "countersign");
    assert_eq!(
        endpoint
            .call("GET", "/-/whoami", &[], "")
            .await
            .unwrap()
            .status,
        403
    );
    // All that went on is what asking for this very package tells too: its document was read.
    let seen = upstream.seen();
    let read = |s: &Seen| s.method == "GET" && s.path == "/@acme%2fleft";
    assert!(seen[before..].iter().all(read), "{seen:?}");

    // The control: the credential is alive, and the recorder would have seen the token.
    let document = left.document("latest").unwrap();
    assert!(
        endpoint
            .put(&left.name, &credential, document)
            .await
            .unwrap()
            .good()
    );
    assert!(upstream.writes().iter().any(|s| s.token));
    // The API and the registry endpoint share no route.
    let reply = endpoint.call("GET", "/v1/status", &[], "").await.unwrap();
    assert!(!reply.good());
}

/// All that a stranger could tell two replies apart by.
fn told(reply: &Reply) -> (u16, &str) {
    (reply.status, &reply.text)
}

#[tokio::test]
async fn attack_25_the_ids_of_others_look_like_none() {
    let upstream = Upstream::start().await;
    let small = Small::over(&upstream.url, TOKEN, api::POLICY)
        .await
        .unwrap();
    let mine = small.open(&[item("@acme/mine")]).await.unwrap();
    let theirs = small.open(&[item("@acme/theirs")]).await.unwrap();
    let nobodys: RequestId = "01a1fce0-fe2f-768b-9783-ea8d5a0996a5".parse().unwrap();
    let api = Api::of(&small.daemon).unwrap();
    let guess = Bearer::from_entropy(Kind::Ticket, api::random().unwrap()).expose();

    for (method, rest) in [
        ("GET", ""),
        ("GET", "?wait=1"),
        ("POST", "/collect"),
        ("POST", "/cancel"),
        ("GET", "/receipt"),
    ] {
        for ticket in [&mine.ticket, &guess] {
            let ask = async |id: &str| {
                let path = format!("/v1/requests/{id}{rest}");
                let body = if method == "POST" {
                    json!({})
                } else {
                    Value::Null
                };
                api.bearer(method, &path, ticket, &body).await.unwrap()
            };
            let there = ask(&theirs.id.to_string()).await;
            assert_eq!(there.code(), Some(Code::NotFound), "{rest}: {}", there.text);
            for other in [
                &nobodys.to_string(),
                "x",
                &theirs.id.to_string().to_uppercase(),
            ] {
                let none = ask(other).await;
                assert_eq!(told(&there), told(&none), "{method} {rest} {other}");
            }
        }
    }
    // Another project with the very same body and idempotency key does not get the request that they opened.
    let (body, _) = api::asking(&[item("@acme/same")], "same");
    let token = small.id_token().await.unwrap();
    let reply = api.bearer("POST", "/v1/requests", &token, &body).await;
    let own: Value = reply.unwrap().ok().unwrap();
    let foreign = json!({"repository_id": "999"});
    let token = small.token_with(&foreign).await.unwrap();
    let reply = api.bearer("POST", "/v1/requests", &token, &body);
    let reply = reply.await.unwrap();
    assert_eq!(reply.code(), Some(Code::PolicyDenied), "{}", reply.text);
    assert!(!reply.text.contains(own["id"].as_str().unwrap()));
    // The page in a job's output says the same of every id.
    let page = async |id: &RequestId| api.call("GET", &format!("/r/{id}"), &[], "").await.unwrap();
    let (there, none) = (page(&theirs.id).await, page(&nobodys).await);
    assert_eq!(there.status, none.status);
    assert_eq!(
        there.text.replace(&theirs.id.to_string(), "X"),
        none.text.replace(&nobodys.to_string(), "X")
    );

    // An enrolled person whom the policy does not name for this package.
    let invite = small
        .robin
        .invite("carol", &["docs"], false, &[])
        .await
        .unwrap();
    let carol = Device::enroll(&small.daemon, &invite).await.unwrap();
    let inbox: Value = carol.inbox().await.unwrap().ok().unwrap();
    assert_eq!(inbox["requests"], json!([]));
    let (there, none) = (
        carol.question(theirs.id).await.unwrap(),
        carol.question(nobodys).await.unwrap(),
    );
    assert_eq!(there.code(), Some(Code::NotFound), "{}", there.text);
    assert_eq!(told(&there), told(&none));
    let mut ghost = small.open(&[item("@acme/ghost")]).await.unwrap();
    ghost.id = nobodys;
    for decision in [
        proto::answer::Decision::Approve,
        proto::answer::Decision::DenyAndFreeze,
    ] {
        let there = carol
            .answer(&theirs, decision, &theirs.match_code, None)
            .await
            .unwrap();
        assert_eq!(there.code(), Some(Code::NotFound), "{}", there.text);
        let none = carol
            .answer(&ghost, decision, &theirs.match_code, None)
            .await
            .unwrap();
        assert_eq!(told(&there), told(&none));
    }
    // Ids are no secrets, yet not one bit of the ticket can be guessed from them.
    assert_eq!(theirs.state().await.unwrap(), "pending");
    assert!(!theirs.ticket.contains(&theirs.id.to_string()));
}

/// A body with which the route would do something, were the caller let in.
fn body_of(path: &str, job: &Job, as_if: &Device) -> Value {
    let key = DeviceKey::from_seed([7; 32]).unwrap();
    match path {
        "/v1/requests" => api::asking(&[item("@acme/left")], "walk").0,
        "/v1/requests/{id}/answer" => {
            let answer = as_if.answering(
                job,
                proto::answer::Decision::DenyAndFreeze,
                &job.match_code,
                None,
            );
            serde_json::to_value(answer.unwrap()).unwrap()
        }
        "/v1/admin/acts" => {
            let act = json!({"kind": "add-token", "registry": "npm", "scope": "@evil/*"});
            json!({"act": act, "token": "canary-evil"})
        }
        "/v1/admin/tokens/check" => json!({"registry": "npm", "scope": "*"}),
        "/v1/admin/client-keys" => {
            json!({"name": "evil", "public_key": key.public(), "packages": ["npm:@acme/left"]})
        }
        "/v1/admin/freeze" | "/v1/admin/thaw" => json!({"package": "npm:@acme/left"}),
        "/v1/admin/unseal" => json!({"passphrase": "x"}),
        "/v1/admin/unseal-method" => json!({"to": {"method": "passphrase"}, "passphrase": "x"}),
        _ => json!({}),
    }
}

/// Everything that a call could have changed.
async fn everything(small: &Small, job: &Job) -> Vec<String> {
    let mut all = vec![job.status().await.unwrap().text];
    for path in [
        "/v1/admin/people",
        "/v1/admin/tokens",
        "/v1/admin/client-keys",
        "/v1/log/export?from=0",
    ] {
        let reply = small.robin.call("GET", path, &Value::Null).await.unwrap();
        assert!(reply.good(), "{path}: {}", reply.text);
        all.push(reply.text);
    }
    all
}

/// The same call under the same device's name, signed by another key.
fn signed_by(key: &DeviceKey, proof: &str) -> String {
    let (signed, _) = proof.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn attack_26_every_route_asks_who_is_calling() {
    let upstream = Upstream::start().await;
    let small = Small::over(&upstream.url, TOKEN, api::POLICY)
        .await
        .unwrap();
    let key = DeviceKey::from_seed(api::random().unwrap()).unwrap();
    assert!(
        small
            .robin
            .add_client_key("old-ci", &key, &["npm:@acme/left"])
            .await
            .unwrap()
            .good()
    );
    let job = small.open(&[item("@acme/left")]).await.unwrap();
    let stranger = Device::fresh(&small.daemon).unwrap();
    let api = Api::of(&small.daemon).unwrap();
    // So that the nonces are fresh, and every refusal below is about something else.
    for device in [&small.alice, &small.robin, &stranger] {
        let _ = device.inbox().await.unwrap();
    }
    let id_token = small.id_token().await.unwrap();
    let guess = Bearer::from_entropy(Kind::Ticket, api::random().unwrap()).expose();
    let before = everything(&small, &job).await;
    let mut open_to_all = Vec::new();
    let mut walked = 0;

    for route in routes::table() {
        let method = route.method.as_str();
        let id = job.id.to_string();
        let path = route
            .path
            .replace("{id}", &id)
            .replace("{digest}", &item("@acme/left").files[0].digest.to_string())
            .replace("{person}", "bob")
            .replace("{name}", "old-ci")
            .replace("{level}", "0")
            .replace("{*tile}", "000.p/1");
        let body = match method {
            "GET" | "DELETE" => Value::Null,
            _ => body_of(route.path, &job, &small.alice),
        };
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(&body).unwrap()
        };
        let refused = |reply: &Reply, status: u16, why: &str| {
            assert_eq!(
                reply.status, status,
                "{method} {path} {why}: {}",
                reply.text
            );
            assert!(
                matches!(reply.code(), Some(c) if c.status() == status),
                "{}",
                reply.text
            );
        };
        walked += 1;
        if route.who == Who::Anyone {
            open_to_all.push(route.path);
            continue;
        }
        let bare = api.call(method, &path, &[], bytes.clone()).await.unwrap();
        refused(&bare, 401, "without anything");
        for junk in [
            "",
            "Bearer",
            "Bearer ",
            "Basic cm9iaW46eA==",
            "bearer x",
            "Bearer null",
        ] {
            let headers = [("authorization", junk)];
            let reply = api
                .call(method, &path, &headers, bytes.clone())
                .await
                .unwrap();
            refused(&reply, 401, junk);
        }
        match route.who {
            Who::Anyone => {}
            Who::Caller => {
                for bearer in [&job.ticket, &guess] {
                    let reply = api.bearer(method, &path, bearer, &body).await.unwrap();
                    refused(&reply, 401, "with a ticket");
                }
                let reply = small.robin.call(method, &path, &body).await.unwrap();
                refused(&reply, 401, "with an admin's signature");
            }
            Who::Ticket => {
                let reply = api.bearer(method, &path, &guess, &body).await.unwrap();
                refused(&reply, 404, "with another ticket");
                let reply = api.bearer(method, &path, &id_token, &body).await.unwrap();
                refused(&reply, 401, "with an id token");
                let reply = small.robin.call(method, &path, &body).await.unwrap();
                refused(&reply, 401, "with an admin's signature");
            }
            Who::TicketOrPerson => {
                let reply = api.bearer(method, &path, &guess, &body).await.unwrap();
                refused(&reply, 404, "with another ticket");
                let reply = api.bearer(method, &path, &id_token, &body).await.unwrap();
                refused(&reply, 401, "with an id token");
                let reply = stranger.call(method, &path, &body).await.unwrap();
                refused(&reply, 401, "with a device of nobody");
            }
            Who::Person | Who::Admin | Who::AdminSealed => {
                for bearer in [&job.ticket, &id_token] {
                    let reply = api.bearer(method, &path, bearer, &body).await.unwrap();
                    refused(&reply, 401, "with a bearer");
                }
                let reply = stranger.call(method, &path, &body).await.unwrap();
                refused(&reply, 401, "with a device of nobody");
                // An admin's signature over another call, and one that was sent before.
                for (why, proof) in [
                    ("method", small.robin.proof("PATCH", &path, &bytes)),
                    ("path", small.robin.proof(method, "/v1/inbox?x", &bytes)),
                    (
                        "query",
                        small.robin.proof(method, &format!("{path}?x=1"), &bytes),
                    ),
                    ("body", small.robin.proof(method, &path, b"{\"x\":1}")),
                ] {
                    let proof = proof.unwrap();
                    let headers = [("dpop", proof.as_str())];
                    let reply = api
                        .call(method, &path, &headers, bytes.clone())
                        .await
                        .unwrap();
                    refused(&reply, 401, why);
                }
                let proof = small.robin.proof(method, &path, &bytes).unwrap();
                let forged = signed_by(&stranger.key, &proof);
                let reply = api
                    .call(method, &path, &[("dpop", &forged)], bytes.clone())
                    .await
                    .unwrap();
                refused(&reply, 401, "an admin's call with a stranger's signature");
                let headers = [("dpop", proof.as_str()), ("dpop", proof.as_str())];
                let reply = api
                    .call(method, &path, &headers, bytes.clone())
                    .await
                    .unwrap();
                refused(&reply, 401, "two proofs");
                if route.who != Who::Person {
                    let reply = small.alice.call(method, &path, &body).await.unwrap();
                    refused(&reply, 403, "with the signature of one who is no admin");
                }
            }
        }
    }
    assert_eq!(
        open_to_all,
        [
            "/v1/openapi.json",
            "/v1/status",
            "/v1/enroll",
            "/v1/enroll/unseal"
        ],
        "a new open door?"
    );
    assert!(walked > 25, "{walked}");
    assert_eq!(
        before,
        everything(&small, &job).await,
        "a refused call left a trace"
    );

    // A signed call that was recorded is worth nothing a second time.
    let proof = small.robin.proof("GET", "/v1/admin/people", b"").unwrap();
    let headers = [("dpop", proof.as_str())];
    assert!(
        api.call("GET", "/v1/admin/people", &headers, "")
            .await
            .unwrap()
            .good()
    );
    let again = api
        .call("GET", "/v1/admin/people", &headers, "")
        .await
        .unwrap();
    assert_eq!(again.code(), Some(Code::Unauthenticated), "{}", again.text);

    // A call of another process, of another time, or of another kind, each signed by the admin's own key.
    let proof = small.robin.proof("GET", "/v1/admin/people", b"").unwrap();
    let good = proof.split('.').nth(1).unwrap();
    let good: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(good).unwrap()).unwrap();
    let iat = good["iat"].as_u64().unwrap();
    for (kind, name, value, code) in [
        ("dpop+jwt", "nonce", json!("x"), Some(Code::UseNonce)),
        ("dpop+jwt", "iat", json!(iat - 90), Some(Code::ClockWrong)),
        ("dpop+jwt", "iat", json!(iat + 90), Some(Code::ClockWrong)),
        ("JWT", "jti", json!("kind"), Some(Code::Unauthenticated)),
        ("dpop+jwt", "jti", json!("good"), None),
    ] {
        let mut claims = good.clone();
        claims[name] = value;
        let device = small.robin.key.public().id();
        let proof = small.robin.key.sign_jwt(kind, device.as_str(), &claims);
        let headers = [("dpop", proof.as_str())];
        let reply = api.call("GET", "/v1/admin/people", &headers, "").await;
        let reply = reply.unwrap();
        assert_eq!(reply.code(), code, "{kind} {claims}: {}", reply.text);
    }

    // Methods that no row names, and the head and trailing-slash forms of those that rows name.
    for (method, path) in [
        ("PUT", "/v1/admin/people"),
        ("PATCH", "/v1/admin/tokens"),
        ("HEAD", "/v1/admin/tokens"),
        ("OPTIONS", "/v1/admin/tokens"),
        ("GET", "/v1/admin/tokens/"),
        ("GET", "/v1//admin/tokens"),
        ("GET", "/V1/admin/tokens"),
        ("GET", "/v1/admin%2ftokens"),
        ("POST", "/v1/admin"),
        ("GET", "/metrics"),
    ] {
        let reply = api.call(method, path, &[], "").await.unwrap();
        assert!(
            (400..500).contains(&reply.status),
            "{method} {path}: {}",
            reply.status
        );
    }
}

/// A token of the release job that this CI account started.
async fn third(small: &Small, actor: &str) -> String {
    let account = json!({"actor_id": actor, "actor": "sam"});
    small.token_with(&account).await.unwrap()
}

#[tokio::test]
async fn attack_54_one_projects_flood_does_not_touch_another() {
    let upstream = Upstream::start().await;
    let other = api::policy_of_one()
        .replace("@acme/*", "@other/*")
        .replace("repository_id = 123", "repository_id = 777")
        .replace(
            "    { issuer = \"client-key\", client_key = \"old-ci\" },\n",
            "",
        );
    let second = other.split("\n[[package]]").nth(1).unwrap();
    let policy = format!("{}\n[[package]]{second}", api::policy_of_one());
    let small = Small::over(&upstream.url, TOKEN, &policy).await.unwrap();
    let theirs = json!({"repository_id": "777", "repository": "acme/other",
        "workflow_ref": "acme/other/.github/workflows/release.yml@refs/tags/v1",
        "job_workflow_ref": "acme/other/.github/workflows/release.yml@refs/tags/v1"});
    let open_theirs = async |version: &str| {
        let packed = Packed::new("@other/thing", version).unwrap();
        let token = small.token_with(&theirs).await.unwrap();
        let item = packed.item("latest").unwrap();
        Job::open(&small.daemon, &token, &[item], version)
            .await
            .map(|job| (job, packed))
    };
    let (before, _) = open_theirs("1.0.0").await.unwrap();

    let mut replies = Vec::new();
    for i in 0..115 {
        let token = small.id_token().await.unwrap();
        replies.push(
            small
                .open_raw(&token, &[item(&format!("@acme/flood-{}", i % 5))])
                .await
                .unwrap(),
        );
    }
    let opened = replies.iter().filter(|r| r.good()).count();
    assert_eq!(
        opened, 80,
        "one CI account has 80 of its project's 100 places"
    );
    let busy = replies
        .iter()
        .filter(|r| r.code() == Some(Code::Busy))
        .count();
    assert_eq!(busy, 35, "{}", replies.last().unwrap().text);
    // The flooded project's other people are still heard: the places left are not the thief's.
    let colleague = small
        .token_with(&json!({"actor_id": "8", "actor": "sam"}))
        .await
        .unwrap();
    let own = small
        .open_raw(&colleague, &[item("@acme/real")])
        .await
        .unwrap();
    assert!(own.good(), "{}", own.text);

    // Up to the project's own hundred, whoever asks.
    for n in 0..20 {
        let reply = small
            .open_raw(
                &third(&small, "9").await,
                &[item(&format!("@acme/more-{n}"))],
            )
            .await
            .unwrap();
        let code = (n == 19).then_some(Code::Busy);
        assert_eq!(reply.code(), code, "{n}: {}", reply.text);
    }

    // The other project: what waited still waits, and what comes after is heard.
    assert_eq!(before.state().await.unwrap(), "pending");
    let began = std::time::Instant::now();
    let (after, packed) = open_theirs("1.0.1").await.unwrap();
    let inbox: Value = small.alice.inbox().await.unwrap().ok().unwrap();
    let listed: Vec<_> = inbox["requests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["id"].clone())
        .collect();
    for job in [&before, &after] {
        assert!(
            listed.contains(&json!(job.id.to_string())),
            "not in an inbox of {}",
            listed.len()
        );
    }
    assert!(small.bob.deny(&before).await.unwrap().good());
    assert!(small.alice.approve(&after).await.unwrap().good());
    assert!(began.elapsed().as_secs() < 4, "{:?}", began.elapsed());
    // One account has 30 of its package's 40 places; it holds one already.
    for n in 0..30 {
        let opened = open_theirs(&format!("2.0.{n}")).await;
        assert_eq!(opened.is_ok(), n < 29, "{n}");
    }
    let credential = after.credential().await.unwrap();
    let document = packed.document("latest").unwrap();
    let reply = small
        .endpoint()
        .unwrap()
        .put("@other/thing", &credential, document)
        .await
        .unwrap();
    assert!(reply.good(), "{}", reply.text);
}

#[tokio::test]
async fn attack_54_a_stolen_client_key_does_not_use_up_a_packages_places() {
    let upstream = Upstream::start().await;
    let small = Small::over(&upstream.url, TOKEN, api::POLICY)
        .await
        .unwrap();
    let key = DeviceKey::from_seed(api::random().unwrap()).unwrap();
    let added = small
        .robin
        .add_client_key("old-ci", &key, &["npm:@acme/left"]);
    assert!(added.await.unwrap().good());
    let mut busy = 0;
    for _ in 0..50 {
        let token = api::client_key_token(&key, "old-ci", &small.daemon.url, &json!({})).unwrap();
        let reply = small.open_raw(&token, &[item("@acme/left")]).await.unwrap();
        busy += usize::from(reply.code() == Some(Code::Busy));
    }
    assert_eq!(busy, 10);
    // The same package, asked for by the project that owns it.
    let job = small.open(&[item("@acme/left")]).await.unwrap();
    small.approve(&job).await.unwrap();
    assert_eq!(job.state().await.unwrap(), "approved");
    assert_eq!(small.waiting().await.unwrap(), 0, "its rivals have ended");
}
