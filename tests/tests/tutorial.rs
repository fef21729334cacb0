//! Follows `docs/plugins.md` like a reader who types its commands, and tests the output of `heddle
//! plugin new` for every kind of plugin: in a directory outside of the tree, with the tool under
//! test in `PATH`.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use heddle_lab::{Etcd, Families, Lab, Machine};
use heddle_tests::guide::{Step, is_as_shown, steps};
use heddle_tests::{heddle, image, package};
use tempfile::TempDir;

/// Environment variables for Cargo's home and network access. All others of this process are
/// removed.
const KEPT: [&str; 10] = [
    "HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "CARGO_NET_",
    "CARGO_HTTP_",
    "CARGO_REGISTRIES_",
    "SSL_CERT_",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

#[test]
fn tutorial_works_as_written() {
    let mut author = Author::new();
    let node = Node::boot();
    for step in tutorial() {
        let printed = match step.machine.as_str() {
            "author" => {
                author.type_in(&step.script, &["setpriv", "--inh-caps=-all", "--bounding-set=-all"])
            }
            "root" => author.type_in(&step.script, &[]),
            "node1" => {
                node.receive(&author);
                node.type_in(&step.script)
            }
            other => panic!("the tutorial has a block for {other}"),
        };
        if let Some(shown) = &step.output {
            assert!(
                is_as_shown(shown, &printed),
                "the tutorial shows:\n{shown}\n\nand there is:\n{printed}"
            );
        }
    }
}

#[test]
fn tutorial_takes_nine_commands_and_one_file() {
    let steps = tutorial();
    let files: BTreeSet<_> =
        steps.iter().filter(|step| step.script.starts_with("cat > ")).map(first_line).collect();
    assert_eq!(files, BTreeSet::from(["cat > src/lib.rs <<'END-OF-FILE'".to_owned()]));
    let typed = steps.iter().filter(|step| step.section <= 6 && !step.script.starts_with("cat "));
    let commands = typed.flat_map(|step| step.script.lines());
    // Commands that only inspect the result do not count.
    let commands: Vec<_> = commands.filter(|line| *line != "heddle status").collect();
    assert_eq!(commands.len(), 9, "{commands:?}");
}

fn first_line(step: &Step) -> String {
    step.script.lines().next().unwrap_or_default().to_owned()
}

/// Runs the steps of the generated CI workflow, except for the setup of the machine.
#[test]
fn new_plugin_of_every_kind_works() {
    // The length of a name and its alphabetical position must not break the format of the code.
    for (kind, name) in
        [("backend", "b"), ("packet", "a-packet-backend-named-at-length"), ("emitter", "z-emitter")]
    {
        let mut author = Author::new();
        author.type_in(&format!("heddle plugin new {name} --kind {kind}\ncd {name}"), &[]);
        let workflow =
            fs::read_to_string(author.directory.join(".github/workflows/ci.yml")).unwrap();
        let commands: Vec<_> =
            workflow.lines().filter_map(|line| line.trim().strip_prefix("- run: ")).collect();
        for wanted in ["cargo test", "cargo clippy", "plugin check", "plugin run"] {
            assert!(
                commands.iter().any(|command| command.contains(wanted)),
                "{wanted}: {commands:?}"
            );
        }
        for command in commands {
            author.type_in(command.trim_start_matches("sudo "), &[]);
        }
    }
}

#[test]
fn new_plugin_can_depend_on_checkout() {
    let mut author = Author::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    author.type_in(
        &format!(
            "heddle plugin new near --sdk {}\ncd near\ncargo metadata --format-version 1",
            root.display()
        ),
        &[],
    );
    assert!(!author.directory.join("vendor").exists());
    let manifest = fs::read_to_string(author.directory.join("Cargo.toml")).unwrap();
    assert!(
        manifest.contains(&format!("heddle-sdk = {{ path = \"{}/sdk\" }}", root.display())),
        "{manifest}"
    );
}

#[test]
fn new_plugin_with_bad_name_is_refused_without_leftovers() {
    let author = Author::new();
    let refused = |arguments: &str, expected: &str| {
        let before = entries(&author.directory);
        let output = author.run(&format!("heddle plugin new {arguments}"), &[]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {errors}");
        assert!(
            errors.starts_with("heddle: ") && errors.contains(expected),
            "{arguments}: {errors}"
        );
        assert_eq!(entries(&author.directory), before, "{arguments}");
    };
    refused("Racks", "expected 1 to 32 out of a–z, 0–9 and `-`");
    refused("../racks", "expected 1 to 32 out of a–z, 0–9 and `-`");
    refused("2racks", "expected a letter first");
    refused("match", "keyword of Rust");
    refused("serde", "needs another of that name");
    refused("racks --sdk /nowhere", "there is no sdk/Cargo.toml in it");
    fs::create_dir(author.directory.join("there")).unwrap();
    refused("there", "there already exists");
    std::os::unix::fs::symlink("/nowhere", author.directory.join("link")).unwrap();
    refused("link", "link already exists");
    // If writing fails, no partial output is left.
    fs::write(author.directory.join("file"), "").unwrap();
    let output = author.run("mkdir locked\nmount -t tmpfs -o ro,mode=555 tmpfs locked\ncd locked\nheddle plugin new racks", &["unshare", "--mount"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("racks cannot be written: Read-only file system"), "{errors}");
}

fn entries(directory: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn tutorial() -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/plugins.md");
    steps(&fs::read_to_string(path).unwrap())
}

/// A user with a shell, whose working directory is kept between commands.
struct Author {
    directory: PathBuf,
    /// Removed on drop.
    home: TempDir,
}

impl Author {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { directory: home.path().canonicalize().unwrap(), home }
    }

    /// Runs a script behind a command that confines it, and keeps the directory in which it ends.
    /// Prints the script and its output.
    fn type_in(&mut self, script: &str, confined: &[&str]) -> String {
        let start = Instant::now();
        let place = self.home.path().join("directory");
        let output = self.run(&format!("{script}\npwd > {}", place.display()), confined);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        eprintln!("$ {script}\n{printed}({:.1?})", start.elapsed());
        assert!(
            output.status.success(),
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        self.directory = fs::read_to_string(&place).unwrap().trim_end().into();
        self.share_target();
        printed
    }

    fn run(&self, script: &str, confined: &[&str]) -> Output {
        let shell = ["bash", "-ec", script];
        let mut words = confined.iter().chain(&shell);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).current_dir(&self.directory).env_clear();
        let kept = |name: &str| KEPT.iter().any(|kept| name.starts_with(kept));
        command.envs(env::vars().filter(|(name, _)| kept(name)));
        let tool = heddle();
        let path = env::var("PATH").unwrap();
        command.env(
            "PATH",
            format!("{}:{path}", tool.parent().unwrap().canonicalize().unwrap().display()),
        );
        command.output().unwrap()
    }

    /// Shares Cargo's target directory between new plugins.
    fn share_target(&self) {
        let (manifest, target) = (self.directory.join("Cargo.toml"), self.directory.join("target"));
        if manifest.exists() && target.symlink_metadata().is_err() {
            let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/authors");
            fs::create_dir_all(&shared).unwrap();
            std::os::unix::fs::symlink(shared.canonicalize().unwrap(), target).unwrap();
        }
    }
}

/// A node with Heddle, on which the plugin is installed.
struct Node {
    machine: Machine,
    _etcd: Etcd,
    _lab: Lab,
}

impl Node {
    /// Boots a node in the state that the guide leaves: Heddle runs, with vxlan.
    fn boot() -> Self {
        let (image, package) = (image(), package());
        let lab = Lab::new(Families::V4).unwrap();
        let etcd = Etcd::start(&lab).unwrap();
        etcd.put("/coreos.com/network/config", &Families::V4.config()).unwrap();
        let machine = Machine::boot(lab.host("node1").unwrap(), &image).unwrap();
        machine.install(&package, "/root/heddle.deb").unwrap();
        let endpoint = etcd.endpoint();
        machine
            .shell(&format!(
                "apt-get install -y ./heddle.deb iptables etcd-client
                 echo export ETCDCTL_API=3 ETCDCTL_ENDPOINTS={endpoint} > /etc/profile.d/etcdctl.sh
                 echo FLANNELD_ETCD_ENDPOINTS={endpoint} >> /etc/default/heddled
                 systemctl enable --now heddled"
            ))
            .unwrap();
        Self { machine, _etcd: etcd, _lab: lab }
    }

    /// Copies the author's component to root's home.
    fn receive(&self, author: &Author) {
        let built = author.directory.join("target/wasm32-wasip2/release/racks.wasm");
        self.machine.install(&built, "/root/racks.wasm").unwrap();
    }

    fn type_in(&self, script: &str) -> String {
        let printed = self.machine.shell(script).unwrap();
        eprintln!("node1# {script}\n{printed}");
        printed
    }
}
