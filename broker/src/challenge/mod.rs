//! Who answers, and how it is proved.

pub mod approval;
