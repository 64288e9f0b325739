//! Custom resources: `packaging/crds/*.yaml` come from `src/api/crd` and say the same.
//! After a change there: `BLESS=1 cargo test --test pure crds`.

mod definition;
mod wire;
mod yaml;

use std::{error::Error, fs, path::PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_ovn::api::crd::shape::Shape;
use serde_json::Value;

use self::definition::{Kind, kinds};

type Outcome = Result<(), Box<dyn Error>>;

fn path(kind: &Kind) -> PathBuf {
    let file = format!("packaging/crds/{}.yaml", kind.definition.spec.names.plural);
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)
}

#[test]
fn yaml_is_generated() -> Outcome {
    let mut files = Vec::new();
    for kind in kinds()? {
        let text = yaml::document(&serde_json::to_value(&kind.definition)?);
        if std::env::var_os("BLESS").is_some() {
            fs::write(path(&kind), &text)?;
        }
        let found = fs::read_to_string(path(&kind)).unwrap_or_default();
        assert!(
            found == text,
            "{}: run BLESS=1 cargo test --test pure crds",
            path(&kind).display()
        );
        files.push(path(&kind));
    }
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging/crds");
    for entry in fs::read_dir(dir)? {
        let found = entry?.path();
        assert!(files.contains(&found), "{}: of no kind", found.display());
    }
    assert_eq!(files.len(), 21);
    Ok(())
}

#[test]
fn yaml_is_read_back_as_a_definition() -> Outcome {
    for kind in kinds()? {
        let text = fs::read_to_string(path(&kind))?;
        let read: CustomResourceDefinition = serde_saphyr::from_str(&text)?;
        assert_eq!(read, kind.definition, "{}", path(&kind).display());
    }
    Ok(())
}

/// A CRD is refused when its schema is not structural: every node typed, and nothing but value
/// checks inside `anyOf`, `oneOf` and `not`.
#[test]
fn schemas_are_structural() -> Outcome {
    for kind in kinds()? {
        let crd = serde_json::to_value(&kind.definition)?;
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        structural(schema, &kind.definition.spec.names.kind);
    }
    Ok(())
}

fn structural(schema: &Value, at: &str) {
    assert!(schema["type"].is_string(), "{at} has no type");
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        structural(below, &format!("{at}.{name}"));
    }
    for word in ["items", "additionalProperties"] {
        if !schema[word].is_null() {
            structural(&schema[word], &format!("{at}.{word}"));
        }
    }
    let choices = ["anyOf", "oneOf"].iter().filter_map(|w| schema[*w].as_array()).flatten();
    for choice in choices.chain(std::iter::once(&schema["not"]).filter(|v| !v.is_null())) {
        for word in choice.as_object().into_iter().flat_map(|o| o.keys()) {
            assert!(["format", "pattern", "enum"].contains(&word.as_str()), "{at}: {word}");
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        assert!(schema["properties"][name].is_object(), "{at}: requires unknown {name}");
    }
}

#[test]
fn every_field_is_described() -> Outcome {
    for kind in kinds()? {
        let name = &kind.definition.spec.names.kind;
        described(&kind.spec, &format!("{name}.spec"));
        if let Some(status) = &kind.status {
            described(status, &format!("{name}.status"));
        }
    }
    Ok(())
}

fn described(shape: &Shape, at: &str) {
    match shape {
        Shape::Object(properties) => {
            for p in properties {
                assert!(p.doc.ends_with('.'), "{at}.{}: no sentence: {:?}", p.name, p.doc);
                described(&p.shape, &format!("{at}.{}", p.name));
            }
        }
        Shape::Array(item) => described(item, at),
        _ => {}
    }
}

#[test]
fn printer_columns_exist() -> Outcome {
    for kind in kinds()? {
        let version = &kind.definition.spec.versions[0];
        for column in version.additional_printer_columns.iter().flatten() {
            let mut parts = column.json_path.trim_start_matches('.').split('.');
            let root = match parts.next() {
                Some("spec") => &kind.spec,
                Some("status") => kind.status.as_ref().ok_or("no status")?,
                Some("metadata") => continue,
                _ => return Err(column.json_path.clone().into()),
            };
            parts.try_fold(root, below).ok_or_else(|| column.json_path.clone())?;
        }
    }
    Ok(())
}

fn below<'a>(shape: &'a Shape, name: &str) -> Option<&'a Shape> {
    match shape {
        Shape::Object(properties) => properties.iter().find(|p| p.name == name).map(|p| &p.shape),
        _ => None,
    }
}
