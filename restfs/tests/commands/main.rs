//! The program as its users see it.

mod content;
mod errors;
mod place;
mod setting_up;
mod upkeep;
