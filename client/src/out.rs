//! What is printed. Standard output is for programs and results, standard error for people.

use crate::{edge::Env, fail::Failure};
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};

/// How to print.
pub(crate) struct Out {
    /// Whether standard output carries JSON.
    pub(crate) json: bool,
    paint_results: bool,
    paint_notes: bool,
}

#[allow(
    clippy::unused_self,
    reason = "everything is printed through the one value that knows how"
)]
impl Out {
    /// Colours only on a terminal, and not with `NO_COLOR`.
    pub(crate) fn new(json: bool, env: &Env) -> Self {
        let wanted = env.get("NO_COLOR").is_none() && env.get("TERM") != Some("dumb");
        Self {
            json,
            paint_results: wanted && !json && std::io::stdout().is_terminal(),
            paint_notes: wanted && std::io::stderr().is_terminal(),
        }
    }

    /// A line on standard output. A broken pipe is a failure: whoever reads did not get all of it.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}")
            .and_then(|()| out.flush())
            .map_err(|e| {
                Failure::failed(
                    format!("Standard output could not be written: {e}."),
                    "Keep its reader open until the command ends.",
                )
            })
    }

    /// One JSON line on standard output.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|e| Failure::failed(format!("The result is no JSON: {e}."), "Report this."))?;
        self.line(&text)
    }

    /// The value as JSON with `--json`, else the text.
    pub(crate) fn result(&self, value: &impl Serialize, text: &str) -> Result<(), Failure> {
        if self.json {
            self.json(value)
        } else {
            self.line(text)
        }
    }

    /// A line for people, on standard error. If nobody can read it, the work goes on.
    pub(crate) fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// A progress line that the next one overwrites; on a terminal only.
    pub(crate) fn progress(&self, text: &str) {
        if std::io::stderr().is_terminal() {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[2K{text}").and_then(|()| err.flush());
        }
    }

    /// Whether progress lines are overwritten.
    pub(crate) fn rewrites(&self) -> bool {
        std::io::stderr().is_terminal()
    }

    /// Bold, for standard output.
    pub(crate) fn bold(&self, text: &str) -> String {
        paint(self.paint_results, "1", text)
    }
    /// A warning's colour, for standard output.
    pub(crate) fn warning(&self, text: &str) -> String {
        paint(self.paint_results, "33", text)
    }
    /// Bold, for standard error.
    pub(crate) fn bold_note(&self, text: &str) -> String {
        paint(self.paint_notes, "1", text)
    }

    /// Prints a failure: what, and what to do next.
    pub(crate) fn failure(&self, f: &Failure) {
        if self.json {
            let value = serde_json::json!({
                "error": f.what, "next": f.next, "exit": f.exit as u8,
                "code": f.code.map(proto::problem::Code::text),
            });
            self.note(&value.to_string());
            return;
        }
        let head = paint(self.paint_notes, "31;1", "error:");
        self.note(&format!("{head} {}", one_line(&f.what)));
        if !f.next.is_empty() {
            self.note(&format!(" next: {}", one_line(&f.next)));
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn paint(on: bool, style: &str, text: &str) -> String {
    if on {
        format!("\x1b[{style}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// `3 min 20 s`, for people.
pub(crate) fn span(seconds: u64) -> String {
    let (d, h, m, s) = (
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    );
    match (d, h, m) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) => format!("{m} min {s} s"),
        (0, ..) => format!("{h} h {m} min"),
        _ => format!("{d} d {h} h"),
    }
}

/// `1.2 MB (1234567 bytes)`, for people.
pub(crate) fn size(bytes: u64) -> String {
    let tenths = |unit: u64| (bytes / unit, bytes % unit * 10 / unit);
    match bytes {
        0..1000 => format!("{bytes} bytes"),
        1000..1_000_000 => {
            let (a, b) = tenths(1000);
            format!("{a}.{b} kB ({bytes} bytes)")
        }
        _ => {
            let (a, b) = tenths(1_000_000);
            format!("{a}.{b} MB ({bytes} bytes)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_people() {
        assert_eq!(span(59), "59 s");
        assert_eq!(span(200), "3 min 20 s");
        assert_eq!(span(90_000), "1 d 1 h");
        assert_eq!(size(1234), "1.2 kB (1234 bytes)");
        assert_eq!(one_line("a\n b"), "a b");
        let quiet = Out::new(true, &Env::from([("NO_COLOR", "1")]));
        assert_eq!(quiet.bold("x"), "x");
    }
}
