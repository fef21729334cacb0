//! `heddle demo`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use heddle_lab::Families;
use heddle_lab::demo::{Options, StoreKind, Verdict, run};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many hosts.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=20))]
    hosts: u8,
    /// Where the hosts find each other.
    #[arg(long, value_enum, default_value_t = Store::Dir)]
    store: Store,
    /// IPv6 instead of IPv4.
    #[arg(long)]
    ipv6: bool,
    /// IPv4 and IPv6.
    #[arg(long, conflicts_with = "ipv6")]
    dual_stack: bool,
    /// Leave it running at the end, to look around, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// The daemon to run [default: heddled beside this program].
    #[arg(long, value_name = "FILE")]
    heddled: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Store {
    /// A directory.
    Dir,
    /// An etcd of the demo's own.
    Etcd,
}

pub(crate) fn demo(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let heddled = match arguments.heddled {
        Some(path) => path,
        None => std::env::current_exe()
            .context("this program does not know where it is; name the daemon with --heddled")?
            .with_file_name("heddled"),
    };
    let options = Options {
        heddled,
        hosts: arguments.hosts.into(),
        store: match arguments.store {
            Store::Dir => StoreKind::Directory,
            Store::Etcd => StoreKind::Etcd,
        },
        families: match (arguments.ipv6, arguments.dual_stack) {
            (true, _) => Families::V6,
            (_, true) => Families::Dual,
            _ => Families::V4,
        },
        keep: arguments.keep,
    };
    Ok(match run(&options)? {
        Verdict::Pass => ExitCode::SUCCESS,
        Verdict::Fail => ExitCode::FAILURE,
    })
}
