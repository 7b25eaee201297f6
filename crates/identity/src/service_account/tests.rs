#![allow(clippy::unwrap_used)]

use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::claimed::LEEWAY;
use super::*;
use crate::{KeyType, PrivateKey};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

/// A cluster that signs tokens with P-256.
struct Cluster {
    key: PrivateKey,
}

impl Cluster {
    fn new() -> Self {
        Self { key: PrivateKey::generate(KeyType::EcdsaP256).unwrap() }
    }

    fn key_set(&self) -> String {
        let point = self.key.pair().public_key_raw();
        let part = |range| BASE64_URL_SAFE_NO_PAD.encode(&point[range]);
        let (x, y) = (part(1..33), part(33..65));
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "one", "x": x, "y": y }] }).to_string()
    }

    fn tokens(&self) -> ServiceAccountTokens {
        ServiceAccountTokens::new(&self.key_set(), ISSUER, "istio-ca").unwrap()
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &EncodingKey::from_ec_der(&self.key.to_der())).unwrap()
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": ["istio-ca"], "sub": "system:serviceaccount:shop:front",
        "exp": NOW + 3600, "nbf": NOW, "iat": NOW,
        "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "front" } },
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[field] = value;
    claims
}

#[test]
fn a_token_of_the_cluster_names_its_service_account() {
    let cluster = Cluster::new();
    let tokens = cluster.tokens();
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + 3600 + LEEWAY);
    let expected = (Workload::new("shop", "front").unwrap(), until);
    assert_eq!(tokens.verify(&cluster.sign(&claims()), now()), Ok(expected.clone()));
    assert_eq!(tokens.verify(&cluster.sign(&with("aud", json!("istio-ca"))), now()), Ok(expected));
    let endless = tokens.verify(&cluster.sign(&with("exp", json!(u64::MAX))), now()).unwrap();
    assert!(endless.1 > now());
}

#[test]
fn what_is_wrong_with_a_token_is_said_apart() {
    let cluster = Cluster::new();
    let tokens = cluster.tokens();
    for (field, value, error) in [
        ("exp", json!(NOW - 61), TokenError::Expired),
        ("nbf", json!(NOW + 61), TokenError::NotYet),
        ("aud", json!(["vault"]), TokenError::Audience),
        ("aud", json!([]), TokenError::Audience),
        ("iss", json!("https://elsewhere"), TokenError::Issuer),
        ("sub", json!("admin"), TokenError::Subject),
        ("sub", json!("system:serviceaccount:shop"), TokenError::Subject),
        // Claims that must be there, of another kind.
        ("exp", json!(null), TokenError::Form),
        ("exp", json!("never"), TokenError::Form),
        ("iss", json!(5), TokenError::Form),
    ] {
        assert_eq!(tokens.verify(&cluster.sign(&with(field, value)), now()), Err(error), "{field}");
    }
    let named = tokens.verify(&cluster.sign(&with("sub", json!("system:serviceaccount:sh/op:front"))), now());
    assert!(matches!(named, Err(TokenError::Name(_))), "{named:?}");
}

/// Signed by the right key, and yet nothing that may be taken.
#[test]
fn a_token_that_demands_extensions_is_refused() {
    let cluster = Cluster::new();
    let encoded = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    for crit in [json!(["b64"]), json!(["exp"]), json!([]), json!(null)] {
        let header = json!({ "alg": "ES256", "kid": "one", "crit": crit });
        let signed = format!("{}.{}", encoded(&header), encoded(&claims()));
        let key = EncodingKey::from_ec_der(&cluster.key.to_der());
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::ES256).unwrap();
        let token = format!("{signed}.{signature}");
        assert_eq!(cluster.tokens().verify(&token, now()), Err(TokenError::Critical), "{crit}");
        assert_eq!(ClaimedAccount::read(&token, "istio-ca", now()), Err(TokenError::Critical), "{crit}");
    }
}

