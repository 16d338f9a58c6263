//! Over the same desk: who thaws, how a recovery ends, rows that are damaged, and a secret that a veto held back.

use crate::{SetClock, approved_case, desk, reveals};
use broker::{
    admin::{enroll, freeze, invites, own::Own, people, recovery},
    challenge::totp::{TotpState, otpauth},
    desk::{
        Desk,
        bells::{CHANNELS, channel_key},
        people::{Device, PEOPLE, Person},
    },
    policy::Policy,
    publish::{Refusal, inbox, ledger, release, ring},
    secret::Secret,
    store::{Batch, Table},
};
use proto::{
    api::{EnrollRequest, InviteRequest, SecondFactor, ThawRequest},
    bearer::{Bearer, Kind},
    device::{DeviceKey, DeviceKind, enrolment_bytes},
    digest::hex,
    factors::Recover,
    ids::PersonId,
    time::UnixTime,
};
use stand::people::random;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tempfile::TempDir;
use totp_rs::Totp;

const PACKAGE: &str = "vault:deploy-key";
const DAY: u64 = 24 * 3600;

/// A desk whose clock is set.
struct Stage {
    desk: Desk,
    clock: Arc<SetClock>,
    ci: DeviceKey,
    start: u64,
    _folder: TempDir,
}

impl Stage {
    async fn set_up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let start = stand::now().unwrap();
        let clock = Arc::new(SetClock(AtomicU64::new(start)));
        let ci = DeviceKey::from_seed(random().unwrap()).unwrap();
        let desk = desk(folder.path(), Arc::clone(&clock), &ci).await.unwrap();
        Self {
            desk,
            clock,
            ci,
            start,
            _folder: folder,
        }
    }

    fn at(&self, seconds: u64) {
        self.clock.0.store(self.start + seconds, Ordering::SeqCst);
    }

    fn now(&self) -> UnixTime {
        self.desk.world.now()
    }

    /// Somebody with an authenticator, whose present device is as old as is said.
    async fn hire(&self, name: &str, admin: bool, enrolled: UnixTime, device: UnixTime) -> Totp {
        let desk = &self.desk;
        let id: PersonId = name.parse().unwrap();
        let secret = Secret::new(random::<20>().unwrap().to_vec());
        let key = DeviceKey::from_seed(random().unwrap()).unwrap().public();
        let person = Person {
            enrolled: Some(enrolled),
            passkeys: Vec::new(),
            id: id.clone(),
            groups: vec!["release".parse().unwrap()],
            admin,
            actors: Vec::new(),
            devices: vec![Device {
                kind: DeviceKind::Terminal,
                id: key.id(),
                public_key: key,
                name: "test".into(),
                enrolled: device,
            }],
            totp: desk.seal_totp(&id, &secret).unwrap(),
        };
        let row = desk.authentic(PEOPLE, name.as_bytes(), &person).unwrap();
        let batch = Batch::new().create(PEOPLE, name.as_bytes(), row);
        let batch = desk
            .store_totp(batch, &id, None, &TotpState::default())
            .unwrap();
        desk.commit(batch, &[], self.now()).await.unwrap();
        Totp::from_url(otpauth(&secret, name).unwrap()).unwrap()
    }

    fn person(&self, name: &str) -> Arc<Person> {
        let held = self.desk.person(&name.parse().unwrap()).unwrap();
        held.unwrap().value
    }

    fn rows(&self, table: &'static str) -> Vec<(Vec<u8>, u64)> {
        let rows = self.desk.live.range(Table(table), b"", None, 1000).unwrap();
        rows.into_iter()
            .map(|(key, row)| (key, row.version))
            .collect()
    }

    /// What is in the rows of a table is no more what was written.
    async fn damage(&self, table: &'static str) {
        for (key, version) in self.rows(table) {
            let batch = Batch::new().replace(Table(table), key, version, b"damaged");
            self.desk.commit(batch, &[], self.now()).await.unwrap();
        }
    }

    fn recover(&self, by: &Totp) -> Recover {
        Recover {
            person: "alice".parse().unwrap(),
            factor: self.code(by),
        }
    }

    fn code(&self, of: &Totp) -> SecondFactor {
        SecondFactor {
            totp: Some(of.generate(self.now().0).to_string()),
            passkey: None,
        }
    }

    /// Asks for the thaw of the package; whether it is frozen still.
    async fn thaw(&self, name: &str, totp: &Totp) -> Result<bool, Refusal> {
        let person = self.person(name);
        let own = Own {
            person: &person.id,
            device: device_of(&person),
        };
        let asked = ThawRequest {
            package: PACKAGE.to_owned(),
            factor: self.code(totp),
        };
        let thawed = freeze::thaw(&self.desk, own, &asked, self.now()).await;
        thawed.map(|status| status.frozen)
    }

    async fn invite(&self, name: &str, by: &str) {
        let asked = InviteRequest {
            person: name.parse().unwrap(),
            groups: Vec::new(),
            admin: false,
            actors: Vec::new(),
        };
        let by = by.parse().unwrap();
        let made = invites::invite(&self.desk, asked, Some(&by), Batch::new(), self.now());
        let made = made.unwrap();
        let events = [made.event];
        let done = self.desk.commit(made.batch, &events, self.now()).await;
        done.unwrap();
    }
}

