// The clock is not read; OpenSSL is asked.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::Duration;

use super::*;
use crate::{ClientCertificate, ClientCertificateError, KeyType, Lifetimes, Workload};

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn lifetime(ttl: Duration) -> Lifetime {
    Lifetimes::new(now()).next(now(), ttl)
}

fn serial(byte: u8) -> Serial {
    Serial::from_random([byte; 16])
}

fn key() -> PrivateKey {
    PrivateKey::generate(KeyType::EcdsaP256).unwrap()
}

fn root() -> Authority {
    numbered_root(1)
}

fn numbered_root(number: u8) -> Authority {
    Authority::new_root(&"cluster.local".parse().unwrap(), key(), &lifetime(3650 * DAY), serial(number)).unwrap()
}

fn front() -> SpiffeId {
    Workload::new("shop", "front").unwrap().within(&"cluster.local".parse().unwrap())
}

fn der(pem_text: &str) -> CertificateDer<'static> {
    pem::certificates(pem_text, "it").unwrap().swap_remove(0)
}

fn client_id(certificate: &[u8]) -> Result<SpiffeId, ClientCertificateError> {
    ClientCertificate::read(certificate).map(|read| read.id)
}

/// An intermediate below a root: certificate, key, root.
fn intermediate(of: &Authority) -> (String, String) {
    let pair = key();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "intermediate");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (params.not_before, params.not_after) = ((now() - DAY).into(), (now() + 2 * DAY).into());
    (params.signed_by(pair.pair(), &of.issuer).unwrap().pem(), pair.to_pem())
}

/// Asks OpenSSL, which shares no code with what is tested.
fn openssl_verifies(root: &str, chain: &[String], at: SystemTime) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("root"), root).unwrap();
    // An empty file of intermediates is an error to OpenSSL; the root among them changes nothing.
    std::fs::write(path("rest"), format!("{}{root}", chain[1..].concat())).unwrap();
    std::fs::write(path("leaf"), &chain[0]).unwrap();
    let at = crate::issuance::seconds(at).to_string();
    let mut command = std::process::Command::new("openssl");
    command.args(["verify", "-attime", &at, "-purpose", "sslclient", "-CAfile"]).arg(path("root"));
    command.arg("-untrusted").arg(path("rest")).arg(path("leaf"));
    command.output().unwrap().status.success()
}

#[test]
fn a_workload_gets_a_certificate_that_others_verify() {
    let authority = root();
    let issued = authority.issue(Subject::Workload(&front()), &key(), &lifetime(DAY), serial(2)).unwrap();
    assert_eq!(client_id(&der(&issued.chain[0])), Ok(front()));
    assert!(openssl_verifies(&authority.roots_pem(), &issued.chain, now()));
    assert!(!openssl_verifies(&authority.roots_pem(), &issued.chain, now() + DAY + Duration::from_secs(1)));
    assert!(!openssl_verifies(&root().roots_pem(), &issued.chain, now()));
    let certificate = der(&issued.chain[0]);
    let parsed = parse(&certificate, "it").unwrap();
    assert_eq!(parsed.raw_serial_as_string().replace(':', ""), issued.serial.to_string());
    assert!(parsed.subject_alternative_name().unwrap().unwrap().critical);
    assert!(!parsed.is_ca());
}

#[test]
fn a_root_is_the_same_after_it_was_kept() {
    for kind in [KeyType::EcdsaP256, KeyType::Rsa2048] {
        let made = PrivateKey::generate(kind).unwrap();
        let made = Authority::new_root(&"mesh".parse().unwrap(), made, &lifetime(DAY), serial(3)).unwrap();
        let kept = Authority::own(&made.certificate_pem(), &made.key_pem()).unwrap();
        let issued = kept.issue(Subject::Workload(&front()), &key(), &lifetime(DAY), serial(4)).unwrap();
        assert!(openssl_verifies(&made.roots_pem(), &issued.chain, now()));
    }
    let (one, other) = (root(), root());
    assert_eq!(Authority::own(&one.certificate_pem(), &other.key_pem()).unwrap_err(), Error::KeyMismatch);
}

