//! The HTTP servers: health port, status page, and the start of the control socket.
//!
//! Anyone who reaches a TCP address may send requests to it, so the health port and the status page
//! have a thread of their own. The control socket, which belongs to root, is served beside the loop
//! and keeps answering whatever happens to the others.

use std::net::SocketAddr;

use heddle_control::Documents;
use heddle_flags::Flags;
use heddle_http::{Descriptors, Hosts, Listener, Server, Worker};
use heddle_node::{Fatal, Node};

use crate::control::ControlSocket;

/// Maximum number of servers.
const SERVERS: u64 = 3;

/// Starts all servers that the flags enable.
///
/// # Errors
///
/// The first address that cannot be listened on. A control socket that cannot is no error.
pub(crate) async fn serve(flags: &Flags, node: &Node) -> Result<(), Fatal> {
    let (readiness, counters) = (node.readiness(), node.counters());
    let descriptors = Descriptors::raise(SERVERS);
    if let Some(shortage) = descriptors.shortage() {
        tracing::warn!("{shortage}");
    }
    let connections = descriptors.connections();
    let documents = Documents::new(node.state().clone());
    let control = ControlSocket {
        path: flags.control_socket(),
        group: flags.control.control_group.clone(),
        documents: documents.clone(),
        connections,
    };
    let unavailable = control.serve().await;
    let (health, status) = (health_address(flags), flags.health.status_address);
    if health.is_some() || status.is_some() {
        let worker = Worker::start()
            .map_err(|error| format!("HTTP servers: cannot start their thread: {error}"))?;
        if let Some(address) = health {
            let listener = Listener::bind(address, "--healthz-ip, --healthz-port")?;
            let server = Server::new("health port", Hosts::Any, connections);
            let advice = "--healthz-ip=127.0.0.1 keeps it to this host";
            report_public(&listener, "health port", "readiness and packet counters", advice);
            let (unmet, counters) = (readiness.subscribe(), counters.clone());
            let warnings = readiness.warnings();
            let site = heddle_telemetry::health(
                move || unmet.borrow().clone(),
                move || {
                    let mut warnings = warnings.borrow().clone();
                    warnings.extend(
                        unavailable.borrow().as_ref().map(|it| format!("control socket: {it}")),
                    );
                    warnings
                },
                move || counters.get().and_then(|read| read()).map(|counters| counters.iter()),
            );
            server.serve_tcp(&worker, listener, site)?;
        }
        if let Some(address) = status {
            let listener = Listener::bind(address, "--status-address")?;
            let server = Server::new("status page", Hosts::Own, connections);
            let advice = "a port alone, such as --status-address=9981, keeps it to this host";
            report_public(
                &listener,
                "status page",
                "all nodes, their addresses and leases",
                advice,
            );
            let site = heddle_telemetry::pages(documents.clone(), node.notes().timings.clone());
            server.serve_tcp(&worker, listener, site)?;
        }
    }
    Ok(())
}

fn health_address(flags: &Flags) -> Option<SocketAddr> {
    let health = &flags.health;
    (health.healthz_port != 0).then(|| SocketAddr::new(health.healthz_ip, health.healthz_port))
}

/// Logs who can read what at an address, if other hosts can reach it.
fn report_public(listener: &Listener, name: &str, content: &str, advice: &str) {
    if listener.is_public() {
        let address = listener.address();
        tracing::info!(
            "{name}: listening on {address}; every host that reaches it can read {content} ({advice})"
        );
    }
}
