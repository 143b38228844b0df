//! What a 401 asks for: `WWW-Authenticate` (RFC 9110, 11.6.1). Pure.
//!
//! A header may hold several challenges, and a comma separates challenges as well as their parameters; what follows a
//! comma is a parameter if it goes on with `=`, else the next scheme.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

use crate::limits::{CHALLENGE_BYTES_MAX, CHALLENGE_PARTS_MAX};

/// What the registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token from this realm; not checked yet.
    Bearer {
        /// The realm as it was sent.
        realm: String,
        /// The service that goes into the token request.
        service: Option<String>,
    },
    /// User and password.
    Basic,
}

/// Finds the challenge to answer: the first Bearer that names a realm, else Basic. Its scope is never read: we know
/// better what we need. `None` when there is none, or when the headers do not parse or are out of bounds.
pub(super) fn find(headers: &HeaderMap) -> Option<Challenge> {
    let mut schemes = Vec::new();
    let mut bytes = 0_usize;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        bytes = bytes.saturating_add(value.len());
        if bytes > CHALLENGE_BYTES_MAX {
            return None;
        }
        schemes.append(&mut parse(value.to_str().ok()?)?);
        if schemes.len() > CHALLENGE_PARTS_MAX {
            return None;
        }
    }
    let bearer = schemes.iter().find_map(|scheme| {
        let realm = scheme.name.eq_ignore_ascii_case("bearer").then(|| scheme.parameter("realm"))??;
        Some(Challenge::Bearer { realm, service: scheme.parameter("service").filter(|service| !service.is_empty()) })
    });
    let basic = || schemes.iter().any(|scheme| scheme.name.eq_ignore_ascii_case("basic")).then_some(Challenge::Basic);
    bearer.or_else(basic)
}

/// One challenge as it was sent.
struct Scheme<'a> {
    name: &'a str,
    parameters: Vec<(&'a str, String)>,
}

impl Scheme<'_> {
    fn parameter(&self, name: &str) -> Option<String> {
        self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    }
}

fn parse(text: &str) -> Option<Vec<Scheme<'_>>> {
    let mut rest = Rest(text);
    let mut schemes = Vec::new();
    loop {
        rest.skip_separators();
        if rest.0.is_empty() {
            return Some(schemes);
        }
        let name = rest.token()?;
        let parameters = if rest.0.starts_with(' ') { parameters(&mut rest)? } else { Vec::new() };
        if schemes.len() == CHALLENGE_PARTS_MAX || !(rest.0.is_empty() || rest.ended_part()) {
            return None;
        }
        schemes.push(Scheme { name, parameters });
    }
}

/// The parameters up to the next scheme or the end.
fn parameters<'a>(rest: &mut Rest<'a>) -> Option<Vec<(&'a str, String)>> {
    let mut parameters = Vec::new();
    rest.skip_token68();
    loop {
        let before = rest.0;
        rest.skip_separators();
        let Some(name) = rest.token() else { return rest.0.is_empty().then_some(parameters) };
        rest.skip_spaces();
        let Some(after) = rest.0.strip_prefix('=') else {
            rest.0 = before;
            return Some(parameters);
        };
        rest.0 = after;
        rest.skip_spaces();
        let value = if rest.0.starts_with('"') { rest.quoted()? } else { rest.token()?.to_owned() };
        if parameters.len() == CHALLENGE_PARTS_MAX || !(rest.0.is_empty() || rest.ended_part()) {
            return None;
        }
        parameters.push((name, value));
    }
}

