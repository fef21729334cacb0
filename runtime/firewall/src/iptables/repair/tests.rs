use super::*;
use crate::FamilyRules;

fn family(network: &str, subnet: &str) -> FamilyRules {
    FamilyRules { network: network.parse().unwrap(), subnet: subnet.parse().unwrap() }
}

fn wanted(purpose: Purpose) -> WantedChain {
    let v4 = family("10.244.0.0/16", "10.244.8.0/24");
    let name = match purpose {
        Purpose::Masquerade => "FLANNEL-POSTRTG",
        Purpose::Forward => "FLANNEL-FWD",
    };
    WantedChain { purpose, name: name.into(), rules: Some(purpose.rules(&v4, true)) }
}

fn unwanted(purpose: Purpose) -> WantedChain {
    WantedChain { rules: None, ..wanted(purpose) }
}

/// Returns a filter table with these rules in its FORWARD chain, and our chain in its wanted
/// state.
fn filter(forward: &[&str]) -> Ruleset {
    let forward: String = forward.iter().map(|rule| format!("-A FORWARD {rule}\n")).collect();
    Ruleset::parse(&format!(
        "*filter\n:FORWARD ACCEPT [0:0]\n:FLANNEL-FWD - [0:0]\n{forward}{CHAIN}COMMIT\n"
    ))
    .unwrap()
}

const CHAIN: &str = "\
-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT
-A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT
";
const JUMP: &str = "-m comment --comment \"flanneld forward\" -j FLANNEL-FWD";
const OTHER: &str = "-i eth0 -j ACCEPT";
const REFUSE: &str = "-j REJECT --reject-with icmp-host-prohibited";

/// Returns the input for restore, without the `*table` and `COMMIT` lines.
fn lines(saved: &Ruleset, wanted: &[WantedChain]) -> Vec<String> {
    let input = plan(saved, wanted).map(|repair| repair.input).unwrap_or_default();
    input
        .lines()
        .filter(|line| !line.starts_with('*') && *line != "COMMIT")
        .map(str::to_owned)
        .collect()
}

#[test]
fn masquerade_rules_match_flannels_in_order() {
    let repair = plan(&Ruleset::default(), &[wanted(Purpose::Masquerade)]).unwrap();
    assert_eq!(
        repair.input,
        "\
*nat
:FLANNEL-POSTRTG - [0:0]
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.8.0/24 -d 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.8.0/24 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.8.0/24 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG
COMMIT
"
    );
    assert_eq!(repair.differences[0].found, "nat FLANNEL-POSTRTG was missing");
}

#[test]
fn ipv6_masquerade_excludes_ipv6_multicast() {
    let v6 = family("2001:cafe:42::/56", "2001:cafe:42:8::/64");
    let rules = Purpose::Masquerade.rules(&v6, false);
    assert_eq!(
        quoted(&arguments(&rules[4], "x")),
        "-s 2001:cafe:42::/56 ! -d ff00::/8 -m comment --comment x -j MASQUERADE"
    );
}

#[test]
fn correct_chains_need_no_repair() {
    for forward in [&[JUMP][..], &[OTHER, JUMP], &[JUMP, OTHER], &[JUMP, REFUSE]] {
        assert_eq!(plan(&filter(forward), &[wanted(Purpose::Forward)]), None, "{forward:?}");
    }
}

#[test]
fn bad_jump_is_replaced_before_any_refusal() {
    let add = format!("-A FORWARD {JUMP}");
    let delete = format!("-D FORWARD {JUMP}");
    let insert = |position| format!("-I FORWARD {position} {JUMP}");
    let narrow = "-i eth0 -j FLANNEL-FWD";
    for (forward, expected) in [
        (vec![OTHER], vec![add.clone()]),
        (vec![OTHER, REFUSE], vec![insert(2)]),
        (vec![JUMP, OTHER, JUMP], vec![delete.clone(), delete.clone(), add.clone()]),
        (vec![OTHER, REFUSE, JUMP], vec![delete.clone(), insert(2)]),
        (vec![JUMP, REFUSE, JUMP], vec![delete.clone(), delete.clone(), insert(1)]),
        (vec![narrow], vec![format!("-D FORWARD {narrow}"), add.clone()]),
    ] {
        assert_eq!(lines(&filter(&forward), &[wanted(Purpose::Forward)]), expected, "{forward:?}");
    }
}

#[test]
fn wrong_rules_are_rewritten_and_good_jump_kept() {
    let good: Vec<&str> = CHAIN.lines().collect();
    let foreign = "-A FLANNEL-FWD -j DROP";
    for found in [vec![good[0]], vec![good[1], good[0]], vec![good[0], good[1], foreign], vec![]] {
        let saved = Ruleset::parse(&format!(
            "*filter\n:FORWARD DROP [0:0]\n:FLANNEL-FWD - [0:0]\n-A FORWARD {JUMP}\n{}\nCOMMIT\n",
            found.join("\n")
        ))
        .unwrap();
        let repair = plan(&saved, &[wanted(Purpose::Forward)]).unwrap();
        assert_eq!(repair.input, format!("*filter\n:FLANNEL-FWD - [0:0]\n{CHAIN}COMMIT\n"));
        assert_eq!(repair.differences.len(), 1, "{found:?}");
        assert_eq!(repair.differences[0].found, "filter FLANNEL-FWD had other rules");
    }
}

#[test]
fn unwanted_chain_is_removed_with_jumps_to_it() {
    let saved = filter(&[OTHER, JUMP, JUMP]);
    assert_eq!(
        lines(&saved, &[unwanted(Purpose::Forward)]),
        [
            ":FLANNEL-FWD - [0:0]".to_owned(),
            format!("-D FORWARD {JUMP}"),
            format!("-D FORWARD {JUMP}"),
            "-X FLANNEL-FWD".to_owned()
        ]
    );
    assert_eq!(plan(&Ruleset::default(), &[unwanted(Purpose::Forward)]), None);
    assert_eq!(plan(&saved, &[unwanted(Purpose::Masquerade)]), None);
}

#[test]
fn chain_of_other_instance_is_left_alone() {
    let saved = filter(&[JUMP]);
    let other = WantedChain { name: "FLANNEL-FWD-5ac5f721".into(), ..unwanted(Purpose::Forward) };
    assert_eq!(plan(&saved, &[other]), None);
}
