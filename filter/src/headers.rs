//! Request headers as Envoy passes them: bytes, possibly repeated.

/// The header map, including pseudo-headers.
#[derive(Clone, Copy)]
pub struct Headers<'a>(&'a [(String, Vec<u8>)]);

/// The value of one header. A repeated header is never resolved to one of its
/// values: proxies disagree on which one applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    Missing,
    Once(&'a [u8]),
    Repeated,
}

impl<'a> Headers<'a> {
    pub fn new(pairs: &'a [(String, Vec<u8>)]) -> Self {
        Self(pairs)
    }

    pub fn field(&self, name: &str) -> Field<'a> {
        let mut values = self
            .0
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice());
        match (values.next(), values.next()) {
            (None, _) => Field::Missing,
            (Some(value), None) => Field::Once(value),
            (Some(_), Some(_)) => Field::Repeated,
        }
    }
}

impl<'a> Field<'a> {
    pub fn once(self) -> Option<&'a [u8]> {
        match self {
            Self::Once(value) => Some(value),
            Self::Missing | Self::Repeated => None,
        }
    }

    /// The value as text, if it appears once and consists of 1 to `max` bytes that are all
    /// `allowed`. `allowed` must accept ASCII only.
    pub fn token(self, max: usize, allowed: fn(&u8) -> bool) -> Option<&'a str> {
        let value = self.once()?;
        if value.is_empty() || value.len() > max || !value.iter().all(allowed) {
            return None;
        }
        str::from_utf8(value).ok()
    }

    /// The value as a decimal number without a sign; `None` if it is anything else
    /// or does not fit.
    pub fn number(self) -> Option<u64> {
        self.token(20, u8::is_ascii_digit)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(values: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
        values.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect()
    }

    #[test]
    fn a_field_is_missing_once_or_repeated() {
        let pairs = pairs(&[("a", b"1"), ("b", b"1"), ("B", b"1"), ("c", b"\xff")]);
        let headers = Headers::new(&pairs);
        assert_eq!(headers.field("x"), Field::Missing);
        assert_eq!(headers.field("a"), Field::Once(b"1"));
        assert_eq!(headers.field("b"), Field::Repeated);
        assert_eq!(headers.field("c"), Field::Once(b"\xff"));
    }

    #[test]
    fn tokens_are_bounded_and_of_the_allowed_bytes() {
        let token = |value: &'static [u8]| Field::Once(value).token(3, u8::is_ascii_alphanumeric);
        assert_eq!(token(b"abc"), Some("abc"));
        for value in [b"".as_slice(), b"abcd", b"a b", b"\xff"] {
            assert_eq!(token(value), None);
        }
        assert_eq!(Field::Repeated.token(3, u8::is_ascii_digit), None);
    }

    #[test]
    fn numbers_have_no_sign_and_must_fit() {
        let number = |value: &'static [u8]| Field::Once(value).number();
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for value in [b"".as_slice(), b"+1", b"-1", b"1.0", b"18446744073709551616"] {
            assert_eq!(number(value), None);
        }
    }
}
