//! `heddle`: what the daemon leaves to people, and to processes of their own.

mod demo;
mod plugin;

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
    /// Plugins: what there is, what is in one, and compiling one.
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// An overlay between hosts on this machine that exist for a few seconds, step by step. Needs root.
    Demo(demo::Arguments),
}

/// Exits with 1 after a failure, and with 2 after a wrong command line.
fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Plugin(command) => plugin::run(command).map(|()| ExitCode::SUCCESS),
        Command::Demo(arguments) => demo::demo(arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("heddle: {error:#}");
        ExitCode::FAILURE
    })
}
