//! One resource, ready to be sent.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use proto::ResourceType;

use crate::Version;
use crate::ttl::Ttl;

/// The name of a resource.
pub type Name = Arc<str>;

/// An object that a resource came from, in the form that it had then. It is no part of the content: versions do not
/// depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The object as `kind/namespace/name`.
    pub object: Arc<str>,
    /// The object's generation when the resource was built.
    pub generation: i64,
}

/// One field of a resource that is made of many equal fields, such as a virtual host of a route configuration:
/// already encoded with its tag and length.
#[derive(Clone, Debug)]
pub struct Part {
    bytes: Bytes,
    version: Version,
    references: Arc<[(ResourceType, Name)]>,
    origins: Arc<[Origin]>,
}

impl Part {
    /// A part from its encoded field.
    pub fn new(bytes: Bytes) -> Self {
        let version = Version::of(&bytes);
        Self { bytes, version, references: Arc::default(), origins: Arc::default() }
    }

    /// Adds the resources that this part names.
    #[must_use]
    pub fn referring_to(mut self, references: impl IntoIterator<Item = (ResourceType, Name)>) -> Self {
        self.references = references.into_iter().collect();
        self
    }

    /// Adds the objects that this part came from.
    #[must_use]
    pub fn from_objects(mut self, origins: impl IntoIterator<Item = Origin>) -> Self {
        self.origins = origins.into_iter().collect();
        self
    }

    /// The encoded field.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The version of its content.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Resources that this part refers to by name.
    pub fn references(&self) -> &[(ResourceType, Name)] {
        &self.references
    }

    /// Objects that this part came from.
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }
}

/// Two parts are equal when their content is.
impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
    }
}

/// The parts of a resource by name, in order, with the sum of their versions: exchanging one costs the logarithm of
/// their number.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    parts: OrdMap<Name, Part>,
    version: Version,
}

impl Parts {
    /// Puts a part under `name`, in place of the one that was there.
    pub fn set(&mut self, name: Name, part: Part) {
        self.remove(&name);
        self.version = self.version.plus(Version::member(&name, part.version));
        self.parts.insert(name, part);
    }

    /// Takes the part under `name` away, if there is one.
    pub fn remove(&mut self, name: &str) {
        if let Some(old) = self.parts.remove(name) {
            self.version = self.version.minus(Version::member(name, old.version));
        }
    }

    /// The part of this name.
    pub fn get(&self, name: &str) -> Option<&Part> {
        self.parts.get(name)
    }

    /// Names of parts that are new or of another version than in `old`, in order. Costs what differs where one was
    /// made from the other.
    pub fn changed_since(&self, old: &Parts) -> Vec<Name> {
        let names = old.parts.diff(&self.parts).filter_map(|item| match item {
            DiffItem::Add(name, _) => Some(name.clone()),
            DiffItem::Update { old: (_, old), new: (name, new) } => (old.version != new.version).then(|| name.clone()),
            DiffItem::Remove(_, _) => None,
        });
        names.collect()
    }

    /// Parts in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Part)> {
        self.parts.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

/// One encoded resource of one version, with the names that it refers to and the objects that it came from.
#[derive(Debug)]
pub struct Cell {
    resource_type: ResourceType,
    name: Name,
    version: Version,
    content: Content,
    entry: OnceLock<Entry>,
    references: Box<[(ResourceType, Name)]>,
    origins: Box<[Origin]>,
    ttl: Option<Box<Ttl>>,
    aliases: Box<[Name]>,
    identities: Option<Box<[Name]>>,
}

/// Two cells are equal when they are the same version of the same resource, kept for the same time.
impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        self.resource_type == other.resource_type && self.name == other.name && self.says_the_same(other)
    }
}

impl Eq for Cell {}

#[derive(Debug)]
enum Content {
    /// The entry was made at once.
    Whole,
    /// The message is `head` and then every part; it is put together when first sent.
    Composite { head: Bytes, parts: Parts },
}

/// `DeltaDiscoveryResponse.resources` entry: tag 2, length, `Resource { name = 3, version = 1, resource = 2 }` with
/// `resource` last. Its tail, from the tag of `resource` on, is at the same time the `DiscoveryResponse.resources`
/// entry, because both fields have number 2 and hold the same `Any`.
struct Entry {
    delta: Bytes,
    sotw_at: usize,
    value_at: usize,
}

/// Shows no content: it may be secret.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("bytes", &self.delta.len()).finish_non_exhaustive()
    }
}

impl Cell {
    /// A resource from its encoded message, which must be canonical (equal messages, equal bytes).
    pub fn new(resource_type: ResourceType, name: Name, value: &[u8]) -> Self {
        Self::of_version(resource_type, name, value, Version::of(value))
    }

