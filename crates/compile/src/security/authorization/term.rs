//! What permissions and principals of RBAC have in common: they are put together alike.

use proto::pb::envoy::config::rbac::v3::{Permission, Principal, permission, principal};

use super::grpc;

/// Something that a request fulfils or not.
pub(super) trait Term: Sized {
    /// Everything does.
    fn any() -> Self;
    /// It fulfils all of several.
    fn and(terms: Vec<Self>) -> Self;
    /// It fulfils one of several.
    fn or(terms: Vec<Self>) -> Self;
    /// It does not fulfil it.
    fn negated(self) -> Self;
    /// What it asks about that a gRPC server without a proxy does not know, or refuses to be asked (rule G-11); `None`
    /// when it knows all of it.
    fn unknown_to_grpc(&self) -> Option<&'static str>;

    /// All of these; everything when there are none.
    fn all(mut terms: Vec<Self>) -> Self {
        match (terms.len(), terms.pop()) {
            (1, Some(only)) => only,
            (_, Some(last)) => {
                terms.push(last);
                Self::and(terms)
            }
            (_, None) => Self::any(),
        }
    }

    /// One of these; nothing when there are none.
    fn one_of(mut terms: Vec<Self>) -> Self {
        match (terms.len(), terms.pop()) {
            (1, Some(only)) => only,
            (_, Some(last)) => {
                terms.push(last);
                Self::or(terms)
            }
            (_, None) => Self::any().negated(),
        }
    }
}

impl Term for Permission {
    fn any() -> Self {
        Permission { rule: Some(permission::Rule::Any(true)) }
    }

    fn and(rules: Vec<Self>) -> Self {
        Permission { rule: Some(permission::Rule::AndRules(permission::Set { rules })) }
    }

    fn or(rules: Vec<Self>) -> Self {
        Permission { rule: Some(permission::Rule::OrRules(permission::Set { rules })) }
    }

    fn negated(self) -> Self {
        Permission { rule: Some(permission::Rule::NotRule(Box::new(self))) }
    }

    fn unknown_to_grpc(&self) -> Option<&'static str> {
        grpc::unknown_permission(self)
    }
}

impl Term for Principal {
    fn any() -> Self {
        Principal { identifier: Some(principal::Identifier::Any(true)) }
    }

    fn and(ids: Vec<Self>) -> Self {
        Principal { identifier: Some(principal::Identifier::AndIds(principal::Set { ids })) }
    }

    fn or(ids: Vec<Self>) -> Self {
        Principal { identifier: Some(principal::Identifier::OrIds(principal::Set { ids })) }
    }

    fn negated(self) -> Self {
        Principal { identifier: Some(principal::Identifier::NotId(Box::new(self))) }
    }

    fn unknown_to_grpc(&self) -> Option<&'static str> {
        grpc::unknown_principal(self)
    }
}
