//! Texts that stand for amounts: `1h30m`, `64MiB`, `30%`.

/// Bytes of a size: `1048576`, `64KiB`, `64MiB`, `1GiB`, and the decimal `kB`, `MB`, `GB`.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            ("0", Some(0)),
            ("64MiB", Some(64 << 20)),
            ("1 KiB", Some(1024)),
            ("6MB", Some(6_000_000)),
            ("", None),
            ("MiB", None),
            ("1TiB", None),
            ("1.5MiB", None),
            ("99999999999999999999GiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }
}
