//! What is said about a conversion.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;

/// How much a remark matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Something that the object said is not said by the intent.
    Lost,
    /// It is said in another way, or need not be said.
    Note,
}

/// One remark: about which field of which file, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// How much it matters.
    pub weight: Weight,
    /// The file's name as it was given.
    pub file: String,
    /// The line of the field, counted from 1; 0 when the whole file is meant.
    pub line: u32,
    /// `spec.analysis.threshold`; empty for a whole document.
    pub field: String,
    /// What is lost or different, and what to do about it.
    pub message: String,
}

/// `canary.yaml:12 spec.analysis.threshold: …`, with `note:` before what is not lost.
impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { weight, file, line, field, message } = self;
        let joint = if field.is_empty() { "" } else { " " };
        let lead = match weight {
            Weight::Lost => "",
            Weight::Note => "note: ",
        };
        write!(f, "{lead}{file}:{line}{joint}{field}: {message}")
    }
}

/// The remarks so far. Sections of an object are read side by side, so that they share it.
#[derive(Debug, Default)]
pub struct Remarks(RefCell<Vec<Remark>>);

impl Remarks {
    pub(super) fn add(&self, weight: Weight, file: &str, line: u32, field: &str, message: impl Into<String>) {
        let remark = Remark { weight, file: file.to_owned(), line, field: field.to_owned(), message: message.into() };
        let mut remarks = self.0.borrow_mut();
        // A template that several objects use is read for each of them.
        if !remarks.contains(&remark) {
            remarks.push(remark);
        }
    }

    /// In the order of the text, file by file as they were met.
    pub(super) fn sorted(self) -> Vec<Remark> {
        let mut remarks = self.0.into_inner();
        let mut files: Vec<String> = Vec::new();
        for remark in &remarks {
            if !files.contains(&remark.file) {
                files.push(remark.file.clone());
            }
        }
        remarks.sort_by_key(|remark| (files.iter().position(|file| *file == remark.file), remark.line));
        remarks
    }
}
