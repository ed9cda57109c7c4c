//! Makes scripts by a grammar of the language and the SDK, from a seed.

/// Random numbers by `SplitMix64` (Steele, Lea and Flood, 2014).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

const VARIABLES: [&str; 6] = ["a", "b", "c", "s", "m", "f"];
const NUMBERS: [&str; 14] = [
    "0",
    "1",
    "2",
    "-1",
    "7",
    "64",
    "1000",
    "65536",
    "1000000",
    "2147483648",
    "9223372036854775807",
    "(-9223372036854775807 - 1)",
    "1.5",
    "-0.0",
];
const BINARY: [&str; 22] = [
    "+", "-", "*", "/", "%", "**", "==", "!=", "<", ">", "<=", ">=", "&&", "||", "&", "|", "^",
    "<<", ">>", "in", "??", "..",
];
const ASSIGN: [&str; 9] = ["=", "=", "=", "+=", "-=", "*=", "%=", "<<=", "??="];
/// Methods, by how many values they take.
const METHODS: [&[&str]; 4] = [
    &[
        "len",
        "pop",
        "shift",
        "reverse",
        "sort",
        "sort_desc",
        "order",
        "dedup",
        "clear",
        "keys",
        "values",
        "to_string",
        "to_debug",
        "to_json",
        "to_chars",
        "chars",
        "bytes",
        "split",
        "to_upper",
        "trim",
        "to_blob",
        "to_array",
        "as_string",
        "bits",
        "abs",
        "type_of",
        "is_shared",
        "is_anonymous",
        "name",
        "call",
        "drain",
        "take",
        "tag",
        "to_float",
        "to_int",
        "floor",
        "sqrt",
        "hash",
        "start",
        "end",
        "exit",
        "is_nan",
        "to_hex",
    ],
    &[
        "push",
        "append",
        "remove",
        "contains",
        "index_of",
        "truncate",
        "chop",
        "split",
        "split_rev",
        "map",
        "filter",
        "some",
        "all",
        "find",
        "find_map",
        "for_each",
        "reduce",
        "reduce_rev",
        "sort",
        "order_by",
        "dedup",
        "drain",
        "retain",
        "extract",
        "curry",
        "call",
        "mixin",
        "fill_with",
        "sub_string",
        "crop",
        "chars",
        "starts_with",
        "get",
        "concat",
        "zip",
        "write_utf8",
        "parse_le_int",
        "get_bit",
        "step",
        "replace",
        "pop",
        "bits",
    ],
    &[
        "insert",
        "pad",
        "replace",
        "set",
        "splice",
        "extract",
        "drain",
        "retain",
        "split",
        "split_rev",
        "index_of",
        "sub_string",
        "crop",
        "chars",
        "reduce",
        "call",
        "zip",
        "write_be",
        "write_ascii",
        "parse_be_float",
        "set_bit",
        "get_bits",
        "bits",
        "curry",
    ],
    &[
        "splice",
        "write_le",
        "write_utf8",
        "set_bits",
        "call",
        "pad",
        "replace",
    ],
];
const FUNCTIONS: [&[&str]; 4] = [
    &[
        "timestamp",
        "time::now",
        "time::unix_ms",
        "uuid::v4",
        "uuid::v7",
        "blob",
    ],
    &[
        "blob",
        "print",
        "debug",
        "type_of",
        "Fn",
        "is_def_var",
        "to_string",
        "parse_int",
        "parse_float",
        "parse_json",
        "json::parse",
        "json::stringify",
        "base64::encode",
        "base64::decode",
        "hex::encode",
        "hex::decode",
        "url::encode",
        "url::decode",
        "url::parse",
        "time::parse",
        "crypto::sha256",
        "crypto::random",
        "html::escape",
        "log::info",
        "secrets::get",
        "http::get",
        "throw_it",
        "recur",
        "elapsed",
        "abs",
        "sin",
        "exp",
    ],
    &[
        "blob",
        "range",
        "max",
        "min",
        "json::stringify",
        "kv::get",
        "kv::delete",
        "kv::incr",
        "kv::list",
        "kv::get_many",
        "regex::is_match",
        "regex::captures",
        "crypto::hmac_sha256",
        "time::format",
        "time::add",
        "log::warn",
        "docs::find",
        "scripts::invoke",
        "http::post",
        "get_bit",
        "atan",
        "docs::create",
        "parse_int",
    ],
    &[
        "range",
        "kv::set",
        "kv::incr",
        "regex::replace_all",
        "crypto::verify_hmac",
        "time::format",
        "scripts::enqueue",
        "docs::update",
        "get_bits",
    ],
];

/// One script.
pub(crate) fn script(dice: &mut Dice) -> String {
    let mut out = String::from(
        "fn recur(x) { recur([x]) }\nfn throw_it(x) { throw x; }\n\
         let a = [1, [2, 3], \"x\"]; let b = blob(8, 65); let c = 3; let s = \"text äö\"; \
         let m = #{ a: 1, b: [#{}] }; let f = |x| x;\n",
    );
    for _ in 0..=dice.below(10) {
        // What fails is not the end of it: most statements do.
        let caught = dice.below(4) > 0;
        if caught {
            out.push_str("try {\n");
        }
        statement(dice, &mut out, 3);
        if caught {
            out.push_str("} catch (e) {}\n");
        }
    }
    expression(dice, &mut out, 2);
    out.push('\n');
    out
}

