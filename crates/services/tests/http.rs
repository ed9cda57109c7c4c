//! Outgoing requests against listeners of the test's own: who is reached, with what, and who is not.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use picloud_services::{
    AddressGuard, HttpServiceImpl,
    http::{HttpTimes, LookupFuture, NameLookup},
};
use picloud_shared::{
    AppId, AppSnapshot, AppSpec, Principal, RunId, SourceId,
    sdk::{HttpAnswer, HttpCall, HttpService, SdkCallCx, SdkErrorCode, SdkResult},
};

/// Gives the next of its answers each time, and the last one for ever.
#[derive(Default)]
struct Answers {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl NameLookup for Answers {
    fn lookup(&self, _: String) -> LookupFuture {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.get(asked).or(self.answers.last()).cloned();
        Box::pin(std::future::ready(Ok(answer.unwrap_or_default())))
    }
}

/// A listener that remembers what it was sent, and answers with what it is told to.
struct Listener {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Listener {
    fn new(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        Self::at("127.0.0.1:0", answer)
    }

    fn at(address: &str, answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let limit = Some(Duration::from_millis(500));
                stream.set_read_timeout(limit).expect("a time limit");
                let mut request = Vec::new();
                let mut part = [0; 4096];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut part) {
                        Ok(read) if read > 0 => request.extend_from_slice(&part[..read]),
                        _ => break,
                    }
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                let answer = answer(&text);
                kept.lock().expect("a lock").push(text);
                // Who was told enough may hang up.
                let _ = stream.write_all(&answer);
            }
        });
        Self { address, requests }
    }

    fn seen(&self) -> Vec<String> {
        self.requests.lock().expect("a lock").clone()
    }
}

fn reply(head: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut all =
        format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
            .into_bytes();
    all.extend_from_slice(body);
    all
}

fn caller(allow: Option<&[&str]>) -> SdkCallCx {
    let mut spec = AppSpec::empty("shop".parse().expect("a name"), "apps/shop");
    spec.http_allow = allow.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    SdkCallCx {
        app: Arc::new(AppSnapshot {
            id: AppId::default(),
            source: SourceId::default(),
            generation: 1,
            pinned_commit: None,
            spec: Arc::new(spec),
            scripts: BTreeMap::new(),
        }),
        script: "scripts/a.rhai".parse().expect("a path"),
        run: RunId::default(),
        principal: Principal::App,
        deadline: Instant::now() + Duration::from_secs(20),
        commit: "0".repeat(40).parse().expect("an id"),
        chain: Vec::new(),
        trigger: None,
    }
}

fn get(url: &str) -> HttpCall {
    HttpCall {
        method: "GET".to_owned(),
        url: url.to_owned(),
        query: Vec::new(),
        headers: Vec::new(),
        body: None,
        timeout_ms: Some(10_000),
        max_body: 1 << 20,
        follow_redirects: 5,
    }
}

fn service(allow_private: bool, answers: Vec<Vec<IpAddr>>) -> (HttpServiceImpl, Arc<Answers>) {
    let answers = Arc::new(Answers {
        answers,
        asked: AtomicUsize::new(0),
    });
    let guard = AddressGuard { allow_private };
    let service = HttpServiceImpl::new(guard, Arc::clone(&answers) as _, "1.2.3");
    (service, answers)
}

/// A request as a script's thread sends it.
fn send(service: HttpServiceImpl, cx: SdkCallCx, call: HttpCall) -> SdkResult<HttpAnswer> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let sent = tokio::spawn(async move { service.request(&cx, call) });
        sent.await.expect("an outcome")
    })
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1));

