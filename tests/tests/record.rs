//! `heddle plugin record` records a plugin's input on a host; `plugin plan` replays it anywhere.

use std::fs;
use std::process::Command;

use heddle_lab::Families;
use heddle_tests::{Cluster, Overlay, heddle};

#[test]
fn plan_from_recording_equals_daemon_state() {
    let cluster = Cluster::new(Families::Dual);
    let [alpha, beta] = cluster.nodes(["alpha", "beta"]);
    let daemon = cluster.heddled(&alpha.host);
    let mut record = Command::new(heddle());
    record.args(["plugin", "record"]).args(daemon.get_args());
    // Do not read the environment file of a Heddle that may be installed on this machine.
    record.arg("--environment-file=-/no/such/file");
    let file = alpha.host.directory().join("scenario.json");
    fs::write(&file, alpha.host.namespace().run(record).unwrap()).unwrap();

    let mut plan = Command::new(heddle());
    plan.args(["plugin", "plan", "vxlan"]).arg(&file);
    let planned = heddle_lab::run(&mut plan).unwrap();
    for overlay in [Overlay::V4, Overlay::V6] {
        let device = overlay.device();
        let mac = alpha.link(device)["address"].as_str().unwrap().to_owned();
        let link = format!("link {device} type vxlan mtu");
        let line = planned.lines().find(|line| line.contains(&link)).unwrap();
        assert!(line.contains(&format!(" address {mac} ")), "{planned}");
        let subnet = cluster.subnet(&beta, overlay);
        let route = format!("  route {subnet} via {} dev {device} onlink\n", subnet.network());
        assert!(planned.contains(&route), "{planned}");
    }
}
