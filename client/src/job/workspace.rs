//! npm, pnpm and Yarn workspaces: which packages there are, and the tarballs that their own tool makes of them.
//!
//! The tool is asked, since it alone knows how it reads its patterns and what it writes for `workspace:^`.

use super::{
    order::Needs,
    prepare::pack,
    tarball::{Tarball, folder_manifest},
    tool::{Plan, Tool},
};
use crate::{context::Context, fail::Failure};
use proto::{request::ITEMS_MAX, text::harmless};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A package of a workspace, as its tool tells it.
#[derive(Deserialize)]
struct Member {
    name: Option<String>,
    version: Option<String>,
    #[serde(default)]
    private: bool,
    /// Where it lies, where the tool tells it.
    path: Option<PathBuf>,
}

/// The tarballs of all packages of the workspace at `root` that may be published.
pub(crate) async fn packed(
    context: &Context,
    command: &[String],
    root: &Path,
    into: &Path,
) -> Result<Vec<PathBuf>, Failure> {
    let tool = tool_of(command, root)?;
    let mut chosen = Vec::new();
    for member in members(context, &tool, root).await? {
        let name = harmless(member.name.as_deref().unwrap_or("a package without a name"));
        if member.private {
            context
                .out
                .note(&format!("  left out   {name}: it is private"));
        } else if member.name.is_none() || member.version.is_none() {
            context
                .out
                .note(&format!("  left out   {name}: it has no version"));
        } else {
            chosen.push(member);
        }
    }
    if chosen.is_empty() {
        return Err(Failure::usage(
            format!("No package of {} may be published.", root.display()),
            "Look for \"private\": true, and for missing versions, in the packages' package.json.",
        ));
    }
    refuse_too_many(chosen.len())?;
    std::fs::create_dir_all(into).map_err(|e| Failure::file(into, &e))?;
    if Tool::of(&tool) == Tool::Npm {
        return all_at_once(context, &tool, &chosen, root, into).await;
    }
    let mut files = Vec::new();
    for (n, member) in chosen.iter().enumerate() {
        let folder = member.path.as_deref().unwrap_or(root);
        files.push(pack(context, &tool, folder, &into.join(n.to_string())).await?);
    }
    Ok(files)
}

/// A request has room for so many.
pub(crate) fn refuse_too_many(count: usize) -> Result<(), Failure> {
    if count <= ITEMS_MAX {
        return Ok(());
    }
    Err(Failure::usage(
        format!("{count} packages are too many for one approval."),
        format!(
            "Split them: name the folders or tarballs of at most {ITEMS_MAX} at a time, what others depend on first."
        ),
    ))
}

/// npm packs them all in one run; one run each would take most of a second.
async fn all_at_once(
    context: &Context,
    tool: &[String],
    chosen: &[Member],
    root: &Path,
    into: &Path,
) -> Result<Vec<PathBuf>, Failure> {
    let mut words = tool.to_vec();
    words.push("pack".to_owned());
    words.push(format!("--pack-destination={}", into.display()));
    let names = chosen.iter().filter_map(|m| m.name.as_ref());
    words.extend(names.map(|name| format!("--workspace={name}")));
    // It prints the files' names, which we find by ourselves.
    let (status, _) = Plan::plain(&words, root, &context.env)?.output().await?;
    let files = tarballs(into)?;
    if !status.success() || files.len() != chosen.len() {
        return Err(Failure::failed(
            format!(
                "The workspace could not be packed ({status}, {} of {} tarballs).",
                files.len(),
                chosen.len()
            ),
            "Read npm's output above.",
        ));
    }
    Ok(files)
}

/// The tarballs in a folder, by name.
pub(crate) fn tarballs(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .map_err(|e| Failure::file(folder, &e))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "tgz"))
        .collect();
    files.sort();
    Ok(files)
}

/// The command's own tool, else the one whose files lie at the root.
fn tool_of(command: &[String], root: &Path) -> Result<Vec<String>, Failure> {
    if let (Some(first), Tool::Npm | Tool::Pnpm | Tool::Yarn) = (command.first(), Tool::of(command))
    {
        return Ok(vec![first.clone()]);
    }
    let manifest = folder_manifest(root)?;
    let named = manifest.get("packageManager").and_then(Value::as_str);
    let named = named.and_then(|n| n.split_once('@')).unwrap_or_default();
    let tool = match named {
        ("pnpm", _) => "pnpm",
        // Yarn 1 has no `workspace:`, and npm reads the same `workspaces`.
        ("yarn", version) if !version.starts_with("1.") => "yarn",
        _ if root.join("pnpm-workspace.yaml").exists() => "pnpm",
        _ if root.join(".yarnrc.yml").exists() => "yarn",
        _ => "npm",
    };
    Ok(vec![tool.to_owned()])
}

