//! Kubernetes: what the claims of a service account's bound token mean.
//!
//! A name can be made again in its namespace by somebody else, so the service account's UID is what
//! identifies. Which person started the pod no claim says. The key set of a cluster speaks for every
//! service account in it: whoever may ask the cluster for tokens (`create` on `serviceaccounts/token`)
//! is trusted like the job.

use super::{
    issuer::IssuerConfig,
    kinds::{Mapped, Once, Row},
    refused::CallerRefused,
    shape::{NAME_MAX, is_uuid, missing},
    token::UnverifiedClaims,
};
use proto::request::CallerFacts;
use std::collections::BTreeMap;

pub(super) const ROW: Row = Row {
    // The kubelet asks for an hour unless the volume says otherwise, and never for less than ten minutes.
    life: 60 * 60 + 10,
    audience_list: true,
    once: Once::Jti,
    server: None,
    facts,
};

fn facts(claims: &UnverifiedClaims, config: &IssuerConfig) -> Mapped {
    let required = |path: &'static [&'static str]| {
        claims
            .nested(path, NAME_MAX)?
            .ok_or_else(|| CallerRefused::ClaimMissing(path.join(".").into()))
    };
    let namespace = required(&["kubernetes.io", "namespace"])?;
    let name = required(&["kubernetes.io", "serviceaccount", "name"])?;
    let uid = required(&["kubernetes.io", "serviceaccount", "uid"])?;
    if !is_uuid(&uid) {
        return Err(missing("kubernetes.io.serviceaccount.uid"));
    }
    // A token that says two names is nobody's.
    if claims.sub != format!("system:serviceaccount:{namespace}:{name}") {
        return Err(missing("sub"));
    }
    let mut map = BTreeMap::from([
        ("service_account_uid", uid.clone()),
        ("namespace", namespace),
        ("service_account", name),
    ]);
    let more: [(&str, &[&str]); 4] = [
        ("pod", &["kubernetes.io", "pod", "name"]),
        ("pod_uid", &["kubernetes.io", "pod", "uid"]),
        ("node", &["kubernetes.io", "node", "name"]),
        ("node_uid", &["kubernetes.io", "node", "uid"]),
    ];
    for (fact, path) in more {
        if let Some(value) = claims.nested(path, NAME_MAX)? {
            map.insert(fact, value);
        }
    }
    let facts = CallerFacts {
        issuer: config.name.clone(),
        subject: uid,
        claims: map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        run_url: None,
    };
    Ok((facts, None))
}
