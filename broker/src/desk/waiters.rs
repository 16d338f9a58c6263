//! Who waits for which request. A waiting client costs a map entry and a task, no thread.

use proto::ids::RequestId;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use tokio::sync::watch;

/// Wakes those who wait for a request's next change.
#[derive(Default)]
pub struct Waiters {
    map: Mutex<HashMap<RequestId, watch::Sender<u64>>>,
}

impl Waiters {
    /// Follows a request. Subscribe first, then read the record: no change is missed between.
    pub fn subscribe(&self, id: RequestId) -> watch::Receiver<u64> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.entry(id)
            .or_insert_with(|| watch::channel(0).0)
            .subscribe()
    }

    /// Tells all who follow; forgets the request when nobody does.
    pub fn notify(&self, id: RequestId, revision: u64) {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = map.get(&id)
            && sender.send(revision).is_err()
        {
            map.remove(&id);
        }
    }

    /// Forgets requests that nobody follows any more.
    pub fn sweep(&self) {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.retain(|_, sender| sender.receiver_count() > 0);
        map.shrink_to_fit();
    }
}