    /// A resource that holds a secret. Its version is that of `public`, which must differ whenever the secret does:
    /// versions are shown, and a hash of the secret would tell of it.
    pub fn confidential(resource_type: ResourceType, name: Name, value: &[u8], public: &[u8]) -> Self {
        Self::of_version(resource_type, name, value, Version::of(public))
    }

    fn of_version(resource_type: ResourceType, name: Name, value: &[u8], version: Version) -> Self {
        let cell = Self {
            resource_type,
            name,
            version,
            content: Content::Whole,
            entry: OnceLock::new(),
            references: Box::default(),
            origins: Box::default(),
            ttl: None,
            aliases: Box::default(),
            identities: None,
        };
        let entry = Entry::new(&cell, value.len(), |buffer| buffer.put_slice(value));
        cell.entry.get_or_init(|| entry);
        cell
    }

    /// A resource whose message is `head` followed by all `parts`; encoded when it is first sent.
    pub fn composite(resource_type: ResourceType, name: Name, head: Bytes, parts: Parts) -> Self {
        let version = Version::of(&head).then(parts.version);
        Self {
            resource_type,
            name,
            version,
            content: Content::Composite { head, parts },
            entry: OnceLock::new(),
            references: Box::default(),
            origins: Box::default(),
            ttl: None,
            aliases: Box::default(),
            identities: None,
        }
    }

    /// Adds the resources that this one names.
    #[must_use]
    pub fn referring_to(mut self, references: impl IntoIterator<Item = (ResourceType, Name)>) -> Self {
        self.references = references.into_iter().collect();
        self
    }

    /// Adds the objects that this one came from.
    #[must_use]
    pub fn from_objects(mut self, origins: impl IntoIterator<Item = Origin>) -> Self {
        self.origins = origins.into_iter().collect();
        self
    }

