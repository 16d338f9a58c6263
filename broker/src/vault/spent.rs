//! The ledger of what was given out once. Its row is made in the commit of a reveal or mint, beside
//! the state's change and the audit event.

use crate::store::{Batch, Store, StoreError, Table};
use proto::{ids::RequestId, time::UnixTime};

/// (request, item) → when it was spent.
pub const SPENT: Table = Table("spent");

/// Spends the item of the request: of 100 commits that carry this at once, one goes through and 99
/// end as conflicts (attack 36), whatever the request's state says.
pub fn spend(batch: Batch, id: RequestId, item: u32, now: UnixTime) -> Batch {
    batch.create(SPENT, key(id, item), now.0.to_be_bytes())
}

/// Whether it was spent.
pub fn is_spent(store: &dyn Store, id: RequestId, item: u32) -> Result<bool, StoreError> {
    Ok(store.get(SPENT, &key(id, item))?.is_some())
}

fn key(id: RequestId, item: u32) -> [u8; 20] {
    let mut out = [0; 20];
    let (request, number) = out.split_at_mut(16);
    request.copy_from_slice(id.0.as_bytes());
    number.copy_from_slice(&item.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::CommitError,
        vault::seal::fixtures::{commit, empty_store},
    };

    #[test]
    fn attack_36_an_item_is_spent_once() {
        let (_dir, store) = empty_store();
        let id = RequestId(uuid::Uuid::from_u128(1));
        let spend_it = |item| commit(&store, spend(Batch::new(), id, item, UnixTime(5)));
        assert_eq!(is_spent(&store, id, 0), Ok(false));
        assert!(spend_it(0).is_ok());
        assert!(matches!(
            spend_it(0),
            Err(CommitError::Conflict { table: SPENT, .. })
        ));
        assert!(spend_it(1).is_ok());
        assert_eq!(is_spent(&store, id, 0), Ok(true));
    }
}
