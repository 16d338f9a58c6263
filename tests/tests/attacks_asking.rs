//! Attacks by whoever asks: tokens, callers, the bytes behind an approval. Rows 1 to 20, 25, 26 and 54, against the
//! real broker.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panic, as the tests do"
)]

mod attacks_asking {
    mod upstream;

    mod bytes;
    mod callers;
    mod doors;
    mod tokens;
}
