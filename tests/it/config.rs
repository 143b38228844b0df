//! Configurations as files: what loads, what does not, and what the message says.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sealgate::config::{Config, ConfigError, Document, Origin};
use sealgate::http::Access;
use sealgate::limits::FALLBACKS_MAX;
use sealgate::oci::Digest;
use sealgate::policy::Mode;

/// A directory with `sealgate.toml` and an accepting `policy.json`.
struct Files(tempfile::TempDir);

impl Files {
    fn with(config: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
        files.write("sealgate.toml", config);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&Origin::File(self.path("sealgate.toml"))).map(|loaded| loaded.config)
    }

    /// The error's text, without the directory.
    fn error(&self) -> String {
        let error = self.load().map(drop).unwrap_err().to_string();
        error.replace(&format!("{}/", self.0.path().display()), "")
    }
}

const POLICY: &str = "[policy]\ncontainers_policy = \"policy.json\"\n";

fn error_of(config: &str) -> String {
    Files::with(config).error()
}

fn with_policy(rest: &str) -> String {
    format!("{POLICY}{rest}")
}

#[test]
fn the_smallest_configuration_is_a_policy_and_mirrors_docker_hub_on_loopback_in_enforce_mode() {
    let files = Files::with(POLICY);
    let config = files.load().unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:5000");
    assert_eq!(config.server.admin_listen.to_string(), "127.0.0.1:5001");
    assert_eq!(config.document.policy.mode, sealgate::config::document::Mode::Enforce);
    let [upstream] = config.upstreams.as_slice() else { panic!("{:?}", config.upstreams) };
    assert_eq!(upstream.host().as_str(), "docker.io");
    assert_eq!(upstream.settings.endpoint.as_str(), "https://registry-1.docker.io/");
    assert!(upstream.default && !upstream.has_credentials());
    assert_eq!(upstream.aliases.len(), 2);
    assert_eq!(config.store.data_dir, Some(files.path("data")));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_built_in_configuration_loads_without_any_file() {
    let config = Config::load(&Origin::BuiltIn).unwrap().config;
    assert_eq!(config.store.data_dir.as_deref(), Some(Path::new("data")), "relative to the working directory");
    let hosts: Vec<&str> = config.upstreams.iter().map(|upstream| upstream.host().as_str()).collect();
    assert_eq!(hosts, ["docker.io", "quay.io", "ghcr.io", "registry.k8s.io", "gcr.io"]);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_built_in_configuration_is_the_annotated_file_of_the_repository() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Config::load(&Origin::File(root.join("config/sealgate.toml"))).unwrap();
}

#[test]
fn the_configuration_in_the_image_loads_and_fits_what_composes_around_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = Config::load(&Origin::File(root.join("config/container.toml"))).unwrap().config;
    assert_eq!(config.store.data_dir.as_deref(), Some(Path::new("/var/lib/sealgate")));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let (image, compose, prometheus) =
        (read("Dockerfile"), read("docker-compose.yml"), read("dashboards/prometheus.yaml"));
    assert!(image.contains("VOLUME /var/lib/sealgate") && compose.contains(":/var/lib/sealgate"));
    for port in [config.server.listen.port(), config.server.admin_listen.port()] {
        assert!(compose.contains(&format!("127.0.0.1:{port}:{port}")), "{port} is published to this machine");
    }
    // The admin listener answers to the container's own host name.
    assert!(compose.contains("hostname: sealgate"));
    assert!(prometheus.contains(&format!("sealgate:{}", config.server.admin_listen.port())));
    let rules = "/etc/prometheus/alerts.yaml";
    assert!(prometheus.contains(rules) && compose.contains(&format!("./dashboards/alerts.yaml:{rules}:ro")));
}

#[test]
fn names_of_the_admin_listener_are_names_alone() {
    let with = |hosts: &str| Files::with(&with_policy(&format!("[server]\nadmin_hosts = [{hosts}]\n")));
    assert_eq!(with("\"mirror.example\", \"Mirror\"").load().unwrap().server.admin_hosts, ["mirror.example", "Mirror"]);
    for bad in ["mirror.example:5001", "http://mirror.example", "", "*"] {
        let error = with(&format!("\"{bad}\"")).error();
        assert!(error.contains("server.admin_hosts"), "{bad}: {error}");
    }
}

