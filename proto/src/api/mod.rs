//! The JSON that travels between client and broker.

mod admin;
mod answer;
mod enroll;
mod job;
mod lists;
mod log;

pub use admin::*;
pub use answer::*;
pub use enroll::*;
pub use job::*;
pub use lists::*;
pub use log::*;
