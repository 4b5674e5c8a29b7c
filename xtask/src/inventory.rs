//! What the product is built from: NOTICE for people, a CycloneDX SBOM for machines.
//!
//! Both list what ends up in the binary: the Rust crates that `server` is linked with and the npm packages of
//! the web client's production tree. Tools for building and testing are not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::run::root;

/// The file for people, at the top of the checkout.
const NOTICE: &str = "NOTICE";

/// The file for machines; not committed, since it names exact versions of one build.
const SBOM: &str = "sbom/terrace.cdx.json";

/// The platform whose crates are listed. Others differ in a few operating-system crates.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Component {
    ecosystem: &'static str,
    name: String,
    version: String,
    licence: String,
}

impl Component {
    fn package_url(&self) -> String {
        format!(
            "pkg:{}/{}@{}",
            self.ecosystem,
            self.name.replace('@', "%40"),
            self.version
        )
    }
}

/// Writes NOTICE.
pub(crate) fn write_notice() -> Result<()> {
    std::fs::write(root().join(NOTICE), notice(&components()?))?;
    println!("wrote {NOTICE}");
    Ok(())
}

/// Fails when the committed NOTICE is not what `write_notice` would write.
pub(crate) fn check_notice() -> Result<()> {
    let committed = std::fs::read_to_string(root().join(NOTICE)).unwrap_or_default();
    if committed != notice(&components()?) {
        bail!("{NOTICE} is out of date: run `cargo xtask notice` and commit it");
    }
    Ok(())
}

/// Writes the SBOM.
pub(crate) fn write_sbom() -> Result<()> {
    let file = root().join(SBOM);
    std::fs::create_dir_all(file.parent().expect("the SBOM lies in a folder"))?;
    std::fs::write(
        &file,
        serde_json::to_string_pretty(&sbom(&components()?))? + "\n",
    )?;
    println!("wrote {SBOM}");
    Ok(())
}

fn components() -> Result<BTreeSet<Component>> {
    let output = Command::new("cargo")
        .args([
            "metadata",
            "--format-version",
            "1",
            "--filter-platform",
            PLATFORM,
        ])
        .current_dir(root())
        .output()
        .context("can't run cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let mut all = crates_of("server", &serde_json::from_slice(&output.stdout)?)?;
    let lock = std::fs::read_to_string(root().join("web-client/package-lock.json"))
        .context("can't read the web client's package-lock.json")?;
    all.extend(npm_packages(&serde_json::from_str(&lock)?));
    Ok(all)
}

/// The crates that the workspace's package `name` is linked with, by normal dependencies.
fn crates_of(name: &str, metadata: &Value) -> Result<BTreeSet<Component>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let start = packages
        .iter()
        .find(|(_, package)| package["name"] == name && package["source"].is_null())
        .with_context(|| format!("the workspace has no package {name}"))?
        .0;
    let mut seen = BTreeSet::new();
    let mut waiting = vec![start.clone()];
    while let Some(id) = waiting.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        for dependency in nodes
            .get(&id)
            .map_or_else(Vec::new, |node| list(&node["deps"]))
        {
            // The kind of a normal dependency is null; those of others are "dev" and "build".
            // What only a fuzz target is linked with is in no program that is given away.
            if list(&dependency["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"].is_null() && kind["target"] != "cfg(fuzzing)")
            {
                waiting.push(text(&dependency["pkg"]));
            }
        }
    }
    Ok(seen
        .iter()
        .filter_map(|id| packages.get(id))
        .filter(|package| !package["source"].is_null())
        .map(|package| Component {
            ecosystem: "cargo",
            name: text(&package["name"]),
            version: text(&package["version"]),
            licence: package["license"].as_str().map_or_else(
                || "see the crate".to_owned(),
                |said| said.replace('/', " OR "),
            ),
        })
        .collect())
}

