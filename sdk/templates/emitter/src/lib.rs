//! The `my-plugin` emitter: writes a file from which other programs learn this node's subnets.
//!
//! Settings, given as `--emit=my-plugin:path=/run/heddle/other.conf`:
//!
//! | setting | meaning | default |
//! | --- | --- | --- |
//! | `path` | path of the file | `/run/heddle/my-plugin.conf` |

#![forbid(unsafe_code)]

use std::fmt::Write;

use heddle_sdk::*;

/// Default path of the file.
const DEFAULT_PATH: &str = "/run/heddle/my-plugin.conf";

/// The emitter. It is a pure function: the same arguments give the same files.
pub struct Plugin;

impl Emitter for Plugin {
    /// Returns the files for this node's lease. They are written once the node's network works.
    fn emit(view: &View, settings: &[Setting]) -> Result<Vec<File>, String> {
        let mut path = DEFAULT_PATH;
        for setting in settings {
            match setting.name.as_str() {
                // The host permits a file at the path given by a setting `path`, or `…-path`.
                "path" => path = &setting.value,
                _ => return Err(setting.unknown(&["path"])),
            }
        }
        Ok(vec![File {
            path: path.to_owned(),
            mode: 0o644,
            contents: text(view).into_bytes(),
        }])
    }
}

/// Returns the content of the file.
fn text(view: &View) -> String {
    let mut text = String::new();
    for part in &view.lease.families {
        let _ = writeln!(text, "subnet {}", part.subnet);
    }
    let _ = writeln!(text, "mtu {}", view.mtu);
    text
}

export_emitter!(
    Plugin,
    name = "my-plugin",
    // The capabilities that the operator has to grant: see `heddle plugin inspect`.
    files = ["/run/heddle/my-plugin.conf"],
);
