//! Archives for the tests of this room.

use flate2::{Compression, write::GzEncoder};

/// A `.tgz` with these files under one root folder.
pub(super) fn tgz(root: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        let name = format!("{root}/{name}");
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// A `package.json` of `left` with more members.
pub(super) fn package_json(version: &str, more: &str) -> String {
    format!(r#"{{"name":"left","version":"{version}"{more}}}"#)
}
