//! Tokens of pages: opaque to clients, and checked when they come back. One that was made for another search, or was
//! changed, is refused. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::Digest;

use super::check::quoted;
use super::{Answer, Fault};
use crate::store::metrics::Point;
use crate::store::search::Piece;

/// Hex digits that prove that a token is of this search.
const PROOF: usize = 16;
/// Longest token that is looked at.
const LONGEST: usize = 200;

fn seal(words: &str, of: &str) -> String {
    let proof = Digest::of(format!("page of {of}\n{words}"));
    URL_SAFE_NO_PAD.encode(format!("{words}.{}", &proof.as_str()[..PROOF]))
}

fn unseal(token: &str, of: &str) -> Answer<String> {
    let wrong = || {
        Fault::invalid(format!(
            "page token {} is not of this search: send it with the same filter and order as the page before",
            quoted(token)
        ))
    };
    if token.len() > LONGEST {
        return Err(wrong());
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    let (words, _) = text.rsplit_once('.').ok_or_else(wrong)?;
    if seal(words, of) != token {
        return Err(wrong());
    }
    Ok(words.to_owned())
}

/// The token of the page that begins after so many; `of` says of which search.
pub(super) fn token(offset: u64, of: &str) -> String {
    seal(&offset.to_string(), of)
}

/// Where the page of a token begins; without one at the start.
pub(super) fn offset(token: Option<&str>, of: &str) -> Answer<u64> {
    match token.filter(|token| !token.is_empty()) {
        None => Ok(0),
        Some(token) => {
            let words = unseal(token, of)?;
            words
                .parse()
                .map_err(|_| Fault::invalid("the page token holds no number"))
        }
    }
}

/// The token of the page of a curve that begins after this point.
pub(super) fn token_after(point: &Point, of: &str) -> String {
    let words = format!("{}_{}_{:x}", point.at, point.step, point.value.to_bits());
    seal(&words, of)
}

/// The point after which the page of a token begins.
pub(super) fn after(token: Option<&str>, of: &str) -> Answer<Option<Point>> {
    let Some(token) = token.filter(|token| !token.is_empty()) else {
        return Ok(None);
    };
    let words = unseal(token, of)?;
    let mut parts = words.split('_');
    let mut part = || parts.next().unwrap_or_default();
    let (at, step, bits) = (
        part().parse(),
        part().parse(),
        u64::from_str_radix(part(), 16),
    );
    match (at, step, bits) {
        (Ok(at), Ok(step), Ok(bits)) => Ok(Some(Point {
            name: String::new(),
            value: f64::from_bits(bits),
            at,
            step,
        })),
        _ => Err(Fault::invalid("the page token holds no point")),
    }
}

/// A page of a search: where it begins, how much it holds, and of which search it is.
pub(super) struct Pages {
    offset: u64,
    limit: u32,
    of: String,
}

impl Pages {
    /// `wanted` is what the client asks for, `usual` what it gets where it asks for nothing.
    pub(super) fn new(
        wanted: Option<i64>,
        usual: i64,
        most: i64,
        token: Option<&str>,
        of: String,
    ) -> Answer<Self> {
        let wanted = wanted.unwrap_or(usual);
        let limit = u32::try_from(wanted).ok().filter(|limit| *limit > 0);
        match limit.filter(|_| wanted <= most) {
            Some(limit) => Ok(Self {
                offset: offset(token, &of)?,
                limit,
                of,
            }),
            None => Err(Fault::invalid(format!(
                "max_results is {wanted}: it is at least 1 and at most {most}"
            ))),
        }
    }

    /// One more than the page holds tells whether there is another.
    pub(super) fn piece(&self) -> Piece {
        Piece {
            offset: self.offset,
            limit: self.limit + 1,
        }
    }

    /// The page, and the token of the next one.
    pub(super) fn cut<T>(&self, mut found: Vec<T>) -> (Vec<T>, Option<String>) {
        let limit = self.limit as usize;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = self.offset + u64::from(self.limit);
        (found, more.then(|| self::token(next, &self.of)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_one_search() {
        let made = token(100, "runs of 1");
        assert_eq!(offset(Some(&made), "runs of 1"), Ok(100));
        assert_eq!(offset(None, "runs of 1"), Ok(0));
        assert!(offset(Some(&made), "runs of 2").is_err());
        for bad in ["x", "!!", "eyJvZmZzZXQiOiAxMH0=", "-1", &"a".repeat(5_000)] {
            assert!(offset(Some(bad), "runs of 1").is_err(), "{bad}");
        }
        let forged = URL_SAFE_NO_PAD.encode("7.0123456789abcdef");
        assert!(offset(Some(&forged), "runs of 1").is_err());
    }

    #[test]
    fn a_point_goes_through_a_token() {
        for value in [0.5, -0.0, f64::INFINITY, f64::MIN] {
            let point = Point {
                name: String::new(),
                value,
                at: 5,
                step: -3,
            };
            let made = token_after(&point, "curve");
            assert_eq!(after(Some(&made), "curve").unwrap(), Some(point));
        }
        let nan = Point {
            name: String::new(),
            value: f64::NAN,
            at: 5,
            step: 1,
        };
        let read = after(Some(&token_after(&nan, "c")), "c").unwrap().unwrap();
        assert!(read.value.is_nan());
    }
}
