//! The program as people and scripts use it: what it prints, where, and its exit status.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use sealgate::testing::{ACCEPT_ANYTHING, REJECT};

/// What a run of the program left behind.
struct Ran {
    status: i32,
    stdout: String,
    stderr: String,
}

impl std::fmt::Display for Ran {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}{}[exit status {}]\n", self.stdout, self.stderr, self.status)
    }
}

/// An empty directory to run in; no configuration is found but what the test puts there.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with_policy(policy: &str) -> Self {
        let place = Self::new();
        std::fs::create_dir(place.path().join("config")).unwrap();
        place.write("config/policy.json", policy);
        place.write("config/sealgate.toml", "[policy]\ncontainers_policy = \"policy.json\"\n");
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        Ran {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Snapshots without what differs from run to run and from build to build.
fn filtered() -> insta::internals::SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"sealgate \d+\.\d+\.\d+( \(commit [0-9a-z]+\))?", "sealgate VERSION");
    settings.add_filter(r"127\.0\.0\.1:\d{4,5}\b", "127.0.0.1:PORT");
    settings.add_filter(r"fingerprint [0-9a-f]{12}", "fingerprint FINGERPRINT");
    settings.add_filter(r"sha256:[0-9a-f]{64}", "sha256:DIGEST");
    settings.bind_to_scope()
}

#[test]
fn help_tells_a_newcomer_what_there_is() {
    let _filters = filtered();
    let place = Place::new();
    insta::assert_snapshot!("help", place.run(&["--help"]));
    for command in ["serve", "verify", "policy", "client-config", "verdicts", "config", "completions"] {
        insta::assert_snapshot!(format!("help_{command}"), place.run(&[command, "--help"]));
    }
    assert_eq!(place.run(&[]).status, 2, "nothing was asked for");
}

#[test]
fn the_version_names_the_commit_when_there_is_one() {
    let ran = Place::new().run(&["--version"]);
    assert_eq!(ran.status, 0);
    assert!(ran.stdout.starts_with(concat!("sealgate ", env!("CARGO_PKG_VERSION"))), "{ran}");
}

#[test]
fn wrong_usage_has_status_2_and_says_what_would_be_right() {
    let _filters = filtered();
    let place = Place::with_policy(REJECT);
    let runs: Vec<String> = [
        &["serv"][..],
        &["verify"],
        &["verify", "Not/An/Image"],
        &["verify", "alpine", "--output", "xml"],
        &["verify", "unknown.example/a:1"],
        &["client-config", "docker"],
        &["client-config", "docker", "--mirror", "mirror.example"],
        &["client-config", "docker", "--mirror", "https://mirror.example/v2/"],
        &["client-config", "rkt", "--mirror", "https://mirror.example"],
        &["verdicts", "show", "xyz"],
        &["verdicts", "list", "--limit", "1001"],
        &["verdicts", "list", "--admin", "mailto:me@example.com"],
        &["serve", "--config", "missing.toml"],
        &["config", "check", "--config", "missing.toml"],
    ]
    .into_iter()
    .map(|arguments| {
        let ran = place.run(arguments);
        assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{arguments:?}: {ran}");
        format!("$ sealgate {}\n{ran}", arguments.join(" "))
    })
    .collect();
    insta::assert_snapshot!(runs.join("\n"));
}

#[test]
fn c_01_a_wrong_configuration_ends_every_command_with_status_2_and_the_place() {
    let place = Place::with_policy(ACCEPT_ANYTHING);
    place.write("config/sealgate.toml", "[policy]\ncontainers_policy = \"policy.json\"\nmood = \"audit\"\n");
    for arguments in
        [&["serve"][..], &["verify", "alpine"], &["policy", "check"], &["config", "check"], &["config", "print"]]
    {
        let ran = place.run(arguments);
        assert_eq!(ran.status, 2, "{arguments:?}: {ran}");
        assert!(
            ran.stderr.starts_with("error: config/sealgate.toml:3:1: unknown field `mood`"),
            "{arguments:?}: {ran}"
        );
    }
}

