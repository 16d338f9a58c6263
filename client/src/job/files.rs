//! Files as they are, for servers that take one as the body of a request: hashed, and handed over to the broker by
//! ourselves or by the user's own command.

use super::{
    tarball::digest_of,
    tool::{Plan, loopback},
};
use crate::{
    edge::{self, Env},
    fail::Failure,
    http,
};
use proto::{
    digest::Algorithm,
    ids::RegistryId,
    problem::Problem,
    request::{File, Item},
    text::harmless,
};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

/// Most bytes of one file; the broker's own limit.
const FILE_MAX: u64 = 320 << 20;
/// Most bytes of the broker's reply.
const REPLY_MAX: usize = 64 * 1024;
/// How long one upload may take: the broker publishes and reads back meanwhile.
const UPLOAD_TIME: Duration = Duration::from_mins(12);

/// Files of one version of a package.
pub(crate) fn read(
    named: &str,
    paths: &[PathBuf],
    registry: &RegistryId,
) -> Result<(Item, Vec<PathBuf>), Failure> {
    let parts = named
        .rsplit_once('@')
        .and_then(|(name, version)| Some((name.parse().ok()?, version.parse().ok()?)));
    let (package, version) = parts.ok_or_else(|| {
        Failure::usage(
            format!("'{}' is not a package and a version.", harmless(named)),
            "Write it like acme/app@1.4.2.",
        )
    })?;
    let (mut files, mut places) = (Vec::new(), Vec::new());
    for path in paths {
        let place = std::path::absolute(path).map_err(|e| Failure::file(path, &e))?;
        let name = place.file_name().and_then(|n| n.to_str());
        let Some(name) = name.filter(|_| place.is_file()) else {
            return Err(Failure::usage(
                format!("{} is not a file with a plain name.", path.display()),
                "With --as, give the files themselves.",
            ));
        };
        let (size, digest) = digest_of(&place, Algorithm::Sha256)?;
        files.push(File {
            name: name.to_owned(),
            size,
            digest,
        });
        places.push(place);
    }
    let item = Item {
        registry: registry.clone(),
        package,
        version,
        tag: None,
        files,
    };
    Ok((item, places))
}

/// Where an item's files go at the broker, without a slash at the end.
fn folder(item: &Item, endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    format!("{endpoint}/files/{}/{}", item.package, item.version)
}

/// The user's command. It learns where files go from `UPLOAD_URL`; curl finds the credential by itself, others in
/// `UPLOAD_TOKEN`.
pub(crate) fn plan(
    command: &[String],
    item: &Item,
    endpoint: &str,
    credential: &str,
    env: &Env,
) -> Result<Plan, Failure> {
    let url = http::web_address(endpoint, "registry address that the broker gave")?;
    let files = tempfile::Builder::new()
        .prefix("countersign-")
        .tempdir()
        .map_err(|e| Failure::file(&std::env::temp_dir(), &e))?;
    // `fail`: curl exits 0 for a refusal otherwise.
    let mut settings = format!("fail-with-body\nheader = \"Authorization: Bearer {credential}\"\n");
    if let Some(ca) = env.get("COUNTERSIGN_CA") {
        let quoted = ca.replace('\\', "\\\\").replace('"', "\\\"");
        settings.extend(["cacert = \"", &quoted, "\"\n"]);
    }
    edge::write_private(&files.path().join(".curlrc"), settings.as_bytes())?;
    let mut set: Vec<(String, OsString)> = vec![
        ("CURL_HOME".to_owned(), files.path().into()),
        ("UPLOAD_URL".to_owned(), folder(item, endpoint).into()),
        ("UPLOAD_TOKEN".to_owned(), credential.into()),
    ];
    set.extend(loopback(&url, env));
    let plan = Plan::environment(command, Vec::new(), None, set, env)?;
    Ok(plan.keeping(files))
}

/// Hands one file over to the broker's registry endpoint. `Some` says why it was not published; what counts is
/// what the broker says afterwards.
pub(crate) async fn upload(
    (item, file, path): (&Item, &File, &Path),
    endpoint: &str,
    credential: &str,
    ca: Option<&Path>,
) -> Result<Option<String>, Failure> {
    let address = format!("{}/{}", folder(item, endpoint), file.name);
    let url = http::web_address(&address, "registry address that the broker gave")?;
    let sent = http::build(&url, ca)?
        .put(url)
        .bearer_auth(credential)
        .timeout(UPLOAD_TIME)
        .body(edge::read_capped(path, FILE_MAX)?)
        .send()
        .await;
    let response = match sent {
        Ok(response) => response,
        Err(e) => return Ok(Some(format!("the upload broke off ({})", http::cause(&e)))),
    };
    let status = response.status();
    if status.is_success() {
        return Ok(None);
    }
    let body = http::read(response, REPLY_MAX).await?;
    let said = serde_json::from_slice::<Problem>(&body)
        .map_or_else(|_| String::new(), |p| format!(": {}", harmless(&p.title)));
    Ok(Some(format!("the broker answered {status}{said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_themselves_and_what_is_none_is_refused_with_usage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.tgz");
        std::fs::write(&path, "x").unwrap();
        let registry = "files".parse().unwrap();
        let (item, places) = read("@acme/app@1.0", std::slice::from_ref(&path), &registry).unwrap();
        assert_eq!(item.name(), "files:@acme/app@1.0");
        assert_eq!(
            (item.files[0].name.as_str(), item.files[0].size),
            ("app.tgz", 1)
        );
        assert_eq!(places.first(), Some(&path));
        for (named, path) in [
            ("acme/app", path.as_path()),
            ("acme/app@", &path),
            ("a b@1", &path),
            ("acme/app@1", dir.path()),
            ("acme/app@1", Path::new("/no/such/file")),
        ] {
            let refused = read(named, &[path.to_owned()], &registry);
            assert_eq!(refused.unwrap_err().exit as u8, 2, "{named}");
        }
    }

    #[test]
    fn attack_41_the_credential_is_in_no_argument() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.tgz");
        std::fs::write(&path, "x").unwrap();
        let (item, _) = read("acme/app@1.0", &[path], &"files".parse().unwrap()).unwrap();
        let command = ["curl".to_owned(), "-T".to_owned()];
        let endpoint = "http://127.0.0.1:9/";
        let plan = plan(&command, &item, endpoint, "csc_canary", &Env::default()).unwrap();
        let clear = |a: &OsString| !a.to_string_lossy().contains("csc_canary");
        assert!(plan.args().iter().all(clear));
        assert_eq!(
            plan.set()["UPLOAD_URL"],
            "http://127.0.0.1:9/files/acme/app/1.0"
        );
    }
}
