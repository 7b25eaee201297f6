//! What an API server answers to a TokenReview (Kubernetes API, `authentication.k8s.io/v1`).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use identity::{ClaimedAccount, Pod};
use serde::Deserialize;

use super::{Outcome, Proved};

/// What the pod of a token is called in `extra` of its user.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// Characters of what was answered that are told.
const TOLD: usize = 200;
/// Characters of a name in Kubernetes, at most; a UID has fewer.
const NAME: usize = 253;

/// A TokenReview without its `spec`, which repeats the token.
#[derive(Deserialize)]
struct Review {
    kind: String,
    status: ReviewStatus,
}

/// In JSON of Kubernetes `null` means the same as nothing.
#[derive(Deserialize)]
struct ReviewStatus {
    authenticated: Option<bool>,
    audiences: Option<Vec<String>>,
    user: Option<User>,
    error: Option<String>,
}

#[derive(Default, Deserialize)]
struct User {
    username: Option<String>,
    extra: Option<BTreeMap<String, Vec<String>>>,
}

/// `Status`, by which an API server says why it does not do what it was asked.
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    message: String,
}

/// What is to be posted.
pub(super) fn question(token: &str, audience: &str) -> Vec<u8> {
    let review = serde_json::json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": { "token": token, "audiences": [audience] },
    });
    review.to_string().into_bytes()
}

/// What an answer to [`question`] means.
pub(super) fn read(status: StatusCode, body: &[u8], token: &str, audience: &str) -> Outcome {
    let failed = |reason: String| Outcome::Failed(reason.into());
    if !status.is_success() {
        let said = serde_json::from_slice::<Refusal>(body).map(|refusal| refusal.message).unwrap_or_default();
        let hint = match status {
            StatusCode::FORBIDDEN => "; the account of this server needs \"create\" on \"tokenreviews\"",
            StatusCode::UNAUTHORIZED => "; the API server does not know this server by its credentials",
            _ => "",
        };
        return failed(format!("the API server answered with status {status}: {}{hint}", told(&said, token)));
    }
    // What cannot be read is not repeated: it may hold the token.
    let Ok(review) = serde_json::from_slice::<Review>(body) else {
        return failed("the API server's answer is no TokenReview with a status".to_owned());
    };
    if review.kind != "TokenReview" {
        return failed("the API server's answer is of another kind than TokenReview".to_owned());
    }
    let refused = |reason: String| Outcome::Refused(format!("the API server: {reason}").into());
    let ReviewStatus { authenticated, audiences, user, error } = review.status;
    if authenticated != Some(true) {
        return refused(match error.filter(|error| !error.is_empty()) {
            Some(error) => told(&error, token),
            None => "the token is nobody's".to_owned(),
        });
    }
    // One that knows no audiences would take a token for anybody else, and says so by naming none.
    if !audiences.unwrap_or_default().iter().any(|one| one == audience) {
        return refused("the token is for another audience".to_owned());
    }
    let User { username, extra } = user.unwrap_or_default();
    match ClaimedAccount::of_user(&username.unwrap_or_default()) {
        Ok(workload) => Outcome::Proved(Arc::new(Proved { workload, pod: pod(&extra.unwrap_or_default()) })),
        Err(error) => refused(error.to_string()),
    }
}

fn pod(extra: &BTreeMap<String, Vec<String>>) -> Option<Pod> {
    let first = |key: &str| extra.get(key)?.first().filter(|text| text.chars().count() <= NAME).cloned();
    Some(Pod { name: first(POD_NAME)?, uid: first(POD_UID).unwrap_or_default() })
}

