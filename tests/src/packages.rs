//! Small packages to publish.

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Writes an npm package into `dir` (made if absent); `extra` is merged into its `package.json`.
pub fn npm_package(dir: &Path, name: &str, version: &str, extra: &Value) -> anyhow::Result<()> {
    fs::create_dir_all(dir)?;
    let mut manifest = json!({
        "name": name,
        "version": version,
        "description": "A package of the tests",
        "license": "MIT",
        "main": "index.js",
        "files": ["index.js"],
    });
    if let (Some(manifest), Some(extra)) = (manifest.as_object_mut(), extra.as_object()) {
        manifest.extend(extra.clone());
    }
    fs::write(
        dir.join("package.json"),
        serde_json::to_vec_pretty(&manifest)?,
    )?;
    fs::write(
        dir.join("index.js"),
        format!("module.exports = {};\n", json!(format!("{name}@{version}"))),
    )?;
    Ok(fs::write(dir.join("README.md"), format!("# {name}\n"))?)
}

/// Writes the `.npmrc` that points npm and pnpm at `registry` (an URL without a slash at the end) with `token`.
pub fn npmrc(dir: &Path, registry: &str, token: &str) -> anyhow::Result<()> {
    let host = registry
        .split_once("://")
        .map_or(registry, |(_, rest)| rest);
    Ok(fs::write(
        dir.join(".npmrc"),
        format!(
            "registry={registry}/\n//{host}/:_authToken={token}\nupdate-notifier=false\naudit=false\nfund=false\n"
        ),
    )?)
}

/// The bytes of a `.tgz` with exactly these entries, in this order: also the ones that no honest client writes
/// (repeated names, absolute names, `..`).
pub fn tarball(entries: &[(&str, &[u8])]) -> anyhow::Result<Vec<u8>> {
    packed(entries, Compression::default())
}

/// The same without compression: entries of one length give archives of one length.
pub fn stored_tarball(entries: &[(&str, &[u8])]) -> anyhow::Result<Vec<u8>> {
    packed(entries, Compression::none())
}

fn packed(entries: &[(&str, &[u8])], level: Compression) -> anyhow::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), level));
    for (name, bytes) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len().try_into()?);
        header.set_mode(0o644);
        // Written by hand, since `append_data` refuses the names that an attacker wants.
        let field = &mut header.as_old_mut().name;
        for (to, from) in field.iter_mut().zip(name.as_bytes()) {
            *to = *from;
        }
        header.set_cksum();
        tar.append(&header, *bytes)?;
    }
    Ok(tar.into_inner()?.finish()?)
}

/// An archive of version 1.0.0 of a package with this readme.
pub fn with_readme(name: &str, readme: &str) -> anyhow::Result<Vec<u8>> {
    let manifest = json!({"name": name, "version": "1.0.0"}).to_string();
    tarball(&[
        ("package/package.json", manifest.as_bytes()),
        ("package/README.md", readme.as_bytes()),
    ])
}
