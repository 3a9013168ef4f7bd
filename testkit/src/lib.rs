//! Conformance suites and fault injection for sagabus.
