//! The shared vectors in `proto/vectors`: other programs compute the same bytes independently, so
//! a change here breaks every receipt and every approval that exists.

use super::merkle::{
    TreeHash, consistency_plan, inclusion_plan, leaf_hash, prove, root, verify_consistency,
    verify_inclusion,
};
use crate::{
    digest::{hex, unhex},
    request::{RequestDigest, RequestFacts},
};
use serde::Deserialize;
use std::convert::Infallible;

#[derive(Deserialize)]
struct Merkle {
    leaves: Vec<String>,
    roots: Vec<TreeHash>,
    inclusion: Vec<Inclusion>,
    consistency: Vec<Consistency>,
}

#[derive(Deserialize)]
struct Inclusion {
    index: usize,
    size: usize,
    proof: Vec<TreeHash>,
}

#[derive(Deserialize)]
struct Consistency {
    from: usize,
    to: usize,
    proof: Vec<TreeHash>,
}

#[test]
fn the_tree_is_the_one_of_rfc_6962() {
    let v: Merkle = serde_json::from_str(include_str!("../../vectors/merkle.json")).unwrap();
    let leaves: Vec<_> = v
        .leaves
        .iter()
        .map(|l| leaf_hash(&unhex(l).unwrap()))
        .collect();
    let node = |n: super::merkle::Node| {
        let start = usize::try_from(n.index << n.level).unwrap();
        Ok::<_, Infallible>(root(&leaves[start..start + (1 << n.level)]))
    };
    assert_eq!(v.roots.len(), leaves.len() + 1);
    for (n, expected) in v.roots.iter().enumerate() {
        assert_eq!(root(&leaves[..n]), *expected, "{n}");
    }
    for Inclusion { index, size, proof } in &v.inclusion {
        let (i, n) = (*index as u64, *size as u64);
        let ours = prove(&inclusion_plan(i, n).unwrap(), node).unwrap();
        assert_eq!(ours, *proof);
        assert!(verify_inclusion(
            &leaves[*index],
            i,
            n,
            &v.roots[*size],
            proof
        ));
    }
    for Consistency { from, to, proof } in &v.consistency {
        let (m, n) = (*from as u64, *to as u64);
        let ours = prove(&consistency_plan(m, n).unwrap(), node).unwrap();
        assert_eq!(ours, *proof);
        assert!(verify_consistency(
            (m, &v.roots[*from]),
            (n, &v.roots[*to]),
            proof
        ));
    }
}

#[derive(Deserialize)]
struct Request {
    facts: RequestFacts,
    canonical: String,
    digest: RequestDigest,
}

#[derive(Deserialize)]
struct Requests {
    vectors: Vec<Request>,
}

#[test]
fn the_request_digest_is_the_pinned_one() {
    let v: Requests = serde_json::from_str(include_str!("../../vectors/request.json")).unwrap();
    assert!(v.vectors.len() >= 2);
    for vector in v.vectors {
        assert_eq!(hex(&vector.facts.canonical()), vector.canonical);
        assert_eq!(vector.facts.digest(), vector.digest);
    }
}
