//! Crates: packed by cargo, read for what they are, and handed over to the broker, which makes the publish of
//! them. cargo itself would need the broker as its registry, and names it in no workspace (`--registry` fails
//! there for crates that depend on each other).

use super::{
    order::{self, Needs},
    tarball::digest_of,
    tool::{Plan, is_withheld, loopback},
};
use crate::{edge::Env, fail::Failure, http};
use flate2::read::GzDecoder;
use proto::{
    digest::Algorithm,
    ids::RegistryId,
    request::{File, Item},
    text::harmless,
};
use serde::Deserialize;
use std::{
    ffi::OsString,
    io::Read as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

/// Most bytes of a `.crate`; the public registry's own limit.
const CRATE_MAX: u64 = 10 << 20;
/// Most bytes that one may unpack to before its Cargo.toml is given up.
const UNPACKED_MAX: u64 = 512 << 20;
/// Most bytes of a Cargo.toml.
const MANIFEST_MAX: u64 = 1 << 20;
/// Most bytes of the broker's reply.
const REPLY_MAX: usize = 64 * 1024;
/// The name by which cargo is told of the broker.
const NAME: &str = "countersign";
/// How long one upload may take: the broker publishes and reads back meanwhile.
const UPLOAD_TIME: Duration = Duration::from_mins(5);

/// Whether a path is a `.crate`, or a folder that cargo packs.
pub(crate) fn is_crate(path: &Path) -> bool {
    is_file(path) || (path.join("Cargo.toml").is_file() && !path.join("package.json").exists())
}

/// Whether a path is named like a `.crate`.
pub(crate) fn is_file(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "crate")
}

/// Reads name, version and digest of a `.crate`.
pub(crate) fn read(path: &Path, registry: &RegistryId) -> Result<(Item, PathBuf), Failure> {
    let path = std::path::absolute(path).map_err(|e| Failure::file(path, &e))?;
    let bad = |why: &str| {
        Failure::usage(
            format!("{} is no crate: {why}.", path.display()),
            "Give a .crate made by `cargo package`, or the folder with its Cargo.toml.",
        )
    };
    let (size, digest) = digest_of(&path, Algorithm::Sha256)?;
    if size > CRATE_MAX {
        return Err(bad("it is larger than 10 MiB"));
    }
    let (folder, manifest) = manifest_of(&path)?;
    let field = |name: &str| {
        let package = manifest.get("package");
        package
            .and_then(|p| p.get(name))
            .and_then(toml::Value::as_str)
    };
    let (Some(name), Some(version)) = (field("name"), field("version")) else {
        return Err(bad("its Cargo.toml has no name or no version"));
    };
    if folder != format!("{name}-{version}") {
        return Err(bad("its folder is not named after its Cargo.toml"));
    }
    let item = Item {
        registry: registry.clone(),
        package: name.parse().map_err(|_| bad("its name is none"))?,
        version: version.parse().map_err(|_| bad("its version is none"))?,
        tag: None,
        files: vec![File {
            name: format!("{folder}.crate"),
            size,
            digest,
        }],
    };
    Ok((item, path))
}

/// The root folder's name, and the Cargo.toml in it.
fn manifest_of(path: &Path) -> Result<(String, toml::Table), Failure> {
    let bad = || {
        Failure::usage(
            format!("{} is no crate: it cannot be unpacked.", path.display()),
            "Give a .crate made by `cargo package`.",
        )
    };
    let file = std::fs::File::open(path).map_err(|e| Failure::file(path, &e))?;
    let mut archive =
        tar::Archive::new(GzDecoder::new(std::io::BufReader::new(file)).take(UNPACKED_MAX));
    let mut found = None;
    for entry in archive.entries().map_err(|_| bad())? {
        let entry = entry.map_err(|_| bad())?;
        let name = entry.path().map_err(|_| bad())?.into_owned();
        let parts: Vec<_> = name.iter().filter_map(|p| p.to_str()).collect();
        let [folder, "Cargo.toml"] = parts.as_slice() else {
            continue;
        };
        let folder = (*folder).to_owned();
        let mut text = String::new();
        let mut entry = entry.take(MANIFEST_MAX);
        entry.read_to_string(&mut text).map_err(|_| bad())?;
        // Two of them mean that two readers may see two crates.
        if found.replace((folder, text)).is_some() {
            return Err(bad());
        }
    }
    let (folder, text) = found.ok_or_else(bad)?;
    Ok((folder, text.parse().map_err(|_| bad())?))
}

/// What `cargo metadata` says of a workspace, as far as it is needed.
#[derive(Deserialize)]
struct Workspace {
    packages: Vec<Package>,
    workspace_default_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    manifest_path: PathBuf,
    /// `None`: anywhere; empty: nowhere.
    publish: Option<Vec<String>>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<PathBuf>,
}

