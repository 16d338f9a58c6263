//! A real Chromium, with phones in it: each page has its own storage and its own virtual authenticator.

use crate::{driver::Driver, now, people::STEP as STEP_OF_CODES};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use totp_rs::Totp;

/// The browser. It ends with this value.
pub struct Browser(Driver);

impl Browser {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        let (driver, ready) = Driver::start("browser.mjs").await?;
        if ready != json!({"ready": true}) {
            bail!(
                "the browser did not start: {ready}; the tests need Chromium (apt-get install chromium), or COUNTERSIGN_CHROMIUM"
            );
        }
        Ok(Self(driver))
    }

    /// A phone with an authenticator that verifies its user.
    pub async fn phone<'a>(&'a self, name: &'a str) -> anyhow::Result<Page<'a>> {
        self.page(name, json!({})).await
    }

    /// A page with more said about it: `width`, `dark`, `authenticator: false`.
    pub async fn page<'a>(&'a self, name: &'a str, how: Value) -> anyhow::Result<Page<'a>> {
        let page = Page {
            browser: self,
            name,
        };
        page.step("open", how).await?;
        Ok(page)
    }
}

/// One page.
#[derive(Clone, Copy)]
pub struct Page<'a> {
    browser: &'a Browser,
    name: &'a str,
}

impl Page<'_> {
    /// One step of the driver's, with its arguments.
    pub async fn step(&self, what: &str, mut given: Value) -> anyhow::Result<Value> {
        let object = given.as_object_mut().context("arguments are an object")?;
        object.insert("page".into(), self.name.into());
        let done = self.browser.0.step(what, given).await;
        done.with_context(|| format!("on {}", self.name))
    }

    /// Opens an address; gives status and headers of the reply.
    pub async fn goto(&self, url: &str) -> anyhow::Result<Value> {
        self.step("goto", json!({ "url": url })).await
    }

    /// Clicks a button.
    pub async fn click(&self, name: &str) -> anyhow::Result<()> {
        self.step("click", json!({ "name": name })).await.map(drop)
    }

    /// Opens a part that is folded up.
    pub async fn unfold(&self, name: &str) -> anyhow::Result<()> {
        self.step("summary", json!({ "name": name }))
            .await
            .map(drop)
    }

    /// Types into a field.
    pub async fn fill(&self, label: &str, text: &str) -> anyhow::Result<()> {
        let given = json!({ "label": label, "text": text });
        self.step("fill", given).await.map(drop)
    }

    /// Waits until a text is shown; gives all that the page says.
    pub async fn sees(&self, text: &str) -> anyhow::Result<String> {
        let said = self.step("sees", json!({ "text": text })).await?;
        Ok(said.as_str().unwrap_or_default().to_owned())
    }

    /// Runs code inside the page, as somebody who took the page over could.
    pub async fn run(&self, code: &str) -> anyhow::Result<Value> {
        self.step("run", json!({ "code": code })).await
    }

    /// What the page said on its console since the last look.
    pub async fn console(&self) -> anyhow::Result<Vec<String>> {
        Ok(serde_json::from_value(
            self.step("console", json!({})).await?,
        )?)
    }

    /// All that the page says now.
    pub async fn text(&self) -> anyhow::Result<String> {
        let said = self.step("text", json!({})).await?;
        Ok(said.as_str().unwrap_or_default().to_owned())
    }

    /// Cuts this page from the network, or joins it again.
    pub async fn offline(&self, is: bool) -> anyhow::Result<()> {
        self.step("offline", json!({ "is": is })).await.map(drop)
    }

    /// What axe finds that is serious or critical.
    pub async fn axe(&self) -> anyhow::Result<Value> {
        self.step("axe", json!({ "impacts": ["serious", "critical"] }))
            .await
    }

    /// Enrols with an authenticator app by an invite's link; gives the app.
    pub async fn enroll_with_app(&self, link: &str) -> anyhow::Result<Totp> {
        self.goto(link).await?;
        self.click("Go on").await?;
        self.sees("Welcome").await?;
        self.unfold("No passkey").await?;
        let otpauth = self
            .run("document.querySelector('a[href^=\"otpauth:\"]').href")
            .await?;
        let otpauth = otpauth.as_str().context("no otpauth address")?;
        let app = Totp::from_url(otpauth).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        // The code of the step before is spent, so that the current one is still good.
        let code = app.generate(now()? - STEP_OF_CODES).to_string();
        self.fill("The code that the app shows", &code).await?;
        self.click("Enrol with this code").await?;
        self.sees("Nothing waits for you").await?;
        Ok(app)
    }

    /// Enrols with a passkey by an invite's link.
    pub async fn enroll(&self, link: &str) -> anyhow::Result<()> {
        self.goto(link).await?;
        self.click("Go on").await?;
        self.click("Make a passkey").await?;
        self.sees("Inbox").await.map(drop)
    }
}
