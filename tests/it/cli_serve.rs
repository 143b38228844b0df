//! `sealgate serve` as a process: what it says, how it reloads, how it ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::time::Duration;

use sealgate::clock::{Clock, Timestamp};
use sealgate::testing::{ACCEPT_ANYTHING, REJECT};

use crate::program::{Place, Serving, filtered};

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
                 [[policy.override]]\nscope = \"docker.io/library\"\nmode = \"enforce\"\n";
    place.write("config/sealgate.toml", &format!("{ANY_PORT}{audit}"));
    let serving = Serving::start(&place, &["serve"]);
    insta::assert_snapshot!("serve_banner_audit", serving.banner);
    serving.signal("-TERM");
    assert_eq!(serving.end().status, 0);
}

/// One that ended, and one that will within two weeks; the third is quiet.
#[test]
fn serve_names_exemptions_that_end_in_its_banner() {
    let place = Place::with_policy(REJECT);
    let exemption = |scope: &str, expires: Timestamp| {
        format!(
            "[[policy.exemption]]\nscope = \"{scope}\"\nreason = \"r\"\nowner = \"platform\"\nexpires = \"{expires}\"\n"
        )
    };
    let now = Clock::System.now();
    let days = |days: u64| Duration::from_hours(24 * days);
    let exemptions = [
        exemption("docker.io/library/old", now.minus(days(1))),
        exemption("docker.io/library/soon", now.plus(days(13))),
        exemption("docker.io/library/later", now.plus(days(15))),
    ];
    let policy = "[policy]\ncontainers_policy = \"policy.json\"\n";
    place.write("config/sealgate.toml", &format!("{ANY_PORT}{policy}{}", exemptions.concat()));
    let serving = Serving::start(&place, &["serve"]);
    let banner = serving.banner.clone();
    serving.signal("-TERM");
    assert_eq!(serving.end().status, 0);
    assert!(
        banner.contains("policy.exemption[0].expires: the exemption of docker.io/library/old expired on "),
        "{banner}"
    );
    assert!(
        banner.contains("policy.exemption[1].expires: the exemption of docker.io/library/soon expires on "),
        "{banner}"
    );
    assert!(!banner.contains("policy.exemption[2].expires"), "{banner}");
    let ran = place.run(&["policy", "check"]);
    assert!(ran.status == 0 && ran.stdout.contains("2 warnings"), "{ran}");
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
