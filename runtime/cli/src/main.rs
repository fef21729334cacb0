//! `heddle`: what the daemon leaves to people, and to processes of their own.

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
}

/// Exits with 1 after a failure, and with 2 after a wrong command line.
fn main() -> ExitCode {
    let Command::Plugin(command) = Arguments::parse().command;
    match plugin::run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("heddle: {error:#}");
            ExitCode::FAILURE
        }
    }
}
