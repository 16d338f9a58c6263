//! What the registry is told of a version: the archive's own package.json, and little beside it.
//!
//! Installers, auditors and people read the registry's answer long before they see the archive. So nothing
//! stands there that the archive does not say, whatever the client wrote: fields in which both were found to
//! agree stay in the client's normal form, what clients add by themselves stays, and the rest is the
//! archive's own word (attack 14).

use super::{
    manifest::{AGREED, INSTALL_SCRIPTS},
    tarball::Inside,
};
use serde_json::{Map, Value, json};
use url::Url;

/// What clients write beside the package.json; about nothing that is installed. `dist` was compared with the bytes.
const ADDED: [&str; 6] = [
    "_id",
    "_nodeVersion",
    "_npmVersion",
    "gitHead",
    "readme",
    "readmeFilename",
];
/// Hosts that have a short form, as `github:acme/left`.
const SHORT: [(&str, &str); 3] = [
    ("github", "github.com"),
    ("gitlab", "gitlab.com"),
    ("bitbucket", "bitbucket.org"),
];

/// The manifest for the registry. The client's has been found to agree with the archive.
pub(super) fn told(mut manifest: Map<String, Value>, inside: &Inside) -> Map<String, Value> {
    let inner = &inside.package_json;
    let mut out = inner.clone();
    // The registry's own fields begin so; a package.json has no say in them.
    out.retain(|name, _| !name.starts_with('_') && !["dist", "gypfile"].contains(&name.as_str()));
    let homepage = derived(&manifest, inner, "homepage");
    let bugs = derived(&manifest, inner, "bugs");
    let mut take = |name: &str| manifest.remove(name);
    for field in AGREED {
        out.extend(take(field).map(|value| (field.to_owned(), value)));
    }
    for field in ADDED {
        let text = take(field).filter(Value::is_string);
        out.extend(text.map(|value| (field.to_owned(), value)));
    }
    out.extend(take("dist").map(|dist| ("dist".to_owned(), dist)));
    if let Some(scripts) = scripts(inner.get("scripts"), take("scripts")) {
        out.insert("scripts".to_owned(), scripts);
    }
    if inside.gyp && take("gypfile") == Some(Value::Bool(true)) {
        out.insert("gypfile".to_owned(), Value::Bool(true));
    }
    if inside.shrinkwrap {
        out.insert("_hasShrinkwrap".to_owned(), Value::Bool(true));
    }
    if let Some(repository) = take("repository").filter(|r| same_place(inner.get("repository"), r))
    {
        out.insert("repository".to_owned(), repository);
    }
    for (field, value) in [("homepage", homepage), ("bugs", bugs)] {
        out.extend(value.map(|value| (field.to_owned(), value)));
    }
    // npm names the declarations that lie beside the entry point.
    let types = take("types").filter(|t| t.as_str().is_some_and(|t| t.starts_with("./")));
    if !inner.contains_key("types") && !inner.contains_key("typings") {
        out.extend(types.map(|value| ("types".to_owned(), value)));
    }
    out
}

/// The archive's scripts; those that run when it is installed as the client writes them, which was compared.
fn scripts(inner: Option<&Value>, outer: Option<Value>) -> Option<Value> {
    let mut all = inner.and_then(Value::as_object).cloned();
    let Some(Value::Object(mut outer)) = outer else {
        return all.map(Value::Object);
    };
    for name in INSTALL_SCRIPTS {
        if let Some(script) = outer.remove(name) {
            let all = all.get_or_insert_with(Map::new);
            all.insert(name.to_owned(), script);
        }
    }
    all.map(Value::Object)
}

/// An address that the archive does not name and npm makes from its repository's.
fn derived(
    manifest: &Map<String, Value>,
    inner: &Map<String, Value>,
    field: &str,
) -> Option<Value> {
    if inner.contains_key(field) {
        return None;
    }
    let place = place(inner.get("repository")?)?;
    let value = manifest.get(field)?;
    let address = value.as_str().or_else(|| value.get("url")?.as_str())?;
    let rest = address.strip_prefix("https://")?.strip_prefix(&place)?;
    let made = ["#readme", "/issues"].contains(&rest);
    made.then(|| match value {
        Value::String(_) => value.clone(),
        _ => json!({ "url": address }),
    })
}

/// Whether both name one folder of one repository.
fn same_place(inner: Option<&Value>, outer: &Value) -> bool {
    let Some(inner) = inner else {
        return false;
    };
    let known = ["type", "url", "directory"];
    let plain = outer
        .as_object()
        .is_none_or(|o| o.keys().all(|k| known.contains(&k.as_str())));
    plain
        && place(inner).is_some()
        && place(inner) == place(outer)
        && inner.get("directory") == outer.get("directory")
}

