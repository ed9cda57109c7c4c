//! What a delivery says, in whichever forge's words.

use axum::http::HeaderMap;
use serde_json::Value;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The forge tries the address.
    Ping,
    /// References changed.
    Push {
        /// Full names: `refs/heads/main`.
        references: Vec<String>,
    },
    /// A pull request (merge request) changed.
    Pull(PullEvent),
    /// Somebody asks for a look at the head.
    Sync,
    /// Something that nothing is done about.
    Other(String),
}

/// A pull request, as an event shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PullEvent {
    /// Its number in its repository.
    pub(crate) number: i64,
    /// For people.
    pub(crate) title: String,
    /// The newest commit of it; Bitbucket shortens its id.
    pub(crate) head: String,
    /// The branch it comes from, in the repository that it comes from.
    pub(crate) head_branch: String,
    /// The repository that it comes from, where that is another; empty if it is gone.
    pub(crate) fork: Option<String>,
    /// Where the fork is cloned from.
    pub(crate) fork_url: Option<String>,
    /// The branch it would be merged into.
    pub(crate) base: String,
    /// Whether it is open.
    pub(crate) open: bool,
    /// Whether it was merged.
    pub(crate) merged: bool,
}

/// An event, and the repository it is about as the forge names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) event: Event,
    pub(crate) repository: Option<String>,
}

/// Headers that name a delivery, each with who sends it.
const IDS: [(&str, &str); 8] = [
    ("webhook-id", "standard"),
    ("x-forgejo-delivery", "forgejo"),
    ("x-gitea-delivery", "gitea"),
    ("x-github-delivery", "github"),
    ("idempotency-key", "key"),
    ("x-gitlab-event-uuid", "gitlab"),
    // Bitbucket Cloud, and the same for its server.
    ("x-request-uuid", "bitbucket"),
    ("x-request-id", "bitbucket-server"),
];

/// What tells a delivery from others; `None` where the sender doesn't.
pub(super) fn id(headers: &HeaderMap) -> Option<String> {
    IDS.iter().find_map(|(header, who)| {
        let value = headers.get(*header)?.to_str().ok()?.trim();
        let fits = (1..=200).contains(&value.len());
        // A proxy in front names requests by the same header: only with the forge's own it counts.
        let of_proxy = *header == "x-request-id" && !headers.contains_key("x-event-key");
        (fits && !of_proxy).then(|| format!("{who}:{value}"))
    })
}

/// What a body can't be read as.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreadable(String);

/// Reads a delivery whose signature is right. `generic`: somebody with a key, who may send
/// anything or nothing.
pub(super) fn read(
    headers: &HeaderMap,
    body: &[u8],
    generic: bool,
) -> Result<Delivery, Unreadable> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let family = [
        "x-github-event",
        "x-gitea-event",
        "x-forgejo-event",
        "x-gogs-event",
    ];
    let hub = family.iter().find_map(|name| text(name));
    let (gitlab, bitbucket) = (text("x-gitlab-event"), text("x-event-key"));
    let named = hub.is_some() || gitlab.is_some() || bitbucket.is_some();
    let json = match payload(text("content-type").unwrap_or(""), body) {
        Ok(json) => json,
        Err(_) if generic && !named => Value::Null,
        Err(error) => return Err(error),
    };
    let event = match (hub, gitlab, bitbucket) {
        (Some(event), _, _) => hub_event(event, &json)?,
        (_, Some(event), _) => gitlab_event(event, &json)?,
        (_, _, Some(event)) => bitbucket_event(event, &json)?,
        _ => match json["ref"].as_str() {
            Some(reference) if reference.starts_with("refs/") => Event::Push {
                references: vec![reference.to_owned()],
            },
            Some(branch) => Event::Push {
                references: vec![format!("refs/heads/{branch}")],
            },
            None => Event::Sync,
        },
    };
    Ok(Delivery {
        event,
        repository: repository(&json),
    })
}

/// The body as JSON: as it is, or as GitHub's form field.
fn payload(content_type: &str, body: &[u8]) -> Result<Value, Unreadable> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let form = content_type
        .trim_start()
        .to_ascii_lowercase()
        .starts_with("application/x-www-form-urlencoded");
    let field = form.then(|| {
        url::form_urlencoded::parse(body)
            .find(|(name, _)| name == "payload")
            .map(|(_, value)| value.into_owned())
    });
    let parsed = match &field {
        None => serde_json::from_slice(body),
        Some(Some(text)) => serde_json::from_str(text),
        Some(None) => return Err(Unreadable("the form has no field `payload`".to_owned())),
    };
    parsed.map_err(|error| Unreadable(format!("the body is not JSON: {error}")))
}

