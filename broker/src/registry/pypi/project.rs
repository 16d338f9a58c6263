//! Which project a token is narrowed to: its name, and the index's own id of it where the configuration says so.
//!
//! A name is good for whoever has it, also for a project that does not exist yet. An id is good for that one project,
//! and dies with it.

use super::macaroon::Caveat;
use proto::ids::PackageName;
use serde::Deserialize;
use std::collections::BTreeMap;
use thiserror::Error;

/// The index's id of a project: a UUID in lower case, the one spelling that the index compares with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ProjectId(String);

/// It is no id.
#[derive(Debug, Error)]
#[error(
    "is the index's id of the project, a UUID in lower case like 3f2504e0-4f89-41d3-9a0c-0305e82c3301"
)]
pub struct NoProjectId;

impl TryFrom<String> for ProjectId {
    type Error = NoProjectId;

    fn try_from(text: String) -> Result<Self, NoProjectId> {
        let fits = |(at, byte): (usize, u8)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        };
        if text.len() == 36 && text.bytes().enumerate().all(fits) {
            Ok(Self(text))
        } else {
            Err(NoProjectId)
        }
    }
}

impl ProjectId {
    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The ids of projects, as the configuration has them. Once there is a list, nothing is minted for a project that
/// is not in it: a line that was lost must not make the token wider.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "BTreeMap<String, ProjectId>")]
pub struct ProjectIds(BTreeMap<PackageName, ProjectId>);

impl TryFrom<BTreeMap<String, ProjectId>> for ProjectIds {
    type Error = String;

    fn try_from(all: BTreeMap<String, ProjectId>) -> Result<Self, String> {
        if all.is_empty() {
            return Err("names no project; take `project_ids` out".to_owned());
        }
        let named = |(name, id): (String, ProjectId)| {
            let package = super::package(&name)?;
            if package.as_str() == name {
                Ok((package, id))
            } else {
                Err(format!("the index spells '{name}' as '{package}'"))
            }
        };
        all.into_iter()
            .map(named)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl ProjectIds {
    /// The id of this project.
    pub(super) fn of(&self, package: &PackageName) -> Option<&ProjectId> {
        self.0.get(package)
    }
}

/// What narrows a token to a project. Name and id together: with the id of another project, which somebody wrote
/// by mistake, the token is good for neither.
pub(super) fn only<'a>(ids: Option<&'a ProjectIds>, package: &'a PackageName) -> Vec<Caveat<'a>> {
    let id = ids.and_then(|ids| ids.of(package));
    let id = id.map(Caveat::ProjectId);
    [Caveat::Project(package)].into_iter().chain(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let good = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
        assert_eq!(ProjectId::try_from(good.to_owned()).unwrap().as_str(), good);
        for bad in [
            "",
            "acme-demo",
            "3F2504E0-4F89-41D3-9A0C-0305E82C3301",
            "{3f2504e0-4f89-41d3-9a0c-0305e82c3301}",
            "3f2504e04f8941d39a0c0305e82c3301",
            "3f2504e0-4f89-41d3-9a0c-0305e82c330",
            "3f2504e0-4f89-41d3-9a0c-0305e82c3301 ",
            "3f2504e0-4f89-41d3-9a0c-0305e82c\"],\"",
            "3f2504e-04f89-41d3-9a0c-0305e82c3301",
        ] {
            assert!(ProjectId::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_list_names_projects_as_the_index_spells_them() {
        let id = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
        let read = |text: String| serde_json::from_str::<ProjectIds>(&text);
        let list = read(format!(r#"{{"acme-demo": "{id}"}}"#)).unwrap();
        assert!(list.of(&"acme-demo".parse().unwrap()).is_some());
        assert!(list.of(&"acme".parse().unwrap()).is_none());
        for bad in [
            "{}".to_owned(),
            format!(r#"{{"Acme_Demo": "{id}"}}"#),
            format!(r#"{{"acme demo": "{id}"}}"#),
            r#"{"acme-demo": "acme"}"#.to_owned(),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