#[test]
fn no_spelling_and_no_answer_of_a_resolver_reaches_a_canary() {
    let canary = Listener::new(|_| reply("200 OK", b"reached"));
    let port = canary.address.port();
    let spellings = [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0x7f.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "１２７.0.0.1",
        "127。0。0。1",
        "%31%32%37.0.0.1",
        "127.0.0.1.",
        "localhost",
        "LOCALHOST.",
        "user@127.0.0.1",
    ];
    for host in spellings {
        let (service, _) = service(false, vec![vec![LOOPBACK]]);
        let error = send(
            service,
            caller(None),
            get(&format!("http://{host}:{port}/")),
        );
        let error = error.expect_err(host);
        assert_eq!(error.code, SdkErrorCode::Blocked, "{host}: {error}");
        assert!(!error.message.contains("127.0.0.1"), "{host}: {error}");
    }
    // One bad answer among good ones; and one that comes only when it is asked again.
    for answers in [
        vec![vec![PUBLIC, LOOPBACK]],
        vec![vec![LOOPBACK], vec![PUBLIC]],
    ] {
        let (service, asked) = service(false, answers);
        let error = send(
            service,
            caller(None),
            get(&format!("http://a.example:{port}/")),
        );
        let error = error.expect_err("refused");
        assert_eq!(error.message, "blocked: loopback (127.0.0.0/8)");
        assert_eq!(
            asked.asked.load(Ordering::SeqCst),
            1,
            "asked once, believed once"
        );
    }
    assert_eq!(canary.seen(), Vec::<String>::new());
}

#[test]
fn each_hop_of_a_redirect_is_checked_and_credentials_stay_behind() {
    let target = Listener::new(|_| reply("200 OK", b"there"));
    let to = format!("http://127.0.0.1:{}/next", target.address.port());
    let hop = |status: &'static str, to: String| {
        Listener::new(move |_| reply(&format!("{status}\r\nLocation: {to}"), b""))
    };
    let first = hop("302 Found", to.clone());
    let mut call = get(&format!("http://127.0.0.1:{}/", first.address.port()));
    call.method = "POST".to_owned();
    call.body = Some(("{}".into(), "application/json"));
    for name in ["Authorization", "Cookie", "X-Own"] {
        call.headers.push((name.to_owned(), "canary".to_owned()));
    }
    let answer = send(service(true, Vec::new()).0, caller(None), call.clone());
    assert_eq!(answer.expect("an answer").body.as_ref(), b"there");
    let sent = first.seen().remove(0).to_ascii_lowercase();
    assert!(
        sent.starts_with("post / ") && sent.contains("authorization: canary"),
        "{sent}"
    );
    assert!(
        sent.contains("user-agent: picloud/1.2.3 (shop/scripts/a.rhai)"),
        "{sent}"
    );
    let next = target.seen().remove(0).to_ascii_lowercase();
    assert!(
        next.starts_with("get /next ") && next.contains("x-own: canary"),
        "{next}"
    );
    for gone in ["authorization", "cookie", "content-type"] {
        assert!(!next.contains(gone), "{gone} in {next}");
    }
    // 307 repeats the method.
    let again = hop("307 Temporary Redirect", to);
    call.url = format!("http://127.0.0.1:{}/", again.address.port());
    send(service(true, Vec::new()).0, caller(None), call).expect("an answer");
    assert!(target.seen()[1].starts_with("POST /next "));
    for bad in [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http://127.0.0.1:22/",
        "http://u:p@127.0.0.1/",
        "//other.example/",
    ] {
        let hop = hop("301 Moved Permanently", bad.to_owned());
        let url = format!("http://127.0.0.1:{}/", hop.address.port());
        let allowed = caller(Some(&["127.0.0.1"]));
        let error = send(service(true, Vec::new()).0, allowed, get(&url)).expect_err(bad);
        assert_eq!(error.code, SdkErrorCode::Blocked, "{bad}: {error}");
    }
    let endless = Listener::new(|_| reply("302 Found\r\nLocation: /", b""));
    let url = format!("http://127.0.0.1:{}/", endless.address.port());
    assert!(send(service(true, Vec::new()).0, caller(None), get(&url)).is_err());
    assert_eq!(endless.seen().len(), 6);
}

