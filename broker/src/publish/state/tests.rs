use super::*;
use proto::{
    bearer::BearerHash,
    digest::Algorithm,
    request::{CallerFacts, File, Item},
};

const NOW: UnixTime = UnixTime(1_000_000);

fn digest(of: &str) -> Digest {
    Digest::of(Algorithm::Sha256, of.as_bytes())
}

fn at(item: usize, file: usize) -> FileAt {
    FileAt { item, file }
}

/// `one` with two files and `two` with one; the credential is out.
fn releasing() -> Record {
    let file = |name: &str| File {
        name: name.into(),
        size: 1,
        digest: digest(name),
    };
    let item = |package: &str, files: &[&str]| Item {
        registry: "npm".parse().unwrap(),
        package: package.parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        tag: None,
        files: files.iter().map(|f| file(f)).collect(),
    };
    let facts = RequestFacts {
        id: "0198c0de-0000-7000-8000-000000000001".parse().unwrap(),
        items: vec![item("one", &["a", "b"]), item("two", &["c"])],
        caller: CallerFacts {
            issuer: "github".into(),
            subject: "1".into(),
            claims: BTreeMap::new(),
            run_url: None,
        },
        policy: digest("policy"),
        job_key: String::new(),
        expires: NOW,
    };
    let record = Record {
        digest: facts.digest(),
        facts,
        opened: NOW,
        note: None,
        actor: None,
        limits: None,
        ticket: String::new(),
        credential: None,
        idempotency: String::new(),
        quorum: 1,
        factors: vec![],
        answers_seconds: 60,
        mode: Mode::Forward,
        mint_seconds: 0,
        terms: Terms::default(),
        approved: None,
        collected: None,
        intents: Vec::new(),
        bound: String::new(),
        leaf_from: None,
        unclear: BTreeSet::new(),
        told: false,
        sent_with: Vec::new(),
        stopped: None,
        revision: 1,
        state: State::Approved {
            evidence: vec![],
            collect_by: NOW.after(60),
            later: None,
        },
    };
    after(record.collect(BearerHash([0; 32]), "sealed".into(), NOW))
}

fn after(step: Result<Step, NotFrom>) -> Record {
    step.unwrap().into_parts().0
}

#[test]
fn a_release_is_published_when_its_last_file_is() {
    let mut record = releasing();
    assert_eq!(record.files().count(), 3);
    for (place, name) in [(at(0, 1), "b"), (at(1, 0), "c")] {
        record = after(record.sending(place, NOW));
        record = after(record.shows(place, digest(name)));
        assert_eq!(record.name(), StateName::Releasing);
    }
    let told = record.status().items;
    assert_eq!(told[0].state, StateName::Releasing);
    assert_eq!(told[0].files[1].read_back, Some(digest("b")));
    assert_eq!(told[1].state, StateName::Published);
    let (record, events) = record.shows(at(0, 0), digest("a")).unwrap().into_parts();
    assert_eq!(record.name(), StateName::Published);
    let Some(Event::RequestPublished { items, .. }) = events.last() else {
        panic!("{events:?}");
    };
    assert_eq!(items[0].read_back, [digest("a"), digest("b")]);
    let told = record.status().items;
    assert_eq!(told[0].files[0].read_back, Some(digest("a")));
    assert!(record.sending(at(0, 0), NOW).is_err());
}

/// What left for another file is read back before the request is final, and nothing more leaves.
#[test]
fn a_conflict_waits_for_what_is_on_its_way() {
    let mut record = releasing();
    record = after(record.sending(at(0, 0), NOW));
    record = after(record.shows(at(1, 0), digest("evil")));
    assert_eq!(record.name(), StateName::Releasing);
    assert!(record.clone().sending(at(0, 1), NOW).is_err());
    assert_eq!(record.status().items[1].state, StateName::Conflict);
    record = after(record.unclear(at(0, 0), NOW));
    assert_eq!(record.name(), StateName::Settling);
    record = after(record.shows(at(0, 0), digest("a")));
    assert_eq!(record.name(), StateName::Conflict);
    let told = record.status().items;
    assert_eq!(told[0].files[0].state, StateName::Published);
    assert_eq!(told[0].files[0].read_back, Some(digest("a")));
    assert_eq!(told[1].files[0].read_back, Some(digest("evil")));
    // The other way round: nothing came of it.
    let mut record = after(releasing().sending(at(0, 0), NOW));
    record = after(record.shows(at(1, 0), digest("evil")));
    record = after(record.absent(at(0, 0), None));
    assert_eq!(record.name(), StateName::Conflict);
}