/// The beginning of what was said, without the token.
fn told(said: &str, token: &str) -> String {
    said.replace(token, "(the token)").trim().chars().take(TOLD).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use identity::Workload;
    use serde_json::{Value, json};

    use super::*;

    const TOKEN: &str = "head.claims.signature";

    fn review(status: Value) -> Value {
        json!({
            "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": { "creationTimestamp": null },
            "spec": { "token": TOKEN, "audiences": ["istio-ca"] }, "status": status,
        })
    }

    fn outcome(answer: &Value) -> Outcome {
        read(StatusCode::CREATED, answer.to_string().as_bytes(), TOKEN, "istio-ca")
    }

    fn authenticated(change: impl FnOnce(&mut Value)) -> Outcome {
        let mut status = json!({
            "authenticated": true, "audiences": ["istio-ca"],
            "user": {
                "username": "system:serviceaccount:shop:front", "uid": "1",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"],
                "extra": { POD_NAME: ["front-1"], POD_UID: ["2-3"] },
            },
        });
        change(&mut status);
        outcome(&review(status))
    }

    fn text(outcome: Outcome) -> String {
        match outcome {
            Outcome::Refused(reason) => format!("refused: {reason}"),
            Outcome::Failed(reason) => format!("failed: {reason}"),
            Outcome::Proved(proved) => panic!("{proved:?}"),
        }
    }

    #[test]
    fn whose_token_it_is_and_of_which_pod_is_the_users_name_and_extra() {
        let proved = Proved {
            workload: Workload::new("shop", "front").unwrap(),
            pod: Some(Pod { name: "front-1".to_owned(), uid: "2-3".to_owned() }),
        };
        assert_eq!(authenticated(|_| {}), Outcome::Proved(Arc::new(proved.clone())));
        let unbound = Outcome::Proved(Arc::new(Proved { pod: None, ..proved }));
        for nothing in [json!({}), Value::Null] {
            assert_eq!(authenticated(|status| status["user"]["extra"] = nothing), unbound);
        }
        assert_eq!(authenticated(|status| status["user"]["extra"] = json!({ POD_NAME: ["a".repeat(254)] })), unbound);
    }

    #[test]
    fn tokens_that_prove_nothing_here_are_refused() {
        let refused = |change: fn(&mut Value)| text(authenticated(change));
        assert!(refused(|status| status["audiences"] = json!(["vault"])).contains("another audience"));
        let silent = refused(|status| drop(status.as_object_mut().unwrap().remove("audiences")));
        assert!(silent.starts_with("refused: ") && silent.contains("another audience"), "{silent}");
        for user in
            ["", "admin", "system:node:one", "system:serviceaccount:", "system:serviceaccount:shop", "shop:front"]
        {
            let mut status = json!({ "authenticated": true, "audiences": ["istio-ca"] });
            status["user"]["username"] = json!(user);
            assert!(text(outcome(&review(status))).starts_with("refused: "), "{user}");
        }
        let odd = refused(|status| status["user"]["username"] = json!("system:serviceaccount:shop:front/../admin"));
        assert!(odd.starts_with("refused: "), "{odd}");
        assert!(refused(|status| status["authenticated"] = json!(false)).contains("nobody"));
        let wrong = json!({ "error": "[invalid bearer token, Token has been invalidated]", "user": {} });
        assert!(text(outcome(&review(wrong))).contains("has been invalidated"));
    }

    #[test]
    fn what_is_no_answer_proves_nothing_and_does_not_repeat_the_token() {
        let bodies = [
            json!({}),
            json!([]),
            json!({ "kind": "Status", "status": "Failure", "message": TOKEN }),
            json!({ "kind": "Pod", "status": { "authenticated": true } }),
            json!({ "kind": "TokenReview", "status": { "authenticated": TOKEN } }),
            json!({ "kind": "TokenReview", "status": { "authenticated": true, "user": { "extra": TOKEN } } }),
            json!({ "kind": TOKEN, "status": {} }),
        ];
        for body in bodies.iter().map(Value::to_string).chain([String::new(), "<html>".to_owned(), TOKEN.to_owned()]) {
            let said = text(read(StatusCode::CREATED, body.as_bytes(), TOKEN, "istio-ca"));
            assert!(said.starts_with("failed: ") && !said.contains(TOKEN), "{body}: {said}");
        }
        let echo = json!({ "authenticated": false, "error": format!("unknown token {TOKEN}") });
        assert_eq!(text(outcome(&review(echo))), "refused: the API server: unknown token (the token)");
    }

    #[test]
    fn a_server_that_does_not_want_to_be_asked_is_told_apart_from_one_that_says_no() {
        let forbidden =
            json!({ "kind": "Status", "code": 403, "message": format!("tokenreviews is forbidden {TOKEN}") });
        let said = text(read(StatusCode::FORBIDDEN, forbidden.to_string().as_bytes(), TOKEN, "istio-ca"));
        assert!(said.starts_with("failed: ") && said.contains("create") && !said.contains(TOKEN), "{said}");
        for status in [StatusCode::UNAUTHORIZED, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::MOVED_PERMANENTLY] {
            // Also when what stands in it looks like a proof.
            let body = review(json!({ "authenticated": true, "audiences": ["istio-ca"] })).to_string();
            assert!(text(read(status, body.as_bytes(), TOKEN, "istio-ca")).starts_with("failed: "));
        }
    }
}
