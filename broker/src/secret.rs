//! The one type for secrets in the daemon.

use zeroize::Zeroize;

/// A secret: wiped when dropped, and without `Debug`, `Display`, `Clone`, `PartialEq` or `Serialize`,
/// so that it cannot reach a log line, an error text or a reply by accident (attack 41).
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes the secret over; the caller wipes other copies.
    pub const fn new(secret: T) -> Self {
        Self(secret)
    }

    /// The one way out. Every use can be found by its name.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