fn statement(dice: &mut Dice, out: &mut String, depth: usize) {
    let kind = if depth == 0 {
        dice.below(5)
    } else {
        dice.below(14)
    };
    match kind {
        0..=2 => {
            place(dice, out);
            out.push(' ');
            out.push_str(dice.of(&ASSIGN));
            out.push(' ');
            expression(dice, out, 3);
            out.push_str(";\n");
        }
        3 | 4 => {
            expression(dice, out, 3);
            out.push_str(";\n");
        }
        5 => {
            out.push_str("if ");
            expression(dice, out, 2);
            block(dice, out, depth);
        }
        6 => {
            out.push_str(dice.of(&[
                "loop",
                "while true",
                "for i in 0..1000",
                "for i in a",
                "for i in s",
                "for i in b",
                "for i in m.keys()",
            ]));
            block(dice, out, depth);
        }
        7 => {
            out.push_str("for i in ");
            expression(dice, out, 2);
            block(dice, out, depth);
        }
        8 => {
            out.push_str("try");
            block(dice, out, depth);
            out.push_str("catch (e)");
            block(dice, out, depth);
        }
        9 => {
            out.push_str("switch ");
            expression(dice, out, 2);
            out.push_str(" { 1 => 2, \"x\" => ");
            expression(dice, out, 1);
            out.push_str(", _ => ");
            expression(dice, out, 1);
            out.push_str(" }\n");
        }
        10 => {
            out.push_str("throw ");
            expression(dice, out, 2);
            out.push_str(";\n");
        }
        11 => {
            out.push_str(dice.of(&["let ", "const "]));
            out.push_str(dice.of(&VARIABLES));
            out.push_str(" = ");
            expression(dice, out, 3);
            out.push_str(";\n");
        }
        12 => out.push_str(dice.of(&[
            "for i in 0..30 { s += s; }\n",
            "for i in 0..30 { a += a; }\n",
            "for i in 0..3000 { a = [a]; }\n",
            "for i in 0..3000 { m = #{ a: m }; }\n",
            "for i in 0..1000 { let g = f; f = |x| g.call(x); }\n",
            "f = || f;\n",
            "a.push(f);\n",
            "m.a = a; a.push(m);\n",
        ])),
        _ => block(dice, out, depth),
    }
}

fn block(dice: &mut Dice, out: &mut String, depth: usize) {
    out.push_str(" {\n");
    for _ in 0..=dice.below(3) {
        statement(dice, out, depth - 1);
    }
    out.push_str("}\n");
}

fn place(dice: &mut Dice, out: &mut String) {
    out.push_str(dice.of(&VARIABLES));
    match dice.below(6) {
        0 => {
            out.push('[');
            expression(dice, out, 1);
            out.push(']');
        }
        1 => out.push_str(".a"),
        _ => {}
    }
}

fn expression(dice: &mut Dice, out: &mut String, depth: usize) {
    let kind = if depth == 0 {
        dice.below(4)
    } else {
        dice.below(16)
    };
    match kind {
        0 => out.push_str(dice.of(&NUMBERS)),
        1 => out.push_str(dice.of(&[
            "\"\"",
            "\"x\"",
            "\"a,b\"",
            "'c'",
            "true",
            "()",
            "\"[1,2]\"",
            "\"(a+)+$\"",
            "\"2024-02-29T12:00:00Z\"",
            "\"%Y\"",
            "[]",
            "#{}",
            "0..5",
            "0..=9223372036854775807",
        ])),
        2 | 3 => place(dice, out),
        4 | 5 => {
            out.push('(');
            expression(dice, out, depth - 1);
            out.push(' ');
            out.push_str(dice.of(&BINARY));
            out.push(' ');
            expression(dice, out, depth - 1);
            out.push(')');
        }
        6..=9 => {
            let takes = dice.below(METHODS.len());
            out.push_str(dice.of(&VARIABLES));
            out.push('.');
            out.push_str(dice.of(METHODS[takes]));
            arguments(dice, out, depth, takes);
        }
        10 | 11 => {
            let takes = dice.below(FUNCTIONS.len());
            out.push_str(dice.of(FUNCTIONS[takes]));
            arguments(dice, out, depth, takes);
        }
        12 => {
            out.push_str(dice.of(&["|| ", "|x| ", "|x, y| "]));
            expression(dice, out, depth - 1);
        }
        13 => {
            out.push('[');
            expression(dice, out, depth - 1);
            out.push_str(", ");
            expression(dice, out, depth - 1);
            out.push(']');
        }
        14 => {
            out.push_str("#{ a: ");
            expression(dice, out, depth - 1);
            out.push_str(", \"b c\": ");
            expression(dice, out, depth - 1);
            out.push_str(" }");
        }
        _ => {
            out.push_str("`t${");
            expression(dice, out, depth - 1);
            out.push_str("}`");
        }
    }
}

fn arguments(dice: &mut Dice, out: &mut String, depth: usize, count: usize) {
    out.push('(');
    for index in 0..count {
        if index > 0 {
            out.push_str(", ");
        }
        expression(dice, out, depth - 1);
    }
    out.push(')');
}
