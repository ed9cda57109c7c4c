//! A server that scripts ask: it says what it was sent, and misbehaves where it is told to.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use serde_json::json;

/// A listener on loopback, for as long as the test runs.
pub(crate) struct Upstream(SocketAddr);

struct Asked {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve(stream));
            }
        });
        Self(address)
    }

    /// Host and port.
    pub(crate) fn address(&self) -> String {
        self.0.to_string()
    }
}

fn serve(stream: TcpStream) {
    // A client that went away is no failure of the test.
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    if let Some(asked) = read(&stream) {
        answer(stream, &asked);
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        let name = name.to_ascii_lowercase();
        if name == "content-length" {
            length = value.parse().ok()?;
        }
        headers.push((name, value.to_owned()));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Asked {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body,
    })
}

fn send(mut stream: TcpStream, head: &str, body: &[u8]) {
    let length = body.len();
    let head = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    // Whoever was told enough may hang up.
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body));
}

fn packed(how: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match how {
        "gzip" => {
            let mut packer = flate2::write::GzEncoder::new(&mut out, flate2::Compression::best());
            packer.write_all(bytes).expect("packed");
            packer.finish().expect("packed");
        }
        "deflate" => {
            let mut packer = flate2::write::ZlibEncoder::new(&mut out, flate2::Compression::best());
            packer.write_all(bytes).expect("packed");
            packer.finish().expect("packed");
        }
        "br" => {
            let mut packer = brotli::CompressorWriter::new(&mut out, 4096, 5, 22);
            packer.write_all(bytes).expect("packed");
        }
        _ => out.extend_from_slice(bytes),
    }
    out
}

fn answer(mut stream: TcpStream, asked: &Asked) {
    let parts: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["echo", ..] => {
            let headers: serde_json::Map<_, _> = asked
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect();
            let told = json!({
                "method": asked.method, "path": asked.path, "query": asked.query, "headers": headers,
                "body": String::from_utf8_lossy(&asked.body),
            });
            let body = if asked.method == "HEAD" {
                String::new()
            } else {
                told.to_string()
            };
            send(
                stream,
                "200 OK\r\ncontent-type: application/json\r\nX-Two: a\r\nx-two: b",
                body.as_bytes(),
            );
        }
        ["status", code] => send(stream, &format!("{code} Said"), b"said"),
        // Sends on to the query.
        ["redirect", code] => {
            send(
                stream,
                &format!("{code} On\r\nlocation: {}", asked.query),
                b"on",
            );
        }
        ["endless"] => send(stream, "302 On\r\nlocation: /endless", b""),
        ["kind", kind @ ..] => {
            let head = format!("200 OK\r\ncontent-type: {}", kind.join("/"));
            send(stream, &head, &asked.body);
        }
        ["packed", how] => {
            let head = format!("200 OK\r\ncontent-type: text/plain\r\ncontent-encoding: {how}");
            send(stream, &head, &packed(how, b"unpacked"));
        }
        // 64 MiB of zeros.
        ["bomb", how] => {
            let head = format!("200 OK\r\ncontent-type: text/plain\r\ncontent-encoding: {how}");
            send(stream, &head, &packed(how, &vec![0; 64 << 20]));
        }
        ["broken"] => send(stream, "200 OK\r\ncontent-encoding: gzip", b"no gzip"),
        ["bytes", count] => send(stream, "200 OK", &vec![b'x'; count.parse().unwrap_or(0)]),
        ["latin"] => send(
            stream,
            "200 OK\r\ncontent-type: text/plain; charset=iso-8859-1",
            b"caf\xe9",
        ),
        ["binary"] => send(stream, "200 OK\r\ncontent-type: image/png", b"\x89PNG\xff"),
        // No head, ever.
        ["silent"] => std::thread::sleep(Duration::from_secs(8)),
        // A head, half a body, and no more.
        ["stalled"] => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
            std::thread::sleep(Duration::from_secs(8));
        }
        ["cut"] => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        }
        ["rubbish"] => {
            let _ = stream.write_all(b"this is not HTTP\r\n\r\n");
        }
        _ => send(stream, "404 Not Found", b"none"),
    }
}
