//! Runs Python's upload clients, pointed at the broker: twine and uv by themselves, and every other by the
//! environment that it reads.

use super::{
    distribution::is_distribution,
    tool::{Plan, loopback},
};
use crate::{edge::Env, fail::Failure, http};
use proto::text::harmless;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The user name beside a token.
const TOKEN_USER: &str = "__token__";
/// The name by which poetry is told of the broker: `poetry publish -r broker`.
const POETRY_NAME: &str = "BROKER";
/// Flags of the known clients that name another address than the environment does.
const ADDRESS_FLAGS: [&str; 6] = [
    "--repository-url",
    "--publish-url",
    "--index-url",
    "--repository",
    "--repo",
    "-r",
];

/// Where uploads go at the broker's registry endpoint.
pub(crate) fn upload_url(endpoint: &str) -> String {
    format!("{}/legacy/", endpoint.trim_end_matches('/'))
}

/// Where uploads go, and with what.
pub(crate) struct There<'a> {
    /// The upload address.
    pub(crate) url: String,
    /// The user name beside the credential.
    pub(crate) user: String,
    /// The credential.
    pub(crate) credential: &'a str,
}

/// The command that uploads these files to the broker: the user's, or the first client that is installed.
pub(crate) fn plan(
    command: &[String],
    folder: Option<&Path>,
    files: &[PathBuf],
    endpoint: &str,
    credential: &str,
    env: &Env,
) -> Result<Plan, Failure> {
    let there = There {
        url: upload_url(endpoint),
        user: TOKEN_USER.to_owned(),
        credential,
    };
    plan_there(command, folder, files, &there, env)
}

/// The same, to any address.
pub(crate) fn plan_there(
    command: &[String],
    folder: Option<&Path>,
    files: &[PathBuf],
    there: &There<'_>,
    env: &Env,
) -> Result<Plan, Failure> {
    let There {
        url,
        user,
        credential,
    } = there;
    let credential = *credential;
    let address = http::web_address(url, "registry address that the broker gave")?;
    let words = if command.is_empty() {
        found(env)?
    } else {
        command.to_vec()
    };
    refuse_elsewhere(&words, url)?;
    let mut args = Vec::new();
    let takes_files = match words
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [program, "upload", ..] => is(program, "twine"),
        [program, "publish", ..] => is(program, "uv"),
        _ => false,
    };
    if takes_files && !words.iter().any(|w| is_distribution(Path::new(w))) {
        args.extend(files.iter().map(OsString::from));
    }
    let mut set: Vec<(String, OsString)> = [
        ("TWINE_REPOSITORY_URL", url.as_str()),
        ("TWINE_USERNAME", user.as_str()),
        ("TWINE_PASSWORD", credential),
        ("TWINE_NON_INTERACTIVE", "1"),
        ("UV_PUBLISH_URL", url),
        ("FLIT_INDEX_URL", url),
        ("FLIT_USERNAME", user.as_str()),
        ("FLIT_PASSWORD", credential),
        ("HATCH_INDEX_REPO", url),
        ("HATCH_INDEX_USER", user.as_str()),
        ("HATCH_INDEX_AUTH", credential),
        ("PDM_PUBLISH_REPO", url),
        ("PDM_PUBLISH_USERNAME", user.as_str()),
        ("PDM_PUBLISH_PASSWORD", credential),
        ("MATURIN_REPOSITORY_URL", url),
        ("MATURIN_PYPI_TOKEN", credential),
    ]
    .map(|(name, value)| (name.to_owned(), value.into()))
    .into();
    // uv takes a token or a name with a password, and not both.
    if user == TOKEN_USER {
        set.push(("UV_PUBLISH_TOKEN".into(), credential.into()));
    } else {
        set.push(("UV_PUBLISH_USERNAME".into(), user.into()));
        set.push(("UV_PUBLISH_PASSWORD".into(), credential.into()));
    }
    set.push((
        format!("POETRY_REPOSITORIES_{POETRY_NAME}_URL"),
        url.clone().into(),
    ));
    set.push((
        format!("POETRY_PYPI_TOKEN_{POETRY_NAME}"),
        credential.into(),
    ));
    set.extend(loopback(&address, env));
    if let Some(ca) = env.get("COUNTERSIGN_CA") {
        for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "TWINE_CERT"] {
            set.push((name.to_owned(), ca.into()));
        }
    }
    Plan::environment(&words, args, folder, set, env)
}

/// Variables of Python's clients that name another registry or another credential.
pub(crate) fn is_withheld(lower: &str) -> bool {
    [
        "twine_repository",
        "twine_username",
        "twine_password",
        "uv_publish_",
        "uv_index",
        "uv_keyring",
        "flit_",
        "hatch_index_",
        "pdm_publish_",
        "maturin_pypi_token",
        "maturin_repository",
        "maturin_username",
        "maturin_password",
        "poetry_repositories_",
        "poetry_pypi_token_",
        "poetry_http_basic_",
        "pypi_id_token",
    ]
    .iter()
    .any(|start| lower.starts_with(start))
}