fn device_of(person: &Person) -> &proto::ids::DeviceId {
    &person.devices[0].id
}

#[tokio::test]
async fn attack_52_who_is_enrolled_after_a_freeze_does_not_thaw_it_and_a_new_phone_is_no_newcomer()
{
    let stage = Stage::set_up().await;
    let desk = &stage.desk;
    let now = stage.now();
    let (before, after) = (now.before(60), now.after(60));
    let robin = stage.hire("robin", true, before, before).await;
    // This one lost the phone, and has a new one; that one is new.
    let second = stage.hire("second", true, before, after).await;
    let third = stage.hire("late", true, after, after).await;
    freeze::freeze(desk, PACKAGE, &"robin".parse().unwrap(), now)
        .await
        .unwrap();
    stage.at(120);
    let late = stage.thaw("late", &third).await;
    assert!(matches!(late, Err(Refusal::NotAllowed(_))), "{late:?}");
    assert!(stage.thaw("robin", &robin).await.unwrap());
    assert!(!stage.thaw("second", &second).await.unwrap());
}

#[tokio::test]
async fn attack_33_a_recoverys_invite_and_its_end_are_told_and_leftover_invites_go() {
    let stage = Stage::set_up().await;
    let desk = &stage.desk;
    let since = stage.now().before(60);
    let robins = stage.hire("robin", true, since, since).await;
    let bobs = stage.hire("bob", false, since, since).await;
    stage.hire("alice", false, since, since).await;
    for (name, totp) in [("robin", &robins), ("bob", &bobs)] {
        let by = stage.person(name);
        let given = stage.recover(totp);
        let asked = recovery::ask(desk, &by, device_of(&by), &given, stage.now());
        asked.await.unwrap();
    }
    assert_eq!(stage.rows("notice").len(), 2);
    stage.at(DAY);
    let bob = stage.person("bob");
    let given = stage.recover(&bobs);
    let invited = recovery::invite(desk, &bob, device_of(&bob), &given, stage.now());
    let invited = invited.await.unwrap();
    assert_eq!(stage.rows("notice").len(), 3, "the invite is told");

    let key = DeviceKey::from_seed(random().unwrap()).unwrap();
    let bearer = Bearer::parse(Kind::Invite, &invited.invite).unwrap();
    let mut asked = EnrollRequest {
        invite: invited.invite.clone(),
        public_key: key.public(),
        signature: hex(&key.sign(&enrolment_bytes(&bearer.hash().0, "new"))),
        device_name: "new".into(),
        kind: DeviceKind::Terminal,
        totp: None,
        passkey: None,
    };
    let first = enroll::enroll(desk, asked.clone(), stage.now())
        .await
        .unwrap();
    let totp = Totp::from_url(first.otpauth.unwrap()).unwrap();
    asked.totp = Some(totp.generate(stage.now().0).to_string());
    enroll::enroll(desk, asked, stage.now()).await.unwrap();
    assert_eq!(stage.rows("notice").len(), 4, "that it happened is told");
    let alice = stage.person("alice");
    assert_eq!(alice.devices.len(), 1);
    assert_eq!(alice.enrolled, Some(since), "she is no newcomer");

    // Two invites that nobody used: one that is over, and one that is not.
    for (name, wait) in [("carol", 0), ("dave", DAY - 1)] {
        stage.at(DAY + wait);
        stage.invite(name, "robin").await;
    }
    assert_eq!(stage.rows("invite").len(), 2);
    stage.at(2 * DAY);
    invites::sweep(desk, stage.now()).await.unwrap();
    assert_eq!(stage.rows("invite").len(), 1);
}

