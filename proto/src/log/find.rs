//! Searching the log: what an entry is about, and whether that is what somebody looks for.

use crate::{
    ids::{PersonId, RequestId},
    time::UnixTime,
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Members of an event that name people.
const PEOPLE: [&str; 4] = ["person", "by", "people", "confirmed"];
/// Members that name those who did what is told, in every event.
const ACTORS: [&str; 2] = ["by", "confirmed"];
/// Events that are the act of their `person`. In the others `person` was acted upon, or merely told; a refusal may be
/// somebody else's try.
const OWN_ACTS: [&str; 15] = [
    "answer-accepted",
    "request-denied",
    "intent-made",
    "share-given",
    "share-key-set",
    "person-enrolled",
    "person-recovered",
    "device-added",
    "device-removed",
    "passkey-added",
    "passkey-removed",
    "totp-set",
    "channel-added",
    "channel-removed",
    "quiet-hours-set",
];
/// Members that name a package, or a version of one.
const PACKAGES: [&str; 3] = ["package", "name", "secret"];

/// What is looked for; what is absent is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `npm:@acme/left`: entries about it, and about requests for it.
    pub package: Option<String>,
    /// Who acted, or was acted upon.
    pub person: Option<PersonId>,
    /// The event's type: `request-denied`.
    pub event: Option<String>,
    /// Not before.
    pub since: Option<UnixTime>,
    /// Not after.
    pub until: Option<UnixTime>,
}

/// An entry, as far as it is searched. Members that this program does not know do no harm.
#[derive(Debug, Deserialize)]
pub struct Entry {
    /// When, by the broker's clock.
    pub time: UnixTime,
    /// What.
    pub event: Map<String, Value>,
}

impl Entry {
    /// Reads a leaf.
    pub fn read(leaf: &str) -> Option<Self> {
        serde_json::from_str(leaf).ok()
    }

    /// The event's type.
    pub fn kind(&self) -> &str {
        self.text("type").unwrap_or_default()
    }

    /// One of its members, where that is a text.
    pub fn text(&self, member: &str) -> Option<&str> {
        self.event.get(member)?.as_str()
    }

    /// The request that it is about.
    pub fn request(&self) -> Option<RequestId> {
        self.text("request")?.parse().ok()
    }

    /// Everybody whom it names.
    pub fn people(&self) -> impl Iterator<Item = &str> {
        PEOPLE
            .iter()
            .flat_map(|member| texts(self.event.get(*member)))
    }

    /// Everybody who did what it tells: not those whom it was done to, nor those who were rung.
    pub fn actors(&self) -> impl Iterator<Item = &str> {
        let own = OWN_ACTS.contains(&self.kind()).then_some(&"person");
        let members = ACTORS.iter().chain(own);
        members.flat_map(|member| texts(self.event.get(*member)))
    }

    /// Packages and versions that it names.
    pub fn packages(&self) -> impl Iterator<Item = &str> {
        let named = PACKAGES.iter().filter_map(|member| self.text(member));
        named.chain(texts(self.event.get("items")))
    }
}

/// A text, or the texts of a list; of a list of objects, their names.
fn texts<'a>(value: Option<&'a Value>) -> impl Iterator<Item = &'a str> {
    let (one, many) = match value {
        Some(Value::Array(many)) => (None, many.as_slice()),
        one => (one, [].as_slice()),
    };
    let text = |value: &'a Value| match value {
        Value::String(text) => Some(text.as_str()),
        Value::Object(members) => members.get("name")?.as_str(),
        _ => None,
    };
    one.into_iter().chain(many).filter_map(text)
}

impl Wanted {
    /// Whether an entry is looked for. Most entries of a request name the request alone: `of_request` tells whether
    /// that one is about the package.
    pub fn fits(&self, entry: &Entry, of_request: impl FnOnce(RequestId, &str) -> bool) -> bool {
        let time = self.since.is_none_or(|t| entry.time >= t)
            && self.until.is_none_or(|t| entry.time <= t);
        let kind = self.event.as_ref().is_none_or(|kind| entry.kind() == kind);
        let person = self.person.as_ref();
        let person = person.is_none_or(|p| entry.people().any(|name| name == p.as_str()));
        time && kind && person && self.about(entry, of_request)
    }

