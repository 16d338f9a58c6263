//! A real Firefox, with a push service of its own on this machine.

use crate::{driver::Driver, now};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use totp_rs::Totp;

/// The browser with its one page. It ends with this value.
pub struct Firefox {
    /// The push service's origin.
    pub push: String,
    driver: Driver,
}

impl Firefox {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        let (driver, ready) = Driver::start("firefox.mjs").await?;
        let Some(push) = ready.get("push").and_then(Value::as_str) else {
            bail!(
                "Firefox did not start; the tests need it (apt-get install firefox-esr), or COUNTERSIGN_FIREFOX"
            );
        };
        Ok(Self {
            push: push.to_owned(),
            driver,
        })
    }

    /// One step of the driver's, with its arguments.
    pub async fn step(&self, what: &str, given: Value) -> anyhow::Result<Value> {
        self.driver.step(what, given).await
    }

    /// Opens an address.
    pub async fn goto(&self, url: &str) -> anyhow::Result<()> {
        self.step("goto", json!({ "url": url })).await.map(drop)
    }

    /// Clicks a button.
    pub async fn click(&self, name: &str) -> anyhow::Result<()> {
        self.step("click", json!({ "name": name })).await.map(drop)
    }

    /// Waits for a text, and gives what the page says then.
    pub async fn sees(&self, text: &str) -> anyhow::Result<String> {
        let said = self.step("sees", json!({ "text": text })).await?;
        Ok(said.as_str().unwrap_or_default().to_owned())
    }

    /// Runs code inside the page.
    pub async fn run(&self, code: &str) -> anyhow::Result<Value> {
        self.step("run", json!({ "code": code })).await
    }

    /// The notifications that are shown, once there are so many.
    pub async fn notifications(&self, count: usize) -> anyhow::Result<Vec<Value>> {
        let shown = self
            .step("notifications", json!({ "count": count }))
            .await?;
        Ok(serde_json::from_value(shown)?)
    }

    /// Enrols with an authenticator app by an invite's link.
    pub async fn enroll(&self, link: &str) -> anyhow::Result<()> {
        self.goto(link).await?;
        self.click("Go on").await?;
        self.sees("Welcome").await?;
        let open = "document.querySelectorAll('details').forEach((d) => { d.open = true; })";
        self.run(open).await?;
        let link = self
            .run("document.querySelector('a[href^=otpauth]').href")
            .await?;
        let totp = Totp::from_url(link.as_str().context("an otpauth link")?);
        let totp = totp.map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let code = totp.generate(now()?).to_string();
        let field = json!({ "field": "code", "text": code });
        self.step("fill", field).await?;
        self.click("Enrol with this code").await?;
        self.sees("Inbox").await.map(drop)
    }
}
