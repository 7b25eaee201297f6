//! What is asked of a request: that its tokens hold, if it has some.

use proto::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use proto::pb::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtRequirement, JwtRequirementAndList, JwtRequirementOrList,
};
use proto::pb::google::protobuf::Empty;

/// The requirement for providers of these names, of which there is at least one.
///
/// With one provider: its token, or none. With several: the token of any of them; or, of each of them, a token or none,
/// which is what lets requests without any token pass and stops those with a token that no provider takes.
pub(super) fn requirement(providers: &[&str]) -> JwtRequirement {
    match providers {
        [only] => optional(only),
        several => {
            let each = several.iter().map(|provider| optional(provider)).collect();
            let all = of(RequiresType::RequiresAll(JwtRequirementAndList { requirements: each }));
            any(several.iter().map(|provider| required(provider)).chain([all]).collect())
        }
    }
}

fn optional(provider: &str) -> JwtRequirement {
    any(vec![required(provider), of(RequiresType::AllowMissing(Empty {}))])
}

fn required(provider: &str) -> JwtRequirement {
    of(RequiresType::ProviderName(provider.to_owned()))
}

fn any(requirements: Vec<JwtRequirement>) -> JwtRequirement {
    of(RequiresType::RequiresAny(JwtRequirementOrList { requirements }))
}

fn of(requires: RequiresType) -> JwtRequirement {
    JwtRequirement { requires_type: Some(requires) }
}
