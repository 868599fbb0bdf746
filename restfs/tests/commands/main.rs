//! The program as its users see it.

mod content;
mod errors;
mod gc;
mod hostile;
mod manager;
mod place;
mod secrets;
mod setting_up;
mod upkeep;
