//! Which addresses may be dialled (threats.md, rule N): decided on the address itself, after resolution.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressKind {
    /// Routed on the internet.
    Public,
    /// This machine.
    Loopback,
    /// A private network: RFC 1918, unique local IPv6, carrier-grade NAT, benchmarking.
    Private,
    /// This link; the metadata services of clouds live here.
    LinkLocal,
    /// A metadata service of a cloud outside the link-local range.
    Metadata,
    /// Multicast, broadcast, unspecified, documentation, reserved: nobody's address.
    Unroutable,
}

impl AddressKind {
    /// The kind of `address`. IPv6 forms that carry an IPv4 address are judged by that address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => of_v4(v4),
            IpAddr::V6(v6) => of_v6(v6),
        }
    }

    /// As a word in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Metadata => "metadata",
            Self::Unroutable => "unroutable",
        }
    }
}

/// Which addresses one client may dial beyond public ones.
#[derive(Debug, Clone, Default)]
pub struct AddressRules {
    /// Loopback addresses.
    pub loopback: bool,
    /// Private addresses; loopback is not among them.
    pub private: bool,
    /// Exactly these, whatever they are: the operator wrote them down.
    pub named: Vec<IpAddr>,
}

impl AddressRules {
    /// Whether `address` may be dialled.
    ///
    /// # Errors
    /// Its kind, when it may not.
    pub fn check(&self, address: IpAddr) -> Result<(), AddressKind> {
        let address = address.to_canonical();
        let kind = AddressKind::of(address);
        let allowed = match kind {
            AddressKind::Public => true,
            AddressKind::Loopback => self.loopback,
            AddressKind::Private => self.private,
            AddressKind::LinkLocal | AddressKind::Metadata | AddressKind::Unroutable => false,
        };
        if allowed || self.named.iter().any(|named| named.to_canonical() == address) { Ok(()) } else { Err(kind) }
    }
}

fn of_v4(address: Ipv4Addr) -> AddressKind {
    let [a, b, c, d] = address.octets();
    match (a, b, c, d) {
        (127, ..) => AddressKind::Loopback,
        (100, 100, 100, 200) | (192, 0, 0, 192) => AddressKind::Metadata,
        (169, 254, ..) => AddressKind::LinkLocal,
        (10, ..) | (172, 16..=31, ..) | (192, 168, ..) | (100, 64..=127, ..) | (198, 18..=19, ..) => {
            AddressKind::Private
        }
        // 0/8 "this network", IETF protocol assignments, documentation, 6to4 relays, multicast, reserved, broadcast.
        (0 | 224..=255, ..) | (192, 0, 0 | 2, _) | (192, 88, 99, _) | (198, 51, 100, _) | (203, 0, 113, _) => {
            AddressKind::Unroutable
        }
        _ => AddressKind::Public,
    }
}

