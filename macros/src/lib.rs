//! Derives for sagabus messages and sagas.
