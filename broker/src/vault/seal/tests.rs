//! Unsealing, wrongly and rightly.

use super::{fixtures::*, *};
use crate::vault::key_file::{self, Holder, KeySet};
use age::secrecy::ExposeSecret as _;
use proto::ids::PersonId;

fn row() -> Binding<'static> {
    Binding {
        table: "t",
        record: b"r",
        purpose: "test",
        registry: None,
        scope: None,
        version: 0,
    }
}

fn identity() -> (String, Secret<String>) {
    let identity = age::x25519::Identity::generate();
    let text = format!(
        "# created by a test\n{}\n",
        identity.to_string().expose_secret()
    );
    (identity.to_public().to_string(), Secret::new(text))
}

fn unseal(file: &[u8], secret: &Unseal) -> Result<Vault, UnsealError> {
    let vault = Vault::new(World::system());
    vault.unseal(file, secret).map(|()| vault)
}

fn try_phrase(file: &[u8], text: &str) -> Result<Vault, UnsealError> {
    unseal(file, &Unseal::Passphrase(phrase(text)))
}

#[test]
fn each_method_unseals_the_same_vault() {
    let ((public, private), world) = (identity(), World::system());
    let methods = [
        by_passphrase("right horse"),
        UnsealMethod::Identity {
            recipients: vec![identity().0, public],
        },
    ];
    let file = Vault::init(&world, &methods).unwrap();
    let one = try_phrase(&file, "right horse").unwrap();
    let two = unseal(&file, &Unseal::Identity(private)).unwrap();
    let sealed = one.seal_row(&row(), b"canary").unwrap();
    assert_eq!(two.open_row(&row(), &sealed).unwrap().expose(), b"canary");
}

#[test]
fn attack_44_a_wrong_secret_unseals_nothing() {
    let (public, _) = identity();
    let methods = [
        by_passphrase("right horse"),
        UnsealMethod::Identity {
            recipients: vec![public],
        },
    ];
    let file = Vault::init(&World::system(), &methods).unwrap();
    for wrong in ["", "right hors", "right horse ", "Right horse"] {
        assert_eq!(
            try_phrase(&file, wrong).err(),
            Some(UnsealError::WrongSecret),
            "{wrong:?}"
        );
    }
    let other = unseal(&file, &Unseal::Identity(identity().1)).err();
    assert_eq!(other, Some(UnsealError::WrongSecret));
    let none = unseal(&file, &Unseal::Identity(phrase("# nothing\n"))).err();
    assert_eq!(none, Some(UnsealError::NotAnIdentity));
    let only = Vault::init(&World::system(), &[by_passphrase("x")]).unwrap();
    let absent = unseal(&only, &Unseal::Identity(identity().1)).err();
    assert_eq!(
        absent,
        Some(UnsealError::NoSuchMethod(
            "identity",
            "passphrase".to_owned()
        ))
    );
}

#[test]
fn a_damaged_file_is_told_from_a_wrong_passphrase() {
    let (public, private) = identity();
    let method = UnsealMethod::Identity {
        recipients: vec![public],
    };
    let file = Vault::init(&World::system(), &[method]).unwrap();
    let text = Unseal::Identity(private);
    let vault = Vault::new(World::system());
    for i in 0..file.len() {
        let mut other = file.clone();
        other[i] = if other[i] == b'7' { b'8' } else { b'7' };
        let result = vault.unseal(&other, &text);
        assert!(
            matches!(result, Err(UnsealError::Damaged | UnsealError::Newer(_))),
            "byte {i}: {result:?}"
        );
        assert_eq!(vault.unseal(&file[..i], &text), Err(UnsealError::Damaged));
    }
    assert!(vault.is_sealed());
}

#[test]
fn a_file_that_asks_for_too_much_work_is_refused() {
    let world = World::system();
    let over = UnsealMethod::Passphrase {
        passphrase: phrase("x"),
        work_factor: 23,
    };
    assert!(matches!(
        Vault::init(&world, &[over]),
        Err(InitError::WorkFactor)
    ));
    assert!(matches!(Vault::init(&world, &[]), Err(InitError::Methods)));
    assert!(matches!(
        Vault::init(&world, &[by_passphrase("")]),
        Err(InitError::EmptyPassphrase)
    ));
    let bad = UnsealMethod::Identity {
        recipients: vec!["age1x".to_owned()],
    };
    assert!(matches!(
        Vault::init(&world, &[bad]),
        Err(InitError::Recipient(1))
    ));
}

