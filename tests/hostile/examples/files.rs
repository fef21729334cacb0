//! An emitter that returns files at paths it has no grant for, or with invalid attributes. `wish`
//! selects which, `dir` is the directory of the host's files.

use heddle_sdk::*;

/// The hostile plugin.
pub struct Files;

fn chance() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

impl Emitter for Files {
    fn emit(_: &View, settings: &[Setting]) -> Result<Vec<File>, String> {
        let setting = |name: &str| {
            let found = settings.iter().find(|setting| setting.name == name);
            found.map(|setting| setting.value.as_str()).unwrap_or_default()
        };
        let dir = setting("dir");
        let file = |path: String, mode| File { path, mode, contents: b"not yours\n".into() };
        let granted = |name: &str| file(format!("{dir}/run/{name}"), 0o644);
        Ok(match setting("wish") {
            "passwd" => vec![file("/etc/passwd".into(), 0o644)],
            "private" => vec![file(format!("{dir}/private/passwd"), 0o644)],
            "dots" => vec![granted("../private/passwd")],
            "relative" => vec![file("etc/passwd".into(), 0o644)],
            "through-link" => vec![granted("link/passwd")],
            "control-socket" => vec![granted("heddle/heddled.sock")],
            "below-file" => vec![granted("present/x")],
            "in-place-of-directory" => vec![granted("flannel")],
            "setuid" => vec![file(format!("{dir}/run/shell"), 0o4755)],
            "world-writable" => vec![file(format!("{dir}/run/open"), 0o666)],
            "escape" => vec![granted("x\n2026-01-01T00:00:00Z  INFO forged: all is well\u{1b}[2J")],
            "long" => vec![granted(&"x/".repeat(100_000))],
            "many" => (0..17).map(|number| granted(&number.to_string())).collect(),
            "large" => {
                vec![File { contents: vec![0; (1 << 20) + 1], ..granted("large") }]
            }
            "twice" => vec![granted("x"), granted("x")],
            // Many large ones, with different names on every call, and one that cannot be written.
            "filling" => {
                let mut files: Vec<_> = (0..7)
                    .map(|number| File {
                        contents: vec![0; 1 << 20],
                        ..granted(&format!("{number}-{:x}/a/b/c", chance()))
                    })
                    .collect();
                files.push(granted(&"x".repeat(300)));
                files
            }
            "loop" => loop {
                std::hint::black_box(());
            },
            "trap" => panic!("as was asked for"),
            "words" => {
                return Err("is wrong\n2026-01-01T00:00:00Z  INFO forged: all is well".repeat(1000));
            }
            wish => return Err(format!("there is no `{wish}`")),
        })
    }
}

// Scratch directories are below /tmp or /dev/shm: runtime/lab/src/scratch.rs.
export_emitter!(Files, name = "files", files = ["/*/heddle-*/*/run/", "/*/*/heddle-*/*/run/"]);
