//! What is stored, summed up by what a release has to know to go on with it.

/// The most entries that one answer has: sagas, states and versions, or endpoints, types and
/// versions, of a database that many services share.
pub const SHAPES_MAX: u32 = 5_000;

/// Running instances that are alike to whoever has to go on with them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceShape {
    /// The saga's or machine's name.
    pub kind: String,
    /// The named state of a machine.
    pub state: Option<String>,
    /// The version of their data.
    pub schema_version: i32,
    /// How many there are.
    pub count: u64,
    /// The key of one of them, the least.
    pub key: String,
}

/// Messages that are alike to whoever has to handle them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaitingShape {
    /// The endpoint at which they wait.
    pub endpoint: String,
    /// Their type.
    pub message_type: String,
    /// The version of their bodies, as their headers say it.
    pub version: u32,
    /// The kind of instance whose timers they are; `None` for other messages.
    pub timer_of: Option<String>,
    /// How many there are.
    pub count: u64,
}

/// Reads what a header says of a version; what is no number is of no version that anybody knows.
pub fn version_from_header(text: Option<&str>) -> u32 {
    text.map_or(1, |text| text.parse().unwrap_or(u32::MAX))
}
