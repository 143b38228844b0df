//! Policies in Rego: bounded in time, without network, without environment, on our clock.
//!
//! As in policy-controller the module's package is `sigstore`, its rule `isCompliant`, and the syntax that of Rego v0 (v1 where
//! the module imports `rego.v1`). A module of the package `signature` with the rule `allow`, which is cosign's, is read too.

use std::num::NonZeroU32;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, LimitError, Value};

use super::{CipError, RegoDocument};
use crate::clock::Timestamp;
use crate::limits::{IDENTITY_BYTES_MAX, REGO_INPUT_BYTES_MAX, REGO_MODULE_BYTES_MAX, REGO_TIME_MAX};

/// A module that was parsed. Evaluations do not see each other.
#[derive(Clone)]
pub(in crate::policy) struct Rego {
    engine: Engine,
    rule: &'static str,
    /// As written, since any other text may mean another thing.
    module: String,
}

impl std::fmt::Debug for Rego {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Rego").field("rule", &self.rule).field("module", &self.module).finish_non_exhaustive()
    }
}

/// What a module says of its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ruling {
    /// Yes, perhaps with a warning of its own.
    Passes { warning: Option<String> },
    /// No, or nothing at all; perhaps with its own words why.
    Fails { why: Option<String> },
}

/// A module gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RegoError {
    /// It is not fast enough.
    #[error("the Rego policy takes more than {} ms", REGO_TIME_MAX.as_millis())]
    Timeout,
    /// What it would look at is too big.
    #[error("the input of the Rego policy has {bytes} bytes, more than {REGO_INPUT_BYTES_MAX}")]
    Input { bytes: usize },
    /// It failed.
    #[error("the Rego policy failed: {0}")]
    Failed(String),
    /// Its result is neither a boolean nor objects with a `result`.
    #[error("the Rego policy's result is not understood: {0}")]
    Result(String),
}

impl Rego {
    /// Parses a module.
    ///
    /// # Errors
    /// [`CipError`] when it does not parse, is too large, has another package, lacks the rule, or asks for what a mirror does
    /// not give: network, environment, random numbers.
    pub(super) fn load(document: &RegoDocument, field: &str) -> Result<Self, CipError> {
        let RegoDocument { module, origin } = document;
        let error = |problem: String| CipError { origin: origin.clone(), field: field.to_owned(), problem };
        if module.len() > REGO_MODULE_BYTES_MAX {
            let problem = format!("the module has {} bytes, more than {REGO_MODULE_BYTES_MAX}", module.len());
            return Err(error(problem));
        }
        if let Some((line, name)) = out_of_reach(module) {
            let problem = format!(
                "line {line} of the module calls {name}: a policy here sees its input and the time, no network, no \
                 environment and no random numbers"
            );
            return Err(error(problem));
        }
        let mut engine = Engine::new();
        engine.set_rego_v0(true);
        engine.set_strict_builtin_errors(true);
        // Kept in memory and forgotten: what a policy prints does not belong among our own output.
        engine.set_gather_prints(true);
        engine
            .set_execution_timer_config(ExecutionTimerConfig { limit: REGO_TIME_MAX, check_interval: CHECK_INTERVAL });
        for (name, arguments) in OUT_OF_REACH {
            let refuse = move |_: Vec<Value>| Err(std::io::Error::other(format!("{name} is out of reach here")).into());
            engine
                .add_extension(name.to_owned(), arguments, Box::new(refuse))
                .map_err(|source| error(message(&source.to_string())))?;
        }
        let package = engine
            .add_policy(SOURCE.to_owned(), module.clone())
            .map_err(|source| error(format!("the module does not parse: {}", message(&source.to_string()))))?;
        let rule = match package.as_str() {
            "data.sigstore" => "data.sigstore.isCompliant",
            "data.signature" => "data.signature.allow",
            other => {
                let other = other.strip_prefix("data.").unwrap_or(other);
                let problem =
                    format!("the module's package is {other}; write `package sigstore` and a rule isCompliant");
                return Err(error(problem));
            }
        };
        let name = rule.rsplit('.').next().unwrap_or(rule);
        match engine.has_declared_rule_rooted_at(SOURCE, name) {
            Ok(true) => Ok(Self { engine, rule, module: module.clone() }),
            Ok(false) => Err(error(format!("the module has no rule {name}, so it could never be satisfied"))),
            Err(source) => Err(error(format!("the module cannot be used: {}", message(&source.to_string())))),
        }
    }

