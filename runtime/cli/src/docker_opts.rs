//! `heddle docker-opts`: a replacement for flannel's `dist/mk-docker-opts.sh`, with the same flags.
//! Our own `dist/mk-docker-opts.sh` calls it.
//!
//! It differs only in ways that no caller can rely on. The environment file is parsed, not run:
//! assignments count, with the shell's quotes and without its substitutions. The output file is
//! replaced atomically, and left alone on an error.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{ArgAction, Args, CommandFactory};
use docker_opts::{DockerOptions, Key, Lines};
use heddle_flags::SUBNET_ENV_LIMIT;
use heddle_lab::run;
use ipnet::Ipv4Net;

#[derive(Args)]
#[command(args_override_self = true, disable_help_flag = true)]
pub(crate) struct Arguments {
    /// File with the node's subnet, as the daemon wrote it.
    #[arg(short = 'f', long, value_name = "FILE", default_value = "/run/flannel/subnet.env")]
    subnet_file: PathBuf,
    /// Output file for the options; may be the same file.
    #[arg(short = 'd', long, value_name = "FILE", default_value = "/run/docker_opts.env")]
    docker_file: PathBuf,
    /// Write a variable for each option, such as DOCKER_OPT_MTU. With both or neither of -i and -c, write all variables.
    #[arg(short, long)]
    individual: bool,
    /// Write one variable with all options.
    #[arg(short, long)]
    combined: bool,
    /// Omit --ip-masq.
    #[arg(short = 'm', long)]
    no_ip_masq: bool,
    /// Name of the variable with all options. Options that it already has, in the environment or the file, come first.
    #[arg(short, long, value_name = "NAME", default_value_t)]
    key: Key,
    /// Print help.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Print help as an error, as the script does.
    #[arg(short = 'h', short_alias = '?', hide = true)]
    usage: bool,
    /// `getopts` ends at the first of these, and the script does not look at them.
    #[arg(hide = true, trailing_var_arg = true)]
    rest: Vec<String>,
}

/// Writes errors like flannel's script: without the program's name.
pub(crate) fn docker_opts(arguments: &Arguments) -> ExitCode {
    let done = if arguments.usage { usage() } else { convert(arguments) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::output::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn usage() -> anyhow::Result<()> {
    let mut heddle = crate::Arguments::command();
    heddle.build();
    let command = heddle.find_subcommand_mut("docker-opts").expect("this is the subcommand");
    bail!("{}", command.render_help())
}

fn convert(arguments: &Arguments) -> anyhow::Result<()> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let mut variables: Variables = std::env::vars_os().filter_map(text).collect();
    let subnet_file = &arguments.subnet_file;
    if subnet_file.is_file() {
        let contents = heddle_files::read_text(subnet_file, SUBNET_ENV_LIMIT)?;
        let assigned = assignments(&contents)
            .with_context(|| format!("{} cannot be used", subnet_file.display()))?;
        variables.extend(assigned);
    }
    let options = options(&variables, !arguments.no_ip_masq)?;
    let lines = Lines::chosen(arguments.individual, arguments.combined);
    let first = variables.get(arguments.key.as_ref()).map_or("", String::as_str);
    let docker_file = &arguments.docker_file;
    replace(docker_file, &options.text(lines, &arguments.key, first))
        .with_context(|| format!("{} cannot be written", docker_file.display()))?;
    match variables.get("FLANNEL_SUBNET").and_then(|subnet| subnet.parse().ok()) {
        Some(subnet) => not_elsewhere(subnet),
        None => Ok(()),
    }
}

/// Variables of a shell.
type Variables = BTreeMap<String, String>;

/// Parses the assignments that a shell would make when it reads this text. Skips lines with
/// anything else.
fn assignments(text: &str) -> anyhow::Result<Variables> {
    let mut assigned = Variables::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words = shlex::split(line).with_context(|| format!("line {number}: unclosed quote"))?;
        let words = words.iter().filter(|word| *word != "export");
        let pairs: Option<Vec<_>> = words.map(|word| word.split_once('=')).collect();
        let pairs = pairs.unwrap_or_default().into_iter();
        assigned.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    Ok(assigned)
}

/// Derives Docker's options from the variables of `subnet.env`, and from options that are set
/// already. An empty variable counts as unset.
fn options(variables: &Variables, ip_masq: bool) -> anyhow::Result<DockerOptions> {
    let given = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    let set = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut options: DockerOptions = set.collect();
    if let Some(address) = given("FLANNEL_SUBNET") {
        options.bip(address);
    }
    if let Some(mtu) = given("FLANNEL_MTU") {
        options.mtu(mtu);
    }
    if let Some(value) = given("FLANNEL_IPMASQ").filter(|_| ip_masq) {
        match value.parse() {
            Ok(daemon_does) => options.ip_masq(daemon_does),
            // The wording of flannel's script.
            Err(_) => bail!("Invalid value of FLANNEL_IPMASQ: {value}"),
        }
    }
    Ok(options)
}

/// Replaces a file atomically, following a symlink. Anything that is not a regular file, such as a
/// terminal or a pipe, is written to.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let path = fs::canonicalize(path).or_else(|_| absolute(path))?;
    if path.exists() && !path.is_file() {
        return Ok(fs::write(path, text)?);
    }
    let directory = path.parent().context("this is a directory")?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Refuses a subnet that this host reaches through a router, because it is another node's.
#[expect(clippy::disallowed_methods, reason = "ip knows the routes, as in flannel's script")]
fn not_elsewhere(subnet: Ipv4Net) -> anyhow::Result<()> {
    let mut ip = std::process::Command::new("ip");
    ip.args(["-4", "route", "show", "exact", &subnet.trunc().to_string()]);
    // Without `ip`, the check is skipped.
    let routes = run(&mut ip).unwrap_or_default();
    let through_a_router: Vec<_> = routes.lines().filter(|route| route.contains(" via ")).collect();
    if !through_a_router.is_empty() {
        // The wording of flannel's script.
        bail!("Your routing table already contains the subnet: {}", through_a_router.join("\n"));
    }
    Ok(())
}
