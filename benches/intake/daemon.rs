//! The real program in a process of its own, over a simulated provider and a folder.

use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context as _;
use anyhow::Result;

/// The key that the daemon and its callers show to the provider.
pub(crate) const KEY: &str = "bench-key";

/// A daemon; dropping it ends it.
pub(crate) struct Daemon {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
}

impl Daemon {
    /// Starts one in `folder`, with `extra` at the end of its configuration, and waits until it listens.
    pub(crate) fn start(folder: &Path, provider: &str, extra: &str) -> Result<Self> {
        let archive = folder.join("archive");
        fs::create_dir_all(&archive)?;
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nsocket = \"\"\n[log]\nformat = \"text\"\n\
             [manifest]\nurl = \"sqlite:{}\"\n\
             [provider.sim]\nkind = \"evolink\"\nbase_url = \"{provider}\"\napi_key = {{ env = \"SIM_KEY\" }}\n\
             requests = \"50/s\"\nallow_private = true\ngateway = true\n\
             [destination.disk.fs]\npath = \"{}\"\n{extra}",
            folder.join("manifest.db").display(),
            archive.display(),
        );
        let path = folder.join("reelvault.toml");
        fs::write(&path, config)?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_reelvault"))
            .arg("run")
            .arg("-c")
            .arg(&path)
            .env("SIM_KEY", KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().context("it has a pipe")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = String::new();
        let address = loop {
            let line = lines
                .next()
                .with_context(|| format!("the daemon ended: {said}"))??;
            if let Some((_, address)) = line.split_once("listening on 127.0.0.1:") {
                let port = address.split_whitespace().next().unwrap_or_default();
                break format!("127.0.0.1:{port}");
            }
            said.push_str(&line);
            said.push('\n');
        };
        // A pipe that nobody reads would stop the daemon once it is full.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
