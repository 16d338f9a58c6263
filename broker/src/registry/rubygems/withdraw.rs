//! `gem yank`: one call for each platform of a version. What is yanked is gone from the index, and does not come back.

use super::upstream::{RubyGems, judged, keyed};
use crate::{
    registry::{
        BoxFuture, ReadError, Sent, Upstream as _,
        withdraw::{Mark, Withdraw},
    },
    secret::Secret,
};
use reqwest::{StatusCode, header::CONTENT_TYPE};
use std::{collections::BTreeSet, time::Duration};

impl RubyGems {
    async fn yank(&self, mark: Mark<'_>, token: &Secret<String>, within: Duration) -> Sent {
        let Ok(shown) = self.shows(mark.package, Some(token)).await else {
            return Sent::Unclear;
        };
        let files = shown.versions.get(mark.version).into_iter().flatten();
        let stem = format!("{}-{}", mark.package, mark.version);
        let platforms: BTreeSet<_> = files
            .filter_map(|file| {
                let rest = file.name.as_deref()?.strip_prefix(&stem)?;
                let platform = rest.strip_suffix(".gem")?;
                Some(platform.strip_prefix('-').unwrap_or("ruby").to_owned())
            })
            .collect();
        // Without a call nothing is yanked: what the registry shows decides, at the next look.
        if platforms.is_empty() {
            return Sent::Unclear;
        }
        for platform in platforms {
            match self.yank_one(mark, &platform, token, within).await {
                Sent::Accepted => {}
                other => return other,
            }
        }
        Sent::Accepted
    }

    async fn yank_one(
        &self,
        mark: Mark<'_>,
        platform: &str,
        token: &Secret<String>,
        within: Duration,
    ) -> Sent {
        let Ok(address) = self.base.join("api/v1/gems/yank") else {
            return Sent::Unclear;
        };
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("gem_name", mark.package.as_str())
            .append_pair("version", mark.version.as_str())
            .append_pair("platform", platform)
            .finish();
        let request = self
            .client
            .delete(address)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .timeout(within)
            .body(form);
        let Some(request) = keyed(request, token) else {
            return Sent::Unclear;
        };
        match request.send().await {
            Ok(reply) if reply.status() == StatusCode::UNAUTHORIZED => Sent::Refused {
                status: 401,
                said: "the key may not yank, or wants a code: gem yank, with your own key"
                    .to_owned(),
            },
            Ok(reply) => judged(reply, token).await,
            Err(_) => Sent::Unclear,
        }
    }
}

impl Withdraw for RubyGems {
    fn undoes(&self) -> bool {
        false
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
        _: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Option<bool>, ReadError>> {
        Box::pin(async move {
            // A gem whose versions were all yanked still has its text. None at all is a hidden gem, another registry or
            // a page that fails: no sign of a yank.
            let shown = self.listed(mark.package).await?;
            let shown = shown.ok_or(ReadError::Status(StatusCode::NOT_FOUND.as_u16()))?;
            // What is yanked is not shown; that it was there is known from when it was asked for.
            let there = shown
                .versions
                .get(mark.version)
                .is_some_and(|f| !f.is_empty());
            Ok(Some(!there))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Address, Timeouts, fake::fake};

    #[tokio::test]
    async fn what_is_not_shown_is_believed_as_yanked_only_where_the_gem_is_and_no_call_is_no_yes() {
        let (package, version) = ("acme-left".parse().unwrap(), "1.0.0".parse().unwrap());
        let mark = Mark {
            package: &package,
            version: &version,
            message: None,
            undo: false,
        };
        let token = Secret::new("rubygems_canary".to_owned());
        for (status, body, want) in [
            (404, "no such gem", None),
            (200, "---\n", Some(true)),
            (200, "---\n1.1.0 |checksum:\n", Some(true)),
        ] {
            let body = body.replace("checksum:", &format!("checksum:{}", "ab".repeat(32)));
            let (url, log) = fake(status, &[], &body).await;
            let gems = RubyGems::new(Address::at(url), Timeouts::default()).unwrap();
            let shown = gems.shows_mark(mark, None).await;
            assert_eq!(shown.ok().flatten(), want, "{status} {body}");
            let sent = gems.send_mark(mark, &token, Duration::from_secs(5)).await;
            assert_eq!(sent, Sent::Unclear);
            let seen = log.lock().unwrap();
            assert!(seen.iter().all(|s| s.method == "GET"));
        }
    }
}
