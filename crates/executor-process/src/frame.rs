//! Frames on a socket: the length of the head, the length of the body, the head as JSON, the body
//! as it is.

use std::io::{self, Read, Write};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// Bytes of a frame; more than the largest answer that a limit allows.
const MAX: usize = 1 << 30;
const PREFIX: usize = 8;

/// Writes a frame in one piece.
pub(crate) fn write(to: &mut impl Write, head: &impl Serialize, body: &[u8]) -> io::Result<()> {
    let mut out = vec![0; PREFIX];
    serde_json::to_writer(&mut out, head)?;
    let length = out.len() - PREFIX;
    let too_large = || io::Error::new(io::ErrorKind::InvalidData, "the frame is too large");
    if length + body.len() > MAX {
        return Err(too_large());
    }
    let part = |length: usize| u32::try_from(length).map_err(|_| too_large());
    out[..4].copy_from_slice(&part(length)?.to_le_bytes());
    out[4..PREFIX].copy_from_slice(&part(body.len())?.to_le_bytes());
    if body.len() <= 64 << 10 {
        out.extend_from_slice(body);
        return to.write_all(&out);
    }
    to.write_all(&out)?;
    to.write_all(body)
}

/// Reads one.
pub(crate) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<(T, Bytes)> {
    let mut prefix = [0; PREFIX];
    from.read_exact(&mut prefix)?;
    let mut lengths = prefix.as_slice();
    let (head, body) = (length(&mut lengths)?, length(&mut lengths)?);
    if head + body > MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the frame is too large",
        ));
    }
    let head = part(from, head)?;
    let head = serde_json::from_slice(&head)?;
    Ok((head, Bytes::from(part(from, body)?)))
}

fn length(from: &mut impl Read) -> io::Result<usize> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes) as usize)
}

/// Memory is taken as the bytes come: a length alone costs nothing.
fn part(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length.min(64 << 10));
    let read = from.take(length as u64).read_to_end(&mut bytes)?;
    if read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_and_half_a_frame_is_none() {
        let mut wire = Vec::new();
        write(&mut wire, &("head", 7), b"body").expect("written");
        let (head, body): ((String, u8), Bytes) = read(&mut wire.as_slice()).expect("read");
        assert_eq!(
            (head.0.as_str(), head.1, body.as_ref()),
            ("head", 7, b"body".as_slice())
        );
        for cut in 0..wire.len() {
            let half: io::Result<((String, u8), Bytes)> = read(&mut &wire[..cut]);
            assert!(half.is_err(), "{cut} bytes");
        }
        let huge = [0xff; 16];
        assert!(read::<()>(&mut huge.as_slice()).is_err());
    }
}
