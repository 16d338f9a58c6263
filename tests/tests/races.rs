//! Many at once on one request: exactly one outcome.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panic, as the tests do"
)]

use broker::audit::event::Event;
use proto::{
    answer::Decision,
    api::{Opened, StateName},
    ids::RequestId,
    problem::Code,
};
use serde::Deserialize;
use stand::{
    daemon::Daemon,
    direct::{Device, Direct, Packed, Wish, policy},
    free_port,
    history::History,
};
use std::{collections::BTreeSet, sync::Arc};
use tokio::task::JoinSet;

/// Calls at once.
const CROWD: usize = 96;
const NAME: &str = "@acme/left";

#[derive(Deserialize)]
struct Leaf {
    event: Event,
}

struct Stand {
    direct: Arc<Direct>,
    history: History,
    _daemon: Daemon,
}

/// A broker whose registry is never needed, and a policy of two people.
async fn stand() -> Stand {
    let url = format!("http://127.0.0.1:{}", free_port().unwrap());
    let daemon = Daemon::builder()
        .registry("npm", "npm", &url)
        .policy(&policy(&[("@acme", 2)]))
        .start()
        .await
        .unwrap();
    let direct = Direct::set_up(&daemon, "canary-registry-token", &[NAME.to_owned()])
        .await
        .unwrap();
    Stand {
        direct: Arc::new(direct),
        history: History::default(),
        _daemon: daemon,
    }
}

impl Stand {
    async fn open(&self, version: &str, salt: &str) -> Arc<Opened> {
        let wish = Wish::new(&Packed::new(NAME, version, salt).unwrap()).unwrap();
        let token = self.direct.id_token().unwrap();
        let opened = self.direct.open(&token, &wish.asked).await.unwrap();
        self.history.opened(&token, &opened, 2);
        Arc::new(opened)
    }

    async fn approve(&self, opened: &Opened) {
        for device in [&self.direct.alice, &self.direct.bob] {
            let about = (opened.id, opened.request_digest, opened.match_code.as_str());
            let answer = self.direct.answer(device, about, Decision::Approve);
            answer.await.unwrap();
        }
    }

    /// The events of one request; the whole log must verify and tell a possible story.
    async fn events(&self, id: RequestId) -> Vec<Event> {
        let before = self.history.asked();
        let (lines, checkpoint) = self.direct.export().await.unwrap();
        let key = self.direct.log_key().await.unwrap().parse().ok().unwrap();
        self.history.log(&before, &key, &lines, &checkpoint);
        let report = self.history.report();
        assert_eq!(report.violations, 0, "{:?}", report.texts);
        let of = |event: &Event| {
            serde_json::to_value(event).unwrap()["request"] == serde_json::json!(id)
        };
        lines
            .iter()
            .map(|l| serde_json::from_str::<Leaf>(&l.leaf).unwrap().event)
            .filter(of)
            .collect()
    }
}

fn count(events: &[Event], of: impl Fn(&Event) -> bool) -> usize {
    events.iter().filter(|e| of(e)).count()
}

fn device(direct: &Direct, n: usize) -> &Device {
    match n % 3 {
        0 => &direct.alice,
        1 => &direct.bob,
        _ => &direct.robin,
    }
}

#[tokio::test]
async fn a_crowd_that_collects_gets_one_credential() {
    let stand = stand().await;
    let opened = stand.open("1.0.0", "").await;
    stand.approve(&opened).await;
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let (direct, opened) = (Arc::clone(&stand.direct), Arc::clone(&opened));
        crowd.spawn(async move { direct.collect(opened.id, &opened.ticket).await });
    }
    let mut blobs = BTreeSet::new();
    while let Some(collected) = crowd.join_next().await {
        blobs.insert(collected.unwrap().unwrap().sealed);
    }
    assert_eq!(blobs.len(), 1);
    let events = stand.events(opened.id).await;
    assert_eq!(count(&events, |e| matches!(e, Event::Collected { .. })), 1);
}

#[tokio::test]
async fn a_crowd_that_approves_and_denies_ends_in_one_denial() {
    let stand = stand().await;
    for round in 0..5 {
        let opened = stand.open(&format!("1.0.{round}"), "").await;
        let mut crowd = JoinSet::new();
        for n in 0..CROWD {
            let (direct, opened) = (Arc::clone(&stand.direct), Arc::clone(&opened));
            crowd.spawn(async move {
                let decision = match n % 3 {
                    2 => Decision::Deny,
                    _ => Decision::Approve,
                };
                let about = (opened.id, opened.request_digest, opened.match_code.as_str());
                direct.answer(device(&direct, n), about, decision).await
            });
        }
        let mut denials = 0;
        while let Some(answered) = crowd.join_next().await {
            match answered.unwrap() {
                Ok(a) if a.state == StateName::Denied => denials += 1,
                Ok(a) => assert!(matches!(a.state, StateName::Pending | StateName::Approved)),
                Err(why) => assert!(
                    matches!(why.code(), Some(Code::Denied | Code::AlreadySettled)),
                    "{why}"
                ),
            }
        }
        assert_eq!(denials, 1);
        let events = stand.events(opened.id).await;
        assert_eq!(
            count(&events, |e| matches!(e, Event::RequestDenied { .. })),
            1
        );
        assert!(count(&events, |e| matches!(e, Event::RequestApproved { .. })) <= 1);
        let status = stand.direct.status(opened.id, &opened.ticket).await;
        assert_eq!(status.unwrap().state, StateName::Denied);
    }
}

