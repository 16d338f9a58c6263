//! Who else can publish a Python project. The public index tells one thing to programs: by which forge's
//! identity the files of a release came in (PEP 740). The rest is on its web pages.

use super::upstream::PyPi;
use crate::{
    registry::{
        Published, ReadError,
        doors::{self, Door, Doors},
    },
    secret::Secret,
};
use proto::ids::PackageName;
use serde_json::Value;

/// Files of the newest release that are asked about.
const FILES_MAX: usize = 3;

/// Asks what can be asked.
pub(super) async fn ask(
    index: &PyPi,
    package: &PackageName,
    token: Option<&Secret<String>>,
) -> Doors {
    let mut doors = Doors::default();
    let question = "by whom the newest release was published";
    let shown = match index.page(package, token).await {
        Ok(shown) => shown,
        Err(why) => {
            doors.answer(question, Err(why));
            return doors;
        }
    };
    doors.answer(question, of_newest(index, package, &shown).await);
    doors
}

async fn of_newest(
    index: &PyPi,
    package: &PackageName,
    shown: &Published,
) -> Result<Vec<Door>, ReadError> {
    let mut found = Vec::new();
    let Some(version) = &shown.newest else {
        return Ok(found);
    };
    let files = shown.versions.get(version).into_iter().flatten();
    for name in files.filter_map(|f| f.name.as_deref()).take(FILES_MAX) {
        match index.provenance(package, version, name).await {
            Ok(bytes) => {
                for publisher in read(&bytes)? {
                    if !found.contains(&publisher) {
                        found.push(publisher);
                    }
                }
            }
            // It came in by a token.
            Err(ReadError::Status(404)) => {}
            Err(why) => return Err(why),
        }
    }
    Ok(found)
}

fn read(bytes: &[u8]) -> Result<Vec<Door>, ReadError> {
    let answer: Value = doors::json(bytes)?;
    let bundles = answer.get("attestation_bundles").and_then(Value::as_array);
    let publisher = |bundle: &Value| {
        let field = |name: &str| {
            let text = bundle.pointer(&format!("/publisher/{name}"));
            text.and_then(Value::as_str).unwrap_or("?").to_owned()
        };
        Door::PublishedByForge(doors::name(&format!(
            "{} {}",
            field("kind"),
            field("repository")
        )))
    };
    let bundles = bundles.ok_or(ReadError::NotUnderstood)?;
    Ok(bundles.iter().map(publisher).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_56_a_release_that_came_in_by_a_forge_shows_the_publisher() {
        let answer = br#"{"version":1,"attestation_bundles":[{"publisher":{"kind":"GitHub","repository":"acme/left","workflow":"release.yml"},"attestations":[]}]}"#;
        assert_eq!(
            read(answer).unwrap(),
            [Door::PublishedByForge("GitHub acme/left".to_owned())]
        );
        assert!(read(b"{}").is_err());
    }
}