#[test]
fn bodies_are_cut_off_as_they_are_unpacked_and_no_header_can_be_smuggled() {
    // 64 MiB of zeros in 64 KiB, by gzip.
    let bomb = {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..64 {
            packer.write_all(&vec![0; 1 << 20]).expect("packed");
        }
        packer.finish().expect("packed")
    };
    let listener = Listener::new(move |_| reply("200 OK\r\nContent-Encoding: gzip", &bomb));
    let url = format!("http://127.0.0.1:{}/", listener.address.port());
    let error = send(service(true, Vec::new()).0, caller(None), get(&url));
    assert_eq!(error.expect_err("too large").code, SdkErrorCode::TooLarge);
    let before = listener.seen().len();
    for (name, value) in [
        ("Host", "other.example"),
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "keep-alive"),
        ("Proxy-Authorization", "x"),
        ("X-A", "b\r\nX-C: d"),
        ("X A", "b"),
        ("X-A:", "b"),
    ] {
        let mut call = get(&url);
        call.headers.push((name.to_owned(), value.to_owned()));
        let error = send(service(true, Vec::new()).0, caller(None), call).expect_err(name);
        assert_eq!(error.code, SdkErrorCode::Invalid, "{name}");
    }
    assert_eq!(listener.seen().len(), before, "nothing was sent");
}

/// A listener that says `first`, and then nothing more; or a byte each 50 ms, for ever.
fn stalling(first: &'static [u8], drips: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                // What is said before it was asked is no answer.
                let mut asked = [0; 4096];
                let mut going_on =
                    stream.read(&mut asked).is_ok() && stream.write_all(first).is_ok();
                // Longer than any of the test's times.
                for _ in 0..100 {
                    std::thread::sleep(Duration::from_millis(50));
                    if drips && going_on {
                        going_on = stream.write_all(b"x").is_ok();
                    }
                }
            });
        }
    });
    address
}

#[test]
fn each_stage_of_a_request_has_its_time() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf";
    let ms = Duration::from_millis;
    let long = ms(20_000);
    let times = |connect, head, idle, total| HttpTimes {
        connect,
        head,
        idle,
        total,
    };
    // What a handshake waits for belongs to the connection.
    let cases = [
        (
            "https",
            b"".as_slice(),
            false,
            times(ms(300), long, long, long),
            "connection",
        ),
        (
            "http",
            b"".as_slice(),
            false,
            times(ms(100), ms(200), long, long),
            "did not answer",
        ),
        (
            "http",
            HEAD,
            false,
            times(long, long, ms(300), long),
            "stopped in the middle",
        ),
        (
            "http",
            HEAD,
            true,
            times(long, long, long, ms(300)),
            "longer than its time",
        ),
    ];
    for (scheme, first, drips, times, said) in cases {
        let address = stalling(first, drips);
        let service = service(true, Vec::new()).0.with_times(times);
        let outcomes = service.outcomes();
        let mut call = get(&format!("{scheme}://{address}/"));
        call.timeout_ms = None;
        let began = Instant::now();
        let error = send(service, caller(None), call).expect_err(said);
        assert_eq!(error.code, SdkErrorCode::Timeout, "{said}: {error}");
        assert!(error.message.contains(said), "{said}: {error}");
        assert!(began.elapsed() < Duration::from_secs(5), "{said}");
        assert!(outcomes.all().contains(&("timeout", 1)), "{said}");
    }
    // The run's own time, and the call's, hold in any case.
    let address = stalling(HEAD, true);
    let mut cx = caller(None);
    cx.deadline = Instant::now() + ms(200);
    let began = Instant::now();
    let sent = send(
        service(true, Vec::new()).0,
        cx,
        get(&format!("http://{address}/")),
    );
    assert_eq!(sent.expect_err("late").code, SdkErrorCode::Timeout);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_body_that_is_too_large_is_not_sent() {
    let listener = Listener::new(|_| reply("200 OK", b""));
    let mut call = get(&format!("http://{}/", listener.address));
    call.method = "POST".to_owned();
    call.body = Some((vec![0; (10 << 20) + 1].into(), "application/octet-stream"));
    let error = send(service(true, Vec::new()).0, caller(None), call).expect_err("too large");
    assert_eq!(error.code, SdkErrorCode::TooLarge);
    assert_eq!(listener.seen(), Vec::<String>::new());
}

