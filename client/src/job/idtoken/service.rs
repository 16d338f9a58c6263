//! Tokens that the CI's own service or program hands out on request, for the audience that we name.

use crate::{fail::Failure, http};
use serde::Deserialize;
use std::{process::Stdio, time::Duration};
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

/// Most bytes of the CI service's reply.
const REPLY_MAX: usize = 64 * 1024;
/// How long the CI may take.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Deserialize)]
struct GithubReply {
    value: String,
}

/// GitHub Actions: a request with the job's own bearer.
pub(super) async fn github(
    url: &str,
    token: &str,
    audience: &str,
) -> Result<Zeroizing<String>, Failure> {
    let mut url = http::web_address(url, "ACTIONS_ID_TOKEN_REQUEST_URL")?;
    url.query_pairs_mut().append_pair("audience", audience);
    let fail = |why: String| {
        Failure::failed(
            format!("The CI service gave no token: {why}."),
            "Check `permissions: id-token: write`, and run the job again.",
        )
    };
    let response = http::build(&url, None)?
        .get(url)
        .bearer_auth(token)
        .timeout(Duration::from_secs(20))
        .send()
        .await
        .map_err(|e| fail(http::cause(&e)))?;
    let status = response.status();
    let body = Zeroizing::new(http::read(response, REPLY_MAX).await?);
    if !status.is_success() {
        return Err(fail(format!("it answered {status}")));
    }
    serde_json::from_slice::<GithubReply>(&body)
        .map(|r| Zeroizing::new(r.value))
        .map_err(|_| fail("its reply is not understood".to_owned()))
}

/// CircleCI: its command line inside a job. The token in the environment names the organisation as its
/// audience, so whoever sees it could show it to others; it is not used.
pub(super) async fn circleci(audience: &str) -> Result<Zeroizing<String>, Failure> {
    let claims = serde_json::json!({ "aud": audience }).to_string();
    program("circleci", &["run", "oidc", "get", "--claims", &claims]).await
}

/// Buildkite: its agent's command line. Slugs can be given to another pipeline, so the ids are asked for.
pub(super) async fn buildkite(audience: &str) -> Result<Zeroizing<String>, Failure> {
    let ids = "organization_id,pipeline_id";
    let args = [
        "oidc",
        "request-token",
        "--audience",
        audience,
        "--claim",
        ids,
        "--lifetime",
        "300",
    ];
    program("buildkite-agent", &args).await
}

/// What a program of the CI prints is the token. It never stands in an argument or in our output.
async fn program(name: &str, args: &[&str]) -> Result<Zeroizing<String>, Failure> {
    let fail = |why: String| {
        Failure::failed(
            format!("'{name}' gave no id token: {why}."),
            "It is a part of the CI's own runner; run the job again, or set COUNTERSIGN_ID_TOKEN.",
        )
    };
    let mut child = tokio::process::Command::new(name)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| fail(format!("it cannot be started: {e}")))?;
    let mut printed = Zeroizing::new(Vec::new());
    let told = async {
        if let Some(out) = child.stdout.take() {
            let mut out = out.take(REPLY_MAX as u64 + 1);
            out.read_to_end(&mut printed).await?;
        }
        child.wait().await
    };
    let status = tokio::time::timeout(PATIENCE, told)
        .await
        .map_err(|_| fail(format!("it said nothing for {} s", PATIENCE.as_secs())))?
        .map_err(|e| fail(e.to_string()))?;
    if !status.success() {
        return Err(fail(format!("it ended with {status}")));
    }
    let token = std::str::from_utf8(&printed).unwrap_or_default().trim();
    let is_token = token.split('.').count() == 3 && !token.contains(char::is_whitespace);
    if !is_token || printed.len() > REPLY_MAX {
        return Err(fail("what it printed is no token".to_owned()));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_token_from_a_program_that_succeeded_is_taken() {
        let sh = async |script: &str| program("sh", &["-c", script]).await;
        assert_eq!(sh("echo a.b.c").await.unwrap().as_str(), "a.b.c");
        for bad in [
            "echo a.b.c; exit 1",
            "true",
            "echo no token",
            "echo a.b; echo c.d",
            "head -c 100000 /dev/zero",
        ] {
            let failure = sh(bad).await.unwrap_err();
            assert_eq!(failure.exit as u8, 1, "{bad}");
            assert!(!failure.what.contains("a.b"), "a token is never repeated");
        }
        assert!(program("/does/not/exist", &[]).await.is_err());
    }
}
