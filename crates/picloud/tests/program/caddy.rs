//! Caddy in front, as `caddy/Caddyfile` has it, with certificates of its own authority.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use picloud_test_support::TestRepository;
use tempfile::TempDir;

use crate::support::{Server, eventually};

const MANIFEST: &str =
    "name: shop\nstatic: public\nroutes:\n  - {path: /who, script: scripts/who.rhai}\n";
/// What curl says where there is no certificate.
const TLS: Option<i32> = Some(35);

/// A Caddy that ends with the test.
struct Caddy {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Drop for Caddy {
    fn drop(&mut self) {
        // A test that fails must not leave it behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

impl Caddy {
    /// `None`: it isn't installed here (`scripts/install-dependencies.sh --test` does).
    fn start(upstream: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let options = format!(
            "local_certs\nskip_install_trust\nadmin off\nhttp_port {}\nhttps_port {port}",
            free_port()
        );
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let started = Command::new("caddy")
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../caddy/Caddyfile"
            ))
            .env("CADDY_GLOBAL_OPTIONS", options)
            .env("PICLOUD_DOMAIN", "picloud.test")
            .env("PICLOUD_UPSTREAM", upstream)
            .env("XDG_DATA_HOME", folder.path())
            .env("XDG_CONFIG_HOME", folder.path())
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let must = std::env::var_os("PICLOUD_TEST_ALL").is_some();
        let child = match started {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must => return None,
            Err(error) => panic!("caddy: {error}; scripts/install-dependencies.sh --test"),
        };
        let caddy = Self {
            child,
            folder,
            port,
        };
        eventually("Caddy", || {
            caddy.authority().exists() && caddy.curl("picloud.test", "/healthz").status.success()
        });
        Some(caddy)
    }

    /// The certificate of its authority.
    fn authority(&self) -> std::path::PathBuf {
        self.folder
            .path()
            .join("caddy/pki/authorities/local/root.crt")
    }

    /// A request by a name that leads here.
    fn curl(&self, host: &str, path: &str) -> Output {
        Command::new("curl")
            .args(["--silent", "--fail", "--max-time", "20", "--cacert"])
            .arg(self.authority())
            .arg("--resolve")
            .arg(format!("{host}:{}:127.0.0.1", self.port))
            .arg(format!("https://{host}:{}{path}", self.port))
            .output()
            .expect("curl runs")
    }

    /// A git command that reaches it.
    fn git(&self, folder: &Path, arguments: &[&str]) -> Output {
        Command::new("git")
            .arg("-c")
            .arg(format!(
                "http.curloptResolve=picloud.test:{}:127.0.0.1",
                self.port
            ))
            .args(arguments)
            .current_dir(folder)
            .env("GIT_SSL_CAINFO", self.authority())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .expect("git runs")
    }
}

fn noise(size: usize) -> Vec<u8> {
    use std::io::Read;
    let mut bytes = vec![0; size];
    let mut source = fs::File::open("/dev/urandom").expect("randomness");
    source.read_exact(&mut bytes).expect("randomness");
    bytes
}

#[test]
fn through_caddy_pushes_arrive_whole_and_domains_have_certificates_while_they_are_owned() {
    let server = Server::start_hosted(&[
        "--base-domain",
        "picloud.test",
        "--trusted-proxies",
        "127.0.0.1",
    ]);
    let Some(caddy) = Caddy::start(server.address()) else {
        return;
    };
    let repository = TestRepository::new();
    repository.git(&["config", "core.compression", "0"]);
    repository.write("apps/shop/app.yaml", MANIFEST);
    repository.write("apps/shop/scripts/who.rhai", "ctx.request.client_ip");
    fs::create_dir_all(repository.path().join("apps/shop/public")).expect("a folder");
    let files = [noise(15 << 20), noise(15 << 20)];
    for (index, bytes) in files.iter().enumerate() {
        let path = format!("apps/shop/public/{index}.bin");
        fs::write(repository.path().join(path), bytes).expect("a file");
    }
    repository.commit("feat: 30 MB");
    let remote = server.remote(None);
    let (_, path) = remote.split_once("/git/").expect("a path");
    let (credentials, _) = remote.split_once('@').expect("credentials");
    let credentials = credentials.replace("http://", "https://");
    let remote = format!("{credentials}@picloud.test:{}/git/{path}", caddy.port);
    let address = format!("https://picloud.test:{}/apps/shop/", caddy.port);
    let push = |form: &str| {
        let pushed = caddy.git(repository.path(), &["-c", form, "push", &remote, "main"]);
        let text = String::from_utf8_lossy(&pushed.stderr).into_owned();
        assert!(pushed.status.success() && text.contains(&address), "{text}");
    };
    // Nothing is deployed yet: the first push must come through all the same.
    push("http.postBuffer=65536");
    repository.write("apps/shop/scripts/who.rhai", "ctx.request.client_ip + \"\"");
    fs::write(
        repository.path().join("apps/shop/more.bin"),
        noise(30 << 20),
    )
    .expect("a file");
    repository.commit("feat: more");
    push("http.postBuffer=200000000");
    let folder = tempfile::tempdir().expect("a folder");
    let cloned = caddy.git(folder.path(), &["clone", "-q", &remote, "clone"]);
    assert!(
        cloned.status.success(),
        "{}",
        String::from_utf8_lossy(&cloned.stderr)
    );
    for (index, bytes) in files.iter().enumerate() {
        let name = format!("{index}.bin");
        let there = fs::read(folder.path().join("clone/apps/shop/public").join(&name));
        assert!(there.expect("the file") == *bytes, "cloned {name}");
        assert!(
            caddy
                .curl("picloud.test", &format!("/apps/shop/{name}"))
                .stdout
                == *bytes,
            "served {name}"
        );
    }
    // The client's address is the client's, whatever it claims.
    let who = caddy.curl("picloud.test", "/apps/shop/who");
    assert_eq!(String::from_utf8_lossy(&who.stdout), "127.0.0.1");

    // Each app has a name below the domain; no other name there gets a certificate.
    assert!(caddy.curl("shop.picloud.test", "/who").status.success());
    let exit = |host: &str| caddy.curl(host, "/who").status.code();
    assert_eq!(exit("none.picloud.test"), TLS);
    // A domain of its own: from the deployment on.
    assert_eq!(exit("shop.example"), TLS);
    repository.write(
        "apps/shop/app.yaml",
        &format!("{MANIFEST}domains: [shop.example]\n"),
    );
    repository.commit("feat: a domain");
    push("http.postBuffer=1000000");
    assert!(caddy.curl("shop.example", "/who").status.success());
    assert_eq!(exit("other.example"), TLS);
}