#[test]
fn an_intermediate_signs_with_its_chain() {
    let root = root();
    let (certificate, key_pem) = intermediate(&root);
    let roots = root.roots_pem();
    let with_root = format!("{certificate}{roots}");
    for chain in [&certificate, &with_root] {
        let files = PluggedIn { certificate: &certificate, key: &key_pem, chain, roots: &roots };
        let authority = Authority::plugged_in(&files).unwrap();
        let issued = authority.issue(Subject::Workload(&front()), &key(), &lifetime(10 * DAY), serial(5)).unwrap();
        assert_eq!(issued.chain.len(), 2, "certificate and intermediate");
        assert!(openssl_verifies(&roots, &issued.chain, now()));
        assert_eq!(issued.lifetime.not_after, now() + 2 * DAY, "no longer than the intermediate");
    }
}

#[test]
fn an_authority_that_would_sign_in_vain_is_refused() {
    let (root, other) = (root(), root());
    let (certificate, key_pem) = intermediate(&root);
    let (_, other_key) = intermediate(&root);
    let (roots, strange) = (root.roots_pem(), other.roots_pem());
    let files = PluggedIn { certificate: &certificate, key: &key_pem, chain: &certificate, roots: &roots };
    let refused = |files: PluggedIn<'_>| Authority::plugged_in(&files).unwrap_err().to_string();
    assert!(refused(PluggedIn { roots: &strange, ..files }).contains("does not lead to the root"));
    assert!(refused(PluggedIn { chain: &roots, ..files }).contains("does not begin with"));
    assert!(refused(PluggedIn { certificate: "junk", ..files }).contains("no certificate"));
    assert!(refused(PluggedIn { key: "junk", ..files }).contains("private key"));
    assert_eq!(Authority::plugged_in(&PluggedIn { key: &other_key, ..files }).unwrap_err(), Error::KeyMismatch);
    let leaf = root.issue(Subject::Workload(&front()), &key(), &lifetime(DAY), serial(6)).unwrap();
    let leaf_key = key();
    let error = Authority::own(&leaf.chain[0], &leaf_key.to_pem()).unwrap_err();
    assert!(error.to_string().contains("CA:TRUE"), "{error}");
}

#[test]
fn nothing_is_signed_outside_of_the_authoritys_own_time() {
    let (certificate, key_pem) = intermediate(&root());
    let authority = Authority::own(&certificate, &key_pem).unwrap();
    for (at, says) in [(now() + 3 * DAY, "has expired"), (now() - 2 * DAY, "does not hold yet")] {
        let lifetime = Lifetimes::new(at).next(at, DAY);
        let error = authority.issue(Subject::Workload(&front()), &key(), &lifetime, serial(7)).unwrap_err();
        assert_eq!(error, Error::AuthorityNotValid(says));
    }
}

#[test]
fn the_name_in_a_certificate_is_never_the_requests() {
    let pair = KeyPair::generate().unwrap();
    let mut asked = CertificateParams::default();
    asked.subject_alt_names = vec![SanType::URI("spiffe://cluster.local/ns/bank/sa/vault".try_into().unwrap())];
    asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let text = asked.serialize_request(&pair).unwrap().pem().unwrap();
    let request = SigningRequest::from_pem(&text).unwrap();
    let issued = root().issue_for(Subject::Workload(&front()), &request, &lifetime(DAY), serial(8)).unwrap();
    let certificate = der(&issued.chain[0]);
    assert_eq!(client_id(&certificate), Ok(front()));
    let parsed = parse(&certificate, "it").unwrap();
    assert_eq!(parsed.public_key().subject_public_key.data, pair.der_bytes());
    assert!(!parsed.is_ca());
}

