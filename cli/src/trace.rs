//! `sagabus messages trace`.

use sagabus_core::MessageId;
use sagabus_core::admin::StoreAdmin;
use sagabus_ops::trace::{self, MESSAGES_MAX, Traced};

use crate::failure::Failure;
use crate::messages::{END_UNKNOWN, given_up, handled, waiting};
use crate::output::Output;

/// The deepest place that moves a line to the right: deeper ones would leave the screen.
const DEPTH_MAX: usize = 20;

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    asked: MessageId,
    out: &Output,
) -> Result<(), Failure> {
    let found = trace::trace(admin, asked).await?;
    if out.json(|| trace::shape(&found))? {
        return Ok(());
    }
    if let Some(conversation) = found.conversation {
        out.line(&format!("conversation {conversation}"))?;
    }
    for one in &found.messages {
        print(one, asked, out)?;
    }
    if found.is_cut {
        out.note(&format!(
            "there may be more: {MESSAGES_MAX} messages are shown, and what waits among the oldest \
             10000 rows"
        ));
    }
    Ok(())
}

fn print(one: &Traced, asked: MessageId, out: &Output) -> Result<(), Failure> {
    let pad = "  ".repeat(one.depth.min(DEPTH_MAX));
    let message_type = one.message_type.as_deref().unwrap_or("(type not known)");
    let mark = if one.message == asked { "> " } else { "" };
    out.line(&format!("{pad}{mark}{message_type} {}", one.message))?;
    let handled = one
        .handled
        .iter()
        .map(|one| format!("{}  {}", one.at, handled(one)));
    let dead = one
        .dead_letters
        .iter()
        .map(|one| format!("{}  {}", one.at, given_up(one)));
    let rows = one
        .rows
        .iter()
        .map(|one| format!("{}  {}", one.created_at, waiting(one)));
    for line in handled.chain(dead).chain(rows) {
        out.line(&format!("{pad}    {line}"))?;
    }
    if !one.is_known() {
        out.line(&format!("{pad}    {END_UNKNOWN}"))?;
    }
    Ok(())
}