/// `twine upload` or `uv publish`, whichever is found first.
fn found(env: &Env) -> Result<Vec<String>, Failure> {
    let path = env.get("PATH").unwrap_or_default();
    let installed =
        |program: &str| std::env::split_paths(path).any(|dir| dir.join(program).is_file());
    for words in [["twine", "upload"], ["uv", "publish"]] {
        if words.first().is_some_and(|program| installed(program)) {
            return Ok(words.map(str::to_owned).into());
        }
    }
    Err(Failure::usage(
        "Neither twine nor uv is found in PATH.",
        "Install one, or name another client after `--`.",
    ))
}

/// A flag of the command that names another address beats the environment: the upload would go past the
/// broker, which is harmless for the registry (there is no credential for it) and confusing for people.
fn refuse_elsewhere(words: &[String], url: &str) -> Result<(), Failure> {
    let want = url.trim_end_matches('/');
    let mut named = Vec::new();
    for (at, word) in words.iter().enumerate() {
        for flag in ADDRESS_FLAGS {
            if let Some(value) = word.strip_prefix(flag).and_then(|v| v.strip_prefix('=')) {
                named.push(value);
            } else if word == flag {
                named.extend(words.get(at + 1).map(String::as_str));
            }
        }
    }
    match named
        .into_iter()
        .find(|v| v.contains("://") && v.trim_end_matches('/') != want)
    {
        None => Ok(()),
        Some(value) => Err(Failure::usage(
            format!(
                "The command names {}, which would publish past the broker.",
                harmless(value)
            ),
            "Leave the address out; the broker gives it.",
        )),
    }
}

fn is(program: &str, name: &str) -> bool {
    Path::new(program).file_stem().and_then(|s| s.to_str()) == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: &str = "http://127.0.0.1:9/";
    const CREDENTIAL: &str = "csc_canary";

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn made(command: &str, env: &Env) -> Result<Plan, Failure> {
        let files = [PathBuf::from("/d/acme_demo-1.0.0.tar.gz")];
        plan(&words(command), None, &files, ENDPOINT, CREDENTIAL, env)
    }

    #[test]
    fn files_are_added_where_a_client_wants_them_and_none_is_named() {
        for (command, want) in [
            ("twine upload", true),
            ("/x/bin/twine upload --verbose", true),
            ("uv publish", true),
            ("twine upload other/acme_demo-1.0.0.tar.gz", false),
            ("hatch publish -n", false),
            ("make release", false),
        ] {
            let plan = made(command, &Env::default()).unwrap();
            let added = plan.args().iter().any(|a| a == "/d/acme_demo-1.0.0.tar.gz");
            assert_eq!(added, want, "{command}");
        }
    }

    #[test]
    fn attack_41_the_credential_is_in_the_environment_and_in_no_argument() {
        let plan = made("twine upload", &Env::default()).unwrap();
        assert!(
            !plan
                .args()
                .iter()
                .any(|a| a.to_string_lossy().contains(CREDENTIAL))
        );
        let set = plan.set();
        assert_eq!(set["TWINE_PASSWORD"], CREDENTIAL);
        assert_eq!(set["TWINE_REPOSITORY_URL"], "http://127.0.0.1:9/legacy/");
        assert_eq!(set["NO_PROXY"], "127.0.0.1");
    }

    #[test]
    fn what_names_another_registry_is_withheld_or_refused() {
        for name in [
            "TWINE_REPOSITORY",
            "TWINE_PASSWORD",
            "UV_PUBLISH_PASSWORD",
            "UV_PUBLISH_INDEX",
            "HATCH_INDEX_AUTH",
            "POETRY_HTTP_BASIC_X_PASSWORD",
        ] {
            assert!(is_withheld(&name.to_ascii_lowercase()), "{name}");
        }
        assert!(!is_withheld("uv_cache_dir") && !is_withheld("twine_cert"));
        for bad in [
            "twine upload --repository-url https://other.example/legacy/",
            "uv publish --publish-url=https://other.example/legacy/",
            "hatch publish -r https://other.example/legacy/",
        ] {
            let refused = made(bad, &Env::default()).err().unwrap();
            assert_eq!(refused.exit as u8, 2, "{bad}");
        }
        for good in [
            "twine upload --repository-url http://127.0.0.1:9/legacy/",
            "poetry publish -r broker",
        ] {
            assert!(made(good, &Env::default()).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_client_is_found_or_named_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let env = Env::from([("PATH", path.as_str())]);
        let none = plan(&[], None, &[], ENDPOINT, CREDENTIAL, &env)
            .err()
            .unwrap();
        assert_eq!(none.exit as u8, 2);
        std::fs::write(dir.path().join("uv"), "").unwrap();
        assert_eq!(found(&env).unwrap(), ["uv", "publish"]);
        std::fs::write(dir.path().join("twine"), "").unwrap();
        assert_eq!(found(&env).unwrap(), ["twine", "upload"]);
    }
}
