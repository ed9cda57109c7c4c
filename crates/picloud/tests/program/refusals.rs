//! What is refused before it was read is told all the same: a client that sends all of a request
//! before it looks for an answer finds one.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use picloud_test_support::TestRepository;

use crate::support::Server;

/// The status of what comes back, after everything was sent.
fn status(server: &Server, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    let time = Some(Duration::from_secs(20));
    stream.set_read_timeout(time).expect("a time");
    stream.set_write_timeout(time).expect("a time");
    for part in request.chunks(16 << 10) {
        if let Err(error) = stream.write_all(part) {
            return format!("not all could be sent: {error}");
        }
    }
    let mut answer = Vec::new();
    loop {
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return format!("reading: {error}"),
        }
        // A kept connection stays open: the head is enough.
        if answer.windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    let line = String::from_utf8_lossy(&answer);
    line.split(' ').nth(1).unwrap_or("nothing").to_owned()
}

fn request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut all = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes();
    all.extend_from_slice(body);
    all
}

#[test]
fn a_refusal_reaches_a_client_that_sends_all_of_its_request_first() {
    let repository = TestRepository::new();
    repository.write(
        "app.yaml",
        "name: app\nlimits: {request_body: 1KiB}\nroutes:\n  - {path: /post, methods: [POST], script: scripts/a.rhai}\n  \
         - {path: /key, methods: [POST], script: scripts/a.rhai, auth: key}\n",
    );
    repository.write("scripts/a.rhai", "ctx.request.body.len()");
    repository.commit("feat: an app");
    let server = Server::start(repository.path());
    let large = vec![b'x'; 3 << 20];
    let length = format!("Content-Length: {}\r\n", large.len());
    let chunked = |chunks: usize| {
        let mut body = Vec::new();
        for _ in 0..chunks {
            body.extend_from_slice(b"200\r\n");
            body.extend_from_slice(&[b'x'; 512]);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        request(
            "POST /apps/app/post",
            "Transfer-Encoding: chunked\r\n",
            &body,
        )
    };
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "x".repeat(70_000));
    let cases = [
        (chunked(2), "200"),
        (chunked(4), "413"),
        (chunked(4_000), "413"),
        (request("POST /apps/app/post", &length, &large), "413"),
        (request("POST /apps/app/none", &length, &large), "404"),
        (request("PUT /apps/app/post", &length, &large), "405"),
        (request("POST /apps/app/key", &length, &large), "401"),
        (request("POST /api/v1/admin/keys", &length, &large), "401"),
        (request("GET /apps/app/none", &many, b""), "431"),
        (request("GET /apps/app/none", &long, b""), "431"),
        (b"rubbish\r\n\r\n".to_vec(), "400"),
    ];
    for round in 0..3 {
        for (number, (request, expected)) in cases.iter().enumerate() {
            assert_eq!(status(&server, request), *expected, "{number} of {round}");
        }
    }
}
