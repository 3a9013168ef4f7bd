//! Every connection is ended, again and again.

use std::time::Duration;

use sagabus::PgStore;
use sagabus_testkit::wait::grow_older;

use crate::databases::say;
use crate::killed::machine::is_hopeless;
use sagabus_testkit::transfers::{bounces, cannot_be_noted, stumbles};

use super::site::{Site, assert_dead, run, send};

/// Between two terminations.
const PAUSE: Duration = Duration::from_millis(100);
const ROUNDS: usize = 30;

#[test]
fn connections_that_are_ended_all_the_time_cost_no_message_an_attempt() {
    const TRANSFERS: i64 = 250;
    run(async {
        let Some(site) = Site::open("terminated").await else {
            return;
        };
        let store = PgStore::connect(&site.url).await.expect("it answers");
        let host = site.start(&store).await;
        let bus = host.bus();
        let sending = send(&bus, 0..TRANSFERS);
        let terminating = async {
            let mut ended = 0;
            for _ in 0..ROUNDS {
                grow_older(PAUSE).await;
                // The test's own connections ask, and only ask; the host's do not.
                let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                    where datname = current_database() and pid <> pg_backend_pid()";
                ended += site.number(end).await;
            }
            ended
        };
        let ((), ended) = tokio::join!(sending, terminating);
        let effects = site.judge(&host, TRANSFERS).await;

        let attempts = site.attempts_of_the_dead().await;
        let of_outages = attempts.iter().flatten();
        let of_outages: Vec<_> = of_outages
            .filter(|error| !error.contains("this one cannot be noted"))
            .collect();
        let count = |is: fn(i64) -> bool| (0..TRANSFERS).filter(|id| is(*id)).count();
        // Four attempts before a dead letter, one where it is hopeless, two before a stumbling one
        // succeeds.
        let expected = 4 * count(cannot_be_noted) - 3 * count(is_hopeless)
            + 2 * count(|id| stumbles(id) && !bounces(id));
        let failed = host.counters().failed_attempts.get();
        say(&format!(
            "terminated: {ended} connections in {ROUNDS} rounds; effects {effects}, lost 0, \
             duplicated 0; dead letters {}, of their attempts {} are outages; failed attempts \
             {failed}, of handlers {expected}; resubmitted {}\n",
            attempts.len(),
            of_outages.len(),
            host.counters().resubmitted.get(),
        ));
        assert!(ended >= 60, "only {ended} connections were ended");
        assert!(of_outages.is_empty(), "{of_outages:?}");
        assert_dead(&attempts, TRANSFERS);
        assert_eq!(failed, expected as u64, "an outage is no failed attempt");
    });
}