#[test]
fn a_row_of_another_generation_is_named_as_such() {
    let world = World::system();
    let make = |generation| {
        let methods = [by_passphrase("x")];
        let set = KeySet {
            current: (generation, Secret::new([7; 32])),
            since: None,
            old: None,
        };
        let file = key_file::wrap(&world, &methods, &set).unwrap();
        try_phrase(&file.bytes, "x").unwrap()
    };
    let sealed = make(1).seal_row(&row(), b"canary").unwrap();
    let error = make(2).open_row(&row(), &sealed).err();
    assert_eq!(
        error,
        Some(OpenRowError::OtherGeneration { found: 1, held: 2 })
    );
    // Relabelling does not help: the generation is authenticated.
    let mut relabelled = sealed;
    relabelled[4] = 2;
    let error = make(2).open_row(&row(), &relabelled).err();
    assert_eq!(error, Some(OpenRowError::NotAuthentic));
}

#[test]
fn a_rewrapped_key_file_opens_the_same_rows_with_the_new_secret_alone() {
    let old = Vault::init(&World::system(), &[by_passphrase("old")]).unwrap();
    let vault = try_phrase(&old, "old").unwrap();
    let sealed = vault.seal_row(&row(), b"canary").unwrap();
    let new = vault.rewrap(&[by_passphrase("new")]).unwrap().bytes;
    assert_eq!(
        try_phrase(&new, "old").err(),
        Some(UnsealError::WrongSecret)
    );
    let again = try_phrase(&new, "new").unwrap();
    assert_eq!(again.open_row(&row(), &sealed).unwrap().expose(), b"canary");
}

#[test]
fn sealed_refuses_everything() {
    let vault = open_vault();
    let sealed = vault.seal_row(&row(), b"canary").unwrap();
    vault.seal();
    assert!(vault.is_sealed());
    assert!(matches!(
        vault.seal_row(&row(), b"x"),
        Err(SealRowError::Sealed(Sealed))
    ));
    assert_eq!(
        vault.open_row(&row(), &sealed).err(),
        Some(OpenRowError::Sealed(Sealed))
    );
    assert_eq!(vault.mac(Domain::Row, b"x"), Err(Sealed));
    assert_eq!(vault.mac_holds(Domain::Row, b"x", &[0; 32]), Err(Sealed));
    let rewrapped = vault.rewrap(&[by_passphrase("x")]);
    assert!(matches!(rewrapped, Err(InitError::Sealed(Sealed))));
}

#[test]
fn attack_44_a_planted_key_file_does_not_change_an_open_vault() {
    let mine = Vault::init(&World::system(), &[by_passphrase("x")]).unwrap();
    let planted = Vault::init(&World::system(), &[by_passphrase("x")]).unwrap();
    let vault = try_phrase(&mine, "x").unwrap();
    let again = |file: &[u8]| vault.unseal(file, &Unseal::Passphrase(phrase("x")));
    assert_eq!(again(&planted), Err(UnsealError::OtherVault));
    assert_eq!(again(&mine), Ok(()));
}

#[test]
fn the_domains_do_not_stand_in_for_each_other() {
    let vault = open_vault();
    let mac = vault.mac(Domain::MatchCode, b"x").unwrap();
    assert_eq!(vault.mac_holds(Domain::MatchCode, b"x", &mac), Ok(true));
    for other in [
        Domain::Row,
        Domain::Totp,
        Domain::Ticket,
        Domain::TokenFingerprint,
    ] {
        assert_eq!(vault.mac_holds(other, b"x", &mac), Ok(false));
    }
}

/// An admin with a key for shares.
fn holder(name: &str) -> (Holder, age::x25519::Identity) {
    let identity = age::x25519::Identity::generate();
    let holder = Holder {
        person: name.parse().unwrap(),
        recipient: identity.to_public().to_string(),
    };
    (holder, identity)
}

/// What a holder's own machine makes of the file that the broker shows him.
fn opened(share: &str, identity: &age::x25519::Identity) -> Option<Secret<Vec<u8>>> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let share = STANDARD.decode(share).unwrap();
    age::decrypt(identity, &share).ok().map(Secret::new)
}

