//! Reads `multipart/form-data` as a stream (RFC 7578, RFC 2046 §5.1.1), in the one way that Python's upload
//! clients write it. Whatever two parsers could read differently is refused; what is sent on is written anew.

use std::io::{self, Read};
use thiserror::Error;

/// Bytes read ahead.
const CHUNK: usize = 32 << 10;
/// Length of one part's headers.
const MAX_HEADERS: usize = 4 << 10;
/// Length of a boundary (RFC 2046 §5.1.1).
const MAX_BOUNDARY: usize = 70;

/// Why a form was refused.
#[derive(Debug, Error)]
pub enum FormError {
    /// No form, or none that says where its parts end.
    #[error("the upload is no multipart/form-data with a plain boundary")]
    ContentType,
    /// Not of the grammar, or cut short.
    #[error("the upload's form is damaged: {0}")]
    Shape(&'static str),
    /// It could not be read.
    #[error("the upload could not be read")]
    Io(#[source] io::Error),
}

/// The boundary of a `Content-Type` header.
pub(super) fn boundary(content_type: &str) -> Result<String, FormError> {
    let bad = || FormError::ContentType;
    let (kind, parameters) = content_type.split_once(';').ok_or_else(bad)?;
    let (name, value) = parameters.trim().split_once('=').ok_or_else(bad)?;
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').ok_or_else(bad)?,
        None => value,
    };
    let plain = (1..=MAX_BOUNDARY).contains(&value.len())
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&b));
    if kind.trim().eq_ignore_ascii_case("multipart/form-data")
        && name.eq_ignore_ascii_case("boundary")
        && plain
    {
        Ok(value.to_owned())
    } else {
        Err(bad())
    }
}

/// What one part is called.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// The field.
    pub(super) field: String,
    /// The file, where it is one.
    pub(super) file: Option<String>,
}

/// A form on its way in.
pub(super) struct Form<R> {
    input: R,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were given out.
    used: usize,
    /// `\r\n--boundary`
    delimiter: Vec<u8>,
    begun: bool,
    /// Nothing is left of the current part.
    part_ended: bool,
    input_ended: bool,
}

impl<R: Read> Form<R> {
    /// Starts.
    pub(super) fn new(input: R, boundary: &str) -> Self {
        Self {
            input,
            // The first delimiter has no line before it.
            buffer: b"\r\n".to_vec(),
            used: 0,
            delimiter: [b"\r\n--", boundary.as_bytes()].concat(),
            begun: false,
            part_ended: true,
            input_ended: false,
        }
    }

    /// The next part's name; its content is to be read from `self` until it ends. `None` at the form's end.
    pub(super) fn next(&mut self) -> Result<Option<Name>, FormError> {
        if !self.begun {
            self.begun = true;
            let want = self.delimiter.len();
            self.fill(want)?;
            let delimiter = self.delimiter.clone();
            self.expect(&delimiter, "something stands before the first part")?;
        } else if !self.part_ended {
            return Err(FormError::Shape("a part was not read"));
        }
        self.fill(2)?;
        if self.ahead().starts_with(b"--") {
            return self.end().map(|()| None);
        }
        self.expect(b"\r\n", "a boundary that does not end its line")?;
        self.part_ended = false;
        self.headers().map(Some)
    }

    /// After the last boundary nothing may come but the end of its line.
    fn end(&mut self) -> Result<(), FormError> {
        self.expect(b"--", "the end")?;
        self.fill(3)?;
        match self.ahead() {
            b"" | b"\r\n" => Ok(()),
            _ => Err(FormError::Shape("it goes on after its end")),
        }
    }

    fn headers(&mut self) -> Result<Name, FormError> {
        let mut name = None;
        let mut left = MAX_HEADERS;
        loop {
            let line = self.line(&mut left)?;
            if line.is_empty() {
                return name.ok_or(FormError::Shape("a part without a name"));
            }
            let (header, value) = line
                .split_once(':')
                .ok_or(FormError::Shape("a header without a colon"))?;
            match header.to_ascii_lowercase().as_str() {
                "content-disposition" if name.is_none() => name = Some(disposition(value.trim())?),
                // What it says changes nothing: every text is UTF-8, every file is bytes.
                "content-type" | "content-length" => {}
                _ => return Err(FormError::Shape("a header that no part has")),
            }
        }
    }

    fn line(&mut self, left: &mut usize) -> Result<String, FormError> {
        let mut line = Vec::new();
        loop {
            self.fill(1)?;
            let Some(byte) = self.ahead().first().copied() else {
                return Err(FormError::Shape("it is cut short"));
            };
            self.used += 1;
            *left = left
                .checked_sub(1)
                .ok_or(FormError::Shape("headers without an end"))?;
            match byte {
                b'\r' => break,
                b'\n' | 0 => return Err(FormError::Shape("a bare line break")),
                _ => line.push(byte),
            }
        }
        self.fill(1)?;
        self.expect(b"\n", "a bare line break")?;
        String::from_utf8(line).map_err(|_| FormError::Shape("a header that is not UTF-8"))
    }

