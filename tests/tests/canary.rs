//! Canaries: a whole publish and many refusals, and then every file, log, reply and process is searched.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use proto::digest::hex;
use serde_json::json;
use stand::{parts::github_claims, people::random, team::Team};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// What a text, or a piece of it, looks like in the forms in which it might leak.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let mut forms: Vec<Vec<u8>> = vec![
        bytes.to_vec(),
        bytes.iter().rev().copied().collect(),
        hex(bytes).into_bytes(),
        hex(bytes).to_uppercase().into_bytes(),
        bytes
            .iter()
            .flat_map(|b| format!("%{b:02x}").into_bytes())
            .collect(),
        bytes
            .iter()
            .flat_map(|b| format!("%{b:02X}").into_bytes())
            .collect(),
        bytes
            .iter()
            .flat_map(|b| format!("{b}, ").into_bytes())
            .collect(),
        bytes.iter().flat_map(|b| [*b, 0]).collect(),
    ];
    // Base64 of a text that contains the secret differs by where in a group of three it begins; the
    // outermost characters depend on the neighbours.
    for skip in 0..3 {
        let padded = [&b"xx"[..skip], bytes].concat();
        for text in [
            STANDARD_NO_PAD.encode(&padded),
            URL_SAFE_NO_PAD.encode(&padded),
        ] {
            let inner = text.get(if skip == 0 { 0 } else { 4 }..text.len() - 2);
            forms.push(inner.unwrap_or_default().as_bytes().to_vec());
        }
    }
    forms
}

/// The forms of the whole and of its halves: half a token in a log is a leak too.
fn all_forms(secret: &str) -> Vec<Vec<u8>> {
    let (head, tail) = secret.split_at(secret.len() / 2);
    let mut all = forms(secret);
    for part in [head, tail] {
        // The head of a JWT is the same for everybody.
        if part.len() >= 16 && !part.starts_with("eyJ") {
            all.extend(forms(part));
        }
    }
    all
}

