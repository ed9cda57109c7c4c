//! Bitbucket Cloud (developer.atlassian.com, REST API 2.0): build statuses and comments.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use picloud_shared::{Clock, CommitId};
use reqwest::{Method, header::AUTHORIZATION};
use serde_json::json;
use url::Url;

use super::{
    Asked, CommitState, CommitStatus, Forge, ForgeError, FoundComment,
    client::{Call, Client},
    github::written,
    line,
};

/// Comments a page, the most that there may be.
const PAGE: u32 = 100;
/// Characters of a status's description.
const MAX_DESCRIPTION: usize = 255;
/// A status must have an address; this stands where ours isn't known.
const NO_ADDRESS: &str = "https://bitbucket.org";

/// Bitbucket's API.
pub(super) struct Bitbucket {
    client: Client,
}

impl Bitbucket {
    pub(super) fn new(api: Url, token: &str, clock: Arc<dyn Clock>) -> Result<Self, ForgeError> {
        // An access token, or a user's name and API token.
        let proof = if token.contains(':') {
            format!("Basic {}", STANDARD.encode(token))
        } else {
            format!("Bearer {token}")
        };
        Ok(Self {
            client: Client::new(api, (AUTHORIZATION, proof), &[], clock)?,
        })
    }
}

/// `repositories`, the workspace and the name, as segments.
fn repositories(repository: &str) -> Vec<&str> {
    let mut path = vec!["repositories"];
    path.extend(repository.split('/'));
    path
}

impl Forge for Bitbucket {
    fn pull_reference(&self, _: i64) -> Option<String> {
        None
    }

    fn takes_html(&self) -> bool {
        false
    }

    fn set_status<'a>(
        &'a self,
        repository: &'a str,
        commit: &'a CommitId,
        status: &'a CommitStatus,
    ) -> Asked<'a, ()> {
        Box::pin(async move {
            let state = match status.state {
                CommitState::Pending => "INPROGRESS",
                CommitState::Success => "SUCCESSFUL",
                CommitState::Failure => "FAILED",
            };
            let body = json!({
                "key": status.context,
                "name": status.context,
                "state": state,
                "description": line(&status.description, MAX_DESCRIPTION),
                "url": status.url.as_deref().unwrap_or(NO_ADDRESS),
            });
            let mut path = repositories(repository);
            path.extend(["commit", commit.as_str(), "statuses", "build"]);
            let call = Call::write(Method::POST, path, body).repeatable();
            self.client.call(call).await.map(drop)
        })
    }

    fn comments<'a>(
        &'a self,
        repository: &'a str,
        pull: i64,
        page: u32,
    ) -> Asked<'a, Vec<FoundComment>> {
        Box::pin(async move {
            let number = pull.to_string();
            let mut path = repositories(repository);
            path.extend(["pullrequests", &number, "comments"]);
            let call = Call::get(path).query("pagelen", &PAGE).query("page", &page);
            let answer = self.client.call(call).await?;
            let items = answer["values"].as_array().cloned().unwrap_or_default();
            let found = items.iter().filter(|item| item["deleted"] != true);
            Ok(found
                .filter_map(|item| {
                    Some(FoundComment {
                        id: item["id"].as_i64()?.to_string(),
                        body: item["content"]["raw"].as_str().unwrap_or("").to_owned(),
                    })
                })
                .collect())
        })
    }

    fn write_comment<'a>(
        &'a self,
        repository: &'a str,
        pull: i64,
        id: Option<&'a str>,
        body: &'a str,
    ) -> Asked<'a, String> {
        Box::pin(async move {
            let number = pull.to_string();
            let mut path = repositories(repository);
            path.extend(["pullrequests", &number, "comments"]);
            path.extend(id);
            let method = if id.is_some() {
                Method::PUT
            } else {
                Method::POST
            };
            let body = json!({ "content": { "raw": body } });
            written(&self.client.call(Call::write(method, path, body)).await?)
        })
    }
}