#[test]
fn attack_44_any_m_admins_unseal_and_no_fewer() {
    let world = World::system();
    let admins: Vec<_> = ["alice", "bob", "carol", "dave"]
        .map(holder)
        .into_iter()
        .collect();
    let holders: Vec<_> = admins.iter().map(|(holder, _)| holder.clone()).collect();
    let methods = [
        by_passphrase("old"),
        UnsealMethod::Shares {
            needed: 2,
            holders: holders.clone(),
        },
    ];
    let file = Vault::init(&world, &methods).unwrap();
    let offer = key_file::offer(&file).unwrap().unwrap();
    assert_eq!((offer.needed, &offer.holders), (2, &holders));
    let share = |at: usize| {
        let share = opened(&offer.shares[at], &admins[at].1).unwrap();
        (holders[at].person.clone(), share)
    };
    // Nobody opens the share of another one.
    for (at, of) in offer.shares.iter().enumerate() {
        for (other, (_, identity)) in admins.iter().enumerate() {
            assert_eq!(opened(of, identity).is_some(), at == other);
        }
    }
    for (a, b) in [(0, 1), (2, 3), (3, 0)] {
        let vault = unseal(&file, &Unseal::Shares(vec![share(a), share(b)])).unwrap();
        let other = try_phrase(&file, "old").unwrap();
        let sealed = vault.seal_row(&row(), b"canary").unwrap();
        assert_eq!(other.open_row(&row(), &sealed).unwrap().expose(), b"canary");
    }
    let refused = |shares: Vec<(PersonId, Secret<Vec<u8>>)>| {
        unseal(&file, &Unseal::Shares(shares)).err().unwrap()
    };
    assert_eq!(refused(vec![]), UnsealError::TooFewShares(2));
    assert_eq!(refused(vec![share(0)]), UnsealError::TooFewShares(2));
    // One admin is one, however often and under whatever name he comes.
    assert_eq!(
        refused(vec![share(0), share(0)]),
        UnsealError::TooFewShares(2)
    );
    let bob: PersonId = "bob".parse().unwrap();
    let as_bob = (bob.clone(), share(0).1);
    assert_eq!(
        refused(vec![share(0), as_bob]),
        UnsealError::WrongShare(bob)
    );
    let eve: PersonId = "eve".parse().unwrap();
    assert_eq!(
        refused(vec![(eve.clone(), share(0).1)]),
        UnsealError::WrongShare(eve.clone())
    );
    // A share of an earlier key file is not taken, and is told.
    let again = Vault::init(&world, &methods).unwrap();
    let alice = holders[0].person.clone();
    assert_eq!(
        key_file::check_share(&again, &alice, share(0).1.expose()),
        Err(UnsealError::WrongShare(alice.clone()))
    );
    assert_eq!(
        key_file::check_share(&file, &alice, share(0).1.expose()),
        Ok(())
    );
    assert_eq!(
        key_file::check_share(&file, &eve, share(0).1.expose()),
        Err(UnsealError::WrongShare(eve))
    );
    // A key file without shares says what it has.
    let plain = Vault::init(&world, &[by_passphrase("old")]).unwrap();
    assert!(key_file::offer(&plain).unwrap().is_none());
    assert!(matches!(
        unseal(&plain, &Unseal::Shares(vec![share(0), share(1)])).err(),
        Some(UnsealError::NoSuchMethod("shares", _))
    ));
}

#[test]
fn a_new_key_file_is_tried_before_it_is_relied_on() {
    let (vault, other) = (open_vault(), open_vault());
    let holders: Vec<_> = ["alice", "bob", "carol"].map(|n| holder(n).0).into();
    let shares = UnsealMethod::Shares { needed: 2, holders };
    let mut made = vault.rewrap(&[shares]).unwrap();
    assert_eq!(made.groups().unwrap().len(), 3);
    assert_eq!(vault.try_out(&made, None), Ok(()));
    // Of other keys, damaged, or with a share that is not the one inside.
    assert_eq!(other.try_out(&made, None), Err(UnsealError::OtherVault));
    made.bytes.pop();
    assert_eq!(vault.try_out(&made, None), Err(UnsealError::Damaged));
    made.bytes.push(b'}');
    let carol = made.shares[2].0.clone();
    made.shares[2].1 = Secret::new(made.shares[0].1.expose().clone());
    let wrong = Err(UnsealError::WrongShare(carol));
    assert_eq!(vault.try_out(&made, None), wrong);
    let made = vault.rewrap(&[by_passphrase("new")]).unwrap();
    let typed = |text: &str| vault.try_out(&made, Some(&Unseal::Passphrase(phrase(text))));
    assert_eq!(typed("new"), Ok(()));
    assert_eq!(typed("old"), Err(UnsealError::WrongSecret));
    vault.seal();
    assert_eq!(typed("new"), Err(UnsealError::OtherVault));
}

#[test]
fn shares_that_make_no_sense_are_refused() {
    let world = World::system();
    let (alice, bob) = (holder("alice").0, holder("bob").0);
    let broken = Holder {
        recipient: "age1xyz".to_owned(),
        ..bob.clone()
    };
    for (needed, holders) in [
        (0, vec![alice.clone(), bob.clone()]),
        (3, vec![alice.clone(), bob.clone()]),
        (1, vec![]),
        (2, vec![alice.clone(), alice.clone()]),
    ] {
        let made = Vault::init(&world, &[UnsealMethod::Shares { needed, holders }]);
        assert!(matches!(made, Err(InitError::Holders)), "{needed}");
    }
    let holders = vec![alice, broken];
    let made = Vault::init(&world, &[UnsealMethod::Shares { needed: 2, holders }]);
    assert!(matches!(made, Err(InitError::Recipient(2))));
}

