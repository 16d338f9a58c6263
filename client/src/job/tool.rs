//! Runs the registry's own client, pointed at the broker.
//!
//! The credential is in a temporary file and in the child's environment, never in an argument, where
//! every process of the machine could read it. Countersign's own secrets are taken out of the child's
//! environment: a package's scripts run there.

use super::tarball::scope_of;
use crate::{
    edge::{self, Env},
    fail::Failure,
    http,
};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};
use tempfile::TempDir;
use url::Url;

/// The clients that are known by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// npm.
    Npm,
    /// pnpm.
    Pnpm,
    /// Yarn.
    Yarn,
    /// Any other command; it gets the environment of all three.
    Other,
}

impl Tool {
    /// By the command's first word; no command means npm.
    pub(crate) fn of(command: &[String]) -> Self {
        let Some(first) = command.first() else {
            return Self::Npm;
        };
        match Path::new(first).file_stem().and_then(|s| s.to_str()) {
            Some("npm") => Self::Npm,
            Some("pnpm") => Self::Pnpm,
            Some("yarn" | "yarnpkg") => Self::Yarn,
            _ => Self::Other,
        }
    }
}

/// Where and with what to publish.
pub(crate) struct Target<'a> {
    /// The broker's registry endpoint.
    pub(crate) registry: &'a str,
    /// The one-shot credential.
    pub(crate) credential: &'a str,
    /// The packages.
    pub(crate) packages: Vec<&'a str>,
    /// The tag, where all packages have the same one.
    pub(crate) tag: Option<&'a str>,
}

/// A child process, before it is started.
pub(crate) struct Plan {
    program: String,
    args: Vec<OsString>,
    set: Vec<(String, OsString)>,
    remove: Vec<String>,
    folder: Option<PathBuf>,
    /// Holds the temporary settings; removed with the plan.
    #[allow(dead_code, reason = "its Drop is what counts")]
    files: Option<TempDir>,
}

impl Plan {
    /// `npm publish <tarball>`.
    pub(crate) fn npm(tarball: &Path, target: &Target<'_>, env: &Env) -> Result<Self, Failure> {
        let words = ["npm".to_owned(), "publish".to_owned()];
        let mut plan = Self::command(&words, None, target, env)?;
        plan.args.insert(1, tarball.into());
        // Scripts of the package must not see the credential.
        plan.args.push("--ignore-scripts".into());
        Ok(plan)
    }

    /// A command of the user, in `folder`.
    pub(crate) fn command(
        words: &[String],
        folder: Option<&Path>,
        target: &Target<'_>,
        env: &Env,
    ) -> Result<Self, Failure> {
        let url = http::web_address(target.registry, "registry address that the broker gave")?;
        let files = tempfile::Builder::new()
            .prefix("countersign-")
            .tempdir()
            .map_err(|e| Failure::file(&std::env::temp_dir(), &e))?;
        let npmrc = files.path().join("npmrc");
        edge::write_private(&npmrc, user_settings(env, target, &url).as_bytes())?;
        let mut plan = Self::bare(words, folder, env)?;
        plan.args.extend(flags(words, target));
        plan.set.extend(environment(target, &url, &npmrc, env));
        plan.files = Some(files);
        Ok(plan)
    }

    /// A command that gets one secret in a variable.
    pub(crate) fn with_secret(
        words: &[String],
        name: &str,
        secret: &str,
        env: &Env,
    ) -> Result<Self, Failure> {
        let mut plan = Self::bare(words, None, env)?;
        plan.set.push((name.to_owned(), secret.into()));
        Ok(plan)
    }

    /// A command that learns everything from its environment, with more arguments at its end.
    pub(crate) fn environment(
        words: &[String],
        args: Vec<OsString>,
        folder: Option<&Path>,
        set: Vec<(String, OsString)>,
        env: &Env,
    ) -> Result<Self, Failure> {
        let mut plan = Self::bare(words, folder, env)?;
        plan.args.extend(args);
        plan.set.extend(set);
        Ok(plan)
    }

    /// Keeps a folder of temporary settings until the plan is gone.
    pub(crate) fn keeping(mut self, files: TempDir) -> Self {
        self.files = Some(files);
        self
    }

