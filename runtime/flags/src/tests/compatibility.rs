//! The rows of docs/compatibility.md about flags, run with the parser.

use super::*;

const PAGE: &str = include_str!("../../../../docs/compatibility.md");

/// The flags of flannel's main.go, 0.14 to 0.28.
const FLANNEL: [&str; 33] = [
    "etcd-endpoints",
    "etcd-prefix",
    "etcd-keyfile",
    "etcd-certfile",
    "etcd-cafile",
    "etcd-username",
    "etcd-password",
    "iface",
    "iface-regex",
    "iface-can-reach",
    "subnet-file",
    "public-ip",
    "public-ipv6",
    "subnet-lease-renew-margin",
    "ip-masq",
    "ip-masq-fully-random-disable",
    "kube-subnet-mgr",
    "kube-api-url",
    "kube-annotation-prefix",
    "kubeconfig-file",
    "version",
    "healthz-ip",
    "healthz-port",
    "iptables-resync",
    "iptables-forward-rules",
    "ip-blackhole-route",
    "net-config-path",
    "set-node-network-unavailable",
    "use-multi-cluster-cidr",
    "v",
    "vmodule",
    "log_backtrace_at",
    "help",
];

/// A row, as its cells.
type Row = [&'static str; 3];

/// Returns the rows of the tables whose header has this first cell.
fn rows(first: &str) -> Vec<Row> {
    let header = format!("| {first} |");
    let (_, table) = PAGE.split_once(&header).expect("the table is there");
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    lines
        .map(|line| {
            let cells = line.trim_start_matches("| ").trim_end_matches(" |").split(" | ");
            cells.collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("{line}"))
        })
        .collect()
}

/// Returns the first text in backquotes.
fn code(cell: &str) -> &str {
    cell.split('`').nth(1).unwrap_or_else(|| panic!("no example in {cell}"))
}

/// Splits an example at spaces, except within double quotes.
fn words(example: &str) -> Vec<String> {
    let parts = example.split('"').enumerate();
    parts
        .flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

/// Parses an example: variables, which begin with FLANNELD_, and arguments.
fn parsed(example: &str) -> Result<Flags, clap::Error> {
    let directory = std::env::current_dir().unwrap();
    let example = example.replace("$PWD", directory.to_str().unwrap());
    let (variables, arguments): (Vec<_>, Vec<_>) =
        words(&example).into_iter().partition(|word| word.starts_with("FLANNELD_"));
    let variable = |name: &str| {
        let pairs = variables.iter().map(|word| word.split_once('=').unwrap());
        pairs.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
    };
    let arguments = std::iter::once("heddled".to_owned()).chain(arguments).map(Into::into);
    Flags::read(arguments, variable, |_| Err(io::ErrorKind::NotFound.into()))
}

/// Returns everything that the flags say.
fn text(flags: &Flags) -> String {
    format!("{flags:?}")
}

/// Returns the problem with a row, if there is one. `example` is one of its examples.
fn problem(example: &str, promise: &str) -> Option<String> {
    let result = parsed(example);
    let default = parsed("").unwrap();
    let complaint = match (&result, promise.split([',', ' ', ':']).next().unwrap_or_default()) {
        (Ok(flags), "used") if text(flags) != text(&default) && flags.ignored().is_empty() => None,
        (Ok(flags), "ignored") => {
            let named = flags.ignored().iter().any(|flag| {
                example.contains(flag) || {
                    example.contains(&flag.to_uppercase().replace('-', "_"))
                }
            });
            let same = text_of_used(flags) == text_of_used(&default);
            (!named || !same).then(|| format!("not just ignored: {:?}", flags.ignored()))
        }
        (Ok(flags), "as") => {
            let other = if promise.starts_with("as nothing") { "" } else { code(promise) };
            let other = parsed(other).unwrap_or_else(|error| panic!("{promise}: {error}"));
            (text(flags) != text(&other))
                .then(|| format!("{}\ninstead of\n{}", text(flags), text(&other)))
        }
        (Err(error), "refused") => {
            let named = error.to_string().contains(code(promise));
            (!named || error.exit_code() != 2).then(|| error.to_string())
        }
        (Err(error), "prints") if error.exit_code() == 0 => None,
        (Ok(flags), _) => Some(text(flags)),
        (Err(error), _) => Some(error.to_string()),
    };
    complaint.map(|complaint| format!("{example} => {promise}\n  {complaint}\n"))
}

/// Returns the groups of flags that have an effect.
fn text_of_used(flags: &Flags) -> String {
    let Flags { lease, interface, rules, files, control, health, .. } = flags;
    let health = (health.healthz_ip, health.healthz_port, health.verbosity, health.status_address);
    format!("{lease:?}{interface:?}{rules:?}{files:?}{control:?}{health:?}")
}

#[test]
fn flag_and_variable_of_every_row_do_what_it_says() {
    let problems: Vec<_> = rows("flag")
        .into_iter()
        .flat_map(|[flag, variable, promise]| {
            let (flag, variable) = (code(flag), code(variable));
            let both = [problem(flag, promise), problem(variable, promise)];
            let differ = match (parsed(flag), parsed(variable)) {
                (Ok(one), Ok(other)) => text(&one) != text(&other),
                (one, other) => one.is_ok() != other.is_ok(),
            };
            let differ = differ.then(|| format!("{flag} differs from {variable}\n"));
            both.into_iter().chain([differ]).flatten()
        })
        .collect();
    assert!(problems.is_empty(), "{}", problems.concat());
}

#[test]
fn value_form_of_every_row_does_what_it_says() {
    let rows = rows("example");
    let problems: Vec<_> =
        rows.iter().filter_map(|[example, _, promise]| problem(code(example), promise)).collect();
    assert!(problems.is_empty(), "{}", problems.concat());
}

#[test]
fn every_flag_of_flannel_has_a_row() {
    let both = [rows("flag"), rows("example")].concat();
    let examples: Vec<_> = both.iter().flat_map(|row| words(code(row[0]))).collect();
    for flag in FLANNEL {
        let has = |word: &String| {
            let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
            word.starts_with('-') && name == flag
        };
        assert!(examples.iter().any(has), "{flag}");
    }
}

#[test]
fn invalid_variable_is_named_for_every_flag() {
    let command = Flags::command();
    // Any text is a path, a name or a list of interfaces.
    let any = [
        "etcd-prefix",
        "etcd-keyfile",
        "etcd-certfile",
        "etcd-cafile",
        "etcd-username",
        "etcd-password",
        "iface",
        "subnet-file",
        "plugin-dir",
        "plugin-policy",
        "cache-dir",
        "state-dir",
        "environment-file",
        "control-socket",
        "control-group",
        "vmodule",
        "log_backtrace_at",
        "stderrthreshold",
        "log_dir",
        "kube-api-url",
        "kubeconfig-file",
        "kube-annotation-prefix",
        "net-config-path",
        "help",
        "version",
    ];
    let incomplete =
        ["etcd-keyfile", "etcd-certfile", "etcd-cafile", "etcd-username", "etcd-password"];
    let mut checked = 0;
    for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
        if any.contains(&flag) && !incomplete.contains(&flag) {
            continue;
        }
        let variable = format!("FLANNELD_{}", flag.to_uppercase().replace('-', "_"));
        let error = read("", &[(&variable, "a,(b:=")]).unwrap_err();
        assert!(
            error.contains(&format!("(from the environment variable {variable})")),
            "{flag}: {error}"
        );
        checked += 1;
    }
    assert!(checked > 20, "{checked}");
}
