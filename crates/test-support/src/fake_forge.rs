//! A forge's API as its documentation describes it: it refuses what the forge would refuse, and
//! remembers what it was told.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use serde_json::{Value, json};

use crate::published;

/// Whose API it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForgeKind {
    /// docs.github.com, REST API 2022-11-28.
    GitHub,
    /// docs.gitlab.com, REST API v4.
    GitLab,
    /// docs.gitea.com, API v1.
    Gitea,
    /// developer.atlassian.com, Bitbucket Cloud REST API 2.0.
    Bitbucket,
}

/// A status of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whose.
    pub commit: String,
    /// `picloud/plan`
    pub context: String,
    /// In the forge's own word.
    pub state: String,
    /// One line.
    pub description: String,
}

/// What a forge holds.
#[derive(Debug, Default)]
struct Held {
    comments: BTreeMap<u64, Vec<(i64, String)>>,
    statuses: Vec<Status>,
    /// What was asked, as `METHOD /path`.
    requests: Vec<String>,
    /// What the forge's documentation forbids.
    violations: Vec<String>,
    /// Answers that come before all others: status and headers.
    refusals: Vec<(u16, String)>,
    next_id: i64,
}

/// A forge on a port of its own.
#[derive(Debug)]
pub struct FakeForge {
    kind: ForgeKind,
    address: String,
    held: Arc<Mutex<Held>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The token that it takes.
pub const TOKEN: &str = "a-token-of-the-forge";
/// Comments a page, whatever is asked for: so that more than one is needed.
const PAGE: usize = 30;

struct Asked {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: String,
}

impl FakeForge {
    /// Starts one.
    ///
    /// # Panics
    /// Where there is no port.
    pub fn start(kind: ForgeKind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let held = Arc::new(Mutex::new(Held {
            next_id: 1000,
            ..Held::default()
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (held, stop) = (Arc::clone(&held), Arc::clone(&stop));
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    if let Ok(stream) = stream {
                        // A client that breaks off is its own loss.
                        let _ = serve(kind, &held, stream);
                    }
                }
            }
        });
        Self {
            kind,
            address,
            held,
            stop,
            thread: Some(thread),
        }
    }

