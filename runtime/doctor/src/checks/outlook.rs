//! Checks the obstacles that the daemon would meet: each has an error that names the problem, and
//! gets a remedy here.

use heddle_core::allocation::AllocationError;
use heddle_flags::Flags;
use heddle_store::etcd::{EtcdError, EtcdFailure};
use heddle_store::{StoreConfig, StoreError};

use crate::outlook::Obstacle;
use crate::report::{Finding, Severity};

/// Network config to suggest.
const EXAMPLE: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;

/// Commands that read the store or write to it.
pub(crate) struct Commands {
    /// Writes a network config.
    pub(crate) put_config: String,
    /// Shows the network config.
    pub(crate) get_config: String,
    /// Deletes a lease, given the part of its key after `subnets/`.
    pub(crate) delete_lease: Box<dyn Fn(&str) -> String>,
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
                delete_lease: Box::new(move |key| format!("etcdctl del '{network}/subnets/{key}'")),
            },
            StoreConfig::Directory(_) => Self {
                put_config: format!("echo '{EXAMPLE}' > {config}"),
                get_config: format!("cat {config}"),
                delete_lease: Box::new(move |key| format!("rm '{network}/subnets/{key}'")),
            },
        }
    }
}

/// Returns `None` for obstacles that another check reports in more detail.
pub(crate) fn check(obstacle: &Obstacle, commands: &Commands) -> Option<Finding> {
    let Advice { check, symptom, remedy, command } = match obstacle {
        // A file of certificates or keys: see `credentials`.
        Obstacle::Store(StoreError::Etcd(EtcdError::File { .. })) => return None,
        Obstacle::Store(error) => store(error),
        Obstacle::StoreLate(_) => Advice {
            remedy: "Look at etcd's own log, its disk, and the network between.",
            command: Some("etcdctl endpoint status -w table".to_owned()),
            ..STORE
        },
        Obstacle::NoConfig(_) => Advice {
            check: "network-config",
            symptom: WAITING,
            remedy: "Write it, with the network that you want; or give the right --etcd-prefix.",
            command: Some(commands.put_config.clone()),
        },
        Obstacle::Config { .. } | Obstacle::Backend { .. } => Advice {
            check: "network-config",
            symptom: WAITING,
            remedy: "Correct it; heddled reads it again by itself.",
            command: Some(commands.get_config.clone()),
        },
        Obstacle::Plugin { .. } => Advice {
            check: "plugin",
            symptom: WAITING,
            remedy: "Correct the name, or put the plugin into one of these places. Those that there are:",
            command: Some("heddle plugin list".to_owned()),
        },
        Obstacle::Interface(_) => Advice {
            check: "interface",
            symptom: ENDING,
            remedy: "Name the interface between the hosts with --iface, or give it what it lacks.",
            command: Some("ip -brief address".to_owned()),
        },
        Obstacle::Lease(AllocationError::AddressInUse { key, .. }) => Advice {
            check: "public-address",
            symptom: ENDING,
            remedy: "Give each host an address of its own, and name it (--iface, --public-ip). If the other host is gone:",
            command: Some((commands.delete_lease)(&key.to_string())),
        },
        Obstacle::Lease(AllocationError::Occupied { .. }) => Advice {
            check: "subnets",
            symptom: NO_SUBNET,
            remedy: "Choose a `Network` beside the networks of the hosts, or keep them out with `SubnetMin` and `SubnetMax`.",
            command: Some(commands.get_config.clone()),
        },
        Obstacle::Lease(AllocationError::Exhausted { .. }) => Advice {
            check: "subnets",
            symptom: NO_SUBNET,
            remedy: "Delete the leases of nodes that are gone, or choose a larger `Network` or `SubnetLen`.",
            command: Some("heddle lease list".to_owned()),
        },
        Obstacle::Identity(_) => Advice {
            check: "identity",
            symptom: ENDING,
            remedy: "Correct the file, or give --node-id.",
            command: Some("systemd-machine-id-setup".to_owned()),
        },
        Obstacle::Emitter { .. } => Advice {
            check: "files",
            symptom: "heddled does not get ready (`emitters` in `/readyz`), and Docker does not learn its subnet",
            remedy: "Correct the setting, in the unit's command line or in FLANNELD_EMIT.",
            command: None,
        },
    };
    Some(Finding {
        check,
        severity: Severity::Error,
        problem: obstacle.to_string(),
        symptom: symptom.to_owned(),
        remedy: remedy.to_owned(),
        command,
    })
}

/// Advice to go with a problem.
struct Advice {
    check: &'static str,
    symptom: &'static str,
    remedy: &'static str,
    command: Option<String>,
}

