//! HTTP/2 frames that no library sends.

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Disables the header table, so that responses can be read without one.
pub(crate) fn opening() -> Vec<u8> {
    const NO_TABLE: &[u8] = &[0, 1, 0, 0, 0, 0];
    [PREFACE, &frame(SETTINGS, 0, 0, NO_TABLE)].concat()
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a length of 24 bits").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Encodes fields as literals, neither indexed nor compressed.
pub(crate) fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            length(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

fn length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        block.push(length.to_le_bytes()[0]);
        return;
    };
    block.push(127);
    while rest >= 128 {
        block.push((rest % 128).to_le_bytes()[0] | 128);
        rest /= 128;
    }
    block.push(rest.to_le_bytes()[0]);
}

/// Statuses, resets and GOAWAY frames, in order.
pub(crate) fn answers(mut received: &[u8]) -> Vec<String> {
    let mut answers = Vec::new();
    while let Some((head, rest)) = received.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        match head[3] {
            // Trailers would have no status, but Envoy sends none here.
            HEADERS => answers.push(status(payload).unwrap_or_else(|| "headers".to_owned())),
            RST_STREAM => answers.push("reset".to_owned()),
            GOAWAY => answers.push("goaway".to_owned()),
            _ => {}
        }
        received = rest;
    }
    // GOAWAY and the end of streams count once.
    if let Some(at) = answers.iter().position(|answer| answer == "goaway") {
        answers.truncate(at + 1);
    }
    answers
}

/// The status in a block, where it is always first.
fn status(block: &[u8]) -> Option<String> {
    const INDEXED: [&str; 7] = ["200", "204", "206", "304", "400", "404", "500"];
    // Envoy may first send the size of its table.
    let block = match block {
        [update, rest @ ..] if update & 0xe0 == 0x20 => rest,
        block => block,
    };
    match block {
        [index @ 0x88..=0x8e, ..] => Some(INDEXED[usize::from(index - 0x88)].to_owned()),
        // A literal with the name `:status`.
        [0x48 | 0x08 | 0x18, 3, digits @ ..] => {
            Some(String::from_utf8_lossy(digits.get(..3)?).into_owned())
        }
        [0x48 | 0x08 | 0x18, length, digits @ ..] if length & 0x80 != 0 => {
            Some(huffman_digits(digits.get(..usize::from(length & 0x7f))?))
        }
        _ => None,
    }
}

/// In Huffman's code, 0, 1 and 2 have five bits, the other digits six.
fn huffman_digits(bytes: &[u8]) -> String {
    let bits: Vec<u8> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number * 2 + bit);
    let mut bits = bits.as_slice();
    let mut text = String::new();
    while text.len() < 3 && bits.len() >= 5 {
        let short = number(&bits[..5]);
        let (digit, used) = match short {
            0..=2 => (short, 5),
            _ if bits.len() >= 6 => (number(&bits[..6]).wrapping_sub(0x19) + 3, 6),
            _ => break,
        };
        text.push(char::from(b'0' + digit));
        bits = &bits[used..];
    }
    text
}