#[test]
fn a_token_that_nobody_signed_is_none() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let tokens = cluster.tokens();
    assert_eq!(tokens.verify(&other.sign(&claims()), now()), Err(TokenError::Signature));
    let token = cluster.sign(&claims());
    let parts: Vec<_> = token.split('.').collect();
    let encoded = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let admin = encoded(&with("sub", json!("system:serviceaccount:kube-system:admin")));
    let tampered = format!("{}.{admin}.{}", parts[0], parts[2]);
    let unsigned = [
        format!("{}.{admin}.", encoded(&json!({ "alg": "none", "typ": "JWT" }))),
        format!("{}.{admin}.{}", encoded(&json!({ "alg": "None", "kid": "one" })), parts[2]),
    ];
    // The public key, used as if it were a shared secret.
    let secret = EncodingKey::from_secret(cluster.key.pair().public_key_raw());
    let confused = encode(&Header::new(Algorithm::HS256), &claims(), &secret).unwrap();
    let junk = ["", ".", "..", "a.b.c", "\u{0}"].map(str::to_owned);
    for token in unsigned.into_iter().chain([tampered, confused, "x".repeat(20_000)]).chain(junk) {
        assert_eq!(tokens.verify(&token, now()), Err(TokenError::Signature), "{token}");
    }
}

#[test]
fn a_set_without_a_public_key_is_refused() {
    let shared = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }).to_string();
    for set in ["", "{}", "{\"keys\":[]}", &shared] {
        let made = ServiceAccountTokens::new(set, ISSUER, "istio-ca");
        assert!(matches!(made, Err(TokenError::Keys(_))), "{set}");
    }
    let cluster = Cluster::new();
    // A key of a kind that is not known beside one that is.
    let mut set: Value = serde_json::from_str(&cluster.key_set()).unwrap();
    set["keys"].as_array_mut().unwrap().push(json!({ "kty": "RSA", "n": "!", "e": "AQAB", "kid": "bad" }));
    let tokens = ServiceAccountTokens::new(&set.to_string(), ISSUER, "istio-ca").unwrap();
    tokens.verify(&cluster.sign(&claims()), now()).unwrap();
}

#[test]
fn what_a_token_claims_is_read_without_its_keys_and_what_could_prove_nothing_is_told_apart() {
    let read = |token: &str| ClaimedAccount::read(token, "istio-ca", now());
    let cluster = Cluster::new();
    let claimed = read(&cluster.sign(&claims())).unwrap();
    assert_eq!(claimed.workload, Workload::new("shop", "front").unwrap());
    assert_eq!(claimed.expires, now() + Duration::from_secs(3600));
    assert_eq!(claimed.until, now() + Duration::from_secs(3660));
    assert_eq!(read(&cluster.sign(&with("aud", json!("other")))), Err(TokenError::Audience));
    assert_eq!(read(&cluster.sign(&with("exp", json!(NOW - 60)))), Err(TokenError::Expired));
    assert_eq!(read(&cluster.sign(&with("nbf", json!(NOW + 61)))), Err(TokenError::NotYet));
    assert_eq!(read(&cluster.sign(&with("sub", json!("system:node:one")))), Err(TokenError::Subject));
    assert_eq!(read(&cluster.sign(&with("exp", Value::Null))), Err(TokenError::Form));
    assert!(read(&cluster.sign(&with("exp", json!(u64::MAX)))).is_ok());
    let unsigned = cluster.sign(&claims());
    let unsigned = &unsigned[..=unsigned.rfind('.').unwrap()];
    for token in ["", "junk", "a.b.c", "....", "eyJhbGciOiJub25lIn0.e30.AAAA", unsigned, &"a".repeat(MAX_BYTES + 1)] {
        assert_eq!(read(token), Err(TokenError::Form), "{token}");
    }
}

#[test]
fn only_tokens_of_other_signers_are_worth_asking_others_about() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let error = |claims: &Value, signer: &Cluster| cluster.tokens().verify(&signer.sign(claims), now()).unwrap_err();
    assert!(error(&claims(), &other).is_of_others());
    assert!(error(&with("iss", json!("https://elsewhere")), &cluster).is_of_others());
    assert!(!error(&with("aud", json!("other")), &cluster).is_of_others());
    assert!(!error(&with("exp", json!(NOW - 60)), &cluster).is_of_others());
}
