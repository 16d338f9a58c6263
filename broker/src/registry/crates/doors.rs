//! Who else can publish a crate: its owners, teams among them, and its trusted publishers.

use super::upstream::Crates;
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

#[derive(Deserialize)]
struct Owners {
    users: Vec<Owner>,
}

#[derive(Deserialize)]
struct Owner {
    login: String,
    #[serde(default)]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Crate {
    #[serde(rename = "crate")]
    settings: Settings,
}

#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    trustpub_only: bool,
}

/// Asks what can be asked: what everybody may know without the token.
pub(super) async fn ask(
    registry: &Crates,
    package: &PackageName,
    token: Option<&Secret<String>>,
) -> Doors {
    let mut doors = Doors::default();
    let path = format!("api/v1/crates/{package}/owners");
    let owners = registry.question(&path, None).await;
    doors.answer("the owners", owners.and_then(|bytes| read_owners(&bytes)));
    let path = format!("api/v1/crates/{package}");
    let about = registry.question(&path, None).await;
    let about = about.and_then(|bytes| {
        let about: Crate = doors::json(&bytes)?;
        let shut = about.settings.trustpub_only;
        Ok(if shut {
            vec![Door::TokensShut]
        } else {
            Vec::new()
        })
    });
    doors.answer("whether tokens may publish", about);
    for (question, forge) in [
        ("trusted publishers at GitHub", "github"),
        ("trusted publishers at GitLab", "gitlab"),
    ] {
        let path = format!("api/v1/trusted_publishing/{forge}_configs?crate={package}");
        let configs = registry.question(&path, token).await;
        let read = |bytes: &[u8]| read_configs(bytes, forge);
        doors.answer(question, doors::or_none(configs, read));
    }
    doors
}

fn read_owners(bytes: &[u8]) -> Result<Vec<Door>, ReadError> {
    let owners: Owners = doors::json(bytes)?;
    let is_team =
        |o: &Owner| o.kind.as_deref() == Some("team") || o.login.matches(':').count() == 2;
    let (teams, people): (Vec<_>, Vec<_>) = owners.users.into_iter().partition(is_team);
    let mut found = Vec::new();
    if !people.is_empty() {
        found.push(Door::Owners(doors::names(
            people.into_iter().map(|o| o.login),
        )));
    }
    let teams = doors::names(teams.into_iter().map(|o| o.login));
    found.extend(teams.into_iter().map(Door::Team));
    Ok(found)
}

fn read_configs(bytes: &[u8], forge: &str) -> Result<Vec<Door>, ReadError> {
    let answer: Value = doors::json(bytes)?;
    let list = answer
        .get(format!("{forge}_configs"))
        .and_then(Value::as_array);
    let text = |one: &Value| {
        let field = |name| one.get(name).and_then(Value::as_str).unwrap_or("?");
        let (owner, name) = match forge {
            "gitlab" => (field("namespace"), field("project")),
            _ => (field("repository_owner"), field("repository_name")),
        };
        doors::name(&format!("{owner}/{name} ({forge})"))
    };
    let list = list.ok_or(ReadError::NotUnderstood)?;
    Ok(list
        .iter()
        .map(|one| Door::TrustedPublisher(text(one)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_57_a_team_among_the_owners_is_a_door_of_its_own() {
        let owners = br#"{"users":[{"id":1,"login":"alice","kind":"user"},{"id":2,"login":"github:acme:release","kind":"team"}]}"#;
        assert_eq!(
            read_owners(owners).unwrap(),
            [
                Door::Owners(vec!["alice".to_owned()]),
                Door::Team("github:acme:release".to_owned())
            ]
        );
        let configs =
            br#"{"github_configs":[{"repository_owner":"acme","repository_name":"left"}]}"#;
        assert_eq!(
            read_configs(configs, "github").unwrap(),
            [Door::TrustedPublisher("acme/left (github)".to_owned())]
        );
        assert!(read_configs(b"{}", "github").is_err());
    }
}
