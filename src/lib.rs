//! sagabus.
