//! A plain reverse proxy beside ours: nginx, if it is installed.

use stand::{command::Running, free_ports};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// nginx in front of a registry, twice.
pub(crate) struct Nginx {
    /// With `proxy_request_buffering off`.
    pub(crate) streaming: String,
    /// As it comes: a request's body is stored before it is passed on.
    pub(crate) buffering: String,
    running: Running,
    folder: TempDir,
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let system = ["/usr/sbin".into(), "/usr/local/sbin".into()];
    std::env::split_paths(&path)
        .chain(system)
        .map(|folder: PathBuf| folder.join("nginx"))
        .find(|p| p.exists())
}

impl Nginx {
    /// `None` when it is not installed.
    pub(crate) async fn start(registry: &str) -> anyhow::Result<Option<Self>> {
        let Some(program) = program() else {
            return Ok(None);
        };
        let folder = TempDir::new()?;
        let [streaming, buffering] = free_ports()?;
        let place = folder.path().display();
        let server = |port: u16, more: &str| {
            format!(
                "  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {registry}; {more} }} }}\n"
            )
        };
        let text = format!(
            "daemon off;\nmaster_process off;\npid {place}/pid;\nerror_log {place}/error.log;\n\
             events {{ worker_connections 256; }}\nhttp {{\n  access_log off;\n  client_max_body_size 0;\n  \
             client_body_temp_path {place}/body;\n  proxy_temp_path {place}/proxy;\n  \
             fastcgi_temp_path {place}/f;\n  uwsgi_temp_path {place}/u;\n  scgi_temp_path {place}/s;\n  \
             proxy_http_version 1.1;\n  proxy_set_header Connection \"\";\n{}{}}}\n",
            server(streaming, "proxy_request_buffering off;"),
            server(buffering, "")
        );
        let config = folder.path().join("nginx.conf");
        fs::write(&config, text)?;
        let log = fs::File::create(folder.path().join("log"))?;
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(&config)
            .arg("-p")
            .arg(folder.path())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        let running = Running::start(&mut command)?;
        let nginx = Self {
            streaming: format!("http://127.0.0.1:{streaming}"),
            buffering: format!("http://127.0.0.1:{buffering}"),
            running,
            folder,
        };
        for _ in 0..200 {
            if super::http::Connection::open(&nginx.buffering)
                .await
                .is_ok()
            {
                return Ok(Some(nginx));
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let log = fs::read_to_string(nginx.folder.path().join("log"));
        Err(anyhow::anyhow!(
            "nginx does not listen: {}",
            log.unwrap_or_default()
        ))
    }

    /// Its one process: with a master, ending that one would leave its worker behind.
    pub(crate) fn ids(&self) -> Vec<u32> {
        vec![self.running.id()]
    }
}
