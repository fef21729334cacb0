//! `heddle`: the command-line tool for operators and plugin authors, and for work that the daemon
//! runs in a separate process.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may run programs and wait"))]

mod config;
mod daemon;
mod daemon_flags;
mod demo;
mod docker_opts;
mod doctor;
mod explain_iface;
mod input;
mod lease;
mod manual;
mod output;
mod plugin;
mod status;
mod trial;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The command line tool of Heddle, a node daemon for overlay networks.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the state of the daemon on this host: its lease, plugins, devices and peers.
    Status(status::Arguments),
    /// Leases in the store.
    #[command(subcommand)]
    Lease(lease::Command),
    /// The network config.
    #[command(subcommand)]
    Config(config::Command),
    /// Shows each interface of this host, and why it would or would not carry the overlay.
    ExplainIface(explain_iface::Arguments),
    /// Looks for what would keep the overlay from working on this host. Needs root. Says nothing if there is nothing.
    Doctor(doctor::Arguments),
    /// Plugins: what there is and what they may do; and what their authors work with.
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// The node's subnet as options for dockerd, in a file for its systemd unit. `mk-docker-opts.sh` is this.
    DockerOpts(docker_opts::Arguments),
    /// An overlay between hosts on this machine that exist for a few seconds, step by step. Needs root.
    Demo(demo::Arguments),
    /// Writes manual pages and completions, for packages.
    #[command(hide = true)]
    Manual(manual::Arguments),
}

/// Exits with 1 after a failure, and with 2 after a wrong command line.
fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Status(arguments) => status::status(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Lease(command) => lease::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Config(command) => config::run(command),
        Command::ExplainIface(arguments) => explain_iface::explain_iface(arguments),
        Command::Doctor(arguments) => doctor::doctor(arguments),
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
