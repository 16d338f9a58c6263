use super::*;
use crate::device::DeviceKey;

const ORIGIN: &str = "broker.example/log";

fn key() -> LogKey {
    LogKey::new(ORIGIN, signer().public()).unwrap()
}

fn signer() -> DeviceKey {
    DeviceKey::from_seed([4; 32]).unwrap()
}

fn export(leaves: &[&str]) -> (Vec<String>, Checkpoint) {
    let mut frontier = Frontier::default();
    let mut lines = Vec::new();
    for (index, leaf) in (0..).zip(leaves) {
        frontier.push(leaf_hash(leaf.as_bytes()));
        let leaf = (*leaf).to_owned();
        lines.push(serde_json::to_string(&LogLine { index, leaf }).unwrap() + "\n");
    }
    let point = Checkpoint {
        origin: ORIGIN.to_owned(),
        size: frontier.size(),
        root: frontier.root(),
    };
    let checkpoint = point.sign(&signer()).unwrap();
    lines.push(serde_json::to_string(&CheckpointLine { checkpoint }).unwrap() + "\n");
    (lines, point)
}

/// The tree before and after each line of an export.
fn trees(lines: &[String]) -> Vec<Frontier> {
    let mut all = vec![Frontier::default()];
    for (line, text) in (1..).zip(lines) {
        let mut next = all.last().unwrap().clone();
        take_entry(&mut next, text.trim_end().as_bytes(), line).unwrap();
        all.push(next);
    }
    all
}

fn check(text: &[u8]) -> Result<ExportReport, ExportError> {
    let key = key();
    let known = Known {
        key: Some(&key),
        seen: None,
    };
    verify_export(text, known)
}

const LEAVES: [&str; 5] = [
    r#"{"v":1,"time":1,"event":{"type":"sealed"}}"#,
    r#"{"v":1,"time":2,"event":{"type":"unsealed"}}"#,
    r#"{"v":1,"time":3,"event":{"type":"sealed"}}"#,
    "ü\u{7f}\u{1}",
    r#"{"v":1,"time":3,"event":{"type":"sealed"}}"#,
];

#[test]
fn attack_46_log_edited_cut_or_reordered() {
    let (lines, _) = export(&LEAVES);
    let text = lines.concat().into_bytes();
    assert_eq!(check(&text).unwrap().size, 5);
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.clone();
            bytes[at] ^= 1 << bit;
            assert!(check(&bytes).is_err(), "bit {bit} of byte {at}");
        }
        assert!(check(&text[..at]).is_err(), "cut before byte {at}");
        assert!(check(&text[at + 1..]).is_err(), "cut after byte {at}");
        let mut without = text.clone();
        without.remove(at);
        assert!(check(&without).is_err(), "without byte {at}");
    }
    for a in 0..lines.len() {
        let mut without = lines.clone();
        without.remove(a);
        assert!(check(without.concat().as_bytes()).is_err());
        let mut twice = lines.clone();
        twice.insert(a, lines[a].clone());
        assert!(check(twice.concat().as_bytes()).is_err());
        for b in 0..a {
            let mut swapped = lines.clone();
            swapped.swap(a, b);
            assert!(check(swapped.concat().as_bytes()).is_err());
        }
    }
}

#[test]
fn attack_46_an_entry_spelled_otherwise_is_an_edit() {
    let text = export(&LEAVES).0.concat();
    for other in [
        text.replacen("{\"index\":1,", "{ \"index\":1,", 1),
        text.replacen("sealed", "s\\u0065aled", 1),
        text.replacen("\"index\":2,", "\"x\":0,\"index\":2,", 1),
    ] {
        assert_ne!(text, other);
        let error = check(other.as_bytes()).unwrap_err();
        assert!(matches!(error, ExportError::Form(_)), "{error}");
    }
}

#[test]
fn attack_46_leaves_swapped_under_their_numbers_are_found() {
    let (lines, _) = export(&LEAVES);
    for (a, moved) in LEAVES.iter().enumerate() {
        for b in (0..a).filter(|b| LEAVES[*b] != *moved) {
            let mut leaves = LEAVES;
            leaves.swap(a, b);
            let mut edited = export(&leaves).0;
            edited[LEAVES.len()] = lines[LEAVES.len()].clone();
            let error = check(edited.concat().as_bytes()).unwrap_err();
            assert!(matches!(error, ExportError::Root(6)), "{error}");
        }
    }
    let (short, _) = export(&LEAVES[..4]);
    let cut = [&short[..4], &lines[5..]].concat().concat();
    let error = check(cut.as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 5: the checkpoint is over 5 entries, but 4 lines stand before it"
    );
}

#[test]
fn attack_45_an_older_or_other_log_is_found_by_whoever_saw_a_checkpoint() {
    let (lines, point) = export(&LEAVES);
    let (older, old_point) = export(&LEAVES[..3]);
    let mut other = LEAVES;
    other[1] = "rewritten";
    let (other, _) = export(&other);
    let with = |lines: &[String], seen| {
        let seen = Some(seen);
        verify_export(lines.concat().as_bytes(), Known { key: None, seen })
    };
    assert!(!with(&lines, &old_point).unwrap().pinned);
    assert!(with(&lines, &point).is_ok());
    assert!(matches!(
        with(&older, &point),
        Err(ExportError::Shrunk { seen: 5, found: 3 })
    ));
    assert!(matches!(
        with(&other, &old_point),
        Err(ExportError::Rewritten(3))
    ));
}

#[test]
fn an_endless_line_is_not_read_into_memory() {
    let endless = io::BufReader::new(io::repeat(b'x'));
    let error = verify_export(endless, Known::default()).unwrap_err();
    assert!(matches!(error, ExportError::TooLong(1)));
}

