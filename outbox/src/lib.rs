//! The SQL store of sagabus.
