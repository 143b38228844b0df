//! Metrics as Prometheus and Grafana see them.

use std::collections::{BTreeMap, BTreeSet};

use sealgate::telemetry::Telemetry;
use sealgate::testing::{ACCEPT_ANYTHING, FakeRegistry, ImageBuilder, Setup};

/// Metric name → label name → values that exist.
type Exposed = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Labels that Prometheus adds when it scrapes.
const ADDED: &[&str] = &["job", "instance"];

#[test]
fn every_query_of_the_dashboards_names_metrics_labels_and_values_that_exist() {
    let exposed = exposed();
    for (board, text) in boards() {
        let queries = queries(&text);
        assert!(queries.len() > 20, "{board}: only {} queries were found", queries.len());
        for query in queries {
            let faults = faults(&query, &exposed);
            assert!(faults.is_empty(), "{board}: {query}\n{faults:#?}");
        }
    }
}

/// `(key, value)` of each line of the rule file that has both.
fn alert_lines() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards/alerts.yaml")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.trim_start().trim_start_matches("- ").split_once(": "));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn every_alert_asks_what_exists_and_says_what_it_means_and_what_to_do() {
    let (exposed, lines) = (exposed(), alert_lines());
    let of = |key: &str| lines.iter().filter(|(other, _)| other == key).map(|(_, value)| value).collect::<Vec<_>>();
    for query in of("expr") {
        let faults = faults(query, &exposed);
        assert!(faults.is_empty(), "{query}\n{faults:#?}");
    }
    let alerts = of("alert");
    assert!(alerts.len() >= 10 && alerts.iter().collect::<BTreeSet<_>>().len() == alerts.len(), "{alerts:?}");
    for key in ["expr", "labels", "summary"] {
        assert_eq!(of(key).len(), alerts.len(), "each has its {key}, on one line");
    }
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/alerts.md")).unwrap();
    let rows: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `Sealgate")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    let names: BTreeSet<&str> = alerts.iter().map(|name| name.strip_prefix("Sealgate").unwrap()).collect();
    assert_eq!(rows, names);
}

#[test]
fn the_query_checker_catches_what_does_not_exist() {
    let exposed = exposed();
    for bad in [
        "sum(rate(sealgate_http_request_total[5m]))",
        "sealgate_cache_bytes{kind=\"blob\"}",
        "sum by (repository) (sealgate_http_requests_total)",
        "sealgate_cache_requests_total{result=~\"hit|hitt\"}",
        "sealgate_verdicts_total{decision=\"denied\"}",
        "sealgate_http_ttfb_seconds_total",
        "sealgate_cache_bytes_bucket",
        "sealgate_http_ttfb_seconds",
        "label_values(sealgate_build_info, pod)",
        "sum(rate(up[5m]))",
    ] {
        assert_eq!(faults(bad, &exposed).len(), 1, "{bad}: {:?}", faults(bad, &exposed));
    }
    for good in [
        "histogram_quantile(0.95, sum by (le, route) (rate(sealgate_http_ttfb_seconds_bucket{instance=~\"$instance\"}[$__rate_interval])))",
        "sealgate_upstream_bytes_total{upstream=~\"$upstream\"} > 0",
        "label_values(sealgate_build_info{job=\"x\"}, instance)",
        "sealgate_cache_requests_total{result!~\"hit|joined\"}",
    ] {
        assert_eq!(faults(good, &exposed), Vec::<String>::new(), "{good}");
    }
}

#[test]
fn every_dashboard_can_be_pointed_at_any_prometheus() {
    for (board, text) in boards() {
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let variables: Vec<&str> =
            json["templating"]["list"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
        assert_eq!(variables, ["datasource", "instance", "upstream"], "{board}");
        for panel in json["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{board}: {}", panel["title"]);
            for target in panel["targets"].as_array().unwrap() {
                assert!(target["expr"].as_str().unwrap().contains("$instance"), "{board}: {}", panel["title"]);
            }
        }
    }
}

/// The names and labels of all series, without their values.
fn series(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[tokio::test]
async fn p_22_unknown_names_tags_and_user_agents_add_no_series() {
    let registry = FakeRegistry::start().await;
    let mirror = Setup::new(ACCEPT_ANYTHING).upstream("docker.io", registry.url()).start().await;
    let before = mirror.admin_get("/metrics").await.text();
    for number in 0..1000 {
        let path = match number % 4 {
            0 => format!("/v2/team-{number}/app/manifests/tag-{number}"),
            1 => format!("/v2/app/manifests/latest?ns=registry-{number}.example"),
            2 => format!("/v2/UPPER-{number}/tags/list"),
            _ => format!("/elsewhere/{number}"),
        };
        let method = if number % 7 == 0 { "PROPFIND" } else { "GET" };
        let answer = mirror.request(method, &path, &[("User-Agent", &format!("client/{number}"))]).await;
        assert!((400..500).contains(&answer.status), "{method} {path}: {}", answer.status);
    }
    let after = mirror.admin_get("/metrics").await.text();
    assert_eq!(series(&after), series(&before));
    assert_ne!(after, before, "they were counted");
    mirror.stop().await;
}

#[tokio::test]
async fn a_pull_is_counted_at_every_step() {
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(5).layer(200_000).build();
    registry.put("library/app", "1", &image);
    let mirror = Setup::new(ACCEPT_ANYTHING).upstream("docker.io", registry.url()).start().await;
    assert_eq!(mirror.get("/v2/library/app/manifests/1").await.status, 200);
    for _ in 0..2 {
        for blob in &image.blobs {
            assert!(mirror.get(&format!("/v2/library/app/blobs/{}", blob.digest)).await.complete);
        }
        // What was served whole is cached soon.
        while mirror.metric("sealgate_cache_fills_in_flight") != Some(0.0) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    let bytes = u64::try_from(image.blob_bytes()).unwrap();
    for (series, wanted) in [
        ("sealgate_http_requests_total{code=\"200\",method=\"GET\",route=\"manifest\"}", 1),
        ("sealgate_http_requests_total{code=\"200\",method=\"GET\",route=\"blob\"}", 4),
        ("sealgate_http_requests_in_flight{route=\"blob\"}", 0),
        ("sealgate_http_response_bytes_total{route=\"blob\"}", 2 * bytes),
        ("sealgate_cache_requests_total{kind=\"blob\",result=\"miss\"}", 2),
        ("sealgate_cache_requests_total{kind=\"blob\",result=\"hit\"}", 2),
        ("sealgate_cache_fills_total{outcome=\"committed\"}", 2),
        ("sealgate_cache_fills_in_flight", 0),
        ("sealgate_cache_filled_bytes_total", bytes),
        ("sealgate_upstream_requests_total{code_class=\"2xx\",op=\"blob_get\",upstream=\"docker.io\"}", 2),
        ("sealgate_verdicts_total{decision=\"allow\",reason=\"accept_anything\"}", 1),
        ("sealgate_verify_duration_seconds_count{source=\"computed\"}", 1),
    ] {
        let found = mirror.metric(series).unwrap_or_else(|| panic!("no {series}"));
        assert_eq!(format!("{found}"), wanted.to_string(), "{series}");
    }
    mirror.stop().await;
}

fn exposed() -> Exposed {
    let text = Telemetry::new(&["docker.io".parse().unwrap()]).render();
    let mut exposed = Exposed::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let of = exposed.entry(name.to_owned()).or_default();
        for pair in labels.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once('=').unwrap();
            of.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
        }
    }
    exposed
}

fn boards() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards");
    let boards: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap()))
        .collect();
    assert!(!boards.is_empty());
    boards
}

/// Every query of panels and of template variables.
fn queries(board: &str) -> Vec<String> {
    fn walk(value: &serde_json::Value, found: &mut Vec<String>) {
        if let Some(fields) = value.as_object() {
            for (key, value) in fields {
                let query = value.as_str().filter(|_| key == "expr" || key == "definition");
                found.extend(query.map(str::to_owned));
                walk(value, found);
            }
        }
        for item in value.as_array().into_iter().flatten() {
            walk(item, found);
        }
    }
    let mut found = Vec::new();
    walk(&serde_json::from_str(board).unwrap(), &mut found);
    found
}

/// What a query names that does not exist.
fn faults(query: &str, exposed: &Exposed) -> Vec<String> {
    let mut faults = Vec::new();
    let mut named: Vec<&str> = Vec::new();
    for (word, after) in words(&without_strings(query)) {
        let Some(labels) = exposed.get(&word) else {
            let metric = ["sealgate_", "process_"].iter().any(|prefix| word.starts_with(prefix)) || word == "up";
            if metric {
                faults.push(format!("no metric {word}"));
            }
            continue;
        };
        let (name, _) = exposed.get_key_value(&word).unwrap();
        named.push(name);
        // The selector stands right behind the name, at the same place in the query with its strings.
        if query[after..].starts_with('{') {
            faults.extend(selector_faults(&query[after + 1..], labels));
        }
    }
    if named.is_empty() && faults.is_empty() {
        faults.push("no metric at all".to_owned());
    }
    for label in grouping(query) {
        let known = named.iter().any(|name| exposed[*name].contains_key(&label)) || ADDED.contains(&label.as_str());
        if !known && !named.is_empty() {
            faults.push(format!("no label {label}"));
        }
    }
    faults
}

fn selector_faults(selector: &str, labels: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut rest, mut more) = (selector, true);
    while more {
        let end = rest.find(['=', '!']).unwrap();
        let label = rest[..end].trim_matches([',', ' ']);
        let open = rest.find('"').unwrap();
        let close = open + 1 + rest[open + 1..].find('"').unwrap();
        let value = &rest[open + 1..close];
        rest = &rest[close + 1..];
        more = !rest.starts_with('}');
        if ADDED.contains(&label) {
            continue;
        }
        match labels.get(label) {
            None => faults.push(format!("no label {label}")),
            Some(values) if !value.starts_with('$') => {
                let missing = value.split('|').filter(|value| !values.contains(*value));
                faults.extend(missing.map(|value| format!("{label} is never {value}")));
            }
            Some(_) => {}
        }
    }
    faults
}

/// The labels of `by (…)`, and the second argument of `label_values(…)`.
fn grouping(query: &str) -> Vec<String> {
    let mut labels = Vec::new();
    for (at, found) in query.match_indices("by (") {
        let rest = &query[at + found.len()..];
        labels.extend(rest[..rest.find(')').unwrap()].split(',').map(|label| label.trim().to_owned()));
    }
    if let Some(arguments) = query.strip_prefix("label_values(") {
        labels.push(arguments.trim_end_matches(')').rsplit(',').next().unwrap().trim().to_owned());
    }
    labels
}

/// Each word with the place right behind it.
fn words(query: &str) -> Vec<(String, usize)> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, char) in query.char_indices().chain([(query.len(), ' ')]) {
        if char.is_ascii_alphanumeric() || char == '_' {
            start = start.or(Some(at));
        } else if let Some(from) = start.take() {
            words.push((query[from..at].to_owned(), at));
        }
    }
    words
}

/// The query with everything between quotes blanked out, at the same length.
fn without_strings(query: &str) -> String {
    let mut inside = false;
    query
        .chars()
        .map(|char| {
            inside ^= char == '"';
            if inside { ' ' } else { char }
        })
        .collect()
}
