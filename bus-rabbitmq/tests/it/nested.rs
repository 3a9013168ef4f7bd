//! Headers that nest deep, as a client that knows no bounds sends them.

use std::io::{Read, Write};
use std::net::TcpStream;

use sagabus_core::memory::MemoryStore;
use sagabus_core::store::StoreAdmin;
use sagabus_core::{Ctx, State};
use sagabus_testkit::amqp_proxy::authority;
use sagabus_testkit::bus::parcels::{Packed, note};
use sagabus_testkit::bus::{Log, start, stop};
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::eventually;

use crate::site::{builder, config, url};

/// As many levels as fit into a frame that brokers and clients agree on.
const LEVELS: usize = 26_000;

/// A client of a few lines: any other has a stack that ends.
struct Client(TcpStream);

impl Client {
    fn connect(url: &str) -> Self {
        let mut stream = TcpStream::connect(authority(url)).expect("the broker listens");
        stream
            .write_all(b"AMQP\x00\x00\x09\x01")
            .expect("it is sent");
        let mut client = Self(stream);
        client.wait_for(10, 10);
        let login = [
            &short("PLAIN")[..],
            &long(b"\0guest\0guest"),
            &short("en_US"),
        ]
        .concat();
        client.method(0, 10, 11, &[&long(b"")[..], &login].concat());
        client.wait_for(10, 30);
        client.method(0, 10, 31, &[0x07, 0xff, 0, 2, 0, 0, 0, 0]);
        client.method(0, 10, 40, &[&short("/")[..], &short(""), &[0]].concat());
        client.wait_for(10, 41);
        client.method(1, 20, 10, &short(""));
        client.wait_for(20, 11);
        client
    }

    /// Publishes under a type, with a table as its headers.
    fn publish(&mut self, exchange: &str, message_type: &str, headers: &[u8], body: &[u8]) {
        let to = [&[0, 0][..], &short(exchange), &short(""), &[0]].concat();
        self.method(1, 60, 40, &to);
        let (with_headers, with_type) = (1_u16 << 13, 1_u16 << 5);
        let content = [
            &[0, 60, 0, 0, 0, 0, 0, 0][..],
            &length(body.len()),
            &(with_headers | with_type).to_be_bytes(),
            &long(headers),
            &short(message_type),
        ];
        self.frame(2, 1, &content.concat());
        self.frame(3, 1, body);
    }

    fn method(&mut self, channel: u8, class: u8, method: u8, arguments: &[u8]) {
        let head = [0, class, 0, method];
        self.frame(1, channel, &[&head, arguments].concat());
    }

    fn frame(&mut self, kind: u8, channel: u8, content: &[u8]) {
        let head = [&[kind, 0, channel][..], &length(content.len())].concat();
        let frame = [&head[..], content, &[0xce]].concat();
        self.0.write_all(&frame).expect("it is sent");
    }

    /// Reads frames until one is this method's.
    fn wait_for(&mut self, class: u8, method: u8) {
        loop {
            let mut head = [0; 7];
            self.0.read_exact(&mut head).expect("the broker answers");
            let size = u32::from_be_bytes(head[3..].try_into().expect("four bytes")) as usize;
            let mut content = vec![0; size + 1];
            self.0.read_exact(&mut content).expect("the frame is whole");
            if head[0] == 1 && content[..4] == [0, class, 0, method] {
                return;
            }
            assert_ne!(content[..4], [0, 10, 0, 50], "the broker refused");
        }
    }
}

fn length(of: usize) -> [u8; 4] {
    u32::try_from(of).expect("it is short").to_be_bytes()
}

fn short(text: &str) -> Vec<u8> {
    let size = u8::try_from(text.len()).expect("it is short");
    [&[size][..], text.as_bytes()].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&length(bytes.len())[..], bytes].concat()
}

/// A table with one header, of lists in lists.
fn nested(levels: usize) -> Vec<u8> {
    // From the inside out: each list says how long all that is in it is.
    let inner = levels * 5;
    let mut table = short("deep");
    for level in 0..levels {
        table.push(b'A');
        table.extend_from_slice(&length(inner - (level + 1) * 5));
    }
    table
}

#[test]
fn headers_that_nest_thousands_deep_make_a_dead_letter_and_the_host_lives() {
    async fn hear(event: Packed, log: State<Log>, _: Ctx) {
        note(event, log).await;
    }
    let Some(url) = url() else { return };
    block_on(async {
        let (config, store, log) = (config(&url), MemoryStore::new(), Log::default());
        let host =
            start(builder(&config, &store, &log).endpoint("audit", |e| e.handle(hear))).await;
        let exchange = format!("{}event/parcels.packed", config.namespace);
        let mut client = Client::connect(&url);
        for levels in [LEVELS, 65, 60] {
            let body = format!(r#"{{"n":{levels}}}"#);
            client.publish(
                &exchange,
                "parcels.packed",
                &nested(levels),
                body.as_bytes(),
            );
        }
        // What nests less is only strange, and what follows comes all the same.
        log.wait_for(1).await;
        let dead = eventually("two dead letters", || async {
            let dead = store.dead_letters(10).await.expect("they can be read");
            (dead.len() == 2).then_some(dead)
        });
        for dead in dead.await.0 {
            assert_eq!(dead.reason, "out_of_bounds");
            let said = format!("{:?}", dead.attempts);
            assert!(said.contains("nests more than 64 deep"), "{dead:?}");
        }
        assert_eq!(log.lines().len(), 1);
        stop(host).await;
    });
}
