//! What scripts do, each beside the same by hand: a read and a write of data, JSON in and out, and
//! a computation.

use anyhow::Result;
use picloud_test_support::TestRepository;

use crate::{
    load::{Side, compare},
    process::Server,
};

const SCRIPTS: [(&str, &str, &str); 4] = [
    ("read", "GET", "kv::get(\"c\", \"k\")"),
    (
        "write",
        "GET",
        "kv::set(\"c\", \"k\" + (crypto::random(1)[0] % 100), #{ n: 1 })",
    ),
    (
        "json",
        "POST",
        "let fields = ctx.request.json;\nfields.name = fields.name.to_upper();\nfields.seen = true;\nfields",
    ),
    (
        "sieve",
        "GET",
        "let composite = [];\ncomposite.pad(2000, false);\nlet primes = 0;\nfor number in 2..2000 {\n    if !composite[number] {\n        primes += 1;\n        let multiple = number * number;\n        while multiple < 2000 {\n            composite[multiple] = true;\n            multiple += number;\n        }\n    }\n}\n#{ primes: primes }",
    ),
];

pub(crate) fn run() -> Result<()> {
    let repository = TestRepository::new();
    let mut manifest =
        "name: app\nlimits: {concurrency: 64}\nroutes:\n  - {path: /put, script: scripts/put.rhai}\n"
            .to_owned();
    repository.write("scripts/put.rhai", "kv::set(\"c\", \"k\", #{ n: 1 })");
    for (name, method, text) in SCRIPTS {
        manifest.push_str(&format!(
            "  - {{path: /{name}, methods: [{method}], script: scripts/{name}.rhai}}\n"
        ));
        repository.write(&format!("scripts/{name}.rhai"), text);
    }
    repository.write("app.yaml", &manifest);
    repository.commit("feat: scripts");
    let inside = Server::picloud(repository.path())?;
    let apart = Server::picloud_apart(repository.path())?;
    for server in [&inside, &apart] {
        server.wait_for("/apps/app/put", "1")?;
    }
    let axum = Server::reference(Some(&inside))?;
    let payload = format!(
        "{{\"name\":\"somebody\",\"items\":[{}]}}",
        vec!["{\"id\":12345,\"text\":\"an item of a list\",\"ok\":true}"; 18].join(",")
    );
    for (name, method, _) in SCRIPTS {
        let path = format!("/apps/app/{name}");
        let bare = format!("/{name}");
        let side = |name, server, path| Side { name, server, path };
        let sides = [
            side("by hand on axum", &axum, bare.as_str()),
            side("PiCloud, in process", &inside, &path),
            side("PiCloud, in processes apart", &apart, &path),
        ];
        compare(name, &sides, (method == "POST").then_some(payload.as_str()))?;
    }
    axum.stop()?;
    apart.stop()?;
    inside.stop()?;
    Ok(())
}
