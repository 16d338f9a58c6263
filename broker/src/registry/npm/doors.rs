//! Who else can publish an npm package: its maintainers, and its trusted publisher.

use super::{name, upstream::Npm};
use crate::{
    registry::{
        ReadError,
        doors::{self, Door, Doors},
    },
    secret::Secret,
};
use proto::ids::PackageName;
use serde::Deserialize;
use serde_json::Value;

/// What matters of a version's document.
#[derive(Deserialize)]
struct Newest {
    #[serde(default)]
    maintainers: Vec<Account>,
    #[serde(default, rename = "_npmUser")]
    user: Option<Publisher>,
}

#[derive(Deserialize)]
struct Account {
    name: String,
}

#[derive(Deserialize)]
struct Publisher {
    #[serde(default, rename = "trustedPublisher")]
    trusted: Option<Value>,
}

/// Asks what can be asked.
pub(super) async fn ask(npm: &Npm, package: &PackageName, token: Option<&Secret<String>>) -> Doors {
    let mut doors = Doors::default();
    let escaped = name::escaped(package);
    let newest = npm.question(&format!("{escaped}/latest"), token).await;
    doors.answer("the maintainers", newest.and_then(|bytes| read(&bytes)));
    let trust = npm
        .question(&format!("-/package/{escaped}/trust"), token)
        .await;
    doors.answer("the trusted publisher", doors::or_none(trust, trusted));
    doors
}

/// Who maintains a package, by the newest version's document; nobody where it has none.
pub(super) async fn maintainers(
    npm: &Npm,
    package: &PackageName,
    token: &Secret<String>,
) -> Result<Vec<String>, ReadError> {
    let path = format!("{}/latest", name::escaped(package));
    let newest: Newest = doors::json(&npm.question(&path, Some(token)).await?)?;
    Ok(newest.maintainers.into_iter().map(|m| m.name).collect())
}

fn read(bytes: &[u8]) -> Result<Vec<Door>, ReadError> {
    let newest: Newest = doors::json(bytes)?;
    let mut found = Vec::new();
    let owners = doors::names(newest.maintainers.into_iter().map(|m| m.name));
    if !owners.is_empty() {
        found.push(Door::Owners(owners));
    }
    if let Some(trusted) = newest.user.and_then(|u| u.trusted) {
        let id = trusted
            .get("id")
            .and_then(Value::as_str)
            .unwrap_or("a forge");
        found.push(Door::PublishedByForge(doors::name(id)));
    }
    Ok(found)
}

/// The configurations, in whichever list they stand: an answer of another form is not "none".
fn trusted(bytes: &[u8]) -> Result<Vec<Door>, ReadError> {
    let all = match doors::json(bytes)? {
        Value::Array(all) => all,
        Value::Object(object) if object.is_empty() => Vec::new(),
        Value::Object(object) => match object.into_iter().find(|(_, v)| v.is_array()) {
            Some((_, Value::Array(all))) => all,
            _ => return Err(ReadError::NotUnderstood),
        },
        _ => return Err(ReadError::NotUnderstood),
    };
    let text = |one: &Value| {
        let field = |name: &str| one.pointer(name).and_then(Value::as_str);
        let repository = field("/repository").or_else(|| field("/claims/repository"));
        doors::name(repository.or_else(|| field("/type")).unwrap_or("a forge"))
    };
    Ok(all
        .iter()
        .map(|one| Door::TrustedPublisher(text(one)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_56_a_trusted_publisher_in_any_list_is_a_door_and_nonsense_is_no_answer() {
        let one = r#"[{"id":"x","type":"github","claims":{"repository":"acme/left"}}]"#;
        let door = vec![Door::TrustedPublisher("acme/left".to_owned())];
        assert_eq!(trusted(one.as_bytes()).unwrap(), door);
        let inside = format!(r#"{{"items":{one}}}"#);
        assert_eq!(trusted(inside.as_bytes()).unwrap(), door);
        assert_eq!(trusted(b"[]").unwrap(), []);
        for bad in ["<html>", "null", "\"\"", r#"{"error":"no"}"#] {
            assert!(trusted(bad.as_bytes()).is_err(), "{bad}");
        }
        let newest = r#"{"maintainers":[{"name":"a\u001b[2J"}],"_npmUser":{"name":"x","trustedPublisher":{"id":"github"}}}"#;
        let read = read(newest.as_bytes()).unwrap();
        assert_eq!(read[1], Door::PublishedByForge("github".to_owned()));
        assert!(matches!(&read[0], Door::Owners(o) if !o[0].contains('\u{1b}')));
    }
}
