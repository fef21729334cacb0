//! `heddle lease …`.

mod release;

use clap::{Args, Subcommand};
use heddle_control::Leases;

use crate::daemon::{Daemon, wait_for};
use crate::output::{json, list, print, table};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Lists every lease and reservation in the store, with the reason for each that is rejected.
    List(List),
    /// Deletes the lease of a node that is gone, so that its subnet and its address are free at once. Asks the node first,
    /// which takes 15 seconds if it is gone, and exits with 1 if it is there.
    Release(release::Arguments),
}

#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    daemon: Daemon,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    let arguments = match command {
        Command::List(arguments) => arguments,
        Command::Release(arguments) => return release::release(arguments),
    };
    let leases = wait_for(async { Ok(arguments.daemon.client()?.leases().await?) })?;
    print(&if arguments.json { json(&leases)? } else { render(&leases) })
}

fn render(leases: &Leases) -> String {
    let rows = leases.records.iter().map(|record| {
        let name = record.node_name.as_ref().or(record.node_id.as_ref());
        [
            record.key.clone(),
            list(&record.public_addresses),
            name.cloned().unwrap_or_default(),
            record.backend.clone().unwrap_or_default(),
            if record.reservation { "reservation" } else { "lease" }.to_owned(),
            if record.own { "own" } else { "" }.to_owned(),
            record.problem.clone().unwrap_or_default(),
        ]
    });
    let mut text = table(["LEASE", "ADDRESS", "NODE", "BACKEND", "KIND", "OWN", "PROBLEM"], rows);
    if leases.unlisted > 0 {
        let (listed, more) = (leases.records.len(), leases.unlisted);
        text += &format!("records listed: {listed}; further rejected records: {more}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use heddle_control::LeaseRecord;

    use super::*;

    #[test]
    fn leases_and_reservations_are_distinguished() {
        let lease = LeaseRecord {
            key: "10.244.8.0-24".into(),
            node_id: Some("4f3c".into()),
            node_name: Some("a".into()),
            public_addresses: vec!["192.168.0.72".parse().unwrap()],
            backend: Some("vxlan".into()),
            own: true,
            ..LeaseRecord::default()
        };
        let reservation = LeaseRecord {
            key: "10.244.9.0-24".into(),
            node_id: Some("77aa".into()),
            reservation: true,
            ..LeaseRecord::default()
        };
        let garbage = LeaseRecord {
            key: "x".into(),
            problem: Some("not a lease key".into()),
            ..LeaseRecord::default()
        };
        let records = vec![lease, reservation, garbage];
        let leases = Leases { records, unlisted: 7, ..Leases::default() };
        assert_eq!(
            render(&leases),
            "\
LEASE          ADDRESS       NODE  BACKEND  KIND         OWN  PROBLEM
10.244.8.0-24  192.168.0.72  a     vxlan    lease        own  -
10.244.9.0-24  -             77aa  -        reservation  -    -
x              -             -     -        lease        -    not a lease key
records listed: 3; further rejected records: 7
"
        );
    }
}
