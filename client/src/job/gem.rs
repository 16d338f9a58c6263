//! Gems: read for what they are, and handed over to the broker, or pushed by the user's own command.

use super::{
    tarball::digest_of,
    tool::{Plan, loopback},
};
use crate::{edge, edge::Env, fail::Failure, http};
use flate2::read::GzDecoder;
use proto::{
    digest::Algorithm,
    gem::Gem,
    ids::RegistryId,
    request::{File, Item},
    text::harmless,
};
use std::{
    ffi::OsString,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// Most bytes of a gem that the broker takes.
const GEM_MAX: u64 = 320 << 20;
/// Most bytes of a gem's metadata, unpacked.
const METADATA_MAX: u64 = 8 << 20;
/// Most bytes of the broker's reply.
const REPLY_MAX: usize = 64 * 1024;
/// How long one upload may take: the broker publishes and reads back meanwhile.
const UPLOAD_TIME: Duration = Duration::from_mins(5);

/// Whether a path is named like a gem.
pub(crate) fn is_gem(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "gem")
}

/// One item for each version that the gems belong to, with its files' paths in the same order.
pub(crate) fn releases(
    paths: &[PathBuf],
    registry: &RegistryId,
) -> Result<Vec<(Item, Vec<PathBuf>)>, Failure> {
    let mut out: Vec<(Item, Vec<PathBuf>)> = Vec::new();
    for path in paths {
        let path = std::path::absolute(path).map_err(|e| Failure::file(path, &e))?;
        let (size, digest) = digest_of(&path, Algorithm::Sha256)?;
        let gem = read(&path)?;
        let file = File {
            name: gem.file_name(),
            size,
            digest,
        };
        let same = |i: &Item| i.package == gem.name && i.version == gem.version;
        if let Some((item, paths)) = out.iter_mut().find(|(i, _)| same(i)) {
            item.files.push(file);
            paths.push(path);
        } else {
            let item = Item {
                registry: registry.clone(),
                package: gem.name,
                version: gem.version,
                tag: None,
                files: vec![file],
            };
            out.push((item, vec![path]));
        }
    }
    Ok(out)
}

/// What a gem says of itself. The broker looks again, and at everything in it.
fn read(path: &Path) -> Result<Gem, Failure> {
    let bad = |why: String| {
        Failure::usage(
            format!("{} is no gem: {why}.", path.display()),
            "Give a .gem made by `gem build`.",
        )
    };
    let broken = || bad("it cannot be unpacked".to_owned());
    let file = std::fs::File::open(path).map_err(|e| Failure::file(path, &e))?;
    let mut archive = tar::Archive::new(std::io::BufReader::new(file));
    let mut found = None;
    // A gem that is cut between its parts is no broken archive. People shall not be asked about it.
    let mut missing = vec![&b"data.tar.gz"[..], b"checksums.yaml.gz"];
    for entry in archive.entries().map_err(|_| broken())? {
        let entry = entry.map_err(|_| broken())?;
        missing.retain(|part| *part != entry.path_bytes().as_ref());
        if entry.path_bytes().as_ref() != b"metadata.gz" {
            continue;
        }
        let mut text = String::new();
        let mut metadata = GzDecoder::new(entry.take(METADATA_MAX)).take(METADATA_MAX);
        metadata.read_to_string(&mut text).map_err(|_| broken())?;
        // Two of them mean that two readers may see two gems.
        if found.replace(text).is_some() {
            return Err(broken());
        }
    }
    let text = found.ok_or_else(broken)?;
    if !missing.is_empty() {
        return Err(bad("it is cut off: a part is missing".to_owned()));
    }
    Gem::read(&text).map_err(|e| bad(e.to_string()))
}

/// The user's command, with the broker as the gem host.
pub(crate) fn plan(
    command: &[String],
    folder: Option<&Path>,
    endpoint: &str,
    credential: &str,
    env: &Env,
) -> Result<Plan, Failure> {
    let address = http::web_address(endpoint, "registry address that the broker gave")?;
    let mut set: Vec<(String, OsString)> = vec![
        (
            "RUBYGEMS_HOST".to_owned(),
            endpoint.trim_end_matches('/').into(),
        ),
        ("GEM_HOST_API_KEY".to_owned(), credential.into()),
    ];
    set.extend(loopback(&address, env));
    if let Some(ca) = env.get("COUNTERSIGN_CA") {
        set.push(("SSL_CERT_FILE".to_owned(), ca.into()));
    }
    Plan::environment(command, Vec::new(), folder, set, env)
}

/// Hands one gem over to the broker's registry endpoint. `Some` says why it was not published; what counts is
/// what the broker says afterwards.
pub(crate) async fn upload(
    path: &Path,
    endpoint: &str,
    credential: &str,
    ca: Option<&Path>,
) -> Result<Option<String>, Failure> {
    let address = format!("{}/api/v1/gems", endpoint.trim_end_matches('/'));
    let url = http::web_address(&address, "registry address that the broker gave")?;
    let bytes = edge::read_capped(path, GEM_MAX)?;
    let sent = http::build(&url, ca)?
        .post(url)
        .bearer_auth(credential)
        .header("content-type", "application/octet-stream")
        .timeout(UPLOAD_TIME)
        .body(bytes)
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
    let said = http::read(response, REPLY_MAX).await?;
    let said = harmless(String::from_utf8_lossy(&said).trim());
    Ok(Some(format!("the broker answered {status}: {said}")))
}
