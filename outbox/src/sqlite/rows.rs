//! Small rows as JSON: one argument for any number of them.

use std::fmt::Write as _;

use sagabus_core::unit_of_work::RowKey;

/// A JSON array of small rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    text: String,
    /// How many there are.
    pub(super) count: i64,
    /// A text holds a NUL, which no database of ours takes.
    pub(super) has_nul: bool,
}

impl Rows {
    pub(super) fn begin(&mut self) -> &mut Self {
        self.text.push(if self.count == 0 { '[' } else { ',' });
        self.text.push('[');
        self.count += 1;
        self
    }

    pub(super) fn end(&mut self) {
        self.text.pop();
        self.text.push(']');
    }

    pub(super) fn int(&mut self, value: i64) -> &mut Self {
        let _ = write!(self.text, "{value},"); // Writing to a string cannot fail.
        self
    }

    pub(super) fn maybe_int(&mut self, value: Option<i64>) -> &mut Self {
        match value {
            Some(value) => self.int(value),
            None => self.null(),
        }
    }

    fn null(&mut self) -> &mut Self {
        self.text.push_str("null,");
        self
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
        if value.bytes().all(is_plain) {
            self.text.push('"');
            self.text.push_str(value);
            self.text.push('"');
        } else {
            // SQLite's JSON ends a text at a NUL: two keys would become one.
            self.has_nul |= value.contains('\0');
            let quoted = serde_json::to_string(value).expect("text is always JSON");
            self.text.push_str(&quoted);
        }
        self.text.push(',');
        self
    }

    pub(super) fn maybe_text(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => self.null(),
        }
    }

    pub(super) fn row_key(&mut self, row: RowKey) -> &mut Self {
        self.begin().int(row.id).int(i64::from(row.epoch))
    }

    pub(super) fn json(mut self) -> String {
        if self.count > 0 {
            self.text.push(']');
        }
        self.text
    }
}