#[test]
fn what_was_published_of_a_batch_stays_told_when_its_time_is_over() {
    let mut record = after(releasing().sending(at(1, 0), NOW));
    record = after(record.shows(at(1, 0), digest("c")));
    let late = NOW.after(CREDENTIAL_SECONDS);
    assert!(record.clone().expire(NOW).is_err());
    record = after(record.expire(late));
    assert_eq!(record.name(), StateName::Expired);
    let told = record.status().items;
    assert_eq!(told[1].state, StateName::Published);
    assert_eq!(told[1].files[0].read_back, Some(digest("c")));
    assert_eq!(told[0].state, StateName::Expired);
}

#[test]
fn other_bytes_in_the_place_of_any_file_are_a_conflict() {
    for file in [at(0, 0), at(0, 1), at(1, 0)] {
        // Another approved file's digest is still the wrong one here.
        let other = if file == at(0, 0) { "b" } else { "a" };
        let record = after(releasing().shows(file, digest(other)));
        assert_eq!(record.name(), StateName::Conflict, "{file:?}");
    }
    assert!(releasing().shows(at(0, 2), digest("a")).is_err());
    assert!(releasing().sending(at(2, 0), NOW).is_err());
}

#[test]
fn a_hold_has_one_deadline_and_ends_as_people_and_clocks_say() {
    let stage: StageId = "stage-1".parse().unwrap();
    let sent = releasing().sending(at(0, 0), NOW).unwrap().record;
    // Nothing was sent yet, so nothing can be held back.
    assert!(releasing().hold(at(0, 0), None, NOW).is_err());
    let step = sent.hold(at(0, 0), Some(stage.clone()), NOW).unwrap();
    assert!(matches!(step.events.as_slice(), [Event::Staged { .. }]));
    let held = step.record;
    assert_eq!(held.name(), StateName::Confirming);
    let until = NOW.after(FACTOR_SECONDS);
    assert_eq!(held.expires(), until);
    assert!(held.withheld() && !held.overdue(UnixTime(until.0 - 1)));

    // Asked again later: the stage is kept, and the time does not begin anew.
    let later = NOW.after(600);
    let again = held.clone().sending(at(0, 0), later).unwrap().record;
    assert!(!again.withheld(), "a word is on its way");
    let step = again.clone().hold(at(0, 0), None, later).unwrap();
    assert!(matches!(
        step.events.as_slice(),
        [Event::FactorAsked { .. }]
    ));
    let hold = step.record.held()[0].1.clone();
    assert_eq!((hold.until, hold.stage), (until, Some(stage)));
    // Its outcome was lost: back to where it was, with the stage; a no leaves it to people.
    let unclear = again.unclear(at(0, 0), later).unwrap().record;
    let back = unclear.clone().absent(at(0, 0), None).unwrap().record;
    assert_eq!(back.name(), StateName::Confirming);
    let no = unclear.absent(at(0, 0), Some("403".into())).unwrap().record;
    assert_eq!(no.name(), StateName::Releasing);

    // Denied while it is held back, or nobody came in time.
    let denied = held.clone().deny(None, None, DenyCause::Rejected).unwrap();
    assert_eq!(denied.record.name(), StateName::Denied);
    assert!(held.clone().expire(UnixTime(until.0 - 1)).is_err());
    let expired = held.clone().expire(until).unwrap().record.status();
    let reason = expired.reason.unwrap();
    assert!(
        reason.contains("in time") && reason.contains("stage-1"),
        "{reason}"
    );

    // Other bytes end it, and what is published is published.
    let conflict = held.clone().shows(at(0, 0), digest("evil")).unwrap();
    assert_eq!(conflict.record.name(), StateName::Conflict);
    let one = held.shows(at(0, 0), digest("a")).unwrap().record;
    assert!(!one.withheld() && one.clone().deny(None, None, DenyCause::Person).is_err());
    // A stored row of before stages existed reads as it stood.
    let old = r#"{"is":"sending","attempt":1,"since":5}"#;
    let read: Progress = serde_json::from_str(old).unwrap();
    assert_eq!(read.hold(), None);
    assert_eq!(serde_json::to_string(&read).unwrap(), old);
}

