//! A server that takes files by `PUT`: nginx with its own WebDAV module.

use crate::{command::Running, free_port, http, parts::random_hex};
use anyhow::bail;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(30);

/// One server. Files are read by anybody, and written with `X-Api-Key`.
#[derive(Debug)]
pub struct Nginx {
    /// Its address, without a slash at the end.
    pub url: String,
    /// The key.
    pub token: String,
    folder: TempDir,
    _running: Running,
}

impl Nginx {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"]
            .map(Path::new)
            .into_iter()
            .find(|p| p.exists());
        let Some(program) = program else {
            bail!("nginx is not installed: apt-get install nginx-light");
        };
        let (folder, port, token) = (TempDir::new()?, free_port()?, random_hex()?);
        let at = folder.path().display();
        fs::create_dir(folder.path().join("data"))?;
        let config = format!(
            r"daemon off; master_process off; pid {at}/pid; error_log {at}/log;
events {{}}
http {{
  access_log off; client_max_body_size 0;
  client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
  uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
  server {{
    listen 127.0.0.1:{port};
    set $good $http_x_api_key;
    if ($request_method = GET) {{ set $good {token}; }}
    if ($good != {token}) {{ return 403; }}
    location / {{ root {at}/data; dav_methods PUT DELETE; create_full_put_path on; }}
  }}
}}
"
        );
        let path = folder.path().join("nginx.conf");
        fs::write(&path, config)?;
        let log = fs::File::create(folder.path().join("out"))?;
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(&path)
            .args(["-e", &folder.path().join("log").display().to_string()])
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        let mut running = Running::start(&mut command)?;
        let url = format!("http://127.0.0.1:{port}");
        let (start, client) = (Instant::now(), http()?);
        loop {
            if client.get(&url).send().await.is_ok() && running.ended().is_none() {
                return Ok(Self {
                    url,
                    token,
                    folder,
                    _running: running,
                });
            }
            if let Some(status) = running.ended() {
                let said = fs::read_to_string(folder.path().join("out"))?;
                bail!("nginx ended ({status}): {said}");
            }
            if start.elapsed() > START_LIMIT {
                bail!("nginx does not listen");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where it keeps a file.
    pub fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join("data").join(path)
    }

    /// Whether anybody has put anything.
    pub fn is_empty(&self) -> anyhow::Result<bool> {
        let data = self.folder.path().join("data");
        Ok(fs::read_dir(data)?.next().is_none())
    }
}
