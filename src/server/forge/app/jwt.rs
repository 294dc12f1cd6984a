//! The one JSON web token that GitHub asks of an App: RS256 (RFC 7519, RFC 7518 section 3.3), valid for minutes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::{Span, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

/// GitHub's clock may be behind ours ("Generating a JSON Web Token": 60 seconds in the past).
const CLOCKS: Span = Span::secs(60);
/// GitHub takes none that ends later than 10 minutes from its own time.
const LASTS: Span = Span::secs(540);

/// A token of the App `issuer`, signed with its private key in PEM, as GitHub gives it or as PKCS#8.
///
/// # Errors
/// What is wrong with the key, without a word of it.
pub(super) fn sign(issuer: &str, key: &str, now: Timestamp) -> Result<String, String> {
    let key = read(key)?;
    let seconds = |at: Timestamp| at.0.div_euclid(1_000);
    let claims = json!({"iss": issuer, "iat": seconds(now - CLOCKS), "exp": seconds(now + LASTS)});
    let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!(
        "{}.{}",
        part(json!({"alg": "RS256", "typ": "JWT"})),
        part(claims)
    );
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .map_err(|_| "it does not sign".to_owned())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn read(key: &str) -> Result<RsaKeyPair, String> {
    let no_key = || "it is no private key in PEM form, as GitHub lets an App's owner download it";
    let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| no_key().to_owned())?;
    let pair = match &der {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        // The list of forms is open; all others hold no RSA key.
        _ => return Err("it is no RSA key".to_owned()),
    };
    pair.map_err(|why| format!("it is no RSA key that can sign: {why}"))
}

#[cfg(test)]
mod tests {
    use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    const KEY: &str = include_str!("../../../../tests/data/forges/github/app.private-key.pem");

    #[test]
    fn the_token_is_signed_and_ends_within_ten_minutes() {
        let now = Timestamp(1_700_000_000_000);
        let token = sign("Iv23abc", KEY, now).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let public = read(KEY).unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public.public_key().as_ref())
            .verify(
                signed.as_bytes(),
                &URL_SAFE_NO_PAD.decode(signature).unwrap(),
            )
            .unwrap();
        let claims = URL_SAFE_NO_PAD
            .decode(signed.split_once('.').unwrap().1)
            .unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        let wanted = json!({"iss": "Iv23abc", "iat": 1_699_999_940, "exp": 1_700_000_540});
        assert_eq!(claims, wanted);
    }

    #[test]
    fn what_is_no_key_is_refused_without_a_word_of_it() {
        let cut = KEY.replace("MII", "AAA");
        for wrong in ["s3cret", "", &cut] {
            let why = sign("1", wrong, Timestamp(0)).unwrap_err();
            assert!(why.starts_with("it is no"), "{why}");
            assert!(!why.contains("s3cret"), "{why}");
        }
    }
}
