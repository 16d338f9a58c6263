//! What a receipt states, as others read it: an in-toto Statement (v1) whose subjects are the published files and
//! whose predicate is the [`ReceiptBody`].

use crate::{api::ReceiptBody, request::RequestFacts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The envelope's payload type, as in-toto names it.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The statement's type.
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The predicate's type: what was approved by whom, what the registry showed, and the log's word for it.
pub const PREDICATE_TYPE: &str = "urn:countersign:publish:v1";

/// An in-toto statement about files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    /// What is stated of them.
    pub predicate: ReceiptBody,
}

/// A published file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    /// `npm:@acme/left@1.4.2/left-1.4.2.tgz`
    name: String,
    /// By its algorithm's name, hex.
    digest: BTreeMap<String, String>,
}

impl Statement {
    /// Of a publish.
    pub fn new(predicate: ReceiptBody) -> Self {
        Self {
            kind: STATEMENT_TYPE.to_owned(),
            subject: subjects(&predicate.facts),
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate,
        }
    }

    /// What is wrong with the frame. Whoever reads no further than the subjects must not read anything else there
    /// than what was approved and published.
    pub fn wrong(&self) -> Option<&'static str> {
        if self.kind != STATEMENT_TYPE || self.predicate_type != PREDICATE_TYPE {
            return Some("another kind of statement");
        }
        let same = self.subject == subjects(&self.predicate.facts);
        (!same).then_some("its subjects are not the files of its request")
    }
}

fn subjects(facts: &RequestFacts) -> Vec<Subject> {
    let of = |item: &crate::request::Item| {
        let name = item.name();
        let subject = move |file: &crate::request::File| {
            let digest = file.digest.to_string();
            let digest = digest.split_once(':').into_iter();
            Subject {
                name: format!("{name}/{}", file.name),
                digest: digest.map(|(by, hex)| (by.into(), hex.into())).collect(),
            }
        };
        item.files.iter().map(subject).collect::<Vec<_>>()
    };
    facts.items.iter().flat_map(of).collect()
}