#[tokio::test]
async fn a_damaged_person_or_a_time_in_the_future_keeps_nobody_from_being_told() {
    let stage = Stage::set_up().await;
    let desk = &stage.desk;
    let since = stage.now().before(60);
    let robins = stage.hire("robin", true, since, since).await;
    stage.hire("bob", false, since, since).await;
    stage.hire("alice", false, since, since).await;
    let robin = stage.person("robin");
    let given = stage.recover(&robins);
    let asked = recovery::ask(desk, &robin, device_of(&robin), &given, stage.now());
    asked.await.unwrap();
    assert_eq!(stage.rows("notice").len(), 1);
    let mut batch = Batch::new();
    for name in ["alice", "bob"] {
        let key = channel_key(&name.parse().unwrap(), "ntfy");
        batch = batch.create(CHANNELS, key, b"sealed");
    }
    // The first in name order cannot be believed, and the second was told tomorrow.
    let alice = desk.live.get(PEOPLE, b"alice").unwrap().unwrap();
    batch = batch.replace(PEOPLE, b"alice", alice.version, b"damaged");
    let tomorrow = stage.now().after(DAY).0.to_string();
    batch = batch.create(Table("noticed"), b"bob\0recovery", tomorrow);
    desk.commit(batch, &[], stage.now()).await.unwrap();
    ring::decide(desk, stage.now()).await.unwrap();
    assert_eq!(stage.rows("outbox").len(), 1, "bob is told");
    assert!(stage.rows("notice").is_empty());
}

#[tokio::test]
async fn attack_44_a_damaged_freeze_invite_or_recovery_freezes_nobody_else() {
    let stage = Stage::set_up().await;
    let desk = &stage.desk;
    let since = stage.now().before(60);
    let robins = stage.hire("robin", true, since, since).await;
    let seconds = stage.hire("second", true, since, since).await;
    stage.hire("alice", false, since, since).await;
    let robin = stage.person("robin");
    freeze::freeze(desk, PACKAGE, &robin.id, stage.now())
        .await
        .unwrap();
    stage.invite("carol", "robin").await;
    let given = stage.recover(&robins);
    let asked = recovery::ask(desk, &robin, device_of(&robin), &given, stage.now());
    assert_eq!(asked.await.unwrap().recoveries.len(), 1);
    for table in ["frozen", "invite", "recovery"] {
        stage.damage(table).await;
    }
    // The inbox works, and says it; the package stays frozen until two thaw it.
    let shown = inbox::inbox(desk, &robin, None, 10, stage.now()).unwrap();
    assert!(shown.alarms[0].contains("damaged"), "{:?}", shown.alarms);
    let frozen = ledger::freeze(desk, PACKAGE).unwrap().unwrap().1;
    assert!(frozen.thawing.is_empty());
    // Nobody's recovery is believed, and it is asked for anew.
    assert!(
        recovery::list(desk, stage.now())
            .unwrap()
            .recoveries
            .is_empty()
    );
    stage.at(30);
    let given = stage.recover(&robins);
    let again = recovery::ask(desk, &robin, device_of(&robin), &given, stage.now());
    assert_eq!(again.await.unwrap().recoveries[0].ready, None);
    let alice = "alice".parse().unwrap();
    let gone = people::remove(desk, &alice, &robin.id, Batch::new());
    let (batch, events) = gone.unwrap();
    desk.commit(batch, &events, stage.now()).await.unwrap();
    stage.at(60);
    assert!(stage.thaw("robin", &robins).await.unwrap());
    assert!(!stage.thaw("second", &seconds).await.unwrap());
}

#[tokio::test]
async fn a_secret_that_a_veto_held_back_is_given_again_from_its_collecting_on() {
    let stage = Stage::set_up().await;
    let desk = &stage.desk;
    let policy = reveals("veto = \"1h\"\nhours = \"always\"\nunsolicited = \"ring\"");
    desk.policy
        .store(Arc::new(Policy::parse(&policy, "policy.toml").unwrap()));
    let key = DeviceKey::from_seed(random().unwrap()).unwrap();
    let (opened, ticket) = approved_case(desk, &stage.ci, &key).await.unwrap();
    let collect = async || release::collect(desk, opened.id, &ticket, stage.now()).await;
    let early = collect().await;
    assert!(matches!(early, Err(Refusal::NotYet(_))), "{early:?}");
    // Whoever may deny it is told.
    ring::decide(desk, stage.now()).await.unwrap();
    stage.at(3600 + 60);
    let first = collect().await.unwrap();
    // The reply was lost.
    stage.at(3600 + 60 + 15 * 60 - 1);
    assert_eq!(collect().await.unwrap().sealed, first.sealed);
    stage.at(3600 + 60 + 15 * 60);
    assert!(collect().await.is_err());
}