#[test]
fn c_01_typos_wrong_kinds_empty_and_oversized_files_are_errors_with_line_and_column() {
    let rows = [
        ("typo in a key", with_policy("[server]\nlistn = \"127.0.0.1:1\"\n")),
        ("typo in a table", with_policy("[sever]\nlisten = \"127.0.0.1:1\"\n")),
        ("duplicate key", "[server]\nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:1\"\n".to_owned()),
        ("wrong type", "[server]\nlisten = 5000\n".to_owned()),
        ("no address", "[server]\nlisten = \"localhost\"\n".to_owned()),
        ("no duration", "[verdicts]\nallow_ttl = \"1 day\"\n".to_owned()),
        ("no unit", "[verdicts]\nallow_ttl = \"60\"\n".to_owned()),
        ("no size", "[cache]\nmax_bytes = \"64GB\"\n".to_owned()),
        ("unknown mode", "[policy]\nmode = \"observe\"\n".to_owned()),
        ("no TOML", "[server\n".to_owned()),
        ("empty file", String::new()),
        ("only a comment", "# nothing\n".to_owned()),
        ("2 MiB", "#".repeat(2 << 20)),
    ];
    let table: String = rows.iter().map(|(name, config)| format!("{name}: {}\n", error_of(config))).collect();
    insta::assert_snapshot!(table);
}

#[test]
fn a_bound_on_new_things_that_bounds_nothing_is_an_error_that_names_the_way_to_have_none() {
    let with = |bound: u32| with_policy(&format!("[server]\ncold_pulls_per_minute = {bound}\n"));
    assert!(Files::with(&with(1_000_000)).load().is_ok());
    let error = error_of(&with(1_000_001));
    assert!(error.contains("server.cold_pulls_per_minute") && error.contains("write 0 for none"), "{error}");
}

#[test]
fn c_01_a_missing_file_says_how_to_name_another() {
    let error = Config::load(&Origin::File("no/such/sealgate.toml".into())).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "no/such/sealgate.toml: there is no such file; name another file with --config");
}

#[test]
fn cross_checks_name_the_key_and_what_to_do() {
    let upstream = |rest: &str| with_policy(&format!("[[upstream]]\nhost = \"quay.io\"\n{rest}\n"));
    let rows = [
        ("no policy", "[server]\n".to_owned()),
        ("one address twice", with_policy("[server]\nlisten = \"127.0.0.1:5001\"\n")),
        ("tiny cache", with_policy("[cache]\nmax_bytes = \"1023KiB\"\n")),
        ("short allow", with_policy("[verdicts]\nallow_ttl = \"999ms\"\n")),
        ("long deny", with_policy("[verdicts]\ndeny_ttl = \"31d\"\n")),
        ("no data_dir", with_policy("[server]\ndata_dir = \"\"\n")),
        ("host", with_policy("[[upstream]]\nhost = \"https://quay.io\"\n")),
        ("alias", upstream("aliases = [\"a/b\"]")),
        ("alias of another", upstream("[[upstream]]\nhost = \"a.example\"\naliases = [\"quay.io\"]")),
        ("host twice", upstream("[[upstream]]\nhost = \"quay.io\"")),
        ("two defaults", upstream("default = true\n[[upstream]]\nhost = \"a.example\"\ndefault = true")),
        ("endpoint without scheme", upstream("endpoint = \"quay.io\"")),
        ("endpoint ftp", upstream("endpoint = \"ftp://quay.io\"")),
        ("endpoint with path", upstream("endpoint = \"https://quay.io/v2\"")),
        ("endpoint with user", upstream("endpoint = \"https://u:p@quay.io\"")),
        ("user alone", upstream("username = \"u\"")),
        ("password alone", upstream("password_file = \"p\"")),
        ("two credentials", upstream("username = \"u\"\ncredential_helper = \"pass\"")),
        ("helper with a path", upstream("credential_helper = \"../x\"")),
        ("client_cert alone", upstream("client_cert = \"c\"")),
        ("client_key alone", upstream("client_key = \"c\"")),
        ("proxy", upstream("proxy = \"user:secret@proxy\"")),
        ("auth_hosts", upstream("auth_hosts = [\"https://auth.example\"]")),
        ("redirect_hosts", upstream("redirect_hosts = [\"*\"]")),
        (
            "exemption without end",
            with_policy("[[policy.exemption]]\nscope = \"a.example\"\nreason = \"r\"\nowner = \"o\"\n"),
        ),
    ];
    let table: String = rows.iter().map(|(name, config)| format!("{name}: {}\n", error_of(config))).collect();
    insta::assert_snapshot!(table);
}

