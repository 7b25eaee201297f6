//! Secrets that nobody may see, looked for in everything that somebody can, in all forms in which they may be there.
//!
//! A form is looked for as bytes. Of a private key those are lines of its PEM text and parts of its secret number, so that
//! half of a key is found, too; each of them as it is, in base64 at any offset, as hexadecimal digits, as a list of
//! numbers, and escaped as Rust, C and Envoy's logs do.

use std::collections::HashMap;
use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

/// Where the secret number is in a P-256 key in PKCS#8; the public one follows.
const SECRET: std::ops::Range<usize> = 36..68;
/// How long the parts of a secret number are that are looked for.
const PART: usize = 16;
/// A form is found by its beginning.
const HEAD: usize = 8;

/// Secrets, with what they are called.
#[derive(Default)]
pub struct Secrets {
    names: Vec<String>,
    /// Each form with the secret that it is one of.
    forms: Vec<(Vec<u8>, usize)>,
    by_head: HashMap<[u8; HEAD], Vec<usize>>,
}

/// A secret in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// What the secret is called.
    pub secret: String,
    /// The text around it.
    pub around: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Secrets {
    /// A private key: P-256 in PKCS#8, as PEM.
    ///
    /// # Panics
    /// If it is another.
    pub fn add_key(&mut self, name: &str, pem: &str) {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a private key");
        let secret = der.secret_der().get(SECRET).expect("a key of P-256").to_vec();
        assert_eq!(der.secret_der()[SECRET.start - 2..SECRET.start], [4, 32], "a key of P-256 in PKCS#8");
        let of = self.named(name);
        for at in (0..=secret.len() - PART).step_by(PART / 2) {
            self.add_forms(of, &secret[at..at + PART]);
        }
        // The third line holds public bytes only.
        for line in pem.lines().skip(1).take(2) {
            self.add_forms(of, line.as_bytes());
        }
    }

    /// A token or a password.
    ///
    /// # Panics
    /// If it is shorter than twelve bytes.
    pub fn add_text(&mut self, name: &str, text: &str) {
        let of = self.named(name);
        self.add_forms(of, text.as_bytes());
    }

    fn named(&mut self, name: &str) -> usize {
        self.names.push(name.to_owned());
        self.names.len() - 1
    }

    fn add_forms(&mut self, of: usize, bytes: &[u8]) {
        assert!(bytes.len() >= HEAD + 4, "too short to tell it from anything else");
        let text = |bytes: &[u8], one: fn(&mut String, u8)| {
            let mut text = String::new();
            bytes.iter().for_each(|byte| one(&mut text, *byte));
            text.into_bytes()
        };
        let lower = text(bytes, |text, byte| _ = write!(text, "{byte:02x}"));
        let mut forms = vec![
            bytes.to_vec(),
            lower.to_ascii_uppercase(),
            lower,
            text(bytes, |text, byte| _ = write!(text, "{byte},")),
            bytes.escape_ascii().to_string().into_bytes(),
            format!("{:?}", bytes::Bytes::copy_from_slice(bytes)).trim_matches(['b', '"']).to_owned().into_bytes(),
            text(bytes, |text, byte| match byte {
                b' '..=b'~' => text.push(char::from(byte)),
                _ => _ = write!(text, "\\{byte:03o}"),
            }),
        ];
        // In the base64 of something longer, where the first digits and the last depend on what is around.
        for skipped in 0..3 {
            let whole = (bytes.len() - skipped) / 3 * 3;
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                forms.push(engine.encode(&bytes[skipped..skipped + whole]).into_bytes());
            }
        }
        forms.sort();
        forms.dedup();
        for form in forms {
            // The comma after the last number is not there always.
            let form = form.strip_suffix(b",").map_or(form.clone(), <[u8]>::to_vec);
            let head = *form.first_chunk().expect("a form is longer than its head");
            self.by_head.entry(head).or_default().push(self.forms.len());
            self.forms.push((form, of));
        }
    }

    /// The secrets that these bytes hold, each once.
    pub fn in_bytes(&self, bytes: &[u8]) -> Vec<Leak> {
        // Lists and digits may be broken over lines, or have something between them.
        let joined: Vec<u8> = bytes.iter().copied().filter(|byte| !b" \t\r\n:".contains(byte)).collect();
        let mut leaks: Vec<Leak> = Vec::new();
        for text in [bytes, &joined] {
            for (at, form) in self.found_in(text) {
                let (form, secret) = &self.forms[form];
                let (start, end) = (at.saturating_sub(80), (at + form.len() + 20).min(text.len()));
                let around = String::from_utf8_lossy(&text[start..end]).into_owned();
                if leaks.iter().all(|leak| leak.secret != self.names[*secret]) {
                    leaks.push(Leak { secret: self.names[*secret].clone(), around });
                }
            }
        }
        leaks
    }

    fn found_in<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, usize)> + 'a {
        // Most places are passed over by their first byte.
        let mut begins = [false; 256];
        self.by_head.keys().for_each(|head| begins[usize::from(head[0])] = true);
        let places = (0..text.len().saturating_sub(HEAD)).filter(move |at| begins[usize::from(text[*at])]);
        places.flat_map(move |at| {
            let candidates = text[at..].first_chunk().and_then(|head| self.by_head.get(head)).into_iter().flatten();
            candidates.filter(move |form| text[at..].starts_with(&self.forms[**form].0)).map(move |form| (at, *form))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn key() -> (String, Vec<u8>) {
        let pair = rcgen::KeyPair::generate().unwrap();
        (pair.serialize_pem(), pair.serialize_der())
    }

    #[test]
    fn a_key_is_found_in_whatever_form_it_is_shown() {
        let (pem, der) = key();
        let mut secrets = Secrets::default();
        secrets.add_key("root", &pem);
        let hex: Vec<String> = der.iter().map(|byte| format!("{byte:02X}")).collect();
        let spread: Vec<u8> = [b"xx", &*der].concat();
        for shown in [
            pem.clone(),
            pem.replace('\n', "\\n"),
            STANDARD_NO_PAD.encode(&pem),
            URL_SAFE_NO_PAD.encode(&spread),
            format!("{der:?}"),
            format!("{der:#?}"),
            format!("{:?}", &der[30..60]),
            format!("{:?}", bytes::Bytes::from(der.clone())),
            format!("{:?}", pem.as_bytes()),
            der.escape_ascii().to_string(),
            hex.concat(),
            hex.join(":"),
            hex.join(" ").to_lowercase(),
        ] {
            let found = secrets.in_bytes(format!("a line\n{shown}\nanother").as_bytes());
            assert_eq!(found.len(), 1, "{shown}");
            assert_eq!(found[0].secret, "root");
        }
        assert_eq!(secrets.in_bytes(&[b"raw: ", &*der].concat()).len(), 1);
    }

    #[test]
    fn what_is_public_of_a_key_is_no_secret() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["name".to_owned()]).unwrap().self_signed(&pair).unwrap();
        let mut secrets = Secrets::default();
        secrets.add_key("root", &pair.serialize_pem());
        for shown in [certificate.pem(), format!("{:?}", certificate.der()), pair.public_key_pem()] {
            assert_eq!(secrets.in_bytes(shown.as_bytes()), []);
        }
        assert_eq!(secrets.in_bytes(key().0.as_bytes()), []);
    }

    #[test]
    fn a_token_is_found_as_it_is_and_encoded() {
        let mut secrets = Secrets::default();
        secrets.add_text("token", "correct-horse-battery");
        for shown in [
            "Bearer correct-horse-battery",
            "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5",
            "636f72726563742d686f7273652d62617474657279",
        ] {
            assert_eq!(secrets.in_bytes(shown.as_bytes()).len(), 1, "{shown}");
        }
        assert_eq!(secrets.in_bytes(b"correct-horse"), []);
    }
}
