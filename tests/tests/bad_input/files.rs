//! What the job hands over: files that are no package, archive bombs, files that change after they were approved.

use super::super::{Stage, text, told};
use stand::proxy::Fault;
use std::{
    fs,
    path::{Path, PathBuf},
};

impl<R> Stage<R> {
    /// A publish that is told no before anybody is asked.
    async fn refused(&self, file: &Path, exit: i32, words: &[&str]) {
        let out = self.job(&["publish", self.kind, &text(file)]).await;
        told(
            &format!("{} {}", self.kind, text(file)),
            out.status,
            &out.stderr,
            exit,
            words,
        );
        assert!(!out.stderr.contains("match code"), "{out}");
    }

    /// Approved, and the broker finds out at the upload what it is: nothing reaches the registry.
    async fn refused_at_the_upload(&self, file: &Path, words: &[&str]) {
        let (mut waiting, job) = self.asks(file).await;
        self.proxy.arm_all(self.upload, Fault::None);
        let before = self.arrived();
        self.approve(&job).await;
        let end = waiting.end().await.unwrap();
        let what = format!("{} {}", self.kind, text(file));
        told(&what, end, &waiting.text(), 1, words);
        assert_eq!(self.arrived(), before, "{what}");
    }
}

/// What is said of such an archive.
const BOMB: [&str; 2] = ["unpacks to more than is allowed", "nothing was published"];

/// 12 MiB that an archive holds in a five-hundredth of the room. npm unpacks nothing that holds more than a thousandfold.
fn bomb() -> Vec<u8> {
    let block = |n: u32| [&n.to_le_bytes()[..], &[0; 8188]].concat();
    (0..1536).flat_map(block).collect()
}

/// The first half of a file, under the same name.
fn half(file: &Path, into: &Path) -> PathBuf {
    let bytes = fs::read(file).unwrap();
    fs::create_dir_all(into).unwrap();
    let cut = into.join(file.file_name().unwrap());
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    cut
}

/// A file that changes between the approval and the upload is not sent; put back, it is.
async fn changed_and_put_back<R>(stage: &Stage<R>, file: &Path) {
    let (mut waiting, job) = stage.asks(file).await;
    let bytes = fs::read(file).unwrap();
    fs::write(file, [&bytes[..], b"more"].concat()).unwrap();
    stage.proxy.arm_all(stage.upload, Fault::None);
    let before = stage.arrived();
    stage.approve(&job).await;
    let end = waiting.end().await.unwrap();
    let words = ["changed after it was approved", "approved file"];
    told(stage.kind, end, &waiting.text(), 1, &words);
    assert_eq!(stage.arrived(), before);
    fs::write(file, bytes).unwrap();
    let again = stage
        .job(&["collect", "--ticket-file", "request.json"])
        .await;
    assert_eq!(again.status, Some(0), "{again}");
}

#[tokio::test]
async fn npm_is_told_what_is_wrong_with_a_tarball() {
    let stage = Stage::npm().await;
    let whole = stage.package("whole");
    let cut = half(&whole, &stage.folder.join("cut"));
    stage
        .refused(&cut, 2, &["is no npm tarball", "npm pack"])
        .await;
    let page = stage.folder.join("page.tgz");
    fs::write(&page, "<html>404</html>").unwrap();
    stage
        .refused(&page, 2, &["is no npm tarball", "npm pack"])
        .await;
    stage
        .refused(
            &stage.folder.join("none.tgz"),
            1,
            &["Check that the file exists"],
        )
        .await;
    let file = stage.package_with("bomb", &bomb());
    stage.refused_at_the_upload(&file, &BOMB).await;
    changed_and_put_back(&stage, &whole).await;
}

#[tokio::test]
async fn twine_is_told_what_is_wrong_with_a_file() {
    let stage = Stage::python().await;
    let whole = stage.built("acme-whole").await;
    for file in [&whole.wheel, &whole.sdist] {
        let cut = half(file, &stage.folder.join("cut"));
        stage
            .refused(&cut, 2, &["is cut off", "Build it again"])
            .await;
    }
    let text_file = stage.folder.join("notes.txt");
    fs::write(&text_file, "notes").unwrap();
    let kinds = ["npm pack", "a wheel", "a .crate", "a .gem"];
    stage.refused(&text_file, 2, &kinds).await;
    for name in ["acme-wheel", "acme-sdist"] {
        let module = name.replace('-', "_");
        let data = stage.folder.join(format!("{name}-1.0.0/src/{module}"));
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("zeros.bin"), bomb()).unwrap();
        let bomb = stage.built(name).await;
        let file = match name {
            "acme-wheel" => &bomb.wheel,
            _ => &bomb.sdist,
        };
        stage.refused_at_the_upload(file, &BOMB).await;
    }
    changed_and_put_back(&stage, &whole.wheel).await;

    // A wheel of another project under this name: only the broker looks inside, and says what it found.
    let other = stage.built("acme-other").await;
    let renamed = stage.folder.join("acme_named-1.0.0-py3-none-any.whl");
    fs::copy(&other.wheel, &renamed).unwrap();
    let (mut waiting, job) = stage.asks(&renamed).await;
    stage.approve(&job).await;
    let end = waiting.end().await.unwrap();
    told(
        "another project's wheel",
        end,
        &waiting.text(),
        1,
        &["upload-refused", "nothing was published"],
    );

    // A client that uploads another file than was approved: its error line says what is wrong.
    let (right, wrong) = (
        stage.built("acme-right").await,
        stage.built("acme-wrong").await,
    );
    let (mut waiting, job) = stage
        .asks_with(&right.wheel, &["twine", "upload", &text(&wrong.wheel)])
        .await;
    stage.approve(&job).await;
    let end = waiting.end().await.unwrap();
    told(
        "twine with another file",
        end,
        &waiting.text(),
        1,
        &["HTTPError: 403 Forbidden", "approved"],
    );
}

#[tokio::test]
async fn cargo_is_told_what_is_wrong_with_a_crate() {
    let stage = Stage::cargo().await;
    let whole = stage.package("acme-whole").await;
    let cut = half(&whole, &stage.folder.join("cut"));
    stage
        .refused(&cut, 2, &["is no crate", "cargo package"])
        .await;
    let page = stage.folder.join("page.crate");
    fs::write(&page, "<html>404</html>").unwrap();
    stage
        .refused(&page, 2, &["is no crate", "cargo package"])
        .await;
    let zeros = [("zeros.bin", bomb())];
    let file = stage.package_with("acme-bomb", &zeros).await;
    stage.refused_at_the_upload(&file, &BOMB).await;
    changed_and_put_back(&stage, &whole).await;
}

#[tokio::test]
async fn gems_that_are_none_are_told() {
    let stage = Stage::gems().await;
    let whole = stage.gem("acme-whole").await;
    let cut = half(&whole, &stage.folder.join("cut"));
    stage.refused(&cut, 2, &["is no gem", "gem build"]).await;
    let page = stage.folder.join("page.gem");
    fs::write(&page, "<html>404</html>").unwrap();
    stage.refused(&page, 2, &["is no gem", "gem build"]).await;
    changed_and_put_back(&stage, &whole).await;
}
