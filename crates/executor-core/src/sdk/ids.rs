//! `uuid::*`, `html::*`

use rhai::{ImmutableString, Module};
use uuid::Builder;

use super::{MAX_TEXT, Native, function, invalid};
use crate::limits;

functions! {
    "uuid" :: "v4" [0], ["v4() -> String"], "A random UUID (RFC 9562).";
    "uuid" :: "v7" [0], ["v7() -> String"], "A UUID that sorts by the time it was made (RFC 9562).";
    "html" :: "escape" [1], ["escape(text: String) -> String"], "Text as it may stand in HTML and in its attributes: `& < > \" '` escaped.";
}

pub(super) fn uuid() -> Module {
    let mut module = Module::new();
    function(&mut module, "v4", || {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| invalid(error.to_string()))?;
        let id = Builder::from_random_bytes(bytes).into_uuid();
        Ok(ImmutableString::from(id.to_string()))
    });
    function(&mut module, "v7", || -> Native<ImmutableString> {
        let id = limits::with(|state| state.clock.new_id());
        let id = id.ok_or_else(|| invalid("there is no run on this thread"))?;
        Ok(id.to_string().into())
    });
    module
}

pub(super) fn html() -> Module {
    let mut module = Module::new();
    function(&mut module, "escape", |text: ImmutableString| escape(&text));
    module
}

fn escape(text: &str) -> Native<ImmutableString> {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
        if out.len() > MAX_TEXT {
            return Err(invalid("the escaped text is too large"));
        }
    }
    Ok(out.into())
}
