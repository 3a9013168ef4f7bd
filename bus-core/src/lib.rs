//! Vocabulary, contracts and engine of sagabus.
