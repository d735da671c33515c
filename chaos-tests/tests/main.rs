//! Tests of the simulator: it is deterministic, its promises hold on a few seeds of every profile and
//! on every seed that ever failed, and planted bugs are found.

mod regressions;
mod simulation;
mod tidy;