/// The production packages of an npm lock file.
fn npm_packages(lock: &Value) -> BTreeSet<Component> {
    let empty = serde_json::Map::new();
    lock["packages"]
        .as_object()
        .unwrap_or(&empty)
        .iter()
        .filter(|(path, package)| {
            !path.is_empty() && package["dev"] != true && package["optional"] != true
        })
        .filter_map(|(path, package)| {
            Some(Component {
                ecosystem: "npm",
                name: path.rsplit_once("node_modules/")?.1.to_owned(),
                version: text(&package["version"]),
                licence: package["license"]
                    .as_str()
                    .unwrap_or("see the package")
                    .to_owned(),
            })
        })
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn notice(components: &BTreeSet<Component>) -> String {
    let mut by_licence: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for component in components {
        by_licence
            .entry((component.ecosystem, &component.licence))
            .or_default()
            .push(format!("{} {}", component.name, component.version));
    }
    let mut out = String::from(
        "Terrace (梯田视联)\n\n\
         Licensed under the Apache License, Version 2.0 (see LICENSE).\n\n\
         The program contains the following works of others under their own licences.\n\
         This list is made by `cargo xtask notice`.\n",
    );
    for ((ecosystem, licence), names) in by_licence {
        let kind = if ecosystem == "cargo" {
            "Rust crates"
        } else {
            "npm packages"
        };
        let _ = write!(out, "\n{kind}, {licence}:\n");
        for name in names {
            let _ = writeln!(out, "  {name}");
        }
    }
    out
}

fn sbom(components: &BTreeSet<Component>) -> Value {
    let listed: Vec<Value> = components
        .iter()
        .map(|component| {
            json!({
                "type": "library",
                "bom-ref": component.package_url(),
                "name": component.name,
                "version": component.version,
                "purl": component.package_url(),
                "licenses": [{ "expression": component.licence }],
            })
        })
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "bom-ref": "terrace", "name": "terrace", "version": env!("CARGO_PKG_VERSION"),
            "licenses": [{ "license": { "id": "Apache-2.0" } }],
        } },
        "components": listed,
        "dependencies": [{
            "ref": "terrace",
            "dependsOn": components.iter().map(Component::package_url).collect::<Vec<_>>(),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_in_is_listed() {
        let source = "registry";
        let metadata = json!({
            "packages": [
                { "id": "server", "name": "server", "version": "1.0.0", "source": null },
                { "id": "a", "name": "a", "version": "1.0.0", "source": source, "license": "MIT/Apache-2.0" },
                { "id": "b", "name": "b", "version": "2.0.0", "source": source, "license": "ISC" },
                { "id": "c", "name": "c", "version": "3.0.0", "source": source, "license": "GPL-3.0" },
            ],
            "resolve": { "nodes": [
                { "id": "server", "deps": [
                    { "pkg": "a", "dep_kinds": [{ "kind": null }] },
                    { "pkg": "c", "dep_kinds": [
                        { "kind": "dev" },
                        { "kind": null, "target": "cfg(fuzzing)" },
                    ] },
                ] },
                { "id": "a", "deps": [{ "pkg": "b", "dep_kinds": [{ "kind": null }] }] },
                { "id": "b", "deps": [{ "pkg": "c", "dep_kinds": [{ "kind": "build" }] }] },
            ] },
        });
        let listed = crates_of("server", &metadata).unwrap();
        let names: Vec<_> = listed.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(listed.first().unwrap().licence, "MIT OR Apache-2.0");
    }

    #[test]
    fn npm_packages_for_development_are_left_out() {
        let lock = json!({ "packages": {
            "": { "name": "client" },
            "node_modules/@scope/kept": { "version": "1.2.3", "license": "MIT" },
            "node_modules/tool": { "version": "1.0.0", "license": "MIT", "dev": true },
        } });
        let listed = npm_packages(&lock);
        assert_eq!(listed.len(), 1);
        assert_eq!(
            listed.first().unwrap().package_url(),
            "pkg:npm/%40scope/kept@1.2.3"
        );
    }
}
