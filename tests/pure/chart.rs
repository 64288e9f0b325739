//! The chart is install.sh's manifests: its templates are made from packaging/manifests and
//! packaging/crds, so that the two cannot drift. `BLESS=1 cargo test --test pure chart` writes them.

use std::{collections::BTreeSet, fs, path::PathBuf};

fn packaging() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

fn read(path: &str) -> String {
    fs::read_to_string(packaging().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Names of the YAML files of a folder, sorted.
fn yaml_files(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(packaging().join(folder)).unwrap();
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|n| n.ends_with(".yaml")).collect();
    names.sort();
    names
}

/// `${NAME}` -> an include of `kube-ovn.NAME`.
fn template(manifest: &str) -> String {
    assert!(!manifest.contains("{{"), "a manifest holds Helm's braces");
    let mut text = String::new();
    let mut rest = manifest;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').unwrap();
        text.push_str(before);
        text.push_str(&format!("{{{{ include \"kube-ovn.{name}\" . }}}}"));
        rest = after;
    }
    text.push_str(rest);
    let (label, include) =
        ("kube-ovn/role: master", "{{ include \"kube-ovn.MASTER_SELECTOR\" . }}");
    text.replace(label, include)
}

/// Custom resources outlive the release, as they do with cleanup by hand.
fn crd(text: &str) -> String {
    assert!(!text.contains("{{"));
    let keep = "metadata:\n  annotations: {helm.sh/resource-policy: keep}\n  name:";
    text.replacen("metadata:\n  name:", keep, 1)
}

/// Path below packaging/chart/templates and content of every generated template.
fn wanted() -> Vec<(String, String)> {
    let note = |source: &str| format!("{{{{- /* Made from packaging/{source}. */ -}}}}\n");
    let mut all = Vec::new();
    for name in yaml_files("manifests") {
        let source = format!("manifests/{name}");
        all.push((name, format!("{}{}", note(&source), template(&read(&source)))));
    }
    let webhook = template(&read("webhook.yaml"));
    let webhook = format!(
        "{}{{{{- if eq (toString .Values.func.ENABLE_WEBHOOK) \"true\" }}}}\n{webhook}{{{{- end }}}}\n",
        note("webhook.yaml")
    );
    all.push(("80-webhook.yaml".to_owned(), webhook));
    for name in yaml_files("crds") {
        let source = format!("crds/{name}");
        all.push((format!("crd-{name}"), format!("{}{}", note(&source), crd(&read(&source)))));
    }
    all.sort();
    all
}

#[test]
fn the_templates_are_the_manifests() {
    let folder = packaging().join("chart/templates");
    let bless = std::env::var_os("BLESS").is_some();
    for (name, text) in wanted() {
        if bless {
            fs::write(folder.join(&name), &text).unwrap();
        }
        let found = fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(
            found == text,
            "chart/templates/{name} is stale; BLESS=1 cargo test --test pure chart"
        );
    }
    let names: Vec<String> = wanted().into_iter().map(|(name, _)| name).collect();
    let stray: Vec<String> =
        yaml_files("chart/templates").into_iter().filter(|n| !names.contains(n)).collect();
    assert!(stray.is_empty(), "templates without a source: {stray:?}");
}

#[test]
fn every_setting_of_the_manifests_has_a_value() {
    let settings = read("chart/templates/_settings.tpl");
    let defined: BTreeSet<&str> = settings
        .split("define \"kube-ovn.")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    let mut used = BTreeSet::new();
    for (_, text) in wanted() {
        for rest in text.split("include \"kube-ovn.").skip(1) {
            used.insert(rest.split('"').next().unwrap().to_owned());
        }
    }
    let missing: Vec<&String> = used.iter().filter(|n| !defined.contains(n.as_str())).collect();
    assert!(missing.is_empty(), "no template for {missing:?}");
    let internal = ["stack", "masters"];
    let unused: Vec<&&str> =
        defined.iter().filter(|n| !used.contains(**n) && !internal.contains(*n)).collect();
    assert!(unused.is_empty(), "unused: {unused:?}");
}

/// Every `.Values` path of the templates stands in values.yaml.
#[test]
fn every_value_has_a_default() {
    let values: serde_json::Value = serde_saphyr::from_str(&read("chart/values.yaml")).unwrap();
    let mut texts = vec![read("chart/templates/_settings.tpl")];
    texts.extend(wanted().into_iter().map(|(_, text)| text));
    for text in texts {
        for rest in text.split(".Values.").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.');
            let path = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
            let found = path.split('.').try_fold(&values, |value, key| value.get(key));
            assert!(found.is_some(), ".Values.{path} has no default");
        }
    }
}

#[test]
fn versions_agree() {
    let chart: serde_json::Value = serde_saphyr::from_str(&read("chart/Chart.yaml")).unwrap();
    let version = read("VERSION");
    assert_eq!(chart["appVersion"], version.trim());
    assert_eq!(chart["version"], version.trim());
}