/// Packs a folder's crate, or all that a workspace publishes, into `into`; the `.crate` files, each behind
/// those that it depends on.
pub(crate) async fn pack(
    folder: &Path,
    into: &Path,
    verify: bool,
    env: &Env,
) -> Result<Vec<PathBuf>, Failure> {
    let described = ["metadata", "--no-deps", "--format-version", "1"];
    let text = cargo(folder, &described, env).await?;
    let workspace: Workspace = serde_json::from_slice(&text).map_err(|e| {
        Failure::failed(
            format!("cargo's description of the workspace is not understood: {e}."),
            "Pack it yourself and give the .crate files.",
        )
    })?;
    let chosen = in_order(chosen(&workspace, folder)?)?;
    let target = into.display().to_string();
    let mut args = vec!["package", "--target-dir", &target];
    if !verify {
        args.push("--no-verify");
    }
    for package in &chosen {
        args.extend(["--package", &package.name]);
    }
    cargo(folder, &args, env).await?;
    let file = |p: &&Package| {
        into.join("package")
            .join(format!("{}-{}.crate", p.name, p.version))
    };
    Ok(chosen.iter().map(file).collect())
}

/// The package of the folder, or the default members where the folder has none of its own; never one that
/// says `publish = false`.
fn chosen<'w>(workspace: &'w Workspace, folder: &Path) -> Result<Vec<&'w Package>, Failure> {
    let manifest =
        std::fs::canonicalize(folder.join("Cargo.toml")).map_err(|e| Failure::file(folder, &e))?;
    let own = workspace
        .packages
        .iter()
        .find(|p| std::fs::canonicalize(&p.manifest_path).ok().as_ref() == Some(&manifest));
    let private = |p: &Package| p.publish.as_ref().is_some_and(Vec::is_empty);
    let chosen: Vec<_> = match own {
        Some(own) => vec![own],
        None => workspace
            .packages
            .iter()
            .filter(|p| workspace.workspace_default_members.contains(&p.id))
            .collect(),
    };
    let chosen: Vec<_> = chosen.into_iter().filter(|p| !private(p)).collect();
    if chosen.is_empty() {
        return Err(Failure::usage(
            format!("{} has no crate that may be published.", folder.display()),
            "Look for `publish = false` in its Cargo.toml.",
        ));
    }
    Ok(chosen)
}

impl Needs for &Package {
    fn name(&self) -> &str {
        &self.name
    }
    /// What only tests need may form a circle, and does not count.
    fn needs(&self, name: &str) -> bool {
        self.dependencies
            .iter()
            .any(|d| d.name == name && d.path.is_some() && d.kind.as_deref() != Some("dev"))
    }
}

/// Each behind those that it depends on.
fn in_order(chosen: Vec<&Package>) -> Result<Vec<&Package>, Failure> {
    let (ordered, circle) = order::in_order(chosen);
    if circle.is_empty() {
        return Ok(ordered);
    }
    Err(Failure::usage(
        "The workspace's crates depend on each other in a circle.",
        "Publish them one by one.",
    ))
}

/// Runs cargo; its standard output. What it says of its progress goes to standard error. Packing builds the
/// crate, and with it the build scripts of all that it depends on: they see nothing of ours (attack 41).
async fn cargo(folder: &Path, args: &[&str], env: &Env) -> Result<Vec<u8>, Failure> {
    let mut command = tokio::process::Command::new("cargo");
    for name in env.names().filter(|n| is_withheld(n)) {
        command.env_remove(name);
    }
    let output = command
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| {
            Failure::failed(
                format!("'cargo' cannot be started: {e}."),
                "Install it, or pack the crate elsewhere and give the .crate file.",
            )
        })?
        .wait_with_output()
        .await
        .map_err(|e| Failure::failed(format!("cargo: {e}."), "Run the command again."))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let command = args.first().copied().unwrap_or_default();
    Err(Failure::failed(
        format!("`cargo {command}` failed ({}).", output.status),
        "Read cargo's output above.",
    ))
}

