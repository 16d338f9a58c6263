use super::*;
use proto::device::DeviceKey;

const SCHEMA: u64 = 1;

fn key() -> DeviceKey {
    DeviceKey::from_seed([7; 32]).unwrap()
}

fn head() -> Head {
    let counters = Counters {
        schema: SCHEMA,
        version: 9,
        log_len: 2,
    };
    Head {
        v: FORMAT,
        made_by: "0.1.0".into(),
        taken: UnixTime(5),
        public_url: "https://broker.example".into(),
        log_key: LogKey::new("broker.example", key().public())
            .unwrap()
            .to_string(),
        checkpoint: String::new(),
        live: counters,
        history: counters,
    }
}

fn row(value: &[u8]) -> Piece<'_> {
    Piece::Row {
        place: b"t\0k",
        version: 3,
        value,
    }
}

fn written(head: &Head, by: &DeviceKey) -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), head).unwrap();
    writer.piece(Which::Live, row(b"one")).unwrap();
    let entry = Piece::Entry {
        index: 1,
        value: b"leaf",
    };
    writer.piece(Which::Live, entry).unwrap();
    writer.piece(Which::Past, row(b"old")).unwrap();
    writer.file("policy.toml", b"text").unwrap();
    writer.end(|bytes| by.sign(bytes)).unwrap()
}

fn read(bytes: &[u8]) -> Result<(Head, Vec<Frame>), ReadError> {
    let (head, mut reader) = Reader::begin(bytes, SCHEMA)?;
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame()? {
        frames.push(frame);
    }
    Ok((head, frames))
}

#[test]
fn what_was_written_is_read() {
    let (told, frames) = read(&written(&head(), &key())).unwrap();
    assert_eq!(told, head());
    let pieces: Vec<_> = frames.iter().filter_map(Frame::piece).collect();
    let entry = Piece::Entry {
        index: 1,
        value: b"leaf",
    };
    assert_eq!(
        pieces,
        [
            (Which::Live, row(b"one")),
            (Which::Live, entry),
            (Which::Past, row(b"old")),
        ]
    );
    let files: Vec<_> = frames.iter().filter_map(Frame::file).collect();
    assert_eq!(files, [("policy.toml", &b"text"[..])]);
}

#[test]
fn attack_45_every_flipped_bit_every_cut_and_anything_behind_it_is_noticed() {
    let whole = written(&head(), &key());
    for bit in 0..whole.len() * 8 {
        let mut other = whole.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&other).is_err(), "bit {bit}");
    }
    for length in 0..whole.len() {
        assert!(read(&whole[..length]).is_err(), "cut at {length}");
    }
    assert!(read(&[&whole[..], b"x"].concat()).is_err());
}

#[test]
fn attack_45_a_backup_that_somebody_else_made_is_refused() {
    let stranger = DeviceKey::from_seed([8; 32]).unwrap();
    let error = read(&written(&head(), &stranger)).unwrap_err();
    assert!(matches!(error, ReadError::Signature), "{error}");
}

#[test]
fn a_newer_format_or_schema_is_refused_by_its_number() {
    let mut newer = head();
    newer.v = FORMAT + 1;
    let error = read(&written(&newer, &key())).unwrap_err();
    assert!(error.to_string().contains("has format 2"), "{error}");
    let mut newer = head();
    newer.live.schema = SCHEMA + 1;
    let error = read(&written(&newer, &key())).unwrap_err();
    assert!(error.to_string().contains("has schema 2"), "{error}");
    let error = read(b"something else altogether, and long enough").unwrap_err();
    assert!(matches!(error, ReadError::Foreign), "{error}");
}