/// What the registry shows is a yes to the token that a file was sent with, where nothing else can have brought it there.
#[test]
fn a_file_tries_the_token_that_it_was_sent_with_last_and_none_that_was_refused_or_asked_for_a_factor()
 {
    let place = at(0, 0);
    let token = |version| SentWith {
        file: place.numbers(),
        registry: "npm".parse().unwrap(),
        scope: "*".parse().unwrap(),
        version,
    };
    let sent = |record: Record, version| {
        let record = record.with_token(place, Some(token(version)));
        after(record.sending(place, NOW))
    };
    let one = sent(releasing(), 1);
    assert_eq!(one.tries(place), Some(&token(1)));
    assert_eq!(one.tries(at(0, 1)), None);
    let text = serde_json::to_string(&one).unwrap();
    let read: Record = serde_json::from_str(&text).unwrap();
    assert_eq!(read.tries(place), Some(&token(1)));
    // It may show up yet: the same token is still the one, and another one is none.
    let unclear = after(one.clone().unclear(place, NOW));
    let late = after(unclear.absent(place, None));
    assert_eq!(late.tries(place), Some(&token(1)));
    assert_eq!(sent(late.clone(), 1).tries(place), Some(&token(1)));
    assert_eq!(sent(late.clone(), 2).tries(place), None);
    assert_eq!(late.with_token(place, None).tries(place), None);
    // A no is one, and after it another token is the one.
    let no = after(one.clone().absent(place, Some("401".into())));
    assert_eq!(no.tries(place), None);
    assert_eq!(sent(no, 2).tries(place), Some(&token(2)));
    // A stage was made with it; of what waits for a second factor nothing was taken.
    let stage: StageId = "stage-1".parse().unwrap();
    let held = after(one.clone().hold(place, Some(stage), NOW));
    assert_eq!(held.tries(place), Some(&token(1)));
    // Cut off in the middle of its approval, somebody may have approved it at the registry.
    let approving = sent(held.clone(), 2);
    assert_eq!(approving.tries(place), Some(&token(2)));
    assert_eq!(after(approving.unclear(place, NOW)).tries(place), None);
    let gone = after(held.unheld(place, "gone".into()));
    assert_eq!(gone.tries(place), None);
    assert_eq!(after(one.clone().hold(place, None, NOW)).tries(place), None);
    let shown = after(one.shows(place, digest("a")));
    assert_eq!(shown.tries(place), Some(&token(1)));
}

/// Another upload of the same bytes decided to send before this one's answer was unclear: it has to wait until
/// the registry is known to show nothing. When that is known is `settle`'s to say, by the registry's lag.
#[test]
fn attack_42_what_is_being_read_back_is_not_sent_again() {
    let record = after(releasing().sending(at(0, 0), NOW));
    assert!(record.clone().sending(at(0, 0), NOW).is_err());
    let record = after(record.unclear(at(0, 0), NOW));
    for seconds in [0, 89, 3600] {
        let later = NOW.after(seconds);
        assert!(record.clone().sending(at(0, 0), later).is_err());
    }
    let record = after(record.absent(at(0, 0), None));
    let record = after(record.sending(at(0, 0), NOW.after(90)));
    assert!(matches!(
        record.progress(at(0, 0)),
        Some(Progress::Sending { attempt: 2, .. })
    ));
}

/// What a lent secret is announced for is read back like bytes on their way.
#[test]
fn what_was_announced_ends_by_what_the_registry_shows() {
    let mut record = releasing();
    record.state = State::Approved {
        evidence: vec![],
        collect_by: NOW.after(60),
        later: None,
    };
    record.mode = Mode::Reveal;
    record.facts.items.truncate(1);
    record.facts.items[0].files.truncate(1);
    let lent = after(record.reveal("sealed".into(), NOW));
    assert_eq!(lent.name(), StateName::Settling);
    assert!(lent.clone().sending(at(0, 0), NOW).is_err());
    let good = after(lent.clone().shows(at(0, 0), digest("a")));
    assert_eq!(good.name(), StateName::Published);
    let evil = after(lent.clone().shows(at(0, 0), digest("evil")));
    assert_eq!(evil.name(), StateName::Conflict);
    // Nothing is ever shown: it ends, and says so.
    let absent = after(lent.absent(at(0, 0), None));
    let end = NOW.after(CREDENTIAL_SECONDS + LATE_SECONDS);
    assert!(
        absent
            .clone()
            .expire(NOW.after(CREDENTIAL_SECONDS))
            .is_err()
    );
    let ended = after(absent.expire(end));
    assert!(ended.unseen().is_some());
    assert!(ended.status().reason.unwrap().contains("never showed"));
}

