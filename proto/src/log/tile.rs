//! Tiles: the log's tree in files of 256 hashes, and its entries in bundles (C2SP tlog-tiles).
//!
//! A tile at level L holds hashes of complete subtrees of `256^L` leaves. Its place is written
//! `L/N`, and `L/N.p/W` where the tree has no more than W of its hashes yet; an entry bundle's `N` or
//! `N.p/W`. N is written in groups of three digits, all but the last with an `x`: `x001/x234/067`.

use super::merkle::Node;

/// Hashes in a full tile, and entries in a full bundle.
pub const WIDTH: u64 = 256;
/// A tile's level is one of so many: 8 levels of the tree each, of at most 64.
const LEVELS: u8 = 8;
/// Longest entry that a bundle holds, in bytes: its length stands in 16 bits.
pub const ENTRY_MAX: usize = 0xffff;

/// Which of a level's tiles, or which bundle, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// N.
    pub index: u64,
    /// Hashes, or entries: 1 to 256.
    pub width: u64,
}

impl Place {
    /// Reads `x001/x234/067` or `x001/x234/067.p/5`; there is one spelling of each.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, width) = match text.split_once(".p/") {
            None => (text, WIDTH),
            Some((number, width)) => (number, width.parse().ok().filter(|w| *w < WIDTH)?),
        };
        let mut index: u64 = 0;
        for group in number.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let digits: u64 = digits.parse().ok()?;
            index = index.checked_mul(1000)?.checked_add(digits)?;
        }
        let place = Self { index, width };
        (width > 0 && place.end().is_some() && place.to_string() == text).then_some(place)
    }

    /// The first hash or entry.
    pub const fn start(&self) -> u64 {
        self.index.saturating_mul(WIDTH)
    }

    /// The first one behind it; none where there cannot be so many.
    pub fn end(&self) -> Option<u64> {
        let start = self.index.checked_mul(WIDTH)?;
        start.checked_add(self.width)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut number = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            number = format!("x{:03}/{number}", rest % 1000);
            rest /= 1000;
        }
        f.write_str(&number)?;
        if self.width < WIDTH {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

/// A tile of hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// L.
    pub level: u8,
    /// N and W.
    pub place: Place,
}

impl Tile {
    /// Reads level and place; none where no tree has such a tile.
    pub fn parse(level: &str, place: &str) -> Option<Self> {
        let number: u8 = level.parse().ok()?;
        let tile = Self {
            level: number,
            place: Place::parse(place)?,
        };
        (number < LEVELS && number.to_string() == level).then_some(tile)
    }

    /// The complete subtree whose hash stands first in it.
    pub const fn first(&self) -> Node {
        Node {
            level: self.level * 8,
            index: self.place.start(),
        }
    }

    /// Whether a tree of so many leaves has all of its hashes.
    pub fn is_in(&self, size: u64) -> bool {
        self.place
            .end()
            .is_some_and(|end| end <= size >> (self.level * 8))
    }
}

impl std::fmt::Display for Tile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.level, self.place)
    }
}

/// Entries as a bundle: each with its length before it, in 16 bits, big-endian. None where one is too long for
/// that.
pub fn bundle<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for entry in entries {
        out.extend(u16::try_from(entry.len()).ok()?.to_be_bytes());
        out.extend_from_slice(entry);
    }
    Some(out)
}

/// The entries of a bundle; none where it is cut.
pub fn entries(mut bundle: &[u8]) -> Option<Vec<&[u8]>> {
    let mut out = Vec::new();
    while !bundle.is_empty() {
        let (length, rest) = bundle.split_first_chunk::<2>()?;
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        out.push(entry);
        bundle = rest;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_spelling() {
        for (text, index, width) in [
            ("000", 0, 256),
            ("067", 67, 256),
            ("x001/000", 1000, 256),
            // The example of the specification.
            ("x001/x234/067", 1_234_067, 256),
            ("x001/x234/067.p/5", 1_234_067, 5),
            ("000.p/255", 0, 255),
        ] {
            let place = Place { index, width };
            assert_eq!(Place::parse(text), Some(place), "{text}");
            assert_eq!(place.to_string(), text);
        }
        for bad in [
            "",
            "0",
            "00",
            "0000",
            "x000/001",
            "x001",
            "001/002",
            "x1/000",
            "000.p/",
            "000.p/0",
            "000.p/256",
            "000.p/01",
            "000.p/+1",
            "000/",
            "/000",
            "../000",
            "x-01/000",
            "0x1",
            "000.p/1.p/1",
            "x999/x999/x999/x999/x999/x999/x999/999",
            "x072/x057/x594/x037/x927/936",
        ] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
        let tile = Tile::parse("1", "x001/000.p/7").unwrap();
        assert_eq!(tile.to_string(), "1/x001/000.p/7");
        assert_eq!((tile.first().level, tile.first().index), (8, 256_000));
        for level in ["", "-1", "8", "01", "64", "entries"] {
            assert_eq!(Tile::parse(level, "000"), None, "{level}");
        }
    }

    #[test]
    fn a_tile_is_there_when_all_its_hashes_are() {
        let tile = |level, place| Tile::parse(level, place).unwrap();
        assert!(tile("0", "000.p/5").is_in(5) && !tile("0", "000.p/6").is_in(5));
        assert!(!tile("0", "000").is_in(255) && tile("0", "000").is_in(256));
        assert!(tile("1", "000.p/1").is_in(256) && !tile("1", "000.p/1").is_in(255));
        assert!(tile("0", "001.p/1").is_in(257) && !tile("0", "001.p/1").is_in(256));
    }

    #[test]
    fn a_bundle_gives_back_what_was_put_in_and_shows_a_cut() {
        let long = vec![7; ENTRY_MAX];
        let given: [&[u8]; 4] = [b"a", b"", &long, b"bc"];
        let text = bundle(given).unwrap();
        assert_eq!(entries(&text).unwrap(), given);
        assert_eq!(entries(&[]).unwrap(), Vec::<&[u8]>::new());
        for cut in [1, 2, 4, text.len() - 1] {
            assert!(entries(&text[..cut]).is_none_or(|e| e.len() < 4), "{cut}");
        }
        let longer = vec![7; ENTRY_MAX + 1];
        assert_eq!(bundle([longer.as_slice()]), None);
    }
}
