//! The token that says which job asks. It identifies; it authorises nothing.
//!
//! Each CI hands it out in its own way: [`Source`] has a line for each. [`service`] asks the CI,
//! [`client_key`] makes one where the CI has none.

mod client_key;
mod service;

use crate::{
    edge::{self, Env},
    fail::Failure,
    http::{Broker, Proof},
};
use proto::api::BrokerStatus;
use std::path::{Path, PathBuf};
use url::Url;
use zeroize::Zeroizing;

pub(crate) use client_key::new_key;

/// Where a Kubernetes pod finds its token, unless COUNTERSIGN_ID_TOKEN_FILE says otherwise.
const MOUNTED: &str = "/var/run/secrets/countersign/token";

/// Where a token can come from, in the order in which they are tried.
#[derive(Debug, PartialEq, Eq)]
enum Source<'e> {
    /// `COUNTERSIGN_ID_TOKEN`: GitLab's `id_tokens` put it there, and any CI can.
    Given(&'e str),
    /// `COUNTERSIGN_CLIENT_KEY`: a file, or its text.
    ClientKey(&'e str),
    /// A file that somebody else writes and renews: a Kubernetes projected volume.
    File(PathBuf),
    /// GitHub Actions: the address and the bearer.
    Github(&'e str, &'e str),
    Circleci,
    Buildkite,
}

impl<'e> Source<'e> {
    fn of(env: &'e Env, mounted: &Path) -> Result<Self, Failure> {
        let is = |name: &str| env.get(name).is_some_and(|v| v == "true");
        if let Some(token) = env.get("COUNTERSIGN_ID_TOKEN") {
            return Ok(Self::Given(token));
        }
        if let Some(key) = env.get("COUNTERSIGN_CLIENT_KEY") {
            return Ok(Self::ClientKey(key));
        }
        if let Some(path) = env.get("COUNTERSIGN_ID_TOKEN_FILE") {
            return Ok(Self::File(path.into()));
        }
        if let (Some(url), Some(bearer)) = (
            env.get("ACTIONS_ID_TOKEN_REQUEST_URL"),
            env.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
        ) {
            return Ok(Self::Github(url, bearer));
        }
        if is("CIRCLECI") {
            return Ok(Self::Circleci);
        }
        if is("BUILDKITE") {
            return Ok(Self::Buildkite);
        }
        if mounted.exists() {
            return Ok(Self::File(mounted.to_owned()));
        }
        let next = if is("GITHUB_ACTIONS") {
            "Give the job `permissions: id-token: write`."
        } else if is("GITLAB_CI") {
            "Give the job `id_tokens: COUNTERSIGN_ID_TOKEN: aud: <the broker's public URL>`."
        } else if env.get("KUBERNETES_SERVICE_HOST").is_some() {
            "Mount a projected serviceAccountToken with the broker's public URL as its audience at \
             /var/run/secrets/countersign/token, or name its file in COUNTERSIGN_ID_TOKEN_FILE."
        } else {
            "In GitHub Actions set `permissions: id-token: write`, in GitLab CI `id_tokens:`; \
             elsewhere set COUNTERSIGN_ID_TOKEN or COUNTERSIGN_CLIENT_KEY."
        };
        Err(Failure::usage("This job has no identity.", next))
    }
}

/// Gets a token from what the environment offers.
pub(crate) async fn obtain(env: &Env, broker: &Broker) -> Result<Zeroizing<String>, Failure> {
    let source = Source::of(env, Path::new(MOUNTED))?;
    // Whoever asks for a token names its audience, so that is found out first (attack 35).
    let audience = async || {
        let status: BrokerStatus = broker.get("/v1/status", Proof::Nobody).await?;
        own_audience(&status.audience, broker.base(), env)
    };
    match source {
        Source::Given(token) => Ok(Zeroizing::new(token.to_owned())),
        Source::File(path) => edge::read_secret(&path),
        Source::ClientKey(key) => client_key::token(key, &audience().await?),
        Source::Github(url, bearer) => service::github(url, bearer, &audience().await?).await,
        Source::Circleci => service::circleci(&audience().await?).await,
        Source::Buildkite => service::buildkite(&audience().await?).await,
    }
}

/// Attack 35: a broker that names somebody else's audience would get a token that works there. So the
/// audience is the broker's own address, or the one that the job's environment names.
fn own_audience(audience: &str, base: &str, env: &Env) -> Result<String, Failure> {
    let origin = |t: &str| Url::parse(t).ok().map(|u| u.origin());
    let same = origin(audience).is_some_and(|o| o.is_tuple() && Some(o) == origin(base));
    if same || env.get("COUNTERSIGN_AUDIENCE") == Some(audience) {
        return Ok(audience.to_owned());
    }
    let audience = proto::text::harmless(audience);
    Err(Failure::refused(
        format!("The broker asks for a token for '{audience}', which is not its own address."),
        "Check --broker; if the audience is right, set COUNTERSIGN_AUDIENCE to it.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_35_a_broker_cannot_ask_for_somebody_elses_token() {
        let env = Env::default();
        assert!(own_audience("https://b.example", "https://b.example", &env).is_ok());
        for bad in [
            "https://cloud.example",
            "sts.amazonaws.com",
            "http://b.example",
            "npm:b.example",
            "",
        ] {
            let f = own_audience(bad, "https://b.example", &env).unwrap_err();
            assert_eq!(f.exit as u8, 5, "{bad}");
        }
        let named = Env::from([("COUNTERSIGN_AUDIENCE", "countersign")]);
        assert!(own_audience("countersign", "https://b.example", &named).is_ok());
    }

    #[test]
    fn each_ci_is_known_by_its_environment_and_a_job_without_an_identity_is_told_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("token");
        let of = |env: &Env| Source::of(env, &none).map(|s| format!("{s:?}"));
        for (pairs, want) in [
            (
                [("COUNTERSIGN_ID_TOKEN", "a.b.c"), ("GITLAB_CI", "true")],
                "Given",
            ),
            (
                [("COUNTERSIGN_CLIENT_KEY", "k"), ("CIRCLECI", "true")],
                "ClientKey",
            ),
            (
                [("COUNTERSIGN_ID_TOKEN_FILE", "f"), ("BUILDKITE", "true")],
                "File",
            ),
            (
                [
                    ("ACTIONS_ID_TOKEN_REQUEST_URL", "u"),
                    ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t"),
                ],
                "Github",
            ),
            (
                [("CIRCLECI", "true"), ("CIRCLE_OIDC_TOKEN_V2", "a.b.c")],
                "Circleci",
            ),
            ([("BUILDKITE", "true"), ("CI", "true")], "Buildkite"),
        ] {
            let got = of(&Env::from(pairs)).unwrap();
            assert!(got.starts_with(want), "{got}");
        }
        for (name, hint) in [
            ("GITHUB_ACTIONS", "permissions"),
            ("GITLAB_CI", "id_tokens"),
            ("KUBERNETES_SERVICE_HOST", "serviceAccountToken"),
            ("CI", "COUNTERSIGN_CLIENT_KEY"),
        ] {
            let failure = of(&Env::from([(name, "true")])).unwrap_err();
            assert_eq!(failure.exit as u8, 2);
            assert!(failure.next.contains(hint), "{name}: {}", failure.next);
        }
        std::fs::write(&none, "a.b.c\n").unwrap();
        assert!(of(&Env::default()).unwrap().starts_with("File"));
    }
}
