//! The in-memory backends keep the contracts.

mod memory_store {
    use sagabus_core::memory::MemoryStore;
    use sagabus_testkit::store::StoreUnderTest;

    async fn memory() -> Option<StoreUnderTest> {
        Some(StoreUnderTest::new(MemoryStore::new()))
    }

    sagabus_testkit::store_suite!(memory);
}

mod memory_bus {
    use sagabus_core::memory::MemoryStore;
    use sagabus_testkit::store::StoreUnderTest;

    async fn memory() -> Option<StoreUnderTest> {
        Some(StoreUnderTest::new(MemoryStore::new()))
    }

    sagabus_testkit::bus_suite!(memory);
}

/// What a host promises, it promises of sealed messages.
mod memory_bus_under_seal {
    use sagabus_core::memory::MemoryStore;
    use sagabus_core::{Keyring, Protection};
    use sagabus_testkit::bus::BusUnderTest;
    use sagabus_testkit::store::StoreUnderTest;

    async fn sealed() -> Option<BusUnderTest> {
        let keys = Keyring::new("suite", [5; 32]).expect("a usable id");
        let bus = BusUnderTest::from(StoreUnderTest::new(MemoryStore::new()));
        let bus = bus.declaring(move |host| host.protects(keys.clone(), Protection::Required));
        Some(bus.except(EXCEPT))
    }

    /// What is about hosts without keys, or bodies that are not sealed.
    const EXCEPT: &[(&str, &str)] = &[
        (
            "a_body_that_cannot_be_decoded_is_a_dead_letter",
            "it compares bytes, which are sealed",
        ),
        (
            "an_error_is_tried_at_once_then_later_then_never",
            "it compares bytes, which are sealed",
        ),
        (
            "a_dead_letter_that_cannot_be_read_is_published_as_it_came",
            "it compares bytes, which are sealed",
        ),
        (
            "an_older_message_that_fits_no_shape_is_a_dead_letter",
            "what decoding says is left out under seal",
        ),
        (
            "headers_out_of_bounds_are_refused_where_they_are_sent",
            "sealing refuses them before they are stored",
        ),
        (
            "a_dead_letter_may_be_stored_without_its_body",
            "a sealed body is kept",
        ),
        (
            "what_is_not_sealed_is_a_dead_letter_where_that_is_required",
            "its stranger has keys here",
        ),
        (
            "what_was_not_sealed_for_this_message_is_a_dead_letter",
            "its stranger has keys here",
        ),
        (
            "a_rehearsal_says_what_would_happen_and_leaves_nothing",
            "it hands over a message that nobody sealed",
        ),
        (
            "what_may_touch_the_outside_is_not_rehearsed",
            "it hands over a message that nobody sealed",
        ),
        (
            "an_errand_is_done_by_one_host_and_while_its_endpoint_is_paused",
            "it hands over a message that nobody sealed",
        ),
    ];

    sagabus_testkit::bus_suite!(sealed);
}

mod memory_transport {
    use sagabus_core::memory::MemoryTransport;
    use sagabus_testkit::transport::TransportUnderTest;

    async fn memory() -> Option<TransportUnderTest> {
        let broker = MemoryTransport::new();
        Some(TransportUnderTest::new(broker.clone(), broker).reaching(10_000))
    }

    sagabus_testkit::transport_suite!(
        memory,
        may_skip: [CutsConnections, Nacks, CutsBeforeConfirm]
    );
}
