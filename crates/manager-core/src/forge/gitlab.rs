//! GitLab (docs.gitlab.com, REST API v4): statuses of commits and notes of merge requests.

use std::sync::Arc;

use picloud_shared::{Clock, CommitId};
use reqwest::{Method, header::HeaderName};
use serde_json::{Value, json};
use url::Url;

use super::{
    Asked, CommitState, CommitStatus, Forge, ForgeError, FoundComment,
    client::{Call, Client},
    github::written,
    line,
};

/// Notes a page, the most that there may be.
const PAGE: u32 = 100;
/// Characters of a status's description.
const MAX_DESCRIPTION: usize = 255;

/// GitLab's API.
pub(super) struct GitLab {
    client: Client,
}

impl GitLab {
    pub(super) fn new(api: Url, token: &str, clock: Arc<dyn Clock>) -> Result<Self, ForgeError> {
        let proof = (HeaderName::from_static("private-token"), token.to_owned());
        Ok(Self {
            client: Client::new(api, proof, &[], clock)?,
        })
    }
}

/// GitLab refuses to set a status to what it is already (gitlab-org/gitlab#22310).
fn is_so_already(error: &ForgeError) -> bool {
    matches!(error, ForgeError::Refused { status: 400, message, .. }
        if message.contains("Cannot transition status"))
}

impl Forge for GitLab {
    fn pull_reference(&self, pull: i64) -> Option<String> {
        Some(format!("refs/merge-requests/{pull}/head"))
    }

    fn set_status<'a>(
        &'a self,
        repository: &'a str,
        commit: &'a CommitId,
        status: &'a CommitStatus,
    ) -> Asked<'a, ()> {
        Box::pin(async move {
            let state = match status.state {
                CommitState::Pending => "pending",
                CommitState::Success => "success",
                CommitState::Failure => "failed",
            };
            let mut body = json!({
                "state": state,
                "name": status.context,
                "description": line(&status.description, MAX_DESCRIPTION),
            });
            if let Some(url) = &status.url {
                body["target_url"] = json!(url);
            }
            // The whole path of a project is one segment.
            let path = vec!["projects", repository, "statuses", commit.as_str()];
            let call = Call::write(Method::POST, path, body).repeatable();
            match self.client.call(call).await {
                Err(error) if is_so_already(&error) => Ok(()),
                done => done.map(drop),
            }
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
            let path = vec!["projects", repository, "merge_requests", &number, "notes"];
            let call = Call::get(path)
                .query("per_page", &PAGE)
                .query("page", &page)
                .query("sort", &"asc");
            let answer = self.client.call(call).await?;
            // Notes that GitLab itself wrote of what happened are no comments.
            let items = answer.as_array().map(Vec::as_slice).unwrap_or_default();
            Ok(items.iter().filter_map(note).collect())
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
            let mut path = vec!["projects", repository, "merge_requests", &number, "notes"];
            path.extend(id);
            let method = if id.is_some() {
                Method::PUT
            } else {
                Method::POST
            };
            let call = Call::write(method, path, json!({ "body": body }));
            written(&self.client.call(call).await?)
        })
    }
}

fn note(item: &Value) -> Option<FoundComment> {
    Some(FoundComment {
        id: item["id"].as_i64()?.to_string(),
        body: item["body"].as_str().unwrap_or_default().to_owned(),
    })
}