    fn about(&self, entry: &Entry, of_request: impl FnOnce(RequestId, &str) -> bool) -> bool {
        let Some(package) = &self.package else {
            return true;
        };
        let is_it = |name: &str| {
            let rest = name.strip_prefix(package.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
        };
        entry.packages().any(is_it) || entry.request().is_some_and(|id| of_request(id, package))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0198c0de-0000-7000-8000-000000000001";

    fn entry(event: &str) -> Entry {
        let event = event.replace("ID", ID);
        Entry::read(&format!(r#"{{"v":1,"time":50,"event":{event}}}"#)).unwrap()
    }

    fn found(wanted: &Wanted, event: &str) -> bool {
        wanted.fits(&entry(event), |id, package| {
            id.to_string() == ID && package == "npm:@acme/left"
        })
    }

    #[test]
    fn packages_are_found_by_their_whole_name_and_through_their_requests() {
        let wanted = Wanted {
            package: Some("npm:@acme/left".into()),
            ..Wanted::default()
        };
        for yes in [
            r#"{"type":"request-opened","request":"ID","items":["npm:@acme/other@1.0.0"]}"#,
            r#"{"type":"x","items":["npm:@acme/other@1.0.0","npm:@acme/left@1.0.0"]}"#,
            r#"{"type":"request-published","items":[{"name":"npm:@acme/left@1.0.0","read_back":[]}]}"#,
            r#"{"type":"frozen","package":"npm:@acme/left","by":"alice"}"#,
            r#"{"type":"version-unknown","name":"npm:@acme/left@2.0.0","file":""}"#,
            r#"{"type":"request-denied","request":"ID","person":"alice"}"#,
        ] {
            assert!(found(&wanted, yes), "{yes}");
        }
        for no in [
            r#"{"type":"frozen","package":"npm:@acme/left-pad","by":"alice"}"#,
            r#"{"type":"frozen","package":"npm:@acme/lef","by":"alice"}"#,
            r#"{"type":"client-key-added","name":"old-ci","by":"alice"}"#,
            r#"{"type":"sealed"}"#,
        ] {
            assert!(!found(&wanted, no), "{no}");
        }
        let other = Wanted {
            package: Some("npm:@acme/right".into()),
            ..Wanted::default()
        };
        assert!(!found(
            &other,
            r#"{"type":"request-denied","request":"ID"}"#
        ));
    }

    #[test]
    fn people_types_and_times_are_found_and_all_must_hold() {
        let frozen = r#"{"type":"frozen","package":"npm:@acme/left","by":"alice"}"#;
        let person = |name: &str| Wanted {
            person: Some(name.parse().unwrap()),
            ..Wanted::default()
        };
        assert!(found(&person("alice"), frozen) && !found(&person("bob"), frozen));
        for named in [
            r#"{"type":"thawed","by":["carol","alice"]}"#,
            r#"{"type":"rung","people":["alice"]}"#,
            r#"{"type":"x","person":"alice","by":"bob"}"#,
            r#"{"type":"x","by":"bob","confirmed":["alice"]}"#,
        ] {
            assert!(found(&person("alice"), named), "{named}");
        }
        assert!(!found(&person("alice"), r#"{"type":"x","to":"alice"}"#));
        let mut wanted = Wanted {
            event: Some("frozen".into()),
            since: Some(UnixTime(50)),
            until: Some(UnixTime(50)),
            ..person("alice")
        };
        assert!(found(&wanted, frozen));
        wanted.since = Some(UnixTime(51));
        assert!(!found(&wanted, frozen));
        wanted.since = None;
        wanted.until = Some(UnixTime(49));
        assert!(!found(&wanted, frozen));
        wanted.until = None;
        wanted.event = Some("thawed".into());
        assert!(!found(&wanted, frozen));
    }
}
