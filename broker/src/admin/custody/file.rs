//! The key file on the disk.

use crate::{
    desk::{Desk, Fault},
    secret::Secret,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// The vault's key file, in the data folder.
pub const KEY_FILE: &str = "vault.json";
/// The one that takes its place, until it does.
const NEXT_FILE: &str = "vault.next.json";

/// Reads it.
pub async fn read(desk: &Desk) -> Result<Secret<Vec<u8>>, Fault> {
    let path = desk.place.data.join(KEY_FILE);
    let read = tokio::task::spawn_blocking(move || fs::read(path)).await;
    match read {
        Ok(Ok(bytes)) => Ok(Secret::new(bytes)),
        _ => Err(Fault::Damaged("the key file")),
    }
}

/// Puts another key file in the place of the old one. Blocking. Whenever this breaks off, one of the two is
/// there, whole; done again, it ends the same.
pub fn install(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let (now, next) = (folder.join(KEY_FILE), folder.join(NEXT_FILE));
    if fs::read(&now).is_ok_and(|held| held == bytes) {
        // The earlier try may have broken off before it was durable.
        return File::open(folder)?.sync_all();
    }
    // What an earlier try left, whatever it is, is nothing that we write into.
    match fs::remove_file(&next) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // Now the new one is durable, and the old one still opens the vault.
    if fs::read(&next)? != bytes {
        return Err(io::Error::other("the new key file reads back as another"));
    }
    fs::rename(&next, &now)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_an_earlier_try_left_one_whole_file_is_there() {
        let leave: [fn(&Path); 4] = [
            |_| {},
            |next| fs::write(next, b"to").unwrap(),
            |next| fs::write(next, b"the new one").unwrap(),
            |next| std::os::unix::fs::symlink("elsewhere", next).unwrap(),
        ];
        for (at, left) in leave.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let (now, next) = (dir.path().join(KEY_FILE), dir.path().join(NEXT_FILE));
            fs::write(&now, b"the old one").unwrap();
            left(&next);
            install(dir.path(), b"the new one").unwrap();
            assert_eq!(fs::read(&now).unwrap(), b"the new one", "{at}");
            assert!(!next.exists() && !dir.path().join("elsewhere").exists());
            install(dir.path(), b"the new one").unwrap();
            assert_eq!(fs::read(&now).unwrap(), b"the new one", "{at}");
        }
    }

    #[test]
    fn what_fails_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEY_FILE), b"the old one").unwrap();
        fs::create_dir(dir.path().join(NEXT_FILE)).unwrap();
        assert!(install(dir.path(), b"the new one").is_err());
        let held = fs::read(dir.path().join(KEY_FILE)).unwrap();
        assert_eq!(held, b"the old one");
    }
}
