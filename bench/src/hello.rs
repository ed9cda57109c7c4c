//! The same endpoint as a bare axum server and through PiCloud, with runs counted and recorded.

use anyhow::Result;
use picloud_test_support::TestRepository;

use crate::{
    load::{Side, compare},
    process::Server,
};

pub(crate) fn run() -> Result<()> {
    let repository = TestRepository::new();
    repository.write(
        "apps/hello/app.yaml",
        "name: hello\nroutes: [{path: /hello, script: scripts/hello.rhai}]\n",
    );
    repository.write("apps/hello/scripts/hello.rhai", "#{ hello: \"world\" }");
    repository.commit("feat: hello");
    let axum = Server::reference(None)?;
    let picloud = Server::picloud(repository.path())?;
    let side = |name, server, path| Side { name, server, path };
    let sides = [
        side("bare axum", &axum, "/hello"),
        side("PiCloud", &picloud, "/apps/hello/hello"),
    ];
    compare("hello", &sides, None)?;
    picloud.stop()?;
    axum.stop()?;
    Ok(())
}
