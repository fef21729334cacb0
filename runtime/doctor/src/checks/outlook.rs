//! Checks the problems that the daemon would meet: each has an error that names the problem, and
//! gets a remedy here.

use heddle_core::allocation::{AllocationError, release_command};
use heddle_core::config::ConfigWarning;
use heddle_core::text::one_line;
use heddle_flags::Flags;
use heddle_join::Obstacle;
use heddle_store::etcd::{EtcdError, EtcdFailure};
use heddle_store::{StoreConfig, StoreError};

use crate::outlook::Problem;
use crate::report::{Finding, Severity};

/// Network config to suggest.
const EXAMPLE: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;

/// Longest problem, in characters.
const LONGEST: usize = 500;

/// Commands that read the store or write to it.
pub(crate) struct Commands {
    /// Writes a network config.
    pub(crate) put_config: String,
    /// Shows the network config.
    pub(crate) get_config: String,
}

impl Commands {
    /// Returns the commands for the store that the flags name.
    pub(crate) fn new(flags: &Flags) -> Self {
        let network = flags.lease.network_name();
        let config = format!("{network}/config");
        match flags.lease.store {
            StoreConfig::Etcd => Self {
                put_config: format!("etcdctl put {config} '{EXAMPLE}'"),
                get_config: format!("etcdctl get {config}"),
            },
            StoreConfig::Directory(_) => Self {
                put_config: format!("echo '{EXAMPLE}' > {config}"),
                get_config: format!("cat {config}"),
            },
        }
    }
}

/// Returns `None` for problems that another check reports in more detail. `member` is true if a daemon
/// runs that has a lease, and so has started with a config.
pub(crate) fn check(problem: &Problem, commands: &Commands, member: bool) -> Option<Finding> {
    let Advice { check, symptom, remedy, command } = match problem {
        Problem::Obstacle(Obstacle::NoConfig(_)) if member => Advice {
            check: "network-config",
            symptom: "The running heddled keeps the config that it started with, and its lease. It cannot start again, nor can \
                      any other node join",
            remedy: "Store the same config again that the nodes run with: another `Network` would end their leases at their \
                     next start. Or correct --etcd-prefix.",
            command: None,
        },
        Problem::Obstacle(obstacle) => on_the_way(obstacle, commands),
        Problem::ConfigInV2(_) => Advice {
            check: "network-config",
            symptom: WAITING,
            remedy: "Copy it with the leases, and read docs/migrating-from-flannel.md first. To see what would be copied:",
            command: Some("heddle import v2 --dry-run".to_owned()),
        },
        // A file of certificates or keys: see `credentials`.
        Problem::Store(StoreError::Etcd(EtcdError::File { .. })) => return None,
        Problem::Store(error) => store(error),
        Problem::StoreLate(_) => Advice {
            remedy: "Check etcd's log, its disk, and the network between the hosts:",
            command: Some("etcdctl endpoint status -w table".to_owned()),
            ..STORE
        },
        Problem::Identity(_) => Advice {
            check: "identity",
            symptom: ENDING,
            remedy: "Correct the file, or set --node-id:",
            command: Some("systemd-machine-id-setup".to_owned()),
        },
        Problem::Emitter { .. } => Advice {
            check: "files",
            symptom: "heddled does not become ready (`emitters` in `/readyz`), and Docker gets no subnet",
            remedy: "Correct the setting, in the unit's command line or in FLANNELD_EMIT.",
            command: None,
        },
    };
    Some(Finding {
        check,
        severity: Severity::Error,
        problem: problem.to_string(),
        symptom: symptom.to_owned(),
        remedy: remedy.to_owned(),
        command,
    })
}

/// Reports a part of the network config that has no effect, or not the intended one.
pub(crate) fn config_warning(warning: &ConfigWarning, commands: &Commands) -> Finding {
    Finding {
        check: "network-config",
        severity: Severity::Warning,
        problem: one_line(&warning.to_string(), LONGEST),
        symptom: "The overlay works, but not as the config seems to ask for".to_owned(),
        remedy: "Correct the config, then restart heddled on every node:".to_owned(),
        command: Some(commands.get_config.clone()),
    }
}

