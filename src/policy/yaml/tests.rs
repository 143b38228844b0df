use super::*;

fn one(text: &str) -> Value {
    let mut documents = read(text.as_bytes()).unwrap();
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0).value
}

fn problem(text: &str) -> String {
    read(text.as_bytes()).unwrap_err().to_string()
}

/// The tree as JSON, for comparing.
fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(text) => text.parse::<f64>().map_or(text.as_str().into(), serde_json::Value::from),
        Value::String(text) => text.as_str().into(),
        Value::Sequence(elements) => elements.iter().map(json).collect(),
        Value::Mapping(members) => members.iter().map(|member| (member.key.clone(), json(&member.value))).collect(),
    }
}

#[test]
fn every_node_knows_its_line_and_a_file_may_hold_several_documents() {
    let text = "---\n# first\na: 1\nb:\n  - c\n  - |\n    two\n    lines\n---\n---\nd: e\n...\n";
    let documents = read(text.as_bytes()).unwrap();
    assert_eq!(documents.len(), 3);
    let members = documents[0].as_mapping().unwrap();
    assert_eq!((members[0].line, members[1].line), (3, 4));
    let elements = members[1].value.as_sequence().unwrap();
    assert_eq!((elements[0].line, elements[1].as_str()), (5, Ok("two\nlines\n")));
    assert_eq!(documents[1].value, Value::Null);
    assert_eq!(documents[2].as_mapping().unwrap()[0].line, 11);
    assert_eq!(read(b"").unwrap(), []);
    assert_eq!(read(b"# nothing\n").unwrap(), []);
}

#[test]
fn json_files_are_read_as_they_are() {
    let text = "{\n\t\"a\": [1, true, null, \"\\u00e9\\/\\n\"],\n\t\"b\": {}\n}\n";
    let expected: serde_json::Value = serde_json::from_str(&text.replace('1', "1.0")).unwrap();
    assert_eq!(json(&read(text.as_bytes()).unwrap()[0]), expected);
}

#[test]
fn scalars_mean_what_they_mean_to_kubernetes() {
    for text in ["true", "True", "yes", "Yes", "on", "y", "Y"] {
        assert_eq!(one(text), Value::Bool(true), "{text}");
    }
    for text in ["false", "no", "NO", "off", "n"] {
        assert_eq!(one(text), Value::Bool(false), "{text}");
    }
    for text in ["~", "null", "--- ", "a: "] {
        let value = one(text);
        let inner = if let Value::Mapping(members) = value { members[0].value.value.clone() } else { value };
        assert_eq!(inner, Value::Null, "{text}");
    }
    for text in
        ["0", "-1", "+1", "1_000", "0x1F", "0o17", "0b11", "017", "1.5", "1.", ".5", "1e3", "1.5E-3", ".inf", "-.Inf"]
    {
        assert_eq!(one(text), Value::Number(text.to_owned()), "{text}");
    }
    for text in ["'true'", "\"1\"", "!!str yes", "! 5"] {
        assert!(matches!(one(text), Value::String(_)), "{text}");
    }
    for text in ["1.2.3", "_1", "0xg", "1e", ".", "-", "tRue", "e5", "2022-03-09", "https://example.com", "1a"] {
        let expected = if text == "-" {
            Value::Sequence(vec![Node { line: 1, value: Value::Null }])
        } else {
            Value::String(text.to_owned())
        };
        assert_eq!(one(text), expected, "{text}");
    }
    assert_eq!(one("!!bool yes"), Value::Bool(true));
    assert_eq!(one("!!int 5"), Value::Number("5".to_owned()));
    assert!(problem("!!int yes").contains("no value of the tag"));
}

