use std::io::Write;

use axum::http::HeaderValue;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::http::budget::BodyBudget;

const LIMIT: usize = 64 * 1024;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(text, 3).unwrap()
}

type Encoder = fn(&[u8]) -> Vec<u8>;

/// The encodings, each with its encoder.
const ENCODERS: [(Encoding, Encoder); 2] = [(Encoding::Gzip, gzip), (Encoding::Zstd, zstd)];

async fn decode(encoding: Encoding, body: Vec<u8>) -> Result<Vec<u8>, Problem> {
    let budget = BodyBudget::new(LIMIT);
    let decoded = encoding.decode(body.into(), budget.start(), LIMIT).await;
    decoded.map(|(bytes, _reserved)| bytes.to_vec())
}

/// The kind of the problem, after a check that its text has the key, the rule and `part`.
async fn refused(encoding: Encoding, body: Vec<u8>, part: &str) -> ProblemKind {
    let problem = decode(encoding, body).await.unwrap_err();
    let text = format!("{problem:?}");
    assert!(text.contains("\"body: ") && text.contains(part) && text.contains("field: Some(\"body\")"), "{text}");
    problem.kind()
}

fn of(values: &[&'static str]) -> Result<Option<Encoding>, Problem> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
    }
    Encoding::of(&headers)
}

#[test]
fn a_request_names_at_most_one_encoding() {
    for none in [&[][..], &["identity"], &["Identity, identity"], &[""], &[" , "]] {
        assert_eq!(of(none).unwrap(), None, "{none:?}");
    }
    for gzip in [&["gzip"][..], &["GZIP"], &["x-gzip"], &["identity", "gzip"], &[",gzip ,identity"]] {
        assert_eq!(of(gzip).unwrap(), Some(Encoding::Gzip), "{gzip:?}");
    }
    assert_eq!(of(&["zstd"]).unwrap(), Some(Encoding::Zstd));
    for (other, detail) in [
        (&["br"][..], "content-encoding: \\\"br\\\" is not one of gzip, zstd, identity"),
        (&["gzip, deflate"], "content-encoding: \\\"deflate\\\" is not one of gzip, zstd, identity"),
        (&["gzip, zstd"], "content-encoding: \\\"gzip, zstd\\\" is a second encoding; encode the body once"),
        (&["gzip", "gzip"], "content-encoding: \\\"gzip\\\" is a second encoding; encode the body once"),
    ] {
        let problem = of(other).unwrap_err();
        assert_eq!(problem.kind(), ProblemKind::UnsupportedEncoding, "{other:?}");
        let text = format!("{problem:?}");
        assert!(text.contains(detail) && text.contains("field: Some(\"content-encoding\")"), "{text}");
    }
}

#[tokio::test]
async fn a_stream_of_several_parts_is_joined() {
    for (encoding, encode) in ENCODERS {
        let several = [encode(b"one "), encode(b""), encode(b"two")].concat();
        assert_eq!(decode(encoding, several).await.unwrap(), b"one two", "{encoding:?}");
    }
    let skippable = [&0x184D_2A57_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"abc"].concat();
    let several = [skippable.clone(), zstd(b"one"), skippable].concat();
    assert_eq!(decode(Encoding::Zstd, several).await.unwrap(), b"one");
}

#[tokio::test]
async fn the_limit_is_that_of_the_decoded_bytes() {
    for (encoding, encode) in ENCODERS {
        assert_eq!(decode(encoding, encode(&[7; LIMIT])).await.unwrap(), [7; LIMIT], "{encoding:?}");
        let rule = "decodes to more than 65536 bytes";
        for body in [
            encode(&[7; LIMIT + 1]),
            encode(&vec![0; 256 * LIMIT]),
            [encode(&[7; LIMIT]), encode(b"x")].concat(),
            encode(b"x").repeat(LIMIT + 1),
        ] {
            assert_eq!(refused(encoding, body, rule).await, ProblemKind::BodyTooLarge, "{encoding:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_off_or_goes_on_is_refused() {
    for (encoding, encode) in ENCODERS {
        let whole = encode(b"the quick brown fox jumps over the lazy dog");
        let rule = if encoding == Encoding::Gzip { "whole members of gzip" } else { "whole frames of zstd" };
        for length in 1..whole.len() {
            let kind = refused(encoding, whole[..length].to_vec(), rule).await;
            assert_eq!(kind, ProblemKind::BodyUnreadable, "{encoding:?} {length}");
        }
        let second_is_cut = [&whole[..], &whole[..whole.len() - 1]].concat();
        let followed = |garbage: &[u8]| [&whole[..], garbage].concat();
        for body in [second_is_cut, followed(b"\0"), followed(b"garbage that goes on"), b"never encoded".to_vec()] {
            assert_eq!(refused(encoding, body, rule).await, ProblemKind::BodyUnreadable, "{encoding:?}");
        }
        let at_the_limit = [encode(&[7; LIMIT]), b"garbage".to_vec()].concat();
        assert_eq!(refused(encoding, at_the_limit, rule).await, ProblemKind::BodyUnreadable, "{encoding:?}");
    }
}

#[tokio::test]
async fn a_gzip_stream_with_a_wrong_checksum_is_refused() {
    let mut body = gzip(b"the quick brown fox");
    let checksum = body.len() - 8;
    body[checksum] ^= 1;
    assert_eq!(refused(Encoding::Gzip, body, "gzip").await, ProblemKind::BodyUnreadable);
}

#[tokio::test]
async fn zstd_frames_that_need_much_memory_or_are_older_than_the_standard_are_refused() {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(24).unwrap();
    encoder.write_all(b"a little text").unwrap();
    let large_window = encoder.finish().unwrap();
    let kind = refused(Encoding::Zstd, large_window, "windows of at most 8 MiB").await;
    assert_eq!(kind, ProblemKind::BodyUnreadable);
    let old_format = [&0xFD2F_B527_u32.to_le_bytes()[..], &[0; 16]].concat();
    let kind = refused(Encoding::Zstd, old_format, "a frame has an unknown beginning").await;
    assert_eq!(kind, ProblemKind::BodyUnreadable);
}

#[tokio::test]
async fn the_room_for_the_largest_body_is_returned_after_the_decoding() {
    let budget = BodyBudget::new(LIMIT);
    let mut others = budget.start();
    let (decoded, room) = Encoding::Gzip.decode(gzip(&[7; 5000]).into(), budget.start(), LIMIT).await.unwrap();
    others.grow_to(budget.free_bytes()).await.unwrap();
    assert_eq!(budget.free_bytes(), 0);
    drop((decoded, room));
    assert_eq!(budget.free_bytes(), 5 * 1024, "5000 bytes take five units");
    let problem = Encoding::Gzip.decode(gzip(b"x").into(), budget.start(), LIMIT).await.map(drop).unwrap_err();
    assert_eq!(problem.kind(), ProblemKind::Busy);
}
