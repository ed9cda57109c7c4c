//! Gitea and Forgejo (docs.gitea.com, API v1), whose API is shaped after GitHub's.

use std::sync::Arc;

use picloud_shared::{Clock, CommitId};
use reqwest::{Method, header::AUTHORIZATION};
use serde_json::json;
use url::Url;

use super::{
    Asked, CommitStatus, Forge, ForgeError, FoundComment,
    client::{Call, Client},
    github::{comments, repos, status_body, written},
};

/// Comments a page, where pages are known: older versions give all at once.
const PAGE: u32 = 50;
/// Characters of a status's description.
const MAX_DESCRIPTION: usize = 255;

/// The API of a Gitea or Forgejo.
pub(super) struct Gitea {
    client: Client,
}

impl Gitea {
    pub(super) fn new(api: Url, token: &str, clock: Arc<dyn Clock>) -> Result<Self, ForgeError> {
        let proof = (AUTHORIZATION, format!("token {token}"));
        Ok(Self {
            client: Client::new(api, proof, &[], clock)?,
        })
    }
}

impl Forge for Gitea {
    fn pull_reference(&self, pull: i64) -> Option<String> {
        Some(format!("refs/pull/{pull}/head"))
    }

    fn set_status<'a>(
        &'a self,
        repository: &'a str,
        commit: &'a CommitId,
        status: &'a CommitStatus,
    ) -> Asked<'a, ()> {
        Box::pin(async move {
            let mut path = repos(repository);
            path.extend(["statuses", commit.as_str()]);
            let body = status_body(status, MAX_DESCRIPTION);
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
            let mut path = repos(repository);
            path.extend(["issues", &number, "comments"]);
            let call = Call::get(path).query("limit", &PAGE).query("page", &page);
            Ok(comments(&self.client.call(call).await?))
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
            let mut path = repos(repository);
            let method = if let Some(id) = id {
                path.extend(["issues", "comments", id]);
                Method::PATCH
            } else {
                path.extend(["issues", &number, "comments"]);
                Method::POST
            };
            let call = Call::write(method, path, json!({ "body": body }));
            written(&self.client.call(call).await?)
        })
    }
}
