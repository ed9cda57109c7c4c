//! Static files and metrics, as their clients see them.

use picloud_test_support::TestRepository;

use crate::support::Server;

#[test]
fn files_are_sent_as_their_clients_take_them() {
    let repository = TestRepository::new();
    repository.write("app.yaml", "name: app\nstatic: public\n");
    let text = "body { color: black; }\n".repeat(100);
    repository.write("public/style.css", &text);
    repository.write("public/ready.js", "let plain = true;");
    repository.write("public/ready.js.br", "compressed beforehand");
    repository.write("public/index.html", "<p>index</p>");
    repository.commit("feat: files");
    let server = Server::start(repository.path());
    let get = |path: &str, headers: &[&str]| {
        server.request("GET", &format!("/apps/app/{path}"), headers, "")
    };
    let plain = get("style.css", &[]);
    assert_eq!((plain.status, plain.text()), (200, text.clone()));
    assert_eq!(plain.header("content-encoding"), None);
    assert_eq!(plain.header("vary"), Some("accept-encoding"));
    let mut etags = vec![plain.header("etag").map(str::to_owned)];
    for coding in ["gzip", "br"] {
        let wish = format!("Accept-Encoding: {coding}");
        let packed = get("style.css", &[&wish]);
        assert_eq!(packed.header("content-encoding"), Some(coding));
        let length = packed.header("content-length").map(str::parse::<usize>);
        assert!(matches!(length, Some(Ok(1..=400))), "{coding}: {length:?}");
        let etag = packed.header("etag").expect("a tag").to_owned();
        let again = get("style.css", &[&wish, &format!("If-None-Match: {etag}")]);
        assert_eq!((again.status, again.text().as_str()), (304, ""));
        etags.push(Some(etag));
    }
    etags.sort();
    etags.dedup();
    assert_eq!(etags.len(), 3, "each form has a tag of its own: {etags:?}");

    let ready = get("ready.js", &["Accept-Encoding: gzip, br"]);
    assert_eq!(ready.header("content-encoding"), Some("br"));
    assert_eq!(ready.text(), "compressed beforehand");
    assert!(
        ready
            .header("content-type")
            .expect("a type")
            .starts_with("text/javascript")
    );
    assert_eq!(
        get("ready.js", &["Accept-Encoding: gzip"]).text(),
        "let plain = true;"
    );

    let part = get("style.css", &["Range: bytes=0-3", "Accept-Encoding: gzip"]);
    assert_eq!((part.status, part.text().as_str()), (206, "body"));
    let total = format!("bytes 0-3/{}", text.len());
    assert_eq!(part.header("content-range"), Some(total.as_str()));
    let head = server.request("HEAD", "/apps/app/style.css", &["Range: bytes=0-3"], "");
    assert_eq!(head.status, 200, "ranges are for GET alone");
    let beyond = get("style.css", &["Range: bytes=99999-"]);
    assert_eq!(beyond.status, 416);
    assert_eq!(get("", &[]).text(), "<p>index</p>");

    let metrics = server.get("/metrics").text();
    for line in [
        "picloud_http_requests_total{code=\"416\"} 1",
        "picloud_deployments_total{status=\"synced\"} 1",
        "picloud_outbox_events{state=\"waiting\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} in:\n{metrics}");
    }
}
