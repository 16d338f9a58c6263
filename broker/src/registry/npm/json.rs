//! JSON read strictly and as a stream.
//!
//! Two parsers that disagree about a document are an attack (14): a key that stands twice would show
//! one version to the people and publish the other. So whatever may be read in two ways is refused,
//! and what is passed on is written again from what was read.

use serde_json::{Map, Number, Value};
use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};
use struson::reader::{JsonReader as _, JsonStreamReader, ReaderError, ReaderSettings, ValueType};
use thiserror::Error;

/// Objects and arrays within each other.
pub(super) const MAX_DEPTH: usize = 16;
/// Values in one document. A value takes more room in memory than on the wire.
const MAX_VALUES: usize = 50_000;

/// Why a text was refused as JSON.
#[derive(Debug, Error)]
pub enum JsonError {
    /// Not JSON by RFC 8259, or not of the expected type.
    #[error("is not the JSON that it should be")]
    Syntax,
    /// Two members of one object have the same name.
    #[error("names '{0}' twice")]
    Twice(String),
    /// Nested too deeply.
    #[error("is nested too deeply")]
    TooDeep,
    /// More metadata than a package has.
    #[error("has too much metadata")]
    TooLarge,
    /// A number that does not survive being read and written again.
    #[error("has a number that is out of range")]
    Number,
    /// The bytes could not be read.
    #[error("could not be read")]
    Io(#[source] io::Error),
}

/// Counts the raw bytes read outside of streamed strings, so that neither a long key nor a flood of
/// white space can fill the memory.
#[derive(Default)]
struct Meter {
    left: Cell<u64>,
    paused: Cell<bool>,
    exceeded: Cell<bool>,
}

struct Metered<R> {
    inner: R,
    meter: Rc<Meter>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        if !self.meter.paused.get() {
            let Some(left) = self.meter.left.get().checked_sub(n as u64) else {
                self.meter.exceeded.set(true);
                return Err(io::Error::other("too much metadata"));
            };
            self.meter.left.set(left);
        }
        Ok(n)
    }
}

/// A strict reader over one document.
pub(super) struct Strict<R: Read> {
    json: JsonStreamReader<Metered<R>>,
    meter: Rc<Meter>,
    values_left: usize,
}

impl<R: Read> Strict<R> {
    /// Reads at most about `max` bytes, not counting strings read with [`Self::stream`].
    pub(super) fn new(input: R, max: u64) -> Self {
        Self::with_limits(input, max, MAX_DEPTH, MAX_VALUES)
    }

    /// For a reader that keeps little of a long document: any number of values, usual depth.
    pub(super) fn skimming(input: R, max: u64) -> Self {
        Self::with_limits(input, max, 128, usize::MAX)
    }

    fn with_limits(input: R, max: u64, depth: usize, values_left: usize) -> Self {
        let meter = Rc::new(Meter::default());
        meter.left.set(max);
        let settings = ReaderSettings {
            track_path: false,
            max_nesting_depth: u32::try_from(depth).ok(),
            ..ReaderSettings::default()
        };
        let inner = Metered {
            inner: input,
            meter: Rc::clone(&meter),
        };
        Self {
            json: JsonStreamReader::new_custom(inner, settings),
            meter,
            values_left,
        }
    }