    /// As written.
    pub(super) fn module(&self) -> &str {
        &self.module
    }

    /// Whether an authority of that name is spoken of in it, outside comments.
    pub(super) fn names(&self, authority: &str) -> bool {
        let is_of_word = |char: char| char.is_alphanumeric() || matches!(char, '_' | '-');
        let codes = self.module.lines().map(|line| line.split('#').next().unwrap_or_default());
        codes.into_iter().any(|code| {
            code.match_indices(authority).any(|(at, found)| {
                let before = code.get(..at).and_then(|before| before.chars().next_back());
                let after = code.get(at.saturating_add(found.len())..).and_then(|after| after.chars().next());
                ![before, after].into_iter().flatten().any(is_of_word)
            })
        })
    }

    /// What it says of `input` at `now`. Takes at most [`REGO_TIME_MAX`].
    ///
    /// # Errors
    /// [`RegoError`] is no answer: also when a built-in function fails, which in OPA would be undefined and could turn a `not`
    /// into a yes.
    pub(super) fn evaluate(&self, input: &serde_json::Value, now: Timestamp) -> Result<Ruling, RegoError> {
        let text = input.to_string();
        if text.len() > REGO_INPUT_BYTES_MAX {
            return Err(RegoError::Input { bytes: text.len() });
        }
        let failed = |text: String| RegoError::Failed(message(&text));
        let mut engine = self.engine.clone();
        let nanoseconds = now.unix_millis().saturating_mul(NANOSECONDS_PER_MILLISECOND);
        let now_ns = Box::new(move |_: Vec<Value>| Ok(Value::from(nanoseconds)));
        engine.add_extension("time.now_ns".to_owned(), 0, now_ns).map_err(|error| failed(error.to_string()))?;
        engine.set_input(Value::from_json_str(&text).map_err(|error| failed(error.to_string()))?);
        let value =
            engine.eval_rule(self.rule.to_owned()).map_err(|error| match error.downcast_ref::<LimitError>() {
                Some(_) => RegoError::Timeout,
                None => failed(error.to_string()),
            })?;
        if value == Value::Undefined {
            return Ok(Ruling::Fails { why: None });
        }
        let value = serde_json::to_value(&value).map_err(|error| failed(error.to_string()))?;
        ruling(&value)
    }
}

/// A boolean; or objects with `result`, `warning` and `error`, of which one with a true `result` is enough.
fn ruling(value: &serde_json::Value) -> Result<Ruling, RegoError> {
    use serde_json::Value as Json;
    let objects = match value {
        Json::Bool(true) => return Ok(Ruling::Passes { warning: None }),
        Json::Bool(false) => return Ok(Ruling::Fails { why: None }),
        Json::Array(objects) => objects.as_slice(),
        Json::Object(_) => std::slice::from_ref(value),
        Json::Null | Json::Number(_) | Json::String(_) => return Err(not_understood(value)),
    };
    let mut why = None;
    for object in objects {
        let Json::Object(fields) = object else { return Err(not_understood(object)) };
        let text = |key: &str| match fields.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) if text.is_empty() => Ok(None),
            Some(Json::String(text)) => Ok(Some(bounded(text))),
            Some(other) => Err(not_understood(other)),
        };
        match fields.get("result") {
            Some(Json::Bool(true)) => return Ok(Ruling::Passes { warning: text("warning")? }),
            Some(Json::Bool(false)) | None => why = text("error")?.or(why),
            Some(other) => return Err(not_understood(other)),
        }
    }
    Ok(Ruling::Fails { why })
}

fn not_understood(value: &serde_json::Value) -> RegoError {
    RegoError::Result(bounded(&value.to_string()))
}

/// The first call of a function that this engine lacks on purpose, with its line, so that it is found when the policy is
/// loaded and not when an image is pulled.
fn out_of_reach(module: &str) -> Option<(usize, &'static str)> {
    module.lines().enumerate().find_map(|(index, line)| {
        let code = line.split('#').next().unwrap_or_default();
        let name = OUT_OF_REACH.iter().map(|(name, _)| *name).find(|name| code.contains(*name))?;
        Some((index.saturating_add(1), name))
    })
}

