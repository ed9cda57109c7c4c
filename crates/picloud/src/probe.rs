//! The checks of apps, requested over this process's own listener: what a client would get.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use picloud_manager_core::Probe;
use picloud_shared::AppName;
use reqwest::redirect::Policy;

/// Requests the paths of apps from a listener of ours.
pub struct LoopbackProbe {
    http: reqwest::Client,
    base: String,
}

impl LoopbackProbe {
    /// A probe of what listens at that address.
    pub fn new(listens: SocketAddr) -> Result<Self> {
        // Fails only when a provider is there already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .user_agent(concat!("PiCloud/", env!("CARGO_PKG_VERSION"), " (check)"))
            .build()
            .context("cannot set up the HTTP client")?;
        let host = match listens {
            // Everywhere is here, too.
            SocketAddr::V4(address) if address.ip().is_unspecified() => "127.0.0.1".to_owned(),
            SocketAddr::V6(address) if address.ip().is_unspecified() => "[::1]".to_owned(),
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        };
        Ok(Self {
            http,
            base: format!("http://{host}:{}", listens.port()),
        })
    }
}

impl Probe for LoopbackProbe {
    fn status<'a>(
        &'a self,
        app: &'a AppName,
        path: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Result<u16, String>> {
        Box::pin(async move {
            let url = format!("{}/apps/{app}{path}", self.base);
            let answer = self.http.get(url).timeout(within).send().await;
            match answer {
                Ok(answer) => Ok(answer.status().as_u16()),
                Err(error) => Err(error.without_url().to_string()),
            }
        })
    }
}
