//! What went over a wire, as a short text that is the same in every run.
//!
//! Of a request: its line, its headers in the order in which they were sent, and the body's shape. What differs from run to
//! run or from machine to machine is replaced: ports, credentials, lengths, digests, boundaries, session ids, times,
//! versions of clients, the bytes of files. Reads stand first, sorted, each once, since how often somebody looks depends on
//! time; writes follow in their order.

#![allow(
    clippy::indexing_slicing,
    reason = "what is missing fails the test, as it should"
)]

use anyhow::{Context as _, bail};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// The variable that writes transcripts anew instead of comparing them.
pub const RECORD: &str = "COUNTERSIGN_RECORD";

/// Headers whose value is a secret, a name of this run, or the machine's.
const HEADERS: [(&str, &str); 8] = [
    ("x-api-key", "<credential>"),
    ("npm-session", "<id>"),
    ("x-request-id", "<id>"),
    ("date", "<time>"),
    ("content-length", "<length>"),
    ("http2-settings", "<settings>"),
    ("pacote-pkg-id", "<package>"),
    ("pacote-integrity", "<digest>"),
];

/// Members of JSON documents, and fields of forms, that are digests or versions of clients.
const MEMBERS: [(&str, &str); 13] = [
    ("integrity", "<digest>"),
    ("shasum", "<digest>"),
    ("md5_digest", "<digest>"),
    ("sha256_digest", "<digest>"),
    ("blake2_256_digest", "<digest>"),
    ("cksum", "<digest>"),
    ("data", "<base64 of the file>"),
    ("length", "<length>"),
    ("_nodeVersion", "<version>"),
    ("_npmVersion", "<version>"),
    ("_npmOperationalInternal", "<internal>"),
    ("gitHead", "<commit>"),
    ("content", "<file>"),
];

/// The requests that passed, as text; of them those whose heads are wanted.
pub fn written(requests: &[Vec<u8>], wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
    let mut reads = BTreeSet::new();
    let mut writes = Vec::new();
    for request in requests {
        let text = one(request)?;
        let head = text.split("\n\n").next().unwrap_or_default();
        if !wanted(head) {
            continue;
        }
        if text.starts_with("GET ") || text.starts_with("HEAD ") {
            reads.insert(text);
        } else {
            writes.push(text);
        }
    }
    let all: Vec<_> = reads.into_iter().chain(writes).collect();
    Ok(all.join("\n"))
}

fn one(request: &[u8]) -> anyhow::Result<String> {
    let end = position(request, b"\r\n\r\n").context("a request's head")?;
    let head = std::str::from_utf8(&request[..end])?;
    let body = &request[end + 4..];
    let mut lines = head.split("\r\n");
    let mut out = format!("{}\n", line(lines.next().context("a request's line")?));
    let mut kind = "";
    for line in lines {
        let (name, value) = line.split_once(':').context("a header")?;
        let (lower, value) = (name.to_lowercase(), value.trim());
        if lower == "transfer-encoding" {
            bail!("the body comes in chunks: teach the transcript to join them\n{head}");
        }
        if lower == "content-type" {
            kind = value;
        }
        let _ = writeln!(out, "{name}: {}", header(&lower, value));
    }
    if !body.is_empty() {
        let _ = write!(out, "\n{}", shape(kind, body)?);
    }
    Ok(out)
}

/// The broker marks each of its reads, so that no cache answers them; an OCI registry names each upload, and what it
/// knows of it.
fn line(line: &str) -> String {
    let line = replaced(line, "read-back=", "<id>");
    let line = replaced(&line, "/blobs/uploads/", "<id>");
    replaced(&line, "_state=", "<state>")
}

/// The line with something else for what stands behind these words, if anything does.
fn replaced(line: &str, words: &str, instead: &str) -> String {
    let Some((before, behind)) = line.split_once(words) else {
        return line.to_owned();
    };
    let rest = behind.trim_start_matches(|c| !matches!(c, '?' | '&' | ' '));
    let value = if rest == behind { "" } else { instead };
    format!("{before}{words}{value}{rest}")
}

fn header(name: &str, value: &str) -> String {
    if let Some((_, instead)) = HEADERS.iter().find(|(n, _)| *n == name) {
        return (*instead).to_owned();
    }
    match name {
        "authorization" => match value.split_once(' ') {
            Some((scheme, _)) => format!("{scheme} <credential>"),
            None => "<credential>".to_owned(),
        },
        // The first product's name: all behind is the machine's.
        "user-agent" => {
            let product = value.split(['/', ' ', ',']).next().unwrap_or_default();
            format!("{product}/<version> …")
        }
        "content-type" => match value.split_once("boundary=") {
            Some((kind, _)) => format!("{kind}boundary=<boundary>"),
            None => value.to_owned(),
        },
        _ => ports(value),
    }
}

/// `127.0.0.1:41234` as `127.0.0.1:<port>`.
fn ports(text: &str) -> String {
    const HOST: &str = "127.0.0.1:";
    let mut parts = text.split(HOST);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let _ = write!(out, "{HOST}<port>{rest}");
    }
    out
}

fn shape(kind: &str, body: &[u8]) -> anyhow::Result<String> {
    if let Some((_, boundary)) = kind.split_once("boundary=") {
        return form(boundary.trim_matches('"'), body);
    }
    if let Ok(document) = serde_json::from_slice::<Value>(body) {
        return json(document);
    }
    if let Some((document, archive)) = crate_upload(body) {
        return Ok(format!(
            "<length of the JSON, 4 bytes>\n{}<length of the file, 4 bytes>\n<file{}>\n",
            json(document)?,
            if archive { "" } else { " of another length" }
        ));
    }
    Ok("<bytes>\n".to_owned())
}

