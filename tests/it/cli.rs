//! The program as people and scripts use it: what it prints, where, and its exit status.

use sealgate::testing::{ACCEPT_ANYTHING, REJECT};

use crate::program::{Place, filtered};

#[test]
fn help_tells_a_newcomer_what_there_is() {
    let _filters = filtered();
    let place = Place::new();
    insta::assert_snapshot!("help", place.run(&["--help"]));
    for command in ["serve", "verify", "policy", "client-config", "trust", "verdicts", "cache", "config", "completions"]
    {
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

#[test]
fn what_cannot_be_an_admin_listener_is_refused_and_no_password_is_printed() {
    for command in [&["verdicts", "list"][..], &["cache", "stats"]] {
        for (address, wanted) in [
            ("127.0.0.1:5001", "write http:// or https:// in front"),
            ("localhost:5001", "write http:// or https:// in front"),
            ("ftp://127.0.0.1:5001", "write http:// or https:// in front"),
            ("http://127.0.0.1:5001/api/v1", "without a path"),
            ("http://anna:sesame@127.0.0.1:5001", "--admin-token-file"),
        ] {
            let ran = Place::new().run(&[command, &["--admin", address]].concat());
            assert!(ran.status == 2 && ran.stderr.contains(wanted), "{address}: {ran}");
            assert!(!ran.stderr.contains("sesame"), "{ran}");
        }
    }
}

#[test]
fn what_would_do_nothing_is_refused() {
    for command in [
        &["cache", "stats", "--config", "mirror.toml"][..],
        &["cache", "stats", "--offline", "--admin", "http://127.0.0.1:5001"],
        &["cache", "evict", "--all", "--offline", "--admin-token-file", "token"],
        &["cache", "verify", "--offline", "--no-wait"],
    ] {
        let ran = Place::new().run(command);
        assert!(ran.status == 2 && ran.stderr.contains("--offline"), "{command:?}: {ran}");
        assert!(ran.stderr.contains("Usage: "), "{command:?}: {ran}");
    }
}

#[test]
fn another_policy_that_is_not_there_is_named_and_not_the_configuration() {
    let ran = Place::new().run(&["policy", "replay", "--with", "other.json"]);
    assert!(ran.status == 2 && ran.stderr.contains("cannot read --with other.json: No such file"), "{ran}");
    assert!(!ran.stderr.contains("built-in") && ran.stderr.contains("next: name a policy.json"), "{ran}");
}

#[test]
fn a_cache_without_a_mirror_names_the_way_to_look_at_it() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ran = Place::new().run(&["cache", "stats", "--admin", &format!("http://127.0.0.1:{port}")]);
    assert!(ran.status == 3 && ran.stderr.contains("--offline"), "{ran}");
}
