//! The registry's own second factor: a page for the key's owner, and a code that the repeated push carries.
//!
//! An account has one page at a time: whoever asks for another ends the first, and who waits for that one asks anew.

use super::upstream::{RubyGems, keyed};
use crate::{
    registry::{
        self, BoxFuture, FactorAsk, FactorSaid, Publish, ReadError, SecondFactor, Sent, factor,
        upstream::{failed, short_reply},
    },
    secret::Secret,
};
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT, CACHE_CONTROL},
};
use serde::Deserialize;
use std::time::Duration;
use zeroize::Zeroizing;

/// How the registry begins when a push needs the second factor.
pub(super) const WANTED: &str = "You have enabled multifactor authentication";
/// How long the public registry's page can be answered. It is called "pending" even afterwards.
const PAGE_LIFE: Duration = Duration::from_mins(2);
/// The page also sends the code to a port of the person's own machine, where the gem program would wait, and
/// opens only when it is told which. Nobody waits there; browsers refuse to connect to this one (discard).
const NO_PORT: &str = "port=9";
/// Longest name of a page.
const NAME_MAX: usize = 64;
/// Seconds between two questions, as the gem program waits.
const PAUSE: u64 = 5;

/// What the registry says of a page.
#[derive(Deserialize)]
struct Outcome {
    status: String,
    #[serde(default)]
    code: Option<String>,
}

impl RubyGems {
    /// What a 401 to a push asks for: the second factor, or nothing that a person could give.
    pub(super) async fn challenged(&self, reply: Response, token: &Secret<String>) -> Sent {
        let refused = |words: &str| Sent::Refused {
            status: StatusCode::UNAUTHORIZED.as_u16(),
            said: registry::upstream::said(words, token),
        };
        let bytes = short_reply(reply).await.unwrap_or_default();
        let said = String::from_utf8_lossy(&bytes).trim().to_owned();
        if !said.starts_with(WANTED) {
            return refused(&format!("{said} (does the stored key cover this gem?)"));
        }
        let why = match self.page(token).await {
            Ok(text) => match self.asked(text.trim()) {
                Some(Ok(ask)) => return Sent::NeedsFactor(ask),
                Some(Err(why)) => return refused(&why.to_string()),
                None => "the registry names no usable page for it",
            },
            Err(ReadError::Status(422)) => "its account has no security device at the registry",
            Err(_) => "the registry does not name a page for it",
        };
        refused(&format!(
            "the stored key needs a second factor of its own for a push, and {why}"
        ))
    }

    /// Asks for a page. It belongs to the key's account, so the key is shown.
    async fn page(&self, token: &Secret<String>) -> Result<String, ReadError> {
        let address = self.base.join("api/v1/webauthn_verification");
        let address = address.map_err(|_| ReadError::NotUnderstood)?;
        let request = self.client.post(address).header(ACCEPT, "text/plain");
        let request = keyed(request.timeout(self.read), token).ok_or(ReadError::NotUnderstood)?;
        let reply = request.send().await.map_err(|e| failed(&e))?;
        match reply.status() {
            StatusCode::OK => {}
            status => return Err(ReadError::Status(status.as_u16())),
        }
        String::from_utf8(short_reply(reply).await?).map_err(|_| ReadError::NotUnderstood)
    }

    /// What people are shown, and where the outcome is asked for: below the configured address, whatever the
    /// page's address is. `None` when that names no page.
    fn asked(&self, page: &str) -> Option<Result<FactorAsk, registry::NotShown>> {
        let mut page: Url = page.parse().ok()?;
        page.set_query(Some(NO_PORT));
        page.set_fragment(None);
        let name = page.path_segments()?.next_back()?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if !(1..=NAME_MAX).contains(&name.len()) || !name.bytes().all(plain) {
            return None;
        }
        let poll = format!("api/v1/webauthn_verification/{name}/status.json");
        let poll = self.base.join(&poll).ok()?;
        let origins = &self.factor_origins;
        let ask = FactorAsk::from_words(page.as_str(), poll.as_str(), &self.base, origins);
        Some(ask.map(|ask| ask.for_at_most(PAGE_LIFE)))
    }

