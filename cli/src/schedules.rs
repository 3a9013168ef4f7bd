//! `sagabus schedules`.

use clap::Subcommand;
use sagabus_core::Timestamp;
use sagabus_core::admin::StoreAdmin;
use sagabus_core::schedule::{Schedule, ScheduleVerb};
use sagabus_ops::schedules::{self, StoredSchedule};
use sagabus_ops::shape;
use serde_json::json;

use crate::arguments::OperatorArguments;
use crate::confirm::{Answer, confirm, operator};
use crate::failure::Failure;
use crate::output::Output;
use crate::text::ago;

#[derive(Debug, Subcommand)]
pub(crate) enum SchedulesVerb {
    /// List them: when they fire next, and how many live hosts declare them.
    #[command(after_help = "Example:\n  sagabus schedules list")]
    List,
    /// Show one: what was declared, and what it fired.
    #[command(after_help = "Example:\n  sagabus schedules show daily-report")]
    Show {
        /// Its name.
        name: String,
    },
    /// Let its times pass by until it is resumed.
    #[command(
        after_help = "Example:\n  sagabus schedules pause daily-report --yes --why 'month end'"
    )]
    Pause {
        /// Its name.
        name: String,
    },
    /// Let it go on; what passed meanwhile is not made up for.
    #[command(after_help = "Example:\n  sagabus schedules resume daily-report --yes")]
    Resume {
        /// Its name.
        name: String,
    },
    /// Fire it once, now, whatever its times are.
    #[command(after_help = "Example:\n  sagabus schedules fire daily-report --yes")]
    Fire {
        /// Its name.
        name: String,
    },
    /// Forget one that no live host declares any more.
    #[command(after_help = "Example:\n  sagabus schedules remove old-report --yes")]
    Remove {
        /// Its name.
        name: String,
    },
}

pub(crate) async fn run(
    admin: &dyn StoreAdmin,
    now: Timestamp,
    verb: &SchedulesVerb,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let (verb, name) = match verb {
        SchedulesVerb::List => return list(&schedules::list(admin).await?, now, out),
        SchedulesVerb::Show { name } => return show(&schedules::show(admin, name).await?, out),
        SchedulesVerb::Pause { name } => (ScheduleVerb::Pause, name),
        SchedulesVerb::Resume { name } => (ScheduleVerb::Resume, name),
        SchedulesVerb::Fire { name } => (ScheduleVerb::Fire, name),
        SchedulesVerb::Remove { name } => (ScheduleVerb::Remove, name),
    };
    change(admin, verb, name, who, out).await
}

fn list(found: &[StoredSchedule], now: Timestamp, out: &Output) -> Result<(), Failure> {
    let document = || json!({ "schedules": found.iter().map(shape::schedule).collect::<Vec<_>>() });
    if out.json(document)? {
        return Ok(());
    }
    let rows: Vec<_> = found.iter().map(|one| cells(one, now)).collect();
    let columns = [
        "schedule", "state", "next", "last", "fired", "hosts", "when",
    ];
    out.table(&columns, &rows, "no schedule was ever declared")
}

fn cells(one: &StoredSchedule, now: Timestamp) -> Vec<String> {
    let when = |schedule: &Schedule| {
        let recurrence = &schedule.declared.recurrence;
        format!("{} ({})", recurrence.expression(), recurrence.zone())
    };
    let schedule = one.schedule.as_ref();
    let next = schedule.and_then(|schedule| schedule.next);
    let last = schedule.and_then(|schedule| schedule.firings.last());
    vec![
        one.name.clone(),
        one.state.replace('_', " "),
        next.map_or_else(String::new, |next| next.to_string()),
        last.map_or_else(String::new, |last| ago(now, last.at)),
        schedule.map_or_else(String::new, |schedule| schedule.fired.to_string()),
        one.declared_by.to_string(),
        schedule.map_or_else(|| "cannot be read".to_owned(), when),
    ]
}

fn show(one: &StoredSchedule, out: &Output) -> Result<(), Failure> {
    if out.json(|| shape::schedule(one))? {
        return Ok(());
    }
    out.line(&format!(
        "schedule {} ({})",
        one.name,
        one.state.replace('_', " ")
    ))?;
    out.field(
        "hosts",
        Some(&format!("{} live ones declare it", one.declared_by)),
    )?;
    let Some(schedule) = &one.schedule else {
        return out.line("what it holds cannot be read: a newer release wrote it, or a hand");
    };
    let declared = &schedule.declared;
    out.field("declared by", Some(&declared.host))?;
    out.field("fires", Some(&declared.message_type))?;
    out.field("when", Some(declared.recurrence.expression()))?;
    out.field("zone", Some(declared.recurrence.zone()))?;
    let next = schedule.next.map(|next| next.to_string());
    out.field("next", Some(next.as_deref().unwrap_or("never")))?;
    out.field("fired", Some(&schedule.fired.to_string()))?;
    for firing in &schedule.firings {
        let (due, at, message) = (firing.due, firing.at, firing.message);
        out.line(&format!("  {at} for {due}: message {message}"))?;
    }
    Ok(())
}

async fn change(
    admin: &dyn StoreAdmin,
    verb: ScheduleVerb,
    name: &str,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    let (todo, done) = match verb {
        ScheduleVerb::Pause => ("pause", "paused"),
        ScheduleVerb::Resume => ("resume", "resumed"),
        ScheduleVerb::Fire => ("fire", "fired within a second"),
        ScheduleVerb::Remove => ("remove", "removed"),
    };
    // A name that is not there is said before anybody is asked.
    let known = schedules::show(admin, name).await?;
    let what = format!("{todo} schedule `{name}`");
    if confirm(who, &what)? == Answer::Preview {
        let document = || json!({ "preview": { "count": 1 }, "sample": [shape::schedule(&known)] });
        if out.json(document)? {
            return Ok(());
        }
        return out.line(&what);
    }
    schedules::change(admin, &operator(who), verb, name).await?;
    if out.json(|| json!({ "changed": 1, "schedule": name }))? {
        return Ok(());
    }
    out.line(done)
}
