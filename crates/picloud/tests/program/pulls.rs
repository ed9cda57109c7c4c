//! Pull requests, from the event to what the reviewer reads.

use picloud_test_support::{
    TestRepository,
    fake_forge::{FakeForge, ForgeKind, TOKEN},
};
use serde_json::{Value, json};

use crate::{
    support::{Answer, Server, eventually},
    webhooks::sign,
};

const SECRET: &str = "the secret of the pull requests";
const MANIFEST: &str = "name: shop\nroutes:\n  - {path: /, script: scripts/a.rhai}\n  - {path: /old, script: scripts/a.rhai}\n\
    limits: {timeout: 5s}\ntriggers:\n  - {name: nightly, kind: cron, schedule: '30 4 * * *', timezone: Asia/Tokyo, script: scripts/a.rhai}\n";

struct World {
    remote: TestRepository,
    server: Server,
    forge: FakeForge,
    kind: ForgeKind,
    /// Where the pull request comes from.
    from: &'static str,
}

fn word(kind: ForgeKind) -> &'static str {
    match kind {
        ForgeKind::GitHub => "github",
        ForgeKind::GitLab => "gitlab",
        ForgeKind::Gitea => "forgejo",
        ForgeKind::Bitbucket => "bitbucket",
    }
}

impl World {
    fn start(kind: ForgeKind) -> Self {
        Self::start_with(kind, "octo/shop", "{}\n")
    }

    fn start_with(kind: ForgeKind, from: &'static str, settings: &str) -> Self {
        let (own, remote) = (TestRepository::new(), TestRepository::new());
        own.write("apps/near/app.yaml", "name: near\n");
        own.commit("feat: near");
        remote.write("picloud.yaml", settings);
        remote.write("app.yaml", MANIFEST);
        remote.write("scripts/a.rhai", "1");
        remote.commit("feat: a shop");
        let world = Self {
            server: Server::start(own.path()),
            forge: FakeForge::start(kind),
            remote,
            kind,
            from,
        };
        world.put();
        eventually("the shop", || world.server.get("/apps/shop/").status == 200);
        world
    }

    fn put(&self) {
        let body = json!({
            "kind": "remote", "url": self.remote.path(), "interval": "1h", "webhook_secret": SECRET,
            "forge": { "kind": word(self.kind), "api_url": self.forge.api_url(), "token": TOKEN },
        });
        let put = self
            .server
            .admin_request("PUT", "/sources/far", Some(&body));
        assert!(put.status < 300, "{put:?}");
        let shown = self.server.admin("/sources/far").to_string();
        assert!(!shown.contains(TOKEN) && !shown.contains(SECRET), "{shown}");
    }

    /// A commit on a branch that a pull request comes from, as the forge keeps it.
    fn commit(&self, manifest: &str) -> String {
        self.remote.git(&["checkout", "-qB", "topic"]);
        self.remote.write("app.yaml", manifest);
        let commit = self.remote.commit("feat: a topic");
        let reference = match self.kind {
            ForgeKind::GitLab => "refs/merge-requests/7/head",
            _ => "refs/pull/7/head",
        };
        if self.kind != ForgeKind::Bitbucket {
            self.remote.git(&["update-ref", reference, "HEAD"]);
        }
        self.remote.git(&["checkout", "-q", "main"]);
        commit
    }

    fn tell(&self, action: &str, head: &str) -> Answer {
        let (open, merged) = (!matches!(action, "closed" | "merged"), action == "merged");
        let (name, value, body) = match self.kind {
            ForgeKind::GitHub | ForgeKind::Gitea => {
                let header = if self.kind == ForgeKind::GitHub {
                    "X-GitHub-Event"
                } else {
                    "X-Forgejo-Event"
                };
                let repository = json!({ "full_name": "octo/shop" });
                let action = if merged { "closed" } else { action };
                let body = json!({ "action": action, "number": 7, "repository": repository,
                    "pull_request": { "number": 7, "merged": merged, "title": "A topic", "state": if open { "open" } else { "closed" },
                        "head": { "sha": head, "ref": "topic", "repo": { "full_name": self.from } },
                        "base": { "ref": "main", "repo": repository } } });
                (header, "pull_request", body)
            }
            ForgeKind::GitLab => {
                let body = json!({ "object_kind": "merge_request",
                    "project": { "id": 1, "path_with_namespace": "octo/group/shop" },
                    "object_attributes": { "iid": 7, "title": "A topic", "state": if open { "opened" } else { "closed" },
                        "action": action, "source_branch": "topic", "target_branch": "main",
                        "source_project_id": 1, "target_project_id": 1, "last_commit": { "id": head } } });
                ("X-Gitlab-Event", "Merge Request Hook", body)
            }
            ForgeKind::Bitbucket => {
                let repository = json!({ "full_name": "octo/shop" });
                let body = json!({ "repository": repository, "pullrequest": { "id": 7, "title": "A topic",
                    "state": if open { "OPEN" } else { "MERGED" },
                    "source": { "branch": { "name": "topic" }, "commit": { "hash": &head[..12] }, "repository": repository },
                    "destination": { "branch": { "name": "main" }, "repository": repository } } });
                ("X-Event-Key", "pullrequest:updated", body)
            }
        };
        let body = body.to_string();
        let signed = match self.kind {
            ForgeKind::GitHub => format!("X-Hub-Signature-256: sha256={}", sign(SECRET, &body)),
            ForgeKind::Gitea => format!("X-Forgejo-Signature: {}", sign(SECRET, &body)),
            ForgeKind::GitLab => format!("X-Gitlab-Token: {SECRET}"),
            ForgeKind::Bitbucket => format!("X-Hub-Signature: sha256={}", sign(SECRET, &body)),
        };
        let event = format!("{name}: {value}");
        self.server
            .request("POST", "/api/v1/hooks/far", &[&event, &signed], &body)
    }

