//! Placeholder.
use anyhow::Result;
use crate::session::Session;
/// X.
#[derive(clap::Args)]
pub struct Args {}
/// X.
pub fn run(_: &Args, _: &mut Session<'_>) -> Result<()> { Ok(()) }
