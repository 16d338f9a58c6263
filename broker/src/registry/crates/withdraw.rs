//! `cargo yank`: one call without a body (The Cargo Book, "Web API"). The index shows it.

use super::upstream::{Crates, judged};
use crate::{
    registry::{
        BoxFuture, ReadError, Sent, Upstream as _,
        withdraw::{Mark, Withdraw},
    },
    secret::Secret,
};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use std::time::Duration;

impl Crates {
    async fn yank(&self, mark: Mark<'_>, token: &Secret<String>, within: Duration) -> Sent {
        let verb = if mark.undo { "unyank" } else { "yank" };
        // Name and version are those that the index shows: neither has a slash.
        let path = format!("api/v1/crates/{}/{}/{verb}", mark.package, mark.version);
        let value = HeaderValue::from_str(token.expose());
        let (Ok(address), Ok(mut value)) = (self.api.join(&path), value) else {
            return Sent::Unclear;
        };
        value.set_sensitive(true);
        let request = if mark.undo {
            self.client.put(address)
        } else {
            self.client.delete(address)
        };
        let request = request
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, value)
            .timeout(within);
        match request.send().await {
            Ok(reply) => judged(reply, token).await,
            Err(_) => Sent::Unclear,
        }
    }
}

impl Withdraw for Crates {
    fn undoes(&self) -> bool {
        true
    }

    fn tells(&self) -> bool {
        false
    }

    fn rewrites(&self) -> bool {
        false
    }

    fn shows_mark<'a>(
        &'a self,
        mark: Mark<'a>,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Option<bool>, ReadError>> {
        Box::pin(async move {
            let shown = self.shows(mark.package, token).await?;
            let there = shown.versions.contains_key(mark.version);
            let yanked = shown.withdrawn.contains(mark.version);
            Ok(there.then_some(yanked != mark.undo))
        })
    }

    fn send_mark<'a>(
        &'a self,
        mark: Mark<'a>,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Sent> {
        Box::pin(self.yank(mark, token, within))
    }
}
