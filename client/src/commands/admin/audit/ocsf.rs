//! Entries of the log as events of the Open Cybersecurity Schema Framework (OCSF 1.1.0), for programs that collect
//! such. Nothing is lost: the entry itself goes along as `raw_data`, and its members as `unmapped`.

use proto::log::find::Entry;
use serde_json::{Value, json};

/// The schema's version that is written.
const SCHEMA: &str = "1.1.0";

/// The class of an event, with what that class calls the activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// 3001, about a user: 1 create, 6 delete, 10 MFA factor enabled, 11 MFA factor disabled, 99 other.
    Account(u8),
    /// 3004, about anything else that is managed: 1 create, 3 update, 4 delete, 99 other.
    Entity(u8),
    /// 2004, something that somebody should look at: 1 create.
    Finding,
}

impl Class {
    /// Where an event belongs. What this program does not know is an activity of its own kind.
    fn of(kind: &str) -> Self {
        match kind {
            "person-enrolled" | "invite-made" => Self::Account(1),
            "person-removed" => Self::Account(6),
            "passkey-added" | "totp-set" | "device-added" => Self::Account(10),
            "passkey-removed" | "device-removed" => Self::Account(11),
            "recovery-asked" | "recovery-cancelled" | "recovery-invited" | "person-recovered"
            | "person-changed" | "channel-added" | "channel-removed" | "channel-gone"
            | "quiet-hours-set" | "change-refused" => Self::Account(99),
            "request-opened" | "intent-made" | "token-stored" | "client-key-added"
            | "deposited" | "minted" | "share-key-set" | "staged" => Self::Entity(1),
            "token-removed" | "token-destroyed" | "client-key-removed" | "intent-withdrawn" => {
                Self::Entity(4)
            }
            "token-rotated"
            | "token-back"
            | "policy-loaded"
            | "request-approved"
            | "request-published"
            | "request-denied"
            | "request-expired"
            | "request-cancelled"
            | "published"
            | "frozen"
            | "everything-stopped"
            | "withdrawal-done"
            | "thawed"
            | "unseal-method-changed" => Self::Entity(3),
            _ if is_alarm(kind) => Self::Finding,
            _ => Self::Entity(99),
        }
    }

    const fn ids(self) -> (u32, u32, u32) {
        match self {
            Self::Account(activity) => (3, 3001, activity as u32),
            Self::Entity(activity) => (3, 3004, activity as u32),
            Self::Finding => (2, 2004, 1),
        }
    }
}

/// What an admin should look at, whoever did it.
fn is_alarm(kind: &str) -> bool {
    const ALARMS: [&str; 19] = [
        "conflict",
        "outcome-unclear",
        "artifact-differs",
        "artifact-elsewhere",
        "artifact-overdue",
        "stage-differs",
        "stage-foreign",
        "version-unknown",
        "version-changed",
        "version-gone",
        "version-withdrawn",
        "latest-moved",
        "watch-blind",
        "frozen-by-broker",
        "clock-suspect",
        "totp-exhausted",
        "unseal-failed",
        "witness-refused",
        "witness-dropped",
    ];
    ALARMS.contains(&kind)
}

/// One entry as an OCSF event. `log` is the log's name.
pub(super) fn event(log: &str, index: u64, leaf: &str, entry: &Entry) -> Value {
    let kind = entry.kind();
    let class = Class::of(kind);
    let (category, uid, activity) = class.ids();
    let failed = kind.ends_with("-refused") || kind.ends_with("-failed");
    let severity = match class {
        Class::Finding => 4,
        _ if failed => 2,
        _ => 1,
    };
    let mut event = json!({
        "activity_id": activity,
        "category_uid": category,
        "class_uid": uid,
        "type_uid": uid * 100 + activity,
        "time": entry.time.0.saturating_mul(1000),
        "severity_id": severity,
        "status_id": if failed { 2 } else { 1 },
        "message": kind,
        "metadata": {
            "version": SCHEMA,
            "uid": format!("{log}/{index}"),
            "event_code": kind,
            "sequence": index,
            "log_name": log,
            "product": {"name": "Countersign", "vendor_name": "Countersign"},
        },
        "unmapped": entry.event,
        "raw_data": leaf,
    });
    let (member, about) = about(class, log, index, entry);
    put(&mut event, member, about);
    // Who acted: `by`, or the person where nobody else is named.
    let by = entry.text("by").or_else(|| entry.text("person"));
    if let Some(by) = by {
        put(&mut event, "actor", json!({"user": {"name": by}}));
    }
    event
}

