//! Clients that exhaust a daemon's HTTP servers: connections, memory, descriptors, time. The daemon
//! must keep working and answer other clients. `docs/security.md` has the limits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use heddle_lab::{Daemon, Families, Host, wait_until};
use heddle_tests::crowd::{Client, Pressure, besieged, crowd, repairs};
use heddle_tests::{Cluster, Flows, NETWORK_FOR_PEERS, Peer, SOON, status};

const STATUS_PORT: u16 = 9981;
const STATUS: &str = "--status-address=9981";

/// The part of a log line that says that other hosts can connect.
const PUBLIC: &str = "every host that reaches it can read";

/// Enough peers for a status of about 1 MB.
const PEERS: u16 = 2000;

/// Maximum memory that clients may cost the daemon, in bytes above its idle peak.
const MEMORY: u64 = 150_000_000;

/// Wraps a command line so that it runs with a limit of open files.
fn with_descriptors(limit: u32, command: &Command) -> Command {
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--nofile={limit}:{limit}"));
    limited.arg(command.get_program()).args(command.get_args());
    limited
}

/// Starts a host's daemon that knows these peers, and waits until it is ready.
fn start(
    cluster: &Cluster,
    peers: &[Peer],
    make: impl FnOnce(Command) -> Command,
) -> (Host, Daemon) {
    cluster.etcd().put_all(&Peer::leases(peers), 100).unwrap();
    let host = cluster.host("a");
    let mut daemon = host.start(make(cluster.heddled(&host))).unwrap();
    daemon.wait_ready().unwrap();
    (host, daemon)
}

/// Sends one request to every interface. None may need a retry.
fn everybody_is_answered(host: &Host, daemon: &Daemon, peers: usize) {
    for path in ["/healthz", "/readyz"] {
        assert_eq!(daemon.health(path).unwrap(), (200, "ok\n".to_owned()));
    }
    let found = status(host);
    assert_eq!(found["peers"].as_array().unwrap().len(), peers);
    assert_eq!(found["ready"], true, "{}", found["unmet"]);
}

#[test]
fn own_descriptors_are_kept_from_1100_idle_connections() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let peers = Peer::range(1, 2);
    let (host, daemon) = start(&cluster, &peers, |command| with_descriptors(1024, &command));
    // Also exhaust the control socket, which only root and a group can reach: one of their scripts
    // may leak connections.
    let local: Vec<_> =
        (0..100).map(|_| UnixStream::connect(host.control_socket()).unwrap()).collect();
    let idle = (0..1100).map(|_| Client::new(Pressure::Idle, Daemon::HEALTH_PORT)).collect();
    besieged(&host, idle, || {
        for _ in 0..3 {
            repairs(&host, peers[0]);
            everybody_is_answered(&host, &daemon, peers.len());
        }
    });
    drop(local);
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    assert!(open < 512, "{open} descriptors are open");
}

#[test]
fn too_low_descriptor_limit_is_reported() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let peers = Peer::range(1, 2);
    let (host, daemon) = start(&cluster, &peers, |command| with_descriptors(280, &command));
    let said = daemon.wait_log(&["RLIMIT_NOFILE"], SOON).unwrap();
    assert!(said.contains("280 open files") && said.contains("LimitNOFILE=448"), "{said}");
    let idle = (0..400).map(|_| Client::new(Pressure::Idle, Daemon::HEALTH_PORT)).collect();
    besieged(&host, idle, || {
        repairs(&host, peers[0]);
        everybody_is_answered(&host, &daemon, peers.len());
    });
}

