//! A door to what reads what instances hold, for the fuzzer and nobody else.

use std::collections::BTreeMap;

use bytes::Bytes;
use sagabus_core::InstanceId;
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::InstanceStatus;

use crate::saga::Saga;
use crate::stored::{read, write};

/// Reads what an instance holds. What can be read is written as it is read.
pub fn stored<S: Saga>(schema_version: i32, data: Bytes) {
    let mut instance = Instance {
        id: InstanceId {
            kind: "order".into(),
            key: "1".into(),
        },
        version: 1,
        status: InstanceStatus::Running,
        state: None,
        schema_version,
        data,
        timers: BTreeMap::new(),
        origin: None,
    };
    let Ok((first, book)) = read::<S>(&instance) else {
        return;
    };
    let written = write(&first, &book).expect("what was read can be written");
    instance.data = written.clone();
    instance.schema_version = S::SCHEMA_VERSION;
    let (again, same) = read::<S>(&instance).expect("what we wrote can be read");
    assert_eq!(same, book);
    let twice = write(&again, &same).expect("it was written before");
    assert_eq!(twice, written);
}
