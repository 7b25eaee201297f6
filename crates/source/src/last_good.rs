//! The last good versions of policies, kept over restarts.
//!
//! A policy that is broken while the server is away would else be gone when it comes back, and the proxies would be told
//! to let in whom it kept out. One file of the state directory holds the text of each policy as it was last understood,
//! and the file where it stood: at start that is what [`Files`] remembers. Mode 0600, like all that decides who gets in.
//!
//! It is an addition only. When it cannot be read or written that is logged, and nothing else changes: what was never
//! understood has a stand-in, which lets nobody in.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use world::{Location, Object};

use crate::disk;
use crate::files::Files;
use crate::text::{self, Options};

const FILE: &str = "last-good.json";
/// The form of what is kept.
const FORMAT: u64 = 1;

/// Where last good versions are kept.
#[derive(Debug)]
pub struct LastGood {
    path: PathBuf,
}

/// Policies with their texts.
type Good = Vec<(Arc<Object>, Arc<str>)>;

impl LastGood {
    /// In this directory.
    pub fn at(directory: &Path) -> Self {
        Self { path: directory.join(FILE) }
    }

    /// What was kept, by the absolute path of the file where it stood. What is not understood any more is left out.
    pub(crate) fn read(&self, options: &Options) -> BTreeMap<PathBuf, Good> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
            Err(error) => return self.nothing(&error.to_string()),
        };
        match parse(&text, options) {
            Some(found) => found,
            None => self.nothing("it is damaged, or of another version"),
        }
    }

    fn nothing(&self, error: &str) -> BTreeMap<PathBuf, Good> {
        let path = self.path.display();
        tracing::warn!(%path, error, "the last good versions of policies cannot be read; broken ones let nobody in");
        BTreeMap::new()
    }

    /// Writes down what `files` has now. Blocks on the disk.
    pub(crate) fn keep(&mut self, files: &Files) {
        let entry = |(file, text): (&Arc<str>, &Arc<str>)| {
            let object: Value = serde_json::from_str(text).ok()?;
            let path = std::path::absolute(&**file).ok()?;
            Some(json!({"file": path.to_str()?, "object": object}))
        };
        let policies: Vec<Value> = files.guards().filter_map(entry).collect();
        let content = json!({"format": FORMAT, "policies": policies}).to_string();
        if let Err(error) = disk::replace(&self.path, content.as_bytes()) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the last good versions of policies cannot be kept for the next start");
        }
    }
}

fn parse(text: &str, options: &Options) -> Option<BTreeMap<PathBuf, Good>> {
    let value: Value = serde_json::from_str(text).ok()?;
    if value["format"].as_u64() != Some(FORMAT) {
        return None;
    }
    let mut found: BTreeMap<PathBuf, Good> = BTreeMap::new();
    for policy in value["policies"].as_array()? {
        let (path, object) = (policy["file"].as_str()?, policy["object"].to_string());
        let parsed = text::parse(path, object.as_bytes(), options);
        let [(_, text)] = &*parsed.guards else { continue };
        for mut object in parsed.objects {
            // The text is one line that nobody sees.
            Arc::make_mut(&mut object).meta.location = Some(Location { file: path.into(), line: 0, column: 0 });
            found.entry(path.into()).or_default().push((object, text.clone()));
        }
    }
    Some(found)
}