const CIP: &str = "[policy]\ncluster_image_policies = [\"cip/*.yaml\"]\n";

fn cluster_image_policy(name: &str, authority: &str) -> String {
    format!(
        "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata:\n  name: {name}\nspec:\n  images:\n    \
         - glob: \"**\"\n  authorities:\n    - {authority}\n"
    )
}

fn with_policies(config: &str, policies: &[(&str, String)]) -> Files {
    let files = Files::with(config);
    std::fs::create_dir(files.path("cip")).unwrap();
    for (name, policy) in policies {
        files.write(&format!("cip/{name}"), policy);
    }
    files
}

#[test]
fn cluster_image_policies_are_enough_and_are_watched() {
    let open = cluster_image_policy("open", "static: {action: pass}");
    let files = with_policies(CIP, &[("a.yaml", open)]);
    let config = files.load().unwrap();
    assert_eq!(config.policy_origin, "cip/*.yaml");
    assert!(config.read.iter().any(|read| read.path == files.path("cip/a.yaml")));
    let seen = format!("{:?}", config.seen);
    assert!(
        seen.contains("cip/a.yaml") && seen.contains("cip\""),
        "the directory too, for files that come later: {seen}"
    );
}

#[test]
fn a_cluster_image_policy_that_cannot_be_used_is_named_with_file_line_and_field() {
    let keyless = |more: &str| format!("keyless: {{identities: [{{issuer: \"https://i\", subject: s}}]{more}}}");
    let one = |name: &'static str, authority: &str| vec![(name, cluster_image_policy("p", authority))];
    let rego = |module: &str| format!("static: {{action: pass}}\n  policy:\n    type: rego\n    data: \"{module}\"");
    let rows = [
        ("nothing matches", CIP.to_owned(), Vec::new()),
        ("missing file", CIP.replace("*.yaml", "a.yaml"), Vec::new()),
        ("unknown trust root", CIP.to_owned(), one("a.yaml", &keyless(", trustRootRef: mine"))),
        (
            "another registry",
            CIP.to_owned(),
            one("a.yaml", &format!("{}\n      source: [{{oci: other.test/s}}]", keyless(""))),
        ),
        (
            "one name twice",
            CIP.to_owned(),
            [one("a.yaml", "static: {action: pass}"), one("b.yaml", "static: {action: fail}")].concat(),
        ),
        (
            "a prefix for bundles",
            CIP.to_owned(),
            one("a.yaml", &format!("{}\n      signatureFormat: bundle\n      source: [{{tagPrefix: x}}]", keyless(""))),
        ),
        ("rego that does not parse", CIP.to_owned(), one("a.yaml", &rego("package sigstore\\nisCompliant {"))),
        ("rego without the rule", CIP.to_owned(), one("a.yaml", &rego("package sigstore\\nallow = true"))),
        ("rego with network", CIP.to_owned(), one("a.yaml", &rego("package sigstore\\nisCompliant { http.send({}) }"))),
        ("no_match without policies", format!("{POLICY}no_match = \"allow\"\n"), Vec::new()),
    ];
    let error = |(what, config, policies): &(&str, String, Vec<(&str, String)>)| {
        format!("{what}: {}\n", with_policies(config, policies).error())
    };
    insta::assert_snapshot!(rows.iter().map(error).collect::<String>());
}

#[test]
fn no_match_beside_a_policy_json_is_warned_about() {
    let config = CIP.replace("[policy]\n", POLICY) + "no_match = \"warn\"\n";
    let open = cluster_image_policy("open", "static: {action: pass}");
    let loaded = with_policies(&config, &[("a.yaml", open)]).load().unwrap();
    assert!(loaded.warnings.iter().any(|warning| warning.starts_with("policy.no_match has no effect")));
    assert_eq!(loaded.policy_origin.rsplit_once(", ").unwrap().1, "cip/*.yaml");
}

