//! Whether two values are the same, and where they are not.

use rhai::{Array, Blob, Dynamic, ImmutableString, Map};

/// Levels that are compared.
const MAX_DEPTH: usize = 64;
/// Characters of a value that are shown.
const MAX_SHOWN: usize = 600;
/// Differences that are shown.
const MAX_DIFFERENCES: usize = 10;

/// `None`: they are the same. `Err`: they can't be compared.
pub(super) fn difference(left: &Dynamic, right: &Dynamic) -> Result<Option<String>, String> {
    let mut found = Vec::new();
    compare(left, right, &mut String::new(), &mut found, 0)?;
    if found.is_empty() {
        return Ok(None);
    }
    let mut message = format!(
        "left and right differ\n  left:  {}\n  right: {}",
        shown(left),
        shown(right)
    );
    let nested = left.is_map() || left.is_array();
    if nested {
        for difference in found.iter().take(MAX_DIFFERENCES) {
            message.push_str("\n  ");
            message.push_str(difference);
        }
        if found.len() > MAX_DIFFERENCES {
            message.push_str(&format!("\n  and {} more", found.len() - MAX_DIFFERENCES));
        }
    } else if let (Some(left), Some(right)) = (text(left), text(right))
        && (left.contains('\n') || left.len() > 40)
    {
        message.push_str(&format!("\n  {}", first_difference(&left, &right)));
    }
    Ok(Some(message))
}

fn text(value: &Dynamic) -> Option<String> {
    if let Ok(c) = value.as_char() {
        return Some(c.to_string());
    }
    let text = value.read_lock::<ImmutableString>()?;
    Some(text.to_string())
}

fn first_difference(left: &str, right: &str) -> String {
    let (mut line, mut column) = (1, 1);
    let mut others = right.chars();
    for c in left.chars() {
        if others.next() != Some(c) {
            break;
        }
        if c == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    format!("they differ from line {line}, character {column}")
}

fn compare(
    left: &Dynamic,
    right: &Dynamic,
    at: &mut String,
    found: &mut Vec<String>,
    depth: usize,
) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("values are compared {MAX_DEPTH} levels deep"));
    }
    if let (Some(left), Some(right)) = (left.read_lock::<Map>(), right.read_lock::<Map>()) {
        return maps(&left, &right, at, found, depth);
    }
    if let (Some(left), Some(right)) = (left.read_lock::<Array>(), right.read_lock::<Array>()) {
        return arrays(&left, &right, at, found, depth);
    }
    if same_plain(left, right)? {
        return Ok(());
    }
    let place = if at.is_empty() { "the value" } else { at };
    let kinds = if left.type_name() == right.type_name() {
        String::new()
    } else {
        format!(" ({} and {})", kind(left), kind(right))
    };
    found.push(format!(
        "{place}: {} is not {}{kinds}",
        shown(left),
        shown(right)
    ));
    Ok(())
}

fn maps(
    left: &Map,
    right: &Map,
    at: &mut String,
    found: &mut Vec<String>,
    depth: usize,
) -> Result<(), String> {
    let length = at.len();
    for (key, value) in left {
        at.push_str(&format!(".{key}"));
        match right.get(key) {
            Some(other) => compare(value, other, at, found, depth + 1)?,
            None => found.push(format!("{at}: {} is on the left alone", shown(value))),
        }
        at.truncate(length);
    }
    for (key, value) in right.iter().filter(|(key, _)| !left.contains_key(*key)) {
        found.push(format!(
            "{at}.{key}: {} is on the right alone",
            shown(value)
        ));
    }
    Ok(())
}

fn arrays(
    left: &Array,
    right: &Array,
    at: &mut String,
    found: &mut Vec<String>,
    depth: usize,
) -> Result<(), String> {
    let length = at.len();
    for (index, (value, other)) in left.iter().zip(right).enumerate() {
        at.push_str(&format!("[{index}]"));
        compare(value, other, at, found, depth + 1)?;
        at.truncate(length);
    }
    let (rest, side) = if left.len() > right.len() {
        (&left[right.len()..], "left")
    } else {
        (&right[left.len()..], "right")
    };
    let from = left.len().min(right.len());
    for (index, value) in rest.iter().enumerate() {
        found.push(format!(
            "{at}[{}]: {} is on the {side} alone",
            from + index,
            shown(value)
        ));
    }
    Ok(())
}

