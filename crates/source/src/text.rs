//! One file's bytes to objects and problems.
//!
//! Manifests of several documents in YAML or JSON, lists flattened, as `kubectl get -o yaml` prints them. A document
//! that cannot be read costs only itself; a value that does not fit costs only its object; a field that is not known
//! costs nothing but a report. Booleans, octal numbers and repeated keys are taken as Go's YAML reader under kubectl
//! takes them, so that a file means the same here and there.

mod decode;
mod fields;
mod kinds;
mod node;
mod object;
mod scalar;
mod secret;
mod split;
mod stand_in;
mod suggest;
mod tree;

use std::sync::Arc;

use identity::TlsSecret;
use world::{Location, Object, ObjectRef, Problem, Severity};

pub(crate) use node::{Node, Value};
pub(crate) use secret::{Flaw, PARTS, Parts, assemble};
use split::Document;

/// What is done when a document cannot be attributed to an object.
const SKIPPED: &str =
    "the document is skipped, and objects that the file defined before stay in force until all of it can be read";

/// A file with so many unreadable documents is not text of ours: the rest of it is not looked at. Fifty megabytes of
/// them would otherwise become gigabytes of problems.
const MAX_UNREADABLE_DOCUMENTS: usize = 100;

/// How text is read.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespace of objects that name none, `default`.
    pub default_namespace: Arc<str>,
    /// Files larger than this are refused whole. 64 MiB: above 10,000 services with their endpoints and routes, and
    /// small enough for the tree of one file (about ten times its text) to fit beside everything else.
    pub max_file_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { default_namespace: "default".into(), max_file_bytes: 64 << 20 }
    }
}

/// A `Secret` with certificates and keys, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretDefinition {
    /// The `Secret`.
    pub reference: ObjectRef,
    /// Where it begins.
    pub location: Location,
    /// What it holds.
    pub content: Arc<TlsSecret>,
}

/// What one file says.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The objects that are understood and valid, in the order of the text. One object may be in it twice: which of
    /// the two counts is decided where files are compared, see [`crate::Files`].
    pub objects: Vec<Arc<Object>>,
    /// Everything that is wrong, in the order of the text.
    pub problems: Vec<Problem>,
    /// Objects that are named but invalid, and so not among `objects`.
    pub refused: Vec<ObjectRef>,
    /// What is to be in force instead of some of those, when no good version is known: they may be meant to keep
    /// somebody out.
    pub stand_ins: Vec<Arc<Object>>,
    /// The texts, as JSON, of those among `objects` that keep somebody out.
    pub guards: Vec<(ObjectRef, Arc<str>)>,
    /// Certificates and keys of gateways, in the order of the text. They are no objects: nothing but their server may have
    /// them.
    pub secrets: Vec<SecretDefinition>,
    /// Kubernetes objects without a meaning for traffic (Deployments, ConfigMaps), in the order of the text.
    pub others: Vec<ObjectRef>,
    /// Whether some part of the text could not be attributed to an object: then an object that is missing here is not
    /// known to be gone.
    pub unreadable: bool,
}

/// Reads the text of the file called `file_name`. Never fails and never panics: what cannot be read is among the
/// problems.
pub fn parse(file_name: &str, bytes: &[u8], options: &Options) -> Parsed {
    let mut reader = Reader { file: file_name.into(), options, parsed: Parsed::default(), unreadable_documents: 0 };
    if bytes.len() > options.max_file_bytes {
        let limit = options.max_file_bytes;
        reader.unreadable(0, 0, format!("the file has {} bytes, more than the limit of {limit}", bytes.len()));
        return reader.parsed;
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    match str::from_utf8(bytes) {
        Ok(text) => reader.read(text),
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            let line = valid.iter().filter(|b| **b == b'\n').count() + 1;
            let column = valid.iter().rev().take_while(|b| **b != b'\n').count() + 1;
            let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            let byte = bytes[error.valid_up_to()];
            reader.unreadable(narrow(line), narrow(column), format!("the file is not UTF-8 text: byte 0x{byte:02x}"));
        }
    }
    reader.parsed
}

/// The documents of a file as trees, and line and reason of each that cannot be read.
pub(crate) fn trees(bytes: &[u8]) -> (Vec<Node>, Vec<(u32, String)>) {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let Ok(text) = str::from_utf8(bytes) else {
        return (Vec::new(), vec![(0, "the file is not UTF-8 text".to_owned())]);
    };
    let (mut trees, mut broken) = (Vec::new(), Vec::new());
    for document in split::yaml(text) {
        match tree::build(&document) {
            Ok(node) if node.value == Value::Null => {}
            Ok(node) => trees.push(node),
            Err(tree::Broken { line, message, .. }) => broken.push((line, message)),
        }
    }
    (trees, broken)
}

/// The reading of one file.
struct Reader<'o> {
    file: Arc<str>,
    options: &'o Options,
    parsed: Parsed,
    /// Documents, or items of lists, that could not be attributed to an object so far.
    unreadable_documents: usize,
}

impl Reader<'_> {
    fn read(&mut self, text: &str) {
        let mut documents = split::yaml(text);
        if text.trim_start().starts_with(['{', '[']) {
            let (json, error) = split::json(text);
            match error {
                None => documents = json,
                // Only JSON can have been meant.
                Some(error) if documents.len() <= 1 && (self.file.ends_with(".json") || !json.is_empty()) => {
                    self.documents(&json);
                    self.unreadable(error.line, error.column, format!("invalid JSON: {}", error.message));
                    return;
                }
                Some(_) => {}
            }
        }
        self.documents(&documents);
    }

    fn documents(&mut self, documents: &[Document<'_>]) {
        for document in documents {
            let line = match tree::build(document) {
                Ok(node) => {
                    let line = node.line;
                    self.document(node);
                    line
                }
                Err(tree::Broken { line, column, message }) => {
                    self.unreadable(line, column, format!("invalid YAML: {message}"));
                    line
                }
            };
            if self.has_given_up() {
                let count = MAX_UNREADABLE_DOCUMENTS;
                self.unreadable(line, 0, format!("{count} documents of this file cannot be read"));
                return;
            }
        }
    }

    /// Whether so much of the file is unreadable that the rest is not looked at.
    fn has_given_up(&self) -> bool {
        self.unreadable_documents >= MAX_UNREADABLE_DOCUMENTS
    }

    /// Notes text that belongs to no object.
    fn unreadable(&mut self, line: u32, column: u32, message: String) {
        self.parsed.unreadable = true;
        self.unreadable_documents += 1;
        self.parsed.problems.push(Problem {
            severity: Severity::Error,
            object: None,
            field: String::new(),
            message,
            consequence: SKIPPED.to_owned(),
            hint: String::new(),
            location: Some(Location { file: self.file.clone(), line, column }),
        });
    }
}
