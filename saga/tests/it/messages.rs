//! Messages about an instance of a number.

/// Declares messages of one saga, each with its kind and name, and with what else it says.
macro_rules! messages {
    ($saga:ident: $($kind:ident $name:ident $type:literal $({ $($field:ident: $of:ty),* })?,)*) => {
        $(
            #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
            pub(crate) struct $name {
                pub(crate) id: u64,
                $($(pub(crate) $field: $of,)*)?
            }

            impl sagabus_core::Message for $name {
                const TYPE: &'static str = $type;
                const KIND: sagabus_core::Kind = sagabus_core::Kind::$kind;
            }
            impl sagabus_core::$kind for $name {}

            impl sagabus_saga::Correlate<$saga> for $name {
                fn key(&self) -> u64 {
                    self.id
                }
            }
        )*
    };
}