/// Host and path of a repository in any of its spellings: `host/owner/name`.
fn place(repository: &Value) -> Option<String> {
    let text = repository
        .as_str()
        .or_else(|| repository.get("url")?.as_str())?;
    let (host, path) = match Url::parse(text) {
        Ok(url) if url.has_host() => (url.host_str()?.to_owned(), url.path().to_owned()),
        Ok(url) => {
            let (_, host) = SHORT.iter().find(|(short, _)| *short == url.scheme())?;
            ((*host).to_owned(), url.path().to_owned())
        }
        // `git@host:owner/name`, and `owner/name`.
        Err(_) => match text.split_once(':') {
            Some((host, path)) => (host.split_once('@')?.1.to_owned(), path.to_owned()),
            None if text.split('/').count() == 2 => ("github.com".to_owned(), text.to_owned()),
            None => return None,
        },
    };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    Some(format!("{host}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(package_json: &Value) -> Inside {
        Inside {
            package_json: package_json.as_object().unwrap().clone(),
            gyp: false,
            shrinkwrap: false,
            entries: 1,
            unpacked: 1,
        }
    }

    fn made(outer: &Value, inside: &Inside) -> Value {
        Value::Object(told(outer.as_object().unwrap().clone(), inside))
    }

    #[test]
    fn attack_14_no_field_of_the_manifest_says_what_the_archive_does_not() {
        let own = json!({"name": "left", "version": "1.0.0", "license": "MIT", "main": "a.js",
            "exports": {".": "./a.js"}, "_resolved": "x", "author": "A <a@b>"});
        let mut archive = inside(&own);
        let mut plain = own.clone();
        plain.as_object_mut().unwrap().remove("_resolved");
        for (field, lie) in [
            ("_hasShrinkwrap", json!(true)),
            ("_hasShrinkwrap", json!(false)),
            ("_npmUser", json!({"name": "somebody"})),
            ("_resolved", json!("https://elsewhere.example/x.tgz")),
            ("acceptDependencies", json!({"left": "*"})),
            ("author", json!("Somebody Else")),
            ("bugs", json!({"url": "https://elsewhere.example/"})),
            ("exports", json!({".": "./b.js"})),
            ("funding", json!("https://elsewhere.example/")),
            ("gypfile", json!(true)),
            ("hasInstallScript", json!(false)),
            ("homepage", json!("https://elsewhere.example/")),
            ("license", json!("Apache-2.0")),
            ("maintainers", json!([])),
            ("readme", json!({"a": 1})),
            ("repository", json!("github:acme/core")),
            ("scripts", json!({"start": "evil"})),
            ("types", json!("https://elsewhere.example/")),
            ("anything", json!(1)),
        ] {
            let mut outer = plain.clone();
            outer[field] = lie;
            assert_eq!(made(&outer, &archive), plain, "{field}");
        }
        archive.shrinkwrap = true;
        for said in [json!(false), Value::Null] {
            let mut outer = plain.clone();
            outer["_hasShrinkwrap"] = said;
            assert_eq!(made(&outer, &archive)["_hasShrinkwrap"], true);
        }
    }

    #[test]
    fn what_npm_writes_by_itself_stays() {
        for (inner, field, written) in [
            (
                json!("acme/left"),
                "repository",
                json!({"type": "git", "url": "git+https://github.com/acme/left.git"}),
            ),
            (
                json!({"url": "git@gitlab.com:acme/left.git"}),
                "repository",
                json!({"type": "git", "url": "git+ssh://git@gitlab.com/acme/left.git"}),
            ),
            (
                json!("github:acme/left"),
                "homepage",
                json!("https://github.com/acme/left#readme"),
            ),
            (
                json!("github:acme/left"),
                "bugs",
                json!({"url": "https://github.com/acme/left/issues"}),
            ),
            (json!("x"), "readme", json!("# r")),
            (json!("x"), "gitHead", json!("abc")),
            (json!("x"), "types", json!("./a.d.ts")),
        ] {
            let archive = inside(&json!({"name": "left", "repository": inner}));
            let mut outer = json!({"name": "left", "repository": inner});
            outer[field] = written.clone();
            assert_eq!(made(&outer, &archive)[field], written, "{inner}");
        }
        for (inner, outer) in [
            (json!("acme/left"), json!("acme/core")),
            (json!("acme/left"), json!("gitlab:acme/left")),
            (
                json!("acme/left"),
                json!({"url": "https://github.com.evil/acme/left"}),
            ),
            (
                json!({"url": "acme/left", "directory": "a"}),
                json!({"url": "acme/left", "directory": "b"}),
            ),
            (json!("acme/left"), json!({"url": "acme/left", "more": 1})),
        ] {
            let archive = inside(&json!({"repository": inner}));
            let kept = &made(&json!({"repository": outer}), &archive)["repository"];
            assert_eq!(kept, &inner, "{outer}");
        }
        let archive = inside(&json!({"scripts": {"test": "t", "install": "node_modules/.bin/x"}}));
        let outer = json!({"scripts": {"install": "x", "start": "node server.js"}});
        assert_eq!(
            made(&outer, &archive)["scripts"],
            json!({"test": "t", "install": "x"})
        );
    }
}