/// As `==` of the language: whole numbers and floats of one value are the same.
#[expect(
    clippy::float_cmp,
    reason = "a test that wants less than equality says so"
)]
fn same_plain(left: &Dynamic, right: &Dynamic) -> Result<bool, String> {
    for value in [left, right] {
        if kind(value) == "a value" {
            return Err(format!(
                "assert_eq does not compare values of type {}",
                value.type_name()
            ));
        }
    }
    if left.is_unit() || right.is_unit() {
        return Ok(left.is_unit() && right.is_unit());
    }
    if let (Ok(left), Ok(right)) = (left.as_int(), right.as_int()) {
        return Ok(left == right);
    }
    if let (Ok(left), Ok(right)) = (number(left), number(right)) {
        return Ok(left == right || left.is_nan() && right.is_nan());
    }
    if let (Ok(left), Ok(right)) = (left.as_bool(), right.as_bool()) {
        return Ok(left == right);
    }
    if let (Some(left), Some(right)) = (left.read_lock::<Blob>(), right.read_lock::<Blob>()) {
        return Ok(*left == *right);
    }
    Ok(match (text(left), text(right)) {
        (Some(left), Some(right)) => left == right,
        _ => false,
    })
}

fn number(value: &Dynamic) -> Result<f64, &'static str> {
    match value.as_int() {
        Ok(number) => Ok(number as f64),
        Err(_) => value.as_float(),
    }
}

fn kind(value: &Dynamic) -> &'static str {
    if value.is_unit() {
        "()"
    } else if value.is_bool() {
        "a boolean"
    } else if value.is_int() {
        "a whole number"
    } else if value.is_float() {
        "a float"
    } else if value.is_string() || value.is_char() {
        "text"
    } else if value.is_map() {
        "a map"
    } else if value.is_array() {
        "an array"
    } else if value.is_blob() {
        "a blob"
    } else {
        "a value"
    }
}

/// A value as it would be written in a script, within a bound.
fn shown(value: &Dynamic) -> String {
    let mut out = String::new();
    show(value, &mut out, 0);
    if out.chars().count() > MAX_SHOWN {
        out = out.chars().take(MAX_SHOWN).collect();
        out.push('…');
    }
    out
}

fn show(value: &Dynamic, out: &mut String, depth: usize) {
    if out.len() > 4 * MAX_SHOWN || depth > MAX_DEPTH {
        out.push('…');
    } else if let Some(text) = text(value) {
        out.push_str(&format!("{text:?}"));
    } else if value.is_unit() {
        out.push_str("()");
    } else if let Some(blob) = value.read_lock::<Blob>() {
        let digits: String = blob.iter().take(32).map(|b| format!("{b:02x}")).collect();
        out.push_str(&format!("blob of {} bytes {digits}", blob.len()));
    } else if let Some(array) = value.read_lock::<Array>() {
        out.push('[');
        for (index, value) in array.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            show(value, out, depth + 1);
        }
        out.push(']');
    } else if let Some(map) = value.read_lock::<Map>() {
        out.push_str("#{");
        for (index, (key, value)) in map.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !key.starts_with(|c: char| c.is_ascii_digit())
                && !key.is_empty();
            if plain {
                out.push_str(key);
            } else {
                out.push_str(&format!("{:?}", key.as_str()));
            }
            out.push_str(": ");
            show(value, out, depth + 1);
        }
        out.push('}');
    } else if let Ok(number) = value.as_float() {
        out.push_str(&format!("{number:?}"));
    } else {
        out.push_str(&value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(left: &str, right: &str, expect: Option<&str>) {
        let engine = rhai::Engine::new();
        let value = |text: &str| engine.eval::<Dynamic>(text).expect(text);
        let found = difference(&value(left), &value(right)).expect("comparable");
        assert_eq!(found.as_deref(), expect, "{left} and {right}");
    }

    #[test]
    fn what_is_the_same_is_the_same_and_what_differs_is_shown_by_its_place() {
        for (left, right) in [
            ("1", "1"),
            ("1", "1.0"),
            ("\"a\"", "'a'"),
            ("#{a: [1, ()]}", "#{a: [1, ()]}"),
            ("[]", "[]"),
            ("blob(2, 7)", "blob(2, 7)"),
        ] {
            check(left, right, None);
        }
        check(
            "1",
            "\"1\"",
            Some("left and right differ\n  left:  1\n  right: \"1\""),
        );
        check(
            "#{a: #{b: [1, 2]}, c: 1}",
            "#{a: #{b: [1, 3, 4]}, d: ()}",
            Some(concat!(
                "left and right differ",
                "\n  left:  #{a: #{b: [1, 2]}, c: 1}",
                "\n  right: #{a: #{b: [1, 3, 4]}, d: ()}",
                "\n  .a.b[1]: 2 is not 3",
                "\n  .a.b[2]: 4 is on the right alone",
                "\n  .c: 1 is on the left alone",
                "\n  .d: () is on the right alone",
            )),
        );
    }

    #[test]
    fn functions_are_not_compared() {
        let engine = rhai::Engine::new();
        let function = engine.eval::<Dynamic>("|x| x").expect("a closure");
        assert!(difference(&function, &function).is_err());
    }
}
