//! The three things that the executor, and the doctor, want to know of a certificate and that the TLS library keeps to itself: from
//! when until when it is valid, and the common name of its subject. A reader for just that part of DER.
//!
//! Nothing here decides about trust: chain, signature and times of a peer are the library's to verify.

/// Tags of the values on the way.
const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;

/// The attribute type `commonName`, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// What is read of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// First second of its validity, since 1970.
    pub not_before: i64,
    /// Last second of its validity, since 1970.
    pub not_after: i64,
    /// Common names of the subject.
    pub common_names: Vec<String>,
}

/// Reads a certificate in DER; `None` if it is not built like one.
pub fn facts(der: &[u8]) -> Option<Facts> {
    let (certificate, _) = expect(SEQUENCE, der)?;
    let (mut rest, _) = expect(SEQUENCE, certificate)?;
    if let Some((_version, after)) = expect(VERSION, rest) {
        rest = after;
    }
    let (_serial, rest) = expect(INTEGER, rest)?;
    let (_algorithm, rest) = expect(SEQUENCE, rest)?;
    let (_issuer, rest) = expect(SEQUENCE, rest)?;
    let (validity, rest) = expect(SEQUENCE, rest)?;
    let (subject, _) = expect(SEQUENCE, rest)?;
    let (not_before, after) = time(validity)?;
    let (not_after, _) = time(after)?;
    Some(Facts { not_before, not_after, common_names: common_names(subject) })
}

/// Content of the value at the head of `der`, which must have `tag`, and what follows it.
fn expect(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = value(der)?;
    (found == tag).then_some((content, rest))
}

/// Tag and content of the value at the head of `der`, and what follows it.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*first) {
        short @ 0..=127 => (short, rest),
        long => {
            let bytes = rest.get(..long & 0x7f).filter(|bytes| (1..=4).contains(&bytes.len()))?;
            let length = bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
            (length, &rest[bytes.len()..])
        }
    };
    Some((*tag, rest.get(..length)?, rest.get(length..)?))
}

/// The time at the head of `der`, in seconds since 1970, and what follows it.
fn time(der: &[u8]) -> Option<(i64, &[u8])> {
    let (tag, text, rest) = value(der)?;
    let digits = text.strip_suffix(b"Z")?;
    let number = |at: usize, length: usize| -> Option<i64> {
        std::str::from_utf8(digits.get(at..at + length)?).ok()?.parse().ok()
    };
    let (year, at) = match (tag, digits.len()) {
        // Two digits mean 1950 to 2049.
        (UTC_TIME, 12) => (number(0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(at, 2)?, number(at + 2, 2)?);
    let (hour, minute, second) = (number(at + 4, 2)?, number(at + 6, 2)?, number(at + 8, 2)?);
    let days = days_since_1970(year, month, day);
    Some((((days * 24 + hour) * 60 + minute) * 60 + second, rest))
}

/// Days from 1 January 1970 to a day of the Gregorian calendar; years begin in March, so that leap days end them.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_before_month = (153 * month + 2) / 5;
    365 * year + year / 4 - year / 100 + year / 400 + days_before_month + day - 1 - 719_468
}

fn common_names(mut subject: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while let Some((mut attributes, rest)) = expect(SET, subject) {
        subject = rest;
        while let Some((attribute, rest)) = expect(SEQUENCE, attributes) {
            attributes = rest;
            if let Some((COMMON_NAME, text)) = expect(OID, attribute)
                && let Some((_kind, text, _)) = value(text)
            {
                names.extend(std::str::from_utf8(text).map(str::to_owned));
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    fn made(common_name: &str, years: (i32, i32)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["other.example".into()]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "somebody");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_before = date_time_ymd(years.0, 2, 28);
        params.not_after = date_time_ymd(years.1, 3, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn times_and_names_are_read() {
        let seconds = |facts: &Facts| (facts.not_before, facts.not_after);
        let facts_of = |years| facts(&made("requiem-operator", years)).unwrap();
        assert_eq!(facts_of((2024, 2026)).common_names.last().unwrap(), "requiem-operator");
        assert_eq!(seconds(&facts_of((2024, 2026))), (1_709_078_400, 1_772_323_200));
        // Beyond 2049 the times are written in the other form.
        assert_eq!(seconds(&facts_of((1999, 2100))), (920_160_000, 4_107_542_400));
    }

    #[test]
    fn nothing_is_read_from_nonsense() {
        let whole = made("name", (2024, 2026));
        for end in 0..whole.len() {
            // Whatever is cut off before the signature makes the outer length wrong.
            assert_eq!(facts(&whole[..end]), None);
        }
        assert_eq!(facts(b"\x30\x84\xff\xff\xff\xff"), None);
        assert_eq!(facts(b"\x30\x80"), None);
    }
}
