//! How notifications leave: an HTTP client of the operator's own, which may reach private
//! addresses, and the keys that open sealed ones.

use std::time::Duration;

use anyhow::{Context, Result};
use picloud_manager_core::notifications::{Deliver, Delivery};
use picloud_services::SecretKeys;

/// Delivers notifications.
pub struct HttpDelivery {
    http: reqwest::Client,
    keys: SecretKeys,
}

impl HttpDelivery {
    /// With the keys that open sealed addresses.
    pub fn new(keys: SecretKeys) -> Result<Self> {
        // Fails only when a provider is there already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(15))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("PiCloud/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot set up the HTTP client")?;
        Ok(Self { http, keys })
    }
}

impl Deliver for HttpDelivery {
    fn address(&self, written: &str) -> Result<String, String> {
        if !written.trim_start().starts_with("-----BEGIN AGE") {
            return Ok(written.to_owned());
        }
        let opened = self.keys.open(written);
        let opened = opened.map_err(|error| error.to_string())?;
        Ok(opened.0.trim().to_owned())
    }

    fn post<'a>(&'a self, url: &'a str, body: String) -> Delivery<'a> {
        Box::pin(async move {
            let request = self
                .http
                .post(url)
                .header("content-type", "application/json")
                .body(body);
            // The address may hold a token: it is never told.
            let answer = request.send().await;
            let answer = answer.map_err(|error| error.without_url().to_string())?;
            Ok(answer.status().as_u16())
        })
    }
}