fn put(object: &mut Value, member: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(member.to_owned(), value);
    }
}

/// What each class demands: a user, an entity, a finding.
fn about(class: Class, log: &str, index: u64, entry: &Entry) -> (&'static str, Value) {
    let kind = entry.kind();
    match class {
        Class::Account(_) => {
            let name = entry.text("person").unwrap_or("unknown");
            ("user", json!({"name": name}))
        }
        Class::Finding => {
            let named = entry.packages().next();
            let title = named.map_or_else(|| kind.to_owned(), |name| format!("{kind}: {name}"));
            let uid = format!("{log}/{index}");
            ("finding_info", json!({"title": title, "uid": uid}))
        }
        Class::Entity(_) => {
            let named = entry.packages().next();
            let request = entry.text("request");
            let name = named.or(request).or_else(|| entry.text("registry"));
            let name = name.unwrap_or("broker");
            let mut entity = json!({"name": name, "type": kind});
            if let Some(request) = request {
                put(&mut entity, "uid", request.into());
            }
            ("entity", entity)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(event: &Value) -> Value {
        let leaf = json!({"v": 1, "time": 5, "event": event}).to_string();
        let entry = Entry::read(&leaf).unwrap();
        let made = super::event("broker.example", 7, &leaf, &entry);
        // What every class demands, with the sum that the schema defines.
        for member in [
            "activity_id",
            "category_uid",
            "class_uid",
            "severity_id",
            "type_uid",
        ] {
            assert!(made[member].is_u64(), "{member}: {made}");
        }
        let sum = made["class_uid"].as_u64().unwrap() * 100 + made["activity_id"].as_u64().unwrap();
        assert_eq!(made["type_uid"], sum);
        assert_eq!(
            made["category_uid"],
            made["class_uid"].as_u64().unwrap() / 1000
        );
        assert_eq!(made["time"], 5000);
        assert_eq!(made["metadata"]["version"], SCHEMA);
        assert_eq!(made["metadata"]["product"]["vendor_name"], "Countersign");
        assert_eq!(made["raw_data"], leaf);
        made
    }

    #[test]
    fn people_entities_and_alarms_have_their_classes_and_what_these_demand() {
        let made = of(&json!({"type": "person-removed", "person": "bob", "by": "robin"}));
        assert_eq!(
            (&made["class_uid"], &made["user"]["name"]),
            (&json!(3001), &json!("bob"))
        );
        assert_eq!(made["actor"]["user"]["name"], "robin");
        assert_eq!(made["type_uid"], 300_106);
        let made = of(&json!({"type": "frozen", "package": "npm:@acme/left", "by": "robin"}));
        assert_eq!(made["class_uid"], 3004);
        assert_eq!(made["entity"]["name"], "npm:@acme/left");
        let made =
            of(&json!({"type": "version-unknown", "name": "npm:@acme/left@2.0.0", "file": ""}));
        assert_eq!(
            (&made["class_uid"], &made["severity_id"]),
            (&json!(2004), &json!(4))
        );
        assert_eq!(made["finding_info"]["uid"], "broker.example/7");
        let made = of(&json!({"type": "answer-refused", "request": "r", "person": "bob"}));
        assert_eq!(
            (&made["status_id"], &made["entity"]["uid"]),
            (&json!(2), &json!("r"))
        );
        // What nobody has heard of yet is an event all the same.
        let made = of(&json!({"type": "something-new"}));
        assert_eq!(
            (&made["class_uid"], &made["activity_id"]),
            (&json!(3004), &json!(99))
        );
        assert_eq!(made["entity"]["name"], "broker");
    }
}