const WAITING: &str = "heddled looks again every second, and says so in its log and under `network config` in `/readyz`";
const NO_SUBNET: &str =
    "heddled waits for a subnet, and says so in its log and under `lease` in `/readyz`";
const ENDING: &str = "heddled says so and ends; systemd starts it again and again";

const STORE: Advice = Advice {
    check: "store",
    symptom: "A heddled that starts gets no subnet; one that runs hears of no changes, and its lease ends a day after its last \
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
            return Advice { remedy: "Correct the flags that are named.", ..STORE };
        }
        StoreError::Directory(_) => {
            return Advice {
                remedy: "Make the directory, readable and writable for heddled.",
                ..STORE
            };
        }
    };
    let any = |wanted: fn(&EtcdFailure) -> bool| reasons.iter().any(|failure| wanted(failure));
    if any(|f| matches!(f, EtcdFailure::Authentication | EtcdFailure::CredentialsRequired)) {
        Advice {
            remedy: "Give the name and the password of an etcd user. The users that there are:",
            command: Some("etcdctl user list".to_owned()),
            ..STORE
        }
    } else if any(|f| matches!(f, EtcdFailure::Permission(_))) {
        Advice {
            remedy: "Let the user's role read and write below the prefix:",
            command: Some(
                "etcdctl role grant-permission --prefix=true ROLE readwrite PREFIX/".to_owned(),
            ),
            ..STORE
        }
    } else if any(|f| {
        matches!(
            f,
            EtcdFailure::UnknownAuthority(_)
                | EtcdFailure::ServerCertificate(_)
                | EtcdFailure::ClientCertificate(_)
                | EtcdFailure::ClosedAfterHandshake(_)
        )
    }) {
        Advice {
            remedy: "Put the certificates right: etcd's own, --etcd-cafile that it is checked against, --etcd-certfile and \
                     --etcd-keyfile that it asks for.",
            ..STORE
        }
    } else {
        Advice {
            remedy: "Start etcd, let it listen on an address that this host reaches, open TCP 2379 between them, or correct \
                     --etcd-endpoints.",
            command: Some("systemctl status etcd".to_owned()),
            ..STORE
        }
    }
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

    fn found(obstacle: &Obstacle) -> Finding {
        check(obstacle, &commands(&[])).unwrap()
    }

    #[test]
    fn missing_config_has_key_and_put_command() {
        let finding = found(&Obstacle::NoConfig("/coreos.com/network/config".into()));
        assert_eq!(finding.problem, "/coreos.com/network/config does not exist");
        let expected = format!("etcdctl put /coreos.com/network/config '{EXAMPLE}'");
        assert_eq!(finding.command, Some(expected));
        assert!(NetworkConfig::parse(EXAMPLE.as_bytes()).is_ok());
        let directory = commands(&["--store=dir:/leases"]);
        assert_eq!(directory.get_config, "cat /leases/config");
    }

    #[test]
    fn invalid_config_is_reported_with_its_key() {
        let error = NetworkConfig::parse(b"{}").unwrap_err();
        let finding = found(&Obstacle::Config { key: "/n/config".into(), error });
        assert!(finding.problem.starts_with("/n/config: `Network` is missing"), "{finding}");
    }

    #[test]
    fn address_in_use_names_lease_to_delete() {
        let error = AllocationError::AddressInUse {
            address: "192.168.0.72".parse().unwrap(),
            owner: "beta".into(),
            key: "10.244.8.0-24".parse().unwrap(),
        };
        let finding = found(&Obstacle::Lease(error));
        assert!(finding.problem.contains("published by beta"), "{finding}");
        let expected = "etcdctl del '/coreos.com/network/subnets/10.244.8.0-24'";
        assert_eq!(finding.command.as_deref(), Some(expected));
    }

    #[test]
    fn every_etcd_failure_has_a_remedy() {
        for (failure, command) in [
            (EtcdFailure::Refused, Some("systemctl status etcd")),
            (EtcdFailure::Authentication, Some("etcdctl user list")),
            (EtcdFailure::UnknownAuthority(None), None),
        ] {
            let error = EtcdError::Unreachable(vec![("http://a:2379".into(), failure)]);
            let finding = found(&Obstacle::Store(error.into()));
            assert!(finding.problem.contains("http://a:2379"), "{finding}");
            assert_eq!(finding.command.as_deref(), command);
        }
    }

    #[test]
    fn certificate_file_is_left_to_credentials_check() {
        let error = EtcdError::File {
            flag: "--etcd-cafile",
            path: "/ca.pem".into(),
            reason: "No such file".into(),
        };
        assert!(check(&Obstacle::Store(error.into()), &commands(&[])).is_none());
    }
}
