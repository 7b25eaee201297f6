//! Where the fields of an object stand in its file.

use std::collections::BTreeMap;

/// Lines and columns, from 1, by path of field (`spec.attach.routes[1]`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<Box<str>, (u32, u32)>);

impl Places {
    /// The place of the field, or of the nearest field around it that was written.
    pub fn find(&self, field: &str) -> Option<(u32, u32)> {
        let mut path = field;
        while !path.is_empty() {
            if let Some(place) = self.0.get(path) {
                return Some(*place);
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
        None
    }
}

impl FromIterator<(String, (u32, u32))> for Places {
    fn from_iter<T: IntoIterator<Item = (String, (u32, u32))>>(places: T) -> Self {
        Self(places.into_iter().map(|(path, place)| (path.into(), place)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_was_not_written_stands_where_the_one_around_it_does() {
        let places: Places = [("spec", (2, 1)), ("spec.ports", (3, 3)), ("spec.ports[1]", (3, 20))]
            .map(|(path, place)| (path.to_owned(), place))
            .into_iter()
            .collect();
        for (field, place) in [
            ("spec.ports[1].number", Some((3, 20))),
            ("spec.ports[7]", Some((3, 3))),
            ("spec.portsmouth", Some((2, 1))),
            ("metadata.name", None),
            ("", None),
        ] {
            assert_eq!(places.find(field), place, "{field}");
        }
    }
}
