//! What `when` conditions ask about.

/// A key of `when[]`, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConditionKey {
    /// `request.headers[<name>]`.
    RequestHeader(String),
    /// `source.ip`.
    SourceIp,
    /// `remote.ip`.
    RemoteIp,
    /// `source.namespace`.
    SourceNamespace,
    /// `source.principal`.
    SourcePrincipal,
    /// `source.serviceAccount`.
    SourceServiceAccount,
    /// `source.trustDomain`.
    SourceTrustDomain,
    /// `request.auth.principal`.
    RequestPrincipal,
    /// `request.auth.audiences`.
    RequestAudiences,
    /// `request.auth.presenter`.
    RequestPresenter,
    /// `request.auth.claims[<name>]…[<name>]`, from the outermost claim inwards.
    RequestClaims(Vec<String>),
    /// `destination.ip`.
    DestinationIp,
    /// `destination.port`.
    DestinationPort,
    /// `connection.sni`.
    ConnectionSni,
    /// `experimental.envoy.filters.<filter>[<key>]`.
    FilterMetadata {
        /// `envoy.filters.<filter>`.
        filter: String,
        /// The key.
        key: String,
    },
}

impl ConditionKey {
    /// Reads a key.
    ///
    /// # Errors
    /// Says why there is no such key.
    pub fn parse(key: &str) -> Result<Self, String> {
        match key {
            "source.ip" => return Ok(Self::SourceIp),
            "remote.ip" => return Ok(Self::RemoteIp),
            "source.namespace" => return Ok(Self::SourceNamespace),
            "source.principal" => return Ok(Self::SourcePrincipal),
            "source.serviceAccount" => return Ok(Self::SourceServiceAccount),
            "source.trustDomain" => return Ok(Self::SourceTrustDomain),
            "request.auth.principal" => return Ok(Self::RequestPrincipal),
            "request.auth.audiences" => return Ok(Self::RequestAudiences),
            "request.auth.presenter" => return Ok(Self::RequestPresenter),
            "destination.ip" => return Ok(Self::DestinationIp),
            "destination.port" => return Ok(Self::DestinationPort),
            "connection.sni" => return Ok(Self::ConnectionSni),
            _ => {}
        }
        let missing = |example: &str| format!("\"{key}\" names nothing in brackets; write {example}");
        if let Some(rest) = key.strip_prefix("request.headers") {
            let name = bracketed(rest).filter(|names| names.len() == 1).and_then(|mut names| names.pop());
            let name = name.ok_or_else(|| missing("request.headers[x-token]"))?;
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            let rest = name.strip_prefix(':').unwrap_or(&name);
            return match !rest.is_empty() && rest.bytes().all(token) {
                true => Ok(Self::RequestHeader(name.to_ascii_lowercase())),
                false => Err(format!("{name:?} is not a header name")),
            };
        }
        if let Some(rest) = key.strip_prefix("request.auth.claims") {
            return bracketed(rest).map(Self::RequestClaims).ok_or_else(|| missing("request.auth.claims[group]"));
        }
        if let Some(rest) = key.strip_prefix("experimental.envoy.filters.") {
            let example = "experimental.envoy.filters.network.mysql_proxy[db.table]";
            let key = rest.strip_suffix(']').and_then(|rest| rest.split_once('['));
            return match key.filter(|(filter, key)| !filter.is_empty() && !key.is_empty()) {
                Some((filter, key)) => {
                    Ok(Self::FilterMetadata { filter: format!("envoy.filters.{filter}"), key: key.to_owned() })
                }
                None => Err(missing(example)),
            };
        }
        Err(format!("there is no condition \"{key}\""))
    }

    /// Whether only HTTP requests have it.
    pub fn is_of_requests(&self) -> bool {
        match self {
            Self::RequestHeader(_)
            | Self::RequestPrincipal
            | Self::RequestAudiences
            | Self::RequestPresenter
            | Self::RequestClaims(_) => true,
            Self::SourceIp
            | Self::RemoteIp
            | Self::SourceNamespace
            | Self::SourcePrincipal
            | Self::SourceServiceAccount
            | Self::SourceTrustDomain
            | Self::DestinationIp
            | Self::DestinationPort
            | Self::ConnectionSni
            | Self::FilterMetadata { .. } => false,
        }
    }

    /// Whether it comes from the request's token.
    pub fn is_of_token(&self) -> bool {
        self.is_of_requests() && !matches!(self, Self::RequestHeader(_))
    }
}

/// `[a][b]` as `a`, `b`, of which none is empty.
fn bracketed(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<String> = inner.split("][").map(str::to_owned).collect();
    names.iter().all(|name| !name.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn keys_with_names_in_brackets_are_read() {
        assert_eq!(
            ConditionKey::parse("request.headers[X-Token]").unwrap(),
            ConditionKey::RequestHeader("x-token".to_owned())
        );
        let claims = ["realm".to_owned(), "https://example.com/roles".to_owned()].into();
        assert_eq!(
            ConditionKey::parse("request.auth.claims[realm][https://example.com/roles]").unwrap(),
            ConditionKey::RequestClaims(claims)
        );
        let filter = "envoy.filters.network.mysql_proxy".to_owned();
        assert_eq!(
            ConditionKey::parse("experimental.envoy.filters.network.mysql_proxy[db.table]").unwrap(),
            ConditionKey::FilterMetadata { filter, key: "db.table".to_owned() }
        );
    }

    #[test]
    fn what_is_no_key_is_told() {
        for key in [
            "",
            "source.user",
            "request.headers",
            "request.headers[]",
            "request.headers[a b]",
            "request.headers[a][b]",
            "request.auth.claims",
            "request.auth.claims[a][]",
            "request.auth.claimsx[a]",
            "experimental.envoy.filters.[a]",
            "experimental.envoy.filters.http.x",
            "destination.labels[version]",
        ] {
            assert!(ConditionKey::parse(key).is_err(), "{key}");
        }
    }
}
