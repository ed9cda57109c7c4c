//! Patterns of routes: `/entries/{id}`, `/files/{*rest}`.

use std::fmt;

/// One part of a pattern, between slashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// Matches itself, after percent-decoding.
    Literal(String),
    /// `{name}`: matches one part that isn't empty.
    Parameter(String),
    /// `{*name}`, only at the end: matches the rest, which isn't empty.
    Wildcard(String),
}

/// A pattern that is known to be good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutePattern {
    segments: Vec<Segment>,
}

/// Why a text is no pattern. The message is a sentence part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(pub String);

const MAX_LENGTH: usize = 1024;
const MAX_SEGMENTS: usize = 32;

impl RoutePattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let fail = |message: String| Err(PatternError(message));
        let Some(rest) = text.strip_prefix('/') else {
            return fail("a path begins with `/`".to_owned());
        };
        if text.len() > MAX_LENGTH {
            return fail(format!("a path has at most {MAX_LENGTH} bytes"));
        }
        let parts: Vec<&str> = rest.split('/').collect();
        if parts.len() > MAX_SEGMENTS {
            return fail(format!("a path has at most {MAX_SEGMENTS} parts"));
        }
        let mut segments = Vec::with_capacity(parts.len());
        let mut names: Vec<&str> = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let segment = segment(part, index + 1 == parts.len())?;
            if let Segment::Parameter(_) | Segment::Wildcard(_) = &segment {
                let name = part.trim_matches(['{', '}']).trim_start_matches('*');
                if names.contains(&name) {
                    return fail(format!("the parameter `{name}` stands twice"));
                }
                names.push(name);
            }
            segments.push(segment);
        }
        Ok(Self { segments })
    }

    /// Its parts, in order. The root `/` is one empty literal.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether some path matches both, with neither being more specific: then it would be open
    /// which of them answers. A literal beats a parameter, a parameter beats a wildcard, from left
    /// to right.
    pub fn ties_with(&self, other: &Self) -> bool {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 0,
            Segment::Parameter(_) => 1,
            Segment::Wildcard(_) => 2,
        };
        self.segments.len() == other.segments.len()
            && self
                .segments
                .iter()
                .zip(&other.segments)
                .all(|(a, b)| match (a, b) {
                    (Segment::Literal(a), Segment::Literal(b)) => a == b,
                    (a, b) => rank(a) == rank(b),
                })
    }
}

fn segment(part: &str, last: bool) -> Result<Segment, PatternError> {
    let fail = |message: String| Err(PatternError(message));
    if let Some(inner) = part.strip_prefix('{') {
        let Some(name) = inner.strip_suffix('}') else {
            return fail(format!(
                "`{part}` has no closing `}}`; a parameter is a whole part, like `/{{id}}/`"
            ));
        };
        let wildcard = name.strip_prefix('*');
        let bare = wildcard.unwrap_or(name);
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if bare.is_empty()
            || !bare.chars().all(word)
            || bare.starts_with(|c: char| c.is_ascii_digit())
        {
            return fail(format!(
                "`{part}` is no parameter: its name has letters, digits and `_`, and begins with no digit"
            ));
        }
        return match wildcard {
            Some(_) if !last => fail(format!("the wildcard `{part}` may only stand at the end")),
            Some(name) => Ok(Segment::Wildcard(name.to_owned())),
            None => Ok(Segment::Parameter(name.to_owned())),
        };
    }
    if part.is_empty() && !last {
        return fail("`//` in a path matches nothing".to_owned());
    }
    if part == "." || part == ".." {
        return fail(format!("`{part}` cannot be a part of a path"));
    }
    let allowed = |c: char| {
        !c.is_control()
            && !c.is_whitespace()
            && !matches!(c, '{' | '}' | '?' | '#' | '\\' | '%' | '*')
    };
    match part.chars().find(|c| !allowed(*c)) {
        Some(c) => fail(format!(
            "the character {c:?} cannot stand in a path's literal part"
        )),
        None => Ok(Segment::Literal(part.to_owned())),
    }
}

impl fmt::Display for RoutePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments.iter().try_for_each(|segment| match segment {
            Segment::Literal(text) => write!(f, "/{text}"),
            Segment::Parameter(name) => write!(f, "/{{{name}}}"),
            Segment::Wildcard(name) => write!(f, "/{{*{name}}}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_patterns_read_back_as_they_were() {
        for text in [
            "/",
            "/a",
            "/a/",
            "/a/{id}",
            "/a/{id}/b",
            "/f/{*rest}",
            "/ä-b_c.d~e",
        ] {
            let pattern = RoutePattern::parse(text).expect(text);
            assert_eq!(pattern.to_string(), text);
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for text in [
            "", "a", "//", "/a//b", "/{id", "/{}", "/{1a}", "/{*r}/x", "/{a}/{a}", "/../x", "/a?b",
            "/a%20b", "/x{id}",
        ] {
            assert!(RoutePattern::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ties() {
        let cases = [
            ("/a/{x}", "/a/{y}", true),
            ("/a/b", "/a/{y}", false),
            ("/a/{*x}", "/a/{y}", false),
            ("/{a}/b", "/a/{b}", false),
            ("/a", "/a/", false),
        ];
        for (a, b, expected) in cases {
            let (a, b) = (
                RoutePattern::parse(a).expect(a),
                RoutePattern::parse(b).expect(b),
            );
            assert_eq!(a.ties_with(&b), expected, "{a} {b}");
            assert_eq!(b.ties_with(&a), expected, "{b} {a}");
        }
    }
}
