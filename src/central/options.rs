//! Options that the leader of a database keeps in it.
//!
//! They are written in every mode and over TLS alike (upstream BUG: a bootstrap with SSL skipped
//! version_compatibility and the probe intervals).

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{
    config::{CentralConfig, Role},
    database::Central,
    rpc::{Rpc, RpcError},
    vswitch::parse_map,
};

const LIMIT: Duration = Duration::from_secs(10);

/// Writes what is missing into NB_Global; the row is made if northd has not made it yet.
/// SB_Global needs nothing: northd copies all NB options there.
pub async fn write(central: &Central, role: Role) -> Result<(), RpcError> {
    if role == Role::Southbound {
        return Ok(());
    }
    let mut rpc = Rpc::local(&central.paths.socket(role), LIMIT).await?;
    let select = json!({"op": "select", "table": "NB_Global", "columns": ["_uuid", "options"],
                        "where": []});
    let results = rpc.transact(role.database(), vec![select]).await?;
    let row = results.first().and_then(|r| r["rows"].as_array()?.first().cloned());
    let present = row.as_ref().map(|r| parse_map(&r["options"])).unwrap_or_default();
    let changes = plan(&central.config, &present);
    if changes.is_empty() {
        return Ok(());
    }
    let operation = match row {
        // The table holds one row at most: should northd be faster, this insert fails and the
        // next round finds its row.
        None => json!({"op": "insert", "table": "NB_Global", "row": {"options": map(&changes)}}),
        Some(row) => json!({"op": "mutate", "table": "NB_Global",
            "where": [["_uuid", "==", row["_uuid"]]],
            "mutations": [
                ["options", "delete", ["set", changes.keys().collect::<Vec<_>>()]],
                ["options", "insert", map(&changes)]]}),
    };
    rpc.transact(role.database(), vec![operation]).await?;
    tracing::info!(?changes, "NB_Global options written");
    Ok(())
}

/// Options that differ from what is wanted. What an administrator may have chosen is only set
/// when absent; what the environment names is enforced.
fn plan(config: &CentralConfig, present: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut wanted = BTreeMap::from([
        ("inactivity_probe", config.probe_interval.to_string()),
        ("northd_probe_interval", config.northd_probe_interval.to_string()),
    ]);
    if !present.contains_key("use_logical_dp_groups") {
        wanted.insert("use_logical_dp_groups", "true".to_owned());
    }
    if let Some(version) = &config.version_compatibility
        // `_X` means: the upgrade from X is finished.
        && present.get("version_compatibility") != Some(&format!("_{version}"))
    {
        wanted.insert("version_compatibility", version.clone());
    }
    let differs = |(key, value): &(&str, String)| present.get(*key) != Some(value);
    wanted.into_iter().filter(differs).map(|(k, v)| (k.to_owned(), v)).collect()
}

fn map(entries: &BTreeMap<String, String>) -> Value {
    json!(["map", entries.iter().collect::<Vec<_>>()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &[(&str, &str)]) -> CentralConfig {
        let mut all = vec![("POD_IP", "10.0.0.1")];
        all.extend(extra);
        CentralConfig::parse(&|name| {
            all.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
        .unwrap()
    }

    #[test]
    fn upstream_bug_ssl_bootstrap_writes_all_options_too() {
        let config = config(&[("ENABLE_SSL", "true"), ("OVN_VERSION_COMPATIBILITY", "24.03")]);
        let keys: Vec<String> = plan(&config, &BTreeMap::new()).into_keys().collect();
        assert_eq!(
            keys,
            [
                "inactivity_probe",
                "northd_probe_interval",
                "use_logical_dp_groups",
                "version_compatibility"
            ]
        );
    }

    #[test]
    fn version_compatibility_is_not_set_again_after_the_upgrade() {
        let config = config(&[("OVN_VERSION_COMPATIBILITY", "24.03")]);
        let with = |value: &str| {
            let present = BTreeMap::from([("version_compatibility".to_owned(), value.to_owned())]);
            plan(&config, &present).remove("version_compatibility")
        };
        assert_eq!(with("_24.03"), None);
        assert_eq!(with("24.03"), None);
        assert_eq!(with("22.12").as_deref(), Some("24.03"));
    }

    #[test]
    fn options_of_others_and_of_administrators_stay() {
        let present = parse_map(&json!([
            "map",
            [
                ["use_logical_dp_groups", "false"],
                ["inactivity_probe", "180000"],
                ["northd_probe_interval", "1"]
            ]
        ]));
        let changes = plan(&config(&[]), &present);
        assert_eq!(map(&changes), json!(["map", [["northd_probe_interval", "5000"]]]));
    }
}
