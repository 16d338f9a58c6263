//! Years of finished requests, written by the store's own code.
//!
//! One real request is published and archived; then its rows and leaves are written again and again
//! under new ids, through the same `broker::store` calls by which the daemon moves what is finished.

use anyhow::{Context as _, anyhow};
use broker::{
    audit::tree::Tree,
    store::{
        Batch, Store as _, Table, history,
        redb::{Options, Redb},
    },
};
use std::path::Path;

/// As the daemon has it.
const CACHE: usize = 8 << 20;
/// Requests written in one commit.
const CHUNK: u64 = 1000;
/// Leaves that stay in the live store, as in the daemon.
const LEAVES_KEPT: u64 = 2000;
const TABLES: [Table; 3] = [Table("request"), Table("credential"), Table("idempotency")];

/// Writes `count` finished requests with their leaves. The daemon must not run.
pub(crate) async fn fill(data: &Path, count: u64) -> anyhow::Result<()> {
    let live = Redb::open(data.join("live.redb"), Options::new(CACHE))?;
    let history = Redb::open(
        data.join("history.redb"),
        Options::new(CACHE).quick_repair(),
    )?;
    let tree = Tree::load(&history)?;
    let [requests, credentials, idempotency] = TABLES;
    let (id, sample) = history
        .range(requests, b"", None, 1)?
        .pop()
        .context("no finished request in the history yet")?;
    let id = <[u8; 16]>::try_from(id.as_slice())?;
    let old = text(id);
    let record = String::from_utf8(sample.value)?;
    let leaves: Vec<String> = live
        .log_read(0, usize::MAX)?
        .into_iter()
        .filter_map(|(_, leaf)| String::from_utf8(leaf).ok())
        .filter(|leaf| leaf.contains(&old))
        .collect();
    if leaves.is_empty() {
        return Err(anyhow!("no leaves of the sample"));
    }
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut done = 0;
    while done < count {
        let chunk = CHUNK.min(count - done);
        let (mut rows, mut log) = (Batch::new(), Batch::new());
        for n in done..done + chunk {
            // Time-ordered, as real ids are: a counter where the milliseconds stand, years earlier.
            let mut fresh = id;
            for (to, from) in fresh
                .iter_mut()
                .zip((0x0100_0000_0000 + n).to_be_bytes().iter().skip(2))
            {
                *to = *from;
            }
            let name = text(fresh);
            rows = rows.create(requests, fresh, record.replace(&old, &name));
            for table in [credentials, idempotency] {
                let mut key = Vec::with_capacity(32);
                while key.len() < 32 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    key.extend_from_slice(&random.to_be_bytes());
                }
                rows = rows.create(table, key, fresh);
            }
            for leaf in &leaves {
                log = log.append(leaf.replace(&old, &name));
            }
        }
        history.commit(rows).await?;
        live.commit(log).await?;
        tree.catch_up_into(&live, &history).await?;
        history::move_log(&live, &history, LEAVES_KEPT).await?;
        done += chunk;
    }
    Ok(())
}

/// A UUID's bytes as text.
fn text(id: [u8; 16]) -> String {
    let mut out = String::new();
    for (at, byte) in id.iter().enumerate() {
        if [4, 6, 8, 10].contains(&at) {
            out.push('-');
        }
        out.push_str(&proto::digest::hex(&[*byte]));
    }
    out
}