    fn settled(&self) {
        assert_eq!(self.forge.violations(), Vec::<String>::new());
    }
}

fn outcome(answer: &Answer) -> Value {
    assert!(answer.status < 300, "{answer:?}");
    answer.json()["outcome"].clone()
}

const CHANGED: &str = "name: shop\nroutes:\n  - {path: /, script: scripts/a.rhai}\n  - {path: /new, script: scripts/a.rhai}\n\
    limits: {timeout: 9s}\npermissions: {http: {allow: [api.example.com]}}\n\
    triggers:\n  - {name: nightly, kind: cron, schedule: '15 5 * * *', timezone: Asia/Tokyo, script: scripts/a.rhai}\n";

#[test]
fn a_pull_request_is_planned_in_one_comment_that_is_kept_up_to_date() {
    let world = World::start(ForgeKind::GitHub);
    let others =
        (0..75).map(|nth| format!("comment {nth}: <!-- picloud:plan source=far digest=0 -->"));
    world.forge.write_comments(7, others);
    let head = world.commit(CHANGED);
    assert_eq!(outcome(&world.tell("opened", &head)), "planned");
    assert_eq!(
        world.forge.states(&head, "picloud/plan"),
        ["pending", "success"]
    );
    let comments = world.forge.comments(7);
    assert_eq!(comments.len(), 76);
    let plan = &comments[75];
    for part in [
        "`GET /new`",
        "`GET /old`",
        "timeout",
        "api.example.com",
        "T04:30:00+09:00",
        "T05:15:00+09:00",
    ] {
        assert!(plan.contains(part), "{part} in {plan}");
    }
    assert_eq!(plan.matches("T05:15:00+09:00").count(), 5, "{plan}");
    assert_eq!(plan.matches("T04:30:00+09:00").count(), 5, "{plan}");

    // What leaves the head as it was writes nothing.
    let writes = world.forge.writes();
    for action in ["edited", "labeled", "synchronize"] {
        assert_eq!(outcome(&world.tell(action, &head)), "unchanged");
    }
    assert_eq!(world.forge.writes(), writes);

    // Every error stands in the comment, and the status fails.
    let head =
        world.commit("name: shop\nroutez: []\nroutes:\n  - {path: /, script: scripts/gone.rhai}\n");
    assert_eq!(outcome(&world.tell("synchronize", &head)), "invalid");
    assert_eq!(
        world.forge.states(&head, "picloud/plan"),
        ["pending", "failure"]
    );
    let comments = world.forge.comments(7);
    assert_eq!(comments.len(), 76);
    assert!(
        comments[75].contains("app.yaml:2:1") && comments[75].contains("scripts/gone.rhai"),
        "{}",
        comments[75]
    );

    // A comment that somebody removed is written again; one that says the same isn't.
    world.forge.remove_comments(7);
    let head = world.commit(CHANGED);
    assert_eq!(outcome(&world.tell("synchronize", &head)), "planned");
    assert_eq!(world.forge.comments(7).len(), 1);
    let written = world.forge.comments(7);
    world.remote.git(&["checkout", "-q", "topic"]);
    world.remote.write("README.md", "Nothing that is deployed.");
    let head = world.remote.commit("docs: read me");
    world
        .remote
        .git(&["update-ref", "refs/pull/7/head", "HEAD"]);
    world.remote.git(&["checkout", "-q", "main"]);
    assert_eq!(outcome(&world.tell("synchronize", &head)), "planned");
    assert_eq!(
        world.forge.states(&head, "picloud/plan"),
        ["pending", "success"]
    );
    assert_eq!(world.forge.comments(7), written);
    let patched = world
        .forge
        .requests()
        .iter()
        .filter(|asked| asked.starts_with("PATCH"))
        .count();
    assert_eq!(
        patched, 2,
        "one for the errors, one that found the comment removed"
    );

    assert_eq!(outcome(&world.tell("closed", &head)), "closed");
    let live = world.remote.git(&["rev-parse", "main"]);
    world.remote.git(&["merge", "-q", "--ff-only", "topic"]);
    let body =
        json!({ "ref": "refs/heads/main", "repository": { "full_name": "octo/shop" } }).to_string();
    let signed = format!("X-Hub-Signature-256: sha256={}", sign(SECRET, &body));
    let told = world.server.request(
        "POST",
        "/api/v1/hooks/far",
        &["X-GitHub-Event: push", &signed],
        &body,
    );
    assert_eq!(outcome(&told), "deployed");
    eventually("the deployment's status", || {
        world.forge.states(&head, "picloud/deploy") == ["success"]
    });
    assert!(world.forge.states(&live, "picloud/deploy").len() <= 1);
    world.settled();
}

