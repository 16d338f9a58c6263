//! Who else can push a gem: its owners, and its trusted publishers.

use super::upstream::{RubyGems, keyed};
use crate::{
    registry::{
        self, ReadError,
        doors::{self, Door, Doors},
        upstream::failed,
    },
    secret::Secret,
};
use proto::ids::PackageName;
use reqwest::header::ACCEPT;
use serde::Deserialize;
use serde_json::Value;

/// What a person looks at.
pub(super) const PAGES: &[(&str, &str)] = &[
    (
        "The gem has no trusted publisher.",
        "gems/{name}/trusted_publishers",
    ),
    (
        "The gem has no owner that is not needed; keys of those who stay push it, too, and each should want a second factor.",
        "gems/{name}/owners",
    ),
];

/// An owner; who hides his handle is shown by his number.
#[derive(Deserialize)]
struct Owner {
    #[serde(default)]
    id: Option<u64>,
    #[serde(default)]
    handle: Option<String>,
}

/// Asks what can be asked: the owners as everybody may, and with the key what needs one.
pub(super) async fn ask(
    gems: &RubyGems,
    package: &PackageName,
    key: Option<&Secret<String>>,
) -> Doors {
    let mut doors = Doors::default();
    let owners = question(gems, &format!("api/v1/gems/{package}/owners.json"), None).await;
    doors.answer("the owners", owners.and_then(|bytes| read_owners(&bytes)));
    // A key that may push alone is refused here, and that is told: it is not "none".
    let path = format!("api/v1/gems/{package}/trusted_publishers");
    let trusted = question(gems, &path, key).await;
    doors.answer(
        "the trusted publishers",
        doors::or_none(trusted, read_trusted),
    );
    doors
}

async fn question(
    gems: &RubyGems,
    path: &str,
    key: Option<&Secret<String>>,
) -> Result<Vec<u8>, ReadError> {
    let address = gems.base.join(path);
    let address = address.map_err(|_| ReadError::NotUnderstood)?;
    let request = gems.client.get(address).timeout(gems.read);
    let request = request.header(ACCEPT, "application/json");
    let request = match key {
        Some(key) => keyed(request, key).ok_or(ReadError::NotUnderstood)?,
        None => request,
    };
    let reply = request.send().await.map_err(|e| failed(&e))?;
    registry::upstream::answer(reply).await
}

fn read_owners(bytes: &[u8]) -> Result<Vec<Door>, ReadError> {
    let owners: Vec<Owner> = doors::json(bytes)?;
    if owners.is_empty() {
        return Ok(Vec::new());
    }
    let name = |o: Owner| {
        let number = o.id.map_or_else(|| "?".to_owned(), |id| format!("#{id}"));
        o.handle.unwrap_or(number)
    };
    Ok(vec![Door::Owners(doors::names(
        owners.into_iter().map(name),
    ))])
}

/// Of each a repository, whatever the forge calls it; an answer of another form is not "none".
fn read_trusted(bytes: &[u8]) -> Result<Vec<Door>, ReadError> {
    let all: Vec<Value> = doors::json(bytes)?;
    let text = |one: &Value| {
        let field = |name| {
            let inside = one.pointer(&format!("/trusted_publisher/{name}"));
            inside.and_then(Value::as_str)
        };
        let repository = match (field("repository_owner"), field("repository_name")) {
            (Some(owner), Some(name)) => format!("{owner}/{name}"),
            _ => field("name").unwrap_or("a forge").to_owned(),
        };
        doors::name(&repository)
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
    fn attack_56_57_owners_and_trusted_publishers_are_doors_and_nonsense_is_no_answer() {
        let owners = br#"[{"id":1,"handle":"ours"},{"id":7,"handle":null}]"#;
        let names = vec!["ours".to_owned(), "#7".to_owned()];
        assert_eq!(read_owners(owners).unwrap(), [Door::Owners(names)]);
        let one = br#"[{"id":1,"trusted_publisher_type":"OIDC::TrustedPublisher::GitHubAction","trusted_publisher":{"name":"GitHub Actions acme/left","repository_owner":"acme","repository_name":"left","workflow_filename":"push.yml"}}]"#;
        let door = Door::TrustedPublisher("acme/left".to_owned());
        assert_eq!(read_trusted(one).unwrap(), [door]);
        let other = br#"[{"id":1}]"#;
        let door = Door::TrustedPublisher("a forge".to_owned());
        assert_eq!(read_trusted(other).unwrap(), [door]);
        assert_eq!(read_trusted(b"[]").unwrap(), []);
        for bad in ["<html>", "null", "{}", r#"{"error":"no"}"#] {
            assert!(read_trusted(bad.as_bytes()).is_err(), "{bad}");
            assert!(read_owners(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
