//! One comment a pull request, found again by a mark that nobody sees.

use std::collections::HashSet;

use super::{Forge, ForgeError};

/// Pages that are looked through.
const MAX_PAGES: u32 = 200;

/// What the comment is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Comment {
    /// Whose: several sources may plan the same pull request.
    pub(crate) source: String,
    /// Of all that it says but the time it was said at.
    pub(crate) digest: String,
    /// Markdown.
    pub(crate) text: String,
}

impl Comment {
    fn mark(&self, html: bool, digest: &str) -> (String, String) {
        let open = if html { "<!-- " } else { "[//]: # (" };
        let close = if html { " -->" } else { ")" };
        let begin = format!("{open}picloud:plan source={} digest=", self.source);
        let whole = format!("{begin}{digest}{close}");
        (begin, whole)
    }

    /// The text with its mark.
    fn body(&self, html: bool) -> String {
        let (_, mark) = self.mark(html, &self.digest);
        // The mark first: what is cut off at a limit is the end.
        format!("{mark}\n\n{}", self.text)
    }

    /// Whether a comment is this one, and says the same already.
    fn is_in(&self, html: bool, body: &str) -> Option<bool> {
        let (begin, whole) = self.mark(html, &self.digest);
        let first = body.trim_start();
        first.starts_with(&begin).then(|| first.starts_with(&whole))
    }
}

/// Makes the comment say what it is to say, and gives its id. `known`: where it was written last.
/// What says the same already isn't written again.
pub(crate) async fn keep_comment(
    forge: &dyn Forge,
    repository: &str,
    pull: i64,
    known: Option<&str>,
    comment: &Comment,
) -> Result<String, ForgeError> {
    let body = comment.body(forge.takes_html());
    if let Some(id) = known {
        match forge.write_comment(repository, pull, Some(id), &body).await {
            // Somebody removed it.
            Err(error) if error.is_not_ours() => {}
            done => return done,
        }
    }
    for (id, is_same) in find(forge, repository, pull, comment).await? {
        if is_same {
            return Ok(id);
        }
        match forge
            .write_comment(repository, pull, Some(&id), &body)
            .await
        {
            // Somebody else's, with our mark in it.
            Err(error) if error.is_not_ours() => {}
            done => return done,
        }
    }
    forge.write_comment(repository, pull, None, &body).await
}

/// All comments with the mark; with each, whether it says the same already.
async fn find(
    forge: &dyn Forge,
    repository: &str,
    pull: i64,
    comment: &Comment,
) -> Result<Vec<(String, bool)>, ForgeError> {
    let html = forge.takes_html();
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for page in 1..=MAX_PAGES {
        let comments = forge.comments(repository, pull, page).await?;
        // Some know no pages, and give the same again and again.
        let before = seen.len();
        for one in comments {
            if seen.insert(one.id.clone())
                && let Some(is_same) = comment.is_in(html, &one.body)
            {
                found.push((one.id, is_same));
            }
        }
        if seen.len() == before {
            break;
        }
    }
    Ok(found)
}