/// The files that a step gives an alarm for.
fn alarms(step: Step) -> (Record, Vec<(u32, u32)>) {
    let (record, events) = step.into_parts();
    let file = |event| match event {
        Event::OutcomeUnclear { item, file, .. } => Some((item, file)),
        _ => None,
    };
    (record, events.into_iter().filter_map(file).collect())
}

#[test]
fn what_was_taken_and_never_shown_is_an_alarm_once_and_a_clear_no_is_none() {
    let end = NOW.after(CREDENTIAL_SECONDS + LATE_SECONDS);
    // The first file's outcome is unclear, the registry says no to the second, and nobody sends the third.
    let record = after(releasing().sending(at(0, 0), NOW));
    let record = after(record.unclear(at(0, 0), NOW));
    let record = after(record.sending(at(0, 1), NOW));
    let record = after(record.absent(at(0, 1), Some("403".into())));
    // While it is being read back it does not end; the alarm is given all the same.
    assert!(!record.overdue(end));
    assert!(
        record
            .clone()
            .unsettled(NOW.after(CREDENTIAL_SECONDS))
            .is_err()
    );
    let (told, which) = alarms(record.clone().unsettled(end).unwrap());
    assert_eq!(which, [(0, 0)]);
    assert!(told.unseen().is_some());
    assert!(told.clone().unsettled(end).is_err());
    let (ended, which) = alarms(
        after(told.clone().absent(at(0, 0), None))
            .expire(end)
            .unwrap(),
    );
    assert_eq!(which, []);
    assert!(ended.unseen().is_some());
    // Shown after all.
    let shown = after(told.shows(at(0, 0), digest("a")));
    assert_eq!(shown.unseen(), None);
    // Not told before: at its end.
    let record = after(record.absent(at(0, 0), None));
    let (ended, which) = alarms(record.expire(end).unwrap());
    assert_eq!(which, [(0, 0)]);
    let reason = ended.status().reason.unwrap();
    assert!(reason.contains("may have taken it"), "{reason}");
    // A no after an attempt that was never clear makes nothing clear.
    let record = after(releasing().sending(at(0, 0), NOW));
    let record = after(record.unclear(at(0, 0), NOW));
    let record = after(record.absent(at(0, 0), None));
    let record = after(record.sending(at(0, 0), NOW.after(90)));
    let record = after(record.absent(at(0, 0), Some("409".into())));
    assert_eq!(alarms(record.expire(end).unwrap()).1, [(0, 0)]);
    // Nothing was sent: nothing is unclear.
    assert_eq!(alarms(releasing().expire(end).unwrap()).1, []);
}

#[test]
fn attack_52_what_is_stopped_sends_nothing_more_and_is_told_as_it_is() {
    // Nothing of it had left: it ends.
    let (record, events) = releasing().stop(NOW.after(5)).unwrap().into_parts();
    assert_eq!(record.name(), StateName::Denied);
    assert!(matches!(events[..], [Event::RequestDenied { .. }]));
    assert!(record.stop(NOW).is_err());

    // One file is published, one is on its way, one waits.
    let mut record = releasing();
    record = after(record.sending(at(0, 0), NOW));
    record = after(record.shows(at(0, 0), digest("a")));
    record = after(record.sending(at(0, 1), NOW));
    let (mut record, events) = record.stop(NOW.after(5)).unwrap().into_parts();
    assert!(matches!(events[..], [Event::CredentialEnded { .. }]));
    assert_eq!(record.expires(), NOW.after(5));
    assert!(record.clone().stop(NOW.after(6)).is_err(), "once");
    // What is on its way is read back before it ends.
    assert!(!record.overdue(NOW.after(LATE_SECONDS + 60)));
    record = after(record.unclear(at(0, 1), NOW.after(6)));
    record = after(record.shows(at(0, 1), digest("b")));
    assert!(record.overdue(NOW.after(6)));
    record = after(record.expire(NOW.after(6)));
    let told = record.status();
    assert_eq!(told.items[0].state, StateName::Published);
    assert_eq!(told.items[1].state, StateName::Expired);
    assert!(told.reason.unwrap().contains("stopped everything"));
}

#[test]
fn what_a_job_was_given_itself_is_not_told_as_ended() {
    let mut approved = releasing();
    approved.mode = Mode::Mint;
    approved.state = State::Approved {
        evidence: vec![],
        collect_by: NOW.after(60),
        later: None,
    };
    let record = after(approved.mint("sealed".into(), NOW.after(300), NOW));
    assert_eq!(record.expires(), NOW.after(300));
    assert!(record.stop(NOW.after(5)).is_err());
}
