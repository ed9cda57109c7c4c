//! `secrets::*`

use rhai::{ImmutableString, Module};

use super::{Native, absent, function, services, throw};
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
    let (services, cx) = services()?;
    let secrets = services.secrets.ok_or_else(|| absent("secrets"))?;
    let value = secrets.get(&cx, name).map_err(throw)?;
    limits::with(|state| state.secrets.learn(&value));
    Ok(value.0.as_ref().into())
}
