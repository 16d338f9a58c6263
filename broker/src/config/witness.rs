//! Witnesses of the log, as the configuration tells them.

use super::check::secure;
use proto::log::cosignature::{self, WitnessKey};
use serde::Deserialize;
use toml::Spanned;
use url::Url;

/// Most witnesses: each gets every checkpoint.
const WITNESSES_MAX: usize = 16;

/// A witness.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessEntry {
    /// Its vkey: `name+hash+base64`.
    pub key: Spanned<String>,
    /// Its submission prefix (C2SP tlog-witness): checkpoints go to `<url>/add-checkpoint`.
    pub url: Spanned<Url>,
}

impl WitnessEntry {
    /// Its key, read.
    pub fn key(&self) -> Result<WitnessKey, (usize, String)> {
        self.key.get_ref().parse().map_err(|why| {
            let why = format!("key `key`: {why}; ask the witness's operator for it");
            (self.key.span().start, why)
        })
    }

    /// Where checkpoints go.
    pub fn place(&self) -> Url {
        let mut url = self.url.get_ref().clone();
        let prefix = url.path().trim_end_matches('/');
        let path = format!("{prefix}/add-checkpoint");
        url.set_path(&path);
        url
    }
}

/// What must hold between them.
pub(super) fn check(entries: &[WitnessEntry]) -> Result<(), (usize, String)> {
    let mut keys = Vec::new();
    for entry in entries {
        let at = entry.key.span().start;
        keys.push(entry.key()?);
        if cosignature::distinct(&keys).is_err() {
            let why =
                "key `key`: another [[witness]] has this name or this key; one would count as two";
            return Err((at, why.to_owned()));
        }
        if keys.len() > WITNESSES_MAX {
            return Err((at, format!("[[witness]]: at most {WITNESSES_MAX}")));
        }
        let url = entry.url.get_ref();
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !plain {
            let why = "key `url`: the witness's submission prefix alone, like https://witness.example.net/w1, without user, query or fragment";
            return Err((entry.url.span().start, why.to_owned()));
        }
        secure(&entry.url, "url")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "witness.example/w1+8832d1ae+BNVCB9oZSXfc9Grb/sK8LnW1LVqKQhhP7f3AACTw4+ja";
    const TWO: &str = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";

    #[derive(Deserialize)]
    struct File {
        witness: Vec<WitnessEntry>,
    }

    fn read(entries: &[(&str, &str)]) -> Result<Vec<WitnessEntry>, String> {
        let one =
            |(key, url): &(&str, &str)| format!("[[witness]]\nkey = \"{key}\"\nurl = \"{url}\"\n");
        let text: String = entries.iter().map(one).collect();
        let file: File = toml::from_str(&text).map_err(|e| e.message().to_owned())?;
        check(&file.witness).map_err(|(_, why)| why)?;
        Ok(file.witness)
    }

    #[test]
    fn a_witness_has_a_key_of_its_own_and_a_safe_address() {
        let good = read(&[
            (ONE, "https://w.example/w1"),
            (TWO, "http://127.0.0.1:8080"),
        ]);
        let places: Vec<_> = good
            .unwrap()
            .iter()
            .map(|w| w.place().to_string())
            .collect();
        assert_eq!(
            places,
            [
                "https://w.example/w1/add-checkpoint",
                "http://127.0.0.1:8080/add-checkpoint"
            ]
        );
        let slash = read(&[(ONE, "https://w.example/a/")]).unwrap();
        assert_eq!(
            slash[0].place().as_str(),
            "https://w.example/a/add-checkpoint"
        );
        for (key, url, said) in [
            ("x", "https://w.example", "is not a witness's key"),
            (
                "broker.example/log+8c5aaf2a+Af0XJDhaoMdbZPt4zWAvodmR/ev3axPFjtcC6sg16fYY",
                "https://w.example",
                "type 04",
            ),
            (ONE, "http://w.example", "must be https"),
            (ONE, "ftp://127.0.0.1/", "must be https"),
            (ONE, "https://a:b@w.example/", "without user"),
            (ONE, "https://w.example/?a=b", "without user, query"),
            (ONE, "https://w.example/#a", "fragment"),
        ] {
            let why = read(&[(key, url)]).unwrap_err();
            assert!(why.contains(said), "{key} {url}: {why}");
        }
        let twice = read(&[(ONE, "https://a.example"), (ONE, "https://b.example")]);
        assert!(twice.unwrap_err().contains("would count as two"));
        assert!(toml::from_str::<File>("[[witness]]\nkey = \"a\"\nurl = \"b\"\nof = 1").is_err());
    }
}