#[test]
fn config_check_says_what_is_fine_and_what_should_not_stay_so() {
    let _filters = filtered();
    let place = Place::with_policy(ACCEPT_ANYTHING);
    insta::assert_snapshot!("config_check_fine", place.run(&["config", "check"]));
    place.write(
        "config/sealgate.toml",
        "[server]\nlisten = \"0.0.0.0:5000\"\nadmin_listen = \"0.0.0.0:5001\"\n\
         [policy]\ncontainers_policy = \"policy.json\"\n[[upstream]]\nhost = \"quay.io\"\ncredential_helper = \"pass\"\n",
    );
    insta::assert_snapshot!("config_check_warnings", place.run(&["config", "check"]));
}

#[test]
fn config_print_shows_every_default_and_no_secret_and_is_itself_a_configuration() {
    let place = Place::with_policy(ACCEPT_ANYTHING);
    place.write(
        "config/sealgate.toml",
        "[policy]\ncontainers_policy = \"policy.json\"\n\
         [[upstream]]\nhost = \"quay.io\"\nproxy = \"http://user:hunter2@proxy.example:3128\"\n",
    );
    let ran = place.run(&["config", "print"]);
    assert_eq!(ran.status, 0, "{ran}");
    assert!(!ran.to_string().contains("hunter2"), "{ran}");
    insta::assert_snapshot!("config_print", ran.stdout);
    place.write("config/printed.toml", &ran.stdout.replace("proxy = \"****\"\n", ""));
    assert_eq!(place.run(&["config", "check", "--config", "config/printed.toml"]).status, 0);
}

#[test]
fn without_any_file_the_built_in_configuration_is_used() {
    let ran = Place::new().run(&["config", "check"]);
    assert_eq!(ran.status, 0, "{ran}");
    assert!(ran.stdout.starts_with("(built-in): no errors"), "{ran}");
}

#[test]
fn a_configuration_that_cannot_be_looked_at_is_an_error_and_not_a_reason_for_the_built_in_one() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("config")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.path().join("config/sealgate.toml")).unwrap();
    let ran = place.run(&["config", "check"]);
    assert_eq!(ran.status, 2, "{ran}");
    assert!(ran.stderr.contains("config/sealgate.toml: there is no such file"), "{ran}");
}

#[test]
fn client_config_prints_a_file_or_json() {
    let place = Place::new();
    let ran = place.run(&["client-config", "podman", "--mirror", "http://127.0.0.1:5000", "--upstream", "quay.io"]);
    assert_eq!(ran.status, 0, "{ran}");
    let file: toml::Table = ran.stdout.parse().unwrap();
    assert_eq!(file["registry"][0]["prefix"].as_str(), Some("quay.io"));
    let ran = place.run(&["client-config", "docker", "--mirror", "http://127.0.0.1:5000", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["files"][0]["path"], "/etc/docker/daemon.json");
    assert_eq!(json["runtime"], "docker");
    let hosts =
        json["files"].as_array().unwrap().iter().filter(|file| file["path"].as_str().unwrap().ends_with("hosts.toml"));
    assert_eq!(hosts.count(), 5, "one for each upstream of the built-in configuration");
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = Place::new().run(&["completions", shell]);
        assert_eq!(ran.status, 0, "{shell}");
        assert!(ran.stdout.contains("client-config"), "{shell}");
    }
}

#[test]
fn a_mirror_that_is_not_there_is_no_answer_and_says_what_to_try() {
    let _filters = filtered();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ran = Place::new().run(&["verdicts", "list", "--admin", &format!("http://127.0.0.1:{port}")]);
    insta::assert_snapshot!("verdicts_no_mirror", ran);
}

