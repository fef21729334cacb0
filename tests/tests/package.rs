//! The Debian package on a fresh machine: installed, used as its units configure it, upgraded,
//! removed, purged.

use std::collections::BTreeSet;
use std::path::Path;

use heddle_lab::{Families, Lab, Machine};
use heddle_tests::{NEWER, image, newer_package, package};

/// Highest exposure that `systemd-analyze security` may report, in tenths of its score.
const EXPOSURE: u32 = 24;

/// A peer's lease, for both networks.
const LEASE: &str = r#"{"PublicIP":"192.168.0.9","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:00:00:00:00:09"}}"#;

#[test]
fn unit_files_differ_in_instance_settings_only() {
    let settings = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist").join(name);
        let text = std::fs::read_to_string(path).unwrap();
        let is_setting = |line: &&str| !line.is_empty() && !line.starts_with('#');
        text.lines().filter(is_setting).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let of_instances = settings("heddled@.service").into_iter().filter_map(|line| {
        let plain = line.replace(" for %i", "").replace("@%i", "");
        (!line.starts_with("Environment=")).then_some(plain)
    });
    let without_environment =
        settings("heddled.service").into_iter().filter(|line| !line.starts_with("Environment="));
    assert_eq!(without_environment.collect::<Vec<_>>(), of_instances.collect::<Vec<_>>());
}