#[test]
fn a_server_has_names_and_addresses_and_no_workloads_name() {
    let names = ["istiod.istio-system.svc".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let issued = root().issue(Subject::Server(&names), &key(), &lifetime(DAY), serial(9)).unwrap();
    let certificate = der(&issued.chain[0]);
    let parsed = parse(&certificate, "it").unwrap();
    assert_eq!(parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 3);
    assert_eq!(client_id(&certificate), Err(ClientCertificateError::Names(0)));
    let odd = ["not a name\u{e9}".to_owned()];
    assert!(root().issue(Subject::Server(&odd), &key(), &lifetime(DAY), serial(9)).is_err());
}

#[test]
fn no_text_about_an_authority_holds_its_key() {
    let authority = root();
    let key = authority.key_pem();
    let secret = key.lines().nth(1).unwrap();
    assert!(!format!("{authority:?}").contains(secret));
}

#[test]
fn a_crossed_root_is_accepted_by_those_who_trust_either() {
    let (old, new) = (root(), numbered_root(40));
    let crossed = old.cross_sign(&new, serial(41)).unwrap();
    let (of_old, of_new) = (old.roots_pem(), new.roots_pem());
    let new = new.trusting(&[old.certificate().clone()]).behind(vec![crossed.clone()]);
    let issued = new.issue(Subject::Workload(&front()), &key(), &lifetime(DAY), serial(42)).unwrap();
    assert_eq!(issued.chain.len(), 2);
    for trusted in [&of_old, &of_new, &new.roots_pem()] {
        assert!(openssl_verifies(trusted, &issued.chain, now()));
    }
    assert!(!openssl_verifies(&numbered_root(50).roots_pem(), &issued.chain, now()));
    assert_eq!(new.roots().len(), 2);
    // A third root: who trusts only the first goes by both crossings.
    let third = numbered_root(60);
    let second_crossing = Authority::own(&of_new, &new.key_pem()).unwrap().cross_sign(&third, serial(61)).unwrap();
    let third = third.behind(vec![second_crossing, crossed]);
    let issued = third.issue(Subject::Workload(&front()), &key(), &lifetime(DAY), serial(62)).unwrap();
    assert!(openssl_verifies(&of_old, &issued.chain, now()));
}

#[test]
fn a_certificate_says_who_signed_it_and_until_when_it_holds() {
    let (one, other) = (root(), root());
    let issued = one.issue(Subject::Workload(&front()), &key(), &lifetime(DAY), serial(43)).unwrap();
    let read = ClientCertificate::read(&der(&issued.chain[0])).unwrap();
    assert!(one.has_key_id(&read.signer_key_id) && !other.has_key_id(&read.signer_key_id));
    assert!(!one.has_key_id(&[]), "who does not say it names nobody");
    assert_eq!(read.not_after, now() + DAY);
    assert_eq!(one.fingerprint().len(), 64);
}

#[test]
fn no_key_and_no_token_is_shown_by_what_holds_it() {
    let (of_root, of_pair, token) = (key(), key(), crate::JoinToken::from_random([7; 8], [0xa5; 32]));
    let mut secrets = testkit::leaks::Secrets::default();
    secrets.add_key("root", &of_root.to_pem());
    secrets.add_key("pair", &of_pair.to_pem());
    secrets.add_text("token", token.reveal().rsplit_once('_').unwrap().1);
    let domain = "cluster.local".parse().unwrap();
    let root = Authority::new_root(&domain, of_root, &lifetime(DAY), serial(1)).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "pair");
    let chain = params.signed_by(of_pair.pair(), &root.issuer).unwrap().pem();
    let pair = crate::TlsSecret::new(Some(&chain), Some(&of_pair.to_pem()), None).unwrap();
    assert!(pair.pair().is_some());
    for shown in [
        format!("{root:?}"),
        format!("{of_pair:?}"),
        format!("{pair:?} {pair:#?}"),
        format!("{token:?}"),
        format!("{:?}", token.id()),
    ] {
        assert_eq!(secrets.in_bytes(shown.as_bytes()), [], "{shown}");
    }
}
