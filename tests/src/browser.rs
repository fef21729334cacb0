//! A browser on a host of the lab: headless Chromium, driven over the DevTools protocol
//! (<https://chromedevtools.github.io/devtools-protocol/>) on two pipes, where each message ends
//! with a NUL.
//!
//! The crates that cover the whole protocol are tens of thousands of generated lines; six commands
//! and four events suffice here.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use heddle_lab::{Host, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Time limit for a browser to start or to answer on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page, closed on drop.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    /// The browser writes here, so it lives as long as the browser.
    _profile: TempDir,
    commanding: ChildStdin,
    telling: Receiver<Value>,
    session: Option<String>,
    commands: u64,
    events: Vec<Value>,
}

impl Browser {
    /// Starts a browser on a host, with a window of this size in pixels.
    pub fn start(host: &Host, width: u32, height: u32) -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The browser expects its pipes as descriptors 3 and 4.
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null"#, "sh", "chromium"])
            // Chromium's sandbox does not work as root. All pages opened here are our own.
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-sync"])
            .args(["--disable-component-update", "--hide-scrollbars"])
            .arg(format!("--window-size={width},{height}"))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--remote-debugging-pipe", "about:blank"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = host.namespace().spawn(command).unwrap();
        let commanding = child.stdin.take().unwrap();
        let telling = messages(child.stdout.take().unwrap());
        let mut browser = Self {
            child,
            _profile: profile,
            commanding,
            telling,
            session: None,
            commands: 0,
            events: Vec::new(),
        };
        let target = browser.command("Target.createTarget", json!({"url": "about:blank"}));
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.command("Target.attachToTarget", target);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Network", "Runtime", "Log"] {
            browser.command(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Opens a page, and waits until it has loaded.
    pub fn open(&mut self, url: &str) {
        let answer = self.command("Page.navigate", json!({"url": url}));
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
        let there =
            format!("document.readyState === 'complete' && location.href === {}", json!(url));
        wait_until(url.to_owned(), PATIENCE, || match self.evaluate(&there) {
            Value::Bool(true) => Ok(()),
            other => Err(other.to_string()),
        })
        .unwrap();
    }

    /// Evaluates an expression on the page and returns its value.
    ///
    /// # Panics
    ///
    /// If it throws.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true});
        let answer = self.command("Runtime.evaluate", asked);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"].get("value").cloned().unwrap_or_default()
    }

    /// Presses a key in the focused element; the name is that of `KeyboardEvent.key`.
    pub fn press(&mut self, key: &str) {
        for kind in ["rawKeyDown", "keyUp"] {
            self.command("Input.dispatchKeyEvent", json!({"type": kind, "key": key}));
        }
    }

    /// Saves a screenshot of the window as PNG.
    pub fn screenshot(&mut self, path: &Path) {
        let answer = self.command("Page.captureScreenshot", json!({"format": "png"}));
        let picture = STANDARD.decode(answer["data"].as_str().unwrap()).unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, picture).unwrap();
    }

    /// Returns the URLs requested so far.
    pub fn requests(&self) -> Vec<String> {
        let sent = self.of("Network.requestWillBeSent");
        sent.map(|event| event["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    /// Returns the console's errors so far: logged errors, uncaught exceptions, violations of the
    /// page's content security policy.
    pub fn complaints(&self) -> Vec<String> {
        let thrown = self.of("Runtime.exceptionThrown").map(ToString::to_string);
        let said = self.of("Runtime.consoleAPICalled");
        let said = said.filter(|event| event["type"] == "error").map(ToString::to_string);
        let logged = self.of("Log.entryAdded");
        let logged =
            logged.filter(|event| event["entry"]["level"] == "error").map(ToString::to_string);
        thrown.chain(said).chain(logged).collect()
    }

    fn of(&self, method: &str) -> impl Iterator<Item = &Value> {
        let found = self.events.iter().filter(move |event| event["method"] == method);
        found.map(|event| &event["params"])
    }

    /// Sends the browser a command, and keeps the events that arrive before its answer.
    fn command(&mut self, method: &str, parameters: Value) -> Value {
        self.commands += 1;
        let mut command = json!({"id": self.commands, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        self.commanding.write_all(format!("{command}\0").as_bytes()).unwrap();
        let begun = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let value = self.telling.recv_timeout(left);
            let value = value.unwrap_or_else(|error| panic!("{method} is not answered: {error}"));
            if value["id"] == self.commands {
                assert!(value.get("error").is_none(), "{method}: {value}");
                return value["result"].clone();
            }
            self.events.push(value);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser's other processes end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a channel of the browser's messages, as they arrive.
fn messages(from: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for message in BufReader::new(from).split(0) {
            let Ok(message) = message else { return };
            // The receiver is gone once the browser is dropped.
            if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                return;
            }
        }
    });
    receiver
}