#[test]
fn a_directory_of_registries_d_is_read_whole_and_its_mistakes_have_file_and_line() {
    let files = Files::with(&with_policy("registries_d = \"registries.d\"\n"));
    let error = || files.error();
    assert!(error().contains("policy.registries_d: cannot read"), "{}", error());
    std::fs::create_dir(files.path("registries.d")).unwrap();
    let put = |name: &str, text: &str| files.write(&format!("registries.d/{name}"), text);
    put("default.yaml", "");
    put("notes.txt", "no: [yaml");
    put(
        "red-hat.yaml",
        "docker:\n  registry.redhat.io:\n    sigstore: https://registry.redhat.io/containers/sigstore\n",
    );
    let fingerprint = || {
        let loaded = Config::load(&Origin::File(files.path("sealgate.toml"))).unwrap();
        loaded.snapshot.policy.fingerprint()
    };
    let one = fingerprint();
    put("a.yaml", "docker:\n  quay.io:\n    lookaside: file:///var/lib/signatures\n");
    assert_ne!(fingerprint(), one, "it is part of every verdict's key");
    put("z.yaml", "docker:\n  quay.io: {}\n");
    assert!(error().contains("z.yaml:2:1: Error parsing signature storage configuration"), "{}", error());
    assert!(error().contains("a.yaml\" and"), "{}", error());
}

#[test]
fn a_trusted_root_that_cannot_be_used_is_an_error_and_another_one_has_another_fingerprint() {
    let files = Files::with(&with_policy("trusted_root = \"root.json\"\n"));
    assert!(files.error().contains("policy.trusted_root: cannot read root.json"), "{}", files.error());
    files.write("root.json", "{}");
    assert!(files.error().contains("policy.trusted_root: trust root root.json"), "{}", files.error());
}

#[test]
fn c_05_files_that_are_missing_empty_or_directories_are_errors_that_name_them() {
    let files = Files::with(&with_policy("[[upstream]]\nhost = \"a.example\"\nca_file = \"ca.pem\"\n"));
    assert!(
        files.error().contains("upstream[0].ca_file: cannot read ca.pem: there is no such file"),
        "{}",
        files.error()
    );
    files.write("ca.pem", "");
    assert!(files.error().contains("it is empty"), "{}", files.error());
    std::fs::remove_file(files.path("ca.pem")).unwrap();
    std::fs::create_dir(files.path("ca.pem")).unwrap();
    assert!(files.error().contains("it is not a regular file"), "{}", files.error());
}

#[test]
fn c_05_certificates_that_cannot_be_used_are_found_when_the_configuration_is_read() {
    let files = Files::with(&with_policy("[[upstream]]\nhost = \"a.example\"\nca_file = \"ca.pem\"\n"));
    files.write("ca.pem", "no certificate");
    assert!(files.error().contains("upstream[0].ca_file: the CA file must hold PEM"), "{}", files.error());
    let files = Files::with(&with_policy(
        "[[upstream]]\nhost = \"a.example\"\nclient_cert = \"c.pem\"\nclient_key = \"k.pem\"\n",
    ));
    files.write("c.pem", "no certificate");
    files.write("k.pem", "no key");
    assert!(files.error().contains("upstream[0].client_cert: client certificate and key"), "{}", files.error());
}

#[test]
fn an_override_or_exemption_that_can_do_nothing_is_warned_about() {
    let warnings = |scope: &str, rest: &str| {
        let upstreams = "[[upstream]]\nhost = \"a.example:5000\"\n[[upstream]]\nhost = \"docker.io\"\n";
        let over = format!("[[policy.override]]\nscope = \"{scope}\"\n{rest}\n{upstreams}");
        Files::with(&with_policy(&over)).load().unwrap().warnings.join("\n")
    };
    let digest = Digest::sha256(b"").to_string();
    let good = ["docker.io", "docker.io/library/alpine:3", "a.example:5000/x", "*.example", &digest];
    for scope in good {
        assert_eq!(warnings(scope, "mode = \"enforce\""), "", "{scope}");
    }
    for scope in ["alpine", "b.example", "a.example", "*.test", "ghcr.io/x/y"] {
        let warnings = warnings(scope, "mode = \"enforce\"");
        assert!(warnings.contains("policy.override[0].scope") && warnings.contains("matches nothing"), "{warnings}");
    }
    assert!(warnings("docker.io", "").contains("policy.override[0]: overrides nothing"));
    let exemption =
        "[[policy.exemption]]\nscope = \"alpine\"\nreason = \"r\"\nowner = \"o\"\nexpires = \"2027-01-31T00:00:00Z\"\n";
    let warnings = Files::with(&with_policy(exemption)).load().unwrap().warnings.join("\n");
    assert!(warnings.contains("policy.exemption[0].scope"), "{warnings}");
}