/// How the forge names the repository.
fn repository(json: &Value) -> Option<String> {
    let server = &json["repository"];
    let named = json["repository"]["full_name"]
        .as_str()
        .or_else(|| json["project"]["path_with_namespace"].as_str())
        .map(str::to_owned);
    named.or_else(|| server_repository(server))
}

/// `PROJECT/slug`, as Bitbucket's server names one.
fn server_repository(json: &Value) -> Option<String> {
    let (project, slug) = (json["project"]["key"].as_str()?, json["slug"].as_str()?);
    Some(format!("{project}/{slug}"))
}

fn lacks(what: &str) -> Unreadable {
    Unreadable(format!("the payload lacks {what}"))
}

fn text(json: &Value, pointer: &str) -> Result<String, Unreadable> {
    let found = json.pointer(pointer).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| {
        lacks(&format!(
            "`{}`",
            pointer.trim_start_matches('/').replace('/', ".")
        ))
    })
}

/// GitHub, Gitea, Forgejo.
fn hub_event(event: &str, json: &Value) -> Result<Event, Unreadable> {
    Ok(match event {
        "ping" => Event::Ping,
        "push" => Event::Push {
            references: vec![text(json, "/ref")?],
        },
        // Gitea and Forgejo name each kind of change; the payload is the same.
        "pull_request" | "pull_request_sync" => {
            let pull = &json["pull_request"];
            let number = pull["number"].as_i64().or_else(|| json["number"].as_i64());
            let (head, base) = (&pull["head"]["repo"], &pull["base"]["repo"]["full_name"]);
            let same = head["full_name"] == *base && !base.is_null();
            Event::Pull(PullEvent {
                number: number.ok_or_else(|| lacks("`pull_request.number`"))?,
                title: text(pull, "/title").unwrap_or_default(),
                head: text(pull, "/head/sha")?,
                head_branch: text(pull, "/head/ref")?,
                fork: (!same).then(|| head["full_name"].as_str().unwrap_or("").to_owned()),
                fork_url: head["clone_url"]
                    .as_str()
                    .filter(|_| !same)
                    .map(str::to_owned),
                base: text(pull, "/base/ref")?,
                open: text(pull, "/state")? == "open",
                merged: pull["merged"] == true,
            })
        }
        other => Event::Other(other.to_owned()),
    })
}

fn gitlab_event(event: &str, json: &Value) -> Result<Event, Unreadable> {
    let kind = json["object_kind"].as_str().unwrap_or(event);
    Ok(match kind {
        "push" | "tag_push" => Event::Push {
            references: vec![text(json, "/ref")?],
        },
        "merge_request" => {
            let merge = &json["object_attributes"];
            let same = merge["source_project_id"] == merge["target_project_id"];
            let source = &merge["source"];
            Event::Pull(PullEvent {
                number: merge["iid"]
                    .as_i64()
                    .ok_or_else(|| lacks("`object_attributes.iid`"))?,
                title: text(merge, "/title").unwrap_or_default(),
                head: text(merge, "/last_commit/id")?,
                head_branch: text(merge, "/source_branch")?,
                fork: (!same).then(|| {
                    source["path_with_namespace"]
                        .as_str()
                        .unwrap_or("")
                        .to_owned()
                }),
                fork_url: source["git_http_url"]
                    .as_str()
                    .filter(|_| !same)
                    .map(str::to_owned),
                base: text(merge, "/target_branch")?,
                open: text(merge, "/state")? == "opened",
                merged: text(merge, "/state")? == "merged",
            })
        }
        other => Event::Other(other.to_owned()),
    })
}

fn bitbucket_event(event: &str, json: &Value) -> Result<Event, Unreadable> {
    let changes = |pointer: &str| {
        let list = json.pointer(pointer).and_then(Value::as_array);
        list.cloned().ok_or_else(|| lacks("its changes"))
    };
    Ok(match event {
        "diagnostics:ping" => Event::Ping,
        "repo:push" => {
            let changes = changes("/push/changes")?;
            // A branch that is gone stands in `old` alone.
            let sides = changes.iter().map(|change| match &change["new"] {
                Value::Null => &change["old"],
                new => new,
            });
            let references = sides.filter_map(|side| {
                let folder = if side["type"] == "tag" {
                    "tags"
                } else {
                    "heads"
                };
                Some(format!("refs/{folder}/{}", side["name"].as_str()?))
            });
            Event::Push {
                references: references.collect(),
            }
        }
        "repo:refs_changed" => Event::Push {
            references: changes("/changes")?
                .iter()
                .filter_map(|change| Some(change["ref"]["id"].as_str()?.to_owned()))
                .collect(),
        },
        _ if event.starts_with("pullrequest:") && json["pullrequest"].is_object() => {
            cloud_pull(&json["pullrequest"])?
        }
        _ if event.starts_with("pr:") && json["pullRequest"].is_object() => {
            server_pull(&json["pullRequest"])?
        }
        other => Event::Other(other.to_owned()),
    })
}

