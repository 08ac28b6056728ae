//! The heap walker: reads the heap of the Ruby process that it is loaded into, and writes it as a heap graph.
//!
//! This crate becomes one shared object without Ruby's headers and without a C library, so the same file works on every Ruby
//! since 3.1 and on glibc and musl alike. The dumper loads it after its fork, in a process of its own; nothing of it is in the
//! worker. It allocates no Ruby object, starts no collection, and writes no value of the application. Before it walks, it proves that
//! it understands this Ruby ([`proof`]). It must not know the store, the configuration or compression.
//!
//! `crates/diagctl/build.rs` compiles it with `--cfg freestanding`. Without that, it is an ordinary library, for its unit tests.

#![cfg_attr(freestanding, no_std)]

mod code;
mod content;
mod counts;
mod describe;
mod edges;
mod fault;
mod graph;
mod json;
pub mod layout;
pub mod memory;
mod names;
pub mod output;
mod proof;
mod receiver;
pub mod request;
pub mod ruby;
mod run;
pub mod siphash;
pub mod status;
mod sys;
mod threads;
mod walk;

pub use run::run;