#[test]
fn each_forge_is_spoken_to_in_its_own_words() {
    for kind in [ForgeKind::GitLab, ForgeKind::Gitea, ForgeKind::Bitbucket] {
        let world = World::start(kind);
        let states = match kind {
            ForgeKind::Bitbucket => ["INPROGRESS", "SUCCESSFUL", "FAILED"],
            ForgeKind::GitLab => ["pending", "success", "failed"],
            _ => ["pending", "success", "failure"],
        };
        let head = world.commit(CHANGED);
        assert_eq!(outcome(&world.tell("open", &head)), "planned", "{kind:?}");
        assert_eq!(
            world.forge.states(&head, "picloud/plan"),
            states[..2],
            "{kind:?}"
        );
        assert_eq!(world.forge.comments(7).len(), 1);
        let writes = world.forge.writes();
        assert_eq!(
            outcome(&world.tell("update", &head)),
            "unchanged",
            "{kind:?}"
        );
        assert_eq!(world.forge.writes(), writes);
        let head = world.commit("name: shop\nroutez: []\n");
        assert_eq!(outcome(&world.tell("update", &head)), "invalid", "{kind:?}");
        assert_eq!(
            world.forge.states(&head, "picloud/plan"),
            [states[0], states[2]]
        );
        let comments = world.forge.comments(7);
        assert!(
            comments.len() == 1 && comments[0].contains("routez"),
            "{comments:?}"
        );
        assert_eq!(outcome(&world.tell("closed", &head)), "closed");
        world.settled();
    }
}

#[test]
fn limits_are_waited_for_and_what_was_told_is_known_after_a_restart() {
    let world = World::start(ForgeKind::GitHub);
    world
        .forge
        .write_comments(7, (0..40).map(|nth| format!("comment {nth}")));
    world.forge.refuse(429, "Retry-After: 1\r\n");
    world.forge.refuse(502, "");
    let head = world.commit(CHANGED);
    let told = world.tell("opened", &head);
    assert!(told.status < 300, "{told:?}");
    eventually("the plan", || {
        world.forge.states(&head, "picloud/plan") == ["pending", "success"]
    });
    assert_eq!(world.forge.comments(7).len(), 41);

    let World {
        remote,
        server,
        forge,
        kind,
        from,
    } = world;
    let own = TestRepository::new();
    own.write("apps/near/app.yaml", "name: near\n");
    own.commit("feat: near");
    let world = World {
        server: server.restart(own.path()),
        remote,
        forge,
        kind,
        from,
    };
    let writes = world.forge.writes();
    eventually("the source", || world.tell("edited", &head).status == 200);
    assert_eq!(outcome(&world.tell("edited", &head)), "unchanged");
    assert_eq!(world.forge.writes(), writes);
    // Another server, which knows nothing, finds the comment among the others.
    let other = World::start(ForgeKind::GitHub);
    let other = World {
        forge: world.forge,
        remote: world.remote,
        ..other
    };
    other.put();
    eventually("the source", || {
        matches!(
            outcome(&other.tell("edited", &head)).as_str(),
            Some("planned" | "unchanged")
        )
    });
    assert_eq!(other.forge.comments(7).len(), 41);
    let asked = other.forge.requests();
    assert!(
        !asked.iter().any(|asked| asked.starts_with("PATCH")),
        "{asked:?}"
    );
    other.settled();
}

