//! From the objects of Flagger and Argo Rollouts to deployment intents and analysis profiles.
//!
//! Pure, as reading is: text comes in, manifests and remarks come out. What a field became is decided field by field,
//! and a field that nobody asked for is remarked on by itself when its part of the object has been read (see
//! [`Section`]): so nothing is passed over in silence, whatever fields the next version of a foreign kind has.
//!
//! What is converted keeps what the object means for traffic. The workload (scaling, templates, affinity) is not
//! Pointsman's; routes, hosts and policies stay in the VirtualService and DestinationRule that Flagger generated and
//! Argo edited, and are decorated from there.

mod argo;
mod flagger;
mod manifest;
mod query;
mod remark;
mod section;

use crate::text::{self, Node, Value};
use argo::Templates;
use flagger::MetricTemplates;
pub use manifest::Manifest;
pub use remark::{Remark, Remarks, Weight};
use section::Section;

/// What came of some files.
#[derive(Debug, Default)]
pub struct Imported {
    /// Intents, each behind the profiles that it refers to, in the order of the files.
    pub manifests: Vec<Manifest>,
    /// What is lost, and what is said in another way, in the order of the text.
    pub remarks: Vec<Remark>,
}

/// One object of a file.
pub(crate) struct Source<'n> {
    file: &'n str,
    node: &'n Node,
    group: &'n str,
    kind: &'n str,
    namespace: &'n str,
    name: &'n str,
}

/// Converts what the files hold; the name of each stands in the remarks. Never fails: what cannot be read is remarked
/// on. Objects of other groups are passed over.
pub fn import(files: &[(String, Vec<u8>)]) -> Imported {
    let remarks = Remarks::default();
    let mut nodes = Vec::new();
    for (name, bytes) in files {
        let (read, broken) = text::trees(bytes);
        nodes.extend(read.into_iter().map(|node| (name.as_str(), node)));
        for (line, message) in broken {
            remarks.add(Weight::Lost, name, line, "", format!("the document cannot be read: {message}"));
        }
    }
    let mut sources = Vec::new();
    for (file, node) in &nodes {
        collect(file, node, &mut sources);
    }
    let metric_templates = MetricTemplates::new(&sources);
    let templates = Templates::new(&sources);
    let mut manifests = Vec::new();
    for source in &sources {
        match (source.group, source.kind) {
            ("flagger.app", "Canary") => {
                manifests.extend(checked(source, flagger::canary(source, &metric_templates, &remarks), &remarks));
            }
            ("flagger.app", "MetricTemplate") => {}
            ("flagger.app", "AlertProvider") => {
                let message = format!(
                    "AlertProvider {}/{} is not converted: Pointsman tells webhooks of its own form; name one under \
                     spec.notify of the intent",
                    source.namespace, source.name
                );
                remarks.add(Weight::Lost, source.file, source.node.line, "kind", message);
            }
            ("argoproj.io", "Rollout") => {
                manifests.extend(checked(source, argo::rollout(source, &templates, &remarks), &remarks));
            }
            ("argoproj.io", "AnalysisTemplate" | "ClusterAnalysisTemplate") => {}
            ("flagger.app" | "argoproj.io", kind) => {
                let message = format!("{kind} {}/{} is not converted", source.namespace, source.name);
                remarks.add(Weight::Lost, source.file, source.node.line, "kind", message);
            }
            _ => {}
        }
    }
    metric_templates.unused(&remarks);
    templates.unused(&remarks);
    Imported { manifests, remarks: remarks.sorted() }
}

/// Says why a manifest would be refused as it is: what the object says is then nothing that can be said here.
fn checked(source: &Source<'_>, manifests: Vec<Manifest>, remarks: &Remarks) -> Vec<Manifest> {
    for manifest in &manifests {
        for (field, message) in manifest.errors() {
            let kind = manifest.object["kind"].as_str().unwrap_or_default();
            let at = if field.is_empty() { String::new() } else { format!(" at {field}") };
            let message = format!("the {kind} that is printed is refused until it is mended{at}: {message}");
            remarks.add(Weight::Lost, source.file, source.node.line, "", message);
        }
    }
    manifests
}

/// The objects of a document, those of lists included.
fn collect<'n>(file: &'n str, node: &'n Node, found: &mut Vec<Source<'n>>) {
    let text = |node: &'n Node, key: &str| node.get(key).and_then(Node::as_str).unwrap_or_default();
    let items = match (&node.value, node.get("items").map(|items| &items.value)) {
        (Value::List(items), _) | (_, Some(Value::List(items))) => items,
        _ => {
            let metadata = |key: &str| node.get("metadata").map_or("", |metadata| text(metadata, key));
            found.push(Source {
                file,
                node,
                group: text(node, "apiVersion").split_once('/').map_or("", |(group, _)| group),
                kind: text(node, "kind"),
                namespace: Some(metadata("namespace")).filter(|n| !n.is_empty()).unwrap_or("default"),
                name: metadata("name"),
            });
            return;
        }
    };
    for item in items {
        collect(file, item, found);
    }
}

impl<'n> Source<'n> {
    /// `spec`, to be read field by field.
    fn spec<'r>(&self, remarks: &'r Remarks) -> Option<Section<'n, 'r>> {
        let spec = self.node.get("spec").filter(|spec| matches!(spec.value, Value::Map(_)));
        if spec.is_none() {
            let message = format!("{} {}/{} has no spec", self.kind, self.namespace, self.name);
            remarks.add(Weight::Lost, self.file, self.node.line, "spec", message);
        }
        spec.map(|spec| Section::new(self.file, spec, "spec", remarks))
    }
}
