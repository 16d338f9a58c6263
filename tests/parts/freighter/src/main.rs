//! A cargo registry over the freighter crates: sparse index, tokens with owners, files in one folder.
//!
//! `countersign-test-registry FOLDER`. Prints one JSON line {url, token, other} when it listens: two users' tokens. Ends
//! when its standard input does, so that a killed test leaves nothing behind.

use async_trait::async_trait;
use axum::extract::DefaultBodyLimit;
use freighter_api_types::storage::{Bytes, StorageError, StorageProvider, StorageResult};
use freighter_auth::{
    AuthProvider as _,
    fs_backend::{Config as AuthConfig, FsAuthProvider},
};
use freighter_fs_index::{Config as IndexConfig, FsIndexProvider};
use freighter_server::{ServiceConfig, router};
use std::{net::TcpListener, path::PathBuf};
use tokio::io::AsyncReadExt as _;

/// The registry of the public kind takes no more (10 MiB), and something beside it.
const BODY_MAX: usize = 12 << 20;

/// `.crate` files in one folder.
#[derive(Clone)]
struct Files(PathBuf);

impl Files {
    fn path(&self, name: &str, version: &str) -> PathBuf {
        self.0.join(format!("{name}-{version}.crate"))
    }
}

fn failed(error: std::io::Error) -> StorageError {
    match error.kind() {
        std::io::ErrorKind::NotFound => StorageError::NotFound,
        _ => StorageError::ServiceError(error.into()),
    }
}

#[async_trait]
impl StorageProvider for Files {
    async fn pull_crate(&self, name: &str, version: &str) -> StorageResult<Bytes> {
        let bytes = std::fs::read(self.path(name, version)).map_err(failed)?;
        Ok(bytes.into())
    }

    async fn put_crate(
        &self,
        name: &str,
        version: &str,
        bytes: Bytes,
        _sha256: [u8; 32],
    ) -> StorageResult<()> {
        std::fs::write(self.path(name, version), bytes).map_err(failed)
    }

    async fn delete_crate(&self, name: &str, version: &str) -> StorageResult<()> {
        std::fs::remove_file(self.path(name, version)).map_err(failed)
    }

    async fn healthcheck(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder: PathBuf = std::env::args_os().nth(1).expect("a folder").into();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let url = format!("http://{address}");
    let auth = FsAuthProvider::new(AuthConfig {
        auth_path: folder.join("auth"),
        auth_tokens_pepper: [7; 18],
    })?;
    let token = auth.register("maint").await?;
    let other = auth.register("other").await?;
    let index = FsIndexProvider::new(IndexConfig::Path(folder.join("index")))?;
    let files = folder.join("files");
    std::fs::create_dir_all(&files)?;
    let config = ServiceConfig {
        address,
        download_endpoint: format!("{url}/downloads/{{crate}}/{{version}}"),
        api_endpoint: url.clone(),
        metrics_address: address,
        allow_registration: false,
        auth_required: false,
    };
    let app = router(config, index, Files(files), auth).layer(DefaultBodyLimit::max(BODY_MAX));
    println!(r#"{{"url":"{url}","token":"{token}","other":"{other}"}}"#);
    tokio::spawn(async {
        let mut rest = Vec::new();
        let _ = tokio::io::stdin().read_to_end(&mut rest).await;
        std::process::exit(0);
    });
    axum::Server::from_tcp(listener)?
        .serve(app.into_make_service())
        .await?;
    Ok(())
}