/// The user's command, with the broker as a registry named `countersign`; `cargo publish` is told to use it.
pub(crate) fn plan(
    command: &[String],
    folder: Option<&Path>,
    endpoint: &str,
    credential: &str,
    env: &Env,
) -> Result<Plan, Failure> {
    let index = format!("sparse+{}/index/", endpoint.trim_end_matches('/'));
    let address = http::web_address(endpoint, "registry address that the broker gave")?;
    let mut args = Vec::new();
    let named = ["--registry", "--index"];
    let names_one = command
        .iter()
        .any(|w| named.iter().any(|n| w.split('=').next() == Some(n)));
    let is_cargo = command.first().is_some_and(|program| {
        Path::new(program).file_stem().and_then(|s| s.to_str()) == Some("cargo")
    });
    if is_cargo && command.iter().any(|w| w == "publish") && !names_one {
        args.extend(["--registry", NAME].map(OsString::from));
    }
    let upper = NAME.to_uppercase();
    let mut set: Vec<(String, OsString)> = vec![
        (format!("CARGO_REGISTRIES_{upper}_INDEX"), index.into()),
        (format!("CARGO_REGISTRIES_{upper}_TOKEN"), credential.into()),
        // Otherwise a provider in the machine's settings would be asked, and not the variable.
        (
            format!("CARGO_REGISTRIES_{upper}_CREDENTIAL_PROVIDER"),
            "cargo:token".into(),
        ),
        // cargo gives up after 30 s without a byte; the broker publishes and reads back meanwhile.
        ("CARGO_HTTP_TIMEOUT".to_owned(), "300".into()),
    ];
    set.extend(loopback(&address, env));
    if let Some(ca) = env.get("COUNTERSIGN_CA") {
        set.push(("CARGO_HTTP_CAINFO".to_owned(), ca.into()));
    }
    Plan::environment(command, args, folder, set, env)
}

/// Hands one `.crate` over to the broker's registry endpoint. `Some` says why it was not published; what
/// counts is what the broker says afterwards.
pub(crate) async fn upload(
    path: &Path,
    endpoint: &str,
    credential: &str,
    ca: Option<&Path>,
) -> Result<Option<String>, Failure> {
    #[derive(Deserialize)]
    struct Reply {
        errors: Vec<Detail>,
    }
    #[derive(Deserialize)]
    struct Detail {
        detail: String,
    }
    let address = format!("{}/files/crate", endpoint.trim_end_matches('/'));
    let url = http::web_address(&address, "registry address that the broker gave")?;
    let bytes = crate::edge::read_capped(path, CRATE_MAX)?;
    let sent = http::build(&url, ca)?
        .put(url)
        .bearer_auth(credential)
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
    let body = http::read(response, REPLY_MAX).await?;
    let said = serde_json::from_slice::<Reply>(&body)
        .ok()
        .and_then(|r| r.errors.into_iter().next())
        .map_or_else(String::new, |d| format!(": {}", harmless(&d.detail)));
    Ok(Some(format!("the broker answered {status}{said}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tarball;

    fn package(name: &str, on: &[(&str, Option<&str>)]) -> Package {
        let dependency = |(name, kind): &(&str, Option<&str>)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
            path: Some("x".into()),
        };
        Package {
            id: name.to_owned(),
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            manifest_path: "x".into(),
            publish: None,
            dependencies: on.iter().map(dependency).collect(),
        }
    }

    #[test]
    fn a_crate_comes_behind_what_it_depends_on() {
        let all = [
            package("a", &[("c", None), ("b", Some("build"))]),
            package("b", &[("c", None), ("a", Some("dev")), ("b", None)]),
            package("c", &[("serde", None)]),
        ];
        let order = in_order(all.iter().collect()).unwrap();
        let names: Vec<_> = order.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["c", "b", "a"]);
        let circle = [package("a", &[("b", None)]), package("b", &[("a", None)])];
        assert!(in_order(circle.iter().collect()).is_err());
    }

    #[test]
    fn a_crate_is_read_and_what_is_none_is_refused_with_usage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.crate");
        let registry = "crates".parse().unwrap();
        let toml = "[package]\nname = \"acme-left\"\nversion = \"1.4.2\"\n";
        tarball::pack(&path, &[("acme-left-1.4.2/Cargo.toml", toml)]);
        let (item, _) = read(&path, &registry).unwrap();
        assert_eq!(item.name(), "crates:acme-left@1.4.2");
        assert_eq!(item.files[0].name, "acme-left-1.4.2.crate");
        assert_eq!(item.files[0].digest.algorithm(), Algorithm::Sha256);
        assert!(item.tag.is_none());
        for files in [
            vec![("acme-left-1.4.3/Cargo.toml", toml)],
            vec![("Cargo.toml", toml)],
            vec![("acme-left-1.4.2/Cargo.toml", "nonsense")],
            vec![(
                "acme-left-1.4.2/Cargo.toml",
                "[package]\nname = \"acme-left\"\n",
            )],
            vec![
                ("acme-left-1.4.2/Cargo.toml", toml),
                ("acme-left-1.4.2/Cargo.toml", toml),
            ],
            vec![],
        ] {
            tarball::pack(&path, &files);
            assert_eq!(
                read(&path, &registry).unwrap_err().exit as u8,
                2,
                "{files:?}"
            );
        }
    }
}
