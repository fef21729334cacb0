//! Whether addresses answer: ICMP echo requests at a steady pace, and what came of the last ones.
//!
//! | module | job |
//! | --- | --- |
//! | [`window`] | what follows from the last answers of one address |
//! | [`pace`] | which address is asked next, and when |
//! | [`prober`] | asking |

pub mod pace;
pub mod prober;
pub mod window;

pub use prober::{News, ProbeError, Prober};
pub use window::{Health, State};