    async fn came_out(
        &self,
        ask: &FactorAsk,
        token: &Secret<String>,
    ) -> Result<FactorSaid, ReadError> {
        let request = self.client.get(ask.poll.clone()).timeout(self.read);
        let request = request
            .header(ACCEPT, "application/json")
            .header(CACHE_CONTROL, "no-cache");
        // The registry tells the key's owner alone.
        let request = keyed(request, token).ok_or(ReadError::NotUnderstood)?;
        let reply = request.send().await.map_err(|e| failed(&e))?;
        match reply.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                return Ok(FactorSaid::Over);
            }
            status => return Err(ReadError::Status(status.as_u16())),
        }
        let bytes = Zeroizing::new(short_reply(reply).await?);
        let said: Outcome = serde_json::from_slice(&bytes).map_err(|_| ReadError::NotUnderstood)?;
        let code = said.code.map(Zeroizing::new);
        match said.status.as_str() {
            "pending" => Ok(FactorSaid::NotYet(factor::pause(Some(PAUSE)))),
            "success" => code
                .and_then(|code| factor::factor(&code))
                .map(FactorSaid::Given)
                .ok_or(ReadError::NotUnderstood),
            "expired" | "not_found" => Ok(FactorSaid::Over),
            _ => Err(ReadError::NotUnderstood),
        }
    }
}

impl SecondFactor for RubyGems {
    fn outcome<'a>(
        &'a self,
        ask: &'a FactorAsk,
        token: &'a Secret<String>,
    ) -> BoxFuture<'a, Result<FactorSaid, ReadError>> {
        Box::pin(self.came_out(ask, token))
    }

    fn publish_with<'a>(
        &'a self,
        publish: &'a mut Publish,
        token: &'a Secret<String>,
        factor: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Sent> {
        Box::pin(self.send(publish, token, Some(factor), within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Address, NotShown, Timeouts, fake::fake};

    fn at(url: Url) -> RubyGems {
        RubyGems::new(Address::at(url), Timeouts::default()).unwrap()
    }

    #[test]
    fn attack_39_a_page_leads_nowhere_but_where_the_configuration_says() {
        let gems = at("https://gems.example/r/".parse().unwrap());
        let ask = gems
            .asked("https://gems.example/webauthn_verification/aB3-_?port=80#x")
            .unwrap()
            .unwrap();
        assert_eq!(
            ask.show.as_str(),
            "https://gems.example/webauthn_verification/aB3-_?port=9"
        );
        assert_eq!(
            ask.poll.as_str(),
            "https://gems.example/r/api/v1/webauthn_verification/aB3-_/status.json"
        );
        for bad in [
            "https://gems.example.evil/webauthn_verification/a",
            "http://gems.example/webauthn_verification/a",
        ] {
            let got = gems.asked(bad).unwrap();
            assert!(matches!(got, Err(NotShown::Origin(_))), "{bad}");
        }
        for bad in [
            "",
            "a",
            "https://gems.example/",
            "https://gems.example/w/..",
            "https://gems.example/w/a%2fb",
            "https://gems.example/w/a;b",
            "mailto:a",
        ] {
            assert!(gems.asked(bad).is_none(), "{bad}");
        }
        let user = gems.asked("https://a@gems.example/w/a").unwrap();
        assert!(matches!(user, Err(NotShown::Address)));
    }

    #[tokio::test]
    async fn the_registry_says_how_it_came_out() {
        let said = async |status: u16, body: &str| {
            let (url, log) = fake(status, &[], body).await;
            let gems = at(url.clone());
            let page = url.join("/w/abc").unwrap();
            let ask = gems.asked(page.as_str()).unwrap().unwrap();
            let token = Secret::new("the-key".to_owned());
            let said = gems.outcome(&ask, &token).await;
            let seen = log.lock().unwrap().clone();
            assert_eq!(
                seen[0].path,
                "/r/api/v1/webauthn_verification/abc/status.json"
            );
            assert_eq!(seen[0].headers["authorization"], "the-key");
            match said {
                Ok(FactorSaid::NotYet(_)) => "not yet".to_owned(),
                Ok(FactorSaid::Given(code)) => format!("given {}", code.expose()),
                Ok(FactorSaid::Over) => "over".to_owned(),
                Err(_) => "?".to_owned(),
            }
        };
        for (status, body, want) in [
            (200, r#"{"status":"pending","message":"wait"}"#, "not yet"),
            (
                200,
                r#"{"status":"success","code":"Uvh6T57t"}"#,
                "given Uvh6T57t",
            ),
            (200, r#"{"status":"success"}"#, "?"),
            (200, r#"{"status":"success","code":"a\r\nb: c"}"#, "?"),
            (200, r#"{"status":"expired"}"#, "over"),
            (200, r#"{"status":"not_found"}"#, "over"),
            (200, r#"{"status":"yes","code":"1"}"#, "?"),
            (200, "<html>", "?"),
            (401, "", "over"),
            (429, "", "?"),
            (500, "", "?"),
        ] {
            assert_eq!(said(status, body).await, want, "{status} {body}");
        }
    }
}
