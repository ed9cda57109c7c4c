//! `secrets::*`

use rhai::{ImmutableString, Module};

use super::{Native, absent, ask, function};
use crate::limits;

functions! {
    "secrets" :: "get" [1], ["get(name: String) -> String"], "The value of a secret that app.yaml declares. It is redacted wherever it would be shown.";
}

pub(crate) fn module() -> Module {
    let mut module = Module::new();
    function(&mut module, "get", |name: ImmutableString| get(&name));
    module
}

fn get(name: &str) -> Native<ImmutableString> {
    ask(
        |services, cx| {
            let secrets = services.secrets.as_ref();
            secrets.ok_or_else(|| absent("secrets"))?.get(cx, name)
        },
        |value| {
            limits::with(|state| state.secrets.learn(value));
            value.0.as_ref().into()
        },
    )
}
