//! Databases of their own for tests, on the server that `SAGABUS_POSTGRES_URL` names.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// Names the server on which tests make their databases.
const URL: &str = "SAGABUS_POSTGRES_URL";

/// Returns the server's address; `None`, with a word, where there is no server.
pub(crate) fn server() -> Option<String> {
    match std::env::var(URL) {
        Ok(url) => Some(url),
        Err(_) => {
            let is_required = std::env::var_os("SAGABUS_SERVICES_REQUIRED").is_some();
            assert!(!is_required, "services are required, but {URL} is not set");
            println!("SKIPPED: {URL} is not set");
            None
        }
    }
}

/// Makes a database on the server and returns its address.
pub(crate) async fn create_database(server: &str, name: &str) -> String {
    let mut admin = PgConnection::connect(server)
        .await
        .expect("the server answers");
    let create = format!("create database {name}");
    admin
        .execute(AssertSqlSafe(create))
        .await
        .expect("a database can be made");
    let (base, _) = server
        .rsplit_once('/')
        .expect("an address names a database");
    format!("{base}/{name}")
}

/// Removes a database that was made, and everyone who is connected to it.
pub(crate) async fn drop_database(server: &str, url: &str) {
    let (_, name) = url.rsplit_once('/').expect("an address names a database");
    let mut admin = PgConnection::connect(server)
        .await
        .expect("the server answers");
    let drop = format!("drop database if exists {name} with (force)");
    let dropped = admin.execute(AssertSqlSafe(drop)).await;
    dropped.expect("our own database can be removed");
}

/// Says a result also where the test harness keeps the output of passing tests to itself.
pub(crate) fn say(line: &str) {
    sagabus_testkit::service::say(line.trim_end());
}

/// Runs a test, or a part of one, on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime needs a timer").block_on(future)
}
