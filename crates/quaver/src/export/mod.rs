//! Files for other tools: a question about one or two nets as a C program ([`write_c`]) or as a formula over bit vectors ([`write_smtlib`]).
//!
//! Both writers walk the net itself, each in one file with one match over the four operations. What is written means what Quaver executes:
//! integers bit for bit; a file that sums in binary64 says so, and [`as_doubles`] is the set of executions that it belongs to.

mod c;
mod doubles;
mod question;
mod smtlib;
mod sums;

pub use c::{CFile, write_c};
pub use doubles::as_doubles;
pub use question::{Claim, ExportError, Network, Question};
pub use smtlib::{InputForm, write_smtlib};
