//! Sagas and state machines of sagabus.