/// A file without shares is as older brokers read it; one with shares is refused by them as newer.
#[test]
fn the_format_says_whether_there_are_shares() {
    let world = World::system();
    let format = |methods: &[UnsealMethod]| {
        let file = Vault::init(&world, methods).unwrap();
        serde_json::from_slice::<serde_json::Value>(&file).unwrap()["v"].clone()
    };
    assert_eq!(format(&[by_passphrase("old")]), 1);
    let holders = vec![holder("alice").0];
    assert_eq!(format(&[UnsealMethod::Shares { needed: 1, holders }]), 2);
}

/// A vault whose key file is replaced by the next, retired and cleared one in turn.
fn rekeyed(vault: &Vault, file: &[u8]) -> [Vec<u8>; 3] {
    let fresh = vault.fresh_key().unwrap();
    let next = vault.next_file(file, &fresh, UnixTime(1_000)).unwrap();
    vault.take_in(&next).unwrap();
    let retired = vault.retired_file(&next).unwrap();
    vault.take_in(&retired).unwrap();
    let cleared = vault.cleared_file(&retired).unwrap();
    vault.take_in(&cleared).unwrap();
    [next, retired, cleared]
}

#[test]
fn a_rekeyed_vault_believes_and_opens_what_it_should_at_each_step() {
    let first = Vault::init(&World::system(), &[by_passphrase("x")]).unwrap();
    let before = try_phrase(&first, "x").unwrap();
    let sealed = before.seal_row(&row(), b"canary").unwrap();
    let mac = before.mac(Domain::Row, b"row").unwrap();
    let ticket = before.mac(Domain::Ticket, b"id").unwrap();
    let files = rekeyed(&try_phrase(&first, "x").unwrap(), &first);
    let [next, retired, cleared] = files.map(|file| try_phrase(&file, "x").unwrap());
    let opens = |vault: &Vault| vault.open_row(&row(), &sealed).is_ok();
    let holds = |vault: &Vault| vault.mac_holds(Domain::Row, b"row", &mac).unwrap();
    let derived = |vault: &Vault, at| vault.mac_of(Domain::Ticket, UnixTime(at), b"id").unwrap();
    for (vault, opened, held) in [
        (&next, true, true),
        (&retired, true, false),
        (&cleared, false, false),
    ] {
        assert_eq!((opens(vault), holds(vault)), (opened, held));
        assert!(!vault.seal_is_new(&sealed).unwrap());
        assert!(!vault.mac_is_new(Domain::Row, b"row", &mac).unwrap());
        // What was made before stays what it was, as long as the old key is there; what comes after is new.
        assert_eq!(derived(vault, 999) == ticket, opened);
        assert_ne!(derived(vault, 1_000), ticket);
        let own = vault.seal_row(&row(), b"new").unwrap();
        assert_eq!(cleared.open_row(&row(), &own).unwrap().expose(), b"new");
    }
    // Nothing old comes back by an older vault, and no second re-keying begins on top of one.
    let own = cleared.seal_row(&row(), b"new").unwrap();
    assert!(before.open_row(&row(), &own).is_err());
    let again = next.fresh_key().unwrap();
    let file = Vault::init(&World::system(), &[by_passphrase("x")]).unwrap();
    assert!(next.next_file(&file, &again, UnixTime(2)).is_err());
}

#[test]
fn attack_44_who_writes_the_key_file_makes_no_old_key_current_or_believed() {
    let first = Vault::init(&World::system(), &[by_passphrase("x")]).unwrap();
    let vault = try_phrase(&first, "x").unwrap();
    let files = rekeyed(&vault, &first);
    let json = |file: &[u8]| serde_json::from_slice::<serde_json::Value>(file).unwrap();
    let [next, retired, _] = files.each_ref().map(|file| json(file));
    let rewritten =
        |file: serde_json::Value| key_file::fixtures::checked(&serde_json::to_vec(&file).unwrap());
    let good = rewritten(retired.clone());
    assert!(
        try_phrase(&good, "x").is_ok(),
        "the checksum is no protection"
    );
    let changes: [fn(&mut serde_json::Value, &serde_json::Value); 5] = [
        |file, _| file["old"]["retired"] = false.into(),
        |file, next| file["old"] = next["old"].clone(),
        |file, _| file["since"] = 5.into(),
        |file, _| {
            file["generation"] = 1.into();
            file["data_key"] = file["old"]["data_key"].clone();
        },
        |file, _| file["old"]["generation"] = 3.into(),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut file = retired.clone();
        change(&mut file, &next);
        let opened = try_phrase(&rewritten(file), "x").map(drop);
        // The key file of before is whole, under the same key: putting its part back is putting it back.
        let whole = at == 1;
        assert_eq!(opened.is_ok(), whole, "{at}: {opened:?}");
    }
}