#[test]
fn c_05_a_password_file_is_one_line_and_its_content_is_never_printed() {
    let files = Files::with(&with_policy(
        "[[upstream]]\nhost = \"a.example\"\nusername = \"u\"\npassword_file = \"password\"\n",
    ));
    for bad in ["hunter2\nhunter3\n", "hunter2\0", "\n"] {
        files.write("password", bad);
        let error = files.error();
        assert!(error.contains("one line") && !error.contains("hunter"), "{error}");
    }
    files.write("password", "hunter2\n");
    let config = files.load().unwrap();
    assert!(config.upstreams[0].has_credentials());
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn c_07_credentials_that_everybody_can_read_are_warned_about() {
    let files = Files::with(&with_policy(
        "[[upstream]]\nhost = \"a.example\"\nusername = \"u\"\npassword_file = \"password\"\n",
    ));
    files.write("password", "hunter2\n");
    files.mode("password", 0o644);
    let warnings = files.load().unwrap().warnings.join("\n");
    assert!(warnings.contains("upstream[0].password_file") && warnings.contains("chmod"), "{warnings}");
    files.mode("password", 0o640);
    assert_eq!(files.load().unwrap().warnings, Vec::<String>::new());
}

#[test]
fn c_07_a_proxy_password_is_not_shown_by_debug_or_by_the_printed_configuration() {
    let files = Files::with(&with_policy(
        "[[upstream]]\nhost = \"a.example\"\nproxy = \"http://user:hunter2@proxy.example:3128\"\n",
    ));
    let document = Document::load(&Origin::File(files.path("sealgate.toml"))).unwrap();
    let printed = toml::to_string(&document).unwrap();
    assert!(printed.contains("proxy = \"****\"") && !printed.contains("hunter2"), "{printed}");
    assert!(!format!("{document:?}").contains("hunter2"));
}

#[test]
fn c_08_plain_http_with_credentials_is_warned_about_unless_it_stays_on_this_machine() {
    for (endpoint, warned) in
        [("http://10.0.0.1:5000", true), ("http://127.0.0.1:5000", false), ("https://a.example", false)]
    {
        let files = Files::with(&with_policy(&format!(
            "[[upstream]]\nhost = \"a.example\"\nendpoint = \"{endpoint}\"\ncredential_helper = \"pass\"\n"
        )));
        let warnings = files.load().unwrap().warnings.join("\n");
        assert_eq!(warnings.contains("in the clear"), warned, "{endpoint}: {warnings}");
    }
}

#[test]
fn c_08_private_addresses_are_dialled_only_as_configured() {
    let load = |rest: &str| {
        let files = Files::with(&with_policy(&format!("[[upstream]]\nhost = \"a.example\"\n{rest}\n")));
        files.load().unwrap().upstreams[0].settings.allow_private_addresses
    };
    assert!(!load("endpoint = \"https://10.0.0.1\""));
    assert!(load("endpoint = \"https://10.0.0.1\"\nallow_private_addresses = true"));
}

#[test]
fn c_09_a_reachable_admin_listener_is_warned_about_with_and_without_token() {
    let server = |rest: &str| with_policy(&format!("[server]\nadmin_listen = \"0.0.0.0:5001\"\n{rest}\n"));
    let warnings = Files::with(&server("")).load().unwrap().warnings.join("\n");
    assert!(warnings.contains("changes are refused"), "{warnings}");
    let files = Files::with(&server("admin_token_file = \"token\""));
    files.write("token", "0123456789abcdef\n");
    files.mode("token", 0o600);
    let config = files.load().unwrap();
    assert_eq!(config.server.admin_token.as_ref().unwrap().reveal(), "0123456789abcdef");
    assert!(config.warnings.join("\n").contains("changes need the token"), "{:?}", config.warnings);
    files.write("token", "0123456789abcde\n");
    assert!(files.error().contains("at least 16"), "{}", files.error());
}

#[test]
fn c_11_two_upstreams_at_one_url_keep_their_own_credentials() {
    let files = Files::with(&with_policy(
        "[[upstream]]\nhost = \"a.example\"\nendpoint = \"https://r.example\"\nusername = \"a\"\npassword_file = \"pa\"\n\
         [[upstream]]\nhost = \"b.example\"\nendpoint = \"https://r.example\"\nusername = \"b\"\npassword_file = \"pb\"\n",
    ));
    files.write("pa", "secret-a");
    files.write("pb", "secret-b");
    let config = files.load().unwrap();
    let credentials: Vec<(String, String)> = config
        .upstreams
        .iter()
        .map(|upstream| match &upstream.settings.credentials {
            sealgate::upstream::Credentials::Static { username, password } => (username.clone(), password.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    let pair = |user: &str, password: &str| (user.to_owned(), password.to_owned());
    assert_eq!(credentials, [pair("a", "secret-a"), pair("b", "secret-b")]);
}

#[test]
fn an_upstream_with_credentials_is_served_to_strangers_only_when_that_is_said() {
    let authority = rcgen_pem();
    let load = |server: &str, upstream: &str| {
        let files = Files::with(&with_policy(&format!(
            "[server]\n{server}\n[[upstream]]\nhost = \"a.example\"\n{upstream}\n[[upstream]]\nhost = \"b.example\"\n"
        )));
        files.write("c", &authority.0);
        files.write("k", &authority.1);
        files.mode("k", 0o600);
        let config = files.load().unwrap();
        let served = |upstream| config.server.access(upstream) == Access::Served;
        config.upstreams.iter().map(served).collect::<Vec<_>>()
    };
    let open = "listen = \"0.0.0.0:5000\"";
    let tls = "listen = \"0.0.0.0:5000\"\ntls = { cert = \"c\", key = \"k\" }";
    let mtls = "listen = \"0.0.0.0:5000\"\ntls = { cert = \"c\", key = \"k\", client_ca = \"c\" }";
    let helper = "credential_helper = \"pass\"";
    let certificate = "client_cert = \"c\"\nclient_key = \"k\"";
    assert_eq!(load("listen = \"127.0.0.1:5000\"", helper), [true, true]);
    assert_eq!(load(open, ""), [true, true]);
    assert_eq!(load(open, helper), [false, true]);
    assert_eq!(load(open, certificate), [false, true], "a client certificate is a credential too");
    assert_eq!(load(tls, helper), [false, true], "TLS alone does not say who a client is");
    assert_eq!(load(mtls, helper), [true, true]);
    assert_eq!(load(open, &format!("{helper}\nanonymous_clients = true")), [true, true]);
    let elsewhere = format!("fallback = [{{ endpoint = \"https://b.test\", {helper} }}]");
    assert_eq!(load(open, &elsewhere), [false, true], "so are those of a further endpoint");
}

#[test]
fn further_endpoints_have_their_own_keys_and_their_mistakes_name_them() {
    let config = |keys: &str| with_policy(&format!("[[upstream]]\nhost = \"a.example\"\n{keys}\n"));
    let two = "ns = true\nusername = \"u\"\npassword_file = \"p\"\n[[upstream.fallback]]\nendpoint = \"https://b.example\"\n\
               [[upstream.fallback]]\nendpoint = \"http://c.example:5000\"\npartial = true\nauth_hosts = [\"d.example\"]";
    let files = Files::with(&config(two));
    files.write("p", "secret");
    files.mode("p", 0o600);
    let loaded = files.load().unwrap();
    let upstream = &loaded.upstreams[0];
    assert!(upstream.settings.ns && upstream.has_credentials());
    let endpoints: Vec<&str> = upstream.fallbacks.iter().map(|fallback| fallback.settings.endpoint.as_str()).collect();
    assert_eq!(endpoints, ["https://b.example/", "http://c.example:5000/"]);
    for fallback in &upstream.fallbacks {
        assert!(matches!(fallback.settings.credentials, sealgate::upstream::Credentials::Anonymous));
        assert_eq!((fallback.settings.host.as_str(), fallback.settings.ns), ("a.example", false));
    }
    assert_eq!(upstream.fallbacks[1].content, sealgate::upstream::Content::Partial);
    let fallback = |keys: &str| format!("[[upstream.fallback]]\n{keys}");
    let rows = [
        (fallback("endpoint = \"\""), "upstream[0].fallback[0].endpoint"),
        (fallback("endpoint = \"https://a.example\""), "named before"),
        (fallback("endpoint = \"https://b.example\"\nusername = \"u\""), "upstream[0].fallback[0].username"),
        (fallback("endpoint = \"ftp://b.example\""), "neither http nor https"),
        (fallback("endpoint = \"https://b.example\"\ntag_ttl = \"1s\""), "tag_ttl"),
        ("[[upstream.tags]]\npattern = \"a\"".to_owned(), "upstream[0].tags[0].pattern"),
        ("[[upstream.tags]]\npattern = \"a:b\"\ntag_ttl = \"for ever\"".to_owned(), "immutable"),
        ("on_upstream_404 = \"allow\"".to_owned(), "serve-stale"),
    ];
    for (keys, expected) in rows {
        let error = error_of(&config(&keys));
        assert!(error.contains(expected), "{keys}: {error}");
    }
    let many = |count: usize| -> String {
        (0..count).map(|number| fallback(&format!("endpoint = \"https://b{number}.example\"\n"))).collect()
    };
    assert!(Files::with(&config(&many(FALLBACKS_MAX))).load().is_ok());
    assert!(error_of(&config(&many(FALLBACKS_MAX + 1))).contains("more than"));
}

#[test]
fn tls_files_that_do_not_fit_are_errors_that_name_the_key_and_no_content() {
    let (cert, key) = rcgen_pem();
    let (other_cert, other_key) = rcgen_pem();
    let files = Files::with(&with_policy("[server.tls]\ncert = \"c\"\nkey = \"k\"\nclient_ca = \"ca\"\n"));
    let rows = [
        ("good", &cert, &key, &other_cert),
        ("key of another", &cert, &other_key, &cert),
        ("no certificate", &key, &key, &cert),
        ("no key", &cert, &cert, &cert),
        ("no roots", &cert, &key, &key),
    ];
    for (name, cert, key, ca) in rows {
        for (file, content) in [("c", cert), ("k", key), ("ca", ca)] {
            files.write(file, content);
        }
        if name == "good" {
            files.load().unwrap();
        } else {
            let error = files.error();
            assert!(error.contains("server.tls") && !error.contains("BEGIN"), "{name}: {error}");
        }
    }
}

/// A self-signed certificate and its key.
fn rcgen_pem() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["mirror.example".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn the_lines_that_enforce_two_scopes_are_ready_to_be_uncommented() {
    let mut config = sealgate::config::BUILT_IN_CONFIG.to_owned();
    for scope in ["registry.k8s.io", "gcr.io/distroless"] {
        let commented = format!("#[[policy.override]]\n#scope = \"{scope}\"\n#mode = \"enforce\"\n");
        assert!(config.contains(&commented), "{commented}");
        config = config.replace(&commented, &commented.replace('#', ""));
    }
    let files = Files::with(&config);
    files.write("policy.json", sealgate::config::BUILT_IN_POLICY);
    let policy = Config::load(&Origin::File(files.path("sealgate.toml"))).unwrap().snapshot.policy;
    let digest = Digest::sha256(b"");
    for (image, mode) in [
        ("registry.k8s.io/pause:3.10", Mode::Enforce),
        ("gcr.io/distroless/static:latest", Mode::Enforce),
        ("gcr.io/other/app:1", Mode::Audit),
        ("docker.io/library/alpine:3", Mode::Audit),
    ] {
        assert_eq!(policy.mode(&image.parse().unwrap(), &digest), mode, "{image}");
    }
}

#[test]
fn the_configuration_of_the_container_image_loads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = Config::load(&Origin::File(root.join("config/container.toml"))).unwrap().config;
    assert_eq!(config.upstreams.len(), 5);
}

/// The fenced blocks of the README in that language.
fn readme_blocks(language: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let fence = format!("```{language}\n");
    readme.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn what_the_readme_shows_can_be_used_as_it_stands() {
    let [policy] = readme_blocks("json").try_into().unwrap();
    let [overriding] = readme_blocks("toml").try_into().unwrap();
    let files = Files::with(&with_policy(&overriding));
    files.write("policy.json", policy);
    assert!(files.error().contains("acme.pub"), "{}", files.error());
    files.write("acme.pub", sealgate::testing::sigstore::FakeKey::p256(1, "acme").public_pem());
    let loaded = Config::load(&Origin::File(files.path("sealgate.toml"))).unwrap();
    assert_eq!(loaded.config.document.policy.overrides[0].scope, "registry.k8s.io");
}