/// Returns the advice about an obstacle on the way to a plan.
fn on_the_way(obstacle: &Obstacle, commands: &Commands) -> Advice {
    match obstacle {
        Obstacle::NoConfig(_) => Advice {
            check: "network-config",
            symptom: WAITING,
            remedy: "Store a network config with your network, or correct --etcd-prefix:",
            command: Some(commands.put_config.clone()),
        },
        Obstacle::Config { .. } | Obstacle::Backend { .. } => Advice {
            check: "network-config",
            symptom: WAITING,
            remedy: "Correct the config; heddled reads it again by itself:",
            command: Some(commands.get_config.clone()),
        },
        Obstacle::Plugin { .. } => Advice {
            check: "plugin",
            symptom: "heddled retries every second, and reports it in its log and under `plugins`, or `emitters`, in `/readyz`",
            remedy: "Correct the name, or install the plugin in one of these places. To list the available plugins:",
            command: Some("heddle plugin list".to_owned()),
        },
        Obstacle::Interface(_) => Advice {
            check: "interface",
            symptom: ENDING,
            remedy: "Name the interface between the hosts with --iface, or configure the missing address or route:",
            command: Some("ip -brief address".to_owned()),
        },
        Obstacle::Lease(AllocationError::AddressInUse { key, .. }) => Advice {
            check: "public-address",
            symptom: ENDING,
            remedy: "Give each host its own address, and name it with --iface or --public-ip. If the other host is gone, release its lease:",
            command: Some(release_command(*key)),
        },
        Obstacle::Lease(AllocationError::Occupied { .. }) => Advice {
            check: "subnets",
            symptom: NO_SUBNET,
            remedy: "Choose a `Network` that overlaps no network of the hosts, or exclude those with `SubnetMin` and `SubnetMax`:",
            command: Some(commands.get_config.clone()),
        },
        Obstacle::Lease(AllocationError::Exhausted { .. }) => Advice {
            check: "subnets",
            symptom: NO_SUBNET,
            remedy: "Delete the leases of nodes that are gone, or choose a larger `Network` or `SubnetLen`:",
            command: Some("heddle lease list".to_owned()),
        },
    }
}

/// Advice to go with a problem.
struct Advice {
    check: &'static str,
    symptom: &'static str,
    remedy: &'static str,
    command: Option<String>,
}

const WAITING: &str = "heddled retries every second, and reports it in its log and under `network config` in `/readyz`";
const NO_SUBNET: &str =
    "heddled waits for a subnet, and reports it in its log and under `lease` in `/readyz`";
const ENDING: &str = "heddled exits with this error, and systemd restarts it again and again";

const STORE: Advice = Advice {
    check: "store",
    symptom: "A starting heddled gets no subnet. A running one receives no changes, and its lease expires a day after its last \
              renewal",
    remedy: "",
    command: None,
};

fn store(error: &StoreError) -> Advice {
    let reasons = match error {
        StoreError::Etcd(EtcdError::Unreachable(failures)) => {
            failures.iter().map(|(_, f)| f).collect()
        }
        StoreError::Etcd(EtcdError::Call { failure, .. }) => vec![failure],
        StoreError::Etcd(_) => {
            return Advice { remedy: "Correct the flags named above.", ..STORE };
        }
        StoreError::Directory(_) => {
            return Advice {
                remedy: "Create the directory, readable and writable for heddled.",
                ..STORE
            };
        }
    };
    // The failure that says most decides: a second endpoint may only be down.
    reasons.iter().find_map(|failure| of_etcd(failure)).unwrap_or_else(|| Advice {
        remedy: "Start etcd, make it listen on an address that this host reaches, open its TCP port between them, or correct \
                 --etcd-endpoints:",
        command: Some("systemctl status etcd".to_owned()),
        ..STORE
    })
}

/// Returns the advice about a failure that needs more than a running etcd.
fn of_etcd(failure: &EtcdFailure) -> Option<Advice> {
    let (remedy, command) = match failure {
        EtcdFailure::Authentication | EtcdFailure::CredentialsRequired => (
            "Set --etcd-username and --etcd-password to those of an etcd user. To list the users:",
            Some("etcdctl user list".to_owned()),
        ),
        EtcdFailure::Permission(_) => (
            "Let the user's role read and write below the prefix:",
            Some("etcdctl role grant-permission --prefix=true ROLE readwrite PREFIX/".to_owned()),
        ),
        EtcdFailure::UnknownAuthority(_)
        | EtcdFailure::AuthorityAsServer(_)
        | EtcdFailure::ServerCertificate(_)
        | EtcdFailure::ClientCertificate(_)
        | EtcdFailure::ClosedAfterHandshake(_) => (
            "Correct the certificates: etcd's own, --etcd-cafile that verifies it, or --etcd-certfile and --etcd-keyfile, \
             which etcd verifies.",
            None,
        ),
        EtcdFailure::UnknownHost { host, .. } => (
            "Correct the host name in --etcd-endpoints, or make this host resolve it: in /etc/hosts, or with the name servers \
             in /etc/resolv.conf. To try it:",
            Some(format!("getent ahosts '{host}'")),
        ),
        EtcdFailure::TlsExpected(_) | EtcdFailure::TlsUnknown(_) | EtcdFailure::NotEtcd(_) => {
            ("Correct --etcd-endpoints as said above. To see where etcd listens, on its host:", {
                Some("ss -ltnp".to_owned())
            })
        }
        EtcdFailure::Refused
        | EtcdFailure::Deadline(_)
        | EtcdFailure::Transport(_)
        | EtcdFailure::AnotherCluster
        | EtcdFailure::NoV2
        | EtcdFailure::V2(_)
        | EtcdFailure::Status { .. } => return None,
    };
    Some(Advice { remedy, command, ..STORE })
}

