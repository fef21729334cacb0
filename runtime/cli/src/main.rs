//! `heddle`: the command-line tool for operators and plugin authors, and for work that the daemon
//! runs in a separate process.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may run programs and wait"))]

mod config;
#[cfg(test)]
mod configuration;
mod daemon;
mod daemon_flags;
mod demo;
mod docker_opts;
mod doctor;
mod explain_iface;
mod import;
mod input;
mod lease;
mod manual;
mod output;
mod plugin;
mod status;
mod trial;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Command-line tool of Heddle, a node daemon for overlay networks.
#[derive(Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 after success, 1 after a failure, 2 for an invalid command line."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the state of the daemon on this host: its lease, plugins, devices and peers.
    Status(status::Arguments),
    /// Shows leases in the store, or releases one.
    #[command(subcommand)]
    Lease(lease::Command),
    /// Works with the network config.
    #[command(subcommand)]
    Config(config::Command),
    /// Shows which interface heddled would use on this host, and why. Exits with 1 if it cannot use one.
    ExplainIface(explain_iface::Arguments),
    /// Checks this host for problems that break the overlay, and exits with 1 if there are any. Needs root. Prints nothing
    /// on a healthy host.
    Doctor(doctor::Arguments),
    /// Copies a network into the store.
    #[command(subcommand)]
    Import(import::Command),
    /// Works with plugins: for operators and plugin authors.
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Writes the node's subnet as options of dockerd to a file for its systemd unit, as `mk-docker-opts.sh` does.
    DockerOpts(docker_opts::Arguments),
    /// Demonstrates an overlay, step by step, between short-lived hosts on this machine. Needs root.
    Demo(demo::Arguments),
    /// Writes manual pages and shell completions, for packages.
    #[command(hide = true)]
    Manual(manual::Arguments),
}

/// Exit code of `heddle status --check` if the node or a peer has a fault.
const FAULTY: u8 = 3;

/// Exits with 1 after a failure, and with 2 after a wrong command line.
fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Status(arguments) => status::status(&arguments)
            .map(|healthy| if healthy { ExitCode::SUCCESS } else { ExitCode::from(FAULTY) }),
        Command::Lease(command) => lease::run(command).map(|()| ExitCode::SUCCESS),
        Command::Config(command) => config::run(command),
        Command::ExplainIface(arguments) => explain_iface::explain_iface(arguments),
        Command::Doctor(arguments) => doctor::doctor(arguments),
        Command::Import(command) => import::run(command),
        Command::Plugin(command) => plugin::run(command),
        Command::DockerOpts(arguments) => Ok(docker_opts::docker_opts(&arguments)),
        Command::Demo(arguments) => demo::demo(arguments),
        Command::Manual(arguments) => manual::manual(&arguments).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        output::complain(&format!("heddle: {error:#}"));
        ExitCode::FAILURE
    })
}