async fn members(context: &Context, tool: &[String], root: &Path) -> Result<Vec<Member>, Failure> {
    let kind = Tool::of(tool);
    let args: &[&str] = match kind {
        Tool::Pnpm => &["-r", "list", "--depth", "-1", "--json"],
        Tool::Yarn => &["workspaces", "list", "--json"],
        Tool::Npm | Tool::Other => &[
            "pkg",
            "get",
            "name",
            "version",
            "private",
            "--workspaces",
            "--json",
        ],
    };
    let mut words = tool.to_vec();
    words.extend(args.iter().map(|a| (*a).to_owned()));
    let (status, text) = Plan::plain(&words, root, &context.env)?.output().await?;
    let program = tool.join(" ");
    if !status.success() {
        return Err(Failure::failed(
            format!(
                "`{program}` could not list the packages of {} ({status}).",
                root.display()
            ),
            "Run this at the root of a workspace; read the output above.",
        ));
    }
    let read = match kind {
        Tool::Pnpm => serde_json::from_slice(&text).ok(),
        Tool::Yarn => yarn(&text, root),
        Tool::Npm | Tool::Other => serde_json::from_slice::<BTreeMap<String, Member>>(&text)
            .ok()
            .map(|all| all.into_values().collect()),
    };
    read.ok_or_else(|| {
        Failure::failed(
            format!("What `{program}` says of its workspace is not understood."),
            "Pack the packages yourself and give the .tgz files.",
        )
    })
}

/// Yarn tells name and place only, one JSON object a line.
fn yarn(text: &[u8], root: &Path) -> Option<Vec<Member>> {
    #[derive(Deserialize)]
    struct Line {
        location: PathBuf,
    }
    let lines = std::str::from_utf8(text).ok()?.lines();
    lines
        .map(|line| {
            let place = root.join(serde_json::from_str::<Line>(line).ok()?.location);
            let manifest = folder_manifest(&place).ok()?;
            let member: Member = serde_json::from_value(manifest).ok()?;
            Some(Member {
                path: Some(place),
                ..member
            })
        })
        .collect()
}

/// What is installed with a package counts; what only its developers need does not.
impl Needs for Tarball {
    fn name(&self) -> &str {
        self.item.package.as_str()
    }
    fn needs(&self, name: &str) -> bool {
        ["dependencies", "peerDependencies", "optionalDependencies"]
            .iter()
            .any(|kind| {
                self.manifest
                    .get(kind)
                    .is_some_and(|d| d.get(name).is_some())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tool_is_the_commands_or_the_one_whose_files_lie_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let tool = |command: &[&str]| {
            let words: Vec<String> = command.iter().map(ToString::to_string).collect();
            tool_of(&words, root)
                .map(|t| t.join(" "))
                .map_err(|f| f.exit as u8)
        };
        assert_eq!(tool(&[]), Err(1));
        std::fs::write(root.join("package.json"), "{}").unwrap();
        assert_eq!(tool(&[]).unwrap(), "npm");
        assert_eq!(tool(&["npx", "changeset", "publish"]).unwrap(), "npm");
        std::fs::write(root.join(".yarnrc.yml"), "").unwrap();
        assert_eq!(tool(&[]).unwrap(), "yarn");
        std::fs::write(root.join("pnpm-workspace.yaml"), "").unwrap();
        assert_eq!(tool(&[]).unwrap(), "pnpm");
        assert_eq!(tool(&["/x/yarn", "npm", "publish"]).unwrap(), "/x/yarn");
        for (manager, want) in [
            ("yarn@1.22.22", "pnpm"),
            ("yarn@4.9.1+sha", "yarn"),
            ("pnpm@10.0.0", "pnpm"),
        ] {
            let text = format!(r#"{{"packageManager":"{manager}"}}"#);
            std::fs::write(root.join("package.json"), text).unwrap();
            assert_eq!(tool(&[]).unwrap(), want, "{manager}");
        }
    }

    #[test]
    fn more_than_a_request_holds_is_refused_with_what_to_do() {
        assert!(refuse_too_many(200).is_ok());
        let refused = refuse_too_many(201).unwrap_err();
        assert_eq!(refused.exit as u8, 2);
        assert!(refused.next.contains("at most 200"));
    }
}
