//! The JSON Schema, and every configuration that is shipped or shown on a page.

use super::*;
use std::path::{Path, PathBuf};

const PATH: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/envoy/plugin-config.schema.json"
);

fn schema() -> serde_json::Value {
    schemars::schema_for!(RawConfig<'_>).to_value()
}

/// `make schema` writes the schema anew.
#[test]
fn the_schema_in_the_tree_is_that_of_the_types() {
    let text = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os("BURSAR_WRITE_SCHEMA").is_some() {
        std::fs::write(PATH, &text).unwrap();
    }
    let in_tree = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(
        in_tree == text,
        "envoy/plugin-config.schema.json is out of date: run `make schema`"
    );
}

#[test]
fn the_schema_takes_what_the_parser_takes_and_refuses_unknown_keys() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let good: serde_json::Value = serde_json::from_str(&with(|_| {})).unwrap();
    assert!(validator.is_valid(&good));
    let mut bad = good;
    bad["plans"]["gold"]["budgets"] = 1.into();
    assert!(!validator.is_valid(&bad));
}

/// Every plugin configuration in the YAML files that we ship.
fn shipped() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["envoy", "istio"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                for document in serde_yaml_ng::Deserializer::from_str(&text) {
                    let document = serde::Deserialize::deserialize(document).unwrap();
                    collect(&document, &path.display().to_string(), &mut found);
                }
            }
        }
    }
    found
}

fn collect(value: &serde_yaml_ng::Value, path: &str, found: &mut Vec<(String, String)>) {
    match value {
        serde_yaml_ng::Value::Mapping(map) => {
            let text = |key: &str| map.get(key).and_then(serde_yaml_ng::Value::as_str);
            if text("@type") == Some("type.googleapis.com/google.protobuf.StringValue") {
                found.push((path.to_owned(), text("value").unwrap().to_owned()));
            }
            map.values().for_each(|value| collect(value, path, found));
        }
        serde_yaml_ng::Value::Sequence(list) => {
            list.iter().for_each(|value| collect(value, path, found));
        }
        _ => {}
    }
}

/// README.md and the pages in docs/.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let is_page = |path: &PathBuf| path.extension().is_some_and(|end| end == "md");
    [root.join("README.md")]
        .into_iter()
        .chain(docs.filter(is_page))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.display().to_string(), text)
        })
        .collect()
}

/// A block that a reader pastes unchanged must be valid, without warnings, and serve at least one tenant.
#[test]
fn every_configuration_in_the_pages_is_complete() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let mut blocks = 0;
    for (page, text) in pages() {
        for block in text.split("```json\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let config = Config::parse(block.as_bytes())
                .unwrap_or_else(|error| panic!("{page}: {error} in {block}"));
            assert!(
                config.warnings().is_empty(),
                "{page}: {:?} of {block}",
                config.warnings()
            );
            let value = serde_json::from_str(block).unwrap();
            assert!(validator.is_valid(&value), "{page}: {block}");
            blocks += 1;
        }
    }
    assert!(blocks >= 10, "{blocks}");
}

#[test]
fn every_shipped_configuration_is_taken_by_parser_and_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let shipped = shipped();
    assert!(shipped.len() >= 2, "envoy/ and istio/ have one each");
    for (path, text) in shipped {
        Config::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{path}: {error}"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(validator.is_valid(&value), "{path}");
    }
}
