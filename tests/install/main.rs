//! The chart on real nodes, as a user has it.
