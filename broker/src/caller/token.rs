//! Reads a token that nobody has verified: size, three parts, a strict header, typed claims.
//!
//! Nothing here is to be believed. The result carries what is needed to choose a key and to check
//! the signature; [`super::verify`] alone turns it into a caller.

use super::refused::CallerRefused;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use std::{borrow::Cow, collections::BTreeMap, fmt};

/// Longest token, in bytes. Those of real issuers have 1 to 2 KiB.
pub const TOKEN_MAX: usize = 8 * 1024;
/// Longest `jti`, in bytes.
pub const JTI_MAX: usize = 256;
/// Longest `iss`, `aud`, `sub` and `kid`, in bytes.
const NAME_MAX: usize = 512;
/// How deep claims may nest; the claims object itself is depth 1.
const DEPTH_MAX: usize = 8;

/// A token's parts, unverified.
pub struct UnverifiedToken<'a> {
    /// The compact form.
    pub(super) raw: &'a str,
    pub(super) header: UnverifiedHeader,
    pub(super) claims: UnverifiedClaims,
}

/// The header. Unknown members are refused, and with them `jku`, `x5u`, `jwk`, `x5c` (which would
/// let a token bring its own key) and `crit` (which would demand that we understand something).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnverifiedHeader {
    pub(super) alg: String,
    pub(super) kid: String,
    #[serde(default, deserialize_with = "present")]
    pub(super) typ: Option<String>,
    /// Thumbprints are tolerated because real issuers send them; nothing reads them.
    #[serde(default, rename = "x5t", deserialize_with = "present")]
    _x5t: Option<String>,
    #[serde(default, rename = "x5t#S256", deserialize_with = "present")]
    _x5t_s256: Option<String>,
}

/// A member that is there must be a string: `null` is not "absent" (CVE-2026-25537's class).
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    String::deserialize(d).map(Some)
}

/// `aud` as it was written.
pub(super) enum UnverifiedAudience {
    /// One string.
    Text(String),
    /// A list of exactly one string.
    ListOfOne(String),
}

/// The claims, typed. A wrong type is refused here and never read as "absent".
pub(super) struct UnverifiedClaims {
    pub(super) iss: String,
    pub(super) aud: UnverifiedAudience,
    pub(super) sub: String,
    pub(super) jti: Option<String>,
    pub(super) exp: u64,
    pub(super) iat: u64,
    pub(super) nbf: Option<u64>,
    /// Every claim, those above too.
    all: Map<String, Value>,
}

impl<'a> UnverifiedToken<'a> {
    /// Splits and reads a compact JWS (RFC 7515 §7.1). Size first, so that nothing large is parsed.
    pub fn parse(raw: &'a str) -> Result<Self, CallerRefused> {
        if raw.len() > TOKEN_MAX {
            return Err(CallerRefused::Malformed("is longer than 8 KiB"));
        }
        let mut parts = raw.splitn(4, '.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(CallerRefused::Malformed(
                "does not have exactly three parts",
            ));
        };
        let header = part(header)?;
        let claims = part(claims)?;
        // An empty signature is what `alg: none` has.
        part(signature)?;

        let header: UnverifiedHeader = serde_json::from_slice(&header).map_err(|_| {
            CallerRefused::Malformed("has a header with members other than alg, kid, typ and x5t")
        })?;
        if header.kid.is_empty() || header.kid.len() > NAME_MAX {
            return Err(CallerRefused::Malformed(
                "names its key by an empty or very long kid",
            ));
        }
        Ok(Self {
            raw,
            header,
            claims: UnverifiedClaims::read(&claims)?,
        })
    }
}

/// One non-empty part in base64url without padding, in its one canonical spelling.
fn part(text: &str) -> Result<Vec<u8>, CallerRefused> {
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(CallerRefused::Malformed(
            "has a part that is empty or not base64url",
        )),
    }
}