#[test]
fn a_preview_is_in_the_comment_and_that_of_a_fork_waits_for_an_approval() {
    let settings = "previews: {enabled: true}\n";
    let world = World::start_with(ForgeKind::GitHub, "octo/shop", settings);
    let head = world.commit(MANIFEST);
    assert_eq!(outcome(&world.tell("opened", &head)), "planned");
    let comments = world.forge.comments(7);
    assert!(comments[0].contains("/apps/shop--topic/"), "{comments:?}");
    assert_eq!(world.server.get("/apps/shop--topic/").status, 200);

    let fork = World::start_with(ForgeKind::GitHub, "stranger/shop", settings);
    let head = fork.commit(CHANGED);
    fork.remote.git(&["branch", "-qD", "topic"]);
    assert_eq!(outcome(&fork.tell("opened", &head)), "planned");
    let comments = fork.forge.comments(7);
    assert!(
        comments[0].contains("picloud previews approve far pr-7"),
        "{comments:?}"
    );
    assert_eq!(fork.server.get("/apps/shop--pr-7/new").status, 404);
    let waiting = fork.server.admin("/sources/far/previews");
    assert_eq!(waiting["items"][0]["state"], "waiting", "{waiting}");
    fork.server
        .admin_post("/sources/far/previews/pr-7/approve", &json!({}));
    eventually("the fork's preview", || {
        fork.server.get("/apps/shop--pr-7/new").status == 200
    });
    eventually("its address", || {
        fork.forge.comments(7)[0].contains("/apps/shop--pr-7/")
    });
    // Another head is another decision.
    let next = fork.commit(&CHANGED.replace("9s", "8s"));
    fork.remote.git(&["branch", "-qD", "topic"]);
    assert_eq!(outcome(&fork.tell("synchronize", &next)), "planned");
    eventually("the preview's end", || {
        fork.server.get("/apps/shop--pr-7/new").status == 404
    });
    assert!(fork.forge.comments(7)[0].contains("waits for an approval"));
    fork.server
        .admin_post("/sources/far/previews/pr-7/approve", &json!({}));
    eventually("the preview again", || {
        fork.server.get("/apps/shop--pr-7/new").status == 200
    });
    assert_eq!(outcome(&fork.tell("closed", &next)), "closed");
    eventually("its end", || {
        fork.server.get("/apps/shop--pr-7/new").status == 404
    });
    assert_eq!(fork.server.get("/apps/shop/").status, 200);
    fork.settled();
}

#[test]
fn a_merged_plan_needs_no_other_word_and_open_ones_are_planned_anew() {
    let world = World::start(ForgeKind::GitHub);
    // It changes nothing that is live, so it is the last that goes by itself.
    world
        .remote
        .write("picloud.yaml", "sync: {require_reviewed: true}\n");
    world.remote.commit("chore: plans are reviewed");
    world
        .server
        .admin_request("POST", "/sources/far/sync?wait=true", None);
    let head = world.commit(CHANGED);
    assert_eq!(outcome(&world.tell("opened", &head)), "planned");
    let planned = world.forge.comments(7);

    // What the branch it goes to has meanwhile is in a new plan, in the same comment.
    world.remote.write("app.yaml", MANIFEST);
    world.remote.write("scripts/a.rhai", "2");
    world.remote.commit("feat: another script");
    world
        .server
        .admin_request("POST", "/sources/far/sync?wait=true", None);
    let held = world.server.admin("/deployments?source=far&limit=1")["items"][0].clone();
    assert_eq!(held["status"], "held", "{held}");
    let approve = format!(
        "/deployments/{}/approve",
        held["id"].as_str().expect("an id")
    );
    world.server.admin_request("POST", &approve, None);
    eventually("a plan against what is live now", || {
        let comments = world.forge.comments(7);
        comments.len() == 1 && comments != planned
    });

    // Merged as it was planned, it goes live by itself.
    world.remote.git(&["checkout", "-q", "topic"]);
    world.remote.git(&["rebase", "-q", "main"]);
    world
        .remote
        .git(&["update-ref", "refs/pull/7/head", "HEAD"]);
    let head = world.remote.git(&["rev-parse", "HEAD"]);
    world.remote.git(&["checkout", "-q", "main"]);
    assert_eq!(outcome(&world.tell("synchronize", &head)), "planned");
    world.remote.git(&["merge", "-q", "--ff-only", "topic"]);
    world
        .server
        .admin_request("POST", "/sources/far/sync?wait=true", None);
    let held = world.server.admin("/deployments?source=far&limit=1")["items"][0].clone();
    assert_eq!(
        (&held["status"], &held["commit"]),
        (&json!("held"), &json!(head)),
        "{held}"
    );
    assert_eq!(outcome(&world.tell("closed", &head)), "closed");
    let live =
        || world.server.admin("/deployments?source=far&limit=1")["items"][0]["status"].clone();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(live(), "held", "closed is not merged");
    assert_eq!(outcome(&world.tell("merged", &head)), "closed");
    eventually("the plan that was reviewed", || live() == "synced");
    eventually("it to be served", || {
        world.server.get("/apps/shop/new").status == 200
    });
    world.settled();
}
