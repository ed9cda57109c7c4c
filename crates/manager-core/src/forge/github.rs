//! GitHub, and GitHub Enterprise (docs.github.com, REST API 2022-11-28).

use std::sync::Arc;

use picloud_shared::{Clock, CommitId};
use reqwest::{
    Method,
    header::{ACCEPT, AUTHORIZATION, HeaderName},
};
use serde_json::{Value, json};
use url::Url;

use super::{
    Asked, CommitStatus, Forge, ForgeError, FoundComment,
    client::{Call, Client},
    line,
};

/// Comments a page, the most that there may be.
const PAGE: u32 = 100;
/// Characters of a status's description.
const MAX_DESCRIPTION: usize = 140;

/// GitHub's API.
pub(super) struct GitHub {
    client: Client,
}

impl GitHub {
    pub(super) fn new(api: Url, token: &str, clock: Arc<dyn Clock>) -> Result<Self, ForgeError> {
        let proof = (AUTHORIZATION, format!("Bearer {token}"));
        let extra = [
            (ACCEPT, "application/vnd.github+json"),
            (
                HeaderName::from_static("x-github-api-version"),
                "2022-11-28",
            ),
        ];
        Ok(Self {
            client: Client::new(api, proof, &extra, clock)?,
        })
    }
}

/// `repos`, the owner and the name, as segments.
pub(super) fn repos(repository: &str) -> Vec<&str> {
    let mut path = vec!["repos"];
    path.extend(repository.split('/'));
    path
}

/// The body of a status, as GitHub, Gitea and Forgejo take it.
pub(super) fn status_body(status: &CommitStatus, max: usize) -> Value {
    let mut body = json!({
        "state": status.state.as_str(),
        "context": status.context,
        "description": line(&status.description, max),
    });
    if let Some(url) = &status.url {
        body["target_url"] = json!(url);
    }
    body
}

/// Comments in an answer, as GitHub, Gitea and Forgejo give them.
pub(super) fn comments(answer: &Value) -> Vec<FoundComment> {
    let items = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    let found = items.iter().filter_map(|item| {
        Some(FoundComment {
            id: item["id"].as_i64()?.to_string(),
            body: item["body"].as_str().unwrap_or_default().to_owned(),
        })
    });
    found.collect()
}

/// The id of a comment that was written.
pub(super) fn written(answer: &Value) -> Result<String, ForgeError> {
    let id = answer["id"].as_i64().map(|id| id.to_string());
    id.ok_or_else(|| ForgeError::Away("its answer names no comment".to_owned()))
}

impl Forge for GitHub {
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
            let call = Call::get(path)
                .query("per_page", &PAGE)
                .query("page", &page);
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
