//! Registries' own second factors that are asked for right now: one task each, and the page that people
//! are shown. In memory alone: after a restart the registry is asked again and names a new page.

use proto::{ids::RequestId, time::UnixTime};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use url::Url;

/// Pause between two tasks for the same file, in seconds.
const PAUSE: u64 = 3;

/// A file of a request: item and file, both from 0.
type Place = (RequestId, (u32, u32));

/// What is asked for.
#[derive(Default)]
pub struct Factors(Mutex<BTreeMap<Place, Asking>>);

#[derive(Default)]
struct Asking {
    running: bool,
    next: UnixTime,
    page: Option<Url>,
}

impl Factors {
    /// Whether the caller may begin; then he must [`Factors::end`].
    #[must_use]
    pub fn begin(&self, id: RequestId, file: (u32, u32), now: UnixTime) -> bool {
        self.with(|map| {
            let entry = map.entry((id, file)).or_default();
            let go = !entry.running && now >= entry.next;
            if go {
                entry.running = true;
            }
            go
        })
    }

    /// The task is over.
    pub fn end(&self, id: RequestId, file: (u32, u32), now: UnixTime) {
        self.with(|map| {
            if let Some(entry) = map.get_mut(&(id, file)) {
                *entry = Asking {
                    next: now.after(PAUSE),
                    ..Asking::default()
                };
            }
        });
    }

    /// Whether a task asks for it.
    pub fn busy(&self, id: RequestId, file: (u32, u32)) -> bool {
        self.with(|map| map.get(&(id, file)).is_some_and(|e| e.running))
    }

    /// The page for people; `None` when it is over.
    pub fn show(&self, id: RequestId, file: (u32, u32), page: Option<Url>) {
        self.with(|map| {
            if let Some(entry) = map.get_mut(&(id, file)) {
                entry.page = page;
            }
        });
    }

    /// The page that people are shown.
    pub fn page(&self, id: RequestId, file: (u32, u32)) -> Option<Url> {
        self.with(|map| map.get(&(id, file))?.page.clone())
    }

    /// The file is published, or its request is over.
    pub fn forget(&self, id: RequestId, file: (u32, u32)) {
        self.with(|map| map.remove(&(id, file)));
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<Place, Asking>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_task_a_file_and_its_page_ends_with_it() {
        let (factors, id, file) = (
            Factors::default(),
            RequestId(uuid::Uuid::from_u128(1)),
            (0, 0),
        );
        assert!(factors.begin(id, file, UnixTime(10)));
        assert!(factors.busy(id, file) && !factors.begin(id, file, UnixTime(99)));
        assert!(factors.begin(id, (0, 1), UnixTime(10)), "another file");
        let page: Url = "https://www.example/a".parse().unwrap();
        factors.show(id, file, Some(page.clone()));
        assert_eq!(factors.page(id, file), Some(page));
        factors.end(id, file, UnixTime(20));
        assert_eq!(factors.page(id, file), None);
        assert!(!factors.busy(id, file) && !factors.begin(id, file, UnixTime(22)));
        assert!(factors.begin(id, file, UnixTime(23)));
        factors.forget(id, file);
        assert!(!factors.busy(id, file));
    }
}