/// `sealgate serve` as a process of its own; killed when the test ends early.
struct Serving {
    child: Child,
    banner: String,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Serving {
    /// Starts it and reads the banner, which is complete when an empty line follows `next:`.
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut child = place.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        loop {
            let from = banner.len();
            let read = stdout.read_line(&mut banner).unwrap();
            let ended = banner.contains("next:") && banner[from..].trim().is_empty();
            if read == 0 || ended {
                return Self { child, banner, stdout };
            }
        }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// The exit status and what else it printed.
    fn end(mut self) -> Ran {
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

const ANY_PORT: &str = "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n";

#[test]
fn serve_says_at_start_what_it_is_and_ends_with_status_0_on_sigterm_and_sigint() {
    let _filters = filtered();
    for signal in ["-TERM", "-INT"] {
        let place = Place::with_policy(REJECT);
        let config = format!("{ANY_PORT}[policy]\ncontainers_policy = \"policy.json\"\n");
        place.write("config/sealgate.toml", &config);
        let serving = Serving::start(&place, &["serve"]);
        insta::assert_snapshot!("serve_banner", serving.banner);
        serving.signal(signal);
        let ran = serving.end();
        assert_eq!((ran.status, ran.stdout.as_str()), (0, ""), "{ran}");
        assert!(ran.stderr.contains("drained"), "{ran}");
    }
}

#[test]
fn serve_is_loud_about_audit_mode() {
    let _filters = filtered();
    let place = Place::with_policy(REJECT);
    let audit = "[policy]\ncontainers_policy = \"policy.json\"\nmode = \"audit\"\n\
                 [[policy.override]]\nscope = \"quay.io\"\nmode = \"enforce\"\n";
    place.write("config/sealgate.toml", &format!("{ANY_PORT}{audit}"));
    let serving = Serving::start(&place, &["serve"]);
    insta::assert_snapshot!("serve_banner_audit", serving.banner);
    serving.signal("-TERM");
    assert_eq!(serving.end().status, 0);
}

#[test]
fn serve_reloads_on_sighup_and_keeps_the_old_policy_when_the_new_one_is_wrong() {
    let place = Place::with_policy(REJECT);
    place.write("config/sealgate.toml", &format!("{ANY_PORT}[policy]\ncontainers_policy = \"policy.json\"\n"));
    let mut serving = Serving::start(&place, &["serve"]);
    let mut log = BufReader::new(serving.child.stderr.take().unwrap());
    let mut wait_for = |text: &str| {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the log ends before {text:?}");
        }
    };
    serving.signal("-HUP");
    wait_for("the policy is the same");
    place.write("config/policy.json", "{}");
    serving.signal("-HUP");
    wait_for("the old one stays in force");
    place.write("config/policy.json", ACCEPT_ANYTHING);
    serving.signal("-HUP");
    wait_for("another policy is in force");
    serving.signal("-TERM");
    wait_for("drained");
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

#[test]
fn serve_says_which_address_is_taken() {
    let _filters = filtered();
    let place = Place::with_policy(REJECT);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = format!(
        "[server]\nlisten = \"{address}\"\nadmin_listen = \"127.0.0.1:0\"\n[policy]\ncontainers_policy = \"policy.json\"\n"
    );
    place.write("config/sealgate.toml", &config);
    insta::assert_snapshot!("serve_address_taken", place.run(&["serve"]));
}

#[test]
fn serve_with_a_json_log_prints_nothing_but_json_lines() {
    let place = Place::with_policy(REJECT);
    let config = format!("{ANY_PORT}[policy]\ncontainers_policy = \"policy.json\"\n[log]\nformat = \"json\"\n");
    place.write("config/sealgate.toml", &config);
    let mut child = place.command(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut first = String::new();
    while !first.contains("\"started\"") {
        assert_ne!(log.read_line(&mut first).unwrap(), 0, "{first}");
    }
    let serving = Serving { stdout: BufReader::new(child.stdout.take().unwrap()), child, banner: String::new() };
    serving.signal("-TERM");
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    for line in first.lines().chain(rest.lines()) {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}