#[test]
fn a_text_is_never_made_out_of_something_else() {
    let node = |text: &str| read(text.as_bytes()).unwrap().remove(0);
    assert_eq!(node("yes").as_str(), Err("a string is expected, found a boolean; quote it".to_owned()));
    assert_eq!(node("12").as_str(), Err("a string is expected, found a number; quote it".to_owned()));
    assert_eq!(node("[]").as_str(), Err("a string is expected, found a list".to_owned()));
    assert_eq!(
        node("'true'").as_bool().unwrap_err(),
        "true or false is expected, found a string; write it without quotes"
    );
    assert_eq!(node("[]").as_mapping(), Err("an object is expected, found a list".to_owned()));
    assert_eq!(node("{}").as_sequence(), Err("a list is expected, found an object".to_owned()));
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    assert_eq!(problem("a: 1\nb: 2\na: 3\n"), "line 3: the key \"a\" comes twice in one object");
    assert_eq!(problem("a: 1\n'a': 3\n"), "line 2: the key \"a\" comes twice in one object");
    assert_eq!(problem("{\"a\": {\"b\": 1, \"b\": 2}}"), "line 1: the key \"b\" comes twice in one object");
    assert_eq!(
        problem("a: &x {b: 1}\nc:\n  <<: *x\n"),
        "line 3: merge keys (<<) are not supported; write the fields out"
    );
    for text in ["[a]: 1", "{a: 1}: 1", "? &x a\n: 1", "!!str a: 1", ": 1"] {
        assert!(problem(text).contains("key"), "{text}: {}", problem(text));
    }
    for text in ["!!binary aGk=", "!mine a", "!!set {a: }", "!!omap []", "!<tag:example.com,2000:x> a"] {
        assert!(problem(text).contains("the tag"), "{text}: {}", problem(text));
    }
    assert_eq!(read(b"a: b\nc: \xff\n").unwrap_err(), YamlError::new(2, "not UTF-8"));
    assert_eq!(read(b"\xff\xfea\0").unwrap_err(), YamlError::new(1, "not UTF-8"));
    for text in [
        "a: b\0c",
        "a: [",
        "a: {b",
        "a: 'b",
        "a:\n\tb: c",
        "a: b\n c: d",
        "- a\nb: c",
        "a: b: c",
        "{a: 1} x",
        "a: %x",
        "a: @x",
    ] {
        assert!(read(text.as_bytes()).is_err(), "{text:?}");
    }
}

#[test]
fn aliases_stand_for_what_they_name() {
    let documents = read(b"a: &x {b: [1, &y c]}\nd: *x\ne: *y\n").unwrap();
    assert_eq!(json(&documents[0]), serde_json::json!({"a": {"b": [1.0, "c"]}, "d": {"b": [1.0, "c"]}, "e": "c"}));
    assert_eq!(documents[0].as_mapping().unwrap()[1].value.line, 2);
    assert!(problem("a: &x [*x]").contains("within what it is an alias of"));
    assert!(problem("a: *x").contains("anchor"));
    assert!(read(b"a: &x 1\n---\nb: *x\n").is_err(), "anchors end with their document");
}

#[test]
fn bytes_levels_values_and_followed_aliases_are_bounded_on_both_sides() {
    let bytes_max = usize::try_from(CONFIG_FILE_BYTES_MAX).unwrap();
    assert!(read(format!("#{}", " ".repeat(bytes_max - 1)).as_bytes()).is_ok());
    assert!(problem(&format!("#{}", " ".repeat(bytes_max))).contains("bytes"));

    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(nested(YAML_DEPTH_MAX).as_bytes()).is_ok());
    assert!(problem(&nested(YAML_DEPTH_MAX + 1)).contains("levels"));
    assert!(read("[".repeat(100_000).as_bytes()).is_err());
    assert!(read("- ".repeat(100_000).as_bytes()).is_err());
    let half = YAML_DEPTH_MAX / 2;
    let deeper = |more: usize| format!("[&x {}, {}*x{}]", nested(half), "[".repeat(more), "]".repeat(more));
    assert!(read(deeper(YAML_DEPTH_MAX - half - 1).as_bytes()).is_ok());
    assert!(problem(&deeper(YAML_DEPTH_MAX - half)).contains("levels"));

    let list = |count: usize| format!("[{}]", vec!["0"; count].join(","));
    assert!(read(list(YAML_NODES_MAX - 1).as_bytes()).is_ok());
    assert!(problem(&list(YAML_NODES_MAX)).contains("values"));

    let text = "x".repeat(1000);
    let aliases = |count: usize| format!("[&x {text}{}]", ", *x".repeat(count));
    // The text itself and the copy that is kept for its aliases.
    let fits = YAML_EXPANDED_BYTES_MAX / 1000 - 2;
    assert!(read(aliases(fits).as_bytes()).is_ok());
    assert!(problem(&aliases(fits + 1)).contains("bytes"));
}

#[test]
fn c_01_a_tree_of_aliases_does_not_grow() {
    let level = |level: usize| {
        format!("a{level}: &a{level} [{}]\n", [format!("*a{}", level - 1).as_str()].repeat(10).join(", "))
    };
    let text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned() + &(1..12).map(level).collect::<Vec<_>>().concat();
    assert!(problem(&text).contains("values, aliases followed"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-c:\\-\\[\\]{}&*!|>'\"#%@,? \t\n\u{feff}\0~<0-9]{0,60}") {
        drop(read(text.as_bytes()));
    }

    #[test]
    fn what_json_says_yaml_reads(values in proptest::collection::vec(("[ -~]{0,20}", proptest::bool::ANY), 0..10)) {
        let value: serde_json::Value =
            values.iter().enumerate().map(|(index, (text, flag))| {
                (format!("{text}{index}"), serde_json::json!({"text": text, "flag": flag, "list": [text, flag]}))
            }).collect();
        for written in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            proptest::prop_assert_eq!(json(&read(written.as_bytes()).unwrap()[0]), value.clone());
        }
    }
}
