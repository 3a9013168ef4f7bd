//! A service in Python, with confluent-kafka, that knows nothing of us.

use sagabus_core::memory::MemoryStore;
use sagabus_core::{Ctx, State};
use sagabus_testkit::bus::parcels::{Pack, Packed, counted, quiet};
use sagabus_testkit::bus::{Log, start, stop};
use sagabus_testkit::python;
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::eventually;
use serde_json::{Value, json};

use crate::bus::builder;
use crate::cluster::{brokers, own};

async fn pack(command: Pack, cx: Ctx, log: State<Log>) -> Packed {
    let key = cx
        .headers()
        .get("sagabus-key")
        .unwrap_or_default()
        .to_owned();
    log.add(format!("pack {key} {}", cx.message_id()));
    Packed { n: command.n }
}

#[test]
fn confluent_kafka_sends_a_command_and_hears_its_event() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let (config, store, log) = (own(&brokers), MemoryStore::new(), Log::default());
        let builder = builder(&config, &store, &log);
        let host = start(builder.endpoint("packing", |e| e.handle(pack))).await;
        let words = [brokers.as_str(), &config.prefix];
        let Some(lines) = python::run("confluent_kafka_client.py", &words).await else {
            return;
        };
        // It sends the command twice, under one identity.
        let look = || async { (counted(&host, "duplicates") == 1).then_some(()) };
        eventually("a copy that was recognised", look).await;
        quiet(&store).await;
        stop(host).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        let event: Value = serde_json::from_str(&lines[0]).expect("it prints JSON");
        assert_eq!(event["type"], "parcels.packed");
        assert_eq!(event["data"], json!({"n": 7}));
        let id = event["caused_by"].as_str().expect("it names its command");
        // A copy that came while the first one was handled ran as well, and committed nothing.
        let mut lines = log.lines();
        lines.dedup();
        assert_eq!(lines, [format!("pack shelf-3 {id}")]);
    });
}