const MANY: usize = 1000;

fn many() -> (Vec<String>, Checkpoint) {
    let leaf = |i| format!(r#"{{"v":1,"time":{},"event":{{"type":"sealed"}}}}"#, 9 + i);
    let leaves: Vec<_> = (0..MANY).map(leaf).collect();
    let leaves: Vec<_> = leaves.iter().map(String::as_str).collect();
    export(&leaves)
}

/// Each bit of each line of a log of 1,000 entries. A line is read as the whole is; where the flipped one is still
/// an entry in its place, the tree is another from there on.
#[test]
fn attack_46_every_flipped_bit_of_a_thousand_entries_is_found() {
    let (lines, _) = many();
    let trees = trees(&lines[..MANY]);
    let mut flipped = 0;
    for (at, text) in lines[..MANY].iter().enumerate() {
        let (before, after) = (&trees[at], trees[at + 1].root());
        let line = text.trim_end().as_bytes();
        let found = |bytes: &[u8]| {
            let mut other = before.clone();
            take_entry(&mut other, bytes, 1).is_err() || other.root() != after
        };
        for byte in 0..line.len() {
            for bit in 0..8 {
                let mut bytes = line.to_vec();
                bytes[byte] ^= 1 << bit;
                // A flip that ends the line leaves a part of it in its place.
                let first = bytes.split(|b| *b == b'\n').next().unwrap();
                assert!(found(first), "bit {bit} of byte {byte} of entry {at}");
                flipped += 1;
            }
        }
        // The line feed: two lines become one.
        for bit in 0..8 {
            let joined = [line, &[b'\n' ^ (1 << bit)], lines[at + 1].as_bytes()].concat();
            assert!(found(joined.trim_ascii_end()), "the end of entry {at}");
            flipped += 1;
        }
    }
    assert!(flipped > 400_000, "{flipped}");
}

/// Each entry of 1,000 left out, repeated, put at some other place, and the log cut before it; with the numbers as they
/// were, and with numbers that fit.
#[test]
fn attack_46_every_cut_and_a_move_of_each_of_a_thousand_entries_is_found() {
    let (lines, point) = many();
    let trees = trees(&lines[..MANY]);
    let note = point.sign(&signer()).unwrap();
    let key = key();
    let known = Known {
        key: Some(&key),
        seen: None,
    };
    let ends = |tree: &Frontier| check_end(&note, tree, 1, known).is_ok();
    assert!(ends(&trees[MANY]));
    let text = |at: usize| lines[at].trim_end().as_bytes();
    let leaf = |at: usize| {
        let line: LogLine = serde_json::from_slice(text(at)).unwrap();
        leaf_hash(line.leaf.as_bytes())
    };
    let leaves: Vec<_> = (0..MANY).map(leaf).collect();
    // What becomes of a tree when these leaves follow, numbered as they must be.
    let grown = |tree: &Frontier, rest: &mut dyn Iterator<Item = usize>| {
        let mut tree = tree.clone();
        rest.for_each(|at| tree.push(leaves[at]));
        tree
    };
    let mut drawn = drawn();
    for at in 0..MANY {
        let before = &trees[at];
        assert!(!ends(before), "cut before entry {at}");
        let next = |bytes: &[u8]| take_entry(&mut before.clone(), bytes, 1);
        let mut after = trees[at + 1].clone();
        assert!(take_entry(&mut after, text(at), 1).is_err(), "{at} twice");
        assert!(!ends(&grown(&trees[at + 1], &mut (at..MANY))), "{at} twice");
        assert!(!ends(&grown(before, &mut (at + 1..MANY))), "without {at}");
        // With its neighbour, with the last one, and with four by chance: the two swapped, and the one moved there.
        let by_chance: Vec<_> = (0..4).map(|_| at + drawn(MANY - at)).collect();
        for other in [at + 1, MANY - 1].into_iter().chain(by_chance) {
            if other >= MANY || other == at {
                continue;
            }
            assert!(next(text(other)).is_err(), "{other} in the place of {at}");
            let mut swapped: Vec<_> = (at..MANY).collect();
            swapped.swap(0, other - at);
            let mut moved: Vec<_> = (at..MANY).collect();
            moved[..=other - at].rotate_left(1);
            for order in [swapped, moved] {
                let tree = grown(before, &mut order.into_iter());
                assert!(!ends(&tree), "{at} and {other}");
            }
        }
    }
    // All of them in another order.
    for round in 0..200 {
        let mut order: Vec<_> = (0..MANY).collect();
        for at in 0..MANY {
            order.swap(at, at + drawn(MANY - at));
        }
        assert!(!order.is_sorted());
        let tree = grown(&trees[0], &mut order.into_iter());
        assert!(!ends(&tree), "permutation {round}");
    }
}

/// Numbers below a bound, the same ones in every run (xorshift of 64 bits, by Marsaglia).
fn drawn() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    }
}

/// The same by the reader of whole files, once an entry: what is not seen at the line is seen at the end.
#[test]
fn attack_46_one_bit_of_each_of_a_thousand_entries_is_found_by_reading_the_file() {
    let (lines, _) = many();
    let text = lines.concat().into_bytes();
    assert_eq!(check(&text).unwrap().size, MANY as u64);
    let mut start = 0;
    for (at, line) in lines[..MANY].iter().enumerate() {
        let mut bytes = text.clone();
        // Inside the leaf's time, where a flipped digit leaves a well-formed entry.
        bytes[start + line.find("time").unwrap() + 7] ^= 1;
        let error = check(&bytes).unwrap_err();
        assert!(matches!(error, ExportError::Root(_)), "{at}: {error}");
        start += line.len();
    }
}
