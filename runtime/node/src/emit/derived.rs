//! Recognises what `mk-docker-opts.sh` makes of subnet.env. Units for flannel run it after the
//! daemon's start with subnet.env as its output (`-d /run/flannel/subnet.env`), and Docker reads the
//! result.

use std::collections::BTreeSet;

/// Returns true if a file has Docker's options that follow from a subnet.env, and nothing else. The
/// script has flags for the names of variables and for the options it leaves out, so what is
/// compared is the meaning.
pub(super) fn is_made_from(found: &[u8], subnet_env: &[u8]) -> bool {
    let (Ok(found), Ok(subnet_env)) = (str::from_utf8(found), str::from_utf8(subnet_env)) else {
        return false;
    };
    let value = |name: &str| subnet_env.lines().find_map(|line| line.strip_prefix(name));
    let own = [("--bip=", "FLANNEL_SUBNET="), ("--mtu=", "FLANNEL_MTU=")];
    let mut options = BTreeSet::new();
    for line in found.lines() {
        match assigned(line) {
            Some(value) => options.extend(value.split_ascii_whitespace()),
            None => return false,
        }
    }
    let mut agrees = false;
    for (option, name) in own {
        for given in options.iter().filter_map(|given| given.strip_prefix(option)) {
            if value(name) != Some(given) {
                return false;
            }
            agrees = true;
        }
    }
    agrees
}

/// Returns the value of a line `NAME="VALUE"`.
fn assigned(line: &str) -> Option<&str> {
    let (name, value) = line.split_once('=')?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let value = value.strip_prefix('"')?.strip_suffix('"')?;
    (is_name && !value.contains('"')).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBNET_ENV: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.36.1/24\n\
                              FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

    fn accepts(found: &str) -> bool {
        is_made_from(found.as_bytes(), SUBNET_ENV.as_bytes())
    }

    #[test]
    fn options_of_the_script_are_accepted() {
        let all = "DOCKER_OPT_BIP=\"--bip=10.244.36.1/24\"\nDOCKER_OPT_IPMASQ=\"--ip-masq=false\"\n\
                   DOCKER_OPT_MTU=\"--mtu=1450\"\n\
                   DOCKER_NETWORK_OPTIONS=\" --bip=10.244.36.1/24 --ip-masq=false --mtu=1450\"\n";
        assert!(accepts(all));
        assert!(accepts("X=\" --debug --bip=10.244.36.1/24 --mtu=1450\"\n"));
        assert!(accepts("DOCKER_OPT_MTU=\"--mtu=1450\"\n"));
    }

    #[test]
    fn options_of_another_subnet_and_edits_are_not_accepted() {
        for other in [
            "",
            "DOCKER_OPTS=\"\"\n",
            "DOCKER_OPTS=\" --bip=10.244.37.1/24 --mtu=1450\"\n",
            "DOCKER_OPTS=\" --bip=10.244.36.1/24 --mtu=1500\"\n",
            "DOCKER_OPTS= --bip=10.244.36.1/24\n",
            "FLANNEL_SUBNET=10.244.36.1/24\nFLANNEL_MTU=1500\n",
        ] {
            assert!(!accepts(other), "{other}");
        }
        assert!(!accepts(SUBNET_ENV));
        assert!(!is_made_from(b"X=\"--mtu=1450\"\n", b"DOCKER_OPT_MTU=\"--mtu=1450\"\n"));
    }
}
