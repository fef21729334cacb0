//! Tests of a machine, without Heddle.

#![allow(clippy::disallowed_methods, reason = "a lab consists of programs, files and waiting")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use heddle_lab::{Error, Families, Image, Lab, Machine, run, wait_until};
use heddle_requires::requires;

fn image() -> Image {
    Image::debian(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/machines")).unwrap()
}

/// Files and containers of a machine survive a reboot, and dropping it leaves nothing behind.
#[test]
fn machine_reboots_and_leaves_nothing_behind() {
    requires!(Namespaces, Program("ip"), Program("mmdebstrap"), Program("systemd-nspawn"));
    let image = image();
    let lab = Lab::new(Families::V4).unwrap();
    let host = lab.numbered_host("node1", 71).unwrap();
    let mut machine = Machine::boot(host, &image).unwrap();
    assert_eq!(machine.shell("hostname; cat /proc/1/comm").unwrap(), "node1\nsystemd\n");
    assert!(machine.shell("ip -4 address show eth0").unwrap().contains("192.168.0.71/16"));
    let error = machine.shell("echo so it is >&2; false; echo not reached").unwrap_err();
    assert!(matches!(&error, Error::Failed { stderr, .. } if stderr == "so it is"), "{error}");

    let page = lab.directory().join("page");
    std::fs::write(&page, "hello\n").unwrap();
    machine.install(&page, "/root/page").unwrap();
    machine.shell("apt-get install -y docker.io && docker info").unwrap();
    machine
        .shell(
            "install -D -t image/bin /usr/bin/busybox && tar -C image -c . | docker import - busybox && \
             docker run -d --restart always --stop-signal KILL --name one busybox /bin/busybox sleep 1000",
        )
        .unwrap();
    let pings = |machine: &Machine| {
        let container = machine.docker_container("one").unwrap();
        let pings = container.ping_stream("172.17.0.1".parse().unwrap()).unwrap();
        pings.wait_answers(5).unwrap();
        let pings = pings.finish().unwrap();
        assert!(pings.lost.is_empty(), "{pings:?}");
    };
    pings(&machine);

    let id = machine.shell("cat /etc/machine-id").unwrap();
    machine.host().namespace().ip("link add name gone type bridge").unwrap();
    machine.reboot(&lab).unwrap();
    assert_eq!(machine.shell("cat page").unwrap(), "hello\n");
    assert_eq!(machine.shell("cat /etc/machine-id").unwrap(), id);
    assert!(machine.host().namespace().ip("link show gone").is_err());
    wait_until("the container", Duration::from_secs(10), || machine.docker_container("one"))
        .unwrap();
    pings(&machine);

    let group = machine.host().namespace().name().to_owned();
    let processes = || run(Command::new("ps").args(["-eo", "args"])).unwrap();
    assert!(processes().contains(&group));
    drop(machine);
    assert!(!processes().contains(&group));
    let cgroups = run(Command::new("find").args(["/sys/fs/cgroup", "-name", &group])).unwrap();
    assert_eq!(cgroups, "");
}
