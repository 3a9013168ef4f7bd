//! A door to what reads strangers' input, for the fuzzer and nobody else.

use rdkafka::message::{Header, OwnedHeaders, OwnedMessage, Timestamp};

use crate::headers;

/// Reads a record: a byte of flags, lines of `name:value` as headers, an empty line, and the value.
pub fn record(bytes: &[u8]) {
    let (flags, rest) = bytes
        .split_first()
        .map_or((0, bytes), |(one, rest)| (*one, rest));
    let end = rest.windows(2).position(|two| two == b"\n\n");
    let (head, value) = match end {
        Some(end) => (&rest[..end], Some(rest[end + 2..].to_vec())),
        None => (rest, None),
    };
    let lines = head.split(|byte| *byte == b'\n');
    let all = lines.fold(OwnedHeaders::new(), |all, line| {
        let at = line.iter().position(|byte| *byte == b':');
        let (name, value) = match at {
            Some(at) => (&line[..at], Some(&line[at + 1..])),
            None => (line, None),
        };
        // The driver makes a text of C out of it, which ends at the first zero.
        let name = String::from_utf8_lossy(name).replace('\0', "");
        all.insert(Header { key: &name, value })
    });
    let millis = i64::from(flags) - 1;
    let record = OwnedMessage::new(
        value,
        (flags & 1 == 1).then(|| rest.iter().copied().take(7).collect()),
        "orders".to_owned(),
        Timestamp::CreateTime(millis.saturating_mul(i64::MAX / 127)),
        3,
        42,
        (flags & 2 == 0).then_some(all),
    );
    let implied = (flags & 4 == 4).then_some("shop.placed");
    if let Some(understood) = headers::read(&record, "cluster", implied) {
        let _ = understood.envelope.check();
    }
}
