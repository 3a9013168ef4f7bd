//! What the in-memory store holds, summed up by what a release has to know to go on with it.

use std::collections::BTreeMap;

use super::database::Database;
use crate::admin::{InstanceShape, SHAPES_MAX, WaitingShape, version_from_header};
use crate::headers;
use crate::unit_of_work::InstanceStatus;

impl Database {
    pub(super) fn instance_shapes(&self) -> Vec<InstanceShape> {
        let mut shapes: BTreeMap<_, (u64, String)> = BTreeMap::new();
        let all = self.instances.values().map(|one| &one.instance);
        for one in all.filter(|one| one.status == InstanceStatus::Running) {
            let shape = (one.id.kind.to_string(), &one.state, one.schema_version);
            let known = shapes.entry(shape).or_insert((0, one.id.key.to_string()));
            known.0 += 1;
            if *one.id.key < *known.1 {
                known.1 = one.id.key.to_string();
            }
        }
        let shapes = shapes.into_iter().take(SHAPES_MAX as usize);
        shapes
            .map(
                |((kind, state, schema_version), (count, key))| InstanceShape {
                    kind,
                    state: state.clone(),
                    schema_version,
                    count,
                    key,
                },
            )
            .collect()
    }

    pub(super) fn waiting_shapes(&self) -> Vec<WaitingShape> {
        let mut shapes: BTreeMap<_, u64> = BTreeMap::new();
        for row in self.outbox.stored(0).filter(|row| !row.is_stub()) {
            let Some(endpoint) = row.destination.strip_prefix('@') else {
                continue;
            };
            let version = row.envelope.headers.get(headers::VERSION);
            let shape = (
                endpoint.to_owned(),
                row.envelope.message_type.to_string(),
                version.map(str::to_owned),
                row.timer.map(|timer| timer.owner.kind.to_string()),
            );
            *shapes.entry(shape).or_default() += 1;
        }
        let shapes = shapes.into_iter().take(SHAPES_MAX as usize);
        shapes
            .map(
                |((endpoint, message_type, version, timer_of), count)| WaitingShape {
                    endpoint,
                    message_type,
                    version: version_from_header(version.as_deref()),
                    timer_of,
                    count,
                },
            )
            .collect()
    }
}