    fn ahead(&self) -> &[u8] {
        self.buffer.get(self.used..).unwrap_or_default()
    }

    fn expect(&mut self, want: &[u8], what: &'static str) -> Result<(), FormError> {
        if !self.ahead().starts_with(want) {
            return Err(FormError::Shape(what));
        }
        self.used += want.len();
        Ok(())
    }

    /// Reads until `want` bytes lie ahead, or the input ends.
    fn fill(&mut self, want: usize) -> Result<(), FormError> {
        while !self.input_ended && self.buffer.len() - self.used < want {
            self.more().map_err(FormError::Io)?;
        }
        Ok(())
    }

    fn more(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let before = self.buffer.len();
        self.buffer.resize(before + CHUNK, 0);
        let space = self.buffer.get_mut(before..).unwrap_or_default();
        let n = self.input.read(space)?;
        self.buffer.truncate(before + n);
        self.input_ended = n == 0;
        Ok(())
    }
}

/// The content of the current part.
impl<R: Read> Read for Form<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.part_ended || out.is_empty() {
            return Ok(0);
        }
        loop {
            match find(self.ahead(), &self.delimiter) {
                Found::At(0) => {
                    self.used += self.delimiter.len();
                    self.part_ended = true;
                    return Ok(0);
                }
                // Up to where the delimiter begins, or might begin.
                Found::At(n) | Found::Perhaps(n) if n > 0 => {
                    let n = n.min(out.len());
                    if let (Some(to), Some(from)) = (out.get_mut(..n), self.ahead().get(..n)) {
                        to.copy_from_slice(from);
                    }
                    self.used += n;
                    return Ok(n);
                }
                _ if self.input_ended => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => self.more()?,
            }
        }
    }
}

enum Found {
    /// The delimiter is here.
    At(usize),
    /// The text ends with what might become the delimiter from here on (or at the text's end).
    Perhaps(usize),
}

fn find(text: &[u8], delimiter: &[u8]) -> Found {
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        let Some(n) = rest.iter().position(|b| *b == b'\r') else {
            break;
        };
        let here = rest.get(n..).unwrap_or_default();
        if here.starts_with(delimiter) {
            return Found::At(at + n);
        }
        if delimiter.starts_with(here) {
            return Found::Perhaps(at + n);
        }
        at += n + 1;
    }
    Found::Perhaps(text.len())
}

