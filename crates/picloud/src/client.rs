//! How commands speak to a running server.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{cli::ConnectionArgs, config::DEFAULT_DATA_DIR, credentials::Credentials};

/// Where a server that runs on a data directory says how it is reached.
pub const RUNNING_FILE: &str = "server.json";

/// What a running server writes into its data directory, and into `--ready-file`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunningServer {
    /// `http://127.0.0.1:8080`
    pub url: String,
    /// Holds the owner key, readable by the owner alone.
    pub admin_token_file: PathBuf,
    /// The process.
    pub pid: u32,
}

/// A connection to the admin API.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    /// The server that was named, or the one that runs on the data directory.
    pub fn connect(args: &ConnectionArgs) -> Result<Self> {
        let (base, token) = match (&args.server, &args.token) {
            (Some(server), Some(token)) => (server.clone(), token.clone()),
            (Some(server), None) => (server.clone(), kept_for(server)?),
            (None, token) => local(args, token.clone())?,
        };
        Self::at(&base, token)
    }

    /// A server, and the key that it is asked with; without one, only what needs none.
    pub fn at(base: &str, token: String) -> Result<Self> {
        let base = base.trim_end_matches('/').to_owned();
        // Fails only when a provider is there already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_mins(2))
            .user_agent(concat!("picloud/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot set up the HTTP client")?;
        Ok(Self { http, base, token })
    }

    /// `GET`, below `/api/v1/admin`.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, None).await
    }

    /// `POST`, below `/api/v1/admin`, with a body and its type.
    pub async fn post(&self, path: &str, body: Vec<u8>, content_type: &str) -> Result<Value> {
        self.send(Method::POST, path, Some((body, content_type)))
            .await
    }

    /// `POST`, below `/api/v1/admin`, with JSON and without the key; a refusal is given as its code.
    pub async fn try_post(&self, path: &str, body: &Value) -> Result<Result<Value, String>> {
        let url = format!("{}/api/v1/admin{path}", self.base);
        let answer = self
            .http
            .post(&url)
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .map_err(|error| anyhow!("cannot reach {}: {}", self.base, root_cause(&error)))?;
        let status = answer.status();
        let bytes = answer.bytes().await.context("the answer broke off")?;
        let told: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match told["code"].as_str() {
            _ if status.is_success() => Ok(Ok(told)),
            Some(code) => Ok(Err(code.to_owned())),
            None => Err(refusal(status, &bytes, path)),
        }
    }

    /// `PUT`, below `/api/v1/admin`, with JSON.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        let bytes = body.to_string().into_bytes();
        self.send(Method::PUT, path, Some((bytes, "application/json")))
            .await
    }

    /// `DELETE`, below `/api/v1/admin`.
    pub async fn delete(&self, path: &str) -> Result<Value> {
        self.send(Method::DELETE, path, None).await
    }

    /// Where the server is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Takes events as they are told, for ever; a connection that breaks is made again, from where
    /// it broke. `opened` is called once nothing can be missed any more.
    pub async fn follow(
        &self,
        path: &str,
        opened: impl FnOnce(),
        mut take: impl FnMut(&str, &Value) -> Result<()>,
    ) -> Result<()> {
        let mut last = None;
        let mut opened = Some(opened);
        loop {
            let broken = self
                .follow_once(path, &mut last, &mut opened, &mut take)
                .await?;
            tracing::debug!(error = %broken, "the stream of events broke off; listening again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Until the connection breaks, of which it tells.
    async fn follow_once(
        &self,
        path: &str,
        last: &mut Option<String>,
        opened: &mut Option<impl FnOnce()>,
        take: &mut impl FnMut(&str, &Value) -> Result<()>,
    ) -> Result<String> {
        let url = format!("{}/api/v1/admin{path}", self.base);
        let mut request = self
            .http
            .get(&url)
            .bearer_auth(&self.token)
            .timeout(Duration::from_hours(24 * 365));
        if let Some(last) = last.as_ref().filter(|last| !last.is_empty()) {
            request = request.header("last-event-id", last);
        }
        let mut answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if last.is_some() => return Ok(root_cause(&error)),
            Err(error) => {
                return Err(anyhow!(
                    "cannot reach {}: {}",
                    self.base,
                    root_cause(&error)
                ));
            }
        };
        let status = answer.status();
        if !status.is_success() {
            let bytes = answer.bytes().await.context("the answer broke off")?;
            return Err(refusal(status, &bytes, path));
        }
        // From now on a break is a reason to try again, even before the first event.
        last.get_or_insert_default();
        if let Some(opened) = opened.take() {
            opened();
        }
        let mut rest = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => rest.extend_from_slice(&chunk),
                Ok(None) => return Ok("it ended".to_owned()),
                Err(error) => return Ok(root_cause(&error)),
            }
            while let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = rest.drain(..end + 2).collect();
                let block = String::from_utf8_lossy(&block);
                let field = |name: &str| {
                    let mut lines = block.lines();
                    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                };
                if let Some(id) = field("id") {
                    *last = Some(id.to_owned());
                }
                if let (Some(name), Some(data)) = (field("event"), field("data")) {
                    let data = serde_json::from_str(data).context("an event is no JSON")?;
                    take(name, &data)?;
                }
            }
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(Vec<u8>, &str)>,
    ) -> Result<Value> {
        let url = format!("{}/api/v1/admin{path}", self.base);
        let mut request = self.http.request(method, &url).bearer_auth(&self.token);
        if let Some((bytes, content_type)) = body {
            request = request.header("content-type", content_type).body(bytes);
        }
        let answer = request
            .send()
            .await
            .map_err(|error| anyhow!("cannot reach {}: {}", self.base, root_cause(&error)))?;
        let status = answer.status();
        let bytes = answer.bytes().await.context("the answer broke off")?;
        if status.is_success() && bytes.is_empty() {
            return Ok(Value::Null);
        }
        if status.is_success() {
            return serde_json::from_slice(&bytes).with_context(|| {
                format!("{url} did not answer with JSON; is it a PiCloud server?")
            });
        }
        Err(refusal(status, &bytes, path))
    }
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The server's own words (RFC 9457), or what the status means.
fn refusal(status: StatusCode, body: &[u8], path: &str) -> anyhow::Error {
    let problem: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let words = problem["detail"].as_str().or(problem["title"].as_str());
    match (status, words) {
        (StatusCode::UNAUTHORIZED, None) => anyhow!("the server does not know this key"),
        (_, Some(words)) => anyhow!("{}", crate::terminal::printable(words)),
        (_, None) => anyhow!("the server answered {status} to {path}"),
    }
}

