//! `/v1/openapi.json` says what the running daemon serves, no more and no less.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use broker::http::{
    openapi,
    routes::{self, Who},
};
use reqwest::Method;
use serde_json::Value;
use stand::{daemon::Daemon, http, team::POLICY};
use std::collections::BTreeSet;

#[tokio::test]
async fn the_description_and_the_daemon_have_the_same_routes_and_ask_for_the_same_proof() {
    let daemon = Daemon::builder().policy(POLICY).start().await.unwrap();
    let client = http().unwrap();
    let url = format!("{}/v1/openapi.json", daemon.url);
    let reply = client.get(url).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    let document: Value = reply.json().await.unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["servers"][0]["url"], daemon.url.as_str());

    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let upper = method.to_ascii_uppercase();
            described.insert((upper.clone(), path.clone()));
            assert!(
                operation["summary"].as_str().unwrap().ends_with('.'),
                "{path}"
            );
            let parameters = operation["parameters"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let in_path: Vec<_> = parameters.iter().filter(|p| p["in"] == "path").collect();
            assert_eq!(in_path.len(), path.matches('{').count(), "{path}");
            for p in in_path {
                assert!(path.contains(&format!("{{{}}}", p["name"].as_str().unwrap())));
            }
            // What it says about proof is what the daemon demands of a call without any.
            let id = "01900000-0000-7000-8000-000000000001";
            let real = path
                .replace("{id}", id)
                .replace("{person}", "p")
                .replace("{name}", "n")
                .replace("{level}", "0")
                .replace("{tile}", "000.p/1");
            let method = Method::from_bytes(upper.as_bytes()).unwrap();
            let call = client.request(method, format!("{}{real}", daemon.url));
            let status = call.send().await.unwrap().status().as_u16();
            let open = operation["security"].as_array().unwrap().is_empty();
            assert_eq!(status == 401, !open, "{upper} {path}: {status}");
            assert_ne!(status, 404, "{upper} {path}");
            assert_ne!(status, 405, "{upper} {path}");
        }
    }
    let served: BTreeSet<_> = routes::table()
        .iter()
        .map(|r| (r.method.to_string(), openapi::plain(r.path)))
        .collect();
    assert_eq!(described, served);
    // The schemes that are named are there, and each kind of caller has its own.
    let schemes = document["components"]["securitySchemes"]
        .as_object()
        .unwrap();
    for route in routes::table() {
        let method = route.method.as_str().to_ascii_lowercase();
        let path = openapi::plain(route.path);
        let security = &document["paths"][path][&method]["security"];
        let names: Vec<&String> = security
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|s| s.as_object().unwrap().keys())
            .collect();
        assert!(names.iter().all(|n| schemes.contains_key(*n)));
        let wanted: &[&str] = match route.who {
            Who::Anyone => &[],
            Who::Caller => &["idToken"],
            Who::Ticket => &["ticket"],
            Who::TicketOrPerson => &["ticket", "device"],
            Who::Person | Who::Admin | Who::AdminSealed => &["device"],
        };
        assert_eq!(names, wanted, "{}", route.path);
    }
}
