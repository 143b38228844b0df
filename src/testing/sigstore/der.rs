//! Just enough DER to write what no crate here writes: timestamp tokens.

/// An element with this tag.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(length) if length < 0x80 => out.push(length),
        _ => {
            let length = content.len().to_be_bytes();
            let length = length.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
            out.push(0x80 | u8::try_from(length.len()).unwrap());
            out.extend(length);
        }
    }
    out.extend(content);
    out
}

/// SEQUENCE.
pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

/// SET OF, in DER's order.
pub(super) fn set(parts: &[&[u8]]) -> Vec<u8> {
    let mut parts = parts.to_vec();
    parts.sort_unstable();
    element(0x31, &parts.concat())
}

/// OCTET STRING.
pub(super) fn octets(bytes: &[u8]) -> Vec<u8> {
    element(0x04, bytes)
}

/// INTEGER, small.
pub(super) fn integer(value: u8) -> Vec<u8> {
    assert!(value < 0x80, "small numbers only");
    element(0x02, &[value])
}

/// OBJECT IDENTIFIER, such as `1.2.840.113549.1.7.2`.
pub(super) fn oid(text: &str) -> Vec<u8> {
    let oid: x509_cert::der::asn1::ObjectIdentifier = text.parse().unwrap();
    element(0x06, oid.as_bytes())
}
