//! Runs the fault broker: `fault-broker [PORT]`. Prints where it listens, and ends when its
//! standard input does, so that it never outlives the test that started it.

use std::io::{self, Read, Write};

use sagabus_testkit::fault_broker::Server;

fn main() -> io::Result<()> {
    let port = match std::env::args().nth(1) {
        Some(text) => text.parse().map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("port {text:?} is no number from 0 to 65535"),
            )
        })?,
        None => 0,
    };
    std::thread::spawn(|| {
        // A standard input that cannot be read has ended as well.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let server = Server::bind(port).await?;
        println!("listening on {}", server.address()?);
        io::stdout().flush()?;
        server.run().await
    })
}
