//! A service in Python, with pika, that knows nothing of us.

use std::collections::BTreeMap;

use sagabus_core::memory::MemoryStore;
use sagabus_core::{Ctx, State};
use sagabus_testkit::bus::parcels::{Answered, Ask, Pack, Packed, quiet};
use sagabus_testkit::bus::{Log, start, stop};
use sagabus_testkit::python;
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::eventually;
use serde_json::{Value, json};

use crate::site::{builder, config, url};

async fn pack(command: Pack, cx: Ctx, log: State<Log>) -> Packed {
    log.add(format!("pack {}", cx.message_id()));
    Packed { n: command.n }
}

async fn answer(question: Ask, cx: Ctx, log: State<Log>) -> Answered {
    log.add(format!("ask {}", cx.message_id()));
    Answered { n: question.n + 1 }
}

#[test]
fn pika_sends_a_command_hears_its_event_and_is_answered() {
    let Some(url) = url() else { return };
    block_on(async {
        let (config, store, log) = (config(&url), MemoryStore::new(), Log::default());
        let builder = builder(&config, &store, &log);
        let host = start(builder.endpoint("packing", |e| e.handle(pack).handle(answer))).await;
        let words = [url.as_str(), &config.namespace];
        let Some(lines) = python::run("pika_client.py", &words).await else {
            return;
        };
        // It sends everything twice, under one identity.
        let look = || async {
            let counted: BTreeMap<_, _> = host.counters().snapshot().into_iter().collect();
            (counted["duplicates"] == 2).then_some(())
        };
        eventually("two copies that were recognised", look).await;
        quiet(&store).await;
        stop(host).await;
        let got: Vec<Value> = lines
            .iter()
            .map(|line| serde_json::from_str(line).expect("it prints JSON"))
            .collect();
        let shown = |one: &Value| (one["type"].clone(), one["data"].clone());
        let shown: Vec<_> = got.iter().map(shown).collect();
        let event = (json!("parcels.packed"), json!({"n": 7}));
        assert_eq!(
            shown,
            [event, (json!("parcels.answered"), json!({"n": 42}))]
        );
        let handled = ["pack", "ask"].into_iter().zip(&got).map(|(verb, one)| {
            let id = one["caused_by"].as_str().expect("it names its command");
            format!("{verb} {id}")
        });
        // A copy that came while the first one was handled ran as well, and committed nothing.
        let mut lines = log.lines();
        lines.dedup();
        assert_eq!(lines, handled.collect::<Vec<_>>());
    });
}