    /// Packs a folder with the tool that will publish it.
    pub(crate) fn pack(
        words: &[String],
        folder: &Path,
        into: &Path,
        env: &Env,
    ) -> Result<Self, Failure> {
        let tool = Tool::of(words);
        let program = match (tool, words.first()) {
            (Tool::Other, _) | (_, None) => "npm".to_owned(),
            (_, Some(first)) => first.clone(),
        };
        let mut plan = Self::bare(&[program, "pack".to_owned()], Some(folder), env)?;
        match tool {
            Tool::Yarn => {
                plan.args.push("--out".into());
                plan.args.push(into.join("package.tgz").into());
            }
            Tool::Pnpm => {
                plan.args.push("--pack-destination".into());
                plan.args.push(into.into());
            }
            Tool::Npm | Tool::Other => {
                plan.args.push("--json".into());
                plan.args.push("--pack-destination".into());
                plan.args.push(into.into());
            }
        }
        Ok(plan)
    }

    /// A command that gets nothing of ours.
    pub(crate) fn plain(words: &[String], folder: &Path, env: &Env) -> Result<Self, Failure> {
        Self::bare(words, Some(folder), env)
    }

    fn bare(words: &[String], folder: Option<&Path>, env: &Env) -> Result<Self, Failure> {
        let (program, args) = words
            .split_first()
            .ok_or_else(|| Failure::usage("No command is given.", "Write it after `--`."))?;
        Ok(Self {
            program: program.clone(),
            args: args.iter().map(Into::into).collect(),
            set: Vec::new(),
            remove: env
                .names()
                .filter(|n| is_withheld(n) && !(wants_id_token(words) && is_id_token(n)))
                .map(str::to_owned)
                .collect(),
            folder: folder.map(Path::to_owned),
            files: None,
        })
    }

    /// Its arguments.
    #[cfg(test)]
    pub(crate) fn args(&self) -> &[OsString] {
        &self.args
    }

    /// The variables that it gets.
    #[cfg(test)]
    pub(crate) fn set(&self) -> std::collections::BTreeMap<&str, &OsString> {
        self.set.iter().map(|(k, v)| (k.as_str(), v)).collect()
    }

    /// Runs it. Its output goes to standard error where standard output carries JSON.
    pub(crate) async fn run(&self, output_to_stderr: bool) -> Result<ExitStatus, Failure> {
        let mut command = self.ready();
        if output_to_stderr {
            command.stdout(Stdio::from(std::io::stderr()));
        }
        let status = command.status().await;
        status.map_err(|e| self.not_started(&e))
    }

    /// Runs it for what it prints on standard output.
    pub(crate) async fn output(&self) -> Result<(ExitStatus, Vec<u8>), Failure> {
        let mut command = self.ready();
        command.stderr(Stdio::inherit());
        let done = command.output().await.map_err(|e| self.not_started(&e))?;
        Ok((done.status, done.stdout))
    }

