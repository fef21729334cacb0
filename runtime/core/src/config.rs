//! The network config: `<prefix>/config`.
