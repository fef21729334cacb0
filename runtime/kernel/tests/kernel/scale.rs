use std::io::Write;
use std::time::{Duration, Instant};

use heddle_core::diff::ObjectChange;
use heddle_core::object::Object;
use heddle_kernel::Event;
use tokio::time::timeout;

use crate::host::*;

const PEERS: u32 = 10_000;

fn peers() -> Vec<Object> {
    (0..PEERS)
        .flat_map(|number| {
            let [_, _, high, low] = number.to_be_bytes();
            // From 10.244.16.0 on: not the node's own.
            let subnet = format!("10.244.{}.{}/30", 16 + (number >> 6), (number & 0x3f) << 2);
            let mac = format!("02:00:00:00:{high:02x}:{low:02x}");
            peer("flannel.1", &subnet, &mac, &format!("172.16.{high}.{low}"))
        })
        .collect()
}

/// Returns the command for an object, `route replace …`, as input of `ip -batch` or `bridge
/// -batch`.
fn command(object: &Object) -> (&'static str, String) {
    match object {
        Object::FdbEntry(e) => (
            "bridge",
            format!("fdb replace {} dst {} dev {} self permanent", e.mac, e.destination, e.link),
        ),
        Object::Neighbour(n) => (
            "ip",
            format!(
                "neighbour replace {} lladdr {} dev {} nud permanent",
                n.address, n.mac, n.link
            ),
        ),
        other => ("ip", other.to_string().replacen("route", "route replace", 1)),
    }
}

fn batch(program: &str, plan: &[Object]) -> Duration {
    let file = std::env::temp_dir().join(format!("heddle-{}-{program}-batch", std::process::id()));
    let lines: Vec<String> =
        plan.iter().map(command).filter(|(p, _)| *p == program).map(|(_, line)| line).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let start = Instant::now();
    run(program, &format!("-batch {}", file.display()));
    let took = start.elapsed();
    std::fs::remove_file(file).unwrap();
    took
}

fn say(what: &str, took: Duration) {
    // Written directly, because the test harness captures output, and the numbers are the point.
    let line = format!("{:>6.0} ms  {what}\n", took.as_secs_f64() * 1e3);
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

#[test]
fn ten_thousand_peers_are_added_observed_and_removed() {
    on_a_host(async |kernel| {
        reconcile(&kernel, &node_v4()).await;
        let peers = peers();
        // Most of the time is spent in the kernel, for all variants alike: it searches the next
        // hops of all routes through the device for an equal one, one by one (`fib_create_info`).
        let (routes, others): (Vec<Object>, Vec<Object>) =
            peers.iter().cloned().partition(|object| matches!(object, Object::Route(_)));
        let took = batch("ip", &others) + batch("bridge", &others);
        say("20,000 neighbours and FDB entries by `ip -batch` and `bridge -batch`", took);
        say("10,000 routes by `ip -batch`", batch("ip", &routes));
        ip("link delete flannel.1");
        reconcile(&kernel, &node_v4()).await;

        let mut events = kernel.subscribe(&scope()).await.unwrap();
        let start = Instant::now();
        for (what, objects) in
            [("20,000 neighbours and FDB entries", others), ("10,000 routes", routes)]
        {
            let start = Instant::now();
            let failures =
                kernel.apply(&scope(), objects.into_iter().map(ObjectChange::Put).collect()).await;
            say(&format!("{what} by Kernel::apply"), start.elapsed());
            assert!(failures.is_empty(), "{} failures, the first: {}", failures.len(), failures[0]);
        }

        let mut seen = 0;
        while seen < peers.len() {
            for event in timeout(Duration::from_secs(10), events.next_batch()).await.unwrap() {
                assert!(
                    matches!(&event, Event::Seen(observation) if observation.ours),
                    "{event:?}"
                );
                seen += 1;
            }
        }
        say("until all of their events were there", start.elapsed());

        let plan = [node_v4(), peers].concat();
        let start = Instant::now();
        let observed = observe(&kernel, &plan).await;
        say("to observe them", start.elapsed());
        assert_eq!(observed.objects.len(), plan.len());
        assert_eq!(missing(&kernel, &plan).await, []);

        let start = Instant::now();
        reconcile(&kernel, &node_v4()).await;
        say("to remove them, observed before and after", start.elapsed());
        assert_eq!(run("bridge", "fdb show dev flannel.1"), "");
    });
}
