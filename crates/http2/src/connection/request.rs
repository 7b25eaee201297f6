//! A request's head out of the fields of its block (RFC 9113, 8.2 and 8.3).

use http::{HeaderName, HeaderValue, Method, Request, Uri};

/// What a field counts beside its name and value (RFC 9113, 6.5.2).
const FIELD: usize = 32;

/// Collects the fields of one block.
#[derive(Debug, Default)]
pub(super) struct RequestHead {
    method: Option<Method>,
    path: Option<Uri>,
    has_scheme: bool,
    has_authority: bool,
    request: Request<()>,
    has_fields: bool,
    is_malformed: bool,
    size: usize,
}

impl RequestHead {
    /// Adds a field, unless all of them together are more than `most`.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8], most: usize) {
        self.size += name.len() + value.len() + FIELD;
        if self.size <= most && self.try_add(name, value).is_none() {
            self.is_malformed = true;
        }
    }

    /// Size of all fields.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The request; `None` when it is malformed.
    pub(super) fn finish(self) -> Option<Request<()>> {
        let mut request = self.request;
        *request.method_mut() = self.method?;
        *request.uri_mut() = self.path?;
        (self.has_scheme && !self.is_malformed).then_some(request)
    }

    fn try_add(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if let Some(pseudo) = name.strip_prefix(b":") {
            let is_new = match pseudo {
                b"method" => self.method.replace(Method::from_bytes(value).ok()?).is_none(),
                b"path" => {
                    let is_path = value.starts_with(b"/");
                    self.path.replace(is_path.then(|| Uri::try_from(value).ok()).flatten()?).is_none()
                }
                b"scheme" => !std::mem::replace(&mut self.has_scheme, true),
                b"authority" => !std::mem::replace(&mut self.has_authority, true),
                _ => false,
            };
            return (is_new && !self.has_fields).then_some(());
        }
        self.has_fields = true;
        if name.iter().any(u8::is_ascii_uppercase) || is_of_the_connection(name, value) {
            return None;
        }
        let (name, value) = (HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
        self.request.headers_mut().try_append(name, value).ok()?;
        Some(())
    }
}

/// Fields that HTTP/2 has no use for, and forbids (RFC 9113, 8.2.2).
fn is_of_the_connection(name: &[u8], value: &[u8]) -> bool {
    match name {
        b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => true,
        b"te" => value != b"trailers",
        _ => false,
    }
}