impl UnverifiedClaims {
    fn read(json: &[u8]) -> Result<Self, CallerRefused> {
        let Ok(Strict(Value::Object(all))) = serde_json::from_slice::<Strict>(json) else {
            return Err(CallerRefused::Malformed(
                "has claims that are not one JSON object with every name once",
            ));
        };
        let text = |name: &'static str, max: usize| match all.get(name) {
            Some(Value::String(s)) if !s.is_empty() && s.len() <= max => Ok(s.clone()),
            _ => Err(CallerRefused::ClaimMissing(Cow::Borrowed(name))),
        };
        // Whole seconds as a JSON integer: no float, no negative number, no string of digits.
        let time = |name: &'static str| {
            all.get(name)
                .and_then(Value::as_u64)
                .ok_or(CallerRefused::ClaimMissing(Cow::Borrowed(name)))
        };
        Ok(Self {
            iss: text("iss", NAME_MAX)?,
            aud: match all.get("aud") {
                // A list of several invites "any of them will do" (CVE-2020-26160). Whether one of
                // one is taken depends on the issuer's kind.
                Some(Value::Array(list)) => match list.as_slice() {
                    [Value::String(one)] if !one.is_empty() && one.len() <= NAME_MAX => {
                        UnverifiedAudience::ListOfOne(one.clone())
                    }
                    _ => return Err(CallerRefused::ClaimMissing("aud".into())),
                },
                _ => UnverifiedAudience::Text(text("aud", NAME_MAX)?),
            },
            sub: text("sub", NAME_MAX)?,
            jti: if all.contains_key("jti") {
                Some(text("jti", JTI_MAX)?)
            } else {
                None
            },
            exp: time("exp")?,
            iat: time("iat")?,
            nbf: if all.contains_key("nbf") {
                Some(time("nbf")?)
            } else {
                None
            },
            all,
        })
    }

    /// A claim that has to be there, as plain text of at most `max` bytes.
    pub(super) fn required(
        &self,
        name: impl Into<Cow<'static, str>>,
        max: usize,
    ) -> Result<String, CallerRefused> {
        let name = name.into();
        self.optional(name.clone(), max)?
            .ok_or(CallerRefused::ClaimMissing(name))
    }

    /// A claim that may be absent. When it is there it is [`plain`].
    pub(super) fn optional(
        &self,
        name: impl Into<Cow<'static, str>>,
        max: usize,
    ) -> Result<Option<String>, CallerRefused> {
        let name = name.into();
        match self.all.get(name.as_ref()) {
            None => Ok(None),
            Some(value) => plain(value, max)
                .map(Some)
                .ok_or(CallerRefused::ClaimMissing(name)),
        }
    }

    /// As [`Self::optional`], where the issuer writes `null` or an empty text for what is absent.
    pub(super) fn optional_or_null(
        &self,
        name: &'static str,
        max: usize,
    ) -> Result<Option<String>, CallerRefused> {
        match self.all.get(name) {
            Some(Value::Null) => Ok(None),
            Some(Value::String(s)) if s.is_empty() => Ok(None),
            _ => self.optional(name, max),
        }
    }

    /// A whole number of 64 bits, which this issuer writes as a JSON integer or as a string of
    /// digits without zeros in front; in its one spelling.
    pub(super) fn integer(&self, name: &'static str) -> Result<Option<String>, CallerRefused> {
        let number = match self.all.get(name) {
            None => return Ok(None),
            Some(Value::Number(n)) => n.as_u64().map(|n| n.to_string()),
            Some(Value::String(s)) => s
                .parse()
                .ok()
                .map(|n: u64| n.to_string())
                .filter(|canonical| canonical == s),
            Some(_) => None,
        };
        number
            .map(Some)
            .ok_or(CallerRefused::ClaimMissing(Cow::Borrowed(name)))
    }

    /// A boolean that has to be there.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, CallerRefused> {
        self.all
            .get(name)
            .and_then(Value::as_bool)
            .ok_or(CallerRefused::ClaimMissing(Cow::Borrowed(name)))
    }

    /// A list of plain texts; absent is the empty list.
    pub(super) fn strings(
        &self,
        name: &'static str,
        max: usize,
    ) -> Result<Vec<String>, CallerRefused> {
        let bad = || CallerRefused::ClaimMissing(Cow::Borrowed(name));
        let Some(value) = self.all.get(name) else {
            return Ok(Vec::new());
        };
        let list = value.as_array().ok_or_else(bad)?;
        list.iter().map(|v| plain(v, max).ok_or_else(bad)).collect()
    }

    /// A text inside objects, by the names that lead to it.
    pub(super) fn nested(
        &self,
        path: &[&'static str],
        max: usize,
    ) -> Result<Option<String>, CallerRefused> {
        let bad = || CallerRefused::ClaimMissing(path.join(".").into());
        let Some((leaf, objects)) = path.split_last() else {
            return Ok(None);
        };
        let mut object = &self.all;
        for name in objects {
            match object.get(*name) {
                None => return Ok(None),
                Some(value) => object = value.as_object().ok_or_else(bad)?,
            }
        }
        let Some(value) = object.get(*leaf) else {
            return Ok(None);
        };
        plain(value, max).map(Some).ok_or_else(bad)
    }
}

/// A string of at most `max` bytes without characters that mislead a reader (attack 10): it will be
/// shown to whoever decides.
fn plain(value: &Value, max: usize) -> Option<String> {
    let text = value.as_str()?;
    proto::text::check(text, max).ok()?;
    Some(text.to_owned())
}

/// JSON in which no object names a member twice and nothing nests deeply: two parsers that disagree
/// about a repeated claim would see two callers.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Depth(DEPTH_MAX).deserialize(d).map(Strict)
    }
}

/// Levels that are still allowed.
#[derive(Clone, Copy)]
struct Depth(usize);

impl Depth {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        self.0
            .checked_sub(1)
            .map(Self)
            .ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Depth {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Depth {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with every name once")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut out = Vec::new();
        while let Some(v) = seq.next_element_seed(inner)? {
            out.push(v);
        }
        Ok(Value::Array(out))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        // Sorted and not a `Map`, whose order depends on what else is in the build.
        let mut out = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(inner)?;
            if out.insert(name, value).is_some() {
                return Err(de::Error::custom("a name stands twice"));
            }
        }
        Ok(Value::Object(out.into_iter().collect()))
    }
}
