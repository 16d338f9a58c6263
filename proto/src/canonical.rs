//! One byte string for one meaning: what gets hashed or signed is never JSON, whose members may
//! come in any order, but this length-prefixed form.

/// Builds canonical bytes: the domain tag first, then fields in a fixed order.
///
/// Every field is its length as a 64-bit big-endian number and then its bytes, so no two lists of
/// fields share a byte string. A list is its count and then its elements' fields.
#[derive(Debug, Clone)]
pub struct Canonical(Vec<u8>);

impl Canonical {
    /// Starts with a domain tag like `countersign/request/v1`.
    pub fn new(tag: &str) -> Self {
        Self(Vec::with_capacity(512)).text(tag)
    }

    /// Adds raw bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0
            .extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds a text, as UTF-8.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Adds a number: 8 bytes, big-endian, with their length like every field.
    #[must_use]
    pub fn number(self, n: u64) -> Self {
        self.bytes(&n.to_be_bytes())
    }

    /// Adds an optional text: a count of 0 or 1, then the text. Absent and empty differ.
    #[must_use]
    pub fn maybe(self, text: Option<&str>) -> Self {
        match text {
            None => self.number(0),
            Some(t) => self.number(1).text(t),
        }
    }

    /// The bytes.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// SHA-256 of the bytes.
    pub fn sha256(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.0).as_ref(),
        );
        out
    }
}