#[test]
fn package_survives_install_upgrade_remove_and_purge() {
    let lab = Lab::new(Families::V4).unwrap();
    let machine = Machine::boot(lab.host("node").unwrap(), &image()).unwrap();
    let shell = |script: &str| machine.shell(script).unwrap();
    machine.install(&package(), "/root/heddle.deb").unwrap();
    // apt installs recommended packages, among them the firewall tools, with Debian's
    // configuration; the image's configuration disables that.
    shell(
        "! command -v iptables; apt-get install -y --install-recommends ./heddle.deb; command -v iptables",
    );
    shell("apt-get purge -y heddle");
    let before = files(&machine);

    shell("apt-get install -y ./heddle.deb");
    assert_eq!(
        shell("systemctl is-enabled heddled || true; systemctl is-active heddled || true"),
        "disabled\ninactive\n"
    );
    assert_eq!(shell("stat -c '%a %U:%G' /etc/default/heddled"), "640 root:root\n");
    shell(
        "heddled --version && heddle --version && test -x /usr/libexec/heddle/mk-docker-opts.sh
         /usr/libexec/heddle/heddle-compiler --version
         heddle plugin inspect /usr/share/heddle/plugins/udp.wasm | grep packet-backend-plugin
         zgrep -q etcd.*endpoints /usr/share/man/man8/heddled.8.gz
         test -s /usr/share/man/man1/heddle-status.1.gz
         for file in bash-completion/completions/heddle zsh/vendor-completions/_heddle \
             fish/vendor_completions.d/heddle.fish; do test -s /usr/share/$file; done",
    );
    // The same state as after a boot.
    assert_eq!(shell("sysctl -n net.ipv4.ip_forward; stat -c %a /run/xtables.lock"), "1\n600\n");
    shell(&format!(
        "systemd-analyze verify --man=no heddled.service heddled@blue.service
         systemd-analyze security --no-pager --offline=true --threshold={EXPOSURE} \
             /usr/lib/systemd/system/heddled.service /usr/lib/systemd/system/heddled@.service >&2"
    ));
    assert_macs_are_kept(&machine);

    // The backends that need different privileges, and the ways to program firewall rules.
    shell(&format!(
        r#"mkdir -p /etc/heddle/plugins
        cp /usr/share/heddle/plugins/vxlan.wasm /etc/heddle/plugins/
        network() {{
            mkdir -p /var/lib/heddle/$1/subnets
            echo "$2" > /var/lib/heddle/$1/config
            echo '{LEASE}' > /var/lib/heddle/$1/subnets/$3
        }}
        network red '{{"Network": "10.244.0.0/16", "Backend": {{"Type": "vxlan"}}}}' 10.244.9.0-24
        network blue '{{"Network": "10.245.0.0/16", "Backend": {{"Type": "udp"}}, "EnableNFTables": true}}' 10.245.9.0-24
        cat >> /etc/default/heddled <<'END'
FLANNELD_STORE=dir:/var/lib/heddle/red
FLANNELD_IP_MASQ=true
FLANNELD_CONTROL_GROUP=adm
FLANNELD_EMIT="subnet-env docker-opts cni-conf"
END
        cat > /etc/default/heddled@blue <<'END'
FLANNELD_STORE=dir:/var/lib/heddle/blue
FLANNELD_IP_MASQ=true
END
        systemctl enable --now heddled heddled@blue"#
    ));
    assert_eq!(shell("stat -c '%a %U:%G' /run/heddle/heddled.sock"), "660 root:adm\n");
    assert_eq!(shell("stat -c '%a %U:%G' /run/heddle/blue.sock"), "600 root:root\n");
    assert_eq!(
        shell("stat -c %a /run/flannel/* /etc/cni/net.d/10-heddle.conflist | sort -u"),
        "644\n"
    );
    shell(
        "grep FLANNEL_SUBNET=10.245. /run/flannel/blue.env
         grep DOCKER_OPTS= /run/flannel/docker.env
         heddle status | grep /etc/heddle/plugins/vxlan.wasm
         heddle status -i blue | grep udp
         ip route show 10.244.9.0/24 | grep flannel.1
         ip link show flannel0
         iptables -t nat -S | grep 10.244.0.0/16.*MASQUERADE
         nft list ruleset | grep '10.245.0.0/16.*masquerade'",
    );
    assert_eq!(
        shell("find /var/cache/heddle -name '*.cwasm' | wc -l; stat -c %a /var/cache/heddle"),
        "1\n700\n"
    );

    // A daemon that waits for its network config does not block the upgrade.
    shell(
        "mkdir -p /var/lib/heddle/late; echo FLANNELD_STORE=dir:/var/lib/heddle/late > /etc/default/heddled@late; \
           systemctl start --no-block heddled@late",
    );
    let running = "systemctl show --property=MainPID heddled heddled@blue | grep MainPID";
    let device = "ip -o link show flannel.1";
    let (daemons, link) = (shell(running), shell(device));
    machine.install(&newer_package(lab.directory()), "/root/heddle.deb").unwrap();
    shell("apt-get install -y ./heddle.deb");
    assert!(shell("dpkg-query -W heddle").trim_end().ends_with(NEWER));
    for (old, new) in daemons.lines().zip(shell(running).lines()) {
        assert_ne!(old, new);
    }
    assert_eq!(shell("systemctl is-active heddled heddled@blue"), "active\nactive\n");
    assert_eq!(shell("systemctl is-active heddled@late || true"), "activating\n");
    assert_eq!(shell(device), link);
    shell("grep red /etc/default/heddled");

    shell("apt-get remove -y heddle");
    assert_eq!(shell("systemctl list-units --plain --no-legend 'heddled*'"), "");
    assert_eq!(shell(device), link);
    shell(
        "test ! -e /usr/bin/heddled; grep red /etc/default/heddled; test -e /var/lib/heddle/red/config",
    );

    // Files created by hand are removed by hand.
    shell(
        "rm -r /etc/default/heddled@* /etc/heddle /etc/cni/net.d/10-heddle.conflist \
         /etc/systemd/system/multi-user.target.wants/heddled@blue.service",
    );
    shell("apt-get purge -y heddle");
    shell("test ! -e /run/heddle");
    let after = files(&machine);
    let differing: Vec<_> = after.symmetric_difference(&before).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

/// Asserts that udev, which changes the MAC of new devices, keeps those of our devices.
fn assert_macs_are_kept(machine: &Machine) {
    let address =
        |name: &str| machine.shell(&format!("cat /sys/class/net/{name}/address")).unwrap();
    for (name, id, kept) in
        [("flannel.77", 77, true), ("flannel-v6.78", 78, true), ("other", 79, false)]
    {
        machine.shell(&format!("ip link add {name} type vxlan id {id} dstport 47{id}")).unwrap();
        let before = address(name);
        machine
            .shell(&format!("udevadm test-builtin net_setup_link /sys/class/net/{name} 2>&1"))
            .unwrap();
        assert_eq!(address(name) == before, kept, "{name}");
        machine.shell(&format!("ip link delete {name}")).unwrap();
    }
}

/// Returns the machine's files, except those that change with every package or every minute.
fn files(machine: &Machine) -> BTreeSet<String> {
    let listed = machine
        .shell(
            "find / -xdev \\( -path /root -o -path /tmp -o -path /var/tmp -o -path /var/log -o -path /var/cache/apt \
             -o -path /var/cache/debconf -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd/timers \
             -o -path /var/lib/systemd/random-seed \\) -prune -o -print",
        )
        .unwrap();
    listed.lines().map(str::to_owned).collect()
}