/// What is left to read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip_spaces(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn skip_separators(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
    }

    /// Whether a scheme or parameter may end here.
    fn ended_part(&self) -> bool {
        self.0.trim_start_matches([' ', '\t']).starts_with(',')
    }

    /// `token` (RFC 9110, 5.6.2).
    fn token(&mut self) -> Option<&'a str> {
        let is_token = |char: char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char);
        let (token, rest) = self.0.split_at_checked(self.0.find(|char| !is_token(char)).unwrap_or(self.0.len()))?;
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// `quoted-string` (RFC 9110, 5.6.4).
    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut chars = self.0.strip_prefix('"')?.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => value.push(chars.next()?),
                char => value.push(char),
            }
        }
        self.0 = chars.as_str();
        Some(value)
    }

    /// Passes over `token68` (as of `Negotiate`), which stands where parameters could.
    fn skip_token68(&mut self) {
        let text = self.0.trim_start_matches(' ');
        let is_token68 = |char: char| char.is_ascii_alphanumeric() || "-._~+/".contains(char);
        let rest = text.trim_start_matches(is_token68);
        if rest.len() == text.len() {
            return;
        }
        let rest = Self(rest.trim_start_matches('='));
        if rest.0.is_empty() || rest.ended_part() {
            self.0 = rest.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn found(values: &[&str]) -> Option<Challenge> {
        let headers = values.iter().map(|value| (WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap())).collect();
        find(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived_and_any_quoted_realm_is_read(noise in "[ -~]{0,60}", realm in "[ -~]{1,60}") {
            // Whatever stands before it may hide the challenge, but never stop the program.
            let _: Option<Challenge> = found(&[&noise]);
            let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!(r#"Bearer realm="{quoted}""#);
            proptest::prop_assert_eq!(found(&[&header]), Some(bearer(&realm, None)));
        }
    }

    #[test]
    fn what_registries_send_is_understood() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#;
        assert_eq!(found(&[hub]), Some(bearer("https://auth.docker.io/token", Some("registry.docker.io"))));
        assert_eq!(found(&[r#"bearer  Realm="https://a/t" , Service=x"#]), Some(bearer("https://a/t", Some("x"))));
        assert_eq!(found(&[r#"Bearer realm="https://a/t",service="""#]), Some(bearer("https://a/t", None)));
        assert_eq!(found(&[r#"Basic realm="Registry Realm""#]), Some(Challenge::Basic));
        assert_eq!(found(&["Basic"]), Some(Challenge::Basic));
        assert_eq!(found(&[r#"Bearer realm="a\"b\\""#]), Some(bearer("a\"b\\", None)));
    }

    #[test]
    fn among_several_challenges_bearer_is_chosen() {
        let both = [r#"Basic realm="x", Bearer realm="https://a/t", service="s""#];
        assert_eq!(found(&both), Some(bearer("https://a/t", Some("s"))));
        assert_eq!(found(&[r#"Basic realm="x""#, r#"Bearer realm="https://a/t""#]), Some(bearer("https://a/t", None)));
        assert_eq!(found(&[r#"Negotiate, NTLM, Bearer realm="https://a/t""#]), Some(bearer("https://a/t", None)));
        assert_eq!(found(&[r#"Negotiate YII=, Bearer realm="https://a/t""#]), Some(bearer("https://a/t", None)));
        assert_eq!(
            found(&[r#"Bearer realm="https://a/t", Bearer realm="https://b/t""#]),
            Some(bearer("https://a/t", None))
        );
        assert_eq!(found(&[r#"Bearer service="s", Basic realm="x""#]), Some(Challenge::Basic));
    }

    #[test]
    fn what_does_not_parse_is_no_challenge() {
        let bad = [
            "",
            ",",
            "Negotiate",
            r#"Bearer service="s""#,
            r#"Bearer realm="https://a/t"#,
            r"Bearer realm=https://a/t",
            r#"Bearer realm="a"x"#,
            r#"Bearer realm="a" service="b""#,
            r#"="a""#,
            r#"Bearer realm="a\"#,
        ];
        for value in bad {
            assert_eq!(found(&[value]), None, "{value}");
        }
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn length_and_number_are_bounded_on_both_sides() {
        let realm = |length: usize| format!(r#"Bearer realm="{}""#, "a".repeat(length - r#"Bearer realm="""#.len()));
        assert!(found(&[&realm(CHALLENGE_BYTES_MAX)]).is_some());
        assert!(found(&[&realm(CHALLENGE_BYTES_MAX + 1)]).is_none());
        let half = realm(CHALLENGE_BYTES_MAX / 2 + 1);
        assert!(found(&[&half, &half]).is_none());
        let many = |count: usize| vec!["Basic"; count].join(", ");
        assert!(found(&[&many(CHALLENGE_PARTS_MAX)]).is_some());
        assert!(found(&[&many(CHALLENGE_PARTS_MAX + 1)]).is_none());
        let parameters = |count: usize| format!("Basic {}", vec!["a=b"; count].join(","));
        assert!(found(&[&parameters(CHALLENGE_PARTS_MAX)]).is_some());
        assert!(found(&[&parameters(CHALLENGE_PARTS_MAX + 1)]).is_none());
    }
}