fn cloud_pull(pull: &Value) -> Result<Event, Unreadable> {
    let source = &pull["source"];
    let from = source["repository"]["full_name"].as_str();
    let same = from == pull["destination"]["repository"]["full_name"].as_str();
    let url = from.map(|from| format!("https://bitbucket.org/{from}.git"));
    Ok(Event::Pull(PullEvent {
        number: pull["id"]
            .as_i64()
            .ok_or_else(|| lacks("`pullrequest.id`"))?,
        title: text(pull, "/title").unwrap_or_default(),
        head: text(pull, "/source/commit/hash")?,
        head_branch: text(pull, "/source/branch/name")?,
        fork: (!same).then(|| from.unwrap_or("").to_owned()),
        fork_url: url.filter(|_| !same),
        base: text(pull, "/destination/branch/name")?,
        open: text(pull, "/state")? == "OPEN",
        merged: text(pull, "/state")? == "MERGED",
    }))
}

fn server_pull(pull: &Value) -> Result<Event, Unreadable> {
    let (from, to) = (&pull["fromRef"], &pull["toRef"]);
    let of = server_repository(&from["repository"]);
    let same = of == server_repository(&to["repository"]);
    Ok(Event::Pull(PullEvent {
        number: pull["id"]
            .as_i64()
            .ok_or_else(|| lacks("`pullRequest.id`"))?,
        title: text(pull, "/title").unwrap_or_default(),
        head: text(pull, "/fromRef/latestCommit")?,
        head_branch: text(pull, "/fromRef/displayId")?,
        fork: (!same).then(|| of.unwrap_or_default()),
        fork_url: None,
        base: text(pull, "/toRef/displayId")?,
        open: text(pull, "/state")? == "OPEN",
        merged: text(pull, "/state")? == "MERGED",
    }))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn event(name: &'static str, value: &'static str, body: &Value) -> Event {
        let read = read(
            &headers(&[(name, value)]),
            body.to_string().as_bytes(),
            false,
        );
        read.expect("a payload that can be read").event
    }

    fn push(reference: &str) -> Event {
        Event::Push {
            references: vec![reference.to_owned()],
        }
    }

    #[test]
    fn pushes_of_every_forge() {
        let hub = json!({ "ref": "refs/heads/a/b", "repository": { "full_name": "o/r" } });
        for name in ["x-github-event", "x-gitea-event", "x-forgejo-event"] {
            assert_eq!(event(name, "push", &hub), push("refs/heads/a/b"));
        }
        let gitlab = json!({ "object_kind": "tag_push", "ref": "refs/tags/v1" });
        assert_eq!(
            event("x-gitlab-event", "Tag Push Hook", &gitlab),
            push("refs/tags/v1")
        );
        let cloud = json!({ "push": { "changes": [
            { "new": { "type": "branch", "name": "main" }, "old": null },
            { "new": null, "old": { "type": "branch", "name": "gone" } },
            { "new": { "type": "tag", "name": "v1" } },
        ] } });
        let references = ["refs/heads/main", "refs/heads/gone", "refs/tags/v1"];
        assert_eq!(
            event("x-event-key", "repo:push", &cloud),
            Event::Push {
                references: references.map(str::to_owned).to_vec()
            }
        );
        let server = json!({ "changes": [{ "ref": { "id": "refs/heads/x", "type": "BRANCH" } }] });
        assert_eq!(
            event("x-event-key", "repo:refs_changed", &server),
            push("refs/heads/x")
        );
        let test = json!({ "test": true });
        assert_eq!(event("x-event-key", "diagnostics:ping", &test), Event::Ping);
        assert_eq!(
            event("x-github-event", "ping", &json!({ "zen": "." })),
            Event::Ping
        );
    }

    #[test]
    fn pull_requests_of_every_forge() {
        let expected = |fork: Option<&str>, url: Option<&str>| {
            Event::Pull(PullEvent {
                number: 7,
                title: "T".to_owned(),
                head: "c0ffee".to_owned(),
                head_branch: "topic".to_owned(),
                fork: fork.map(str::to_owned),
                fork_url: url.map(str::to_owned),
                base: "main".to_owned(),
                open: true,
                merged: false,
            })
        };
        let hub = |from: Value| {
            json!({ "action": "opened", "number": 7, "pull_request": {
                "number": 7, "title": "T", "state": "open",
                "head": { "sha": "c0ffee", "ref": "topic", "repo": from },
                "base": { "ref": "main", "repo": { "full_name": "o/r" } },
            } })
        };
        let same = hub(json!({ "full_name": "o/r", "clone_url": "https://x/o/r.git" }));
        assert_eq!(
            event("x-github-event", "pull_request", &same),
            expected(None, None)
        );
        let fork = hub(json!({ "full_name": "f/r", "clone_url": "https://x/f/r.git" }));
        let of_fork = expected(Some("f/r"), Some("https://x/f/r.git"));
        assert_eq!(event("x-gitea-event", "pull_request", &fork), of_fork);
        // The fork is gone: nobody's any more, and not ours.
        assert_eq!(
            event("x-github-event", "pull_request", &hub(Value::Null)),
            expected(Some(""), None)
        );
        let gitlab = json!({ "object_kind": "merge_request", "object_attributes": {
            "iid": 7, "title": "T", "state": "opened", "source_branch": "topic", "target_branch": "main",
            "source_project_id": 2, "target_project_id": 1, "last_commit": { "id": "c0ffee" },
            "source": { "path_with_namespace": "f/r", "git_http_url": "https://x/f/r.git" },
        } });
        assert_eq!(
            event("x-gitlab-event", "Merge Request Hook", &gitlab),
            of_fork
        );
        let cloud = json!({ "pullrequest": { "id": 7, "title": "T", "state": "OPEN",
            "source": { "branch": { "name": "topic" }, "commit": { "hash": "c0ffee" }, "repository": { "full_name": "o/r" } },
            "destination": { "branch": { "name": "main" }, "repository": { "full_name": "o/r" } } } });
        assert_eq!(
            event("x-event-key", "pullrequest:created", &cloud),
            expected(None, None)
        );
        let of = |key: &str| json!({ "slug": "r", "project": { "key": key } });
        let server = json!({ "pullRequest": { "id": 7, "title": "T", "state": "OPEN",
            "fromRef": { "displayId": "topic", "latestCommit": "c0ffee", "repository": of("F") },
            "toRef": { "displayId": "main", "repository": of("O") } } });
        assert_eq!(
            event("x-event-key", "pr:opened", &server),
            expected(Some("F/r"), None)
        );
    }

    #[test]
    fn forms_generic_requests_and_rubbish() {
        let form = headers(&[
            ("x-github-event", "push"),
            ("content-type", "application/x-www-form-urlencoded"),
        ]);
        let read_form = read(
            &form,
            b"payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D",
            false,
        );
        assert_eq!(read_form.expect("a form").event, push("refs/heads/main"));
        assert!(read(&form, b"other=1", false).is_err());
        let none = HeaderMap::new();
        for body in [&b""[..], b"anything", b"{}"] {
            assert_eq!(read(&none, body, true).expect("generic").event, Event::Sync);
        }
        let branch = read(&none, br#"{"ref": "main"}"#, true);
        assert_eq!(branch.expect("generic").event, push("refs/heads/main"));
        assert!(read(&none, b"{", false).is_err());
        assert!(read(&headers(&[("x-github-event", "push")]), b"{}", false).is_err());
        assert!(read(&headers(&[("x-github-event", "push")]), b"[1]", true).is_err());
        let other = read(&headers(&[("x-github-event", "star")]), b"{}", false);
        assert_eq!(
            other.expect("a star").event,
            Event::Other("star".to_owned())
        );
    }

    #[test]
    fn a_delivery_is_known_by_its_sender_s_id() {
        let id = |pairs: &[_]| id(&headers(pairs));
        assert_eq!(
            id(&[("x-github-delivery", "a")]).as_deref(),
            Some("github:a")
        );
        assert_eq!(
            id(&[("idempotency-key", "k"), ("x-gitlab-event-uuid", "u")]).as_deref(),
            Some("key:k")
        );
        assert_eq!(id(&[("x-request-id", "of a proxy")]), None);
        assert_eq!(
            id(&[("x-request-id", "b"), ("x-event-key", "repo:push")]).as_deref(),
            Some("bitbucket-server:b")
        );
    }
}