#[test]
fn crowd_of_slow_clients_costs_little_memory() {
    const ROUNDS: u32 = 10;
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let peers = Peer::range(1, PEERS);
    let (host, daemon) = start(&cluster, &peers, |mut command| {
        command.arg(STATUS);
        command
    });
    everybody_is_answered(&host, &daemon, peers.len());
    let idle = daemon.resident_memory().unwrap();
    let mut most = idle;
    let mut slowest = Duration::ZERO;
    besieged(&host, crowd(STATUS_PORT), || {
        for round in 0..ROUNDS {
            let begun = Instant::now();
            slowest = slowest.max(repairs(&host, peers[round as usize]));
            everybody_is_answered(&host, &daemon, peers.len());
            let (code, _) = daemon.health_at("http://127.0.0.1:9981/metrics").unwrap();
            assert_eq!(code, 200);
            while begun.elapsed() < Duration::from_secs(1) {
                most = most.max(daemon.resident_memory().unwrap());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
    let more = most - idle;
    println!("{} kB idle, {} kB more; slowest repair {slowest:?}", idle / 1000, more / 1000);
    assert!(more < MEMORY, "{more} bytes more than {idle}");
    everybody_is_answered(&host, &daemon, peers.len());
}

#[test]
fn crowd_of_slow_clients_costs_no_packet() {
    let cluster = Cluster::with_backend(Families::V4, "udp");
    let mut a = cluster.starting_node("a", &[STATUS]);
    a.daemon().wait_ready().unwrap();
    let b = cluster.node("b");
    let [in_a, in_b] = [&a, &b].map(|node| node.host.container().unwrap());
    wait_until("a packet", SOON, || in_a.ping(in_b.addresses()[0], 56)).unwrap();
    let flows = Flows::between(&[(&in_a, &in_b)]);
    besieged(&a.host, crowd(STATUS_PORT), || {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(4) {
            flows.go_on();
        }
    });
    flows.lost_nothing();
}

/// Sends a request verbatim, and returns the first line of the answer; empty if there is none.
fn send(host: &Host, address: &str, request: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    let exchange = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 64];
        let length = stream.read(&mut answer).unwrap_or(0);
        String::from_utf8_lossy(&answer[..length]).lines().next().unwrap_or_default().to_owned()
    };
    host.namespace().enter(exchange).unwrap()
}

#[test]
fn request_for_another_host_is_refused_on_the_loopback() {
    let cluster = Cluster::new(Families::V4);
    for (name, flag, addresses) in [
        ("a", STATUS, &["127.0.0.1:9981"][..]),
        ("b", "--status-address=[::ffff:127.0.0.1]:9981", &["127.0.0.1:9981"]),
        ("c", "--status-address=0.0.0.0:9981", &["127.0.0.1:9981"]),
        ("d", "--status-address=[::]:9981", &["127.0.0.1:9981", "[::1]:9981"]),
    ] {
        let host = cluster.host(name);
        let mut command = cluster.heddled(&host);
        command.arg(flag);
        let mut daemon = host.start(command).unwrap();
        daemon.wait_ready().unwrap();
        let refused = |status: &'static str, head: &str| {
            let request = format!("GET /status.json HTTP/1.1\r\n{head}\r\n");
            for address in addresses {
                let found = send(&host, address, &request);
                assert!(found.starts_with(status), "{flag}, {address}, {head:?}: {found:?}");
            }
        };
        refused("HTTP/1.1 200", "Host: localhost:9981\r\n");
        refused("HTTP/1.1 200", "Host: [::1]:9981\r\n");
        refused("HTTP/1.1 421", "Host: evil.example:9981\r\n");
        refused("HTTP/1.1 421", "Host: [::1].evil.example\r\n");
        refused("HTTP/1.1 400", "");
        refused("HTTP/1.1 400", "Host: localhost\r\nHost: evil.example\r\n");
        for address in addresses {
            let absolute =
                "GET http://evil.example/status.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
            assert!(send(&host, address, absolute).starts_with("HTTP/1.1 400"));
            // The preface of HTTP/2, and an empty SETTINGS frame (RFC 9113, section 3.4).
            let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            assert_eq!(send(&host, address, preface), "");
        }
    }
}

#[test]
fn address_reachable_by_others_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let mut quiet = cluster.starting_node("a", &[STATUS]);
    quiet.daemon().wait_ready().unwrap();
    let log = quiet.daemon().log();
    assert!(!log.contains(PUBLIC), "{log}");
    let public = ["--healthz-ip=0.0.0.0", "--status-address=0.0.0.0:9981"];
    let mut open = cluster.starting_node("b", &public);
    open.daemon().wait_ready().unwrap();
    for texts in [
        ["health port: listening on 0.0.0.0:9980", PUBLIC, "--healthz-ip=127.0.0.1"],
        ["status page: listening on 0.0.0.0:9981", PUBLIC, "--status-address=9981"],
    ] {
        open.daemon().wait_log(&texts, SOON).unwrap();
    }
}