/// Members are sorted by name.
fn json(mut document: Value) -> anyhow::Result<String> {
    members(&mut document);
    Ok(format!("{}\n", serde_json::to_string_pretty(&document)?))
}

fn members(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let plain = value.is_string() || value.is_number();
                match MEMBERS.iter().find(|(n, _)| n == name) {
                    Some((_, instead)) if plain => *value = (*instead).into(),
                    _ => members(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(members),
        Value::String(text) => *text = ports(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// cargo's body: a length (u32, little-endian), JSON, a length, the archive.
fn crate_upload(body: &[u8]) -> Option<(Value, bool)> {
    let (json, rest) = counted(body)?;
    let (_, behind) = counted(rest)?;
    Some((serde_json::from_slice(json).ok()?, behind.is_empty()))
}

fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length).try_into().ok()?)
}

/// Each part's own headers, and its value. Parts are sorted by name, since twine's order is another one in every run; those of
/// one name keep theirs.
fn form(boundary: &str, body: &[u8]) -> anyhow::Result<String> {
    let start = format!("--{boundary}");
    let stop = format!("\r\n--{boundary}");
    let mut rest = body;
    let mut parts = Vec::new();
    loop {
        rest = rest.strip_prefix(start.as_bytes()).context("a boundary")?;
        if rest.starts_with(b"--") {
            parts.sort_by_key(|(name, _)| *name);
            return Ok(parts.into_iter().map(|(_, text)| text).collect());
        }
        let end = position(rest, b"\r\n\r\n").context("a part's head")?;
        let head = std::str::from_utf8(&rest[..end])?.trim();
        let data = &rest[end + 4..];
        let length = position(data, stop.as_bytes()).context("a part's end")?;
        let name = head
            .split("name=\"")
            .nth(1)
            .and_then(|n| n.split('"').next());
        let replaced = MEMBERS.iter().find(|(n, _)| Some(*n) == name);
        let value = match replaced {
            Some((_, instead)) => (*instead).to_owned(),
            None => String::from_utf8_lossy(&data[..length]).into_owned(),
        };
        let mut out = format!("-- {}\n", head.replace("\r\n", "\n   "));
        for line in value.lines() {
            let _ = writeln!(out, "   {line}");
        }
        parts.push((name, out));
        rest = &data[length + 2..];
    }
}

fn position(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

/// Compares with what is kept under `tests/transcripts`, or keeps it anew. The first line names the client's version.
pub fn compare(kind: &str, name: &str, version: &str, text: &str) -> anyhow::Result<()> {
    let path = path(kind, name);
    let fresh = format!("# {version}\n\n{text}");
    if env::var_os(RECORD).is_some() {
        fs::create_dir_all(path.parent().context("a folder")?)?;
        return Ok(fs::write(path, fresh)?);
    }
    let kept = fs::read_to_string(&path)
        .with_context(|| format!("{kind}/{name} is not recorded: run with {RECORD}=1"))?;
    if kept != fresh {
        let (old, new) = first_difference(&kept, &fresh);
        bail!(
            "{kind}/{name} is not what it was: {old:?} is {new:?} now. If that is right, run with {RECORD}=1 and read the \
             difference.\n{fresh}"
        );
    }
    Ok(())
}

/// Whether the transcript that is kept is of this very version: of another one, a client may send other things.
pub fn is_of(kind: &str, name: &str, version: &str) -> bool {
    let kept = fs::read_to_string(path(kind, name)).unwrap_or_default();
    kept.lines().next() == Some(&format!("# {version}"))
}

fn path(kind: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("transcripts")
        .join(kind)
        .join(format!("{name}.txt"))
}

fn first_difference<'a>(old: &'a str, new: &'a str) -> (&'a str, &'a str) {
    let (mut a, mut b) = (old.lines(), new.lines());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return ("", ""),
            (old, new) if old != new => {
                return (old.unwrap_or("(the end)"), new.unwrap_or("(the end)"));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_run_or_a_secret_is_left() {
        let put = b"PUT /left HTTP/1.1\r\nHost: 127.0.0.1:4711\r\nAuthorization: Bearer canary\r\n\
            User-Agent: npm/11.0.0 node/v20 linux x64\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n\
            {\"shasum\":\"canary\",\"url\":\"http://127.0.0.1:4711/x\"}";
        let get = b"GET /left HTTP/1.1\r\nhost: 127.0.0.1:4712\r\n\r\n";
        let text =
            written(&[put.to_vec(), get.to_vec(), get.to_vec()], |_| true).unwrap_or_default();
        let expected = "GET /left HTTP/1.1\nhost: 127.0.0.1:<port>\n\nPUT /left HTTP/1.1\nHost: 127.0.0.1:<port>\n\
            Authorization: Bearer <credential>\nUser-Agent: npm/<version> …\nContent-Type: application/json\n\
            Content-Length: <length>\n\n{\n  \"shasum\": \"<digest>\",\n  \"url\": \"http://127.0.0.1:<port>/x\"\n}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_form_and_a_crate_show_their_parts() {
        let body = "--b\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nacme\r\n--b\r\nContent-Disposition: \
            form-data; name=\"content\"; filename=\"a.whl\"\r\n\r\ncanary\r\n--b--\r\n";
        let text = shape("multipart/form-data; boundary=b", body.as_bytes()).unwrap_or_default();
        assert!(text.contains("name=\"name\"\n   acme\n"), "{text}");
        assert!(text.contains("filename=\"a.whl\"\n   <file>\n"), "{text}");
        let body = b"\x0d\0\0\0{\"name\":\"a\"}\n\x02\0\0\0ab";
        let text = shape("", body).unwrap_or_default();
        assert!(
            text.contains("\"name\": \"a\"") && text.ends_with("<file>\n"),
            "{text}"
        );
    }
}
