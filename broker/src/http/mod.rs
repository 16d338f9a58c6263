//! HTTP: decode, call a verb, encode. Nothing is decided here but who is calling.
//!
//! Three origins, three listeners: people and API, registry endpoints, operations. They share no
//! route, since registry clients derive URLs from their host's root.

mod acts;
pub mod api;
mod app;
pub mod auth;
mod backups;
pub mod channels;
mod custody;
mod incident;
mod inspected;
pub mod listen;
mod log;
pub mod openapi;
pub mod operations;
mod own;
mod past;
pub mod registry;
pub mod reply;
pub mod routes;
pub mod seen;
mod spool;
mod tokens;
mod watched;
