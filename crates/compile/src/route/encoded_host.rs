//! A virtual host as bytes.

use crate::flat;

/// A virtual host, encoded but for its name and domains, which are settled with the other hosts of its table.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedHost {
    /// Its name, unique in its table.
    pub name: String,
    /// The domains that it would like to have.
    pub domains: Vec<String>,
    /// Whether it has routes; without, every request is answered 404.
    pub has_routes: bool,
    /// The encoded `VirtualHost` without `name` and `domains`. Canonical: equal hosts have equal bytes, those that
    /// prost gives.
    pub rest: Vec<u8>,
}

impl EncodedHost {
    /// The whole `VirtualHost`.
    pub fn encode(&self) -> Vec<u8> {
        let names = self.domains.iter().map(|domain| domain.len() + 4).sum::<usize>();
        let mut out = Vec::with_capacity(self.name.len() + 4 + names + self.rest.len());
        write_names(&mut out, &self.name, self.domains.iter().map(String::as_str));
        out.extend_from_slice(&self.rest);
        out
    }
}

/// What comes before the rest: name 1, domains 2.
pub(crate) fn write_names<'a>(out: &mut Vec<u8>, name: &str, domains: impl IntoIterator<Item = &'a str>) {
    flat::text(out, 1, name);
    for domain in domains {
        flat::bytes(out, 2, domain.as_bytes());
    }
}