    /// Makes clients forget the resource unless they hear of it again within this time. Not part of its version: a
    /// change of it alone leaves the content as it is (rule P-64).
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(Box::new(Ttl::new(ttl)));
        self
    }

    /// Adds the names under which the resource may be asked for in place of what follows the last slash of its own; they
    /// follow from the message, and may be patterns.
    #[must_use]
    pub fn also_known_as(mut self, aliases: impl IntoIterator<Item = Name>) -> Self {
        self.aliases = aliases.into_iter().collect();
        self
    }

    /// Adds whom a client meets by it: for a cluster whom it admits as peers, for an assignment who its endpoints are; in
    /// whatever words, as long as both use the same. A cluster without admits everybody. No part of the content.
    #[must_use]
    pub fn meeting(mut self, identities: impl IntoIterator<Item = Name>) -> Self {
        let mut identities: Vec<Name> = identities.into_iter().collect();
        identities.sort();
        identities.dedup();
        self.identities = Some(identities.into());
        self
    }

    /// Whether a client with this cluster can use all endpoints of this assignment, as far as identities tell.
    pub fn admits(&self, assignment: &Cell) -> bool {
        match (&self.identities, &assignment.identities) {
            (Some(admitted), Some(met)) => met.iter().all(|identity| admitted.binary_search(identity).is_ok()),
            (None, _) | (_, None) => true,
        }
    }

    /// Whether this cluster admits everybody whom `cluster` admits.
    pub fn admits_all_of(&self, cluster: &Cell) -> bool {
        self.identities.is_none() || cluster.identities.is_some() && self.admits(cluster)
    }

    /// What kind of resource it is.
    pub fn resource_type(&self) -> ResourceType {
        self.resource_type
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The version of its content.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How long a client keeps it without hearing of it; `None` is for ever.
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl.as_ref().map(|ttl| ttl.duration)
    }

    /// Whether a client that holds `other` has nothing to be told: the same content for the same time.
    pub fn says_the_same(&self, other: &Cell) -> bool {
        self.version == other.version && self.ttl() == other.ttl()
    }

    /// What it counts for in the version of a set.
    pub fn member(&self) -> Version {
        let version = match self.ttl() {
            None => self.version,
            Some(ttl) => self.version.then(Version::of(&ttl.as_nanos().to_le_bytes())),
        };
        Version::member(&self.name, version)
    }

    /// Resources that this one names, those of its parts included; a name may come more than once.
    pub fn references(&self) -> impl Iterator<Item = &(ResourceType, Name)> {
        let parts = self.parts().into_iter().flat_map(Parts::iter);
        self.references.iter().chain(parts.flat_map(|(_, part)| part.references.iter()))
    }

    /// Objects that this one came from as a whole, without those of its parts.
    pub fn own_origins(&self) -> &[Origin] {
        &self.origins
    }

    /// Objects that this one came from, those of its parts included; one may come more than once.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        let parts = self.parts().into_iter().flat_map(Parts::iter);
        self.origins.iter().chain(parts.flat_map(|(_, part)| part.origins.iter()))
    }

    /// Names under which it may be asked for in place of what follows the last slash of its own; may be patterns.
    pub fn aliases(&self) -> &[Name] {
        &self.aliases
    }

    /// Whether `other` is the same version, with the same references, origins and identities. Never said of composites, where it
    /// would cost more to find out than it saves.
    pub(crate) fn is_same_as(&self, other: &Cell) -> bool {
        matches!((&self.content, &other.content), (Content::Whole, Content::Whole))
            && self == other
            && self.references == other.references
            && self.origins == other.origins
            && self.identities == other.identities
    }

    /// The parts, when it has any.
    pub fn parts(&self) -> Option<&Parts> {
        match &self.content {
            Content::Whole => None,
            Content::Composite { parts, .. } => Some(parts),
        }
    }

    /// The same resource made of other parts; `None` for one that has no parts.
    pub fn with_parts(&self, parts: Parts) -> Option<Cell> {
        let Content::Composite { head, .. } = &self.content else { return None };
        let cell = Cell::composite(self.resource_type, self.name.clone(), head.clone(), parts);
        let ttl = self.ttl().map(|ttl| Box::new(Ttl::new(ttl)));
        let (references, origins, aliases) = (self.references.clone(), self.origins.clone(), self.aliases.clone());
        Some(Cell { references, origins, aliases, ttl, identities: self.identities.clone(), ..cell })
    }

    /// The encoded message.
    pub fn value(&self) -> Bytes {
        let entry = self.entry();
        entry.delta.slice(entry.value_at..)
    }

    /// The `resources` entry of a delta response, tag and length included.
    pub fn delta_entry(&self) -> &Bytes {
        &self.entry().delta
    }

    /// The `resources` entry of a state-of-the-world response, tag and length included.
    pub fn sotw_entry(&self) -> Bytes {
        let entry = self.entry();
        entry.delta.slice(entry.sotw_at..)
    }

    /// [`Cell::delta_entry`] for a client that knows of TTLs (rule P-63).
    pub fn delta_entry_with_ttl(&self) -> Bytes {
        self.ttl.as_ref().map_or_else(|| self.delta_entry().clone(), |ttl| ttl.delta_entry(self))
    }

    /// [`Cell::sotw_entry`] for a client that knows of TTLs and of the wrapper that says them (rule P-63).
    pub fn sotw_entry_with_ttl(&self) -> Bytes {
        self.ttl.as_ref().map_or_else(|| self.sotw_entry(), |ttl| ttl.sotw_entry(self))
    }

    /// The `resources` entry of a delta response that only says that the resource is still there; `None` for one that
    /// stays anyway.
    pub fn heartbeat_entry(&self) -> Option<Bytes> {
        self.ttl.as_ref().map(|ttl| ttl.heartbeat_entry(self))
    }

    fn entry(&self) -> &Entry {
        self.entry.get_or_init(|| match &self.content {
            Content::Composite { head, parts } => {
                let len = head.len() + parts.iter().map(|(_, part)| part.bytes.len()).sum::<usize>();
                Entry::new(self, len, |buffer| {
                    buffer.put_slice(head);
                    parts.iter().for_each(|(_, part)| buffer.put_slice(&part.bytes));
                })
            }
            Content::Whole => unreachable!("a whole cell is made with its entry"),
        })
    }
}

impl Entry {
    fn new(cell: &Cell, value_len: usize, put_value: impl FnOnce(&mut BytesMut)) -> Self {
        let url = cell.resource_type.type_url();
        let version = cell.version.to_string();
        let any_len = field_len(url.len()) + field_len(value_len);
        let resource_len = field_len(cell.name.len()) + field_len(version.len()) + field_len(any_len);
        let mut buffer = BytesMut::with_capacity(field_len(resource_len));
        put_field_head(&mut buffer, 2, resource_len);
        put_field_head(&mut buffer, 3, cell.name.len());
        buffer.put_slice(cell.name.as_bytes());
        put_field_head(&mut buffer, 1, version.len());
        buffer.put_slice(version.as_bytes());
        let sotw_at = buffer.len();
        put_field_head(&mut buffer, 2, any_len);
        put_field_head(&mut buffer, 1, url.len());
        buffer.put_slice(url.as_bytes());
        put_field_head(&mut buffer, 2, value_len);
        let value_at = buffer.len();
        put_value(&mut buffer);
        Self { delta: buffer.freeze(), sotw_at, value_at }
    }
}

/// Length of a length-delimited field with a one-byte tag.
fn field_len(len: usize) -> usize {
    1 + varint_len(len) + len
}

fn varint_len(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

pub(crate) fn put_field_head(buffer: &mut BytesMut, number: u8, len: usize) {
    buffer.put_u8(number << 3 | 2);
    let mut rest = len;
    while rest >= 0x80 {
        buffer.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    buffer.put_u8(rest as u8);
}
