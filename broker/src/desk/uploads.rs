//! How many uploads of one request arrive at once: one credential must not fill the disk.

use proto::ids::RequestId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Uploads of one request at once: a batch publishes several packages side by side.
const PER_REQUEST: u32 = 16;

/// Counts uploads on their way.
#[derive(Default, Clone)]
pub struct Uploads(Arc<Mutex<HashMap<RequestId, u32>>>);

/// A place taken; given back when dropped.
pub struct Place {
    uploads: Uploads,
    id: RequestId,
}

impl Uploads {
    /// Takes a place, if there is one.
    pub fn enter(&self, id: RequestId) -> Option<Place> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = map.entry(id).or_default();
        if *count >= PER_REQUEST {
            return None;
        }
        *count += 1;
        Some(Place {
            uploads: self.clone(),
            id,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut map = self
            .uploads
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = map.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                map.remove(&self.id);
            }
        }
    }
}
