//! Tests against a real broker.

// What tests share.
mod site;
// The contract.
mod conformance;
// Hosts, and clients that know nothing of us.
mod foreign;
mod python;
// What goes wrong.
mod refused;
mod nested;
mod tls;
mod outages;
mod sent_again;
mod patience;
mod handshakes;
mod log_lines;
mod secret;
