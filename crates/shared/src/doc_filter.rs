//! Filters of `docs::find`, taken apart: the same for whatever answers them.

use serde_json::Value;

use crate::sdk::{SdkError, SdkErrorCode, SdkResult};

/// How deep a filter may be nested, and how many tests it may have.
const MAX_DEPTH: usize = 8;
const MAX_TESTS: usize = 100;
/// Values of one `$in`.
const MAX_IN: usize = 1_000;

/// What a filter says, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub enum DocFilter {
    /// All of them.
    All(Vec<Self>),
    /// Any of them.
    Any(Vec<Self>),
    /// A field, by its path, and what it must be.
    Field(Vec<String>, DocTest),
}

/// What a field must be.
#[derive(Debug, Clone, PartialEq)]
pub enum DocTest {
    /// That value; null is also matched by an absent field.
    Is(Value),
    /// Anything but that value.
    IsNot(Value),
    /// Of the same type, and so compared.
    Compare(Comparison, Value),
    /// One of these.
    In(Vec<Value>),
    /// Whether it is there.
    Exists(bool),
}

/// How two values of one type are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl DocFilter {
    /// Takes a filter apart. Throws `invalid` for what means nothing.
    pub fn parse(filter: &Value) -> SdkResult<Self> {
        let mut tests = 0;
        compile_at(filter, 0, &mut tests)
    }
}

fn compile_at(filter: &Value, depth: usize, tests: &mut usize) -> SdkResult<DocFilter> {
    if depth > MAX_DEPTH {
        return Err(invalid(format!(
            "a filter is nested at most {MAX_DEPTH} levels deep"
        )));
    }
    let Value::Object(fields) = filter else {
        return Err(invalid("a filter is a map"));
    };
    let mut parts = Vec::new();
    for (name, wanted) in fields {
        match name.as_str() {
            "$and" | "$or" => {
                let Value::Array(items) = wanted else {
                    return Err(invalid(format!("{name} takes an array of filters")));
                };
                let below = items
                    .iter()
                    .map(|item| compile_at(item, depth + 1, tests))
                    .collect::<SdkResult<Vec<_>>>()?;
                parts.push(if name == "$and" {
                    DocFilter::All(below)
                } else {
                    DocFilter::Any(below)
                });
            }
            operator if operator.starts_with('$') => {
                return Err(invalid(format!(
                    "there is no operator {operator} between fields; there are $and and $or"
                )));
            }
            field => {
                for test in field_tests(field, wanted)? {
                    *tests += 1;
                    if *tests > MAX_TESTS {
                        return Err(invalid(format!("a filter has at most {MAX_TESTS} tests")));
                    }
                    parts.push(DocFilter::Field(field_path(field)?, test));
                }
            }
        }
    }
    Ok(DocFilter::All(parts))
}

/// What a field must be: a value, or operators.
fn field_tests(field: &str, wanted: &Value) -> SdkResult<Vec<DocTest>> {
    let Value::Object(operators) = wanted else {
        return Ok(vec![DocTest::Is(wanted.clone())]);
    };
    if operators.is_empty() || !operators.keys().any(|name| name.starts_with('$')) {
        return Ok(vec![DocTest::Is(wanted.clone())]);
    }
    let mut tests = Vec::new();
    for (operator, value) in operators {
        let compare = |how| {
            if value.is_number() || value.is_string() || value.is_boolean() {
                Ok(DocTest::Compare(how, value.clone()))
            } else {
                Err(invalid(format!(
                    "{operator} takes a number, text or a boolean"
                )))
            }
        };
        tests.push(match operator.as_str() {
            "$gt" => compare(Comparison::Greater)?,
            "$gte" => compare(Comparison::GreaterOrEqual)?,
            "$lt" => compare(Comparison::Less)?,
            "$lte" => compare(Comparison::LessOrEqual)?,
            "$ne" => DocTest::IsNot(value.clone()),
            "$in" => match value {
                Value::Array(values) if values.len() <= MAX_IN => DocTest::In(values.clone()),
                _ => {
                    return Err(invalid(format!(
                        "$in takes an array of at most {MAX_IN} values"
                    )));
                }
            },
            "$exists" => match value {
                Value::Bool(there) => DocTest::Exists(*there),
                _ => return Err(invalid("$exists takes true or false")),
            },
            other => {
                return Err(invalid(format!(
                    "`{field}` has no operator {other}; there are $gt $gte $lt $lte $ne $in $exists"
                )));
            }
        });
    }
    Ok(tests)
}

/// `a.b` as a path.
pub fn field_path(name: &str) -> SdkResult<Vec<String>> {
    let parts: Vec<String> = name.split('.').map(str::to_owned).collect();
    if parts.len() > MAX_DEPTH || parts.iter().any(String::is_empty) || name.contains('\0') {
        return Err(invalid(format!("`{}` is no field", name.escape_debug())));
    }
    Ok(parts)
}

fn invalid(message: impl Into<String>) -> SdkError {
    SdkError::new(SdkErrorCode::Invalid, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_filter_that_means_nothing_is_refused_by_name() {
        for bad in [
            json!({"a": {"$near": 1}}),
            json!({"$nor": []}),
            json!({"$or": 1}),
            json!({"a": {"$gt": null}}),
            json!({"a": {"$in": 1}}),
            json!({"": 1}),
            json!({"a..b": 1}),
        ] {
            assert!(DocFilter::parse(&bad).is_err(), "{bad}");
        }
        assert_eq!(DocFilter::parse(&json!({})), Ok(DocFilter::All(Vec::new())));
    }
}
