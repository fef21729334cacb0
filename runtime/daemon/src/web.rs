//! The HTTP servers: health port, status page, and the start of the control socket.
//!
//! Anyone who reaches a TCP address may send requests to it, so the health port and the status page
//! have a thread of their own. The control socket, which belongs to root, is served beside the loop
//! and keeps answering whatever happens to the others.

use std::net::SocketAddr;
use std::time::Duration;

use heddle_control::{Documents, Handler, PeerCounts, RECENT};
use heddle_flags::Flags;
use heddle_http::{Descriptors, Hosts, Listener, Server, Worker};
use heddle_node::{Fatal, Node};
use tokio::sync::watch;

use crate::control::{ControlSocket, Listening};

/// Maximum number of servers.
const SERVERS: u64 = 3;

/// Time limit for counting the peers for `/readyz`, which many callers give a second in all.
const COUNTED: Duration = Duration::from_millis(500);

/// Starts all servers that the flags enable. Returns the control socket, which the caller keeps for
/// as long as the daemon runs.
///
/// # Errors
///
/// The first address that cannot be listened on. A control socket that cannot is no error.
pub(crate) async fn serve(flags: &Flags, node: &Node) -> Result<Listening, Fatal> {
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
    let listening = control.serve().await;
    let unavailable = listening.unavailable.clone();
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
            let warnings = Warnings {
                host: readiness.warnings(),
                control: unavailable,
                documents: documents.clone(),
            };
            let site = heddle_telemetry::health(
                move || unmet.borrow().clone(),
                move || warnings.clone().list(),
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
    Ok(listening)
}

/// Sources of the problems that `/readyz` lists although all conditions may hold.
#[derive(Clone)]
struct Warnings<H> {
    host: watch::Receiver<Vec<String>>,
    control: watch::Receiver<Option<String>>,
    documents: Documents<H>,
}

impl<H: Handler> Warnings<H> {
    async fn list(self) -> Vec<String> {
        let mut warnings = self.host.borrow().clone();
        let control = self.control.borrow().as_ref().map(|it| format!("control socket: {it}"));
        warnings.extend(control);
        // A loop that is busy or hangs is not this line's concern.
        let status = tokio::time::timeout(COUNTED, self.documents.status(RECENT)).await;
        if let Ok(Ok(snapshot)) = status {
            let status = snapshot.status();
            warnings.extend(status.superseded.as_ref().map(|it| format!("network config: {it}")));
            warnings.extend(faults(PeerCounts::of(&status.peers)));
        }
        warnings
    }
}

/// Returns the warning about peers with faults. None if there are none.
fn faults(peers: PeerCounts) -> Option<String> {
    (peers.faulty() > 0).then(|| format!("peers: {peers}; `heddle status` names them"))
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
