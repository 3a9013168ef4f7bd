//! A record as nobody's driver would write it, over Kafka's own protocol.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Writes one record with one header to a topic's first partition.
pub(crate) fn produce(broker: &str, topic: &str, header: (&[u8], &[u8]), value: &[u8]) {
    let batch = batch(&record(header, value));
    let mut request = Vec::new();
    // Produce, version 3, number 7, client "raw", no transaction, all copies, ten seconds.
    request.extend(b"\0\0\0\x03\0\0\0\x07\0\x03raw\xff\xff\xff\xff\0\0\x27\x10");
    request.extend(b"\0\0\0\x01");
    request.extend(short(topic.len()).to_be_bytes());
    request.extend(topic.as_bytes());
    // One partition: the first.
    request.extend(b"\0\0\0\x01\0\0\0\0");
    request.extend(length(batch.len()).to_be_bytes());
    request.extend(batch);
    let mut stream = TcpStream::connect(broker).expect("the broker is there");
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).expect("it can be set");
    let bytes = length(request.len()).to_be_bytes();
    let sent = stream.write_all(&[&bytes[..], &request].concat());
    sent.expect("it is sent");
    // Length and number, one topic, its name, one partition, the first, and the error's code.
    let mut answer = vec![0; 4 + 4 + 4 + 2 + topic.len() + 4 + 4 + 2];
    stream.read_exact(&mut answer).expect("the broker answers");
    assert!(answer.ends_with(&[0, 0]), "refused: {answer:?}");
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("it is short")
}

fn short(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("it is short")
}

/// A number as records have it: zigzag, seven bits a byte.
fn number(value: i64) -> Vec<u8> {
    let mut left = ((value << 1) ^ (value >> 63)).cast_unsigned();
    let mut bytes = Vec::new();
    while left >= 0x80 {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes
}

fn text(bytes: &[u8]) -> Vec<u8> {
    let length = i64::from(length(bytes.len()));
    [number(length), bytes.to_vec()].concat()
}

fn record((name, header): (&[u8], &[u8]), value: &[u8]) -> Vec<u8> {
    // No attributes, no time, the first, no key; one header.
    let parts = [
        vec![0, 0, 0],
        number(-1),
        text(value),
        number(1),
        text(name),
        text(header),
    ];
    text(&parts.concat())
}

fn batch(record: &[u8]) -> Vec<u8> {
    // What is summed: attributes, the last number, two times, no producer, one record.
    let now = sagabus_core::clock::now().as_micros() / 1000;
    let mut summed = b"\0\0\0\0\0\0".to_vec();
    summed.extend([now.to_be_bytes(), now.to_be_bytes()].concat());
    summed.extend([0xff; 14]);
    summed.extend(b"\0\0\0\x01");
    summed.extend(record);
    // First number, length of the rest, no leader's epoch, version 2 of batches.
    let mut batch = vec![0; 8];
    batch.extend((length(summed.len()) + 9).to_be_bytes());
    batch.extend(b"\xff\xff\xff\xff\x02");
    batch.extend(crc32c(&summed).to_be_bytes());
    batch.extend(summed);
    batch
}

/// Castagnoli's sum, bit by bit: the records are short.
fn crc32c(bytes: &[u8]) -> u32 {
    let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            let is_odd = sum & 1 == 1;
            (sum >> 1) ^ if is_odd { 0x82f6_3b78 } else { 0 }
        })
    });
    !sum
}

#[test]
fn the_sum_is_castagnolis() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
