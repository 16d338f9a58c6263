//! Settings of a project that would publish past the broker. That is harmless for the registry, which
//! has no credential there, and confusing for people.
//!
//! npm takes every one of them back by a flag on the command line; pnpm and Yarn do not.

use super::tool::Tool;
use crate::fail::Failure;
use proto::text::harmless;
use serde_json::Value;
use std::path::Path;
use url::Url;

/// How many folders upwards a project's settings are looked for.
const LEVELS: usize = 12;
/// Most bytes of a settings file.
const FILE_MAX: u64 = 1 << 20;

/// A setting that names a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The file.
    pub(crate) place: String,
    /// The key.
    pub(crate) key: String,
    /// The registry.
    pub(crate) value: String,
}

/// Every setting that decides where `tool` publishes `package` from `folder`.
pub(crate) fn find(
    tool: Tool,
    folder: &Path,
    manifest: &Value,
    scope: Option<&str>,
) -> Vec<Setting> {
    let mut out = Vec::new();
    // npm: `--registry` and `--@scope:registry` on the command line beat all of these.
    if tool == Tool::Npm {
        return out;
    }
    let scoped = scope.map(|s| format!("{s}:registry"));
    for key in [Some("registry"), scoped.as_deref()].into_iter().flatten() {
        if let Some(value) = manifest
            .get("publishConfig")
            .and_then(|c| c.get(key)?.as_str())
        {
            out.push(Setting {
                place: "package.json".into(),
                key: format!("publishConfig.{key}"),
                value: value.into(),
            });
        }
    }
    for folder in folder.ancestors().take(LEVELS) {
        if tool != Tool::Yarn {
            out.extend(settings(&folder.join(".npmrc"), |text| {
                npmrc(text, scoped.as_deref())
            }));
        }
        if tool != Tool::Pnpm {
            out.extend(settings(&folder.join(".yarnrc.yml"), |text| {
                yarnrc(text, scope)
            }));
        }
        if folder.join(".git").exists() {
            break;
        }
    }
    out
}

/// Refuses settings that name another host than the broker's; called before anybody is asked.
pub(crate) fn refuse_elsewhere(found: &[Setting], broker: &Url) -> Result<(), Failure> {
    refuse(found, |value| {
        Url::parse(value).is_ok_and(|u| u.host() == broker.host())
    })
}

/// Refuses settings that name another registry than the one that the broker gave.
pub(crate) fn refuse_other(found: &[Setting], registry: &str) -> Result<(), Failure> {
    let want = registry.trim_end_matches('/');
    refuse(found, |value| value.trim_end_matches('/') == want)
}

fn refuse(found: &[Setting], good: impl Fn(&str) -> bool) -> Result<(), Failure> {
    match found.iter().find(|s| !good(&s.value)) {
        None => Ok(()),
        Some(s) => Err(Failure::usage(
            format!(
                "{} sets {} to {}, which would publish past the broker.",
                s.place,
                harmless(&s.key),
                harmless(&s.value)
            ),
            format!(
                "Remove {} from {}; the broker gives the address.",
                harmless(&s.key),
                s.place
            ),
        )),
    }
}

fn settings(path: &Path, read: impl Fn(&str) -> Vec<(String, String)>) -> Vec<Setting> {
    let Ok(bytes) = crate::edge::read_capped(path, FILE_MAX) else {
        return Vec::new();
    };
    read(&String::from_utf8_lossy(&bytes))
        .into_iter()
        .map(|(key, value)| Setting {
            place: path.display().to_string(),
            key,
            value,
        })
        .collect()
}

/// The scope's registry in an `.npmrc`. A plain `registry=` is beaten by `--registry`.
fn npmrc(text: &str, scoped: Option<&str>) -> Vec<(String, String)> {
    let Some(scoped) = scoped else {
        return Vec::new();
    };
    text.lines()
        .filter_map(|l| l.split_once('='))
        .map(|(k, v)| (k.trim(), v.trim().trim_matches(['"', '\''])))
        .filter(|(k, _)| *k == scoped)
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// The scope's registry in a `.yarnrc.yml`, by its indentation. The plain ones are beaten by the environment.
fn yarnrc(text: &str, scope: Option<&str>) -> Vec<(String, String)> {
    let Some(scope) = scope.map(|s| s.trim_start_matches('@')) else {
        return Vec::new();
    };
    let (mut in_scopes, mut in_scope) = (false, false);
    let mut out = Vec::new();
    for line in text.lines().filter(|l| !l.trim_start().starts_with('#')) {
        let depth = line.len() - line.trim_start().len();
        let Some((key, value)) = line.trim().split_once(':') else {
            continue;
        };
        let key = key.trim_matches(['"', '\'']);
        let value = value.trim().trim_matches(['"', '\'']);
        match depth {
            0 => (in_scopes, in_scope) = (key == "npmScopes", false),
            _ if in_scopes && value.is_empty() => in_scope = key == scope,
            _ if in_scope && (key == "npmRegistryServer" || key == "npmPublishRegistry") => {
                out.push((format!("npmScopes.{scope}.{key}"), value.to_owned()));
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_bypass_the_broker_are_refused_with_what_to_change() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".git")).unwrap();
        let inner = dir.path().join("packages/left");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(
            dir.path().join(".npmrc"),
            "x=1\n@acme:registry = https://other.example/\n",
        )
        .unwrap();
        std::fs::write(
            dir.path().join(".yarnrc.yml"),
            "npmScopes:\n  beta:\n    npmRegistryServer: \"https://no.example\"\n  acme:\n    npmPublishRegistry: https://y.example\n",
        )
        .unwrap();
        let manifest = serde_json::json!({"publishConfig": {"registry": "https://p.example"}});
        let keys = |tool| {
            find(tool, &inner, &manifest, Some("@acme"))
                .into_iter()
                .map(|s| s.key)
                .collect::<Vec<_>>()
        };
        assert!(keys(Tool::Npm).is_empty());
        assert_eq!(
            keys(Tool::Pnpm),
            ["publishConfig.registry", "@acme:registry"]
        );
        assert_eq!(
            keys(Tool::Yarn),
            [
                "publishConfig.registry",
                "npmScopes.acme.npmPublishRegistry"
            ]
        );
        assert_eq!(keys(Tool::Other).len(), 3);

        let found = find(Tool::Pnpm, &inner, &manifest, None);
        let broker = Url::parse("https://broker.example").unwrap();
        let f = refuse_elsewhere(&found, &broker).unwrap_err();
        assert_eq!(f.exit as u8, 2);
        assert!(f.next.contains("publishConfig.registry"));
        let here = [Setting {
            place: "package.json".into(),
            key: "k".into(),
            value: "https://broker.example:8444/npm/".into(),
        }];
        assert!(refuse_elsewhere(&here, &broker).is_ok());
        assert!(refuse_other(&here, "https://broker.example:8444/npm").is_ok());
        assert!(refuse_other(&here, "https://broker.example:9/npm").is_err());
    }
}
