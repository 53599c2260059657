//! The dashboard by itself: Grafana's types, and its queries.

use std::io::{Seek, Write};
use std::process::Command;

use requiem_tests::Failure;
use requiem_xtask::{paths, process, tools};
use serde_json::{Value, json};

/// Where the dashboard lies.
const DASHBOARD: &str = "charts/requiem/files/dashboard.json";

/// The dashboard.
pub(crate) fn read() -> Result<Value, Failure> {
    Ok(serde_json::from_str(&std::fs::read_to_string(paths::repository().join(DASHBOARD))?)?)
}

/// Every query with the title of its panel, as Grafana would send it: `interval` for its own variable, and once for each value of
/// those of the dashboard.
pub(crate) fn queries(dashboard: &Value, interval: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().unwrap_or_default().replace("$__rate_interval", interval);
            let title = panel["title"].as_str().unwrap_or_default();
            found.extend(expanded(dashboard, &expr).into_iter().map(|expr| (title.to_owned(), expr)));
        }
    }
    found
}

fn expanded(dashboard: &Value, expr: &str) -> Vec<String> {
    let variables = dashboard["templating"]["list"].as_array().into_iter().flatten();
    for variable in variables {
        let name = format!("${}", variable["name"].as_str().unwrap_or_default());
        if expr.contains(&name) {
            let options = variable["options"].as_array().into_iter().flatten();
            return options
                .filter_map(|option| Some(expr.replace(&name, option["value"].as_str()?)))
                .collect();
        }
    }
    vec![expr.to_owned()]
}

fn judge(dashboard: &Value) -> Result<String, Failure> {
    let mut file = tempfile::tempfile()?;
    file.write_all(dashboard.to_string().as_bytes())?;
    file.rewind()?;
    let mut command = Command::new(tools::ensure(&tools::DASHBOARD)?.join("dashboard"));
    Ok(process::output_with(&mut command, file)?)
}

#[test]
fn the_dashboard_fits_grafanas_types() -> Result<(), Failure> {
    let dashboard = read()?;
    assert_eq!(judge(&dashboard)?, "");
    let wrong = |pointer: &str, value: Value, why: &str| {
        let mut changed = dashboard.clone();
        *changed.pointer_mut(pointer).ok_or(format!("no {pointer}"))? = value;
        let said = judge(&changed).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(why), "{pointer}: {said:?}");
        Ok::<(), Failure>(())
    };
    wrong(
        "/panels/1/fieldConfig",
        json!({"defaults": {"units": "s"}, "overrides": []}),
        "unexpected field 'units'",
    )?;
    let target = json!({"refId": "A", "datasource": {"type": "prometheus", "uid": "${datasource}"}, "expression": "up"});
    wrong("/panels/1/targets/0", target, "unexpected field 'expression'")?;
    wrong("/templating/list/1/multi", json!("yes"), "cannot unmarshal string")?;
    wrong("/panels/1/gridPos", json!({"h": 8, "w": 8, "x": 0, "z": 1}), "unexpected field 'z'")
}

/// Whoever imports it chooses the source; panels do not lie upon each other and have names of their own.
#[test]
fn the_dashboard_names_no_source_and_shows_every_panel() -> Result<(), Failure> {
    let dashboard = read()?;
    let panels = dashboard["panels"].as_array().ok_or("no panels")?;
    let (mut ids, mut taken) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64()), "{panel}");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap_or_default();
        for (x, y) in (0..at("w")).flat_map(|x| (0..at("h")).map(move |y| (x, y))) {
            let cell = (at("x") + x, at("y") + y);
            assert!(cell.0 < 24 && taken.insert(cell), "{} lies upon another", panel["title"]);
        }
        let targets = panel["targets"].as_array().into_iter().flatten();
        for source in targets.map(|target| &target["datasource"]).chain(panel.get("datasource")) {
            assert_eq!(*source, json!({"type": "prometheus", "uid": "${datasource}"}), "{}", panel["title"]);
        }
    }
    let all = queries(&dashboard, "1m");
    assert!(all.len() > 40 && all.iter().all(|(_, query)| !query.contains('$')), "{all:?}");
    Ok(())
}
