//! Outgoing HTTP, once: time limits, roots, address checks, bounded reading. The home of `reqwest`.
