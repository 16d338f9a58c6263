//! Whose turn it is at a package. Uploads go side by side; a call that says all of the package again goes alone, since
//! a registry that compares no revisions takes away what came between the question and the call.
//!
//! In memory only: what a crash cut off, the requests' own rows tell.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// The turns that are taken.
#[derive(Default)]
pub struct Turns(Mutex<BTreeMap<String, Taken>>);

enum Taken {
    /// By so many uploads.
    Beside(usize),
    /// By one call.
    Alone,
}

/// One of them, until it is dropped.
pub struct Turn<'a> {
    of: &'a Turns,
    package: String,
}

impl Turns {
    /// For an upload; `None` while one goes alone.
    pub fn beside(&self, package: &str) -> Option<Turn<'_>> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match map.entry(package.to_owned()).or_insert(Taken::Beside(0)) {
            Taken::Beside(uploads) => *uploads += 1,
            Taken::Alone => return None,
        }
        Some(self.turn(package))
    }

    /// For a call that says all of the package again; `None` while anything else is on its way.
    pub fn alone(&self, package: &str) -> Option<Turn<'_>> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.contains_key(package) {
            return None;
        }
        map.insert(package.to_owned(), Taken::Alone);
        Some(self.turn(package))
    }

    fn turn(&self, package: &str) -> Turn<'_> {
        let package = package.to_owned();
        Turn { of: self, package }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut map = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        match map.get_mut(&self.package) {
            Some(Taken::Beside(uploads)) if *uploads > 1 => *uploads -= 1,
            _ => drop(map.remove(&self.package)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_go_side_by_side_and_what_says_all_again_goes_alone() {
        let turns = Turns::default();
        let first = turns.beside("npm:left").unwrap();
        let second = turns.beside("npm:left").unwrap();
        assert!(turns.alone("npm:left").is_none());
        drop(first);
        assert!(turns.alone("npm:left").is_none());
        drop(second);
        let alone = turns.alone("npm:left").unwrap();
        assert!(turns.beside("npm:left").is_none());
        assert!(turns.alone("npm:left").is_none());
        // Another package's are its own.
        drop(turns.beside("npm:right").unwrap());
        drop(alone);
        assert!(turns.beside("npm:left").is_some());
        assert!(turns.0.lock().unwrap().is_empty());
    }
}
