//! The program as its users see it.

mod content;
mod errors;
mod hostile;
mod place;
mod secrets;
mod setting_up;
mod upkeep;