#[cfg(test)]
mod tests {
    use heddle_core::config::NetworkConfig;

    use super::*;

    fn commands(arguments: &[&str]) -> Commands {
        let arguments = ["heddled"].iter().chain(arguments).map(Into::into);
        let none = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        Commands::new(&Flags::read(arguments, |_| None, none).unwrap())
    }

    fn found(problem: impl Into<Problem>) -> Finding {
        check(&problem.into(), &commands(&[]), false).unwrap()
    }

    #[test]
    fn missing_config_has_key_and_put_command() {
        let finding = found(Obstacle::NoConfig("/coreos.com/network/config".into()));
        assert_eq!(finding.problem, "/coreos.com/network/config does not exist");
        let expected = format!("etcdctl put /coreos.com/network/config '{EXAMPLE}'");
        assert_eq!(finding.command, Some(expected));
        assert!(NetworkConfig::parse(EXAMPLE.as_bytes()).is_ok());
        let directory = commands(&["--store=dir:/leases"]);
        assert_eq!(directory.get_config, "cat /leases/config");
    }

    #[test]
    fn config_of_an_older_flannel_has_the_import_command() {
        let finding = found(Problem::ConfigInV2("/coreos.com/network/config".into()));
        assert!(finding.problem.ends_with("in its v2 API"), "{finding}");
        assert_eq!(finding.command.as_deref(), Some("heddle import v2 --dry-run"));
    }

    #[test]
    fn config_deleted_under_a_member_has_no_example() {
        let problem = Problem::Obstacle(Obstacle::NoConfig("/n/config".into()));
        let finding = check(&problem, &commands(&[]), true).unwrap();
        assert!(finding.symptom.starts_with("The running heddled keeps the config"), "{finding}");
        assert_eq!(finding.command, None);
    }

    #[test]
    fn invalid_config_is_reported_with_its_key() {
        let error = NetworkConfig::parse(br#"{"SubnetLen":99}"#).unwrap_err();
        let finding = found(Obstacle::Config { key: "/n/config".into(), error });
        assert!(finding.problem.starts_with("/n/config: `Network` is missing"), "{finding}");
        assert!(finding.problem.contains("; `SubnetLen` is 99"), "{finding}");
    }

    #[test]
    fn config_warning_has_the_command_that_shows_the_config() {
        let warnings = NetworkConfig::warnings(br#"{"Network":"10.1.2.3/16"}"#);
        let finding = config_warning(&warnings[0], &commands(&[]));
        assert!(finding.problem.contains("10.1.0.0/16 is used"), "{finding}");
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.command.as_deref(), Some("etcdctl get /coreos.com/network/config"));
    }

    #[test]
    fn address_in_use_names_lease_to_release() {
        let error = AllocationError::AddressInUse {
            address: "192.168.0.72".parse().unwrap(),
            owner: "beta".into(),
            key: "10.244.8.0-24".parse().unwrap(),
            alive: false,
        };
        let finding = found(Obstacle::Lease(error));
        assert!(finding.problem.contains("published by beta"), "{finding}");
        assert_eq!(finding.command.as_deref(), Some("heddle lease release 10.244.8.0/24"));
    }

    #[test]
    fn every_etcd_failure_has_a_remedy() {
        for (failure, command) in [
            (EtcdFailure::Refused, Some("systemctl status etcd")),
            (EtcdFailure::Authentication, Some("etcdctl user list")),
            (EtcdFailure::UnknownAuthority(None), None),
            (
                EtcdFailure::UnknownHost { host: "etcd.test".into(), reason: "unknown".into() },
                Some("getent ahosts 'etcd.test'"),
            ),
            (EtcdFailure::TlsExpected("https://a:2379".into()), Some("ss -ltnp")),
        ] {
            let error = EtcdError::Unreachable(vec![("http://a:2379".into(), failure)]);
            let finding = found(Problem::Store(error.into()));
            assert!(finding.problem.contains("http://a:2379"), "{finding}");
            assert_eq!(finding.command.as_deref(), command);
            // The port is that of the flag.
            assert!(!finding.remedy.contains("2379"), "{finding}");
        }
    }

    #[test]
    fn certificate_file_is_left_to_credentials_check() {
        let error = EtcdError::File {
            flag: "--etcd-cafile",
            path: "/ca.pem".into(),
            reason: "No such file".into(),
        };
        assert!(check(&Problem::Store(error.into()), &commands(&[]), false).is_none());
    }
}
