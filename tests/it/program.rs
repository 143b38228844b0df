//! The program as a process of its own, in an empty directory.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What a run of the program left behind.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl std::fmt::Display for Ran {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "{}{}[exit status {}]", self.stdout, self.stderr, self.status)
    }
}

/// An empty directory to run in; no configuration is found but what the test puts there.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn with_policy(policy: &str) -> Self {
        let place = Self::new();
        std::fs::create_dir(place.path().join("config")).unwrap();
        place.write("config/policy.json", policy);
        place.write("config/sealgate.toml", "[policy]\ncontainers_policy = \"policy.json\"\n");
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        Ran {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Snapshots without what differs from run to run and from build to build.
pub(crate) fn filtered() -> insta::internals::SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"sealgate \d+\.\d+\.\d+( \(commit [0-9a-z]+\))?", "sealgate VERSION");
    settings.add_filter(r"127\.0\.0\.1:\d{4,5}\b", "127.0.0.1:PORT");
    settings.add_filter(r"fingerprint [0-9a-f]{12}", "fingerprint FINGERPRINT");
    settings.add_filter(r"sha256:[0-9a-f]{64}", "sha256:DIGEST");
    // The built-in trust root grows old.
    settings.add_filter(r"\n  warning: trust root: it is \d+ days old[^\n]*\n", "");
    settings.bind_to_scope()
}

/// `sealgate serve` as a process of its own; killed when the test ends early.
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) banner: String,
    pub(crate) stdout: BufReader<std::process::ChildStdout>,
}

impl Serving {
    /// Starts it and reads the banner, which is complete when an empty line follows `next:`.
    pub(crate) fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut child = place.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        let mut ended = false;
        while !ended {
            let from = banner.len();
            let read = stdout.read_line(&mut banner).unwrap();
            ended = read == 0 || (banner.contains("next:") && banner[from..].trim().is_empty());
        }
        Self { child, banner, stdout }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// The exit status and what else it printed.
    pub(crate) fn end(mut self) -> Ran {
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Ran { status: self.child.wait().unwrap().code().unwrap_or(-1), stdout, stderr }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
    }
}
