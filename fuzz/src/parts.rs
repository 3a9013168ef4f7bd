//! Bytes, cut into what a target wants.

/// Takes the first byte off; 0 where there is none.
pub(crate) fn flag(bytes: &[u8]) -> (u8, &[u8]) {
    bytes
        .split_first()
        .map_or((0, bytes), |(first, rest)| (*first, rest))
}

/// Cuts at the first empty line: a head of lines, and the rest as it is.
pub(crate) fn head_and_body(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.windows(2).position(|two| two == b"\n\n");
    let (head, body) = match end {
        Some(end) => (&bytes[..end], &bytes[end + 2..]),
        None => (bytes, &[][..]),
    };
    (text(head), body)
}

/// Bytes as text; what is none is replaced, as a broker's strings are.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
