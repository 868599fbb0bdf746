//! The program as its users see it.

mod content;
mod errors;
mod gc;
mod manager;
mod place;
mod setting_up;
mod upkeep;
