use super::*;
use std::convert::Infallible;

fn leaves(n: u64) -> Vec<TreeHash> {
    (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

/// MTH of RFC 6962 §2.1, word for word.
fn mth(d: &[TreeHash]) -> TreeHash {
    match d {
        [] => empty_root(),
        [one] => *one,
        _ => {
            let k = usize::try_from(split(d.len() as u64)).unwrap();
            node_hash(&mth(&d[..k]), &mth(&d[k..]))
        }
    }
}

fn proof(plan: &[Range<u64>], d: &[TreeHash]) -> Vec<TreeHash> {
    prove::<Infallible>(plan, |n| {
        let start = usize::try_from(n.index << n.level).unwrap();
        Ok(mth(&d[start..start + (1 << n.level)]))
    })
    .unwrap()
}

#[test]
fn roots_and_proofs_of_all_small_trees_verify() {
    for n in 0..40u64 {
        let d = leaves(n);
        assert_eq!(root(&d), mth(&d), "{n}");
        for i in 0..n {
            let p = proof(&inclusion_plan(i, n).unwrap(), &d);
            let leaf = &d[usize::try_from(i).unwrap()];
            assert!(verify_inclusion(leaf, i, n, &mth(&d), &p), "{i} of {n}");
            for j in (0..n).filter(|j| *j != i) {
                assert!(
                    !verify_inclusion(leaf, j, n, &mth(&d), &p),
                    "{i}/{j} of {n}"
                );
            }
        }
        assert!(inclusion_plan(n, n).is_none());
        for m in 0..=n {
            let old = mth(&d[..usize::try_from(m).unwrap()]);
            let p = proof(&consistency_plan(m, n).unwrap(), &d);
            assert!(
                verify_consistency((m, &old), (n, &mth(&d)), &p),
                "{m} to {n}"
            );
        }
        assert!(consistency_plan(n + 1, n).is_none());
    }
}

#[test]
fn attack_45_a_rewritten_or_shortened_log_has_no_consistency_proof() {
    for n in 2..20u64 {
        let d = leaves(n);
        for m in 1..n {
            let m_len = usize::try_from(m).unwrap();
            let mut other = d.clone();
            other[m_len - 1] = leaf_hash(b"rewritten");
            let (old, new) = (mth(&other[..m_len]), mth(&d));
            let p = proof(&consistency_plan(m, n).unwrap(), &d);
            assert!(!verify_consistency((m, &old), (n, &new), &p));
            assert!(!verify_consistency((n, &new), (m, &mth(&d[..m_len])), &p));
            let mut long = p.clone();
            long.push(new);
            let fine = mth(&d[..m_len]);
            assert!(!verify_consistency((m, &fine), (n, &new), &long));
            for cut in 0..p.len() {
                assert!(!verify_consistency((m, &fine), (n, &new), &p[..cut]));
            }
        }
    }
}

#[test]
fn a_frontier_survives_storing_and_a_torn_one_is_refused() {
    let mut f = Frontier::default();
    for (i, leaf) in leaves(100).into_iter().enumerate() {
        let text = serde_json::to_string(&f).unwrap();
        f = serde_json::from_str(&text).unwrap();
        f.push(leaf);
        assert_eq!(f.size(), i as u64 + 1);
        assert!(f.peaks.len() <= 7);
    }
    assert_eq!(f.root(), mth(&leaves(100)));
    let torn = serde_json::to_string(&f).unwrap().replace("100", "101");
    assert!(serde_json::from_str::<Frontier>(&torn).is_err());
}
