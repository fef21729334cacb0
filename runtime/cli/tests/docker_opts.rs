//! `heddle docker-opts`, called through `mk-docker-opts.sh` like in systemd units and by users. The
//! expected bytes are the output of flannel's script.

#![allow(clippy::disallowed_methods, reason = "tests may run programs, wait and read files")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TOOL: &str = env!("CARGO_BIN_EXE_heddle");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/mk-docker-opts.sh");

const SUBNET_ENV: &str = "FLANNEL_NETWORK=10.1.0.0/16\n\
                          FLANNEL_SUBNET=10.1.74.1/24\n\
                          FLANNEL_MTU=1472\n\
                          FLANNEL_IPMASQ=false\n";

const ALL: &str = "DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\n\
                   DOCKER_OPT_IPMASQ=\"--ip-masq=true\"\n\
                   DOCKER_OPT_MTU=\"--mtu=1472\"\n\
                   DOCKER_OPTS=\" --bip=10.1.74.1/24 --ip-masq=true --mtu=1472\"\n";

/// A directory with a `subnet.env`, in which the script is called.
struct Place(tempfile::TempDir);

impl Place {
    fn new(subnet_env: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.path("subnet.env"), subnet_env).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Calls the script with these flags, separated by white space, and without this process's
    /// environment.
    fn call(&self, flags: &str, environment: &[(&str, &str)]) -> Output {
        let tools = Path::new(TOOL).parent().unwrap().display();
        Command::new(SCRIPT)
            .args(flags.split_whitespace())
            .current_dir(&self.0)
            .env_clear()
            .env("PATH", format!("{tools}:/usr/bin:/bin:/usr/sbin:/sbin"))
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    /// Returns the script's output for `subnet.env`.
    fn written(&self, flags: &str, environment: &[(&str, &str)]) -> String {
        let output = self.call(&format!("-f subnet.env -d out {flags}"), environment);
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
        self.read("out")
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn flag_combinations_give_output_of_flannel() {
    let place = Place::new(SUBNET_ENV);
    let individual = "DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\n\
                      DOCKER_OPT_IPMASQ=\"--ip-masq=true\"\n\
                      DOCKER_OPT_MTU=\"--mtu=1472\"\n";
    let combined = "DOCKER_OPTS=\" --bip=10.1.74.1/24 --ip-masq=true --mtu=1472\"\n";
    let all_without_masq = "DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\n\
                            DOCKER_OPT_MTU=\"--mtu=1472\"\n\
                            DOCKER_OPTS=\" --bip=10.1.74.1/24 --mtu=1472\"\n";
    let individual_without_masq = "DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\n\
                                   DOCKER_OPT_MTU=\"--mtu=1472\"\n";
    let combined_without_masq = "DOCKER_OPTS=\" --bip=10.1.74.1/24 --mtu=1472\"\n";
    for (flags, expected) in [
        ("", ALL),
        ("-i", individual),
        ("-c", combined),
        ("-i -c", ALL),
        ("-m", all_without_masq),
        ("-i -m", individual_without_masq),
        ("-c -m", combined_without_masq),
        ("-i -c -m", all_without_masq),
        // Notations of getopts.
        ("-im", individual_without_masq),
        ("-cim", all_without_masq),
        ("-i -i", individual),
        ("-c -- -m", combined),
        ("-c more -m", combined),
        // Our additional long flags.
        ("--individual --no-ip-masq", individual_without_masq),
        ("--combined", combined),
    ] {
        assert_eq!(place.written(flags, &[]), expected, "{flags}");
        // The same with another key.
        let renamed = expected.replace("DOCKER_OPTS=", "DOCKER_NETWORK_OPTIONS=");
        let key = "-k DOCKER_NETWORK_OPTIONS";
        assert_eq!(place.written(&format!("{key} {flags}"), &[]), renamed, "{flags}");
    }
    for flags in ["-ck X", "-ckX", "-k Y -ck X", "-c --key X"] {
        let expected = "X=\" --bip=10.1.74.1/24 --ip-masq=true --mtu=1472\"\n";
        assert_eq!(place.written(flags, &[]), expected, "{flags}");
    }
}

#[test]
fn unknown_values_are_left_out() {
    for (subnet_env, expected) in [
        ("", "DOCKER_OPTS=\"\"\n"),
        ("FLANNEL_MTU=1450\n", "DOCKER_OPT_MTU=\"--mtu=1450\"\nDOCKER_OPTS=\" --mtu=1450\"\n"),
        ("FLANNEL_IPMASQ=\n", "DOCKER_OPTS=\"\"\n"),
        (
            "FLANNEL_IPMASQ=true\n",
            "DOCKER_OPT_IPMASQ=\"--ip-masq=false\"\nDOCKER_OPTS=\" --ip-masq=false\"\n",
        ),
        // Like flannel's script, there are no options for IPv6.
        (
            "FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00::1/64\nFLANNEL_MTU=1430\n",
            "DOCKER_OPT_MTU=\"--mtu=1430\"\nDOCKER_OPTS=\" --mtu=1430\"\n",
        ),
    ] {
        let place = Place::new(subnet_env);
        assert_eq!(place.written("", &[]), expected, "{subnet_env}");
    }
    let place = Place::new("");
    assert_eq!(place.written("-i", &[]), "");
    // A missing file is no error.
    fs::remove_file(place.path("subnet.env")).unwrap();
    assert_eq!(place.written("", &[]), "DOCKER_OPTS=\"\"\n");
}

#[test]
fn variables_set_already_have_precedence() {
    let place = Place::new(SUBNET_ENV);
    assert_eq!(
        place.written("-c", &[("DOCKER_OPTS", "--debug --icc=false")]),
        "DOCKER_OPTS=\"--debug --icc=false  --bip=10.1.74.1/24 --ip-masq=true --mtu=1472\"\n"
    );
    // The variable of another key is ignored; other options are kept, in the order of their names.
    let environment = [("DOCKER_OPTS", "--debug"), ("DOCKER_OPT_ICC", "--icc=false")];
    assert_eq!(
        place.written("-m -k KEY", &environment),
        "DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\n\
         DOCKER_OPT_ICC=\"--icc=false\"\n\
         DOCKER_OPT_MTU=\"--mtu=1472\"\n\
         KEY=\" --bip=10.1.74.1/24 --icc=false --mtu=1472\"\n"
    );
    // The environment may supply all values.
    fs::remove_file(place.path("subnet.env")).unwrap();
    let environment = [("FLANNEL_SUBNET", "10.9.1.1/24"), ("FLANNEL_MTU", "")];
    assert_eq!(place.written("-c", &environment), "DOCKER_OPTS=\" --bip=10.9.1.1/24\"\n");
}

#[test]
fn file_is_parsed_like_a_shell_and_never_run() {
    let place = Place::new(
        "# flannel's\n\
         \n\
         FLANNEL_SUBNET=\"10.1.74.1/24\" # the bridge\n\
         export FLANNEL_MTU='1472'\n\
         FLANNEL_IPMASQ=true FLANNEL_IPMASQ=fal\\se\n\
         touch ran\n\
         FLANNEL_MTU=1 touch ran\n",
    );
    assert_eq!(place.written("", &[]), ALL);
    assert!(!place.path("ran").exists());

    fs::write(place.path("subnet.env"), "FLANNEL_MTU=1450\nFLANNEL_SUBNET='10\n").unwrap();
    let output = place.call("-f subnet.env -d out", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "subnet.env cannot be used: line 2: unclosed quote\n");
}

#[test]
fn input_and_output_may_be_same_file() {
    let place = Place::new(SUBNET_ENV);
    let flags = "-k DOCKER_NETWORK_OPTIONS -f subnet.env -d subnet.env";
    assert!(place.call(flags, &[]).status.success());
    assert_eq!(place.read("subnet.env"), ALL.replace("DOCKER_OPTS", "DOCKER_NETWORK_OPTIONS"));
    // A second call, before the daemon has rewritten the file: the existing options stay, as with
    // flannel's script.
    assert!(place.call(flags, &[]).status.success());
    assert_eq!(
        place.read("subnet.env"),
        "DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\n\
         DOCKER_OPT_IPMASQ=\"--ip-masq=true\"\n\
         DOCKER_OPT_MTU=\"--mtu=1472\"\n\
         DOCKER_NETWORK_OPTIONS=\" --bip=10.1.74.1/24 --ip-masq=true --mtu=1472  \
         --bip=10.1.74.1/24 --ip-masq=true --mtu=1472\"\n"
    );
}

#[test]
fn bad_value_is_an_error_and_keeps_the_file() {
    let place = Place::new("FLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_IPMASQ=yes\n");
    fs::write(place.path("out"), "before\n").unwrap();
    let output = place.call("-f subnet.env -d out", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "Invalid value of FLANNEL_IPMASQ: yes\n");
    assert_eq!(place.read("out"), "before\n");
    // The value is parsed only if needed.
    assert!(place.written("-m", &[]).ends_with("DOCKER_OPTS=\" --bip=10.1.74.1/24\"\n"));

    for (flags, expected) in [
        ("-d no/such/place", "no/such/place cannot be written: "),
        ("-k 1A", "expected the name of a variable"),
        ("-x", "unexpected argument '-x'"),
        ("-k", "a value is required for '--key <NAME>'"),
    ] {
        let output = place.call(flags, &[("FLANNEL_MTU", "1450")]);
        assert!(!output.status.success(), "{flags}");
        assert!(text(&output.stderr).contains(expected), "{output:?}");
    }
}

#[test]
fn short_help_flag_is_an_error_and_long_is_not() {
    let place = Place::new("");
    for flag in ["-h", "-?"] {
        let output = place.call(flag, &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("--docker-file <FILE>"), "{output:?}");
    }
    let output = place.call("--help", &[]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("--docker-file <FILE>"), "{output:?}");
}

#[test]
fn output_file_is_replaced_atomically() {
    let place = Place::new(SUBNET_ENV);
    fs::write(place.path("out"), "before\n").unwrap();
    fs::set_permissions(place.path("out"), fs::Permissions::from_mode(0o600)).unwrap();
    // A reader that has the old file open keeps seeing all of it.
    let before = fs::File::open(place.path("out")).unwrap();
    assert_eq!(place.written("", &[]), ALL);
    assert_eq!(std::io::read_to_string(before).unwrap(), "before\n");
    assert_eq!(fs::metadata(place.path("out")).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 2);
}

#[test]
fn link_is_followed_and_pipe_is_written_to() {
    let place = Place::new(SUBNET_ENV);
    symlink("subnet.env", place.path("out")).unwrap();
    assert_eq!(place.written("", &[]), ALL);
    assert!(place.path("out").is_symlink());
    assert_eq!(place.read("subnet.env"), ALL);

    fs::write(place.path("subnet.env"), SUBNET_ENV).unwrap();
    let output = place.call("-f subnet.env -d /dev/stdout", &[]);
    assert_eq!(text(&output.stdout), ALL);
}

#[test]
fn script_finds_tool_in_its_own_directory() {
    let place = Place::new(SUBNET_ENV);
    fs::copy(SCRIPT, place.path("mk-docker-opts.sh")).unwrap();
    symlink(TOOL, place.path("heddle")).unwrap();
    for (program, arguments) in [("./mk-docker-opts.sh", &[][..]), ("sh", &["mk-docker-opts.sh"])] {
        let status = Command::new(program)
            .args(arguments)
            .args(["-f", "subnet.env", "-d", "out"])
            .current_dir(&place.0)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(place.read("out"), ALL);
        fs::remove_file(place.path("out")).unwrap();
    }
}
