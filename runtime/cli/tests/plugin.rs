//! The command-line tool's plugin commands, as users and the daemon run them.

#![allow(clippy::disallowed_methods, reason = "tests may run programs, wait and read files")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use heddle_plugin::{Catalogue, PluginError, PluginSource, Role, embedded_component};

const TOOL: &str = env!("CARGO_BIN_EXE_heddle");

/// Returns the path of the compiler, which the build script of `heddle-plugin` put beside the tool.
fn compiler() -> PathBuf {
    Path::new(TOOL).with_file_name("heddle-compiler")
}

fn heddle(arguments: &[&str]) -> Output {
    Command::new(TOOL).args(arguments).output().unwrap()
}

/// Copies an executable in a child process. A child that another test forks while this process has
/// the copy open for writing would make its execution fail (ETXTBSY).
fn copy_program(from: impl AsRef<Path>, to: &Path) {
    let status = Command::new("cp").arg(from.as_ref()).arg(to).status().unwrap();
    assert!(status.success(), "cp: {status}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A plugin directory that contains the vxlan plugin, and a place for a cache.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("plugins")).unwrap();
        let place = Self { dir };
        fs::write(place.plugin(), embedded_component("vxlan").unwrap()).unwrap();
        place
    }

    fn plugins(&self) -> PathBuf {
        self.dir.path().join("plugins")
    }

    fn plugin(&self) -> PathBuf {
        self.plugins().join("vxlan.wasm")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn find(&self, compiler: impl Into<PathBuf>) -> Result<PluginSource, PluginError> {
        let dirs = vec!["/nonexistent".into(), self.plugins()];
        let catalogue = Catalogue::new(dirs, Some(compiler.into()), self.cache()).unwrap();
        // Needed for a file that is not a copy of the built-in plugin.
        let policy = self.dir.path().join("plugins.toml");
        fs::write(&policy, "[plugin.vxlan]\nudp-ports = ['1-65535']\n").unwrap();
        let catalogue = catalogue.with_policy(policy);
        catalogue.find("vxlan", Role::Backend).map(|plugin| plugin.source().clone())
    }

    /// Returns the only cache entry of this kind.
    fn entry(&self, kind: &str) -> PathBuf {
        let mut found = self.entries();
        found.retain(|entry| entry.extension().is_some_and(|end| end == kind));
        assert_eq!(found.len(), 1, "{kind}: {found:?}");
        found.remove(0)
    }

    /// Returns the cache entries.
    fn entries(&self) -> Vec<PathBuf> {
        fs::read_dir(self.cache()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

#[test]
fn file_precedes_embedded_plugin_and_is_compiled_once() {
    let place = Place::new();
    assert_eq!(place.find(compiler()).unwrap(), PluginSource::File(place.plugin()));
    for kind in ["cwasm", "seal", "receipt"] {
        place.entry(kind);
    }
    assert_eq!(place.entries().len(), 3);
    // Without a compiler, the plugin can only come from the cache.
    assert_eq!(place.find("/nonexistent/compiler").unwrap(), PluginSource::File(place.plugin()));

    fs::remove_file(place.plugin()).unwrap();
    assert_eq!(place.find("/nonexistent/compiler").unwrap(), PluginSource::Embedded);
}

#[test]
fn damaged_cache_entry_is_compiled_again() {
    let place = Place::new();
    place.find(compiler()).unwrap();
    for kind in ["cwasm", "seal"] {
        let entry = place.entry(kind);
        let good = fs::read(&entry).unwrap();
        for damage in [&good[..good.len() / 2], &b"nonsense"[..], &[]] {
            fs::write(&entry, damage).unwrap();
            assert!(matches!(
                place.find("/nonexistent/compiler"),
                Err(PluginError::Compile { .. })
            ));
            place.find(compiler()).unwrap();
            place.find("/nonexistent/compiler").unwrap();
        }
    }
    // With a missing or malformed receipt, the component is read again.
    fs::write(place.entry("receipt"), "nonsense").unwrap();
    place.find("/nonexistent/compiler").unwrap();
}

#[test]
fn replaced_component_is_not_served_from_cache() {
    let place = Place::new();
    place.find(compiler()).unwrap();
    let mut component = fs::read(place.plugin()).unwrap();
    // An additional custom section makes another component with the same behaviour.
    component.extend([0, 4, 3, b'n', b'e', b'w']);
    fs::write(place.plugin(), component).unwrap();
    assert!(matches!(place.find("/nonexistent/compiler"), Err(PluginError::Compile { .. })));
    place.find(compiler()).unwrap();
    place.find("/nonexistent/compiler").unwrap();
}

#[test]
fn cache_writable_by_others_is_not_used() {
    let place = Place::new();
    fs::create_dir(place.cache()).unwrap();
    fs::set_permissions(place.cache(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = place.find(compiler()).unwrap_err().to_string();
    assert!(error.contains("has mode 777: expected 700"), "{error}");
}

#[test]
fn plugin_writable_by_others_is_refused_and_listed() {
    let place = Place::new();
    place.find(compiler()).unwrap();
    let listed = || {
        let dir = place.plugins();
        let output = heddle(&["plugin", "list", "--plugin-dir", dir.to_str().unwrap()]);
        text(&output.stdout)
    };
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for (path, good, bad) in
        [(place.plugin(), 0o644, [0o666, 0o664]), (place.plugins(), 0o755, [0o777, 0o1777])]
    {
        for mode in bad {
            set_mode(&path, mode);
            let expected = format!(
                "{path} has mode {mode:o}, so that others can change it: expected write permission for its owner alone; \
                 to trust it as it is: chmod go-w {path}",
                path = path.canonicalize().unwrap().display()
            );
            // Compiled before, and refused nevertheless.
            let error = place.find(compiler()).unwrap_err().to_string();
            assert!(error.contains(&expected), "{error}");
            assert!(listed().contains(&expected), "{}", listed());
        }
        set_mode(&path, good);
        place.find(compiler()).unwrap();
        assert!(!listed().contains("chmod"), "{}", listed());
    }
    // The permissions of a file that its author names explicitly are not checked.
    set_mode(&place.plugin(), 0o666);
    assert!(heddle(&["plugin", "inspect", place.plugin().to_str().unwrap()]).status.success());
}

#[test]
fn directory_writable_by_others_is_not_skipped() {
    let place = Place::new();
    fs::remove_file(place.plugin()).unwrap();
    assert_eq!(place.find(compiler()).unwrap(), PluginSource::Embedded);
    fs::set_permissions(place.plugins(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = place.find(compiler()).unwrap_err();
    assert!(matches!(error, PluginError::Directory { .. }), "{error}");
}

/// Covers a host with only two of the three programs, a compiler that others can replace, and one
/// of another build.
#[test]
fn tool_without_its_compiler_says_what_to_install() {
    let place = Place::new();
    let tool = place.dir.path().join("heddle");
    copy_program(TOOL, &tool);
    let inspect = || {
        let output =
            Command::new(&tool).args(["plugin", "inspect"]).arg(place.plugin()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let copy = place.dir.path().join("heddle-compiler");
    if !Path::new("/usr/libexec/heddle/heddle-compiler").exists() {
        let error = inspect();
        let expected =
            format!("there is no heddle-compiler at {} or /usr/libexec/heddle/", copy.display());
        assert!(error.contains(&expected), "{error}");
        assert!(error.contains("from the same package or tarball"), "{error}");
    }
    copy_program(compiler(), &copy);
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o757)).unwrap();
    let error = inspect();
    assert!(error.contains("is not run: ") && error.contains("chmod go-w"), "{error}");
    // Only root can give files away.
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    if chown(&copy, Some(65534), None).is_ok() {
        let error = inspect();
        assert!(error.contains("is not run: ") && error.contains("chown 0"), "{error}");
        chown(&copy, Some(0), None).unwrap();
    }
    let other = "#!/bin/sh\nexec \"$0.real\" compile --engine other \"$4\" \"$5\"\n";
    fs::rename(&copy, place.dir.path().join("heddle-compiler.real")).unwrap();
    let script = place.dir.path().join("script");
    fs::write(&script, other).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(&script, &copy);
    let error = inspect();
    assert!(error.contains("it belongs to another build"), "{error}");
}

#[test]
fn missing_compiler_is_reported() {
    let place = Place::new();
    let error = place.find("/nonexistent/compiler").unwrap_err().to_string();
    let expected =
        "there is no heddle-compiler at /nonexistent/compiler; install it with heddled and heddle";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn compiler_error_is_passed_on() {
    let place = Place::new();
    let mut component = embedded_component("vxlan").unwrap().to_vec();
    // The manifest stays readable; the code in the middle does not.
    let middle = component.len() / 3;
    component[middle..middle + 64].fill(0xff);
    fs::write(place.plugin(), component).unwrap();
    let error = place.find(compiler()).unwrap_err();
    assert!(matches!(error, PluginError::Compile { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("heddle-compiler` failed (exit status: 1): "), "{error}");
    assert!(error.contains("cannot be compiled: "), "{error}");
    // No partial output is left.
    assert_eq!(place.entries(), Vec::<PathBuf>::new());
}

#[test]
fn plugins_are_listed_by_precedence() {
    let place = Place::new();
    fs::write(place.plugins().join("broken.wasm"), "nonsense").unwrap();
    fs::write(place.plugins().join("Not A Plugin.wasm"), "nonsense").unwrap();
    let output = heddle(&["plugin", "list", "--plugin-dir", place.plugins().to_str().unwrap()]);
    assert!(output.status.success());
    let listed = text(&output.stdout);
    let named = |name: &str| {
        let is_it = |line: &&str| line.split_whitespace().next() == Some(name);
        listed.lines().filter(is_it).collect::<Vec<_>>()
    };
    assert!(named("broken")[0].contains("not a WebAssembly component"), "{listed}");
    assert!(named("udp")[0].contains(" packet-backend-plugin "), "{listed}");
    assert!(named("udp")[0].ends_with(" embedded"), "{listed}");
    let [first, second] = named("vxlan")[..] else { panic!("{listed}") };
    assert!(first.ends_with("/vxlan.wasm"), "{listed}");
    assert!(second.ends_with(" embedded (shadowed)"), "{listed}");
    assert!(!listed.contains("Not A Plugin"), "{listed}");
}

#[test]
fn plugin_is_inspected_by_name_or_file() {
    let place = Place::new();
    let by_name = heddle(&["plugin", "inspect", "vxlan"]);
    let by_file = heddle(&["plugin", "inspect", place.plugin().to_str().unwrap()]);
    for output in [by_name, by_file] {
        assert!(output.status.success());
        let shown = text(&output.stdout);
        for line in ["name     vxlan", "WIT      0.1.0", "world    backend-plugin (plans)"] {
            assert!(shown.lines().any(|shown| shown == line), "{shown}");
        }
        assert!(shown.contains("imports  heddle:overlay/types@0.1.0"), "{shown}");
    }
}

/// A manifest that asks for one capability that is granted by default, and one that is not.
const MANIFEST: &str = r#"{"name":"mine","version":"1.0.0","wit":"0.1.0","world":"backend-plugin",
    "capabilities":{"links":["heddle-*"],"udp-ports":[53]}}"#;

/// Returns the vxlan plugin's component, with its manifest disabled.
fn other_plugin(place: &Place) -> PathBuf {
    let path = place.plugins().join("mine.wasm");
    let component = fs::read(place.plugin()).unwrap();
    let (old, new) = (b"heddle:manifest", b"heddle:nanifest");
    let at = component.windows(old.len()).position(|window| window == old).unwrap();
    let mut bare = component;
    bare[at..at + new.len()].copy_from_slice(new);
    fs::write(&path, bare).unwrap();
    path
}

#[test]
fn manifest_is_added_to_component() {
    let place = Place::new();
    let (component, manifest) = (other_plugin(&place), place.dir.path().join("manifest.json"));
    fs::write(&manifest, MANIFEST).unwrap();
    let arguments = ["plugin", "manifest", component.to_str().unwrap(), manifest.to_str().unwrap()];
    assert!(heddle(&arguments).status.success());
    let dirs = place.plugins();
    let dirs = ["--plugin-dir", dirs.to_str().unwrap()];
    let shown = heddle(&[&["plugin", "inspect", "mine"], &dirs[..]].concat());
    let shown = text(&shown.stdout);
    assert!(shown.contains("name     mine\n"), "{shown}");
    assert!(shown.contains("asks     links heddle-*                   granted\n"), "{shown}");
    assert!(shown.contains("         udp-ports 53                     NOT granted\n"), "{shown}");

    let again = heddle(&arguments);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("has a manifest already"), "{again:?}");
}

#[test]
fn plugin_without_grant_or_with_wrong_digest_is_not_loaded() {
    let place = Place::new();
    let (component, manifest) = (other_plugin(&place), place.dir.path().join("manifest.json"));
    fs::write(&manifest, MANIFEST).unwrap();
    let arguments = ["plugin", "manifest", component.to_str().unwrap(), manifest.to_str().unwrap()];
    assert!(heddle(&arguments).status.success());
    let digest = heddle_plugin::inspect(&fs::read(&component).unwrap()).unwrap().digest;
    let policy = place.dir.path().join("plugins.toml");
    let find = |text: &str| {
        fs::write(&policy, text).unwrap();
        let catalogue = Catalogue::new(vec![place.plugins()], Some(compiler()), place.cache());
        let catalogue = catalogue.unwrap().with_policy(policy.clone());
        catalogue.find("mine", Role::Backend).map(|plugin| plugin.limits().memory)
    };
    assert_eq!(
        find("").unwrap_err().to_string(),
        format!(
            "plugin mine ({}) asks for capabilities that are not granted: udp-ports 53; grant them in {}, section \
             `plugin.mine`",
            component.display(),
            policy.display()
        )
    );
    assert_eq!(find("[plugin.mine]\nudp-ports = [53]\n").unwrap(), 64 << 20);
    let pinned = |digest: &str| format!("[plugin.mine]\nudp-ports = [53]\nsha256 = '{digest}'\n");
    let limited = format!("{}[plugin.mine.limits]\nmemory-mib = 9\n", pinned(&digest));
    assert_eq!(find(&limited).unwrap(), 9 << 20);
    let other = "0".repeat(64);
    assert_eq!(
        find(&pinned(&other)).unwrap_err().to_string(),
        format!(
            "plugin mine ({}) has the SHA-256 {digest}: expected {other}, as pinned in {}",
            component.display(),
            policy.display()
        )
    );
    let error = find("[plugin.mine]\nport = 53\n").unwrap_err().to_string();
    let expected = format!("{}: line 2 (`port = 53`): unknown field `port`", policy.display());
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn plugin_check_and_bench_work() {
    let output = heddle(&["plugin", "check", "host-gw", "--rounds", "20"]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}");
    for rule in ["works", "pure", "order", "apart", "others", "robust", "granted"] {
        assert!(shown.lines().any(|line| line.starts_with(&format!("ok      {rule} "))), "{shown}");
    }
    // Every rule reports the key that the backend misses.
    let wrong = r#"--backend={"VNI":-1}"#;
    let output = heddle(&["plugin", "check", "vxlan", "--rounds", "1", wrong]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("FAILED  works"), "{shown}");
    assert!(shown.contains("note    IPv4: it says: Backend.VNI is -1"), "{shown}");
    let output = heddle(&["plugin", "check", "vxlan", r#"--backend={"Type":"x"}"#]);
    assert!(text(&output.stderr).contains("`Type` is \"x\": expected \"vxlan\""), "{output:?}");

    let place = Place::new();
    // On a busy machine, a call of the packet path may be interrupted for longer than its limit.
    let policy = place.dir.path().join("plugins.toml");
    fs::write(&policy, "[limits]\ncall-ms = 10000\npacket-call-ms = 1000\n").unwrap();
    let policy = policy.to_str().unwrap();
    for (plugin, rows) in [
        ("udp", &["compile", "load, embedded", "advertise", "plan-node", "steer 64"][..]),
        (place.plugin().to_str().unwrap(), &["load, from the cache", "plan-peer, one of 50"]),
        ("vxlan-tun", &["encapsulate 64 of 1400 bytes"]),
        ("subnet-env", &["emit"]),
    ] {
        let arguments = ["plugin", "bench", plugin, "--peers", "50", "--plugin-policy", policy];
        let output = heddle(&arguments);
        let shown = text(&output.stdout);
        for row in rows {
            assert!(shown.lines().any(|line| line.starts_with(row)), "{shown}\n{output:?}");
        }
    }
}

#[test]
fn built_in_plugins_are_exported_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = dir.path().join("new/plugins");
    assert!(heddle(&["plugin", "export", plugins.to_str().unwrap()]).status.success());
    let built_in = Catalogue::new(Vec::new(), None, dir.path().join("cache")).unwrap().list();
    assert_eq!(fs::read_dir(&plugins).unwrap().count(), built_in.len());
    for entry in built_in {
        let exported = fs::read(plugins.join(format!("{}.wasm", entry.name))).unwrap();
        assert_eq!(exported, embedded_component(&entry.name).unwrap(), "{}", entry.name);
    }
}

#[test]
fn failure_is_reported_with_exit_code_one() {
    for (arguments, expected) in [
        (&["plugin", "inspect", "nope"][..], "there is no plugin `nope`"),
        (&["plugin", "inspect", "./nope.wasm"], "cannot read ./nope.wasm"),
        (&["plugin", "compile", "./nope.wasm", "out"], "cannot read ./nope.wasm"),
    ] {
        let output = heddle(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).starts_with(&format!("heddle: {expected}")));
    }
    assert!(!Path::new("out").exists());
    assert_eq!(heddle(&["plugin", "frobnicate"]).status.code(), Some(2));
}
