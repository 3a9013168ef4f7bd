//! Wakes this process when another one has written rows, and the others when this one has.

use std::time::Duration;

use sagabus_core::Lifecycle;
use sagabus_core::backoff::Backoff;
use sqlx::postgres::{PgListener, PgNotification, PgPoolOptions};
use tokio::time::{Instant, sleep_until};

use super::store::PgStore;

/// The channel's name is the same in every database, and a channel belongs to one database.
const CHANNEL: &str = "sagabus_wakeup";

const OWN_PROCESS: &str = "select pg_backend_pid()";

const NOTIFY: &str = "select pg_notify('sagabus_wakeup', '')";

/// The least time between two notifications: each takes a lock that every commit with a
/// notification in the whole server needs. Well under the 50 ms that a wake-up may take.
const NOTIFY_PAUSE: Duration = Duration::from_millis(5);

/// Listens on a connection of its own until the host drains, connecting again where it is lost.
pub(super) async fn run(store: PgStore, lifecycle: Lifecycle) {
    let mut backoff = Backoff::new("listen for wake-ups");
    while !lifecycle.is_draining() {
        let listening = async {
            let mut listener = connect(&store).await?;
            backoff.ended();
            // What was told while nobody listened is not told again.
            store.wakeups().nudge();
            listen(&store, &mut listener).await
        };
        let error = tokio::select! {
            () = lifecycle.draining() => return,
            ended = listening => match ended {
                Ok(()) => continue,
                Err(error) => error,
            },
        };
        tokio::select! {
            () = lifecycle.draining() => return,
            () = backoff.failed(&error) => {}
        }
    }
}

async fn connect(store: &PgStore) -> Result<PgListener, sqlx::Error> {
    let config = store.config();
    let options = config.direct.as_ref().unwrap_or(&config.options).clone();
    let options = options.application_name("sagabus listener");
    // The driver's listener wants a pool; this one holds its one connection.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(config.connect_timeout)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// What happened.
enum Event {
    /// Some process said that it wrote rows.
    Told(u32),
    /// The connection is gone.
    Lost,
    /// This process wrote rows.
    Asked,
    /// The others may be told again.
    Due,
}

impl Event {
    fn of(told: Option<PgNotification>) -> Self {
        told.map_or(Self::Lost, |told| Self::Told(told.process_id()))
    }
}

/// Passes notifications on in both directions; `Ok` when the connection was lost without a word.
async fn listen(store: &PgStore, listener: &mut PgListener) -> Result<(), sqlx::Error> {
    let own: i32 = sqlx::query_scalar(OWN_PROCESS)
        .fetch_one(&mut *listener)
        .await?;
    let mut quiet_until = Instant::now();
    let mut is_asked = false;
    loop {
        let event = tokio::select! {
            told = listener.try_recv() => Event::of(told?),
            () = store.outbound().notified(), if !is_asked => Event::Asked,
            () = sleep_until(quiet_until), if is_asked => Event::Due,
        };
        match event {
            // What this process wrote it knew before.
            Event::Told(process) if i64::from(process) == i64::from(own) => {}
            Event::Told(_) => store.wakeups().nudge(),
            Event::Asked => is_asked = true,
            Event::Due => {
                sqlx::query(NOTIFY).execute(&mut *listener).await?;
                (is_asked, quiet_until) = (false, Instant::now() + NOTIFY_PAUSE);
            }
            Event::Lost => return Ok(()),
        }
    }
}