fn holds(text: &[u8], secret: &str) -> bool {
    let text = String::from_utf8_lossy(text);
    all_forms(secret)
        .iter()
        .any(|form| text.contains(String::from_utf8_lossy(form).as_ref()))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn the_search_finds_every_form() {
    let secret = "npm_Canary0Canary1Canary2Canary3Canary4";
    for form in [
        secret.to_owned(),
        format!("{{\"token\":\"{secret}\"}}"),
        secret.chars().rev().collect(),
        hex(secret.as_bytes()),
        STANDARD_NO_PAD.encode(format!("user:{secret}")),
        URL_SAFE_NO_PAD.encode(format!("x{secret}y")),
        secret[secret.len() / 2..].to_owned(),
    ] {
        assert!(holds(form.as_bytes(), secret), "{form}");
    }
    assert!(!holds(b"npm_Canary", secret));
}

/// What the child of a publish dumps of itself: environment and arguments.
const DUMP: &str = r#"
tr '\0' '\n' < /proc/$$/environ > "$1/child.environ"
tr '\0' '\n' < /proc/$$/cmdline > "$1/child.cmdline"
cat "$npm_config_userconfig" > "$1/child.npmrc"
npm publish "$2" --ignore-scripts --loglevel silly --logs-dir "$1/npm-logs" &
npm=$!
sleep 0.15
tr '\0' '\n' < /proc/$npm/cmdline > "$1/npm.cmdline"
tr '\0' '\n' < /proc/$npm/environ > "$1/npm.environ"
wait $npm
"#;

#[tokio::test]
async fn attack_41_no_secret_leaves_its_place_in_a_publish_and_many_refusals() {
    let mut team = Team::start().await.unwrap();
    let token = team.registry.token.clone();
    let seen = team.folder().join("seen");
    fs::create_dir(&seen).unwrap();
    let keep = |name: &str, text: &str| fs::write(seen.join(name), text).unwrap();
    fs::remove_file(team.folder().join("token")).unwrap();

    // A whole publish, whose child tells what it was given.
    let dir = team.package("@acme/left", "1.4.2").unwrap();
    let shown = dir.display().to_string();
    let pack = ["pack", "--pack-destination", &seen.display().to_string()].map(str::to_owned);
    let minute = Duration::from_mins(1);
    stand::run("npm", &pack, &[], &dir, minute)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let tarball = seen.join("acme-left-1.4.2.tgz").display().to_string();
    let script = seen.join("dump.sh");
    fs::write(&script, DUMP).unwrap();
    let (script, out) = (script.display().to_string(), seen.display().to_string());
    let id_token = team.id_token().await.unwrap();
    let env = [
        ("COUNTERSIGN_ID_TOKEN", id_token.as_str()),
        (
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
            "actions-canary-0123456789abcdef",
        ),
    ];
    let args = [tarball.as_str(), "--", "sh", &script, &out, &tarball];
    let mut job = team.publish_as(&args, &env).await.unwrap();
    team.approve_both(&job).await.unwrap();
    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    assert!(
        team.registry
            .integrity("@acme/left", "1.4.2")
            .await
            .unwrap()
            .is_some()
    );
    let npmrc = fs::read_to_string(seen.join("child.npmrc")).unwrap();
    let credential = npmrc
        .split("_authToken=")
        .nth(1)
        .and_then(|t| t.split_whitespace().next())
        .unwrap()
        .to_owned();
    assert!(credential.starts_with("csc_"));
    let settings = fs::read_to_string(seen.join("child.environ")).unwrap();
    let settings = settings
        .lines()
        .find_map(|l| l.strip_prefix("npm_config_userconfig="))
        .unwrap()
        .to_owned();
    assert!(
        !Path::new(&settings).exists(),
        "the temporary settings stay on the disk"
    );

    // Refusals of all kinds, each with a secret in the wrong place.
    let ticket_file = team.folder().join("request.json").display().to_string();
    let next = team
        .package("@acme/next", "1.0.0")
        .unwrap()
        .display()
        .to_string();
    let request = ["request", "npm", &next, "--out", &ticket_file];
    let fresh = team.id_token().await.unwrap();
    let asked = [("COUNTERSIGN_ID_TOKEN", fresh.as_str())];
    team.run(&team.admin, &request, &asked)
        .await
        .unwrap()
        .ok()
        .unwrap();
    let session: serde_json::Value =
        serde_json::from_slice(&fs::read(&ticket_file).unwrap()).unwrap();
    let ticket = session["secrets"]["ticket"].as_str().unwrap().to_owned();
    let job_key = session["secrets"]["job_key"].as_str().unwrap().to_owned();
    fs::remove_file(&ticket_file).unwrap();
    let id = session["id"].as_str().unwrap();

    let again = ["request", "npm", &shown, "--out", &ticket_file];
    let replayed = team.run(&team.admin, &again, &asked).await.unwrap();
    assert!(!replayed.success());
    keep("replayed", &replayed.to_string());
    let mut claims = github_claims(&team.daemon.url);
    claims["repository_id"] = json!("999");
    let foreign = team.issuer.mint(claims).await.unwrap();
    let env = [("COUNTERSIGN_ID_TOKEN", foreign.as_str())];
    let out = team.run(&team.admin, &again, &env).await.unwrap();
    keep("foreign", &out.to_string());
    let (status, body) = (reqwest::Method::GET, reqwest::Method::POST);
    let http = stand::http().unwrap();
    let broker = &team.daemon.url;
    let registry = &team.daemon.registry_url;
    let invite =
        proto::bearer::Bearer::from_entropy(proto::bearer::Kind::Invite, random().unwrap())
            .expose();
    let calls = [
        (
            status.clone(),
            format!("{broker}/v1/requests/{id}"),
            ticket.clone(),
            String::new(),
        ),
        (
            body.clone(),
            format!("{broker}/v1/requests/{id}/collect"),
            ticket.clone(),
            String::new(),
        ),
        (
            body.clone(),
            format!("{broker}/v1/requests/{id}/collect"),
            credential.clone(),
            String::new(),
        ),
        (
            body.clone(),
            format!("{broker}/v1/requests"),
            foreign.clone(),
            format!("{{\"note\": \"{token}\"}}"),
        ),
        (
            body.clone(),
            format!("{broker}/v1/requests"),
            token.clone(),
            "{".into(),
        ),
        (
            body.clone(),
            format!("{broker}/v1/enroll"),
            String::new(),
            json!({"invite": invite}).to_string(),
        ),
        (
            body.clone(),
            format!("{broker}/v1/enroll"),
            String::new(),
            format!("{{\"invite\": {invite}"),
        ),
        (
            body.clone(),
            format!("{broker}/v1/admin/acts"),
            token.clone(),
            json!({"token": token}).to_string(),
        ),
        (
            body,
            format!("{broker}/v1/admin/unseal"),
            String::new(),
            json!({"passphrase": token}).to_string(),
        ),
        (
            status.clone(),
            format!("{broker}/nowhere?token={token}"),
            token.clone(),
            String::new(),
        ),
        (
            status.clone(),
            format!("{broker}/metrics"),
            String::new(),
            String::new(),
        ),
        (
            status.clone(),
            format!("{}/metrics", team.daemon.operations_url),
            String::new(),
            String::new(),
        ),
        (
            reqwest::Method::PUT,
            format!("{registry}/@acme%2fleft"),
            credential.clone(),
            "{}".into(),
        ),
        (
            reqwest::Method::PUT,
            format!("{registry}/@acme%2fleft"),
            token.clone(),
            format!("{{\"x\": \"{token}\"}}"),
        ),
        (
            reqwest::Method::PUT,
            format!("{registry}/@acme%2fother"),
            credential.clone(),
            "{}".into(),
        ),
        (
            reqwest::Method::DELETE,
            format!("{registry}/@acme%2fleft/-rev/1"),
            credential.clone(),
            String::new(),
        ),
        (
            status.clone(),
            format!("{registry}/-/whoami"),
            credential.clone(),
            String::new(),
        ),
        (
            status,
            format!("{registry}/@acme%2fleft"),
            credential.clone(),
            String::new(),
        ),
    ];
    for (n, (method, url, bearer, body)) in calls.into_iter().enumerate() {
        let reply = http
            .request(method, url)
            .bearer_auth(bearer)
            .body(body)
            .send()
            .await
            .unwrap();
        let head = format!("{} {:?}\n", reply.status(), reply.headers());
        keep(
            &format!("reply-{n}"),
            &(head + &reply.text().await.unwrap()),
        );
    }
    // What admins look at, and the whole log.
    for (n, args) in [
        &["--json", "admin", "token", "list"][..],
        &["--json", "admin", "people"],
        &["--json", "admin", "status"],
        &["admin", "token", "check", "npm", "*"],
        &[
            "admin",
            "audit",
            "export",
            "--out",
            &seen.join("log.jsonl").display().to_string(),
        ],
        &["inbox"],
        &["show", id],
        &["approve", id, "--match-code", "000000", "--totp", "000000"],
    ]
    .iter()
    .enumerate()
    {
        let out = team.run(&team.admin, args, &[]).await.unwrap();
        keep(&format!("admin-{n}"), &out.to_string());
    }
    keep("job", &job.text());
    let wrong = [("COUNTERSIGN_PASSPHRASE", "not-the-passphrase")];
    let out = team.run(&team.admin, &["inbox"], &wrong).await.unwrap();
    assert!(!out.success());
    keep("passphrase", &out.to_string());
    let first_invite = fs::read_to_string(team.daemon.invite_path()).unwrap();
    fs::remove_file(team.daemon.invite_path()).unwrap();
    let seeds: Vec<String> = team
        .maintainers
        .iter()
        .chain([&team.admin])
        .map(|p| {
            let url = fs::read_to_string(p.totp()).unwrap();
            let seed = url
                .split("secret=")
                .nth(1)
                .unwrap()
                .split(['&', '\n'])
                .next()
                .unwrap();
            seed.to_owned()
        })
        .collect();
    let unseal = fs::read_to_string(team.daemon.dir().join("unseal.age")).unwrap();
    // The daemon's own environment and arguments, while it runs.
    let pid = team.daemon.id().unwrap();
    for part in ["cmdline", "environ"] {
        // A process that cannot be dumped shows its environment to root alone.
        let bytes = fs::read(format!("/proc/{pid}/{part}")).unwrap_or_default();
        fs::write(seen.join(format!("daemon.{part}")), bytes).unwrap();
    }
    team.daemon.terminate().await.unwrap();

    // The search: what may lie where.
    let mut everywhere = Vec::new();
    files(team.daemon.dir(), &mut everywhere);
    files(team.folder(), &mut everywhere);
    let logs = everywhere
        .iter()
        .filter(|p| p.to_string_lossy().contains("npm-logs"));
    assert!(logs.count() > 0, "npm wrote a debug log");
    assert!(everywhere.iter().any(|p| p.ends_with("data/live.redb")));
    assert!(everywhere.iter().any(|p| p.ends_with("seen/log.jsonl")));
    assert!(everywhere.len() > 30);
    let mut secrets = vec![
        ("registry token", token.clone(), &[][..]),
        (
            "credential",
            credential,
            &["child.npmrc", "child.environ", "npm.environ"],
        ),
        ("ticket", ticket, &[]),
        ("job key", job_key, &[]),
        ("id token", id_token, &[]),
        ("id token", fresh, &[]),
        ("id token", foreign, &[]),
        (
            "right to ask for id tokens",
            "actions-canary-0123456789abcdef".into(),
            &[],
        ),
        ("invite", first_invite.trim().into(), &[]),
        ("unknown invite", invite, &[]),
        ("device passphrase", "canary-device-passphrase".into(), &[]),
        ("unseal identity", unseal.trim().into(), &["unseal.age"]),
    ];
    secrets.extend(
        seeds
            .into_iter()
            .map(|seed| ("TOTP seed", seed, &["totp.txt"][..])),
    );
    for path in &everywhere {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let bytes = fs::read(path).unwrap();
        for (what, secret, allowed) in &secrets {
            assert!(secret.len() >= 16, "{what} is too short to be searched for");
            if !allowed.contains(&name.as_ref()) {
                assert!(!holds(&bytes, secret), "{what} in {}", path.display());
            }
        }
    }
    // It is in the one place where it belongs to: the child that publishes has the credential alone.
    let child = fs::read_to_string(seen.join("child.environ")).unwrap();
    for line in child.lines() {
        let name = line.split('=').next().unwrap_or_default();
        assert!(
            !name.starts_with("COUNTERSIGN_") && !name.starts_with("ACTIONS_ID_TOKEN_"),
            "{name}"
        );
    }
    assert!(
        !fs::read_to_string(seen.join("npm.cmdline"))
            .unwrap()
            .contains("csc_")
    );
    drop(team);
}
