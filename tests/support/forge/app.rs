//! A GitHub App: it proves itself by a signed JWT, and gets a token for an installation.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::Value;

/// What GitHub lets its owner download.
pub(crate) const PRIVATE_KEY: &str = include_str!("../../data/forges/github/app.private-key.pem");
pub(crate) const APP_ID: u64 = 4711;
pub(crate) const INSTALLATION: u64 = 815;
/// How the App is called in addresses; its comments are by `SLUG[bot]`.
pub(crate) const SLUG: &str = "trainyard";
/// How long a JWT may be good.
const LONGEST: u64 = 600;
/// How long a token is good.
pub(super) const TOKEN_LASTS: Duration = Duration::from_secs(3600);

pub(super) struct App {
    public_key: Vec<u8>,
}

impl App {
    pub(super) fn new() -> Self {
        let lines = PRIVATE_KEY.lines().filter(|line| !line.starts_with('-'));
        let der = STANDARD.decode(lines.collect::<String>()).unwrap();
        let key = RsaKeyPair::from_der(&der).unwrap();
        let public_key = key.public_key().as_ref().to_vec();
        Self { public_key }
    }

    /// Whether this is a JWT of the App, at `now` in seconds since 1970.
    pub(super) fn proves(&self, jwt: &str, now: u64) -> Result<(), &'static str> {
        let unreadable = "A JSON web token could not be decoded";
        let (signed, signature) = jwt.rsplit_once('.').ok_or(unreadable)?;
        let (header, claims) = signed.split_once('.').ok_or(unreadable)?;
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| unreadable);
        let json = |text| serde_json::from_slice::<Value>(&bytes(text)?).map_err(|_| unreadable);
        if json(header)?["alg"] != "RS256" {
            return Err("The algorithm is not RS256");
        }
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public_key)
            .verify(signed.as_bytes(), &bytes(signature)?)
            .map_err(|_| unreadable)?;
        times(&json(claims)?, now)
    }
}

fn times(claims: &Value, now: u64) -> Result<(), &'static str> {
    let issuer = &claims["iss"];
    let ours = APP_ID.to_string();
    if *issuer != APP_ID && *issuer != *ours {
        return Err("'Issuer' claim ('iss') must be an Integer");
    }
    let issued = claims["iat"]
        .as_u64()
        .ok_or("Missing 'issued at' claim ('iat')")?;
    let ends = claims["exp"]
        .as_u64()
        .ok_or("Missing 'expiration' claim ('exp')")?;
    if issued > now {
        return Err("'Issued at' claim ('iat') must be the time that the assertion was issued");
    }
    if ends <= now {
        return Err("'Expiration time' claim ('exp') must be a time in the future");
    }
    // GitHub measures from its own clock; a client that puts `iat` back loses nothing by it.
    if ends > now + LONGEST {
        return Err("'Expiration time' claim ('exp') is too far in the future");
    }
    Ok(())
}