    /// Reads an object member by member. `each` must read the member's value.
    pub(super) fn object<E: From<JsonError>>(
        &mut self,
        mut each: impl FnMut(&mut Self, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut seen = std::collections::HashSet::new();
        let begun = self.json.begin_object();
        begun.map_err(|e| self.error(e))?;
        loop {
            let more = self.json.has_next();
            if !more.map_err(|e| self.error(e))? {
                break;
            }
            self.count()?;
            // Escapes are decoded here: "\u005fid" is "_id", and may not stand beside it.
            let name = self.json.next_name_owned();
            let name = name.map_err(|e| self.error(e))?;
            if seen.contains(&name) {
                return Err(JsonError::Twice(proto::text::harmless(&name)).into());
            }
            each(self, &name)?;
            seen.insert(name);
        }
        let ended = self.json.end_object();
        Ok(ended.map_err(|e| self.error(e))?)
    }

    /// Reads one value of any type.
    pub(super) fn value(&mut self) -> Result<Value, JsonError> {
        self.count()?;
        let next = self.json.peek();
        match next.map_err(|e| self.error(e))? {
            ValueType::Null => {
                let read = self.json.next_null();
                read.map_err(|e| self.error(e))?;
                Ok(Value::Null)
            }
            ValueType::Boolean => {
                let read = self.json.next_bool();
                Ok(Value::Bool(read.map_err(|e| self.error(e))?))
            }
            ValueType::String => self.text().map(Value::String),
            ValueType::Number => {
                let read = self.json.next_number_as_string();
                number(&read.map_err(|e| self.error(e))?)
            }
            ValueType::Array => {
                let begun = self.json.begin_array();
                begun.map_err(|e| self.error(e))?;
                let mut items = Vec::new();
                loop {
                    let more = self.json.has_next();
                    if !more.map_err(|e| self.error(e))? {
                        break;
                    }
                    items.push(self.value()?);
                }
                let ended = self.json.end_array();
                ended.map_err(|e| self.error(e))?;
                Ok(Value::Array(items))
            }
            ValueType::Object => {
                let mut map = Map::new();
                self.object(|json, name| {
                    map.insert(name.to_owned(), json.value()?);
                    Ok::<_, JsonError>(())
                })?;
                Ok(Value::Object(map))
            }
        }
    }

    /// Reads a string.
    pub(super) fn text(&mut self) -> Result<String, JsonError> {
        let read = self.json.next_string();
        read.map_err(|e| self.error(e))
    }

    /// Skips a value; its size is not limited.
    pub(super) fn skip(&mut self) -> Result<(), JsonError> {
        let skipped = self.json.skip_value();
        skipped.map_err(|e| self.error(e))
    }

    /// Hands a string over as a stream, outside of the limit. `sink` sets its own limit, and must
    /// read to the end unless it fails.
    pub(super) fn stream<T, E: From<JsonError>>(
        &mut self,
        sink: impl FnOnce(&mut dyn Read) -> Result<T, E>,
    ) -> Result<T, E> {
        self.count()?;
        self.meter.paused.set(true);
        let result = match self.json.next_string_reader() {
            Ok(mut reader) => sink(&mut reader),
            Err(e) => Err(error(&self.meter, e).into()),
        };
        self.meter.paused.set(false);
        result
    }

    /// The document must end here.
    pub(super) fn finish(self) -> Result<(), JsonError> {
        let ended = self.json.consume_trailing_whitespace();
        ended.map_err(|e| error(&self.meter, e))
    }

    fn count(&mut self) -> Result<(), JsonError> {
        self.values_left = self.values_left.checked_sub(1).ok_or(JsonError::TooLarge)?;
        Ok(())
    }

    fn error(&self, e: ReaderError) -> JsonError {
        error(&self.meter, e)
    }
}

fn error(meter: &Meter, e: ReaderError) -> JsonError {
    match e {
        _ if meter.exceeded.get() => JsonError::TooLarge,
        ReaderError::IoError { error, .. } => JsonError::Io(error),
        ReaderError::MaxNestingDepthExceeded { .. } => JsonError::TooDeep,
        _ => JsonError::Syntax,
    }
}

/// A number that means the same after being written again.
fn number(text: &str) -> Result<Value, JsonError> {
    if let Ok(n) = text.parse::<i64>() {
        return Ok(Value::Number(n.into()));
    }
    if text.contains(['.', 'e', 'E']) {
        let float = text.parse().ok().and_then(Number::from_f64);
        return float.map(Value::Number).ok_or(JsonError::Number);
    }
    Err(JsonError::Number)
}

/// Reads a whole document that must be an object.
pub(in crate::registry) fn object(
    input: impl Read,
    max: u64,
) -> Result<Map<String, Value>, JsonError> {
    let mut json = Strict::new(input, max);
    let value = json.value()?;
    json.finish()?;
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(JsonError::Syntax),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Map<String, Value>, JsonError> {
        object(text.as_bytes(), 10_000)
    }

    #[test]
    fn reads_what_serde_reads() {
        let text = r#"{"a":[1,-2,3.5,true,false,null,"x\u00e9\n"],"b":{"c":{}},"d":[]}"#;
        assert_eq!(
            Value::Object(read(text).unwrap()),
            serde_json::from_str::<Value>(text).unwrap()
        );
    }

    #[test]
    fn attack_14_json_that_parsers_read_differently_is_refused() {
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"b":2,"a":1}}"#,
            r#"{"a":1,}"#,
            r#"{"a":1}{"a":2}"#,
            r#"{"a":1} x"#,
            r#"{"a":01}"#,
            r#"{"a":123456789012345678901234567890}"#,
            r#"{"a":1e999}"#,
            r#"{"a":NaN}"#,
            r#"{"a":/*x*/1}"#,
            r"{'a':1}",
            r#"{"a":"\ud800"}"#,
            "{\"a\":\"\n\"}",
            "\u{feff}{}",
            "[]",
            "",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert!(object(&b"{\"a\":\"\xff\"}"[..], 100).is_err());
    }

    #[test]
    fn everything_is_limited() {
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(read(&deep(15)).is_ok());
        assert!(matches!(read(&deep(16)), Err(JsonError::TooDeep)));
        let key = format!("{{\"{}\":1}}", "k".repeat(200_000));
        assert!(matches!(read(&key), Err(JsonError::TooLarge)));
        let blank = format!("{}{{}}", " ".repeat(200_000));
        assert!(matches!(read(&blank), Err(JsonError::TooLarge)));
        let many = format!("{{\"a\":[{}1]}}", "1,".repeat(60_000));
        assert!(matches!(
            object(many.as_bytes(), 1 << 20),
            Err(JsonError::TooLarge)
        ));
    }
}