    fn ready(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args);
        for name in &self.remove {
            command.env_remove(name);
        }
        command.envs(self.set.iter().map(|(k, v)| (k, v)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
    }

    fn not_started(&self, error: &std::io::Error) -> Failure {
        Failure::failed(
            format!("'{}' cannot be started: {error}.", self.program),
            "Install it, or name the command after `--`.",
        )
    }
}

/// The right to ask for IdTokens.
fn is_id_token(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    // GitLab's npm takes the second.
    lower.starts_with("actions_id_token_") || lower == "sigstore_id_token"
}

/// A provenance statement is signed with an IdToken of the command's own. It identifies the job to
/// whoever it is made for, and publishes nothing.
fn wants_id_token(words: &[String]) -> bool {
    words
        .iter()
        .any(|w| w == "--provenance" || w == "--provenance=true")
}

/// Variables that no child sees: Countersign's own, the right to ask for IdTokens, and whatever names
/// another registry.
pub(super) fn is_withheld(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.starts_with("countersign_")
        || is_id_token(name)
        || lower.starts_with("circle_oidc_token")
        || lower.ends_with("_id_token")
        || (lower.starts_with("npm_config_")
            && ["registry", "_auth", "userconfig"]
                .iter()
                .any(|w| lower.contains(w)))
        || (lower.starts_with("yarn_npm_")
            && ["registry", "auth"].iter().any(|w| lower.contains(w)))
        || lower == "docker_auth_config"
        || super::python::is_withheld(&lower)
}

/// The flags that a publish command needs, where it is known and does not have them.
fn flags(words: &[String], target: &Target<'_>) -> Vec<OsString> {
    let tool = Tool::of(words);
    if tool == Tool::Other || !words.iter().any(|w| w == "publish") {
        return Vec::new();
    }
    let has = |flag: &str| {
        words
            .iter()
            .any(|w| w == flag || w.strip_prefix(flag).is_some_and(|r| r.starts_with('=')))
    };
    let mut out: Vec<OsString> = Vec::new();
    if tool != Tool::Yarn {
        out.push(format!("--registry={}", target.registry).into());
    }
    if tool == Tool::Npm {
        // A scope's registry in a project's settings beats `--registry`; this flag beats the settings.
        let mut scopes: Vec<_> = target.packages.iter().filter_map(|p| scope_of(p)).collect();
        scopes.sort_unstable();
        scopes.dedup();
        out.extend(
            scopes
                .iter()
                .map(|s| format!("--{s}:registry={}", target.registry).into()),
        );
    }
    if let Some(tag) = target.tag.filter(|_| !has("--tag")) {
        out.push("--tag".into());
        out.push(tag.into());
    }
    out
}

fn environment(target: &Target<'_>, url: &Url, npmrc: &Path, env: &Env) -> Vec<(String, OsString)> {
    let mut out: Vec<(String, OsString)> = vec![
        ("npm_config_userconfig".into(), npmrc.into()),
        ("npm_config_registry".into(), target.registry.into()),
        // The update check would carry the credential to a path that is no publish.
        ("npm_config_update_notifier".into(), "false".into()),
        ("YARN_NPM_REGISTRY_SERVER".into(), target.registry.into()),
        ("YARN_NPM_PUBLISH_REGISTRY".into(), target.registry.into()),
        ("YARN_NPM_AUTH_TOKEN".into(), target.credential.into()),
    ];
    if http::is_loopback(url) && url.scheme() == "http" {
        let host = url.host_str().unwrap_or_default();
        out.push(("YARN_UNSAFE_HTTP_WHITELIST".into(), host.into()));
    }
    out.extend(loopback(url, env));
    if let Some(ca) = env.get("COUNTERSIGN_CA") {
        out.push(("NODE_EXTRA_CA_CERTS".into(), ca.into()));
        out.push(("npm_config_cafile".into(), ca.into()));
    }
    out
}

/// No proxy stands between this machine and itself.
pub(super) fn loopback(url: &Url, env: &Env) -> Vec<(String, OsString)> {
    if !http::is_loopback(url) {
        return Vec::new();
    }
    let host = url.host_str().unwrap_or_default();
    let list = |name: &str| {
        env.get(name)
            .map_or_else(|| host.to_owned(), |old| format!("{old},{host}"))
    };
    ["NO_PROXY", "no_proxy"]
        .map(|name| (name.to_owned(), list(name).into()))
        .into()
}

/// The user's own npm settings without registries and credentials, and then the broker's.
fn user_settings(env: &Env, target: &Target<'_>, url: &Url) -> String {
    let path = env
        .get("npm_config_userconfig")
        .or_else(|| env.get("NPM_CONFIG_USERCONFIG"))
        .map(PathBuf::from)
        .or_else(|| env.home().map(|h| h.join(".npmrc")));
    let old = path
        .and_then(|p| edge::read_capped(&p, 1 << 20).ok())
        .unwrap_or_default();
    let mut out = String::new();
    for line in String::from_utf8_lossy(&old).lines() {
        let key = line.split('=').next().unwrap_or_default().trim();
        if !key.starts_with("//") && !key.contains("_auth") && !key.ends_with("registry") {
            out.push_str(line);
            out.push('\n');
        }
    }
    let mut lines = vec![format!("registry={}", target.registry)];
    for package in &target.packages {
        if let Some(scope) = scope_of(package) {
            lines.push(format!("{scope}:registry={}", target.registry));
        }
    }
    lines.push(format!("{}:_authToken={}", nerf(url), target.credential));
    out + &lines.join("\n") + "\n"
}

/// npm's key for a registry's settings: the URL without its scheme, with a slash at the end.
fn nerf(url: &Url) -> String {
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let path = url.path().trim_end_matches('/');
    format!("//{}{port}{path}/", url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests;