#[tokio::test]
async fn a_crowd_that_collects_denies_and_cancels_has_one_winner() {
    let stand = stand().await;
    let mut winners = [0; 3];
    for round in 0..10 {
        let opened = stand.open(&format!("2.0.{round}"), "").await;
        stand.approve(&opened).await;
        let mut crowd = JoinSet::new();
        for n in 0..CROWD {
            let (direct, opened) = (Arc::clone(&stand.direct), Arc::clone(&opened));
            crowd.spawn(async move {
                let ok = match (n + round) % 3 {
                    0 => direct.collect(opened.id, &opened.ticket).await.is_ok(),
                    1 => direct.cancel(opened.id, &opened.ticket).await.is_ok(),
                    _ => {
                        let about = (opened.id, opened.request_digest, opened.match_code.as_str());
                        let denied = direct.answer(&direct.robin, about, Decision::Deny).await;
                        denied.is_ok()
                    }
                };
                ok.then_some((n + round) % 3)
            });
        }
        let mut won = BTreeSet::new();
        while let Some(result) = crowd.join_next().await {
            won.extend(result.unwrap());
        }
        assert_eq!(won.len(), 1, "{won:?}");
        let status = stand
            .direct
            .status(opened.id, &opened.ticket)
            .await
            .unwrap();
        let expected = match won.first() {
            Some(0) => StateName::Releasing,
            Some(1) => StateName::Cancelled,
            _ => StateName::Denied,
        };
        assert_eq!(status.state, expected);
        let events = stand.events(opened.id).await;
        let ends = count(&events, |e| {
            matches!(
                e,
                Event::Collected { .. }
                    | Event::RequestDenied { .. }
                    | Event::RequestCancelled { .. }
            )
        });
        assert_eq!(ends, 1);
        winners[won.first().copied().unwrap()] += 1;
    }
    println!("collected, cancelled, denied: {winners:?}");
}

#[tokio::test]
async fn of_rivals_for_one_version_one_is_approved() {
    let stand = stand().await;
    for round in 0..5 {
        let version = format!("3.0.{round}");
        let mut rivals = Vec::new();
        for n in 0..8 {
            rivals.push(stand.open(&version, &n.to_string()).await);
        }
        let mut crowd = JoinSet::new();
        for n in 0..CROWD {
            let direct = Arc::clone(&stand.direct);
            let opened = Arc::clone(rivals.get(n % rivals.len()).unwrap());
            crowd.spawn(async move {
                let about = (opened.id, opened.request_digest, opened.match_code.as_str());
                let device = device(&direct, n / 8 % 2);
                let _ = direct.answer(device, about, Decision::Approve).await;
            });
        }
        while let Some(done) = crowd.join_next().await {
            done.unwrap();
        }
        let mut approved = 0;
        for opened in &rivals {
            let status = stand
                .direct
                .status(opened.id, &opened.ticket)
                .await
                .unwrap();
            match status.state {
                StateName::Approved => approved += 1,
                state => assert_eq!(state, StateName::Denied),
            }
        }
        assert_eq!(approved, 1);
        stand.events(rivals.first().unwrap().id).await;
    }
}

#[tokio::test]
async fn a_token_used_by_a_crowd_opens_one_request() {
    let stand = stand().await;
    let packed = Packed::new(NAME, "4.0.0", "").unwrap();
    let token = Arc::new(stand.direct.id_token().unwrap());
    let same = Arc::new(Wish::new(&packed).unwrap().asked);
    let mut crowd = JoinSet::new();
    for n in 0..CROWD {
        let (direct, token) = (Arc::clone(&stand.direct), Arc::clone(&token));
        // Half of them repeat one wish, as a client does whose reply was lost.
        let asked = match n % 2 {
            0 => Arc::clone(&same),
            _ => Arc::new(Wish::new(&packed).unwrap().asked),
        };
        crowd.spawn(async move { direct.open(&token, &asked).await });
    }
    let mut ids = BTreeSet::new();
    while let Some(opened) = crowd.join_next().await {
        match opened.unwrap() {
            Ok(opened) => {
                stand.history.opened(&token, &opened, 2);
                ids.insert(opened.id);
            }
            Err(why) => assert!(
                matches!(why.code(), Some(Code::TokenReplayed | Code::AlreadySettled)),
                "{why}"
            ),
        }
    }
    assert_eq!(ids.len(), 1);
    let events = stand.events(*ids.first().unwrap()).await;
    assert_eq!(
        count(&events, |e| matches!(e, Event::RequestOpened { .. })),
        1
    );
}
