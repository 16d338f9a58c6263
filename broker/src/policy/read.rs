//! Reads TOML by its spans, so that every error names file, line, column and key.

use std::{fmt, str::FromStr};
use thiserror::Error;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Why a policy was refused: where, which key, and what to do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub struct PolicyError {
    file: String,
    line: usize,
    column: usize,
    key: Option<String>,
    why: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if let Some(key) = &self.key {
            write!(f, "key `{key}`: ")?;
        }
        f.write_str(&self.why)
    }
}

impl PolicyError {
    /// The line, from 1.
    pub const fn line(&self) -> usize {
        self.line
    }

    /// The key that is wrong, if it is one.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

/// The document, for turning byte offsets into lines.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl<'a> Source<'a> {
    /// An error at a byte offset.
    pub(super) fn error(self, at: usize, key: Option<&str>, why: impl Into<String>) -> PolicyError {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        PolicyError {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or("").chars().count() + 1,
            key: key.map(proto::text::harmless),
            why: why.into(),
        }
    }

    /// The document's table.
    pub(super) fn parse(self) -> Result<Spanned<DeTable<'a>>, PolicyError> {
        DeTable::parse(self.text).map_err(|e| {
            self.error(
                e.span().map_or(0, |s| s.start),
                None,
                proto::text::harmless(e.message()),
            )
        })
    }

    /// A table of the document.
    pub(super) const fn table<'t>(self, table: &'t DeTable<'a>, at: usize) -> Table<'t, 'a> {
        Table {
            source: self,
            keys: table,
            at,
        }
    }
}

/// A table with a closed set of keys.
#[derive(Clone, Copy)]
pub(super) struct Table<'t, 'a> {
    pub(super) source: Source<'a>,
    keys: &'t DeTable<'a>,
    at: usize,
}

impl<'t, 'a> Table<'t, 'a> {
    /// An error about the table itself.
    pub(super) fn error(self, key: &str, why: impl Into<String>) -> PolicyError {
        self.source.error(self.at, Some(key), why)
    }

    /// Every key with its value.
    pub(super) fn values(self) -> impl Iterator<Item = Value<'t, 'a>> {
        self.keys.iter().map(move |(key, value)| Value {
            source: self.source,
            key: key.get_ref(),
            key_at: key.span().start,
            at: value,
        })
    }

    /// The value of a key.
    pub(super) fn optional(self, key: &str) -> Option<Value<'t, 'a>> {
        self.values().find(|v| v.key == key)
    }

    /// The value of a key that must be there.
    pub(super) fn required(self, key: &str) -> Result<Value<'t, 'a>, PolicyError> {
        self.optional(key)
            .ok_or_else(|| self.error(key, "is missing"))
    }
}

/// A value with the key it belongs to.
#[derive(Clone, Copy)]
pub(super) struct Value<'t, 'a> {
    source: Source<'a>,
    pub(super) key: &'t str,
    key_at: usize,
    at: &'t Spanned<DeValue<'a>>,
}

impl<'t, 'a> Value<'t, 'a> {
    /// An error at this value.
    pub(super) fn error(self, why: impl Into<String>) -> PolicyError {
        self.source.error(self.at.span().start, Some(self.key), why)
    }

    /// An error at its key.
    pub(super) fn key_error(self, why: impl Into<String>) -> PolicyError {
        self.source.error(self.key_at, Some(self.key), why)
    }

    /// A text.
    pub(super) fn text(self) -> Result<&'t str, PolicyError> {
        self.at
            .get_ref()
            .as_str()
            .ok_or_else(|| self.error("must be a text in quotes"))
    }

    /// A text or a whole number (written in decimal), as text: ids come as either.
    pub(super) fn text_or_number(self) -> Result<String, PolicyError> {
        match self.at.get_ref() {
            DeValue::String(text) => Ok(text.as_ref().to_owned()),
            DeValue::Integer(_) => self.number().map(|n| n.to_string()),
            _ => Err(self.error("must be a text, a whole number or a list of them")),
        }
    }

    /// A whole number from 0.
    pub(super) fn number(self) -> Result<u64, PolicyError> {
        self.at
            .get_ref()
            .as_integer()
            .and_then(|n| u64::from_str_radix(n.as_str(), n.radix()).ok())
            .ok_or_else(|| self.error("must be a whole number"))
    }

    /// `true` or `false`.
    pub(super) fn flag(self) -> Result<bool, PolicyError> {
        self.at
            .get_ref()
            .as_bool()
            .ok_or_else(|| self.error("must be true or false"))
    }

    /// A table.
    pub(super) fn table(self) -> Result<Table<'t, 'a>, PolicyError> {
        let table = self
            .at
            .get_ref()
            .as_table()
            .ok_or_else(|| self.error("must be a table"))?;
        Ok(self.source.table(table, self.at.span().start))
    }

    /// The elements of a list that has at least one.
    pub(super) fn list(self) -> Result<Vec<Self>, PolicyError> {
        let array = self
            .at
            .get_ref()
            .as_array()
            .ok_or_else(|| self.error("must be a list"))?;
        let list: Vec<_> = array
            .iter()
            .map(|value| Self { at: value, ..self })
            .collect();
        if list.is_empty() {
            return Err(self.error("must not be empty; leave out what allows nothing"));
        }
        Ok(list)
    }

    /// The elements of a list, or the value alone.
    pub(super) fn list_or_one(self) -> Result<Vec<Self>, PolicyError> {
        if self.at.get_ref().is_array() {
            self.list()
        } else {
            Ok(vec![self])
        }
    }

    /// A list of distinct names.
    pub(super) fn names<T: FromStr<Err: fmt::Display> + PartialEq>(
        self,
    ) -> Result<Vec<T>, PolicyError> {
        self.distinct(|v| {
            v.text()?
                .parse()
                .map_err(|e: T::Err| v.error(e.to_string()))
        })
    }

    /// Whether it is this very text.
    pub(super) fn is(self, text: &str) -> bool {
        self.text().is_ok_and(|own| own == text)
    }

    /// The same, if it stands on one line: of a list whose elements demand something, the loss of an element's line
    /// would demand less (attack 49).
    pub(super) fn on_one_line(self) -> Result<Self, PolicyError> {
        let text = self.source.text.get(self.at.span()).unwrap_or("\n");
        if text.contains('\n') {
            return Err(self.error("must stand on one line, so that no part of it is lost unseen"));
        }
        Ok(self)
    }

    /// A list of distinct things.
    pub(super) fn distinct<T: PartialEq>(
        self,
        parse: impl Fn(Self) -> Result<T, PolicyError>,
    ) -> Result<Vec<T>, PolicyError> {
        let mut all = Vec::new();
        for value in self.list()? {
            let one = parse(value)?;
            if all.contains(&one) {
                return Err(value.error("stands here twice"));
            }
            all.push(one);
        }
        Ok(all)
    }
}