/// The engine shows the line with arrows; one line says the same.
fn message(text: &str) -> String {
    let place = text.lines().find_map(|line| line.trim().strip_prefix("--> ")).and_then(|place| {
        let mut parts = place.rsplit(':');
        let column = parts.next()?;
        Some(format!("line {} column {column}: ", parts.next()?))
    });
    let what = text.lines().find_map(|line| line.trim().strip_prefix("error: "));
    let what = what.map_or_else(|| text.split_whitespace().collect::<Vec<_>>().join(" "), str::to_owned);
    bounded(&format!("{}{what}", place.unwrap_or_default()))
}

fn bounded(text: &str) -> String {
    text.chars().take(IDENTITY_BYTES_MAX).collect()
}

const SOURCE: &str = "policy.rego";
/// Functions with the numbers of their arguments. The engine is built without most of them; these stand before it.
const OUT_OF_REACH: [(&str, u8); 5] =
    [("http.send", 1), ("opa.runtime", 0), ("net.lookup_ip_addr", 1), ("rand.intn", 2), ("uuid.rfc4122", 1)];
const NANOSECONDS_PER_MILLISECOND: i64 = 1_000_000;
/// Steps between two looks at the time.
const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::MIN.saturating_add(63);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::Origin;

    fn load(module: &str) -> Result<Rego, CipError> {
        let origin = Origin { file: "p.yaml".to_owned(), line: 7 };
        Rego::load(&RegoDocument { module: module.to_owned(), origin }, "spec.policy")
    }

    fn evaluate(module: &str, input: &serde_json::Value) -> Result<Ruling, RegoError> {
        load(module).unwrap().evaluate(input, Timestamp::from_unix_seconds(1_700_000_000))
    }

    const PASSES: Ruling = Ruling::Passes { warning: None };
    const FAILS: Ruling = Ruling::Fails { why: None };

    #[test]
    fn a_module_of_policy_controller_is_read_as_it_is() {
        let module =
            "package sigstore\ndefault isCompliant = false\nisCompliant {\n  input.predicate.Data == \"x\"\n}\n";
        assert_eq!(evaluate(module, &json!({"predicate": {"Data": "x"}})), Ok(PASSES));
        assert_eq!(evaluate(module, &json!({"predicate": {"Data": "y"}})), Ok(FAILS));
        assert_eq!(evaluate(module, &json!({})), Ok(FAILS));
    }

    #[test]
    fn the_syntax_of_v1_is_read_where_it_is_imported() {
        let module = "package sigstore\nimport rego.v1\nisCompliant if input.a == 1\n";
        assert_eq!(evaluate(module, &json!({"a": 1})), Ok(PASSES));
        assert_eq!(evaluate(module, &json!({"a": 2})), Ok(FAILS), "undefined is no yes");
    }

    #[test]
    fn cosigns_query_is_read_too() {
        let module = "package signature\nallow {\n  input.a == 1\n}\n";
        assert_eq!(evaluate(module, &json!({"a": 1})), Ok(PASSES));
        assert_eq!(evaluate(module, &json!({})), Ok(FAILS));
    }

    #[test]
    fn objects_carry_words_of_their_own() {
        let module = "package sigstore\nisCompliant[response] {\n  result = input.n > 1\n  \
            response := {\"result\": result, \"error\": \"too few\", \"warning\": \"old\"}\n}\n";
        assert_eq!(evaluate(module, &json!({"n": 2})), Ok(Ruling::Passes { warning: Some("old".to_owned()) }));
        assert_eq!(evaluate(module, &json!({"n": 1})), Ok(Ruling::Fails { why: Some("too few".to_owned()) }));
        assert_eq!(evaluate(module, &json!({})), Ok(FAILS), "an empty set is no yes");
        let module = "package sigstore\nisCompliant = {\"result\": true}\n";
        assert_eq!(evaluate(module, &json!({})), Ok(PASSES));
    }

    #[test]
    fn what_is_neither_yes_nor_no_is_no_answer() {
        for value in ["\"true\"", "1", "null", "[true]", "{\"result\": \"true\"}", "{\"result\": 1}"] {
            let module = format!("package sigstore\nisCompliant = {value}\n");
            assert!(matches!(evaluate(&module, &json!({})), Err(RegoError::Result(_))), "{value}");
        }
        let module = "package sigstore\nisCompliant = {\"results\": true}\n";
        assert_eq!(evaluate(module, &json!({})), Ok(FAILS));
    }

    #[test]
    fn a_built_in_that_fails_is_no_answer_and_turns_no_not_into_a_yes() {
        let module = "package sigstore\nisCompliant {\n  not to_number(input.a) > 5\n}\n";
        assert!(matches!(evaluate(module, &json!({"a": "x"})), Err(RegoError::Failed(_))));
        assert_eq!(evaluate(module, &json!({"a": "6"})), Ok(FAILS));
    }

    #[test]
    fn a_conflict_is_no_answer() {
        let module = "package sigstore\nisCompliant = true { input.a }\nisCompliant = false { input.a }\n";
        assert!(matches!(evaluate(module, &json!({"a": true})), Err(RegoError::Failed(_))));
    }

    #[test]
    fn the_time_is_the_one_that_is_asked_about() {
        let module = "package sigstore\nisCompliant {\n  time.now_ns() == 1700000000000000000\n}\n";
        assert_eq!(evaluate(module, &json!({})), Ok(PASSES));
        let module = "package sigstore\nisCompliant {\n  scanned := time.parse_rfc3339_ns(input.at)\n  \
            time.now_ns() - scanned < 86400000000000\n}\n";
        assert_eq!(evaluate(module, &json!({"at": "2023-11-14T00:00:00Z"})), Ok(PASSES));
        assert_eq!(evaluate(module, &json!({"at": "2023-11-12T00:00:00Z"})), Ok(FAILS));
    }

    #[test]
    fn a_module_that_does_not_end_is_no_answer() {
        let module = "package sigstore\nisCompliant {\n  n := numbers.range(1, 2000)\n  count([1 | n[_] < n[_]; n[_] > n[_]]) > 0\n}\n";
        assert_eq!(evaluate(module, &json!({})), Err(RegoError::Timeout));
    }

    #[test]
    fn input_and_module_are_bounded_on_both_sides() {
        let module = "package sigstore\nisCompliant {\n  input.a\n}\n";
        let input = |bytes: usize| json!({"a": "x".repeat(bytes - "{\"a\":\"\"}".len())});
        assert_eq!(evaluate(module, &input(REGO_INPUT_BYTES_MAX)), Ok(PASSES));
        let bytes = REGO_INPUT_BYTES_MAX + 1;
        assert_eq!(evaluate(module, &input(bytes)), Err(RegoError::Input { bytes }));
        let padded = |bytes: usize| {
            format!("{module}{}", format!("# {}\n", "x".repeat(100)).repeat(bytes / 100))
                .chars()
                .take(bytes)
                .collect::<String>()
        };
        assert!(load(&padded(REGO_MODULE_BYTES_MAX)).is_ok());
        assert!(load(&padded(REGO_MODULE_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn the_authorities_that_a_module_speaks_of_are_known() {
        let module = "package sigstore\n# not this-one\nisCompliant {\n  input.authorityMatches.release\n  \
            input.authorityMatches[\"sbom-ci\"] # nor other\n}\n";
        let rego = load(module).unwrap();
        assert!(rego.names("release") && rego.names("sbom-ci"));
        for other in ["this-one", "other", "releas", "elease", "sbom", "ci", "authority-0"] {
            assert!(!rego.names(other), "{other}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_found_when_it_is_loaded() {
        for (module, says) in [
            ("package sigstore\nisCompliant {\n  input.a ==\n}\n", "does not parse: line 2"),
            ("package other\nisCompliant = true\n", "package is other"),
            ("package sigstore\nallow = true\n", "no rule isCompliant"),
            ("package signature\nisCompliant = true\n", "no rule allow"),
            ("package sigstore\nisCompliant {\n  http.send({})\n}\n", "line 3 of the module calls http.send"),
            ("package sigstore\nisCompliant {\n  opa.runtime().env.A\n}\n", "opa.runtime"),
            ("", "does not parse"),
        ] {
            let error = load(module).unwrap_err();
            assert!(error.problem.contains(says), "{module:?}: {error}");
            assert!(error.to_string().starts_with("p.yaml:7: spec.policy: "), "{error}");
            assert!(!error.problem.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_engine_has_neither_network_nor_environment() {
        for call in ["http[\"send\"]({})", "opa[\"runtime\"]()", "rand[\"intn\"](\"a\", 2)", "uuid[\"rfc4122\"](\"a\")"]
        {
            let module = format!("package sigstore\nisCompliant {{\n  {call}\n}}\n");
            let answer = load(&module).map(|rego| rego.evaluate(&json!({}), Timestamp::from_unix_seconds(0)));
            assert!(!matches!(answer, Ok(Ok(_))), "{call}: {answer:?}");
        }
    }
}