/// The key that `login` got for a server.
fn kept_for(server: &str) -> Result<String> {
    let kept = Credentials::read()?;
    match kept.key_for(server) {
        Some(key) => Ok(key.to_owned()),
        None => bail!(
            "--server needs a key: --token KEY, the variable PICLOUD_TOKEN, or `picloud login --server {server}`"
        ),
    }
}

/// The server that runs on a data directory.
pub fn running(dir: Option<&Path>) -> Result<RunningServer> {
    let dir = dir.unwrap_or(Path::new(DEFAULT_DATA_DIR));
    let path = dir.join(RUNNING_FILE);
    let text = std::fs::read(&path).with_context(|| {
        let dir = dir.display();
        format!("no server runs on the data directory {dir}: name one with --server")
    })?;
    serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
}

fn local(args: &ConnectionArgs, token: Option<String>) -> Result<(String, String)> {
    let dir = args
        .data_dir
        .clone()
        .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
    let path = dir.join(RUNNING_FILE);
    let Ok(text) = std::fs::read(&path) else {
        // Who named no data directory may mean the server that they logged in to.
        if args.data_dir.is_none()
            && let Some((server, key)) = Credentials::read()?.current()
        {
            return Ok((server.to_owned(), token.unwrap_or_else(|| key.to_owned())));
        }
        bail!(
            "no server runs on the data directory {}: start one with `picloud up`, name one with --server and --token, or use `picloud login`",
            dir.display()
        );
    };
    let running: RunningServer =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let token = match token {
        Some(token) => token,
        None => std::fs::read_to_string(&running.admin_token_file).with_context(|| {
            format!(
                "cannot read the key in {}",
                running.admin_token_file.display()
            )
        })?,
    };
    Ok((running.url, token.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_server_the_way_out_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let args = ConnectionArgs {
            server: None,
            token: None,
            data_dir: Some(dir.path().to_owned()),
        };
        let message = Client::connect(&args)
            .expect_err("nothing runs")
            .to_string();
        assert!(
            message.contains("picloud up") && message.contains("--server"),
            "{message}"
        );
    }

    #[test]
    fn a_refusal_speaks_in_the_servers_words() {
        let body = br#"{"title":"Forbidden","detail":"the key lacks app:read"}"#;
        let message = refusal(StatusCode::FORBIDDEN, body, "/apps").to_string();
        assert_eq!(message, "the key lacks app:read");
    }
}
