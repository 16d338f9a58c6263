//! Images and other artifacts in an OCI layout (a folder with `index.json` and `blobs/`): read for what a tag will
//! stand for, and pushed by skopeo or by the user's own client.
//!
//! What is approved is the manifest, and everything that it refers to: each is a file named after its place in the
//! repository.

use super::{
    tarball::digest_of,
    tool::{Plan, loopback},
};
use crate::{
    edge::{self, Env},
    fail::Failure,
    http,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    digest::{Algorithm, Digest, hex},
    ids::{PackageName, RegistryId, VersionText},
    request::{File, Item},
    text::harmless,
};
use serde::Deserialize;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// The user name beside a credential.
const USER: &str = "countersign";
/// Longest manifest or index, in bytes.
const MANIFEST_MAX: u64 = 4 << 20;
/// What the index of a layout calls its images.
const NAMED: &str = "org.opencontainers.image.ref.name";

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
struct Descriptor {
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// Whether an item is pushed to an OCI registry.
pub(crate) fn is_image(item: &Item) -> bool {
    let tagged = format!("manifests/{}", item.version);
    item.files.iter().any(|f| f.name == tagged)
}

/// What `NAME:TAG` will be, from a layout; the files in the order in which they are pushed.
pub(crate) fn read(
    reference: &Path,
    layout: &Path,
    registry: &RegistryId,
) -> Result<(Item, Vec<PathBuf>), Failure> {
    let layout = std::path::absolute(layout).map_err(|e| Failure::file(layout, &e))?;
    let (package, tag) = named(reference)?;
    let top = chosen(&layout, tag.as_str())?;
    let mut files = Vec::new();
    let manifest = manifest(&layout, &top)?;
    for child in &manifest.manifests {
        blobs(&layout, &self::manifest(&layout, child)?, &mut files)?;
    }
    blobs(&layout, &manifest, &mut files)?;
    for child in &manifest.manifests {
        add(&layout, "manifests", child, &mut files)?;
    }
    let path = place(&layout, &top.digest);
    files.push((
        File {
            name: format!("manifests/{tag}"),
            size: top.size,
            digest: top.digest,
        },
        path,
    ));
    let (files, paths) = files.into_iter().unzip();
    let item = Item {
        registry: registry.clone(),
        package,
        version: tag,
        tag: None,
        files,
    };
    Ok((item, paths))
}

fn named(reference: &Path) -> Result<(PackageName, VersionText), Failure> {
    let text = reference.to_str().unwrap_or_default();
    let parts = text
        .rsplit_once(':')
        .and_then(|(name, tag)| Some((name.parse().ok()?, tag.parse().ok()?)));
    parts.ok_or_else(|| {
        Failure::usage(
            format!("'{}' is not a repository and a tag.", harmless(text)),
            "Write it like acme/app:1.4.2, without the registry's address.",
        )
    })
}

/// The layout's only image, or the one that it calls by the tag.
fn chosen(layout: &Path, tag: &str) -> Result<Descriptor, Failure> {
    let path = layout.join("index.json");
    let index = parsed(&edge::read_capped(&path, MANIFEST_MAX)?, &path)?;
    let own = |d: &&Descriptor| d.annotations.get(NAMED).is_some_and(|name| name == tag);
    let mut all = index.manifests.iter();
    match (index.manifests.as_slice(), all.find(own)) {
        ([one], _) | (_, Some(one)) => Ok(one.clone()),
        _ => Err(Failure::usage(
            format!(
                "{} has several images, and none is called {tag}.",
                layout.display()
            ),
            "Call it by the tag (umoci tag, skopeo copy … oci:FOLDER:TAG), or give a layout with one image.",
        )),
    }
}

fn manifest(layout: &Path, of: &Descriptor) -> Result<Manifest, Failure> {
    let path = place(layout, &of.digest);
    let bytes = edge::read_capped(&path, MANIFEST_MAX)?;
    if Digest::of(Algorithm::Sha256, &bytes) != of.digest {
        return Err(damaged(&path));
    }
    parsed(&bytes, &path)
}

fn parsed(bytes: &[u8], path: &Path) -> Result<Manifest, Failure> {
    serde_json::from_slice(bytes).map_err(|e| {
        Failure::usage(
            format!("{} is not what an OCI layout has ({e}).", path.display()),
            "Give a folder that skopeo, umoci, buildah or docker buildx wrote (type=oci, unpacked).",
        )
    })
}

/// What a manifest refers to beside other manifests.
fn blobs(
    layout: &Path,
    manifest: &Manifest,
    files: &mut Vec<(File, PathBuf)>,
) -> Result<(), Failure> {
    let all = manifest.layers.iter().chain(&manifest.config);
    all.into_iter()
        .try_for_each(|blob| add(layout, "blobs", blob, files))
}

/// Adds one file, once, with the digest and size of what lies there.
fn add(
    layout: &Path,
    folder: &str,
    of: &Descriptor,
    files: &mut Vec<(File, PathBuf)>,
) -> Result<(), Failure> {
    let name = format!("{folder}/{}", of.digest);
    if files.iter().any(|(file, _)| file.name == name) {
        return Ok(());
    }
    let path = place(layout, &of.digest);
    let (size, digest) = digest_of(&path, Algorithm::Sha256)?;
    if digest != of.digest || size != of.size {
        return Err(damaged(&path));
    }
    files.push((File { name, size, digest }, path));
    Ok(())
}

fn place(layout: &Path, digest: &Digest) -> PathBuf {
    let folder = layout.join("blobs").join(digest.algorithm().name());
    folder.join(hex(digest.as_bytes()))
}

fn damaged(path: &Path) -> Failure {
    Failure::usage(
        format!("{} is not what its name says.", path.display()),
        "Write the layout anew.",
    )
}

/// The command that pushes one image: skopeo, or the user's. The credential lies in a file of its own, in the form
/// that both docker's and podman's family read.
pub(crate) fn plan(
    command: &[String],
    folder: Option<&Path>,
    (item, paths): (&Item, &[PathBuf]),
    endpoint: &str,
    credential: &str,
    env: &Env,
) -> Result<Plan, Failure> {
    let url = http::web_address(endpoint, "registry address that the broker gave")?;
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let host = format!("{}{port}", url.host_str().unwrap_or_default());
    let reference = format!("{host}/{}:{}", item.package, item.version);
    let files = tempfile::Builder::new()
        .prefix("countersign-")
        .tempdir()
        .map_err(|e| Failure::file(&std::env::temp_dir(), &e))?;
    let settings = files.path().join("config.json");
    let pair = Zeroizing::new(format!("{USER}:{credential}"));
    let pair = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    let text = serde_json::json!({"auths": {host: {"auth": pair.as_str()}}});
    let text = Zeroizing::new(text.to_string());
    edge::write_private(&settings, text.as_bytes())?;
    let ca = env.get("COUNTERSIGN_CA");
    let mut set: Vec<(String, OsString)> = vec![
        ("REGISTRY_AUTH_FILE".to_owned(), settings.clone().into()),
        ("DOCKER_CONFIG".to_owned(), files.path().into()),
        ("OCI_REFERENCE".to_owned(), reference.clone().into()),
    ];
    set.extend(ca.map(|ca| ("SSL_CERT_FILE".to_owned(), ca.into())));
    set.extend(loopback(&url, env));
    if !command.is_empty() {
        let plan = Plan::environment(command, Vec::new(), folder, set, env)?;
        return Ok(plan.keeping(files));
    }
    // `blobs/sha256/…` lies in the layout.
    let layout = paths.first().and_then(|path| path.ancestors().nth(3));
    let layout = layout.ok_or_else(|| {
        Failure::failed(
            "The image's layout is not known here.",
            "Open a new request.",
        )
    })?;
    let words = ["skopeo", "copy", "--all", "--preserve-digests"].map(str::to_owned);
    let mut args: Vec<OsString> = vec!["--dest-authfile".into(), settings.into()];
    if url.scheme() == "http" {
        args.push("--dest-tls-verify=false".into());
    }
    if let Some(ca) = ca {
        let certificates = files.path().join("certs");
        std::fs::create_dir(&certificates).map_err(|e| Failure::file(&certificates, &e))?;
        let own = certificates.join("ca.crt");
        std::fs::copy(ca, &own).map_err(|e| Failure::file(Path::new(ca), &e))?;
        args.extend(["--dest-cert-dir".into(), certificates.into()]);
    }
    args.push(source(layout, item)?.into());
    args.push(format!("docker://{reference}").into());
    // From inside the layout, since its path may hold a colon.
    let plan = Plan::environment(&words, args, Some(layout), set, env)?;
    Ok(plan.keeping(files))
}

/// How skopeo names the image in the layout that is its working folder.
fn source(layout: &Path, item: &Item) -> Result<String, Failure> {
    let top = chosen(layout, item.version.as_str())?;
    Ok(match top.annotations.get(NAMED) {
        Some(name) => format!("oci:.:{name}"),
        None => "oci:.".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn put(layout: &Path, bytes: &[u8]) -> Value {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let path = place(layout, &digest);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        json!({"mediaType": "x", "digest": digest.to_string(), "size": bytes.len()})
    }

    fn image(layout: &Path, layer: &[u8]) -> Value {
        let config = put(layout, b"{}");
        let layer = put(layout, layer);
        put(
            layout,
            json!({"schemaVersion": 2, "config": config, "layers": [layer]})
                .to_string()
                .as_bytes(),
        )
    }

    fn index(layout: &Path, mut entries: Vec<(Value, Option<&str>)>) {
        for (entry, name) in &mut entries {
            if let Some(name) = name {
                entry["annotations"] = json!({NAMED: name});
            }
        }
        let entries: Vec<_> = entries.into_iter().map(|(entry, _)| entry).collect();
        let text = json!({"schemaVersion": 2, "manifests": entries}).to_string();
        std::fs::write(layout.join("index.json"), text).unwrap();
    }

    fn of(layout: &Path, reference: &str) -> Result<Item, Failure> {
        read(Path::new(reference), layout, &"oci".parse().unwrap()).map(|(item, _)| item)
    }

    #[test]
    fn an_image_and_an_index_are_read_with_everything_they_refer_to() {
        let dir = tempfile::tempdir().unwrap();
        let layout = dir.path();
        let (one, two) = (image(layout, b"one"), image(layout, b"two"));
        index(layout, vec![(one.clone(), None)]);
        let item = of(layout, "acme/app:1.0").unwrap();
        assert_eq!(item.name(), "oci:acme/app@1.0");
        let names: Vec<_> = item.files.iter().map(|f| f.name.clone()).collect();
        assert_eq!(names.len(), 3);
        assert_eq!(names[2], "manifests/1.0");
        assert!(is_image(&item));

        let both = json!({"schemaVersion": 2, "manifests": [one, two]}).to_string();
        let both = put(layout, both.as_bytes());
        index(layout, vec![(one, Some("0.9")), (both, Some("1.0"))]);
        let item = of(layout, "acme/app:1.0").unwrap();
        // Two layers, one shared configuration, two manifests, and the index last.
        assert_eq!(item.files.len(), 6);
        assert_eq!(item.files[5].name, "manifests/1.0");
        assert_eq!(of(layout, "acme/app:0.9").unwrap().files.len(), 3);
        assert_eq!(of(layout, "acme/app:2.0").unwrap_err().exit as u8, 2);
        for bad in ["acme/app", "acme/app:", ":1.0", "acme/app:1 0"] {
            assert_eq!(of(layout, bad).unwrap_err().exit as u8, 2, "{bad}");
        }
    }

    #[test]
    fn a_layout_that_was_changed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let one = image(dir.path(), b"one");
        index(dir.path(), vec![(one, None)]);
        let layer = place(dir.path(), &Digest::of(Algorithm::Sha256, b"one"));
        std::fs::write(layer, b"two").unwrap();
        assert_eq!(of(dir.path(), "acme/app:1.0").unwrap_err().exit as u8, 2);
    }

    #[test]
    fn attack_41_the_credential_is_in_a_file_and_in_no_argument() {
        let dir = tempfile::tempdir().unwrap();
        let one = image(dir.path(), b"one");
        index(dir.path(), vec![(one, None)]);
        let registry = "oci".parse().unwrap();
        let read = read(Path::new("acme/app:1.0"), dir.path(), &registry).unwrap();
        for command in [vec![], vec!["crane".to_owned(), "push".to_owned()]] {
            let own = (&read.0, read.1.as_slice());
            let endpoint = "http://127.0.0.1:9/";
            let plan = plan(&command, None, own, endpoint, "csc_canary", &Env::default()).unwrap();
            let clear = |a: &OsString| !a.to_string_lossy().contains("csc_canary");
            assert!(plan.args().iter().all(clear));
            let set = plan.set();
            assert!(set.values().all(|v| clear(v)));
            assert_eq!(set["OCI_REFERENCE"], "127.0.0.1:9/acme/app:1.0");
            let settings = std::fs::read_to_string(set["REGISTRY_AUTH_FILE"]).unwrap();
            assert!(settings.contains(&STANDARD.encode("countersign:csc_canary")));
        }
    }
}
