//! Names to addresses: one look-up a connection, checked, and nothing else is dialled.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::AddressRules;
use super::error::BlockedAddress;

/// Where the addresses of a name come from.
#[derive(Clone, Default)]
pub enum Lookup {
    /// The system's resolver.
    #[default]
    System,
    /// A function from names to addresses, for tests of what a hostile resolver could say.
    Scripted(Script),
}

/// A function from names to addresses.
pub type Script = Arc<dyn Fn(&str) -> Vec<IpAddr> + Send + Sync>;

impl fmt::Debug for Lookup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::System => "System",
            Self::Scripted(_) => "Scripted",
        })
    }
}

/// Resolves for the HTTP client and hands on only addresses that may be dialled.
#[derive(Debug)]
pub(super) struct CheckedResolver {
    pub(super) lookup: Lookup,
    pub(super) addresses: AddressRules,
    /// The configured proxy: named by the operator, so its addresses are not checked.
    pub(super) proxy_host: Option<String>,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = self.lookup.clone();
        let rules = if self.proxy_host.as_deref().is_some_and(|proxy| proxy.eq_ignore_ascii_case(name.as_str())) {
            None
        } else {
            Some(self.addresses.clone())
        };
        Box::pin(async move {
            let found = match lookup {
                Lookup::System => tokio::net::lookup_host((name.as_str(), 0)).await?.map(|found| found.ip()).collect(),
                Lookup::Scripted(answer) => answer(name.as_str()),
            };
            let checked = match rules {
                None => found,
                Some(rules) => allowed(&found, &rules)?,
            };
            let addresses: Addrs = Box::new(checked.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

/// The addresses that may be dialled; an answer without any is an error that names the kind of the first.
fn allowed(found: &[IpAddr], rules: &AddressRules) -> Result<Vec<IpAddr>, BlockedAddress> {
    let mut passed = Vec::new();
    let mut blocked = None;
    for address in found {
        match rules.check(*address) {
            Ok(()) => passed.push(address.to_canonical()),
            Err(kind) => blocked = blocked.or(Some(kind)),
        }
    }
    match blocked {
        Some(kind) if passed.is_empty() => Err(BlockedAddress(kind)),
        _ => Ok(passed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::AddressKind;

    #[test]
    fn only_addresses_that_passed_are_handed_on() {
        let of = |texts: &[&str]| {
            let found: Vec<IpAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
            allowed(&found, &AddressRules::default()).map(|passed| passed.len()).map_err(|blocked| blocked.0)
        };
        assert_eq!(of(&["8.8.8.8", "10.0.0.1", "::ffff:127.0.0.1"]), Ok(1));
        assert_eq!(of(&["::ffff:10.0.0.1", "127.0.0.1"]), Err(AddressKind::Private));
        assert_eq!(of(&[]), Ok(0));
    }
}