/// Where the test runs itself again, in a network of its own where this address is the loopback's.
const OWN_NETWORK: &str = "PICLOUD_TEST_OWN_NETWORK";

/// Runs the test by that name once more, in a network of its own with a public address. Gives
/// whether that could be had: not everybody may make networks.
fn in_a_network_of_its_own(test: &str) -> bool {
    let set_up = "ip link set lo up && ip addr add 1.1.1.1/32 dev lo";
    let unshare = |arguments: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        command.args(["-rn", "sh", "-c"]).args(arguments);
        command.output().ok()
    };
    if !unshare(&[set_up]).is_some_and(|output| output.status.success()) {
        return false;
    }
    let program = std::env::current_exe().expect("this test");
    let program = program.to_str().expect("a path");
    let run = format!("{set_up} && {OWN_NETWORK}=1 exec \"$0\" --exact {test} --nocapture");
    let output = unshare(&[&run, program]).expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    true
}

#[test]
fn from_a_public_address_no_redirect_and_no_rebinding_leads_to_a_private_one() {
    const SELF: &str = "from_a_public_address_no_redirect_and_no_rebinding_leads_to_a_private_one";
    if std::env::var_os(OWN_NETWORK).is_none() {
        if !in_a_network_of_its_own(SELF) {
            eprintln!("passed over: no network can be made here");
        }
        return;
    }
    let canary = Listener::new(|_| reply("200 OK", b"reached"));
    let port = canary.address.port();
    let hosts = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("2130706433:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("[::1]:{port}"),
        "169.254.169.254".to_owned(),
    ];
    for host in hosts {
        for status in ["301 A", "302 A", "303 A", "307 A", "308 A"] {
            let to = format!("http://{host}/");
            let hop = Listener::at("1.1.1.1:0", move |_| {
                reply(&format!("{status}\r\nLocation: {to}"), b"")
            });
            let (service, _) = service(false, vec![vec![PUBLIC], vec![LOOPBACK]]);
            let url = format!("http://public.example:{}/", hop.address.port());
            let sent = send(service, caller(None), get(&url));
            let error = sent.expect_err(&host);
            assert_eq!(error.code, SdkErrorCode::Blocked, "{host}: {error}");
            assert_eq!(hop.seen().len(), 1, "the public one is asked");
        }
    }
    // The name's next answer is another: a connection goes to what was checked for it, or nowhere.
    let hop = Listener::at("1.1.1.1:0", |_| reply("302 Found\r\nLocation: /again", b""));
    let answers = vec![vec![PUBLIC], vec![PUBLIC], vec![LOOPBACK]];
    let (service, asked) = service(false, answers);
    let url = format!("http://rebound.example:{}/", hop.address.port());
    let error = send(service, caller(None), get(&url)).expect_err("rebound");
    assert_eq!(error.message, "blocked: loopback (127.0.0.0/8)");
    assert_eq!(
        (hop.seen().len(), asked.asked.load(Ordering::SeqCst)),
        (2, 3)
    );
    // What is allowed by name holds at each hop, too.
    let hop = Listener::at("1.1.1.1:0", |_| {
        reply("302 Found\r\nLocation: http://other.example/", b"")
    });
    let allowed = caller(Some(&["*.example.com"]));
    let (service, _) = self::service(false, vec![vec![PUBLIC]]);
    let url = format!("http://a.example.com:{}/", hop.address.port());
    let error = send(service, allowed, get(&url)).expect_err("not allowed");
    assert!(error.message.contains("permissions.http.allow"), "{error}");
    assert_eq!(canary.seen(), Vec::<String>::new());
}
