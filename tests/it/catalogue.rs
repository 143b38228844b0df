//! The table of `docs/threat-model.md`: each case of the catalogue has a row, and each test that a row names exists.

use std::collections::BTreeMap;
use std::path::Path;

/// The cases that this release covers.
const CASES: &[(&str, &[u32])] = &[
    ("P", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24]),
    ("U", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27]),
    (
        "V",
        &[
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 27, 28, 29, 30,
            31, 32,
        ],
    ),
    ("S", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
    ("F", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    ("R", &[1, 2, 3, 4, 5, 6, 7, 8]),
];

#[test]
fn each_case_of_the_catalogue_has_tests_that_exist() {
    let page = threat_model();
    let tests = tests_by_name();
    let mut wrong = Vec::new();
    for case in
        CASES.iter().flat_map(|(group, numbers)| numbers.iter().map(move |number| format!("{group}-{number:02}")))
    {
        let Some(row) = page.lines().find(|line| line.starts_with(&format!("| {case} |"))) else {
            wrong.push(format!("{case} has no row"));
            continue;
        };
        let named: Vec<&str> = tests_in(row).collect();
        if named.is_empty() {
            wrong.push(format!("{case} names no test"));
        }
        wrong.extend(
            named.iter().filter(|name| !tests.contains_key(**name)).map(|name| format!("{case}: no test {name}")),
        );
    }
    assert!(wrong.is_empty(), "docs/threat-model.md:\n{}", wrong.join("\n"));
}

/// All tests, with the comments that stand before them.
pub(crate) fn tests_by_name() -> BTreeMap<String, String> {
    let mut tests = BTreeMap::new();
    let mut folders = vec![root().join("src"), root().join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                collect(&std::fs::read_to_string(path).unwrap(), &mut tests);
            }
        }
    }
    tests
}

fn collect(source: &str, tests: &mut BTreeMap<String, String>) {
    let (mut is_test, mut comment) = (false, String::new());
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            comment.push_str(text);
        } else if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| !line.starts_with("//")) {
            // A property's test attribute may stand inside `proptest!`, which is the same attribute.
            if is_test && let Some((name, _)) = rest.split_once('(') {
                tests.insert(name.to_owned(), comment.clone());
            }
            is_test = false;
            comment.clear();
        } else if line.is_empty() {
            comment.clear();
        }
    }
}

pub(crate) fn threat_model() -> String {
    std::fs::read_to_string(root().join("docs/threat-model.md")).unwrap()
}

/// The tests that a row of a table names.
pub(crate) fn tests_in(row: &str) -> impl Iterator<Item = &str> {
    row.split('`').skip(1).step_by(2).filter(|text| text.contains('_'))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
