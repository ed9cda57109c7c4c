//! What GitHub publishes of its API and its webhooks, taken out of its packages by
//! `forge-schemas/extract.mjs`.

use std::collections::BTreeMap;

use serde_json::Value;

const API: &str = include_str!("../forge-schemas/github-api.json");
const WEBHOOKS: &str = include_str!("../forge-schemas/github-webhooks.json");

/// Real deliveries: the event's name, and its payload.
///
/// # Panics
/// Where the committed file is broken.
pub fn webhooks() -> Vec<(String, Value)> {
    let all: Vec<Value> = serde_json::from_str(WEBHOOKS).expect("JSON");
    let pair = |mut one: Value| {
        let name = one["name"].as_str().expect("a name").to_owned();
        (name, one["body"].take())
    };
    all.into_iter().map(pair).collect()
}

/// Holds a request against the published description of its operation, and gives the status that a
/// good one is answered with.
pub(crate) fn check(
    method: &str,
    path: &str,
    query: &BTreeMap<String, String>,
    body: &str,
) -> Result<u64, String> {
    let all: Vec<Value> = serde_json::from_str(API).map_err(|error| error.to_string())?;
    let operation = all.iter().find(|operation| {
        operation["method"] == method && is_at(operation["path"].as_str().unwrap_or(""), path)
    });
    let operation = operation.ok_or("no such operation among those that are published")?;
    let known = operation["query"].as_array().map_or(&[][..], Vec::as_slice);
    for (name, value) in query {
        let parameter = known.iter().find(|parameter| parameter["name"] == *name);
        let parameter = parameter.ok_or_else(|| format!("no parameter {name}"))?;
        if parameter["schema"]["type"] == "integer" && value.parse::<i64>().is_err() {
            return Err(format!("the parameter {name} is no number"));
        }
    }
    if !operation["body"].is_null() {
        let body = serde_json::from_str(body).map_err(|error| error.to_string())?;
        fits(&operation["body"], &body, "the body")?;
    }
    operation["status"]
        .as_u64()
        .ok_or_else(|| "no status".to_owned())
}

fn is_at(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.split('/'));
    template.clone().count() == path.clone().count()
        && template
            .zip(path)
            .all(|(wanted, part)| wanted == part || wanted.starts_with('{') && !part.is_empty())
}

/// Whether a value is what a schema says, as far as these schemas say anything.
fn fits(schema: &Value, value: &Value, what: &str) -> Result<(), String> {
    if value.is_null() && schema["nullable"] == true {
        return Ok(());
    }
    let is = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    if !is {
        return Err(format!("{what} is not of the type {}", schema["type"]));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Err(format!("{what} is {value}, not one of {words:?}"));
    }
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if value.get(name).is_none() {
            return Err(format!("{what} lacks {name}"));
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(schema) => fits(schema, value, &format!("{what}.{name}"))?,
            None => return Err(format!("{what} has {name}, which is not published")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_published_is_refused() {
        let status = |body: &str| {
            let path = "/repos/octo/shop/statuses/8c54261f0e7d4c0b9f6a3e2d1c0b9a8f7e6d5c4b";
            check("POST", path, &BTreeMap::new(), body)
        };
        assert_eq!(
            status(r#"{"state": "success", "target_url": null}"#),
            Ok(201)
        );
        for wrong in [
            "{}",
            r#"{"state": "good"}"#,
            r#"{"state": "success", "link": ""}"#,
            "[]",
        ] {
            assert!(status(wrong).is_err(), "{wrong}");
        }
        assert!(check("PUT", "/repos/octo/shop", &BTreeMap::new(), "").is_err());
        assert!(webhooks().iter().any(|(name, _)| name == "pull_request"));
    }
}
