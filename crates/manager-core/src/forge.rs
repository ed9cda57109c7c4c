//! Where pull requests are: statuses of commits and comments, in each forge's own words.

mod bitbucket;
mod client;
mod comment;
mod gitea;
mod github;
mod gitlab;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use picloud_shared::{Clock, CommitId};
use url::Url;

pub use client::ForgeError;
pub(crate) use comment::{Comment, keep_comment};

/// What a forge's call gives.
pub type Asked<'a, T> = BoxFuture<'a, Result<T, ForgeError>>;

/// How far a commit got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitState {
    /// Under way.
    Pending,
    /// Good.
    Success,
    /// Not good.
    Failure,
}

impl CommitState {
    /// The word in PiCloud's own records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// What is shown beside a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitStatus {
    /// `picloud/plan` or `picloud/deploy`.
    pub context: &'static str,
    /// How far it got.
    pub state: CommitState,
    /// One line; cut to what the forge takes.
    pub description: String,
    /// Where more is to be seen, where that is known.
    pub url: Option<String>,
}

/// A comment of a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundComment {
    /// As the forge names it.
    pub id: String,
    /// Its text.
    pub body: String,
}

/// What a forge is asked. Repositories and pull requests are named as its webhooks name them.
pub trait Forge: Send + Sync {
    /// The reference that a pull request's head is fetched by, where the forge has one.
    fn pull_reference(&self, pull: i64) -> Option<String>;

    /// Whether a comment may hold HTML, and so a mark that nobody sees.
    fn takes_html(&self) -> bool {
        true
    }

    /// Sets a commit's status; of each context the last one counts.
    fn set_status<'a>(
        &'a self,
        repository: &'a str,
        commit: &'a CommitId,
        status: &'a CommitStatus,
    ) -> Asked<'a, ()>;

    /// A page of a pull request's comments, from 1; empty after the last.
    fn comments<'a>(
        &'a self,
        repository: &'a str,
        pull: i64,
        page: u32,
    ) -> Asked<'a, Vec<FoundComment>>;

    /// Writes a comment, or an existing one anew; gives its id.
    fn write_comment<'a>(
        &'a self,
        repository: &'a str,
        pull: i64,
        id: Option<&'a str>,
        body: &'a str,
    ) -> Asked<'a, String>;
}

/// The forge of a source, where it says enough to be asked. `repository_url`: where the source's
/// repository is.
pub fn open(
    forge: &picloud_store::Forge,
    repository_url: &str,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Forge>, ForgeError> {
    let token = forge.token.as_ref().map(|token| token.0.to_string());
    let token = token.ok_or(ForgeError::Unusable("forge.token is not set".to_owned()))?;
    let api = api_url(forge, repository_url)?;
    let clock = Arc::clone(clock);
    Ok(match forge.kind.as_str() {
        "github" => Arc::new(github::GitHub::new(api, &token, clock)?),
        "gitlab" => Arc::new(gitlab::GitLab::new(api, &token, clock)?),
        "gitea" | "forgejo" => Arc::new(gitea::Gitea::new(api, &token, clock)?),
        "bitbucket" => Arc::new(bitbucket::Bitbucket::new(api, &token, clock)?),
        other => return Err(ForgeError::Unusable(format!("there is no forge `{other}`"))),
    })
}

/// Where the API is: as the source says, or the public one, or beside the repository.
fn api_url(forge: &picloud_store::Forge, repository_url: &str) -> Result<Url, ForgeError> {
    let unusable = |what: &str| ForgeError::Unusable(format!("forge.api_url {what}"));
    if let Some(api) = forge.api_url.as_deref() {
        let url = Url::parse(api).map_err(|_| unusable("is no address"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(unusable("must be an http or https address"));
        }
        return Ok(url);
    }
    let public = match forge.kind.as_str() {
        "github" => "https://api.github.com",
        "gitlab" => "https://gitlab.com/api/v4",
        "bitbucket" => "https://api.bitbucket.org/2.0",
        _ => {
            let mut url = Url::parse(repository_url)
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https"))
                .ok_or_else(|| unusable("must be set"))?;
            url.set_path("/api/v1");
            url.set_query(None);
            // Only addresses without a host refuse these.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            return Ok(url);
        }
    };
    Url::parse(public).map_err(|error| ForgeError::Unusable(error.to_string()))
}

/// How the forge names a repository, read from its address: `owner/name`, or deeper.
pub(crate) fn repository_of(url: &str) -> Option<String> {
    let path = match Url::parse(url) {
        Ok(url) if url.host().is_some() && url.scheme() != "file" => url.path().to_owned(),
        Ok(_) => return None,
        // git@host:owner/name.git
        Err(_) => url
            .split_once(':')
            .filter(|(host, _)| host.contains('@'))?
            .1
            .to_owned(),
    };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    path.contains('/').then(|| path.to_owned())
}

/// A line of at most so many characters.
fn line(text: &str, max: usize) -> String {
    let text = text.replace(['\n', '\r'], " ");
    if text.chars().count() <= max {
        return text;
    }
    let cut: String = text.chars().take(max - 1).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_named_by_its_address() {
        for (url, name) in [
            ("https://github.com/o/r.git", Some("o/r")),
            ("https://u:p@gitlab.com/a/b/c/", Some("a/b/c")),
            ("git@github.com:o/r.git", Some("o/r")),
            ("ssh://git@host:22/o/r", Some("o/r")),
            ("/srv/git/r.git", None),
            ("file:///srv/git/r.git", None),
            ("https://host/r.git", None),
        ] {
            assert_eq!(repository_of(url).as_deref(), name, "{url}");
        }
    }

    #[test]
    fn the_api_is_where_the_source_says_or_where_its_kind_is() {
        let of = |kind: &str, api: Option<&str>, url: &str| {
            let forge = picloud_store::Forge {
                kind: kind.to_owned(),
                api_url: api.map(str::to_owned),
                token: None,
            };
            api_url(&forge, url).map(String::from).ok()
        };
        let enterprise = Some("https://git.corp/api/v3");
        assert_eq!(of("github", enterprise, ""), enterprise.map(str::to_owned));
        assert_eq!(
            of("github", None, "").as_deref(),
            Some("https://api.github.com/")
        );
        assert_eq!(
            of("forgejo", None, "https://t@codeberg.org/o/r.git").as_deref(),
            Some("https://codeberg.org/api/v1")
        );
        assert_eq!(of("gitea", None, "/srv/r.git"), None);
        assert_eq!(of("github", Some("file:///x"), ""), None);
    }

    #[test]
    fn a_line_is_cut_by_characters() {
        assert_eq!(line("a\nb", 9), "a b");
        assert_eq!(line("äöüß", 3), "äö…");
    }
}
