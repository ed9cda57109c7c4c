//! `json::*`

use rhai::{Dynamic, ImmutableString, Module};

use super::{Function, Native, function, invalid};
use crate::json;

/// Bytes of a text that is parsed or made.
const MAX: usize = 16 << 20;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        module: "json",
        name: "parse",
        arguments: &[1],
        signatures: &["parse(text: String) -> Dynamic"],
        about: "Reads JSON; integers are exact. Throws `invalid` where it is none.",
    },
    Function {
        module: "json",
        name: "stringify",
        arguments: &[1, 2],
        signatures: &[
            "stringify(value: Dynamic) -> String",
            "stringify(value: Dynamic, indent: int) -> String",
        ],
        about: "Writes JSON, with `indent` spaces a level where given. Throws `invalid` for what JSON can't hold.",
    },
];

pub(super) fn module() -> Module {
    let mut module = Module::new();
    function(&mut module, "parse", |text: ImmutableString| parse(&text));
    function(&mut module, "stringify", |value: Dynamic| stringify(&value));
    function(&mut module, "stringify", |value: Dynamic, indent: i64| {
        pretty(&value, indent)
    });
    module
}

fn parse(text: &str) -> Native<Dynamic> {
    if text.len() > MAX {
        return Err(invalid(format!(
            "the text has {} bytes; at most {MAX} are parsed",
            text.len()
        )));
    }
    json::parse(text.as_bytes()).map_err(|reason| invalid(format!("this is not JSON: {reason}")))
}

fn stringify(value: &Dynamic) -> Native<ImmutableString> {
    let mut out = Vec::new();
    json::write(value, &mut out, MAX).map_err(invalid)?;
    String::from_utf8(out)
        .map(Into::into)
        .map_err(|error| invalid(error.to_string()))
}

fn pretty(value: &Dynamic, indent: i64) -> Native<ImmutableString> {
    let Some(indent) = usize::try_from(indent).ok().filter(|indent| *indent <= 10) else {
        return Err(invalid("indent must be from 0 to 10"));
    };
    if indent == 0 {
        return stringify(value);
    }
    let value = json::to_json(value).map_err(invalid)?;
    let spaces = " ".repeat(indent);
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    serde::Serialize::serialize(&value, &mut serializer)
        .map_err(|error| invalid(error.to_string()))?;
    String::from_utf8(out)
        .map(Into::into)
        .map_err(|error| invalid(error.to_string()))
}