    /// What a source names as `forge.api_url`: below a path, as of an own installation.
    pub fn api_url(&self) -> String {
        format!("http://{}{}", self.address, prefix(self.kind))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The comments of a pull request, in their order.
    pub fn comments(&self, pull: u64) -> Vec<String> {
        let held = self.held();
        let comments = held.comments.get(&pull).into_iter().flatten();
        comments.map(|(_, body)| body.clone()).collect()
    }

    /// Somebody writes comments.
    pub fn write_comments(&self, pull: u64, bodies: impl IntoIterator<Item = String>) {
        let mut held = self.held();
        for body in bodies {
            held.next_id += 1;
            let id = held.next_id;
            held.comments.entry(pull).or_default().push((id, body));
        }
    }

    /// Somebody removes all comments of a pull request.
    pub fn remove_comments(&self, pull: u64) {
        self.held().comments.remove(&pull);
    }

    /// What was set, in that order.
    pub fn statuses(&self) -> Vec<Status> {
        self.held().statuses.clone()
    }

    /// The states that a commit had in a context, in their order.
    pub fn states(&self, commit: &str, context: &str) -> Vec<String> {
        let statuses = self.statuses();
        let of = |status: &&Status| status.commit == commit && status.context == context;
        statuses
            .iter()
            .filter(of)
            .map(|status| status.state.clone())
            .collect()
    }

    /// How often it was asked to change something.
    pub fn writes(&self) -> usize {
        let held = self.held();
        let is_write = |asked: &&String| !asked.starts_with("GET ");
        held.requests.iter().filter(is_write).count()
    }

    /// What was asked.
    pub fn requests(&self) -> Vec<String> {
        self.held().requests.clone()
    }

    /// What was asked against the forge's documentation.
    pub fn violations(&self) -> Vec<String> {
        self.held().violations.clone()
    }

    /// The next request is refused so; `headers` are lines.
    pub fn refuse(&self, status: u16, headers: &str) {
        self.held().refusals.push((status, headers.to_owned()));
    }
}

impl Drop for FakeForge {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes it, so that it sees that it is over.
        drop(TcpStream::connect(&self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn prefix(kind: ForgeKind) -> &'static str {
    match kind {
        ForgeKind::GitHub => "/api/v3",
        ForgeKind::GitLab => "/api/v4",
        ForgeKind::Gitea => "/api/v1",
        ForgeKind::Bitbucket => "/2.0",
    }
}

fn serve(kind: ForgeKind, held: &Mutex<Held>, mut stream: TcpStream) -> std::io::Result<()> {
    let Some(asked) = read(&stream)? else {
        return Ok(());
    };
    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
    held.requests
        .push(format!("{} {}", asked.method, asked.path));
    let (status, headers, body) = if held.refusals.is_empty() {
        let (status, body) = answer(kind, &mut held, &asked).unwrap_or_else(|violation| {
            held.violations
                .push(format!("{} {}: {violation}", asked.method, asked.path));
            (422, json!({ "message": violation }))
        });
        (status, String::new(), body)
    } else {
        let (status, headers) = held.refusals.remove(0);
        (status, headers, json!({ "message": "not now" }))
    };
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn read(stream: &TcpStream) -> std::io::Result<Option<Asked>> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = query.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut asked = Asked {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.collect(),
        headers: BTreeMap::new(),
        body: String::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        asked
            .headers
            .insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = asked.headers.get("content-length");
    let length = length.and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    asked.body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(asked))
}

type Answer = Result<(u16, Value), String>;

fn answer(kind: ForgeKind, held: &mut Held, asked: &Asked) -> Answer {
    proof(kind, asked)?;
    let path = asked
        .path
        .strip_prefix(prefix(kind))
        .ok_or("outside of the API")?;
    if kind == ForgeKind::GitHub {
        published::check(&asked.method, path, &asked.query, &asked.body)?;
    }
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let method = asked.method.as_str();
    match (kind, method, parts.as_slice()) {
        (ForgeKind::GitHub | ForgeKind::Gitea, "POST", ["repos", _, _, "statuses", commit]) => {
            let known = ["state", "target_url", "description", "context"];
            let body = fields(asked, &known, &["state"])?;
            let states = ["error", "failure", "pending", "success"];
            status(held, &body, commit, ("state", &states), "context")
        }
        (
            ForgeKind::GitHub | ForgeKind::Gitea,
            "GET",
            ["repos", _, _, "issues", number, "comments"],
        ) => page(kind, held, asked, number),
        (
            ForgeKind::GitHub | ForgeKind::Gitea,
            "POST",
            ["repos", _, _, "issues", number, "comments"],
        ) => {
            let body = comment_body(asked, 65_536)?;
            create(held, number, body)
        }
        (
            ForgeKind::GitHub | ForgeKind::Gitea,
            "PATCH",
            ["repos", _, _, "issues", "comments", id],
        ) => {
            let body = comment_body(asked, 65_536)?;
            update(held, id, body)
        }
        (ForgeKind::GitLab, "POST", ["projects", _, "statuses", commit]) => {
            let known = ["state", "name", "target_url", "description"];
            let body = fields(asked, &known, &["state"])?;
            let states = ["pending", "running", "success", "failed", "canceled"];
            status(held, &body, commit, ("state", &states), "name")
        }
        (ForgeKind::GitLab, "GET", ["projects", _, "merge_requests", number, "notes"]) => {
            page(kind, held, asked, number)
        }
        (ForgeKind::GitLab, "POST", ["projects", _, "merge_requests", number, "notes"]) => {
            let body = comment_body(asked, 1_000_000)?;
            create(held, number, body)
        }
        (ForgeKind::GitLab, "PUT", ["projects", _, "merge_requests", _, "notes", id]) => {
            let body = comment_body(asked, 1_000_000)?;
            update(held, id, body)
        }
        (
            ForgeKind::Bitbucket,
            "POST",
            ["repositories", _, _, "commit", commit, "statuses", "build"],
        ) => {
            let known = ["key", "name", "state", "description", "url"];
            let body = fields(asked, &known, &["key", "state", "url"])?;
            let states = ["SUCCESSFUL", "FAILED", "INPROGRESS", "STOPPED"];
            status(held, &body, commit, ("state", &states), "key")
        }
        (
            ForgeKind::Bitbucket,
            _,
            [
                "repositories",
                _,
                _,
                "pullrequests",
                number,
                "comments",
                rest @ ..,
            ],
        ) => match (method, rest) {
            ("GET", []) => page(kind, held, asked, number),
            ("POST", []) => create(held, number, raw(asked)?),
            ("PUT", [id]) => update(held, id, raw(asked)?),
            _ => Err("no such operation".to_owned()),
        },
        _ => Err("no such operation".to_owned()),
    }
}

fn proof(kind: ForgeKind, asked: &Asked) -> Result<(), String> {
    let header = |name: &str| asked.headers.get(name).map_or("", String::as_str);
    let (name, expected) = match kind {
        ForgeKind::GitHub | ForgeKind::Bitbucket => ("authorization", format!("Bearer {TOKEN}")),
        ForgeKind::GitLab => ("private-token", TOKEN.to_owned()),
        ForgeKind::Gitea => ("authorization", format!("token {TOKEN}")),
    };
    if header(name) != expected {
        return Err(format!("{name} is {:?}", header(name)));
    }
    if header("user-agent").is_empty() {
        return Err("GitHub refuses requests without a User-Agent".to_owned());
    }
    if kind == ForgeKind::GitHub && header("accept") != "application/vnd.github+json" {
        return Err(format!("accept is {:?}", header("accept")));
    }
    if asked.method != "GET" && header("content-type") != "application/json" {
        return Err(format!("content-type is {:?}", header("content-type")));
    }
    Ok(())
}

/// The body as a map of texts: nothing unknown, all that is required.
fn fields(asked: &Asked, known: &[&str], required: &[&str]) -> Result<Value, String> {
    let body: Value = serde_json::from_str(&asked.body).map_err(|error| error.to_string())?;
    let map = body.as_object().ok_or("the body is no map")?;
    for (name, value) in map {
        if !known.contains(&name.as_str()) || !value.is_string() {
            return Err(format!("{name} is unknown or no text"));
        }
    }
    if let Some(missing) = required.iter().find(|name| !map.contains_key(**name)) {
        return Err(format!("{missing} is missing"));
    }
    Ok(body)
}

fn status(
    held: &mut Held,
    body: &Value,
    commit: &str,
    (state, states): (&str, &[&str]),
    context: &str,
) -> Answer {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    if commit.len() != 40 || !states.contains(&text(state).as_str()) {
        return Err(format!("the state {} of {commit}", text(state)));
    }
    if text("description").chars().count() > 140 {
        return Err("the description is too long".to_owned());
    }
    held.statuses.push(Status {
        commit: commit.to_owned(),
        context: text(context),
        state: text(state),
        description: text("description"),
    });
    Ok((201, json!({ "id": 1, "state": text(state) })))
}

fn comment_body(asked: &Asked, max: usize) -> Result<String, String> {
    let body = fields(asked, &["body"], &["body"])?;
    let text = body["body"].as_str().unwrap_or_default();
    if text.is_empty() || text.chars().count() > max {
        return Err(format!("a comment of {} bytes", text.len()));
    }
    Ok(text.to_owned())
}

fn raw(asked: &Asked) -> Result<String, String> {
    let body: Value = serde_json::from_str(&asked.body).map_err(|error| error.to_string())?;
    let text = body["content"]["raw"].as_str();
    text.map(str::to_owned)
        .ok_or("content.raw is missing".to_owned())
}

fn page(kind: ForgeKind, held: &Held, asked: &Asked, number: &str) -> Answer {
    let number: u64 = number.parse().map_err(|_| "no number")?;
    let wanted = asked.query.get("page").and_then(|page| page.parse().ok());
    let wanted: usize = wanted.unwrap_or(1);
    let comments = held.comments.get(&number).into_iter().flatten();
    let page = comments.skip((wanted - 1) * PAGE).take(PAGE);
    let items: Vec<Value> = page
        .map(|(id, body)| match kind {
            ForgeKind::Bitbucket => json!({ "id": id, "content": { "raw": body } }),
            _ => json!({ "id": id, "body": body }),
        })
        .collect();
    Ok(match kind {
        ForgeKind::Bitbucket => (200, json!({ "values": items })),
        _ => (200, Value::Array(items)),
    })
}

fn create(held: &mut Held, number: &str, body: String) -> Answer {
    let number = number.parse().map_err(|_| "no number")?;
    held.next_id += 1;
    let id = held.next_id;
    held.comments.entry(number).or_default().push((id, body));
    Ok((201, json!({ "id": id })))
}

fn update(held: &mut Held, id: &str, body: String) -> Answer {
    let id: i64 = id.parse().map_err(|_| "no id")?;
    let comments = held.comments.values_mut().flatten();
    match comments.into_iter().find(|(known, _)| *known == id) {
        Some(found) => {
            found.1 = body;
            Ok((200, json!({ "id": id })))
        }
        None => Ok((404, json!({ "message": "Not Found" }))),
    }
}