/// `form-data; name="…"` with at most one `filename="…"`. Escapes and encodings are refused: a name that needs
/// one is no name of a field or of a distribution.
fn disposition(value: &str) -> Result<Name, FormError> {
    let bad = || FormError::Shape("a part's name");
    let mut rest = value.strip_prefix("form-data").ok_or_else(bad)?;
    let (mut field, mut file) = (None, None);
    while !rest.is_empty() {
        rest = rest.strip_prefix(';').ok_or_else(bad)?.trim_start();
        let (key, after) = rest.split_once("=\"").ok_or_else(bad)?;
        let (text, after) = after.split_once('"').ok_or_else(bad)?;
        if text.contains(['\\', '%']) || text.chars().any(char::is_control) {
            return Err(bad());
        }
        let slot = match key {
            "name" => &mut field,
            "filename" => &mut file,
            _ => return Err(bad()),
        };
        if slot.replace(text.to_owned()).is_some() {
            return Err(bad());
        }
        rest = after;
    }
    Ok(Name {
        field: field.ok_or_else(bad)?,
        file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out what it holds in pieces of this length, so that every cut comes up.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(out.len()).min(self.0.len());
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    type Parts = Vec<(Name, Vec<u8>)>;

    fn parts(text: &[u8], piece: usize) -> Result<Parts, String> {
        let mut form = Form::new(Drip(text, piece), "b0");
        let mut out = Vec::new();
        while let Some(name) = form.next().map_err(|e| e.to_string())? {
            let mut content = Vec::new();
            form.read_to_end(&mut content).map_err(|e| e.to_string())?;
            out.push((name, content));
        }
        Ok(out)
    }

    const USUAL: &str = "--b0\r\nContent-Disposition: form-data; name=\":action\"\r\n\r\nfile_upload\r\n--b0\r\n\
        Content-Disposition: form-data; name=\"content\"; filename=\"a-1.whl\"\r\nContent-Type: application/octet-stream\r\n\r\n\
        \r\n--b\r\r\n--b\n\r\n--b0--\r\n";

    #[test]
    fn a_usual_form_is_read_whatever_the_pieces() {
        for piece in (1..80).chain([100_000]) {
            let parts = parts(USUAL.as_bytes(), piece).unwrap();
            assert_eq!(parts.len(), 2, "{piece}");
            assert_eq!(parts[0].0.field, ":action");
            assert_eq!(parts[0].1, b"file_upload");
            assert_eq!(parts[1].0.file.as_deref(), Some("a-1.whl"));
            assert_eq!(parts[1].1, b"\r\n--b\r\r\n--b\n", "{piece}");
        }
        let large = "x\r\n".repeat(100_000);
        let form = format!(
            "--b0\r\ncontent-disposition: form-data; name=\"content\"; filename=\"f\"\r\n\r\n{large}\r\n--b0--"
        );
        assert_eq!(parts(form.as_bytes(), 7777).unwrap()[0].1, large.as_bytes());
    }

    #[test]
    fn attack_14_forms_that_parsers_read_differently_are_refused() {
        let d = "Content-Disposition: form-data; name=\"a\"";
        for (what, bad) in [
            (
                "a preamble",
                format!("x\r\n--b0\r\n{d}\r\n\r\n1\r\n--b0--\r\n"),
            ),
            (
                "an epilogue",
                format!("--b0\r\n{d}\r\n\r\n1\r\n--b0--\r\nx"),
            ),
            (
                "a second form",
                format!("--b0\r\n{d}\r\n\r\n1\r\n--b0--\r\n--b0--\r\n"),
            ),
            ("no end", format!("--b0\r\n{d}\r\n\r\n1\r\n")),
            (
                "cut in the boundary",
                format!("--b0\r\n{d}\r\n\r\n1\r\n--b"),
            ),
            (
                "a longer boundary",
                format!("--b0\r\n{d}\r\n\r\n1\r\n--b01\r\n"),
            ),
            (
                "blanks behind a boundary",
                format!("--b0 \r\n{d}\r\n\r\n1\r\n--b0--"),
            ),
            ("bare line feeds", format!("--b0\n{d}\n\n1\n--b0--\n")),
            (
                "a bare line feed in headers",
                format!("--b0\r\n{d}\nX: y\r\n\r\n1\r\n--b0--"),
            ),
            ("no name", "--b0\r\n\r\n1\r\n--b0--".to_owned()),
            (
                "two dispositions",
                format!("--b0\r\n{d}\r\n{d}\r\n\r\n1\r\n--b0--"),
            ),
            (
                "a folded header",
                format!("--b0\r\n{d};\r\n filename=\"x\"\r\n\r\n1\r\n--b0--"),
            ),
            (
                "name twice",
                format!("--b0\r\n{d}; name=\"b\"\r\n\r\n1\r\n--b0--"),
            ),
            (
                "an encoded file name",
                format!("--b0\r\n{d}; filename*=utf-8''x\r\n\r\n1\r\n--b0--"),
            ),
            (
                "an escape",
                format!("--b0\r\n{d}; filename=\"a\\\"b\"\r\n\r\n1\r\n--b0--"),
            ),
            (
                "percent",
                format!("--b0\r\n{d}; filename=\"a%22\"\r\n\r\n1\r\n--b0--"),
            ),
            (
                "no quotes",
                "--b0\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b0--".to_owned(),
            ),
            (
                "encoding",
                format!("--b0\r\n{d}\r\nContent-Transfer-Encoding: base64\r\n\r\nMQ==\r\n--b0--"),
            ),
            (
                "headers without an end",
                format!("--b0\r\n{d}{}", " ".repeat(10_000)),
            ),
            ("nothing", String::new()),
        ] {
            for piece in [1, 3, 100_000] {
                assert!(parts(bad.as_bytes(), piece).is_err(), "{what}");
            }
        }
    }

    #[test]
    fn the_content_type_has_one_boundary() {
        for good in [
            "multipart/form-data; boundary=b0",
            "multipart/form-data;boundary=\"b0\"",
            "Multipart/Form-Data; Boundary=b0",
        ] {
            assert_eq!(boundary(good).unwrap(), "b0", "{good}");
        }
        for bad in [
            "multipart/form-data",
            "multipart/mixed; boundary=b0",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=a; boundary=b",
            "multipart/form-data; boundary=\"a",
            "multipart/form-data; charset=x; boundary=a",
            "multipart/form-data; boundary=\"a b\"",
            "application/json",
        ] {
            assert!(boundary(bad).is_err(), "{bad}");
        }
        assert!(boundary(&format!("multipart/form-data; boundary={}", "b".repeat(71))).is_err());
    }
}
