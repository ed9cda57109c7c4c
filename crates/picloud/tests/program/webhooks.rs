//! What forges tell the server, and what becomes of it.

use hmac::{Hmac, KeyInit, Mac};
use picloud_test_support::{TestRepository, published};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    drift::Hand,
    support::{Answer, Server, eventually},
};

const SECRET: &str = "a secret of the webhook";

pub(crate) fn sign(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(body.as_bytes());
    let bytes = mac.finalize().into_bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(repository: &TestRepository, word: &str) -> String {
    repository.write(
        "app.yaml",
        "name: far\nroutes:\n  - {path: /, script: scripts/a.rhai}\n",
    );
    repository.write("scripts/a.rhai", &format!("\"{word}\""));
    repository.commit(word)
}

/// A server with a remote source that is fetched once an hour: what comes sooner was told.
fn start(extra: &Value) -> (Server, TestRepository) {
    let (own, remote) = (TestRepository::new(), TestRepository::new());
    own.write("apps/near/app.yaml", "name: near\n");
    own.commit("feat: near");
    write(&remote, "one");
    let server = Server::start(own.path());
    let mut body = json!({
        "kind": "remote", "url": remote.path(), "interval": "1h", "webhook_secret": SECRET,
    });
    for (key, value) in extra.as_object().expect("a map") {
        body[key] = value.clone();
    }
    let put = server.admin_request("PUT", "/sources/far", Some(&body));
    assert_eq!(put.status, 201, "{put:?}");
    eventually("the first fetch", || {
        server.get("/apps/far/").text() == "one"
    });
    (server, remote)
}

fn push(reference: &str) -> String {
    json!({ "ref": reference, "repository": { "full_name": "octo/far" } }).to_string()
}

fn deliver(server: &Server, headers: &[&str], body: &str) -> Answer {
    server.request("POST", "/api/v1/hooks/far", headers, body)
}

fn github(server: &Server, event: &str, id: &str, body: &str) -> Answer {
    let headers = [
        format!("X-GitHub-Event: {event}"),
        format!("X-GitHub-Delivery: {id}"),
        format!("X-Hub-Signature-256: sha256={}", sign(SECRET, body)),
    ];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    deliver(server, &headers, body)
}

fn deployments(server: &Server) -> usize {
    let listed = server.admin("/deployments?source=far");
    let items = listed["items"].as_array().expect("items");
    items.iter().filter(|item| item["source"] == "far").count()
}

#[test]
fn a_push_is_live_when_its_delivery_is_answered_and_a_delivery_counts_once() {
    let (server, remote) = start(&json!({}));
    let main = push("refs/heads/main");
    let commit = write(&remote, "two");
    let told = github(&server, "push", "1", &main);
    assert_eq!(
        (told.status, &told.json()["outcome"]),
        (200, &json!("deployed"))
    );
    assert_eq!(told.json()["commit"], json!(commit));
    assert_eq!(told.json()["deployment"]["status"], "synced");
    assert_eq!(server.get("/apps/far/").text(), "two");

    // The same delivery again is answered as it was, and nothing is fetched.
    write(&remote, "three");
    let again = github(&server, "push", "1", &main);
    assert_eq!((again.status, again.text()), (200, told.text()));
    assert_eq!(server.get("/apps/far/").text(), "two");

    let ping = github(&server, "ping", "2", "{\"zen\": \"\"}");
    assert_eq!(
        (ping.status, &ping.json()["outcome"]),
        (200, &json!("pong"))
    );
    for (id, reference) in [("3", "refs/heads/other"), ("4", "refs/tags/main")] {
        let told = github(&server, "push", id, &push(reference));
        assert_eq!(
            (told.status, &told.json()["outcome"]),
            (202, &json!("ignored"))
        );
    }
    assert_eq!(server.get("/apps/far/").text(), "two");
    let told = github(&server, "push", "5", &main);
    assert_eq!(told.json()["outcome"], "deployed");
    assert_eq!(server.get("/apps/far/").text(), "three");
    let told = github(&server, "push", "6", &main);
    assert_eq!(
        (told.status, &told.json()["outcome"]),
        (200, &json!("unchanged"))
    );

    // An invalid commit is told where the forge's people look.
    remote.write("app.yaml", "name: far\nroutez: []\n");
    remote.commit("fix: a mistake");
    let told = github(&server, "push", "7", &main);
    assert_eq!(told.json()["outcome"], "failed");
    assert!(
        told.json()["deployment"]["errors"][0]
            .as_str()
            .expect("an error")
            .contains("app.yaml:2:1")
    );
    assert_eq!(server.get("/apps/far/").text(), "three");
}

#[test]
fn what_is_not_signed_right_is_refused_and_forgotten() {
    let (server, remote) = start(&json!({}));
    let body = push("refs/heads/main");
    write(&remote, "two");
    let hex = sign(SECRET, &body);
    let flipped: String = format!(
        "{}{}",
        if hex.starts_with('0') { '1' } else { '0' },
        &hex[1..]
    );
    let families = [
        ("X-GitHub-Event: push", "X-Hub-Signature-256: sha256="),
        ("X-Gitea-Event: push", "X-Gitea-Signature: "),
        ("X-Forgejo-Event: push", "X-Forgejo-Signature: "),
        ("X-Event-Key: repo:push", "X-Hub-Signature: sha256="),
    ];
    let id = "X-GitHub-Delivery: the-same";
    for (event, header) in families {
        for headers in [
            vec![event, id],
            vec![event, id, &format!("{header}{flipped}")],
        ] {
            let refused = deliver(&server, &headers, &body);
            assert_eq!(refused.status, 401, "{headers:?}");
            assert_eq!(refused.json()["code"], "unauthorized");
        }
    }
    let token = [
        "X-Gitlab-Event: Push Hook",
        "X-Gitlab-Token: a secret of the webhooj",
    ];
    assert_eq!(deliver(&server, &token, &body).status, 401);
    assert_eq!(server.get("/apps/far/").text(), "one");
    // The id was not remembered with the refusal.
    let right = format!("X-Hub-Signature-256: sha256={hex}");
    let told = deliver(&server, &["X-GitHub-Event: push", id, &right], &body);
    assert_eq!(
        (told.status, &told.json()["outcome"]),
        (200, &json!("deployed"))
    );
    assert_eq!(server.get("/apps/far/").text(), "two");
    // Right signatures of the others.
    let token = format!("X-Gitlab-Token: {SECRET}");
    let gitlab = json!({ "object_kind": "push", "ref": "refs/heads/main" }).to_string();
    write(&remote, "three");
    let told = deliver(&server, &["X-Gitlab-Event: Push Hook", &token], &gitlab);
    assert_eq!(told.status, 200);
    assert_eq!(server.get("/apps/far/").text(), "three");
    let broken = "{\"ref\":";
    let right = format!("X-Hub-Signature-256: sha256={}", sign(SECRET, broken));
    assert_eq!(
        deliver(&server, &["X-GitHub-Event: push", &right], broken).status,
        422
    );
    // A stranger doesn't learn which sources there are.
    let unknown = server.request("POST", "/api/v1/hooks/unknown", &[&right], broken);
    assert_eq!(unknown.status, 401);
    let large = deliver(&server, &[&right], &" ".repeat(26 << 20));
    assert_eq!(
        (large.status, &large.json()["code"]),
        (413, &json!("too_large"))
    );
}

#[test]
fn a_key_asks_for_a_look_without_a_secret_or_a_body() {
    let (server, remote) = start(&json!({ "webhook_secret": null }));
    let made = server.admin_request(
        "POST",
        "/keys",
        Some(&json!({ "name": "ci", "scopes": ["sync:write"] })),
    );
    let key = format!(
        "Authorization: Bearer {}",
        made.json()["key"].as_str().expect("a key")
    );
    let made = server.admin_request(
        "POST",
        "/keys",
        Some(&json!({ "name": "reader", "scopes": ["app:read"] })),
    );
    let reader = format!(
        "Authorization: Bearer {}",
        made.json()["key"].as_str().expect("a key")
    );
    write(&remote, "two");
    let body = push("refs/heads/main");
    let signed = format!("X-Hub-Signature-256: sha256={}", sign("", &body));
    for headers in [
        vec![],
        vec!["X-GitHub-Event: push", &signed],
        vec!["Authorization: Bearer pic_x"],
    ] {
        assert_eq!(deliver(&server, &headers, &body).status, 401, "{headers:?}");
    }
    assert_eq!(deliver(&server, &[&reader], "").status, 403);
    let told = deliver(&server, &[&key], "");
    assert_eq!(
        (told.status, &told.json()["outcome"]),
        (200, &json!("deployed"))
    );
    assert_eq!(server.get("/apps/far/").text(), "two");
    let unknown = server.request("POST", "/api/v1/hooks/unknown", &[&key], "");
    assert_eq!(unknown.status, 404);
}

#[test]
fn a_burst_is_deployed_as_its_newest_commit_and_a_replaced_secret_overlaps() {
    let (server, remote) = start(&json!({}));
    let before = deployments(&server);
    let mut head = String::new();
    for nth in 0..20 {
        head = write(&remote, &format!("n{nth}"));
    }
    let body = push("refs/heads/main");
    std::thread::scope(|scope| {
        for nth in 0..20 {
            let (server, body) = (&server, &body);
            scope.spawn(move || {
                let told = github(server, "push", &format!("burst-{}", nth / 2), body);
                assert!(told.status < 300, "{told:?}");
            });
        }
    });
    assert_eq!(
        server.get("/apps/far/").header("x-picloud-commit"),
        Some(head.as_str())
    );
    assert_eq!(deployments(&server), before + 1);

    let replaced = json!({
        "kind": "remote", "url": remote.path(), "interval": "1h",
        "webhook_secret": "the next", "previous_webhook_secret": SECRET,
    });
    server.admin_request("PUT", "/sources/far", Some(&replaced));
    let shown = server.admin("/sources/far").to_string();
    assert!(
        !shown.contains(SECRET) && !shown.contains("the next"),
        "{shown}"
    );
    assert_eq!(github(&server, "push", "old", &body).status, 200);
    let next = format!("X-Hub-Signature-256: sha256={}", sign("the next", &body));
    assert_eq!(
        deliver(&server, &["X-GitHub-Event: push", &next], &body).status,
        200
    );
    let mut alone = replaced;
    alone["previous_webhook_secret"] = Value::Null;
    server.admin_request("PUT", "/sources/far", Some(&alone));
    assert_eq!(github(&server, "push", "older", &body).status, 401);
}

#[test]
fn deliveries_as_github_publishes_them_are_understood_and_one_flipped_bit_is_none() {
    // The branch that is pushed to in them.
    let (server, remote) = start(&json!({}));
    remote.git(&["branch", "-m", "master"]);
    let body = json!({
        "kind": "remote", "url": remote.path(), "interval": "1h", "webhook_secret": SECRET,
        "branch": "master",
    });
    let put = server.admin_request("PUT", "/sources/far", Some(&body));
    assert_eq!(put.status, 200, "{put:?}");
    let mut seen = std::collections::BTreeSet::new();
    for (nth, (event, body)) in published::webhooks().into_iter().enumerate() {
        let body = body.to_string();
        let told = github(&server, &event, &format!("published {nth}"), &body);
        let outcome = told.json()["outcome"].as_str().map(str::to_owned);
        let outcome = outcome.unwrap_or_else(|| panic!("{event}: {told:?}"));
        assert!(told.status < 300, "{event}: {told:?}");
        seen.insert(format!("{event} {outcome}"));

        let mut wrong = sign(SECRET, &body).into_bytes();
        wrong[nth % 64] ^= 1;
        let wrong = String::from_utf8_lossy(&wrong).into_owned();
        let headers = [
            format!("X-GitHub-Event: {event}"),
            format!("X-GitHub-Delivery: flipped {nth}"),
            format!("X-Hub-Signature-256: sha256={wrong}"),
        ];
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        assert_eq!(deliver(&server, &headers, &body).status, 401, "{event}");
    }
    // Tags are ignored, the branch is looked at, and pull requests are taken up.
    for expected in ["ping pong", "push ignored", "push unchanged"] {
        assert!(seen.contains(expected), "{expected}: {seen:?}");
    }
    assert!(
        seen.iter().any(|told| told.starts_with("pull_request ")),
        "{seen:?}"
    );
}

#[test]
fn what_is_kept_of_a_source_is_sealed_also_what_was_kept_in_clear_before() {
    const TOKEN: &str = "a token that nobody may read";
    let forge = json!({ "kind": "github", "api_url": "http://127.0.0.1:9", "token": TOKEN });
    let (server, _remote) =
        start(&json!({ "forge": forge, "previous_webhook_secret": "the one before" }));
    let kept = "SELECT encode(webhook_secret, 'escape'), encode(previous_webhook_secret, 'escape'), forge ->> 'token' FROM sources WHERE name = 'far'";
    let are_sealed = |row: &Vec<String>| {
        row.iter()
            .all(|text| text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"))
    };
    let mut hand = Hand::on(&server);
    assert!(are_sealed(&hand.rows(kept)[0]), "{:?}", hand.rows(kept));
    let ping = github(&server, "ping", "1", "{}");
    assert_eq!(ping.json()["outcome"], "pong", "{ping:?}");

    // As an older version left it.
    hand.run(&format!("UPDATE sources SET webhook_secret = '{SECRET}', forge = jsonb_set(forge, '{{token}}', to_jsonb('{TOKEN}'::text)) WHERE name = 'far'")).expect("done");
    drop(hand);
    let own = TestRepository::new();
    own.write("apps/near/app.yaml", "name: near\n");
    own.commit("feat: near");
    let server = server.restart(own.path());
    let mut hand = Hand::on(&server);
    assert!(are_sealed(&hand.rows(kept)[0]), "{:?}", hand.rows(kept));
    let ping = github(&server, "ping", "2", "{}");
    assert_eq!(ping.json()["outcome"], "pong", "{ping:?}");
}

#[test]
fn a_tag_is_deployed_and_followed_when_it_is_moved() {
    let (server, remote) = start(&json!({}));
    remote.git(&["tag", "-a", "-m", "stable", "stable"]);
    let source = json!({
        "kind": "remote", "url": remote.path(), "interval": "1h", "webhook_secret": SECRET,
        "branch": "refs/tags/stable",
    });
    let put = server.admin_request("PUT", "/sources/far", Some(&source));
    assert_eq!(put.status, 200, "{put:?}");
    // A commit of the branch is none of the tag.
    let commit = write(&remote, "two");
    let told = github(&server, "push", "1", &push("refs/heads/main"));
    assert_eq!(told.json()["outcome"], "ignored", "{told:?}");
    server.admin_request("POST", "/sources/far/sync?wait=true", None);
    assert_eq!(server.get("/apps/far/").text(), "one");
    remote.git(&["tag", "-f", "-a", "-m", "stable", "stable"]);
    let told = github(&server, "push", "2", &push("refs/tags/stable"));
    assert_eq!(told.json()["commit"], json!(commit), "{told:?}");
    eventually("the tag", || server.get("/apps/far/").text() == "two");
    let hosted = json!({ "kind": "hosted", "branch": "refs/tags/stable" });
    let put = server.admin_request("PUT", "/sources/own", Some(&hosted));
    assert_eq!(put.status, 422, "{put:?}");
}