fn of_v6(address: Ipv6Addr) -> AddressKind {
    if address == Ipv6Addr::LOCALHOST {
        return AddressKind::Loopback;
    }
    if let Some(embedded) = embedded_v4(address) {
        return of_v4(embedded);
    }
    match address.segments() {
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => AddressKind::Metadata,
        [0xfe80..=0xfebf, ..] => AddressKind::LinkLocal,
        // Unique local, and the deprecated site local.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => AddressKind::Private,
        // Global unicast is 2000::/3; within it: Teredo, benchmarking, ORCHID, documentation.
        [0x2001, 0 | 2 | 0x10..=0x2f | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => AddressKind::Unroutable,
        [0x2000..=0x3fff, ..] => AddressKind::Public,
        _ => AddressKind::Unroutable,
    }
}

/// The IPv4 address that reaches the wire: mapped, compatible, 6to4 and NAT64 forms.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(join(high, low))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> AddressKind {
        AddressKind::of(text.parse().unwrap())
    }

    #[test]
    fn each_range_is_known_on_both_sides_of_its_border() {
        let rows = [
            ("9.255.255.255", AddressKind::Public),
            ("10.0.0.0", AddressKind::Private),
            ("10.255.255.255", AddressKind::Private),
            ("11.0.0.0", AddressKind::Public),
            ("100.63.255.255", AddressKind::Public),
            ("100.64.0.0", AddressKind::Private),
            ("100.127.255.255", AddressKind::Private),
            ("100.128.0.0", AddressKind::Public),
            ("100.100.100.200", AddressKind::Metadata),
            ("126.255.255.255", AddressKind::Public),
            ("127.0.0.0", AddressKind::Loopback),
            ("127.255.255.255", AddressKind::Loopback),
            ("128.0.0.0", AddressKind::Public),
            ("169.253.255.255", AddressKind::Public),
            ("169.254.0.0", AddressKind::LinkLocal),
            ("169.254.169.254", AddressKind::LinkLocal),
            ("169.255.0.0", AddressKind::Public),
            ("172.15.255.255", AddressKind::Public),
            ("172.16.0.0", AddressKind::Private),
            ("172.31.255.255", AddressKind::Private),
            ("172.32.0.0", AddressKind::Public),
            ("192.0.0.192", AddressKind::Metadata),
            ("192.0.2.1", AddressKind::Unroutable),
            ("192.167.255.255", AddressKind::Public),
            ("192.168.0.0", AddressKind::Private),
            ("192.169.0.0", AddressKind::Public),
            ("198.18.0.1", AddressKind::Private),
            ("198.20.0.0", AddressKind::Public),
            ("0.0.0.0", AddressKind::Unroutable),
            ("223.255.255.255", AddressKind::Public),
            ("224.0.0.1", AddressKind::Unroutable),
            ("255.255.255.255", AddressKind::Unroutable),
            ("::", AddressKind::Unroutable),
            ("::1", AddressKind::Loopback),
            ("fe80::1", AddressKind::LinkLocal),
            ("fec0::1", AddressKind::Private),
            ("fc00::1", AddressKind::Private),
            ("fd00:ec2::254", AddressKind::Metadata),
            ("ff02::1", AddressKind::Unroutable),
            ("2001:db8::1", AddressKind::Unroutable),
            ("2001::1", AddressKind::Unroutable),
            ("2606:4700::1", AddressKind::Public),
            ("4000::1", AddressKind::Unroutable),
        ];
        for (text, expected) in rows {
            assert_eq!(kind(text), expected, "{text}");
        }
    }

    #[test]
    fn an_ipv4_address_is_found_in_all_its_ipv6_disguises() {
        for text in ["::ffff:169.254.169.254", "::169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"] {
            assert_eq!(kind(text), AddressKind::LinkLocal, "{text}");
        }
        assert_eq!(kind("::ffff:127.0.0.1"), AddressKind::Loopback);
        assert_eq!(kind("::ffff:8.8.8.8"), AddressKind::Public);
    }

    #[test]
    fn each_permission_opens_its_own_range_only() {
        let check = |rules: &AddressRules, text: &str| rules.check(text.parse().unwrap()).is_ok();
        let none = AddressRules::default();
        let loopback = AddressRules { loopback: true, ..AddressRules::default() };
        let private = AddressRules { private: true, ..AddressRules::default() };
        let named = AddressRules { named: vec!["169.254.1.5".parse().unwrap()], ..AddressRules::default() };
        for (rules, allowed) in [(&none, ""), (&loopback, "127.0.0.1"), (&private, "10.0.0.1"), (&named, "169.254.1.5")]
        {
            assert!(check(rules, "8.8.8.8"));
            for text in ["127.0.0.1", "10.0.0.1", "169.254.1.5", "169.254.1.6", "100.100.100.200", "224.0.0.1"] {
                assert_eq!(check(rules, text), text == allowed, "{rules:?} {text}");
            }
        }
        assert!(check(&named, "::ffff:169.254.1.5"));
    }
}
