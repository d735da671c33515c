//! The contract of the store, told as stories: one binary.

mod crash;
mod damage;
mod faults;
mod fixture;
mod foreign;
mod model;
mod stories;
