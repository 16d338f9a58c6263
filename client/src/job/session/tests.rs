use super::*;

#[test]
fn every_end_but_success_has_its_exit_code() {
    let status = |state| Status {
        id: "00000000-0000-7000-8000-000000000001".parse().unwrap(),
        state,
        revision: 1,
        approvals: 0,
        quorum: 1,
        expires: UnixTime(0),
        reason: Some("bob: no\u{1b}[2J".into()),
        not_before: None,
        items: vec![],
    };
    for (state, exit) in [
        (StateName::Denied, 3),
        (StateName::Expired, 4),
        (StateName::Cancelled, 4),
        (StateName::Conflict, 7),
    ] {
        let f = ended(status(state)).unwrap_err();
        assert_eq!(f.exit as u8, exit);
        assert!(f.what.contains("bob: no") && !f.what.contains('\u{1b}'));
    }
    assert!(ended(status(StateName::Approved)).is_ok());
}
